"""An upstream in one file, to try things without a download: 13 layers that each show another moment's log-mel frames.

It shows what `-u FILE.py:FACTORY` takes. It is no speech model: nothing in it is learned, and the layers differ only in
which moment of the sound they show. That is enough to see interfaces differ: a weighted sum blurs the moments into one,
an interface that keeps layers apart can tell their order. Its scores say nothing about HuBERT's.
"""

from collections.abc import Sequence

import torch
import torchaudio
from torch import Tensor, nn

LAYERS = 13
STEP = 3  # frames from one layer's moment to the next: 60 ms
HOP = 320  # samples a frame: 50 frames a second, as HuBERT


class Moments(nn.Module):
    """Layer l shows the log-mel frames `3 * (l - 6)` frames later, from 360 ms before to 360 ms after."""

    def __init__(self) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(16000, n_fft=512, win_length=400, hop_length=HOP, n_mels=80)

    def get_downsample_rates(self, key: str) -> int:
        """Samples a frame."""
        return HOP

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Waveforms (samples,) at 16 kHz to 13 hidden states (batch, time, 80)."""
        frames = nn.utils.rnn.pad_sequence([self._frames(wav) for wav in wavs], batch_first=True)
        reach = LAYERS // 2 * STEP
        # Zeros before and after, as in the padding: what else is in the batch changes nothing.
        padded = nn.functional.pad(frames, (0, 0, reach, reach))
        return {"hidden_states": [padded[:, layer * STEP :][:, : frames.size(1)] for layer in range(LAYERS)]}

    def _frames(self, wav: Tensor) -> Tensor:
        """(samples,) -> (time, 80), shifted and scaled to about -1 to 1.

        By constants, not by the utterance's own mean: SUPERB's heads average over time, which would leave nothing.
        """
        return (torch.log(self.mel(wav)[:, : max(1, round(len(wav) / HOP))].T + 1e-5) + 4) / 4


def build(**_: object) -> Moments:
    """What `-u scripts/demo_upstream.py:build` calls; S3PRL's keywords (ckpt, refresh, ...) mean nothing here."""
    return Moments()
