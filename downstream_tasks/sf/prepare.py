"""Checks Audio SNIPS, and writes ``slots.txt`` where it is missing (S3PRL: ``preprocess/snips_preprocess.py``)."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from downstream_tasks.layout import refuse
from downstream_tasks.sf.dataset import SPEAKERS, TRANSCRIPTS, parse_line, read_lines
from downstream_tasks.sf.slots import OUTSIDE, read_slots
from s3prl_interfaces.errors import DataError
from s3prl_interfaces.files import write_whole

SLOTS = "slots.txt"
FOLDERS = {"train": "train", "dev": "valid", "test": "test"}


def prepare(root: Path) -> list[str]:
    """Check Audio SNIPS as S3PRL's ``preprocess/snips_prepare_data.sh`` leaves it, and write ``slots.txt`` if missing.

    Args:
        root: SNIPS, the folder that holds train/, valid/, test/ and all.iob.snips.txt.

    Returns:
        What was found and written, and which keys to set.

    Raises:
        DataError: something is missing or malformed; all of it is named, and nothing is written.
    """
    root = Path(root)
    folders = ", ".join(FOLDERS.values())
    refuse(root, [] if root.is_dir() else [f"the folder does not exist: it must hold {folders} and {TRANSCRIPTS}"])
    lines = read_lines(root / TRANSCRIPTS)
    problems, report = [], []
    labels: Counter[str] = Counter()
    for number, rest in lines.values():
        try:
            labels.update(parse_line(root / TRANSCRIPTS, number, rest)[1])
        except DataError as error:
            problems.append(str(error).rstrip("."))
    for split, folder in FOLDERS.items():
        names = sorted(path.stem for path in (root / folder).rglob("*.wav"))
        problems += [
            f"{root / folder} has no audio of {speaker}"
            for speaker in SPEAKERS[folder]
            if not any(name.startswith(speaker) for name in names)
        ]
        used = [name for name in names if name.startswith(SPEAKERS[folder])]
        problems += [f"{root / folder / name}.wav has no line in {TRANSCRIPTS}" for name in used if name not in lines]
        report.append(f"{split}: {len(used)} utterances of {len(SPEAKERS[folder])} speakers in {root / folder}")
    if (root / SLOTS).exists():
        known = {OUTSIDE, *read_slots(root / SLOTS)}
        problems += [f"{root / SLOTS} lacks the slot {label}" for label in sorted(labels) if label not in known]
        report.append(f"{root / SLOTS}: there already, {len(known) - 1} slots")
        refuse(root, problems)
    else:
        refuse(root, problems)
        write_slots(root / SLOTS, labels.elements())
        report.append(f"{root / SLOTS}: written, {len(labels) - (OUTSIDE in labels)} slots")
    return [
        *report,
        f"Set downstream_expert.corpus.path={root} and downstream_expert.text.slots_file={root / SLOTS}",
    ]


def write_slots(path: Path, labels: Iterable[str]) -> None:
    """Write ``slots.txt``: ``O``, then the other labels, the most frequent first, equally frequent ones by name.

    S3PRL counts each sentence once and before it spells out numbers, so its file may have slots of like frequency in
    another order: a model that was trained with the one file needs that file. The file ends without a newline, after
    which S3PRL would read one slot more (D22).

    Args:
        path: where it goes.
        labels: of every word.

    Raises:
        DataError: it cannot be written.
    """
    counts = Counter(label for label in labels if label != OUTSIDE)
    try:
        write_whole(path, "\n".join([OUTSIDE, *sorted(counts, key=lambda slot: (-counts[slot], slot))]))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}.") from error
