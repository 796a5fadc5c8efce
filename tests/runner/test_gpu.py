"""What only a GPU can show. Run with `pytest -m gpu` on a machine that has one."""

import subprocess
import sys

import pytest
import torch

from s3prl_interfaces import build_interface, list_interfaces
from s3prl_interfaces.mini_superb import make_mini_superb
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner.checkpoint import load_checkpoint
from tests.runner.toys import DownstreamExpert, toy_run
from tests.test_bad_input import train_flags

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and PyTorch sees none here"),
]


@pytest.mark.parametrize("name", list_interfaces())
def test_interfaces_agree_with_the_cpu(name):
    torch.manual_seed(0)
    interface = build_interface(name, num_layers=13, feature_dim=64).eval()
    states = [torch.randn(4, 50, 64) for _ in range(13)]
    if name == "pca_concat":
        interface.partial_fit(states)
        interface.finish_fit()
    expected = interface(states)
    actual = interface.cuda()([state.cuda() for state in states])
    torch.testing.assert_close(actual.cpu(), expected, atol=1e-4, rtol=1e-4)


def test_cls_pooling_takes_more_frames_than_a_cuda_grid():
    """PyTorch's attention kernels fail beyond 65,535 sequences; half a minute of 50 utterances has more frames."""
    interface = build_interface("cls_pooling", num_layers=3, feature_dim=16).cuda().eval()
    states = [torch.randn(50, 1500, 16, device="cuda") for _ in range(3)]
    with torch.no_grad():
        whole = interface(states)
        part = interface([state[:1] for state in states])
    torch.testing.assert_close(whole[:1], part, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", [{}, {"fp16": True}, {"bf16": True}])
def test_a_run_on_the_gpu(tmp_path, precision):
    folder = toy_run(tmp_path, {"runner": precision}, interface=["hconv"], device="cuda")
    result = read_result(folder / "results.json")
    assert result.peak_memory_bytes > 0
    assert load_checkpoint(folder / "states-12.ckpt")["Downstream"]["linear.weight"].isfinite().all()


def test_a_run_continues_on_the_gpu(tmp_path):
    folder = toy_run(tmp_path, device="cuda")
    toy_run(tmp_path, past_exp=str(folder), device="cuda", override="config.runner.total_steps=15")
    assert load_checkpoint(folder / "states-15.ckpt")["Step"] == 15


def test_lanes_on_the_gpu_are_what_they_would_be_alone(tmp_path):
    """To rounding: only the CPU promises bits."""
    lanes = {"weighted_sum": "weighted_sum", "cls_pooling-dropout=0.3": "cls_pooling:dropout=0.3"}
    folder = toy_run(tmp_path / "lanes", interface=[*lanes.values()], device="cuda")
    for name, text in lanes.items():
        solo = toy_run(tmp_path / name, interface=[text], device="cuda")
        one, other = (load_checkpoint(place / "states-12.ckpt") for place in (folder / name, solo))
        for part in ("Featurizer", "Downstream"):
            for key, value in one[part].items():
                torch.testing.assert_close(value, other[part][key], atol=1e-4, rtol=1e-4)


def test_a_batch_that_is_too_large_goes_through_in_parts(tmp_path, monkeypatch, caplog):
    """With PyTorch's own exception: the head asks for more than there is, unless it has two utterances at most."""
    forward = DownstreamExpert.forward

    def hungry(self, split, features, *others, **more):
        if split == "train":
            free, _ = torch.cuda.mem_get_info()
            torch.empty(2 * free if len(features) > 2 else 1024, dtype=torch.uint8, device="cuda")
        return forward(self, split, features, *others, **more)

    monkeypatch.setattr(DownstreamExpert, "forward", hungry)
    folder = toy_run(tmp_path, device="cuda")
    assert (folder / "results.json").exists()
    assert "from now on batches go through in 2 parts" in caplog.text


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices for NCCL")
def test_two_gpus_are_one_with_twice_the_batch(tmp_path):
    (corpus,) = make_mini_superb(tmp_path / "mini", corpora=["fluent_speech_commands"], scale=0.03)
    size = "config.downstream_expert.datarc.train_batch_size="
    for name, count, batch in (("one", 1, 8), ("two", 2, 4)):
        flags = train_flags(corpus, tmp_path / name, f"{size}{batch}", "--device", "cuda")
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        subprocess.run([*launcher, "-m", "s3prl_interfaces.cli", "run", *flags], check=True, timeout=300)
    one, two = (load_checkpoint(tmp_path / name / "states-2.ckpt")["Downstream"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-4, rtol=1e-4)
