"""From waveforms to a model's input, on the waveforms' device.

What transformers' feature extractors do in NumPy on the CPU, in PyTorch; the tests hold each against its extractor.
Legend: B utterances, N samples, T frames.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

# Of every normalisation in transformers' feature extractors.
VARIANCE_FLOOR = 1e-7


def own_mask(lengths: Sequence[int], device: torch.device) -> Tensor:
    """(B, longest) int64: 1 where an utterance has something of its own, 0 where it is padded."""
    positions = torch.arange(max(lengths), device=device)
    return (positions < torch.tensor(lengths, device=device)[:, None]).long()


def lengthened(wavs: Sequence[Tensor], least: int) -> list[Tensor]:
    """Waveforms that are shorter than ``least`` samples, with silence after them."""
    return [pad(wav, (0, least - len(wav))) if len(wav) < least else wav for wav in wavs]


class Waveforms(nn.Module):
    """Padded waveforms, as ``Wav2Vec2FeatureExtractor`` makes them of each utterance.

    Of extractors without an attention mask the original takes mean and variance over the padding too; here they are
    always those of the utterance alone.

    Args:
        normalize: give each utterance mean 0 and variance 1 (``do_normalize``).
        least: samples of one frame; shorter utterances get silence after them.
    """

    def __init__(self, normalize: bool, least: int) -> None:
        super().__init__()
        self.normalize = normalize
        self.least = least

    def forward(self, wavs: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[int]]:
        """(N,) waveforms to (B, N) waveforms, their (B, N) mask, and the samples of each."""
        if self.normalize:
            wavs = [(wav - wav.mean()) / torch.sqrt(wav.var(correction=0) + VARIANCE_FLOOR) for wav in wavs]
        wavs = lengthened(wavs, self.least)
        samples = [len(wav) for wav in wavs]
        padded = pad_sequence(wavs, batch_first=True)
        return padded, own_mask(samples, padded.device), samples


class FilterBanks(nn.Module):
    """Kaldi's log mel filter banks, two frames stacked, as ``SeamlessM4TFeatureExtractor`` makes them for w2v-BERT.

    An odd last frame is dropped; the original pads it and masks it.

    Args:
        extractor: whose window, mel filters and stride these are.
    """

    FRAME, HOP, FFT, PREEMPHASIS = 400, 160, 512, 0.97  # as written in the extractor
    MEL_FLOOR = 1.192092955078125e-07

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.stride: int = extractor.stride
        self.least = self.FRAME + (self.stride - 1) * self.HOP
        # float64, as the original: in float32 a mel bin far below the loudest one would be rounding error.
        self.window: Tensor
        self.mel_filters: Tensor
        self.register_buffer("window", torch.as_tensor(extractor.window).double(), persistent=False)
        self.register_buffer("mel_filters", torch.as_tensor(extractor.mel_filters).double(), persistent=False)

    def forward(self, wavs: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[int]]:
        """(N,) waveforms to (B, T, stride * mels), their (B, T) mask, and the samples of each."""
        wavs = lengthened(wavs, self.least)
        samples = [len(wav) for wav in wavs]
        frames = pad_sequence(wavs, batch_first=True).double().unfold(1, self.FRAME, self.HOP) * 2**15
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        spectrum = torch.fft.rfft((frames - self.PREEMPHASIS * before) * self.window, n=self.FFT).abs().square()
        log_mels = (spectrum @ self.mel_filters).clamp(min=self.MEL_FLOOR).log()
        stacked = []
        for log_mel, count in zip(log_mels, samples, strict=True):
            own = log_mel[: 1 + (count - self.FRAME) // self.HOP]
            own = (own - own.mean(0)) / torch.sqrt(own.var(0, correction=1) + VARIANCE_FLOOR)
            stacked.append(own[: len(own) // self.stride * self.stride].reshape(-1, self.stride * own.size(1)))
        features = pad_sequence(stacked, batch_first=True).float()
        return features, own_mask([len(own) for own in stacked], features.device), samples


class LogMels(nn.Module):
    """Whisper's log mel spectrograms of windows of 30 s, as ``WhisperFeatureExtractor`` makes them (without dither).

    Args:
        extractor: whose sizes and mel filters these are.
    """

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.fft: int = extractor.n_fft
        self.hop: int = extractor.hop_length
        self.window_samples: int = extractor.n_samples
        self.window: Tensor
        self.mel_filters: Tensor
        self.register_buffer("window", torch.hann_window(self.fft), persistent=False)
        # float64: a run's autocast leaves it alone, and in half precision the powers overflow.
        self.register_buffer("mel_filters", torch.as_tensor(extractor.mel_filters).double(), persistent=False)

    def forward(self, windows: Tensor) -> Tensor:
        """(B, window_samples) to (B, mels, window_samples / hop)."""
        spectrum = torch.stft(windows, self.fft, self.hop, window=self.window, return_complex=True)
        power = spectrum[..., :-1].abs().square().double()
        log_mels = (self.mel_filters.T @ power).clamp(min=1e-10).log10().float()
        log_mels = torch.maximum(log_mels, log_mels.amax((1, 2), keepdim=True) - 8.0)
        return (log_mels + 4.0) / 4.0
