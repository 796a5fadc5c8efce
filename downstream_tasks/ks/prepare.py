"""Check Speech Commands v0.01 for SUPERB's keyword spotting."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from downstream_tasks.ks.dataset import (
    CLASSES,
    KEYWORDS,
    NOISE,
    SILENCE,
    UNKNOWN,
    Clip,
    folders_in,
    problems_of_test,
    problems_of_training,
    read_corpus,
)
from downstream_tasks.layout import refuse

_WORD_CLIPS, _TEST_CLIPS = 64721, 3081  # of the whole Speech Commands v0.01


def prepare(root: Path) -> list[str]:
    """Find the training and the test set of Speech Commands and check them; nothing needs to be written.

    Args:
        root: a folder that holds both, in folders of any name, directly or one level below.

    Returns:
        Lines for the user: what was found, and the config keys to set.

    Raises:
        DataError: a set or a part of it is missing; all that is in one message.
    """
    root = Path(root)
    refuse(root, [] if root.is_dir() else ["the folder does not exist"])
    folders = [root, *folders_in(root), *(inner for folder in folders_in(root) for inner in folders_in(folder))]
    tests = [folder for folder in folders if _holds(folder, UNKNOWN, SILENCE)]
    trains = [folder for folder in folders if folder not in tests and _holds(folder, NOISE, *KEYWORDS)]
    refuse(
        root,
        [
            *_problems("training set", "speech_commands_v0.01", trains, problems_of_training),
            *_problems("test set", "speech_commands_test_set_v0.01", tests, problems_of_test),
        ],
    )
    (train,), (test,) = trains, tests
    corpus = read_corpus(train, test)
    words = sum(map(len, corpus.words.values()))
    lines = [
        f"{train}: {words} clips of {len(folders_in(train)) - 1} words, {len(corpus.noises)} background noises",
        *(f"  {split}: {_counts(corpus.words[split])}" for split in ("train", "dev")),
        f"  neither: {len(corpus.words['unused'])} clips of the speakers that the test set is made of",
        f"{test}: {len(corpus.test)} clips",
        f"  test: {_counts(corpus.test)}",
    ]
    if (words, len(corpus.test)) != (_WORD_CLIPS, _TEST_CLIPS):
        lines.append(
            f"This is not the whole of Speech Commands v0.01, which has {_WORD_CLIPS} clips of words and {_TEST_CLIPS} "
            "test clips: scores do not compare with SUPERB's."
        )
    return [
        *lines,
        "Set in the config:",
        f"  downstream_expert.datarc.speech_commands_root: {train}",
        f"  downstream_expert.datarc.speech_commands_test_root: {test}",
    ]


def _problems(kind: str, archive: str, found: Sequence[Path], problems_of: Callable[[Path], list[str]]) -> list[str]:
    if not found:
        return [f"the {kind} is missing: unpack {archive}.tar.gz into a folder {archive} there"]
    if len(found) > 1:
        return [f"{', '.join(map(str, found))} all look like the {kind}: name a folder that holds one"]
    return [f"{found[0].name}: {problem}" for problem in problems_of(found[0])]


def _holds(folder: Path, *names: str) -> bool:
    """Whether a folder holds one of these folders."""
    return any((folder / name).is_dir() for name in names)


def _counts(clips: Sequence[Clip]) -> str:
    counts = Counter(clip.label for clip in clips)
    return ", ".join(f"{counts[label]} {label}" for label in CLASSES if counts[label])
