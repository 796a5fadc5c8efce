"""LibriSpeech: ``<set>/<speaker>/<chapter>/<speaker>-<chapter>-<n>.flac`` and ``<speaker>-<chapter>.trans.txt``."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from downstream_tasks.layout import first_of, refuse
from s3prl_interfaces.errors import DataError

log = logging.getLogger(__name__)

SETS = ("train-clean-100", "dev-clean", "test-clean")
"""Those that SUPERB uses."""
SUFFIXES = (".flac", ".wav")
"""LibriSpeech has FLAC, which is taken where both are there; converted copies have WAV."""


@dataclass(frozen=True)
class Utterance:
    """One audio file and what is said."""

    path: Path
    file: str
    """The same below the corpus, with slashes."""
    text: str
    where: str
    """The file that holds the text, below the corpus, and its line: ``<file>, line <n>``."""


class LibriSpeech:
    """Finds the utterances of sets, and notes what is wrong with them until :meth:`check` says it all.

    Args:
        root: the folder that holds the sets.

    Attributes:
        wrong: a phrase for each problem.
        unmatched: by audio file, why it cannot be used: it is missing, or its transcript is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wrong: list[str] = []
        self.unmatched: dict[str, str] = {}

    def read(self, name: str, files: Collection[str] | None = None) -> list[Utterance]:
        """The utterances of a set that have both audio and transcript, sorted by path.

        Args:
            name: of the set's folder, such as ``train-clean-100``.
            files: only these are wanted, in this order, and only their chapters are read.
        """
        if not (self.root / name).is_dir():
            self.wrong.append(f"it has no folder {name}")
            return []
        if files is None:
            paths = (path for path in sorted((self.root / name).glob("*/*")) if path.is_dir())
            chapters = [path.relative_to(self.root).as_posix() for path in paths]
        else:
            chapters = sorted({str(PurePosixPath(file).parent) for file in files})
        found = {one.file: one for chapter in chapters for one in self._read_chapter(chapter)}
        if files is not None:
            for file in files:
                if file not in found:
                    self.unmatched.setdefault(file, f"{file} is not there, but in the table of {name}")
            if left_out := len(found.keys() - set(files)):
                log.warning("%d utterances of %s are not in its table, and are not used.", left_out, name)
            found = {file: found[file] for file in files if file in found}
        if not found:
            self.wrong.append(f"{name} has no utterance <speaker>/<chapter>/<speaker>-<chapter>-<n>.flac")
        return list(found.values())

    def check(self, *, skip_bad_audio: bool = False) -> None:
        """Say what is wrong with the sets that were read.

        Args:
            skip_bad_audio: leave out audio without transcript and transcripts without audio, and say so; else they are
                an error: the corpus is incomplete.

        Raises:
            DataError: the folder or a set is missing, a set has no utterance or is incomplete, or a transcript is
                malformed. All that is wrong is in one message.
        """
        if not self.root.is_dir():
            raise DataError(
                f"{self.root} does not exist: it must be LibriSpeech's folder, which holds train-clean-100, ... "
                "(`downstream_expert.datarc.libri_root` of ASR, `downstream_expert.corpus.path` of PR); "
                "`s3prl-interfaces mini-superb DIR` makes a small one to try."
            )
        unmatched = list(dict.fromkeys(self.unmatched.values()))
        if self.wrong or not skip_bad_audio:
            remedy = "`skip_bad_audio: true` leaves out audio and transcripts that miss their other half."
            refuse(self.root, [*self.wrong, *unmatched], f"Unpack again what is missing. {remedy}")
        elif unmatched:
            log.warning("%d left out, as `skip_bad_audio` says: %s.", len(self.unmatched), first_of(unmatched))

    def _read_chapter(self, chapter: str) -> list[Utterance]:
        transcript = f"{chapter}/{'-'.join(PurePosixPath(chapter).parts[-2:])}.trans.txt"
        audio: dict[str, str] = {}
        try:
            for path in sorted((self.root / chapter).iterdir()):
                if path.suffix in SUFFIXES:
                    audio.setdefault(path.stem, f"{chapter}/{path.name}")
            lines = (self.root / transcript).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            self.unmatched.update(dict.fromkeys(audio.values() or [transcript], f"{transcript} does not exist"))
            return []
        except (OSError, ValueError) as error:  # not UTF-8, or a name in a table that no folder can have
            self.wrong.append(f"{transcript} cannot be read ({error})")
            return []
        said: dict[str, tuple[str, str]] = {}
        for number, line in enumerate(lines, start=1):
            name, _, text = line.strip().partition(" ")
            where = f"{transcript}, line {number}"
            if not name:
                continue
            if not text:
                self.wrong.append(f"{where} must be `<utterance> WORDS`, but is {line!r}")
            elif name in said:
                self.wrong.append(f"{where} transcribes {name} once more")
            elif name not in audio:
                self.unmatched[f"{chapter}/{name}.flac"] = f"{where}: there is no audio {name}.flac"
            said[name] = text, where
        for name, file in audio.items():
            if name not in said:
                self.unmatched[file] = f"{file} has no transcript in {transcript}"
        return [Utterance(self.root / file, file, *said[name]) for name, file in audio.items() if name in said]


def read_sets(root: Path, sets: Sequence[str], *, skip_bad_audio: bool = False) -> list[Utterance]:
    """The utterances of sets below ``root``, one set after the other: :meth:`LibriSpeech.read`, checked.

    Raises:
        DataError: as :meth:`LibriSpeech.check`, whose ``skip_bad_audio`` it takes.
    """
    corpus = LibriSpeech(root)
    utterances = [utterance for name in sets for utterance in corpus.read(name)]
    corpus.check(skip_bad_audio=skip_bad_audio)
    return utterances
