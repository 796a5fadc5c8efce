"""Speech Commands v0.01: a folder of clips for each word, and a test set with a folder for each of twelve classes."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from downstream_tasks.audio import load_audio, random_piece
from downstream_tasks.labels import Labels
from downstream_tasks.layout import refuse
from downstream_tasks.loading import AudioDataset

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
CLASSES = (*KEYWORDS, UNKNOWN, SILENCE)
LABELS = Labels({"keyword": CLASSES})
NOISE = "_background_noise_"
"""The training set's folder of long recordings without speech."""

CROP = 16000
"""Samples of a piece of noise: one second."""

# sox's `gain -3.0`, which S3PRL applies to every clip, test included (`speech_commands/dataset.py`). It neither clips
# nor dithers; it rounds to 32 bits, so that float32 differs by less than 1e-7. The `rate` effect beside it does nothing
# at 16 kHz. A clip of another rate is resampled by another filter than sox's; the corpus has none.
GAIN = 10 ** (-3 / 20)

_MODULUS = 2**27 - 1  # "most files of one class", a constant of the corpus's own splitting rule


@dataclass(frozen=True)
class Clip:
    """One file and what is heard in it."""

    path: Path
    label: str

    @property
    def name(self) -> str:
        """``<folder>-<file>.wav``, as S3PRL writes it."""
        return f"{self.path.parent.name}-{self.path.name}"


@dataclass(frozen=True)
class Corpus:
    """What the two folders hold."""

    words: dict[str, list[Clip]]
    """Clips with a word for ``train``, ``dev`` and ``unused``."""
    noises: list[Clip]
    test: list[Clip]


def split_of(name: str) -> str:
    """Which split a file of the training set is in: ``train``, ``dev`` or ``unused`` (kept for a test set of its own).

    Speech Commands' own rule: a hash of the speaker's part of the name, so no speaker is in two of them.

    Args:
        name: of the file, ``<speaker>_nohash_<n>.wav``.
    """
    speaker = name.partition("_nohash_")[0]
    number = int(hashlib.sha1(speaker.encode(errors="surrogateescape")).hexdigest(), 16)  # noqa: S324 (no secret)
    percent = number % (_MODULUS + 1) * (100.0 / _MODULUS)
    if percent < 10:
        return "dev"
    return "unused" if percent < 20 else "train"


def read_corpus(train_root: Path, test_root: Path) -> Corpus:
    """Find the clips of both folders, in alphabetical order, whatever order the disk has (unlike S3PRL).

    Args:
        train_root: folders of words and ``_background_noise_``.
        test_root: the folders of the twelve classes.

    Raises:
        DataError: a folder is missing, empty or not of the corpus; all that is wrong in one message.
    """
    refuse(train_root, problems_of_training(train_root))
    refuse(test_root, problems_of_test(test_root))
    words: dict[str, list[Clip]] = {"train": [], "dev": [], "unused": []}
    for folder in folders_in(train_root):
        if folder.name != NOISE:
            label = folder.name if folder.name in CLASSES else UNKNOWN
            for path in _wavs(folder):
                words[split_of(path.name)].append(Clip(path, label))
    refuse(train_root, [f"no clip is of split {split} by its name" for split in ("train", "dev") if not words[split]])
    return Corpus(
        words,
        [Clip(path, SILENCE) for path in _wavs(train_root / NOISE)],
        [Clip(path, folder.name) for folder in folders_in(test_root) for path in _wavs(folder)],
    )


def problems_of_training(root: Path) -> list[str]:
    """What ``speech_commands_root`` lacks."""
    if not root.is_dir():
        return [f"the folder does not exist: `speech_commands_root` must hold the folders of words and {NOISE}"]
    problems = [f"no wav in {word}/" for word in (*KEYWORDS, NOISE) if not _wavs(root / word)]
    if not any(_wavs(folder) for folder in folders_in(root) if folder.name not in (*CLASSES, NOISE)):
        problems.append("no wav of any word that is not a keyword (bed/, bird/, ...)")
    return problems


def problems_of_test(root: Path) -> list[str]:
    """What ``speech_commands_test_root`` lacks or has too much."""
    if not root.is_dir():
        return [f"the folder does not exist: `speech_commands_test_root` must hold the folders {', '.join(CLASSES)}"]
    strangers = [folder.name for folder in folders_in(root) if folder.name not in CLASSES]
    return [
        *(f"no wav in {label}/" for label in CLASSES if not _wavs(root / label)),
        *(f"{name}/ is not one of the test set's twelve classes" for name in strangers),
    ]


def folders_in(root: Path) -> list[Path]:
    """The folders in a folder, in alphabetical order, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _wavs(folder: Path) -> list[Path]:
    """The clips of a folder; not the `._*.wav` that macOS leaves in archives."""
    return sorted(folder.glob("[!.]*.wav"))


def transform(wav: np.ndarray) -> np.ndarray:
    """3 dB quieter, as S3PRL hands a clip to the upstream: (samples,) float32."""
    return wav * np.float32(GAIN)


class KeywordDataset(AudioDataset):
    """Clips of one split: ``(wav, ids, name)``, as S3PRL's (``s3prl/downstream/speech_commands/dataset.py``).

    Args:
        clips: of the split.
        crop_silence: of silence, give one second from a random place each time (S3PRL's train and dev). A file of less
            than a second is given whole; S3PRL fails there (D24).
    """

    def __init__(self, clips: Sequence[Clip], crop_silence: bool) -> None:
        self.clips = clips
        self.crop_silence = crop_silence

    @property
    def weights(self) -> list[float]:
        """How likely each clip is to be drawn, so that each class is drawn equally often."""
        counts = Counter(clip.label for clip in self.clips)
        return [len(self.clips) / counts[clip.label] for clip in self.clips]

    def __len__(self) -> int:
        """How many clips there are."""
        return len(self.clips)

    def path(self, index: int) -> Path:
        """The audio file of a clip."""
        return self.clips[index].path

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Read one clip: (samples,) float32 at 16 kHz, (1,) int64, its name."""
        clip = self.clips[index]
        wav = transform(load_audio(clip.path))
        if self.crop_silence and clip.label == SILENCE:
            wav = random_piece(wav, CROP)
        return wav, LABELS.encode([clip.label]), clip.name
