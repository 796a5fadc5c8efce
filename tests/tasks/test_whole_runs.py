"""Each task from its mini corpus to results.json with the shipped configs, and its trained model in use elsewhere."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import yaml

from downstream_tasks.registry import TASKS
from s3prl_interfaces import load_experiment
from s3prl_interfaces.cli import main, run_downstream
from s3prl_interfaces.results import read_result
from s3prl_interfaces.results.predictions import read_scores
from tests.runner.toys import Upstream
from tests.tasks.mini import CORPORA, lay_out

PROTOCOLS = {  # SUPERB's
    "asr": {"batch_rule": "superb", "eos_in_targets": True, "decoder": "greedy"},
    "pr": {"windows": "overlapping", "half_window_rule": True, "eos_in_targets": True, "stress": "keep"},
    "ks": {"accuracy": "pooled", "train_sampling": "balanced", "dev_sampling": "balanced", "dev_noise": "shared"},
    "sid": {"accuracy": "pooled"},
    "sv": {
        "checkpoint_rule": "best_of_test",
        "hold_out_dev_speakers": False,
        "pooling_mask": "superb",
        "silence": "removed",
    },
    "er": {"accuracy": "pooled", "dev_split": "random"},
    "ic": {"accuracy": "pooled"},
    "sf": {"windows": "overlapping", "half_window_rule": True, "eos_in_targets": True},
}
PRIMARY = {
    "asr": "wer",
    "pr": "per",
    "ks": "acc",
    "sid": "acc",
    "sv": "EER",
    "er": "acc",
    "ic": "acc",
    "sf": "slot_type_f1",
}
ANSWERS = {
    "asr": {"transcript"},
    "pr": {"phonemes"},
    "ks": {"keyword"},
    "sid": {"speaker"},
    "sv": {"embedding"},
    "er": {"emotion"},
    "ic": {"action", "object", "location"},
    "sf": {"transcript", "slots"},
}


def build(**_):
    """The upstream."""
    return Upstream()


@pytest.fixture(scope="module", params=[task.name for task in TASKS])
def task(request):
    return request.param


@pytest.fixture(scope="module")
def folder(task, request, tmp_path_factory):
    """A finished run of three updates, beside its corpus."""
    folder = tmp_path_factory.mktemp(task)
    lay_out(task, request, folder)
    overlay = {"runner": {"total_steps": 3, "eval_step": 3, "save_step": 3, "log_step": 1}}
    if task == "ks":
        overlay["downstream_expert"] = {"datarc": {"batch_size": 4}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(overlay))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        configs = [f"configs/{task}.yaml", f"configs/mini/{task}.yaml", f"configs/mini/quick/{task}.yaml", "tiny.yaml"]
        flags = ["-m", "train", "-d", task, "-u", f"{__name__}:build", "-p", "run", "--device", "cpu"]
        assert run_downstream([*flags, "--interface", "hconv", "-c", *configs]) == 0
    return folder


def test_the_result_says_what_was_done(task, folder):
    result = json.loads((folder / "run" / "results.json").read_text())
    assert result["task"] == task
    assert result["interface"] == "hconv"
    assert result["primary"]["name"] == PRIMARY[task]
    assert result["protocol"] == PROTOCOLS[task]
    assert np.isfinite(result["primary"]["value"])
    assert result["counts"][result["primary"]["split"]] > 0
    # The predictions on disk give the score, utterance by utterance, so that runs can be compared.
    assert read_scores(read_result(folder / "run" / "results.json"), folder / "run") is not None


def test_an_evaluation_of_the_checkpoint_gives_the_results_again(task, folder, monkeypatch):
    monkeypatch.chdir(folder)
    result = json.loads((folder / "run" / "results.json").read_text())
    split = result["primary"]["split"]
    (checkpoint,) = [*(folder / "run").glob("*-best.ckpt")] or [folder / "run" / "states-3.ckpt"]
    assert run_downstream(["-m", "evaluate", "-e", str(checkpoint), "-t", split, "--device", "cpu"]) == 0
    (metrics,) = (folder / "run" / "evaluate").rglob("metrics.json")
    metrics = json.loads(metrics.read_text())
    assert metrics["utterances"] == result["counts"][split]
    expected = {name: value for name, value in result["metrics"][split].items() if name != "step"}
    assert metrics["metrics"] == pytest.approx(expected, abs=1e-6)


def test_the_trained_model_needs_no_corpus(task, folder, monkeypatch, tmp_path):
    """In another folder, where nothing that the config names is there: features, predictions, inference."""
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / "states.ckpt"
    shutil.copy(folder / "run" / "states-3.ckpt", checkpoint)
    generator = torch.Generator().manual_seed(0)
    wavs = [0.1 * torch.randn(samples, generator=generator) for samples in (16000, 9000)]
    for index, wav in enumerate(wavs):
        soundfile.write(tmp_path / f"{index}.wav", wav.numpy(), 16000, subtype="FLOAT")
    model = load_experiment(checkpoint, device="cpu")
    answers = model.predict(wavs)
    assert [set(answer) for answer in answers] == [ANSWERS[task]] * 2
    files = [tmp_path / "0.wav", tmp_path / "1.wav"]
    for one, other in zip(answers, model.predict(files), strict=True):
        assert all(np.array_equal(one[key], other[key]) for key in one)
    for wav, file in zip(model.features(wavs), model.features(files), strict=True):
        assert torch.equal(wav, file)
        assert wav.shape[1] == model.featurizer.output_dim
    states = torch.load(checkpoint, weights_only=True)
    assert all(torch.equal(value, states["Downstream"][key]) for key, value in model.head.state_dict().items())

    before = set(tmp_path.iterdir())
    flags = ["-m", "inference", "-e", str(checkpoint), "-t", str(tmp_path), "--device", "cpu"]
    assert run_downstream(flags) == 0
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"run"}  # the run's folder, as S3PRL
    (written,) = (tmp_path / "run" / "inference").rglob("inference.*")
    lines = written.read_text().splitlines()
    names = [line.replace(",", " ").split()[0] for line in lines]
    assert names == ["0", "1"]
    assert main(["features", str(checkpoint), "0.wav", "features", "--device", "cpu"]) == 0
    assert np.array_equal(np.load("features/0.wav.npy"), model.features(wavs[:1])[0].numpy())


def test_prepare_finds_the_corpus_complete(task, folder, capsys):
    _, name = CORPORA[task]
    assert main(["prepare", task, str(folder / "mini_superb_data" / name)]) == 0
    assert capsys.readouterr().out.strip()


def test_prepare_says_what_is_missing(task, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["prepare", task, str(tmp_path / "empty")]) == 2
    error = capsys.readouterr().err
    assert "empty" in error
    assert "Traceback" not in error


@pytest.mark.nightly
def test_superbs_own_config_runs_with_nothing_changed_but_places_and_steps(task, folder, monkeypatch):
    """At SUPERB's widths and batch sizes: two updates, and the score of whole splits."""
    monkeypatch.chdir(folder)
    steps = "config.runner.total_steps=2,,config.runner.eval_step=2,,config.runner.save_step=2"
    flags = ["-m", "train", "-d", task, "-u", f"{__name__}:build", "-p", "superb", "--device", "cpu", "-o", steps]
    assert run_downstream([*flags, "-c", f"configs/{task}.yaml", f"configs/mini/{task}.yaml"]) == 0
    result = json.loads((folder / "superb" / "results.json").read_text())
    assert result["protocol"] == PROTOCOLS[task]
    assert np.isfinite(result["primary"]["value"])
