"""Against plain, slow formulas, and for PCA against scikit-learn."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.decomposition import PCA
from torch import nn
from torch.testing import assert_close

from s3prl_interfaces import build_interface
from s3prl_interfaces.interfaces import NotFittedError
from s3prl_interfaces.interfaces.hconv import floor_log


@pytest.mark.parametrize(
    ("num_layers", "num_groups", "sizes"),
    [
        (13, 1, [13]),
        (13, 2, [7, 6]),
        (13, 3, [5, 4, 4]),
        (13, 4, [4, 3, 3, 3]),
        (25, 4, [7, 6, 6, 6]),
        (3, 3, [1] * 3),
    ],
)
def test_grouped_weighted_sum(make_states, num_layers, num_groups, sizes):
    interface = build_interface("grouped_weighted_sum", num_layers=num_layers, feature_dim=12, num_groups=num_groups)
    assert [weights.tolist() for weights in interface.weights] == [[0.0] * size for size in sizes]
    for weights in interface.weights:
        nn.init.normal_(weights)
    states = make_states(num_layers, 12)

    groups = torch.stack(states).tensor_split(num_groups)
    sums = [
        (F.softmax(weights, 0)[:, None, None, None] * group).sum(0)
        for weights, group in zip(interface.weights, groups, strict=True)
    ]
    joined = torch.cat(sums, -1)
    assert_close(interface(states), joined @ interface.projection.weight.T + interface.projection.bias)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_groups": 4}, "at most the number of layers, 3, but is 4"),
        ({"num_groups": 0}, "at least 1"),
    ],
)
def test_grouped_weighted_sum_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        build_interface("grouped_weighted_sum", num_layers=3, feature_dim=8, **options)


@pytest.mark.parametrize("num_layers", [1, 2, 13])
def test_concat(make_states, num_layers):
    interface = build_interface("concat", num_layers=num_layers, feature_dim=12)
    states = make_states(num_layers, 12)
    assert_close(interface(states), interface.projection(torch.cat(states, -1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("num_layers", "options"),
    [
        (243, {}),  # the reference counts 4 convolutions: log(243) / log(3) is 4.999... in floating point
        (13, {"kernel_size": 3, "padding": 0}),
        (13, {"kernel_size": 2, "stride": 2, "padding": 1}),
        (2, {"stride": 2}),
        (3, {}),
    ],
)
def test_hconv(make_states, num_layers, options):
    interface = build_interface("hconv", num_layers=num_layers, feature_dim=14, **options)
    stride = options.get("stride", 3)
    kernel_size = options.get("kernel_size", 5)
    padding = options.get("padding", kernel_size // 2)
    states = make_states(num_layers, 14)

    axis = torch.stack(states, -1).flatten(0, 1)  # (B * T, D, L)
    for conv in interface.convs:
        axis = F.relu(F.conv1d(axis, conv.weight, conv.bias, stride=stride, padding=padding))
    assert stride ** len(interface.convs) <= num_layers < stride ** (len(interface.convs) + 1)
    assert interface.output_dim == 14 // axis.shape[-1] * axis.shape[-1]
    assert_close(interface(states).flatten(0, 1), axis.flatten(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exponent", range(1, 13))
def test_floor_log_at_powers(exponent):
    for base in (2, 3, 5, 10):
        assert floor_log(base**exponent, base) == exponent
        assert floor_log(base**exponent - 1, base) == exponent - 1
        assert floor_log(base**exponent + 1, base) == exponent
    assert floor_log(1, 3) == 0


def test_hconv_counts_convolutions_at_powers_of_three():
    for exponent in range(1, 8):
        for num_layers, expected in ((3**exponent, exponent), (3**exponent - 1, exponent - 1)):
            if expected:
                interface = build_interface("hconv", num_layers=num_layers, feature_dim=4)
                assert len(interface.convs) == expected


@pytest.mark.parametrize(
    ("num_layers", "feature_dim", "options", "message"),
    [
        (2, 8, {}, "at least `stride`, 3, for hconv, but is 2"),
        (5, 8, {"stride": 6}, "at least `stride`, 6"),
        (13, 8, {"stride": 1}, "`stride` must be an integer of at least 2, but is 1"),
        (4, 8, {"kernel_size": 5, "padding": 0}, "leave nothing of a layer axis of 4"),
        (9, 8, {"kernel_size": 5, "padding": 0}, "leave nothing of a layer axis of 9"),
        (13, 8, {"padding": 5}, "less than `kernel_size`, 5, but is 5"),
        (13, 8, {"padding": -1}, "`padding` must be an integer of at least 0, but is -1"),
        (13, 8, {"kernel_size": 2.5}, "`kernel_size` must be an integer of at least 1, but is 2.5"),
        (8, 2, {}, "`feature_dim` must be at least 3 for hconv, but is 2"),
    ],
)
def test_hconv_refuses(num_layers, feature_dim, options, message):
    with pytest.raises(ValueError, match=message):
        build_interface("hconv", num_layers=num_layers, feature_dim=feature_dim, **options)


@pytest.mark.parametrize(("num_layers", "feature_dim", "heads"), [(1, 8, 8), (13, 12, 4), (25, 6, 2), (4, 7, 1)])
def test_cls_pooling(make_states, num_layers, feature_dim, heads):
    torch.manual_seed(0)
    interface = build_interface("cls_pooling", num_layers=num_layers, feature_dim=feature_dim).eval()
    nn.init.normal_(interface.cls)
    # PyTorch starts these as constants; other values show whether each is in its place.
    for name, parameter in interface.encoder_layer.named_parameters():
        if "bias" in name or "norm" in name:
            nn.init.normal_(parameter)
    layer = interface.encoder_layer
    assert isinstance(layer, nn.TransformerEncoderLayer)
    assert layer.self_attn.num_heads == heads
    states = make_states(num_layers, feature_dim)

    cls = interface.cls.expand_as(states[0])
    tokens = torch.stack([cls, *states], dim=2).flatten(0, 1)  # (B * T, L + 1, D)
    expected = layer(tokens)[:, 0].unflatten(0, states[0].shape[:2])
    assert_close(interface(states), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("where", ["self_attn", "dropout1", "dropout", "dropout2"])
def test_cls_pooling_drops_out_where_pytorch_does(make_states, where):
    """All or nothing, so that there is no chance in it."""
    interface = build_interface("cls_pooling", num_layers=3, feature_dim=8, dropout=0.0).train()
    layer = interface.encoder_layer
    for parameter in interface.parameters():
        nn.init.normal_(parameter)
    if where == "self_attn":
        layer.self_attn.dropout = 1.0
    else:
        getattr(layer, where).p = 1.0
    states = make_states(3, 8)
    tokens = torch.stack([interface.cls.expand_as(states[0]), *states], dim=2).flatten(0, 1)
    expected = layer(tokens)[:, 0].unflatten(0, states[0].shape[:2])
    assert expected.isfinite().all()
    assert_close(interface(states), expected, rtol=1e-4, atol=1e-5)
    if where == "self_attn":
        layer.self_attn.dropout = 0.0
    else:
        getattr(layer, where).p = 0.0
    assert not torch.allclose(interface(states), expected, rtol=1e-3)


def test_cls_pooling_drops_out_in_training_only(make_states):
    interface, states = build_interface("cls_pooling", num_layers=3, feature_dim=8), make_states(3, 8)
    assert not torch.equal(interface(states), interface(states))
    interface.eval()
    assert torch.equal(interface(states), interface(states))
    sure = build_interface("cls_pooling", num_layers=3, feature_dim=8, dropout=0.0)
    assert torch.equal(sure(states), sure(states))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, r"must divide the 12 channels of a state \(1, 2, 3, 4, 6, 12\), but is 5"),
        ({"num_heads": 0}, "`num_heads` must be an integer of at least 1, but is 0"),
        ({"feedforward_dim": 0}, "`feedforward_dim` must be an integer of at least 1, but is 0"),
        ({"dropout": 1.5}, "`dropout` must be a number from 0 to 1, but is 1.5"),
        ({"dropout": "0.1"}, "`dropout` must be a number from 0 to 1, but is '0.1'"),
    ],
)
def test_cls_pooling_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        build_interface("cls_pooling", num_layers=3, feature_dim=12, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [("concat", {}), ("hconv", {"kernel_size": 601, "stride": 300, "padding": 300})],
)
def test_sums_over_layers_are_kept_in_float32(name, options):
    """In bfloat16, ones add up to 256 and no further."""
    interface = build_interface(name, num_layers=300, feature_dim=1, **options)
    for key, parameter in interface.named_parameters():
        nn.init.constant_(parameter, float("weight" in key))
    states = [torch.ones(1, 1, 1, dtype=torch.bfloat16)] * 300
    assert interface(states).item() == 300
    with torch.autocast("cpu", torch.bfloat16):
        assert interface([state.float() for state in states]).item() == 300


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weighted_sum_of_half_precision_is_rounded_once(make_states, dtype):
    interface, states = (
        build_interface("weighted_sum", num_layers=25, feature_dim=8),
        make_states(25, 8, dtype=dtype),
    )
    nn.init.normal_(interface.weights)
    assert torch.equal(interface(states), interface([state.float() for state in states]).to(dtype))


@pytest.mark.parametrize("layer", [0, 2, 4, -1, -5])
def test_single_layer(make_states, layer):
    states = make_states(5, 8)
    interface = build_interface("single_layer", num_layers=5, feature_dim=8, layer=layer)
    assert torch.equal(interface(states), states[layer])


def test_last_layer(make_states):
    states = make_states(5, 8)
    assert torch.equal(build_interface("last_layer", num_layers=5, feature_dim=8)(states), states[4])


@pytest.mark.parametrize("layer", [5, -6, 1.0, "last", None])
def test_single_layer_refuses(layer):
    with pytest.raises(ValueError, match="`layer` must be"):
        build_interface("single_layer", num_layers=5, feature_dim=8, layer=layer)


# PCA + Concat


def frames_of(num_layers, feature_dim, offset=0.0):
    """Return three batches (L, B, T, D) whose principal directions differ in variance, with lengths."""
    generator = torch.Generator().manual_seed(3)
    batches = []
    mixing = torch.randn(num_layers, 1, feature_dim, feature_dim, generator=generator, dtype=torch.float64)
    for batch, frames in ((4, 20), (1, 33), (6, 9)):
        noise = torch.randn(num_layers, batch, frames, feature_dim, generator=generator, dtype=torch.float64)
        noise *= torch.arange(1, feature_dim + 1) ** 1.5
        lengths = torch.randint(1, frames + 1, (batch,), generator=generator)
        batches.append((noise @ mixing + offset, lengths))
    return batches


def valid_frames(batches):
    """Return the valid frames of all batches, (L, N, D)."""
    rows = [
        row[:, :length] for states, lengths in batches for row, length in zip(states.unbind(1), lengths, strict=True)
    ]
    return torch.cat(rows, dim=1)


@pytest.mark.parametrize("offset", [0.0, 1e7])
@pytest.mark.parametrize(("num_layers", "feature_dim", "kept"), [(3, 8, 3), (4, 10, 3), (1, 6, 6), (12, 5, 1)])
def test_pca_concat_is_scikit_learns(num_layers, feature_dim, kept, offset):
    batches = frames_of(num_layers, feature_dim, offset)
    interface = build_interface("pca_concat", num_layers=num_layers, feature_dim=feature_dim).double()
    for states, lengths in batches:
        interface.partial_fit(states, lengths)
    interface.finish_fit()

    assert interface.output_dim == num_layers * kept
    features = interface(batches[0][0]).split(kept, dim=-1)
    for layer, frames in enumerate(valid_frames(batches)):
        pca = PCA(kept, svd_solver="full").fit(frames.numpy())
        expected = torch.from_numpy(pca.components_)
        signs = (expected * interface.components[layer]).sum(-1, keepdim=True).sign()
        tolerance = {"rtol": 1e-6, "atol": 1e-6 if offset else 1e-9}
        assert_close(interface.components[layer] * signs, expected, **tolerance)
        assert_close(interface.mean[layer], torch.from_numpy(pca.mean_))
        first = batches[0][0][layer]
        projected = torch.from_numpy(pca.transform(first.flatten(0, 1).numpy())).unflatten(0, first.shape[:2])
        assert_close(features[layer] * signs[:, 0], projected, rtol=1e-6, atol=1e-4 if offset else 1e-8)


def test_pca_concat_has_one_sign():
    interface = build_interface("pca_concat", num_layers=3, feature_dim=8)
    for states, lengths in frames_of(3, 8):
        interface.partial_fit(states, lengths)
    interface.finish_fit()
    mirrored = build_interface("pca_concat", num_layers=3, feature_dim=8)
    for states, lengths in frames_of(3, 8):
        mirrored.partial_fit(-states, lengths)
    mirrored.finish_fit()
    assert_close(mirrored.components, interface.components)
    largest = interface.components.gather(-1, interface.components.abs().argmax(-1, keepdim=True))
    assert (largest > 0).all()


def test_pca_concat_does_not_depend_on_batches():
    batches = frames_of(3, 8)
    streamed = build_interface("pca_concat", num_layers=3, feature_dim=8)
    for states, lengths in batches:
        streamed.partial_fit(list(states), lengths.tolist())
    streamed.partial_fit(torch.zeros(3, 2, 4, 8), [0, 0])  # nothing valid: no change
    streamed.finish_fit()
    at_once = build_interface("pca_concat", num_layers=3, feature_dim=8)
    at_once.partial_fit(valid_frames(batches)[:, None])
    at_once.finish_fit()
    assert_close(streamed.components, at_once.components)
    assert_close(streamed.mean, at_once.mean)


def test_pca_concat_forgets_an_earlier_fit():
    refitted, fresh = (build_interface("pca_concat", num_layers=3, feature_dim=8) for _ in range(2))
    first, second, _ = frames_of(3, 8)
    refitted.partial_fit(*first)
    refitted.finish_fit()
    for interface in (refitted, fresh):
        interface.partial_fit(*second)
        interface.finish_fit()
    assert_close(refitted.state_dict(), fresh.state_dict(), rtol=0, atol=0)


def test_pca_concat_needs_more_frames_than_components():
    interface = build_interface("pca_concat", num_layers=2, feature_dim=8)  # 4 components
    with pytest.raises(NotFittedError, match="at least 5 frames to find 4 components, but has seen 0"):
        interface.finish_fit()
    interface.partial_fit(torch.randn(2, 1, 4, 8))
    with pytest.raises(RuntimeError, match="has seen 4"):
        interface.finish_fit()
    interface.partial_fit(torch.randn(2, 1, 9, 8), [1])
    interface.finish_fit()
    assert interface(torch.randn(2, 1, 1, 8)).shape == (1, 1, 8)


def test_pca_concat_refuses_what_is_not_finite():
    interface = build_interface("pca_concat", num_layers=2, feature_dim=8)
    states = torch.randn(2, 1, 20, 8)
    states[1, 0, 3, 2] = math.nan
    interface.partial_fit(states)
    with pytest.raises(NotFittedError, match="NaN"):
        interface.finish_fit()


def test_pca_concat_leaves_the_states_alone():
    interface = build_interface("pca_concat", num_layers=2, feature_dim=8)
    states = torch.randn(2, 1, 20, 8, dtype=torch.float64) + 5
    before = states.clone()
    interface.partial_fit(states)
    assert torch.equal(states, before)


def test_pca_concat_must_be_fitted_or_loaded():
    def build():
        return build_interface("pca_concat", num_layers=2, feature_dim=8)

    interface, states = build(), torch.randn(2, 3, 20, 8)
    with pytest.raises(NotFittedError, match="call partial_fit"):
        interface(states)
    interface.partial_fit(states)
    with pytest.raises(NotFittedError):
        interface(states)
    interface.finish_fit()
    expected = interface(states)

    loaded = build()
    loaded.load_state_dict(interface.state_dict())
    assert torch.equal(loaded(states), expected)
    loaded.load_state_dict(build().state_dict())  # one that is not fitted
    with pytest.raises(NotFittedError):
        loaded(states)

    interface.partial_fit(states + torch.randn(2, 3, 20, 8))  # a new fit; the old one holds until it is finished
    assert torch.equal(interface(states), expected)
    interface.finish_fit()
    assert not torch.equal(interface(states), expected)


@pytest.mark.parametrize("lengths", [[21, 3, 4], [20, -1, 4]])
def test_pca_concat_refuses_lengths(lengths):
    interface = build_interface("pca_concat", num_layers=2, feature_dim=8)
    with pytest.raises(ValueError, match="from 0 to the 20 frames"):
        interface.partial_fit(torch.randn(2, 3, 20, 8), lengths)


@pytest.mark.parametrize("num_components", [0, 9, 1.5])
def test_pca_concat_refuses_components(num_components):
    with pytest.raises(ValueError, match="`num_components` must be"):
        build_interface("pca_concat", num_layers=2, feature_dim=8, num_components=num_components)


def test_pca_concat_keeps_as_many_components_as_asked_for():
    interface = build_interface("pca_concat", num_layers=2, feature_dim=8, num_components=3)
    assert interface.output_dim == 6
    assert interface.components.shape == (2, 3, 8)
