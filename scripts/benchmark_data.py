"""Time from a corpus on disk to its first training batch, on made-up trees of VoxCeleb1's and LibriSpeech's size.

    python scripts/benchmark_data.py [--files 153000] [--seconds 8] [--flacs 28539] [--repeat 5]

VoxCeleb1: a start of SID and of SV, and for comparison the search that S3PRL's SID makes for every file
(``root.glob("*/wav/<file>")``, ``s3prl/downstream/voxceleb1/dataset.py``) over a sample of the same files, in the same
process, by turns. SV's first start listens to the whole training set, to remove its silence; later ones read what was
kept.
LibriSpeech: ASR's start, which needs every length: measured the first time, read from what was kept after.
The files are links to a few, so the disk is warm: these are the costs beside that of the disk itself.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from downstream_tasks.lengths import FOLDER
from downstream_tasks.registry import load_expert
from s3prl_interfaces.runner.config import load_config

SPEAKERS = 1251
PER_VIDEO = 7
SAMPLE = 2000
PER_CHAPTER = 50
LINKS = 1000  # of one file; file systems have a limit


class Copies:
    """Makes files of the same content, as links.

    Args:
        first: where the first one is kept.
        seconds: of noise at 16 kHz.
    """

    def __init__(self, first: Path, seconds: float) -> None:
        self.first = first
        self.count = 0
        noise = np.random.default_rng(0).normal(scale=0.1, size=round(seconds * 16000))
        soundfile.write(first, noise.astype(np.float32), 16000)

    def __call__(self, path: Path) -> None:
        """Make one more."""
        if self.count % LINKS == 0:
            self.linked = self.first.with_name(f"{self.count // LINKS}{self.first.suffix}")
            shutil.copy(self.first, self.linked)
        os.link(self.linked, path)
        self.count += 1


def make_voxceleb1(root: Path, files: int, seconds: float) -> None:
    """Make files in VoxCeleb1's layout, the metadata that names them, and two trials."""
    (root / "copies").mkdir(parents=True)
    copy = Copies(root / "copies" / "first.wav", seconds)
    lines = []
    for index in range(files):
        speaker, utterance = index % SPEAKERS, index // SPEAKERS
        video, number = divmod(utterance, PER_VIDEO)
        path = f"id{10001 + speaker}/video{video:06}/{number + 1:05}.wav"
        folder = root / ("test" if speaker < 40 else "dev") / "wav" / Path(path).parent
        if number == 0:
            folder.mkdir(parents=True)
        copy(folder / Path(path).name)
        lines.append(f"{1 + utterance % 3} {path}\n")
    (root / "veri_test_class.txt").write_text("".join(sorted(lines, key=lambda line: line[2:])))
    one, same, other = (
        f"id{10001 + speaker}/video000000/{number:05}.wav" for speaker, number in ((0, 1), (0, 2), (1, 1))
    )
    (root / "trials.txt").write_text(f"1 {one} {same}\n0 {one} {other}\n")


def make_librispeech(root: Path, files: int) -> None:
    """Make files of 0.1 s in LibriSpeech's layout, and their transcripts."""
    (root / "copies").mkdir(parents=True)
    copy = Copies(root / "copies" / "first.flac", 0.1)
    for chapter in range(-(-files // PER_CHAPTER)):
        folder = root / "train-clean-100" / str(chapter // 4) / str(chapter)
        folder.mkdir(parents=True)
        count = min(PER_CHAPTER, files - chapter * PER_CHAPTER)
        names = [f"{chapter // 4}-{chapter}-{number:04}" for number in range(count)]
        for name in names:
            copy(folder / f"{name}.flac")
        lines = [f"{name} SOMEBODY SAID SOMETHING\n" for name in names]
        (folder / f"{chapter // 4}-{chapter}.trans.txt").write_text("".join(lines))


def start(task: str, **places: Any) -> None:
    """Make the task's head and loaders, and read the first training batch."""
    block = load_config([f"configs/{task}.yaml"])["downstream_expert"]
    block["datarc"] |= {"num_workers": 0, **places}
    with tempfile.TemporaryDirectory() as expdir:
        expert: Any = load_expert(task)(upstream_dim=8, upstream_rate=320, downstream_expert=block, expdir=expdir)
        for _ in islice(expert.get_dataloader("train"), 1):
            pass


def search(root: Path, files: list[str]) -> None:
    """Search the disk for each file, as S3PRL."""
    for file in files:
        if not list(root.glob(f"*/wav/{file}")):
            raise FileNotFoundError(file)


def seconds_of(work: Callable[[], None]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def voxceleb1(root: Path, files: int, seconds: float, repeat: int) -> None:
    """SID's start against a search for every file, and SV's first start against later ones."""
    make_voxceleb1(root, files, seconds)
    metadata = root / "veri_test_class.txt"
    lines = metadata.read_text().splitlines()
    sample = [line.split()[1] for line in lines[:: max(1, len(lines) // SAMPLE)]]

    def sid() -> None:
        start("sid", file_path=str(root), meta_data=str(metadata))

    def sv() -> None:
        start("sv", file_path=str(root), test_meta_data=str(root / "trials.txt"), dev_meta_data=None)

    sid()  # the directories are then in the system's cache for both
    pairs = [(seconds_of(sid), seconds_of(lambda: search(root, sample))) for _ in range(repeat)]
    ours, searched = (statistics.median(column) for column in zip(*pairs, strict=True))
    say(f"VoxCeleb1, SID: {files} files, median of {repeat}", "a start", ours, "", "")
    searched *= files / len(sample)
    say("", f"S3PRL's search alone, from {len(sample)} files", searched, "ratio", f"{searched / ours:.1f}")

    first = seconds_of(sv)
    later = statistics.median(seconds_of(sv) for _ in range(repeat))
    say(
        f"VoxCeleb1, SV: {files} files of {seconds:g} s",
        "the first start",
        first,
        "seconds of audio a second",
        f"{files * seconds / first:.0f}",
    )
    say("", f"a later start, median of {repeat}", later, "ratio", f"{first / later:.1f}")


def librispeech(root: Path, files: int, repeat: int) -> None:
    """Lengths measured against lengths kept."""
    make_librispeech(root, files)

    def asr() -> None:
        start("asr", libri_root=str(root))

    pairs = []
    for _ in range(repeat):
        shutil.rmtree(root / FOLDER, ignore_errors=True)
        pairs.append((seconds_of(asr), seconds_of(asr)))
    first, later = (statistics.median(column) for column in zip(*pairs, strict=True))
    say(f"LibriSpeech, ASR: {files} files, median of {repeat}", "the first start", first, "", "")
    say("", "a later start", later, "ratio", f"{first / later:.1f}")


def say(heading: str, what: str, seconds: float, name: str, value: str) -> None:
    """Print a line of the table, below a heading if there is one."""
    told = f"   {name}: {value}" if name else ""
    sys.stdout.write((f"{heading}\n" if heading else "") + f"  {what:45} {seconds:8.2f} s{told}\n")


def main() -> None:
    """Print medians, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=153_000)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each of VoxCeleb1's files (in truth 8.2)")
    parser.add_argument("--flacs", type=int, default=28_539)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        voxceleb1(Path(folder) / "voxceleb1", options.files, options.seconds, options.repeat)
    with tempfile.TemporaryDirectory() as folder:
        librispeech(Path(folder) / "LibriSpeech", options.flacs, options.repeat)


if __name__ == "__main__":
    main()
