"""Recurrent heads, against S3PRL's ``downstream/asr/model.py``."""

from dataclasses import asdict

import pytest
import torch
from torch.testing import assert_close

from downstream_tasks.heads import RNNs, RNNsConfig
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.s3prl_compat import import_s3prl

WIDTH, TOKENS, RATE = 6, 5, 160
TWO = {
    "dim": (4, 3),
    "dropout": (0.2, 0.0),
    "layer_norm": (False, False),
    "proj": (False, False),
    "sample_rate": (1, 1),
}


def both(upstream_rate=RATE, **options):
    """Our head and S3PRL's with the same weights."""
    config = RNNsConfig(**{**TWO, **options})
    torch.manual_seed(0)
    ours = RNNs(WIDTH, TOKENS, upstream_rate, config)
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
    theirs = import_s3prl("s3prl.downstream.asr.model").RNNs(WIDTH, TOKENS, upstream_rate, **settings)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({"total_rate": -1}, [9, 7, 4]),
        ({"total_rate": 320, "sample_style": "drop"}, [4, 3, 2]),
        ({"total_rate": 320, "sample_style": "concat"}, [4, 3, 2]),
        ({"total_rate": 200}, [9, 7, 4]),  # rounds to one frame
        ({"total_rate": -1, "layer_norm": (True, False)}, [9, 7, 4]),
        ({"total_rate": -1, "proj": (True, True)}, [9, 7, 4]),
        ({"total_rate": -1, "sample_rate": (2, 1)}, [4, 3, 2]),
        ({"total_rate": -1, "sample_rate": (2, 2), "proj": (True, False)}, [2, 1, 1]),
        ({"total_rate": -1, "module": "GRU"}, [9, 7, 4]),
        ({"total_rate": -1, "module": "RNN", "bidirection": False}, [9, 7, 4]),
        ({"total_rate": -1, "bidirection": False, "layer_norm": (True, True)}, [9, 7, 4]),
    ],
)
def test_numbers_and_gradients_are_s3prls(options, frames):
    ours, theirs = both(**options)
    features = torch.randn(3, 9, WIDTH)
    lengths = torch.tensor([9, 7, 4])
    for training in (True, False):
        results = []
        for head in (ours, theirs):
            head.train(training)
            head.zero_grad()
            torch.manual_seed(5)  # of dropout
            logits, left = head(features, lengths)
            logits.square().sum().backward()
            results.append((logits, left, {name: value.grad for name, value in head.named_parameters()}))
        (logits, left, gradients), (their_logits, their_left, their_gradients) = results
        assert left.tolist() == their_left.tolist() == frames
        assert_close(logits, their_logits)
        assert_close(gradients, their_gradients)
    # Dropout works in training, and only there.
    ours.train()
    assert not torch.equal(ours(features, lengths)[0], logits)


def test_what_lies_beyond_an_utterance_has_no_influence():
    ours, _ = both(total_rate=320)
    ours.eval()
    features = torch.randn(2, 8, WIDTH)
    changed = features.clone()
    changed[1, 4:] = 100.0
    lengths = torch.tensor([8, 4])
    assert_close(ours(features, lengths)[0][1, :2], ours(changed, lengths)[0][1, :2])
    assert_close(ours(features, lengths)[0][0], ours(changed, lengths)[0][0])


def test_an_utterance_of_fewer_frames_than_one_step_has_none():
    """S3PRL's head fails on it."""
    ours, theirs = both(total_rate=480)
    features, lengths = torch.randn(2, 6, WIDTH), torch.tensor([6, 2])
    logits, left = ours(features, lengths)
    assert left.tolist() == [2, 0]
    assert logits.isfinite().all()
    with pytest.raises(RuntimeError, match="greater than 0"):
        theirs(features, lengths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": (4,)}, "one entry for each layer, but have dim 1, dropout 2"),
        ({"total_rate": 60}, r"total_rate 60 \(the upstream has 160 samples per frame\)"),
        ({"sample_rate": (1, 0)}, r"sample_rate \[1, 0\] must keep one of 1 or more frames"),
        (dict.fromkeys(TWO, ()), "but have dim 0"),
    ],
)
def test_layers_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        RNNs(WIDTH, TOKENS, RATE, RNNsConfig(**{**TWO, **options}))
