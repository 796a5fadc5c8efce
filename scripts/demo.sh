#!/usr/bin/env bash
# From nothing to a comparison of interfaces: installs into .venv, makes the mini corpus, trains intent classification
# on tiny_hubert with four interfaces side by side, prints the leaderboard. No download but the packages.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
install mini
began=$SECONDS
# Small tensors: on a busy machine threads cost more than they save.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

batch=config.downstream_expert.datarc.train_batch_size
s3prl-interfaces mini-superb mini_superb_data --corpora fluent_speech_commands
# 200 steps of half of SUPERB's batch, not the 500 steps of configs/mini: a demo is short.
# -a: one that was interrupted goes on where it was
python scripts/run_downstream.py -m train -a -n demo -d ic \
    -c configs/ic.yaml configs/mini/ic.yaml configs/mini/quick/ic.yaml \
    -o "config.runner.total_steps=200,,config.runner.eval_step=100,,config.runner.save_step=100,,$batch=16" \
    --interface weighted_sum hconv cls_pooling last_layer
s3prl-interfaces leaderboard result/downstream/demo

echo "The demo took $((SECONDS - began)) s, installation aside."
