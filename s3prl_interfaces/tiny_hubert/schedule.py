"""What all training of tiny_hubert has in common: an update by AdamW, its learning rate rising and then falling."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

_WARMUP = 0.08  # share of the updates
_WEIGHT_DECAY = 0.01
_LARGEST_GRADIENT = 1.0


def make_optimizer(weights: Sequence[Parameter], learning_rate: float, updates: int) -> tuple[AdamW, LambdaLR]:
    """AdamW with HuBERT's settings; its rate rises to ``learning_rate``, then falls to zero in a straight line."""
    optimizer = AdamW(weights, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=_WEIGHT_DECAY)
    return optimizer, LambdaLR(optimizer, lambda step: rate(step, updates))


def update(loss: Tensor, optimizer: AdamW, schedule: LambdaLR) -> None:
    """Take one step down the gradient of ``loss``, whose norm over all weights is cut to 1."""
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_(optimizer.param_groups[0]["params"], _LARGEST_GRADIENT)
    optimizer.step()
    schedule.step()


def rate(step: int, updates: int) -> float:
    """Share of the highest learning rate after ``step`` of ``updates`` updates."""
    rising = max(1.0, _WARMUP * updates)
    return min(step / rising, max(0.0, (updates - step) / max(1.0, updates - rising)))
