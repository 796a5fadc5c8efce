"""Room, noise, other voices and a microphone, on the input only: targets are those of clean speech, as in WavLM."""

import torch
import torchaudio
from torch import Generator, Tensor

from s3prl_interfaces.tiny_hubert.corpus import SAMPLE_RATE

_CLEAN = 0.25  # share of the utterances that stay as they are
_ROOM = 0.5  # of the others: share that is in a room
_VOICE = 0.2  # of the others: share with a second voice over at most half of the utterance
_REVERB_SECONDS = 0.3
_MICROPHONE_DB = 10.0  # most that a part of the spectrum is raised or lowered
_MICROPHONE_PARTS = 8


def distort(wavs: Tensor, random: Generator) -> Tensor:
    """Put utterances into rooms, with noise and a bit of one another, before microphones that colour them.

    Args:
        wavs: ``(batch, time)``, float32, clean.
        random: Source of all that is drawn.

    Returns:
        ``(batch, time)``; what is at a time before is there afterwards too.
    """
    batch = len(wavs)
    noisy = _mixed(wavs, random)
    in_room = _draw(batch, random) < _ROOM
    noisy = torch.where(in_room, _reverberated(noisy, random), noisy)
    noisy = _coloured(noisy + _noise(noisy, random), random)
    return torch.where(_draw(batch, random) < _CLEAN, wavs, noisy)


def _draw(batch: int, random: Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(batch, 1, generator=random)


def _power(wavs: Tensor) -> Tensor:
    return wavs.square().mean(dim=1, keepdim=True) + 1e-10


def _mixed(wavs: Tensor, random: Generator) -> Tensor:
    """Lay a piece of the next utterance of the batch over some, 0 to 10 dB weaker."""
    batch, time = wavs.shape
    other = wavs.roll(1, dims=0).roll(int(torch.randint(time, (1,), generator=random)), dims=1)
    length = _draw(batch, random, 0.1, 0.5) * time
    start = _draw(batch, random) * (time - length)
    moments = torch.arange(time)
    piece = (moments >= start) & (moments < start + length) & (_draw(batch, random) < _VOICE)
    gain = torch.sqrt(_power(wavs) / _power(other)) * 10 ** (-_draw(batch, random, 0, 10) / 20)
    return wavs + torch.where(piece, gain * other, 0.0)


def _reverberated(wavs: Tensor, random: Generator) -> Tensor:
    """Convolve with noise that decays by 60 dB in 0.1 to 0.6 s, behind a direct path of 0 to 12 dB more energy."""
    batch, time = wavs.shape
    moments = torch.arange(1, int(_REVERB_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    decay = 10 ** (-3 * moments / _draw(batch, random, 0.1, 0.6))
    tail = torch.randn(batch, len(moments), generator=random) * decay
    energy = 10 ** (-_draw(batch, random, 0, 12) / 10)
    tail = tail * torch.sqrt(energy / tail.square().sum(dim=1, keepdim=True))
    response = torch.cat([torch.ones(batch, 1), tail], dim=1)
    return torchaudio.functional.fftconvolve(wavs, response)[:, :time]


def _noise(wavs: Tensor, random: Generator) -> Tensor:
    """Noise 5 to 35 dB below the speech, its spectrum falling by 0 to 6 dB an octave (white to brown)."""
    batch, time = wavs.shape
    spectrum = torch.fft.rfft(torch.randn(batch, time, generator=random))
    frequencies = torch.arange(1, spectrum.size(1) + 1) / time * SAMPLE_RATE
    slope = _draw(batch, random, 0, 1)
    shaped = torch.fft.irfft(spectrum * (frequencies / 100).clamp(min=1) ** -slope, n=time)
    gain = torch.sqrt(_power(wavs) / _power(shaped)) * 10 ** (-_draw(batch, random, 5, 35) / 20)
    return gain * shaped


def _coloured(wavs: Tensor, random: Generator) -> Tensor:
    """Raise or lower parts of the spectrum, equally far apart in mel, by up to 10 dB; between them it is smooth."""
    batch, time = wavs.shape
    decibels = _draw(batch, random) * (2 * torch.rand(batch, _MICROPHONE_PARTS, generator=random) - 1) * _MICROPHONE_DB
    mel = torch.log1p(torch.arange(time // 2 + 1) / time * SAMPLE_RATE / 700)
    place = mel / mel[-1] * (_MICROPHONE_PARTS - 1)
    below = place.long().clamp(max=_MICROPHONE_PARTS - 2)
    decibels = torch.lerp(decibels[:, below], decibels[:, below + 1], place - below)
    return torch.fft.irfft(torch.fft.rfft(wavs) * 10 ** (decibels / 20), n=time)
