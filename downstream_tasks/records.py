"""What experts keep of batches until it is logged."""

from collections.abc import Sequence

import torch
from torch import Tensor


def mean(values: Sequence[Tensor | float]) -> float:
    """The mean of everything that was recorded.

    Experts record tensors: wherever a number is read, a GPU makes the host wait.
    """
    return torch.cat([torch.as_tensor(value).reshape(-1) for value in values]).float().mean().item()
