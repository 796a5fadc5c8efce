"""Time from a corpus on disk to its list of utterances, on a made-up tree of VoxCeleb1's size.

    python scripts/benchmark_data.py [--files 153000] [--repeat 5]

For comparison the search that S3PRL makes for every file (``root.glob("*/wav/<file>")``,
``s3prl/downstream/voxceleb1/dataset.py``) is timed over a sample of the same files, in the same process, by turns.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from downstream_tasks.sid.dataset import read_metadata

SPEAKERS = 1251
PER_VIDEO = 7
SAMPLE = 2000


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


def main() -> None:
    """Print medians, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=153_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        metadata = make_tree(root, options.files)
        lines = metadata.read_text().splitlines()
        sample = [line.split()[1] for line in lines[:: max(1, len(lines) // SAMPLE)]]
        timed_index(root, metadata)  # warm-up: the directories are then in the system's cache for both
        timed_search(root, sample)
        pairs = [(timed_index(root, metadata), timed_search(root, sample)) for _ in range(options.repeat)]
    index, search = (statistics.median(column) for column in zip(*pairs, strict=True))
    sys.stdout.write(f"{options.files} files, median of {options.repeat}\n")
    sys.stdout.write(f"index once:             {index:8.1f} us a file, {index * options.files / 1e6:6.1f} s in all\n")
    sys.stdout.write(f"search for every file:  {search:8.1f} us a file, {search * options.files / 1e6:6.1f} s in all\n")
    sys.stdout.write(f"ratio: {search / index:.1f}\n")


if __name__ == "__main__":
    main()
