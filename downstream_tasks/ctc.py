"""What SUPERB's transcribing tasks (ASR, PR, SF) share: projection, frame-wise logits, CTC, greedy decoding."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import editdistance
import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss
from torch.nn.utils.rnn import pad_sequence

from downstream_tasks.heads import FrameLevel, RNNs, RNNsConfig


@dataclass(frozen=True, kw_only=True)
class CTCModelConfig:
    """The model's block: S3PRL's keys."""

    project_dim: int
    select: Literal["FrameLevel", "RNNs"]
    RNNs: RNNsConfig = field(default_factory=RNNsConfig)
    Wav2Letter: Any = None
    """Settings of a head that SUPERB does not use. S3PRL's configs state them; nothing reads them."""


class CTCExpert(nn.Module):
    """Head of a task that transcribes. Parameters have the names of S3PRL's experts, so their checkpoints load.

    Args:
        upstream_dim: width of the features.
        upstream_rate: samples per frame.
        model: the head.
        vocabulary: how many tokens there are, the blank included.
        blank: its id.
        zero_infinity: a target longer than its frames allow counts 0 instead of infinity.
    """

    def __init__(
        self,
        upstream_dim: int,
        upstream_rate: int,
        model: CTCModelConfig,
        *,
        vocabulary: int,
        blank: int,
        zero_infinity: bool,
    ) -> None:
        super().__init__()
        self.blank = blank
        self.zero_infinity = zero_infinity
        self.projector = nn.Linear(upstream_dim, model.project_dim)
        self.model: nn.Module
        if model.select == "FrameLevel":
            self.model = FrameLevel(model.project_dim, vocabulary)
        else:
            self.model = RNNs(model.project_dim, vocabulary, upstream_rate, model.RNNs)

    def log_probs(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the tokens at each frame.

        Args:
            features: one (frames, upstream_dim) tensor per utterance.

        Returns:
            (batch, time, vocabulary) float32, and (batch,) frames per utterance on the CPU.
        """
        lengths = torch.tensor([len(feature) for feature in features])
        projected = self.projector(pad_sequence(list(features), batch_first=True))
        if isinstance(self.model, RNNs):
            logits, lengths = self.model(projected, lengths)
        else:
            logits = self.model(projected)
        return logits.float().log_softmax(dim=-1), lengths

    def loss(self, log_probs: Tensor, lengths: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """CTC: each utterance's loss by the length of its target, then the mean.

        Args:
            log_probs: (batch, time, vocabulary).
            lengths: (batch,) frames per utterance.
            targets: one (tokens,) int64 per utterance.
        """
        padded = pad_sequence(list(targets), batch_first=True, padding_value=self.blank).to(log_probs.device)
        return ctc_loss(
            log_probs.transpose(0, 1),
            padded,
            lengths,
            torch.tensor([len(target) for target in targets]),
            blank=self.blank,
            zero_infinity=self.zero_infinity,
        )

    def greedy(self, likeliest: Tensor, lengths: Tensor) -> list[list[int]]:
        """The likeliest token of each frame, (batch, time), without repetitions and blanks."""
        rows = zip(likeliest.cpu(), lengths.tolist(), strict=True)
        paths = [row[:length].unique_consecutive() for row, length in rows]
        return [path[path != self.blank].tolist() for path in paths]


def error_rate(hypotheses: Sequence[Sequence[Any]], references: Sequence[Sequence[Any]]) -> float:
    """Edits over reference tokens, both summed over all utterances (WER, CER, PER).

    Args:
        hypotheses: tokens (or characters) of each utterance.
        references: as many.

    Returns:
        A fraction, above 1 where more is inserted than is there. With no reference token: 1.0, as S3PRL's ASR.
    """
    total = sum(len(reference) for reference in references)
    edits = sum(
        editdistance.eval(hypothesis, reference) for hypothesis, reference in zip(hypotheses, references, strict=True)
    )
    return edits / total if total else 1.0
