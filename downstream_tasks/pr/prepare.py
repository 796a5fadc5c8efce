"""Checks LibriSpeech, and makes one lexicon of those that are found."""

from collections import Counter
from pathlib import Path

from downstream_tasks.librispeech import SETS, read_sets
from downstream_tasks.pr.phones import PHONES, read_lexicon, words_of
from s3prl_interfaces.errors import DataError
from s3prl_interfaces.files import write_whole

LEXICON = "lexicon.txt"
_FIRST = ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")
"""S3PRL's own, in its order; other lexicons come after them."""


def prepare(root: Path) -> list[str]:
    """Check LibriSpeech, and write ``lexicon.txt`` with one pronunciation of each word that SUPERB's sets use.

    It is written from the files ``librispeech-lexicon*.txt`` and ``lexicon*.txt`` anywhere below ``root``. One that
    is there already is checked and left as it is. S3PRL reads it, too.

    Args:
        root: LibriSpeech, the folder that holds train-clean-100, dev-clean and test-clean.

    Returns:
        What was found and written, and which keys to set.

    Raises:
        DataError: the sets or the transcripts are incomplete, there is no lexicon, or it lacks words. Nothing is
            written.
    """
    root = Path(root)
    utterances = read_sets(root, SETS)
    counts = Counter(one.file.partition("/")[0] for one in utterances)
    report = [f"{root / name}: {counts[name]} utterances" for name in SETS]
    target = root / LEXICON
    if target.exists():
        words = words_of(utterances, read_lexicon([target], PHONES))
        report.append(f"{target}: there already, has all {len(words)} words")
    else:
        sources = _find_lexicons(root)
        lexicon = read_lexicon(sources, PHONES)
        words = words_of(utterances, lexicon)
        _write(target, "".join(f"{word}\t{' '.join(lexicon[word])}\n" for word in words))
        report.append(f"{target}: written, {len(words)} words, from {', '.join(map(str, sources))}")
    return [*report, f"Set downstream_expert.corpus.path={root} and downstream_expert.corpus.lexicon=['{target}']"]


def _find_lexicons(root: Path) -> list[Path]:
    paths = {path for pattern in ("librispeech-lexicon*.txt", "lexicon*.txt") for path in root.rglob(pattern)}
    if not paths:
        raise DataError(
            f"{root} holds no lexicon (librispeech-lexicon*.txt or lexicon*.txt). Put {' and '.join(_FIRST)} of the "
            "Hugging Face dataset s3prl/g2p there, which SUPERB uses, or OpenSLR's librispeech-lexicon.txt."
        )
    order = {name: place for place, name in enumerate(_FIRST)}
    return sorted(paths, key=lambda path: (order.get(path.name, len(order)), path))


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}.") from error
