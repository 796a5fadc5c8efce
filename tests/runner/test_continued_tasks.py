"""Our own tasks, continued from a checkpoint in the middle of an epoch: crops, masks, loaders with workers and all."""

import shutil
from pathlib import Path

import pytest
import torch

from s3prl_interfaces.runner import RunArguments, run
from s3prl_interfaces.runner.checkpoint import load_checkpoint
from tests.runner.test_stopping import entries

UPSTREAM = f"{Path(__file__).parents[2] / 'scripts' / 'demo_upstream.py'}:build"
BLOCKS = {"pr": "corpus", "sf": "corpus"}
FEW = ("ic", "sid", "asr")
"""What CI looks at: a plain task, one with random crops, one with masks and CTC."""
SMALL = {"sid": "datarc.train_batch_size", "ks": "datarc.batch_size", "sf": "corpus.batch_size"}
"""What makes more than four batches of the small corpora that have fewer."""


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(task, marks=[] if task in FEW else [pytest.mark.nightly])
        for task in ("ic", "sid", "asr", "er", "ks", "pr", "sf", "sv")
    ],
)
def test_continued(corpora, tmp_path, monkeypatch, task):
    monkeypatch.chdir(corpora)
    settings = {"total_steps": 4, "eval_step": 3, "save_step": 2, "log_step": 3, "max_keep": 9}
    override = ",,".join(f"config.runner.{key}={value}" for key, value in settings.items())
    override += ",,config.runner.gradient_accumulate_steps=2"
    override += f",,config.downstream_expert.{BLOCKS.get(task, 'datarc')}.num_workers=2"
    if task in SMALL:
        override += f",,config.downstream_expert.{SMALL[task]}=2"

    def train(place):
        run(
            RunArguments(
                mode="train",
                upstream=UPSTREAM,
                downstream=task,
                config=[f"configs/{task}.yaml", f"configs/mini/{task}.yaml", f"configs/mini/quick/{task}.yaml"],
                interface=["hconv"],
                expdir=str(place),
                device="cpu",
                override=override,
                auto_resume=True,
            )
        )
        assert load_checkpoint(place / "states-2.ckpt")["Batches"] > 0  # or it is not in the middle of an epoch
        states = load_checkpoint(place / "states-4.ckpt")
        return dict(entries({key: value for key, value in states.items() if key not in ("Args", "Seconds")}))

    whole = train(tmp_path / "whole")
    (tmp_path / "stopped").mkdir()
    shutil.copy(tmp_path / "whole/states-2.ckpt", tmp_path / "stopped")
    stopped = train(tmp_path / "stopped")
    assert whole.keys() == stopped.keys()
    assert any(key.startswith(".Records") for key in whole)
    for key, value in whole.items():
        same = torch.equal(value, stopped[key]) if isinstance(value, torch.Tensor) else value == stopped[key]
        assert same, key
