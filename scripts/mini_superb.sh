#!/usr/bin/env bash
# SUPERB tasks on the mini corpora, all interfaces of a task over one pass of the upstream, then the leaderboard:
#     [UPSTREAM=hubert] [TASKS="ic er sid asr"] [SEEDS="1 2"] bash scripts/mini_superb.sh [INTERFACE ...]
# Lanes that are finished are left as they are, those that were interrupted go on where they were.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
install mini
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # as in demo.sh
upstream="${UPSTREAM:-tiny_hubert}"
tasks="${TASKS:-pr asr ks sid sv er ic sf}"
seeds="${SEEDS:-1337}"
interfaces=("$@")
if [ $# -eq 0 ]; then
    interfaces=(weighted_sum hconv)
fi

s3prl-interfaces mini-superb mini_superb_data
for task in $tasks; do
    folds=""
    if [ "$task" = er ]; then
        folds=--all-folds
    fi
    # shellcheck disable=SC2086 (several seeds, or no folds)
    python scripts/run_downstream.py -m train -a -n "mini_superb/$task" -u "$upstream" -d "$task" \
        -c "configs/$task.yaml" "configs/mini/$task.yaml" "configs/mini/quick/$task.yaml" \
        --interface "${interfaces[@]}" --seeds $seeds $folds
done
s3prl-interfaces leaderboard result/downstream/mini_superb
