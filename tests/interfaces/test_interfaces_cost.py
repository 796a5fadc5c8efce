"""Multiply-accumulate operations against formulas written by hand."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from s3prl_interfaces import build_interface, list_interfaces
from s3prl_interfaces.interfaces import Interface, NotFittedError, count_macs, get_spec

SIZES = [(13, 768), (25, 1024), (4, 12), (3, 47)]


def build(name, num_layers, feature_dim, **options):
    interface = build_interface(name, num_layers=num_layers, feature_dim=feature_dim, **options)
    if name == "pca_concat":
        nn.init.normal_(interface.components)
        interface.fitted.fill_(True)
    return interface


def weighted_sum(num_layers, dim):
    return num_layers * dim


def grouped_weighted_sum(num_layers, dim, num_groups=2):
    return num_layers * dim + num_groups * dim * dim


def concat(num_layers, dim):
    return num_layers * dim * dim


def hconv(num_layers, dim, kernel_size=5, stride=3, padding=2):
    count, length = 0, num_layers
    convolutions = 0
    while stride ** (convolutions + 1) <= num_layers:
        convolutions += 1
    for index in range(convolutions):
        starts = range(-padding, length + padding - kernel_size + 1, stride)
        # Zero padding is not multiplied.
        products = sum(0 <= start + tap < length for start in starts for tap in range(kernel_size))
        length = len(starts)
        count += products * dim * (dim if index < convolutions - 1 else dim // length)
    return count


def cls_pooling(num_layers, dim, feedforward_dim=2048, heads=None):
    heads = heads or next(heads for heads in (8, 4, 2, 1) if dim % heads == 0)
    scores, mixtures = heads * num_layers * dim, heads * num_layers * dim
    values, out = dim * dim + 2 * dim, dim * dim  # the 2: the share of CLS itself, and the bias
    return scores + mixtures + values + out + 2 * dim * feedforward_dim


def cls_pooling_once(dim, heads=None):
    """CLS as a query, the keys' matrix applied to it, its own score and value: the same for all frames."""
    heads = heads or next(heads for heads in (8, 4, 2, 1) if dim % heads == 0)
    return 3 * dim * dim + heads * dim


def pca_concat(num_layers, dim, num_components=None):
    return num_layers * (num_components or -(-dim // num_layers)) * dim


def nothing(num_layers, dim, layer=0):
    return 0


FORMULAS = {
    "weighted_sum": weighted_sum,
    "grouped_weighted_sum": grouped_weighted_sum,
    "concat": concat,
    "hconv": hconv,
    "cls_pooling": cls_pooling,
    "pca_concat": pca_concat,
    "last_layer": nothing,
    "single_layer": nothing,
}


def expected_macs(name, frames, num_layers, dim, **options):
    once = cls_pooling_once(dim) if name == "cls_pooling" else 0
    return frames * FORMULAS[name](num_layers, dim, **options) + once


def test_every_interface_has_a_formula():
    ours = {name for name in list_interfaces() if get_spec(name).cls.__module__.startswith("s3prl_interfaces.")}
    assert ours == FORMULAS.keys()


@pytest.mark.parametrize("frames", [1, 50])
@pytest.mark.parametrize(("num_layers", "dim"), SIZES)
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name, num_layers, dim, frames):
    interface = build(name, num_layers, dim)
    count = count_macs(interface, frames)
    assert type(count) is int
    assert count == expected_macs(name, frames, num_layers, dim)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grouped_weighted_sum", {"num_groups": 3}),
        ("hconv", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("hconv", {"kernel_size": 3, "padding": 0}),
        ("hconv", {"padding": 1}),
        ("cls_pooling", {"feedforward_dim": 7}),
        ("pca_concat", {"num_components": 5}),
        ("single_layer", {"layer": 2}),
    ],
)
def test_options(name, options):
    assert count_macs(build(name, 13, 12, **options), 3) == expected_macs(name, 3, 13, 12, **options)


@pytest.mark.parametrize("heads", [1, 4])
def test_every_head_mixes_layers_of_its_own(heads):
    interface = build("cls_pooling", 5, 12, num_heads=heads)
    assert count_macs(interface, 2) == 2 * cls_pooling(5, 12, heads=heads) + cls_pooling_once(12, heads)


def test_superbs_baseline_is_cheap_but_not_free():
    """One second of HuBERT Base, 50 frames."""
    assert count_macs(build("weighted_sum", 13, 768), 50) == 499_200
    assert count_macs(build("hconv", 13, 768), 50) == 50 * (21 * 768 * 768 + 7 * 768 * 384)


def test_normalisation_is_not_counted():
    assert count_macs(build("concat", 4, 12, normalize=True), 5) == 5 * concat(4, 12)


@pytest.mark.parametrize("name", FORMULAS)
def test_leaves_everything_as_it_was(name):
    interface = build(name, 4, 12).double()
    for module in list(interface.modules())[::2]:  # not all in the same mode
        module.training = False
    modes = [module.training for module in interface.modules()]
    weights = copy.deepcopy(interface.state_dict())
    switches = (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
        torch.is_grad_enabled(),
    )
    random = torch.get_rng_state()

    assert count_macs(interface, 5) == expected_macs(name, 5, 4, 12)

    assert [module.training for module in interface.modules()] == modes
    assert_close(interface.state_dict(), weights, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in interface.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert switches == (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
        torch.is_grad_enabled(),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", FORMULAS)
def test_half_precision(name, dtype):
    assert count_macs(build(name, 4, 12).to(dtype), 5) == expected_macs(name, 5, 4, 12)


class PlugIn(Interface):
    """Whatever a function makes of the stacked layers (L, B, T, D)."""

    def __init__(self, function, *modules):
        super().__init__(3, 12)
        self.parts = nn.ModuleList(modules)
        self.function = function

    def combine(self, layers, lengths):
        assert not any(module.training for module in self.modules())
        assert not torch.is_grad_enabled()
        assert lengths.tolist() == [7]
        return self.function(torch.stack(list(layers)), *self.parts)


WEIGHTS = torch.rand(3)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda stack: (WEIGHTS[:, None, None, None] * stack).sum(0), 3 * 12),
        (lambda stack: sum(weight * layer for weight, layer in zip(WEIGHTS, stack, strict=True)), 3 * 12),
        (lambda stack: stack.permute(1, 2, 3, 0) @ WEIGHTS, 3 * 12),
        (lambda stack: torch.einsum("lbtd,l->btd", stack, WEIGHTS), 3 * 12),
        (lambda stack: torch.tensordot(WEIGHTS, stack, dims=1), 3 * 12),
        (lambda stack: stack[0].clone().mul_(WEIGHTS[0]), 12),
        (lambda stack: torch.addcmul(stack[0], stack[1], WEIGHTS[0]), 12),
        (lambda stack: stack[0].clone().addcmul_(stack[1], WEIGHTS[0]), 12),
        (lambda stack: stack[0].clone()[0].addmm_(stack[0, 0], torch.ones(12, 12))[None], 12 * 12),
        (lambda stack: torch.addmv(torch.zeros(7), stack[0, 0], torch.ones(12))[None, :, None], 12),
        (lambda stack: stack[0, 0, 0].dot(stack[1, 0, 0]).expand(1, 7, 12), 12 / 7),
        (lambda stack: stack.mean(0), 0),
        (lambda stack: stack.sum(0) / 3, 0),
        (lambda stack: 0.5 * stack[0] + stack[1] * 2, 0),
        (lambda stack: stack[0].relu().softmax(-1), 0),
    ],
)
def test_every_way_to_write_a_weighted_sum(function, expected):
    assert count_macs(PlugIn(function), 7) == pytest.approx(7 * expected)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        # Per frame: projections, scores and means over 7 frames, feed-forward. PyTorch would do it in one operation.
        (nn.TransformerEncoderLayer(12, 4, 16, batch_first=True), 4 * 12 * 12 + 2 * 7 * 12 + 2 * 12 * 16),
        # Gates, and the three elementwise products of a cell.
        (nn.LSTM(12, 8, batch_first=True), 4 * 8 * (12 + 8) + 3 * 8),
        (nn.Conv1d(7, 7, 3, padding=1), 7 * 3 * 12),
        (nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(7), nn.Dropout(0.5), nn.Linear(5, 12)), 2 * 12 * 5),
    ],
)
def test_modules_of_pytorch(module, expected):
    def call(stack, part):
        result = part(stack[0])
        return result[0] if isinstance(result, tuple) else result

    assert count_macs(PlugIn(call, module), 7) == 7 * expected


def test_the_states_have_the_dtype_of_the_weights():
    interface = PlugIn(lambda stack, part: part(stack[0]), nn.Linear(12, 5)).double()
    assert count_macs(interface, 7) == 7 * 12 * 5


def test_an_interface_that_draws_leaves_the_random_state():
    before = torch.get_rng_state()
    count_macs(PlugIn(lambda stack: stack[0] + torch.randn(12)), 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_interface_that_fails_leaves_its_mode():
    def fail(stack):
        raise RuntimeError("no")

    interface = PlugIn(fail).train()
    with pytest.raises(RuntimeError, match="no"):
        count_macs(interface, 7)
    assert interface.training
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled


def test_fitted_interfaces_must_be_fitted():
    with pytest.raises(NotFittedError, match="must be fitted"):
        count_macs(build_interface("pca_concat", num_layers=4, feature_dim=12), 5)


@pytest.mark.parametrize("frames", [0, -1, 1.5, "50", True])
def test_wrong_frames(frames):
    with pytest.raises(ValueError, match="`frames` must be an integer of at least 1"):
        count_macs(build("weighted_sum", 4, 12), frames)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", FORMULAS)
def test_on_a_gpu(name):
    interface = build(name, 13, 48).cuda()
    random = torch.cuda.get_rng_state()
    assert count_macs(interface, 50) == expected_macs(name, 50, 13, 48)
    assert torch.equal(torch.cuda.get_rng_state(), random)
