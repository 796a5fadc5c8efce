"""Check Fluent Speech Commands for SUPERB's intent classification."""

from pathlib import Path

from downstream_tasks.ic.dataset import FILES, SLOTS, Command, encode, labels_of, read_split
from downstream_tasks.layout import missing_files, name_below, refuse
from s3prl_interfaces.errors import DataError


def prepare(root: Path) -> list[str]:
    """Check that the tables and every wav that they name are there; nothing needs to be written.

    Args:
        root: the folder that holds data/ and wavs/.

    Returns:
        Lines for the user: what was found, and the config key to set.

    Raises:
        DataError: files are missing or malformed; all of them in one message.
    """
    root = Path(root)
    refuse(root, [] if root.is_dir() else ["the folder does not exist: it must hold data/ and wavs/"])
    splits: dict[str, list[Command]] = {}
    problems = []
    for split, file in FILES.items():
        if not (root / "data" / file).is_file():
            problems.append(f"data/{file} is missing")
            continue
        try:
            splits[split] = read_split(root, split)
        except DataError as error:
            problems.append(str(error).rstrip("."))
    for split, commands in splits.items():
        missing = missing_files(command.path for command in commands)
        problems += [f"{name_below(root, path)}, which data/{FILES[split]} names, is missing" for path in missing]
    if "train" in splits:
        problems += _unknown_values(splits)
    refuse(root, problems)
    sizes = zip(labels_of(splits["train"]).sizes, SLOTS, strict=True)
    return [
        f"{root}: " + ", ".join(f"{split} {len(commands)}" for split, commands in splits.items()),
        "  values: " + ", ".join(f"{size} of {slot}" for size, slot in sizes),
        "Set in the config:",
        f"  downstream_expert.datarc.file_path: {root}",
    ]


def _unknown_values(splits: dict[str, list[Command]]) -> list[str]:
    """The values that training does not have."""
    labels = labels_of(splits["train"])
    problems = []
    for split in splits:
        for command in splits[split]:
            try:
                encode(command, labels)
            except DataError as error:
                problems.append(str(error).rstrip("."))
    return problems
