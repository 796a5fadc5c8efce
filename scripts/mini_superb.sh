#!/usr/bin/env bash
# Every SUPERB task on the mini corpora, once with each interface, then the leaderboard:
#     [UPSTREAM=hubert] bash scripts/mini_superb.sh [INTERFACE ...]
# Runs that are finished are left as they are, one that was interrupted goes on where it was.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
install mini
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # as in demo.sh
upstream="${UPSTREAM:-scripts/demo_upstream.py:build}"
interfaces=("$@")
if [ $# -eq 0 ]; then
    interfaces=(weighted_sum hconv)
fi

s3prl-interfaces mini-superb mini_superb_data
for task in pr asr ks sid sv er ic sf; do
    folds=""
    if [ "$task" = er ]; then
        folds=--all-folds
    fi
    for interface in "${interfaces[@]}"; do
        python scripts/run_downstream.py -m train -a -n "mini_superb/$task-$interface" -u "$upstream" -d "$task" \
            -c "configs/$task.yaml" "configs/mini/$task.yaml" "configs/mini/quick/$task.yaml" \
            --interface "$interface" $folds
    done
done
s3prl-interfaces leaderboard result/downstream/mini_superb
