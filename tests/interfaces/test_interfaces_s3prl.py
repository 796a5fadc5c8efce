"""``weighted_sum`` against S3PRL's own Featurizer."""

import pytest
import torch
from s3prl.upstream.interfaces import Featurizer
from torch import nn
from torch.testing import assert_close

from s3prl_interfaces import build_interface

LAYERS, DIM, RATE = 5, 16, 320


class RandomUpstream(nn.Module):
    def get_downsample_rates(self, key):
        return RATE

    def forward(self, wavs):
        frames = round(max(len(wav) for wav in wavs) / RATE)
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(LAYERS, len(wavs), frames, DIM, generator=generator) * 3 + 1
        return {"hidden_states": list(states)}


@pytest.mark.parametrize("normalize", [False, True])
def test_weighted_sum_is_s3prls(normalize):
    upstream = RandomUpstream()
    featurizer = Featurizer(upstream, upstream_device="cpu", normalize=normalize)
    nn.init.normal_(featurizer.weights)
    interface = build_interface("weighted_sum", num_layers=LAYERS, feature_dim=DIM, normalize=normalize)
    interface.load_state_dict(featurizer.state_dict())  # the same name, so that checkpoints carry over

    wavs = [torch.zeros(20 * RATE), torch.zeros(13 * RATE)]
    features = upstream(wavs)
    expected = featurizer(wavs, features)
    actual = interface(features["hidden_states"])
    assert interface.output_dim == featurizer.output_dim
    for row, length, wanted in zip(actual, (20, 13), expected, strict=True):
        assert_close(row[:length], wanted, rtol=1e-5, atol=1e-6)

    torch.cat(expected).square().sum().backward()
    torch.cat([actual[0, :20], actual[1, :13]]).square().sum().backward()
    assert_close(interface.weights.grad, featurizer.weights.grad, rtol=1e-4, atol=1e-5)
