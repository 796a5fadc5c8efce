"""Time from a corpus on disk to its first batch, on made-up trees of VoxCeleb1's and LibriSpeech's size.

    python scripts/benchmark_data.py [--files 153000] [--flacs 28539] [--repeat 5]

VoxCeleb1: the index of SID, and for comparison the search that S3PRL makes for every file
(``root.glob("*/wav/<file>")``, ``s3prl/downstream/voxceleb1/dataset.py``) over a sample of the same files, in the same
process, by turns.
LibriSpeech: ASR's training split, which needs every length: measured the first time, read from what was kept after.
The files are tiny and the disk is warm, so these are the costs beside that of the disk itself.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from downstream_tasks.asr.dataset import read_split
from downstream_tasks.asr.text import Characters
from downstream_tasks.lengths import FOLDER
from downstream_tasks.sid.dataset import read_metadata

SPEAKERS = 1251
PER_VIDEO = 7
SAMPLE = 2000
PER_CHAPTER = 50


def make_tree(root: Path, files: int) -> Path:
    """Make empty files in VoxCeleb1's layout, and the metadata that names them; returns the latter."""
    lines = []
    for index in range(files):
        speaker, utterance = index % SPEAKERS, index // SPEAKERS
        video, number = divmod(utterance, PER_VIDEO)
        path = f"id{10001 + speaker}/video{video:06}/{number + 1:05}.wav"
        folder = root / ("test" if speaker < 40 else "dev") / "wav" / Path(path).parent
        if number == 0:
            folder.mkdir(parents=True)
        (folder / Path(path).name).touch()
        lines.append(f"{1 + utterance % 3} {path}\n")
    metadata = root / "veri_test_class.txt"
    metadata.write_text("".join(sorted(lines, key=lambda line: line[2:])))
    return metadata


def timed_index(root: Path, metadata: Path) -> float:
    """Microseconds a file to index the corpus as our SID does."""
    began = time.perf_counter()
    splits = read_metadata(metadata, root)
    return (time.perf_counter() - began) / sum(map(len, splits.values())) * 1e6


def timed_search(root: Path, files: list[str]) -> float:
    """Microseconds a file to search the disk for each of ``files``."""
    began = time.perf_counter()
    for file in files:
        if not list(root.glob(f"*/wav/{file}")):
            raise FileNotFoundError(file)
    return (time.perf_counter() - began) / len(files) * 1e6


def make_librispeech(root: Path, files: int) -> None:
    """Make files of 0.1 s in LibriSpeech's layout, and their transcripts."""
    chapters = -(-files // PER_CHAPTER)
    for chapter in range(chapters):
        names = [
            f"{chapter // 4}-{chapter}-{number:04}" for number in range(min(PER_CHAPTER, files - chapter * PER_CHAPTER))
        ]
        folder = root / "train-clean-100" / str(chapter // 4) / str(chapter)
        folder.mkdir(parents=True)
        for name in names:
            if name == "0-0-0000":
                soundfile.write(folder / f"{name}.flac", np.zeros(1600), 16000)
                audio = (folder / f"{name}.flac").read_bytes()
            (folder / f"{name}.flac").write_bytes(audio)
        lines = [f"{name} SOMEBODY SAID SOMETHING\n" for name in names]
        (folder / f"{chapter // 4}-{chapter}.trans.txt").write_text("".join(lines))


def timed_split(root: Path) -> float:
    """Seconds to make up ASR's training split."""
    began = time.perf_counter()
    read_split(root, ["train-clean-100"], Characters())
    return time.perf_counter() - began


def main() -> None:
    """Print medians, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=153_000)
    parser.add_argument("--flacs", type=int, default=28_539)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        voxceleb1(Path(folder), options.files, options.repeat)
    with tempfile.TemporaryDirectory() as folder:
        librispeech(Path(folder), options.flacs, options.repeat)


def voxceleb1(root: Path, files: int, repeat: int) -> None:
    """Index once against searching for every file."""
    metadata = make_tree(root, files)
    lines = metadata.read_text().splitlines()
    sample = [line.split()[1] for line in lines[:: max(1, len(lines) // SAMPLE)]]
    timed_index(root, metadata)  # warm-up: the directories are then in the system's cache for both
    timed_search(root, sample)
    pairs = [(timed_index(root, metadata), timed_search(root, sample)) for _ in range(repeat)]
    index, search = (statistics.median(column) for column in zip(*pairs, strict=True))
    sys.stdout.write(f"VoxCeleb1, SID: {files} files, median of {repeat}\n")
    sys.stdout.write(f"  index once:             {index:8.1f} us a file, {index * files / 1e6:6.1f} s in all\n")
    sys.stdout.write(f"  search for every file:  {search:8.1f} us a file, {search * files / 1e6:6.1f} s in all\n")
    sys.stdout.write(f"  ratio: {search / index:.1f}\n")


def librispeech(root: Path, files: int, repeat: int) -> None:
    """Lengths measured against lengths kept."""
    make_librispeech(root, files)
    pairs = []
    for _ in range(repeat):
        shutil.rmtree(root / FOLDER, ignore_errors=True)
        pairs.append((timed_split(root), timed_split(root)))
    first, again = (statistics.median(column) for column in zip(*pairs, strict=True))
    sys.stdout.write(f"LibriSpeech, ASR: {files} files, median of {repeat}\n")
    sys.stdout.write(f"  first start:            {first:6.2f} s\n")
    sys.stdout.write(f"  every later start:      {again:6.2f} s\n")
    sys.stdout.write(f"  ratio: {first / again:.1f}\n")


if __name__ == "__main__":
    main()
