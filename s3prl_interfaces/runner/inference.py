"""What a trained head says of audio files that are in no corpus (S3PRL's ``-m inference -t FILE``)."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from downstream_tasks.audio import load_audio
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.runner.batches import to_device
from s3prl_interfaces.runner.lane import Lane

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
            wavs = to_device([load_audio(file)], device)
            answer = lane.head.inference(lane.featurizer(wavs, upstream(wavs)), [file.stem])
            if answer:  # S3PRL's ASR returns nothing, and writes a file
                log.info("%s: %s", file, answer[0])
    log.info("Files: %s", lane.folder)
