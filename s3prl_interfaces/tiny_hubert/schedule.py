"""What all training of tiny_hubert has in common: AdamW, a rising and then falling learning rate."""

from collections.abc import Sequence

from torch.nn import Parameter
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

_WARMUP = 0.08  # share of the updates
_WEIGHT_DECAY = 0.01


def make_optimizer(weights: Sequence[Parameter], learning_rate: float, updates: int) -> tuple[AdamW, LambdaLR]:
    """AdamW with HuBERT's settings; its rate rises to ``learning_rate``, then falls to zero in a straight line."""
    optimizer = AdamW(weights, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=_WEIGHT_DECAY)
    return optimizer, LambdaLR(optimizer, lambda step: rate(step, updates))


def rate(step: int, updates: int) -> float:
    """Share of the highest learning rate after ``step`` of ``updates`` updates."""
    rising = max(1.0, _WARMUP * updates)
    return min(step / rising, max(0.0, (updates - step) / max(1.0, updates - rising)))
