#!/usr/bin/env bash
# From nothing to a comparison of interfaces: installs into .venv, makes the mini corpus, trains intent classification
# with three interfaces side by side, prints the leaderboard. No download but the packages.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
install mini
began=$SECONDS
# The demo's tensors are so small that threads cost more than they save, above all on a busy machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

s3prl-interfaces mini-superb mini_superb_data --corpora fluent_speech_commands
# -a: a demo that was interrupted goes on where it was
python scripts/run_downstream.py -m train -a -n demo -u scripts/demo_upstream.py:build -d ic \
    -c configs/ic.yaml configs/mini/ic.yaml configs/mini/quick/ic.yaml --interface weighted_sum concat hconv
s3prl-interfaces leaderboard result/downstream/demo

echo "The demo took $((SECONDS - began)) s, installation aside."
