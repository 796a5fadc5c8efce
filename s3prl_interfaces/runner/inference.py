"""A trained model on audio files that are in no corpus: answers (S3PRL's ``-m inference -t FILE``) and features."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.runner.batches import to_device
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.trained import TrainedModel, read_audio

log = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def find_audio(path: Path) -> list[Path]:
    """The file itself, or every audio file of a folder.

    Raises:
        DataError: there is no such file, or the folder holds no audio.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist: `-t` must be an audio file or a folder of them.")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise DataError(f"{path} holds no audio file ({', '.join(AUDIO_SUFFIXES)}).")
    return files


def infer(upstream: nn.Module, lane: Lane, files: Sequence[Path], device: torch.device) -> None:
    """Run ``head.inference(features, [name])``, S3PRL's contract, over audio files.

    Raises:
        ConfigError: the task has no inference.
        DataError: a file cannot be read.
    """
    if not hasattr(lane.head, "inference"):
        raise ConfigError(f"Task `{lane.args.downstream}` has no inference: its DownstreamExpert lacks the method.")
    for module in (upstream, *lane.modules.values()):
        module.eval()
    with torch.no_grad():
        for file in files:
            wavs = to_device([read_audio(lane.head, file)], device)
            answer = lane.head.inference(lane.featurizer(wavs, upstream(wavs)), [file.stem])
            if answer:  # S3PRL's ASR returns nothing, and writes a file
                log.info("%s: %s", file, answer[0])
    log.info("Files: %s", lane.folder)


def write_features(model: TrainedModel, files: Sequence[Path], root: Path, out: Path) -> None:
    """Write the interface's features of each audio file to ``out``, in the folders that it lies in below ``root``.

    Args:
        model: a trained model.
        files: what :func:`find_audio` found at ``root``.
        root: the audio file, or the folder of them.
        out: made if missing; each file is (frames, width) float32, its name the audio's with ``.npy`` added.

    Raises:
        DataError: an audio file cannot be read, or ``out`` cannot be written.
    """
    for file in tqdm(files, desc="features", unit="file", disable=None):
        (features,) = model.features([file])
        name = file.relative_to(root) if root.is_dir() else Path(file.name)
        target = out / name.with_name(f"{name.name}.npy")
        unfinished = target.with_name(f".{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as handle:
                np.save(handle, features.cpu().numpy())
            unfinished.replace(target)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise DataError(f"{target} cannot be written: {error}.") from error
    log.info("Features of %d files: %s", len(files), out)
