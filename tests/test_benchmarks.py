"""The benchmarks run, on sizes that take a moment."""

import contextlib
import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchaudio

from s3prl_interfaces.mini_superb import make_mini_superb

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def test_data(monkeypatch, capsys):
    sizes = ["--files", "3000", "--seconds", "2.1", "--flacs", "120", "--repeat", "2"]
    monkeypatch.setattr(sys, "argv", ["benchmark_data.py", *sizes])
    runpy.run_path(str(SCRIPTS / "benchmark_data.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "VoxCeleb1, SID: 3000 files, median of 2" in shown
    assert "VoxCeleb1, SV: 3000 files of 2.1 s" in shown
    assert "LibriSpeech, ASR: 120 files, median of 2" in shown
    ratios = [float(number) for number in re.findall(r"ratio: ([\d.]+)", shown)]
    assert len(ratios) == 3
    assert min(ratios) > 0


@pytest.fixture
def small_hubert(monkeypatch):
    """An upstream of three small layers in place of HuBERT Base."""

    def small():
        return torchaudio.models.wav2vec2_model(
            extractor_mode="group_norm",
            extractor_conv_layer_config=[(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2],
            extractor_conv_bias=False,
            encoder_embed_dim=16,
            encoder_projection_dropout=0.0,
            encoder_pos_conv_kernel=8,
            encoder_pos_conv_groups=2,
            encoder_num_layers=3,
            encoder_num_heads=2,
            encoder_attention_dropout=0.0,
            encoder_ff_interm_features=16,
            encoder_ff_interm_dropout=0.0,
            encoder_dropout=0.0,
            encoder_layer_norm_first=False,
            encoder_layer_drop=0.0,
            aux_num_out=None,
        )

    monkeypatch.setattr(torchaudio.models, "hubert_base", small)


@pytest.mark.usefixtures("small_hubert")
def test_lanes(monkeypatch, capsys):
    benchmark = importlib.import_module("scripts.benchmark_lanes")
    monkeypatch.setattr(benchmark.multiprocessing, "get_context", lambda kind: Here())
    flags = ["--lanes", "1", "3", "--batch", "2", "--seconds", "0.5", "--repeat", "2"]
    monkeypatch.setattr(sys, "argv", ["benchmark_lanes.py", *flags])
    benchmark.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["lanes", "1", "3", "alone", "alone", "alone"]
    assert lines[2][6:] == ["weighted_sum", "hconv", "grouped_weighted_sum"]
    together, summed, ratio = map(float, lines[2][1:4])
    assert ratio == pytest.approx(together / summed, abs=0.01 + 0.002 / summed)  # of times in whole milliseconds
    assert float(lines[1][5]) > 0


class Here:
    """Stands for a fresh process."""

    def Pool(self, size):  # noqa: N802 (multiprocessing's name)
        return contextlib.nullcontext(self)

    def apply(self, function, arguments):
        return function(*arguments)


@pytest.mark.usefixtures("small_hubert")
def test_feature_cache(monkeypatch, capsys):
    flags = ["--utterances", "4", "--batch", "2", "--repeat", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark_feature_cache.py", *flags])
    runpy.run_path(str(SCRIPTS / "benchmark_feature_cache.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    settings = [line[:24].strip() for line in lines]
    kinds = [f"{dtype}, {when}" for dtype in ("float32", "bfloat16", "float16") for when in ("first epoch", "later")]
    assert settings == ["", "without a cache", *kinds]
    megabytes = [float(line.split()[-1]) for line in lines[2::2]]
    assert megabytes[0] >= megabytes[1] == megabytes[2]


@pytest.mark.usefixtures("small_hubert")
def test_profile(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    profile = importlib.import_module("scripts.profile_step")
    monkeypatch.setattr(
        profile, "make_mini_superb", lambda root, corpora: make_mini_superb(root, corpora=corpora, scale=0.05)
    )
    monkeypatch.setattr(sys, "argv", ["profile_step.py", "--steps", "2", "--tasks", "ic", "--device", "cpu"])
    profile.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][0] == "ic:"
    assert tuple(line[0] for line in lines[1:]) == profile.PARTS
    assert sum(float(line[1]) for line in lines[1:]) == pytest.approx(1000 * float(lines[0][1]), abs=2)
    parts = {line[0]: float(line[1]) for line in lines[1:]}
    assert min(parts["upstream"], parts["head"], parts["backward"], parts["update"]) > 0
    assert not hasattr(torch.Tensor.backward, "__wrapped__")


def test_a_part_is_timed_without_those_within_it(monkeypatch):
    profile = importlib.import_module("scripts.profile_step")
    clock = profile.Clock(torch.device("cpu"))
    times = iter([0.0, 1.0, 3.0, 10.0, 20.0, 21.0])
    monkeypatch.setattr(profile.time, "perf_counter", lambda: next(times))
    with clock.part("head"), clock.part("metrics"):
        pass
    with clock.part("metrics"):
        pass
    assert clock.seconds == {"head": 8.0, "metrics": 3.0}


@pytest.mark.usefixtures("small_hubert")
def test_compare_devices(monkeypatch, capsys):
    """The CPU against itself; and a device that is wrong."""
    compare = importlib.import_module("scripts.compare_devices")
    monkeypatch.setattr(sys, "argv", ["compare_devices.py", "--device", "cpu", "--updates", "3", "--batch", "2"])
    compare.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["weighted_sum", "losses", "differ", "by", "0.0e+00,", "weights", "by", "0.0e+00"]
    assert lines[1].startswith("hconv ")
    assert re.fullmatch(r"an update: cpu \d+\.\d{3} s, cpu \d+\.\d{3} s", lines[2])
    train = compare.train

    def wrong(*arguments):
        trained = train(*arguments)
        if arguments[-1].name == "other":
            trained.weights["hconv"][0] += 1
        return trained

    monkeypatch.setattr(compare, "train", wrong)
    with pytest.raises(SystemExit, match=r"cpu and the CPU do not agree to 0\.001"):
        compare.main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: run scripts/check_gpu.sh itself")
def test_check_gpu_says_that_there_is_none():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", str(SCRIPTS / "check_gpu.sh")],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == "check_gpu.sh: PyTorch sees no GPU here (torch.cuda.is_available() is False)\n"
