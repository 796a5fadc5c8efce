"""Which weights are scored, and how a head reads audio files itself."""

import json

import numpy as np
import pytest
import soundfile
import torch

from s3prl_interfaces import load_experiment
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments, run
from s3prl_interfaces.runner.checkpoint import load_checkpoint
from tests.runner import toys
from tests.runner.toys import toy_run

LOSSES = {4: 3.0, 8: 1.0, 12: 2.0}
"""Of test by step: the best is neither the first nor the last."""


def selecting(split):
    """A toy task that keeps its best on test, and says that it selects on ``split`` (None: says nothing)."""

    class DownstreamExpert(toys.DownstreamExpert):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.protocol = {"checkpoint_rule": "toy"}
            if split is not None:
                self.selects_on = split

        def log_records(self, split, records, logger, global_step, **kwargs):
            names = super().log_records(split, records=records, logger=logger, global_step=global_step, **kwargs)
            sofar = [loss for step, loss in LOSSES.items() if step <= global_step]
            if split == "test" and global_step in LOSSES and LOSSES[global_step] == min(sofar):
                names = ["test-best.ckpt"]
            return names

    return DownstreamExpert


@pytest.mark.parametrize(
    ("split", "kept"), [("test", "test-best.ckpt"), ("dev", "dev-best.ckpt"), (None, "dev-best.ckpt")]
)
@pytest.mark.parametrize("evaluated", [["dev", "test"], ["test", "dev"]])
def test_a_best_on_test_is_scored_only_if_the_task_says_so(
    toy_task, tmp_path, monkeypatch, caplog, split, kept, evaluated
):
    monkeypatch.setattr(toy_task, "DownstreamExpert", selecting(split))
    with caplog.at_level("INFO"):
        folder = toy_run(tmp_path, {"runner": {"eval_dataloaders": evaluated}})
    assert load_checkpoint(folder / "test-best.ckpt")["Step"] == 8
    scored = load_checkpoint(folder / kept)
    result = read_result(folder / "results.json")
    assert result.metrics["test"]["step"] == scored["Step"]
    assert (scored["Step"] == 8) == (split == "test")
    assert load_checkpoint(folder / "states-12.ckpt")["Best"] == kept
    assert result.protocol == {"checkpoint_rule": "toy"}
    assert f"best on {split or 'dev'} at step {scored['Step']}" in caplog.text


def test_a_continued_run_knows_its_best_on_test(toy_task, tmp_path, monkeypatch):
    monkeypatch.setattr(toy_task, "DownstreamExpert", selecting("test"))
    runner = {"eval_dataloaders": ["test"]}
    folder = toy_run(tmp_path, {"runner": {**runner, "total_steps": 9}})
    assert read_result(folder / "results.json").metrics["test"]["step"] == 8
    toy_run(tmp_path, {"runner": runner}, auto_resume=True, override="config.runner.total_steps=12")
    assert read_result(folder / "results.json").metrics["test"]["step"] == 8
    assert load_checkpoint(folder / "states-12.ckpt")["Best"] == "test-best.ckpt"


@pytest.fixture
def reading_head(toy_task, monkeypatch):
    """A head that reads files itself: the second half alone."""

    def load_audio(self, path):
        samples, _ = soundfile.read(path, dtype="float32")
        return samples[len(samples) // 2 :]

    monkeypatch.setattr(toys.DownstreamExpert, "load_audio", load_audio, raising=False)


def test_a_head_may_read_files_itself(reading_head, tmp_path, monkeypatch):
    """As S3PRL's runner asks it to (``s3prl/downstream/runner.py``)."""
    folder = toy_run(tmp_path)
    wav = torch.randn(6400, generator=torch.Generator().manual_seed(0)).numpy()
    soundfile.write(tmp_path / "a.wav", wav, 16000, subtype="FLOAT")
    model = load_experiment(folder, device="cpu")
    (feature,) = model.features([tmp_path / "a.wav"])
    assert len(feature) == 10
    assert np.array_equal(feature.detach(), model.features([wav[3200:]])[0].detach())
    assert len(model.features([wav])[0]) == 20
    seen = []
    monkeypatch.setattr(
        toys.DownstreamExpert, "predict", lambda self, features: [seen.append(len(f)) or {} for f in features]
    )
    run(RunArguments(mode="inference", past_exp=str(folder), evaluate_split=str(tmp_path / "a.wav"), device="cpu"))
    assert seen == [10]


def test_metrics_of_the_best_on_test_are_its_own(toy_task, tmp_path, monkeypatch):
    monkeypatch.setattr(toy_task, "DownstreamExpert", selecting("test"))
    folder = toy_run(tmp_path, {"runner": {"eval_dataloaders": ["test"]}})
    run(RunArguments(mode="evaluate", past_exp=str(folder / "test-best.ckpt"), evaluate_split="test", device="cpu"))
    content = json.loads((folder / "evaluate/test-best-test/metrics.json").read_text())
    assert content["metrics"]["loss"] == pytest.approx(read_result(folder / "results.json").metrics["test"]["loss"])
