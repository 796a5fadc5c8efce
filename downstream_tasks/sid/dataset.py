"""VoxCeleb1 for speaker identification: ``<folder>/wav/<speaker>/<video>/<n>.wav`` and ``veri_test_class.txt``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from downstream_tasks.audio import load_audio, random_piece
from downstream_tasks.labels import Labels
from downstream_tasks.loading import AudioDataset
from s3prl_interfaces.errors import DataError

SPLITS = {"1": "train", "2": "dev", "3": "test"}


@dataclass(frozen=True)
class Utterance:
    """One line of the metadata."""

    path: Path
    speaker: str
    name: str
    """``<speaker>-<video>-<n>``, as S3PRL writes it."""


@dataclass(frozen=True)
class Line:
    """One line of the metadata, before the disk is asked."""

    number: int
    split: str
    file: PurePosixPath
    """``<speaker>/<video>/<n>.wav``."""


def read_lines(path: Path) -> list[Line]:
    """The metadata's lines.

    Args:
        path: lines ``<1|2|3> <speaker>/<video>/<n>.wav``; 1 is train, 2 dev, 3 test.

    Raises:
        DataError: the metadata is missing, or a line is malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): `downstream_expert.datarc.meta_data` must be VoxCeleb1's "
            "veri_test_class.txt; `s3prl-interfaces mini-superb DIR` makes a small corpus to try."
        ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        split, _, file = line.strip().partition(" ")
        if split not in SPLITS or len(PurePosixPath(file).parts) != 3:
            raise DataError(f"{path}, line {number}: must be `<1|2|3> <speaker>/<video>/<n>.wav`, but is {line!r}.")
        found.append(Line(number, SPLITS[split], PurePosixPath(file)))
    return found


def read_metadata(path: Path, root: Path) -> dict[str, list[Utterance]]:
    """The utterances of each split, in the metadata's order.

    The disk is asked once where each speaker's folder is (``dev/wav``, ``test/wav``), not once per file as in S3PRL
    (153 thousand searches); a single file that is missing shows when it is read.

    Args:
        path: see :func:`read_lines`.
        root: the folder that holds dev/ and test/.

    Raises:
        DataError: the metadata or a speaker's folder is missing, a line is malformed, or a split is empty.
    """
    lines = read_lines(path)
    folders = speaker_folders(root)
    splits: dict[str, list[Utterance]] = {name: [] for name in SPLITS.values()}
    for line in lines:
        speaker, video, file = line.file.parts
        if speaker not in folders:
            raise DataError(f"{root} has no folder */wav/{speaker}, which {path}, line {line.number} names.")
        name = f"{speaker}-{video}-{line.file.stem}"
        splits[line.split].append(Utterance(folders[speaker] / video / file, speaker, name))
    for split, utterances in splits.items():
        if not utterances:
            raise DataError(f"{path} has no utterance of split {split}.")
    return splits


def speaker_folders(root: Path) -> dict[str, Path]:
    """Where each speaker's videos are: ``<root>/*/wav/<speaker>``.

    Raises:
        DataError: ``root`` does not exist.
    """
    if not root.is_dir():
        raise DataError(f"{root} does not exist: `downstream_expert.datarc.file_path` must hold dev/wav and test/wav.")
    wavs = [folder / "wav" for folder in sorted(root.iterdir()) if (folder / "wav").is_dir()]
    return {speaker.name: speaker for wav in wavs for speaker in wav.iterdir()}


def labels_of(utterances: Iterable[Utterance]) -> Labels:
    """The speakers of the metadata in the order of their ids: id10001 is 0, as in S3PRL; 1251 in VoxCeleb1."""
    return Labels({"speaker": sorted({utterance.speaker for utterance in utterances})})


class SpeakerDataset(AudioDataset):
    """Utterances of one split: ``(wav, ids, name)``.

    Args:
        utterances: of the split.
        speakers: of the corpus.
        max_timestep: longest piece in samples; longer utterances are cropped at random (S3PRL crops training only).
    """

    def __init__(self, utterances: Sequence[Utterance], speakers: Labels, max_timestep: int | None = None) -> None:
        self.utterances = utterances
        self.speakers = speakers
        self.max_timestep = max_timestep

    def __len__(self) -> int:
        """How many utterances there are."""
        return len(self.utterances)

    def path(self, index: int) -> Path:
        """The audio file of an utterance."""
        return self.utterances[index].path

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Read one utterance: (samples,) float32 at 16 kHz, (1,) int64, its name."""
        utterance = self.utterances[index]
        wav = load_audio(utterance.path)
        if self.max_timestep is not None:
            wav = random_piece(wav, self.max_timestep)
        return wav, self.speakers.encode([utterance.speaker]), utterance.name
