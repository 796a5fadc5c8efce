"""The convolutions learn to hear before the blocks learn to listen: they are trained to give a log-mel spectrum.

HuBERT learns its filters by masked prediction, in some hundreds of thousands of updates of 45 minutes of speech each.
Where there is time for a few thousand updates of seconds they hold everything up. Regression on the spectrum of the
very audio that they hear, an utterance's only label being itself, takes minutes.
"""

import logging
import math
import time
from dataclasses import dataclass
from random import Random

import torch
import torchaudio
from torch import Generator, Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import HubertModel

from s3prl_interfaces.tiny_hubert.corpus import SAMPLE_RATE, Corpus, crops, endless_batches
from s3prl_interfaces.tiny_hubert.distortion import distort
from s3prl_interfaces.tiny_hubert.network import normalized
from s3prl_interfaces.tiny_hubert.schedule import make_optimizer, update

logger = logging.getLogger(__name__)

_BANDS = 80
_COMPONENTS = 40
_LOUDNESS = 3000.0  # root of the mean square of ordinary speech, in 16-bit samples
_FLOOR = 5.0  # of the log energy of such samples: below it is digital silence
_SAMPLE = 500  # utterances that the components are computed from
_LOG_EVERY = 1000  # updates
_LARGEST = 4096.0  # of the last convolution's values in one batch; in another they may be some times as large


@dataclass(frozen=True)
class FilterPlan:
    """How the filters are learned. Small batches: the gradient is the same for all frames, and updates are what counts.

    Attributes:
        updates: Optimizer steps.
        learning_rate: At its highest.
        batch: Utterances an update.
        crop_seconds: Most seconds of an utterance.
    """

    updates: int
    learning_rate: float = 8e-3
    batch: int = 3
    crop_seconds: float = 2.0


@dataclass(frozen=True)
class Spectrum:
    """Log-mel bands in their principal components, each scaled to variance 1.

    In the bands themselves loudness is nearly all of the variance; a formant or a harmonic would not count.

    Attributes:
        mean: ``(80,)``.
        rotation: ``(80, 40)``, from bands less their mean to components.
    """

    mean: Tensor
    rotation: Tensor

    def of(self, wav: Tensor) -> Tensor:
        """The components of a waveform ``(time,)`` at 16 kHz of variance 1, ``(frames, 40)``: 25 ms every 20 ms."""
        return (_bands(wav) - self.mean) @ self.rotation


def fit_spectrum(corpus: Corpus, seed: int) -> Spectrum:
    """Compute the principal components of distorted utterances of a corpus."""
    noise = Generator().manual_seed(seed)
    indices = Random(seed).sample(range(len(corpus)), min(_SAMPLE, len(corpus)))
    bands = torch.cat([_bands(normalized(distort(corpus.wav(index)[None], noise))[0]) for index in indices])
    variances, directions = torch.linalg.eigh(torch.cov(bands.T))
    largest = directions[:, -_COMPONENTS:] / torch.sqrt(variances[-_COMPONENTS:] + 0.05)
    return Spectrum(bands.mean(dim=0), largest.flip(1))


def learn_filters(model: HubertModel, corpus: Corpus, plan: FilterPlan, seed: int) -> None:
    """Train the convolutions of ``model`` in place, and then freeze them.

    Args:
        model: Trained on the device on which it is.
        corpus: The speech.
        plan: How.
        seed: Of batches, crops, distortions and the read-out's weights.
    """
    torch.manual_seed(seed)
    random, noise = Random(seed), Generator().manual_seed(seed)
    spectrum = fit_spectrum(corpus, seed)
    read_out = nn.Linear(model.config.conv_dim[-1], _COMPONENTS).to(model.device)
    weights = [*model.feature_extractor.parameters(), *model.feature_projection.layer_norm.parameters()]
    weights += read_out.parameters()
    optimizer, schedule = make_optimizer(weights, plan.learning_rate, plan.updates)
    batches = endless_batches(corpus, plan.batch, round(plan.crop_seconds * SAMPLE_RATE), random)
    seen: list[Tensor] = []
    began = time.monotonic()
    model.train()
    for step in tqdm(range(1, plan.updates + 1), desc="filters", unit="update", disable=None):
        # Normalized before the spectrum is taken: how loud it was nobody can hear afterwards.
        wavs = normalized(distort(crops(corpus, next(batches)), noise))
        wanted = torch.stack([spectrum.of(wav) for wav in wavs]).to(model.device)
        with torch.autocast(model.device.type, torch.bfloat16):
            features = model.feature_extractor(wavs.to(model.device)).transpose(1, 2)
        given = read_out(model.feature_projection.layer_norm(features.float()))
        update(functional.mse_loss(given, wanted), optimizer, schedule)
        seen.append((given - wanted).detach().square().mean(dim=(0, 1)).cpu())
        if step % _LOG_EVERY == 0 or step == plan.updates:
            errors = torch.stack(seen).mean(dim=0)
            logger.info(
                "filters: update %d of %d, squared error of components 1-10: %.3f, 11-20: %.3f, 21-40: %.3f; %.0f s",
                *(step, plan.updates, errors[:10].mean(), errors[10:20].mean(), errors[20:].mean()),
                time.monotonic() - began,
            )
            seen.clear()
    shrink(model.feature_extractor.conv_layers[-1].get_submodule("conv"), features.abs().max().item())
    # Not requires_grad_: this also spares the way back through them.
    model.feature_extractor._freeze_parameters()


def shrink(convolution: nn.Module, largest: float) -> None:
    """Divide what a convolution gives by a power of two, so that it is well within float16, which ends at 65,504.

    Before a GELU and a layer norm that changes next to nothing where values are large: the one is linear there, and
    the other takes the scale away.

    Args:
        convolution: A linear module; changed in place.
        largest: Absolute value that it gives.
    """
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.div_(2 ** max(0, math.ceil(math.log2(max(largest, 1) / _LARGEST))))


def _bands(wav: Tensor) -> Tensor:
    banks = torchaudio.compliance.kaldi.fbank(
        _LOUDNESS * wav[None], num_mel_bins=_BANDS, frame_length=25, frame_shift=20, sample_frequency=SAMPLE_RATE
    )
    return banks.clamp(min=_FLOOR)
