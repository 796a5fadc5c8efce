"""Speech encoders of transformers behind S3PRL's contract for upstreams."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from s3prl_interfaces.errors import DataError, UpstreamError
from s3prl_interfaces.transformers_upstream.inputs import FilterBanks, LogMels, Waveforms
from s3prl_interfaces.transformers_upstream.padding import keep_padding_out

# Samples of the two utterances with which a model is measured. Frames of 160, 320, 640 or 1280 samples fit into the
# difference without a rest.
PROBE = (3200, 9600)


class TransformersUpstream(nn.Module, ABC):
    """Behind S3PRL's contract: waveforms in, every layer's hidden states out.

    Hidden states are those that the transformers model gives for each utterance alone. In a padded batch they are the
    same within 1e-4 for HuBERT, wav2vec 2.0, XLSR, WavLM, UniSpeech, UniSpeech-SAT and data2vec, Base and Large, for
    w2v-BERT and for Whisper (the tests measure it). To that end the mask is always given, also to Base models, whose
    extractors ask for none: ``padding.py`` makes them fit for it. Where transformers lets padding in elsewhere (the
    convolutions of Wav2Vec2-Conformer, the pooling of SEW), ``unpadded`` gives every utterance what it gets alone, at
    the price of one pass for each.

    Of pre-norm models (``do_stable_layer_norm``: Large and XLSR) transformers 5 gives the last hidden state without the
    final layer norm, with which S3PRL's own ``hubert_large_ll60k`` gives it; ``"tie_last_hidden_states": true`` in
    config.json asks transformers for that.

    In training mode dropout is the only thing that is random, as in S3PRL's own upstreams: the loader turns off
    layerdrop, which would change the number of hidden states, and the masking of spans.

    Attributes:
        model: the transformers model.
        downsample_rate: samples of a frame.
        padding_effect: by how much a longer utterance beside it changes an utterance's hidden states, relative to their
            spread.
        unpadded: whether utterances run one at a time.
    """

    downsample_rate: int
    _padding_effect: float  # measured, so not the same to the last digit everywhere

    def __init__(self, model: nn.Module, unpadded: bool) -> None:
        super().__init__()
        self.model = model
        self.unpadded = unpadded

    @property
    def padding_effect(self) -> float:
        """See above."""
        return self._padding_effect

    def get_downsample_rates(self, key: str) -> int:
        """Samples (16 kHz) of a frame, the same for every ``key``."""
        return self.downsample_rate

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Run a batch.

        Args:
            wavs: utterances of *Shape:* (samples,), floats at 16 kHz on the model's device. One of less than a frame
                gets silence after it.

        Returns:
            ``hidden_states``: the input of the first layer and the output of every layer, *Shape:* (batch, time, width)
            each. What stands in an utterance's row after its own frames means nothing.

        Raises:
            DataError: an utterance is empty or not one-dimensional.
        """
        for wav in wavs:
            if wav.dim() != 1 or len(wav) == 0:
                raise DataError(f"An utterance must be (samples,) floats, but one has the shape {tuple(wav.shape)}.")
        if not self.unpadded:
            return {"hidden_states": self.hidden_states(wavs)}
        alone = [self.hidden_states([wav]) for wav in wavs]
        layers = zip(*alone, strict=True)
        return {"hidden_states": [pad_sequence([state[0] for state in layer], batch_first=True) for layer in layers]}

    @abstractmethod
    def hidden_states(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """The hidden states of utterances that are run together, (batch, time, width) each."""


class MaskedUpstream(TransformersUpstream):
    """A model that takes waveforms or filter banks, and a mask.

    Args:
        model: the transformers model, in eval mode and on the CPU.
        inputs: what makes its input from waveforms.
        unpadded: run utterances one at a time.

    Raises:
        UpstreamError: its frames are not a whole number of samples apart.
    """

    def __init__(self, model: nn.Module, inputs: Waveforms | FilterBanks, unpadded: bool = False) -> None:
        super().__init__(model, unpadded)
        self.inputs = inputs
        self._lengths = keep_padding_out(model)
        self.downsample_rate, self._padding_effect = self._measure()

    def hidden_states(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """The hidden states of utterances that are padded to the longest, (batch, time, width) each."""
        inputs, mask, self._lengths.samples = self.inputs(wavs)
        with warnings.catch_warnings():  # in WavLM: how transformers calls PyTorch is nothing that a user can mend
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            output = self.model(inputs, attention_mask=mask, output_hidden_states=True)
        return list(output.hidden_states)

    @torch.no_grad()
    def _measure(self) -> tuple[int, float]:
        """Frame rate and padding's effect, from a short utterance alone and beside a long one.

        Configs tell neither for every family: SEW squeezes frames, Conformer's convolutions mix them.
        """
        generator = torch.Generator().manual_seed(0)  # the process's random state stays as it is
        short, long = (0.1 * torch.randn(samples, generator=generator) for samples in PROBE)
        alone, together = self.hidden_states([short]), self.hidden_states([short, long])
        samples, frames = len(long) - len(short), together[0].size(1) - alone[0].size(1)
        if frames < 1 or samples % frames:
            raise UpstreamError(f"{samples} samples more are {frames} frames more, which is no frame rate.")
        effect = max(
            float((beside[:1, : state.size(1)] - state).abs().max() / state.std())
            for state, beside in zip(alone, together, strict=True)
        )
        return samples // frames, effect


class WhisperUpstream(TransformersUpstream):
    """Whisper's encoder: hidden states are cut to the utterance's own frames, and 0 after them.

    The encoder always sees 30 s, so an utterance costs as much as half a minute, and what else is in the batch never
    changes its hidden states. An utterance of more than 30 s runs as consecutive windows of 30 s, whose hidden states
    are joined in time; attention does not reach over their borders.

    Args:
        model: transformers' ``WhisperEncoder``.
        inputs: what makes its input from windows.
        frames: that the encoder makes of a window (``max_source_positions``).
        unpadded: run utterances one at a time; changes nothing but memory and speed.
    """

    def __init__(self, model: nn.Module, inputs: LogMels, frames: int, unpadded: bool = False) -> None:
        super().__init__(model, unpadded)
        self.inputs = inputs
        self.downsample_rate = inputs.window_samples // frames
        self._padding_effect = 0.0

    def hidden_states(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """The hidden states of utterances, (batch, frames of the longest, width) each."""
        size = self.inputs.window_samples
        counts = [-(-len(wav) // size) for wav in wavs]
        windows = torch.cat(
            [pad(wav, (0, n * size - len(wav))).view(n, size) for wav, n in zip(wavs, counts, strict=True)]
        )
        output = self.model(self.inputs(windows), output_hidden_states=True)
        frames = [-(-len(wav) // self.downsample_rate) for wav in wavs]
        return [_own_frames(state, counts, frames) for state in output.hidden_states]


def _own_frames(state: Tensor, windows: list[int], frames: list[int]) -> Tensor:
    """Join each utterance's windows in time, and cut them: (all windows, time, width) to (batch, time, width)."""
    joined = [part.flatten(0, 1) for part in state.split(windows)]
    return pad_sequence([part[:own] for part, own in zip(joined, frames, strict=True)], batch_first=True)
