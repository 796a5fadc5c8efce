"""Check LibriSpeech for SUPERB's ASR, and write S3PRL's tables of lengths."""

import csv
import io
from pathlib import Path

from downstream_tasks.asr.dataset import read_set
from downstream_tasks.asr.text import Characters
from downstream_tasks.audio import SAMPLE_RATE
from downstream_tasks.lengths import audio_lengths, samples_of
from downstream_tasks.librispeech import SETS, LibriSpeech
from s3prl_interfaces.errors import DataError
from s3prl_interfaces.files import write_whole

OTHERS = ("train-clean-360", "train-other-500", "dev-other", "test-other")
TABLES = "len_for_bucket"
"""The folder of the tables, S3PRL's name."""


def prepare(root: Path) -> list[str]:
    """Check LibriSpeech and write ``len_for_bucket/<set>.csv`` below it, as ``preprocess/generate_len_for_bucket.py``.

    Args:
        root: LibriSpeech, the folder that holds train-clean-100, dev-clean, test-clean, ...

    Returns:
        Lines for the user: what was found and written, and the config keys to set.

    Raises:
        DataError: a set that SUPERB needs is missing, or a set is incomplete (all of it in one message), or the tables
            cannot be written.
    """
    root = Path(root)
    corpus = LibriSpeech(root)
    lengths: dict[str, dict[str, int]] = {}
    for name in (*SETS, *OTHERS):
        if name in SETS or (root / name).is_dir():
            files = [utterance.file for utterance in read_set(corpus, name, Characters())]
            lengths[name] = dict(zip(files, audio_lengths(root, files, skip_bad_audio=True), strict=True))
            corpus.wrong += _unreadable(root, lengths[name])
    corpus.check()
    _write_tables(root / TABLES, lengths)
    return [
        *(
            f"{name}: {len(of_set)} utterances, {sum(of_set.values()) / SAMPLE_RATE / 3600:.2f} hours"
            for name, of_set in lengths.items()
        ),
        f"Lengths written to {root / TABLES}; they are optional, and S3PRL can read them.",
        "Config keys:",
        f"  downstream_expert.datarc.libri_root: {root}",
        f"  downstream_expert.datarc.bucket_file: {root / TABLES}",
    ]


def _unreadable(root: Path, lengths: dict[str, int]) -> list[str]:
    """What is wrong with the files that could not be measured."""
    problems = []
    for file, length in lengths.items():
        if not length:
            try:
                samples_of(root / file)
            except DataError as error:
                problems.append(str(error).rstrip("."))
    return problems


def _write_tables(folder: Path, lengths: dict[str, dict[str, int]]) -> None:
    try:
        folder.mkdir(exist_ok=True)
        for name, of_set in lengths.items():
            rows = sorted(of_set.items(), key=lambda row: row[1], reverse=True)
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["", "file_path", "length", "label"])
            writer.writerows((index, file, length, "") for index, (file, length) in enumerate(rows))
            write_whole(folder / f"{name}.csv", text.getvalue())
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}.") from error
