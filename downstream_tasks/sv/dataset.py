"""VoxCeleb1 for speaker verification: ``<file_path>/{dev,test}/wav/<speaker>/<video>/<n>.wav`` and lists of trials."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from downstream_tasks.audio import MIN_SAMPLES, load_audio, random_piece
from downstream_tasks.layout import missing_files, name_below, refuse
from downstream_tasks.lengths import audio_lengths
from downstream_tasks.loading import AudioDataset
from downstream_tasks.sv.effects import apply_effects, load_with_effects
from s3prl_interfaces.errors import DataError

log = logging.getLogger(__name__)

TRAINING = "dev/wav"
"""VoxCeleb1 calls the part for training dev; SUPERB's dev trials are over some of its speakers."""
FOLDERS = {"dev": TRAINING, "test": "test/wav"}
"""What the paths of a list of trials are relative to."""


@dataclass(frozen=True)
class Trial:
    """Are these two utterances of one speaker?"""

    target: bool
    """Whether they are."""
    first: str
    second: str
    """``<speaker>/<video>/<n>.wav``."""

    @property
    def name(self) -> str:
        """``<speaker>-<video>-<n>_<speaker>-<video>-<n>``, as S3PRL writes it."""
        return f"{name_of(self.first)}_{name_of(self.second)}"


def name_of(file: str) -> str:
    """``<speaker>-<video>-<n>`` of ``.../<speaker>/<video>/<n>.wav``."""
    return "-".join(PurePosixPath(file).with_suffix("").parts[-3:])


def load_utterance(path: Path, *, keep_silence: bool = False) -> np.ndarray:
    """Read an utterance and apply the effects.

    Returns:
        (samples,) float32 at 16 kHz.

    Raises:
        DataError: it cannot be read, or too little of it is sound.
    """
    return transform(load_audio(path), f"Audio file {path}", keep_silence=keep_silence)


def transform(wav: np.ndarray, what: str, *, keep_silence: bool = False) -> np.ndarray:
    """Apply the effects to (samples,) float32 at 16 kHz.

    Args:
        wav: the utterance.
        what: it is, for messages.
        keep_silence: only make it quieter.

    Raises:
        DataError: too little of it is sound.
    """
    wav = apply_effects(wav, keep_silence=keep_silence)
    if len(wav) < MIN_SAMPLES:
        raise DataError(f"{what} has {len(wav)} samples after its silence is removed, less than one frame of 25 ms.")
    return wav


def find_wavs(root: Path) -> dict[str, list[str]]:
    """The wavs of each speaker in the folder ``root``, relative to it, all in alphabetical order.

    Raises:
        DataError: the folder is missing, or has no speaker.
    """
    try:
        wavs = {
            speaker: sorted(
                f"{speaker}/{video}/{name}"
                for video in _folders(root / speaker)
                for name in _names(root / speaker / video)
                if name.endswith(".wav")
            )
            for speaker in sorted(_folders(root))
        }
    except OSError as error:
        raise DataError(
            f"{root} cannot be read ({error.strerror}): `downstream_expert.datarc.file_path` must hold VoxCeleb1's "
            "dev/wav and test/wav; `s3prl-interfaces mini-superb DIR` makes a small corpus to try."
        ) from error
    if not wavs:
        raise DataError(f"{root} has no folders of speakers (<speaker>/<video>/<n>.wav).")
    return wavs


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:  # tells folders from files without asking the disk again
        return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def _names(folder: Path) -> list[str]:
    """What a folder holds, without the `._*` that macOS leaves in archives."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not entry.name.startswith(".")]


def read_trials(path: Path, key: str) -> list[Trial]:
    """Read a list of trials, lines ``<0|1> <file> <file>``.

    Args:
        path: of the list.
        key: the config's key that says so, for messages.

    Raises:
        DataError: it cannot be read, a line is malformed, or there are not trials of both kinds.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): `{key}` must be a list of trials; `s3prl-interfaces prepare sv DIR` "
            "says where it comes from."
        ) from error
    trials = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if (
            len(fields) != 3
            or fields[0] not in ("0", "1")
            or any(len(PurePosixPath(file).parts) < 3 for file in fields[1:])
        ):
            raise DataError(
                f"{path}, line {number}: must be `<0|1> <speaker>/<video>/<n>.wav <speaker>/<video>/<n>.wav`, but is "
                f"{line!r}."
            )
        trials.append(Trial(fields[0] == "1", *fields[1:]))
    if len({trial.target for trial in trials}) < 2:
        raise DataError(f"{path} must have trials of one speaker (1) and of two (0): there is no EER without either.")
    return trials


def files_of(trials: Sequence[Trial]) -> list[str]:
    """The files of some trials, each once, in alphabetical order (S3PRL's order is another in each process, D17)."""
    return sorted({file for trial in trials for file in (trial.first, trial.second)})


def speakers_of(files: Sequence[str]) -> set[str]:
    """The speakers of files ``.../<speaker>/<video>/<n>.wav``."""
    return {PurePosixPath(file).parts[-3] for file in files}


def check_files(root: Path, files: Sequence[str], path: Path) -> None:
    """Refuse a list of trials (at ``path``) of which files are missing: better now than at the first evaluation.

    Raises:
        DataError: names the files.
    """
    missing = missing_files(root / file for file in files)
    refuse(root, [f"{name_below(root, file)} does not exist ({path.name} names it)" for file in missing])


def long_files(
    root: Path, min_samples: float, skip_bad_audio: bool, *, keep_silence: bool = False
) -> dict[str, list[str]]:
    """The training utterances of each speaker that are longer than ``min_samples`` after the effects.

    The lengths are measured once and kept (see :func:`audio_lengths`) in the corpus: one pass over 340 hours, or, with
    ``keep_silence``, over the headers.

    Args:
        root: the folder that holds dev/wav.
        min_samples: at 16 kHz.
        skip_bad_audio: leave out what cannot be read; else it is an error.
        keep_silence: the effects do not remove it.

    Returns:
        Paths relative to ``root``; a speaker may be left without any.

    Raises:
        DataError: the corpus is missing, a file cannot be read, or no utterance is long enough.
    """
    wavs = {speaker: [f"{TRAINING}/{file}" for file in files] for speaker, files in find_wavs(root / TRAINING).items()}
    files = [file for mine in wavs.values() for file in mine]
    if keep_silence:
        measured = audio_lengths(root, files, skip_bad_audio=skip_bad_audio)
    else:
        measured = audio_lengths(
            root, files, measure=_length_after_effects, kind="voxceleb1-effects", skip_bad_audio=skip_bad_audio
        )
    lengths = dict(zip(files, measured, strict=True))
    long = {speaker: [file for file in mine if lengths[file] > min_samples] for speaker, mine in wavs.items()}
    count = sum(map(len, long.values()))
    if not count:
        raise DataError(f"{root / TRAINING} has no wav of more than {min_samples:g} samples (`vad_config.min_sec`).")
    log.info("%d of %d utterances in %s are longer than %g samples.", count, len(files), TRAINING, min_samples)
    return long


def _length_after_effects(path: Path) -> int:
    return max(1, len(load_with_effects(path)))  # 0 means that the file cannot be read


class TrainingDataset(AudioDataset):
    """Utterances to train on: ``(wav, name, label)``.

    Args:
        root: the folder that holds dev/wav.
        files: of each speaker, relative to ``root``; the speakers' labels are in this order.
        max_timestep: longest piece in samples; longer utterances are cropped at random.
        keep_silence: the effects do not remove it.
    """

    def __init__(
        self, root: Path, files: dict[str, list[str]], max_timestep: int | None, *, keep_silence: bool = False
    ) -> None:
        self.root = root
        self.keep_silence = keep_silence
        self.items = [(file, label) for label, mine in enumerate(files.values()) for file in mine]
        self.max_timestep = max_timestep

    def __len__(self) -> int:
        """How many utterances there are."""
        return len(self.items)

    def path(self, index: int) -> Path:
        """The audio file of an utterance."""
        return self.root / self.items[index][0]

    def __getitem__(self, index: int) -> tuple[np.ndarray, str, int]:
        """Read one utterance: (samples,) float32 at 16 kHz, its name, its speaker's label."""
        file, label = self.items[index]
        wav = load_utterance(self.root / file, keep_silence=self.keep_silence)
        if self.max_timestep is not None:
            wav = random_piece(wav, self.max_timestep)
        return wav, name_of(file), label


class TrialDataset(AudioDataset):
    """The utterances of some trials, each once: ``(wav, file)``.

    Args:
        root: what ``files`` are relative to.
        files: of the trials.
        keep_silence: the effects do not remove it.
    """

    def __init__(self, root: Path, files: Sequence[str], *, keep_silence: bool = False) -> None:
        self.root = root
        self.keep_silence = keep_silence
        self.files = files

    def __len__(self) -> int:
        """How many utterances there are."""
        return len(self.files)

    def path(self, index: int) -> Path:
        """The audio file of an utterance."""
        return self.root / self.files[index]

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        """Read one utterance: (samples,) float32 at 16 kHz, its file as the trials name it."""
        file = self.files[index]
        return load_utterance(self.root / file, keep_silence=self.keep_silence), file
