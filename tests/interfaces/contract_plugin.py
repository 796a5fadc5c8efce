"""Interfaces of a third party, named in tests as ``tests.interfaces.contract_plugin:MaskedContext`` and the like."""

import torch
from torch import nn

from s3prl_interfaces.interfaces import Interface


class MaskedContext(Interface):
    """Beside the mean over layers, the mean over the valid frames of the utterance."""

    def __init__(self, num_layers, feature_dim, *, gain: float = 1.0, normalize: bool = False):
        super().__init__(num_layers, feature_dim, output_dim=2 * feature_dim, normalize=normalize)
        self.gain = nn.Parameter(torch.tensor([gain]))

    def combine(self, layers, lengths):
        mean = self.gain * sum(layers) / len(layers)
        frames = mean.shape[1]
        if lengths is None:
            lengths = torch.full((len(mean),), frames, device=mean.device)
        valid = (torch.arange(frames, device=mean.device) < lengths[:, None])[..., None]
        context = (mean * valid).sum(1, keepdim=True) / lengths.clamp(min=1)[:, None, None]
        return torch.cat([mean, context.expand_as(mean)], dim=-1)


class NotAnInterface:
    pass
