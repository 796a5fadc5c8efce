"""Runs on a device beside the CPU: nothing is left on the wrong one."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from s3prl_interfaces import list_interfaces, load_experiment
from s3prl_interfaces.cli import main
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments, device, experiment, run
from s3prl_interfaces.runner.checkpoint import load_checkpoint
from tests.runner.toys import toy_run
from tests.second_device import DEVICE, run_with_it

FEW = ("ic", "asr")
"""What CI looks at."""
QUICK = "config.runner.total_steps=3,,config.runner.eval_step=3,,config.runner.save_step=3,,config.runner.log_step=2"

PLAIN = ",,config.optimizer.torch_optim_name=SGD,,config.optimizer.lr=0.01"
"""Adam makes large steps of the smallest rounding."""


def on_it(work, *args):
    """What ``work(*args)`` gives where ``--device auto`` is the second device."""
    return run_with_it(_chosen, work, args)


def _chosen(work, args):
    device.choose_device = experiment.choose_device = lambda name: torch.device(DEVICE, 0)
    return work(*args)


def mixtures():
    """Of each way to mix the devices, whether it fails."""
    there = torch.arange(6.0, device=DEVICE).view(2, 3)
    here = torch.arange(6.0).view(2, 3)
    layer = nn.Linear(3, 2)
    ways = {
        "product": lambda: here @ there.T,
        "layer": lambda: layer(there),
        "moved layer": lambda: nn.Linear(3, 2).to(DEVICE)(here),
        "index elsewhere": lambda: here[torch.zeros(2, 3, dtype=torch.bool, device=DEVICE)],
        "numpy": there.numpy,
        "generator": lambda: torch.randn(3, device=DEVICE, generator=torch.Generator()),
        "number": lambda: there * torch.tensor(2.0) + there.sum().item(),
        "index": lambda: there[torch.tensor([0, 1])],
        "moved": lambda: there.cpu() + here,
        "made there": lambda: torch.tensor([[1.0, 2.0, 3.0]], device=DEVICE) + there,
    }
    return {name: fails(way) for name, way in ways.items()}


def fails(way):
    try:
        way()
    except (RuntimeError, TypeError):
        return True
    return False


def test_mixtures_fail_as_with_cuda():
    wrong = dict.fromkeys(("product", "layer", "moved layer", "index elsewhere", "numpy", "generator"), True)
    assert run_with_it(mixtures) == wrong | dict.fromkeys(("number", "index", "moved", "made there"), False)


def lstm_gradients(where):
    """Of a bidirectional LSTM over utterances of different lengths."""
    torch.manual_seed(0)
    model = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
    frames = torch.randn(2, 5, 3)
    model = model.to(where)
    packed = nn.utils.rnn.pack_padded_sequence(frames.to(where), torch.tensor([5, 3]), batch_first=True)
    output, _ = nn.utils.rnn.pad_packed_sequence(model(packed)[0], batch_first=True)
    output.square().sum().backward()
    return [parameter.grad.cpu() for parameter in model.parameters()]


def test_an_lstm_is_what_it_is_on_the_cpu():
    torch.testing.assert_close(run_with_it(lstm_gradients, DEVICE), lstm_gradients("cpu"))


def train(task, folder, changes="", interfaces=("hconv", "cls_pooling", "weighted_sum"), **more):
    run(
        RunArguments(
            mode="train",
            upstream="tiny_hubert",
            downstream=task,
            config=[f"configs/{task}.yaml", f"configs/mini/{task}.yaml", f"configs/mini/quick/{task}.yaml"],
            interface=[*interfaces],
            expdir=str(folder),
            override=QUICK + changes,
            **more,
        )
    )


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(task, marks=[] if task in FEW else [pytest.mark.nightly])
        for task in ("ic", "asr", "sid", "er", "ks", "pr", "sf", "sv")
    ],
)
def test_tasks(corpora, tmp_path, monkeypatch, task):
    """What is learned is what the CPU learns."""
    monkeypatch.chdir(corpora)
    on_it(train, task, tmp_path / "there", PLAIN)
    train(task, tmp_path / "here", PLAIN, device="cpu")
    for lane in ("hconv", "cls_pooling", "weighted_sum"):
        assert read_result(tmp_path / "there" / lane / "results.json").metrics
        there, here = (load_checkpoint(tmp_path / place / lane / "states-3.ckpt") for place in ("there", "here"))
        for part in ("Featurizer", "Downstream"):
            torch.testing.assert_close(there[part], here[part], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "precision",
    [
        pytest.param("", marks=pytest.mark.nightly),
        pytest.param(",,config.runner.fp16=true", marks=pytest.mark.nightly),
        ",,config.runner.bf16=true",
    ],
)
def test_every_interface(corpora, tmp_path, monkeypatch, precision):
    monkeypatch.chdir(corpora)
    on_it(train, "ic", tmp_path, precision, list_interfaces())
    for name in list_interfaces():
        assert np.isfinite(read_result(tmp_path / name / "results.json").metrics["test"]["acc"])
        assert not (tmp_path / name / "failed.json").exists()


@pytest.mark.parametrize(
    ("runner", "more", "rounding"),
    [
        ({"fp16": True}, {}, 1e-3),
        ({"bf16": True}, {}, 1e-2),
        ({"feature_cache": {"dir": "cache"}}, {}, 1e-6),
        ({}, {"upstream_trainable": True}, 1e-5),
    ],
)
def test_variants(tmp_path, monkeypatch, runner, more, rounding):
    monkeypatch.chdir(tmp_path)
    there = on_it(partial(toy_run, **more), tmp_path / "there", {"runner": runner})
    here = toy_run(tmp_path / "here", {"runner": runner | {"fp16": False, "bf16": False}}, **more)
    there, here = (load_checkpoint(folder / "states-12.ckpt") for folder in (there, here))
    for part in ("Featurizer", "Downstream"):
        torch.testing.assert_close(there[part], here[part], atol=rounding, rtol=10 * rounding)


def used(folder, audio):
    """Everything that a finished run can be asked for."""
    main(["run", "-m", "train", "-e", str(folder), "-o", "config.runner.total_steps=5"])
    main(["run", "-m", "evaluate", "-e", str(folder)])
    main(["run", "-m", "inference", "-e", str(folder), "-t", str(audio)])
    main(["layers", str(folder), "--mean-over", "utterance"])
    main(["layers", str(folder)])
    main(["features", str(folder), str(audio), str(folder / "features")])
    model = load_experiment(next(folder.glob("states-*.ckpt")))
    assert model.features([torch.zeros(4000)])[0].device.type == DEVICE
    return model.predict([torch.zeros(16000), torch.ones(9000)])


def test_a_run_is_continued_and_used(corpora, tmp_path, monkeypatch, logging_restored):
    monkeypatch.chdir(corpora)
    on_it(train, "ic", tmp_path, "", ["hconv"])
    on_it(used, tmp_path, "mini_superb_data/voxceleb1/dev/wav/id10001")
