"""The benchmarks run, on sizes that take a moment."""

import re
import runpy
import sys
from pathlib import Path

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
