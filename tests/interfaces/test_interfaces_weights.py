"""How much of each layer an interface says that it takes, against plain formulas."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.testing import assert_close

from s3prl_interfaces import build_interface, list_interfaces
from s3prl_interfaces.interfaces import Interface, LayerWeights, get_spec

WITH_WEIGHTS = ("weighted_sum", "grouped_weighted_sum", "cls_pooling")


def randomised(name, num_layers=5, feature_dim=12, **options):
    torch.manual_seed(3)
    interface = build_interface(name, num_layers=num_layers, feature_dim=feature_dim, **options)
    for parameter in interface.parameters():
        nn.init.normal_(parameter)
    return interface


def test_weighted_sum():
    interface = randomised("weighted_sum")
    weights = interface.layer_weights()
    assert (weights.what, weights.rows, weights.frames) == ("softmax weights", ["all layers"], None)
    exponents = [math.exp(value) for value in interface.weights.tolist()]
    assert_close(weights.values, torch.tensor([[value / sum(exponents) for value in exponents]]))
    assert not weights.values.requires_grad


def test_grouped_weighted_sum():
    interface = randomised("grouped_weighted_sum", num_groups=2)
    weights = interface.layer_weights()
    assert weights.what == "softmax weights of each group"
    assert weights.rows == ["group 1", "group 2"]
    first, second = (F.softmax(group, 0).tolist() for group in interface.weights)
    assert_close(weights.values, torch.tensor([[*first, 0, 0], [0, 0, 0, *second]]))
    assert weights.frames is None
    assert not weights.values.requires_grad


@pytest.mark.parametrize("name", ["weighted_sum", "grouped_weighted_sum"])
def test_weights_in_half_precision_are_summed_in_float32(name):
    values = randomised(name, 25).half().layer_weights().values
    assert values.dtype == torch.float32
    assert_close(values.sum(1), torch.ones(len(values)), rtol=0, atol=1e-6)


def attention_of_cls(interface, frame):
    """Softmax of the scaled scores of CLS with CLS and every layer: one frame (L, D) to (heads, L + 1)."""
    attention = interface.encoder_layer.self_attn
    dim, heads = interface.feature_dim, attention.num_heads
    width = dim // heads
    query_weight, key_weight, _ = attention.in_proj_weight.chunk(3)
    query_bias, key_bias, _ = attention.in_proj_bias.chunk(3)
    query = query_weight @ interface.cls + query_bias
    keys = [key_weight @ token + key_bias for token in (interface.cls, *frame)]
    rows = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        rows.append(F.softmax(torch.stack([query[part] @ key[part] / math.sqrt(width) for key in keys]), 0))
    return torch.stack(rows)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("num_heads", [1, 3])
def test_cls_pooling(make_states, num_heads, normalize):
    interface = randomised("cls_pooling", feedforward_dim=4, num_heads=num_heads, normalize=normalize)
    states, lengths = make_states(5, 12), [7, 4, 0]
    weights = interface.layer_weights(states, lengths)
    assert weights.what == "attention of CLS"
    assert weights.rows == [f"head {number}" for number in range(1, num_heads + 1)]

    if normalize:
        states = [F.layer_norm(state, (12,)) for state in states]
    frames = [
        torch.stack([state[index, time] for state in states])
        for index, length in enumerate(lengths)
        for time in range(length)
    ]
    expected = torch.stack([attention_of_cls(interface, frame) for frame in frames]).mean(0)
    assert_close(weights.values, expected[:, 1:], rtol=1e-5, atol=1e-6)
    # What is left of 1 is the attention of CLS to itself.
    assert_close(1 - weights.values.sum(1), expected[:, 0], rtol=1e-4, atol=1e-5)
    assert weights.frames == 11
    assert not weights.values.requires_grad


def test_cls_pooling_agrees_with_pytorchs_attention(make_states):
    interface, states = randomised("cls_pooling"), make_states(5, 12)
    tokens = torch.stack([interface.cls.expand_as(states[0]), *states], dim=2).flatten(0, 1)
    _, attention = interface.encoder_layer.self_attn.eval()(tokens, tokens, tokens, average_attn_weights=False)
    assert_close(interface.layer_weights(states).values, attention[:, :, 0, 1:].mean(0), rtol=1e-5, atol=1e-6)


def test_cls_pooling_without_dropout_in_training(make_states):
    interface, states = randomised("cls_pooling", dropout=0.9).train(), make_states(5, 12)
    random = torch.get_rng_state()
    values = interface.layer_weights(states).values
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(values, interface.eval().layer_weights(states).values)


def test_cls_pooling_needs_hidden_states():
    with pytest.raises(ValueError, match="`hidden_states` must be given for cls_pooling"):
        randomised("cls_pooling").layer_weights()


def test_cls_pooling_refuses_wrong_lengths(make_states):
    with pytest.raises(ValueError, match="`lengths` must be from 0 to the 7 frames"):
        randomised("cls_pooling").layer_weights(make_states(5, 12), [7, 8, 1])


def test_cls_pooling_of_no_frame(make_states):
    weights = randomised("cls_pooling").layer_weights(make_states(5, 12), [0, 0, 0])
    assert weights.frames == 0
    assert_close(weights.values, torch.zeros_like(weights.values))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cls_pooling_in_half_precision(make_states, dtype):
    interface, states = randomised("cls_pooling"), make_states(5, 12)
    expected = interface.layer_weights(states).values
    values = interface.to(dtype).layer_weights([state.to(dtype) for state in states]).values
    assert values.dtype == torch.float32
    assert_close(values, expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_batches_are_averaged_by_frames(make_states, name):
    interface, states = randomised(name), make_states(5, 12)
    lengths = [7, 4, 1]
    together = interface.layer_weights(states, lengths)
    merged = interface.layer_weights([state[:1] for state in states], lengths[:1])
    for index in (1, 2):
        one = interface.layer_weights([state[index : index + 1] for state in states], [lengths[index]])
        merged = merged.merged_with(one)
    assert_close(merged.values, together.values, rtol=1e-5, atol=1e-6)
    assert (merged.what, merged.rows, merged.frames) == (together.what, together.rows, together.frames)


def test_merging_nothing_with_nothing():
    nothing = LayerWeights("attention", ["head 1"], torch.zeros(1, 3), frames=0)
    assert_close(nothing.merged_with(nothing).values, torch.zeros(1, 3))
    some = LayerWeights("attention", ["head 1"], torch.rand(1, 3), frames=2)
    assert_close(nothing.merged_with(some).values, some.values)
    assert_close(some.merged_with(nothing).values, some.values)


def test_other_interfaces_have_none(make_states):
    ours = [name for name in list_interfaces() if get_spec(name).cls.__module__.startswith("s3prl_interfaces.")]
    for name in set(ours) - set(WITH_WEIGHTS):
        assert randomised(name).layer_weights(make_states(5, 12), [7, 4, 0]) is None, name


def test_a_plug_in_has_none_unless_it_says_so(make_states):
    class PlugIn(Interface):
        def combine(self, layers, lengths):
            return layers[0]

    assert PlugIn(5, 12).layer_weights(make_states(5, 12)) is None
