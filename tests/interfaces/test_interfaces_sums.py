"""Sums over layers against plain formulas, their gradients, and what the gradients cost."""

import pytest
import torch
from torch.testing import assert_close

from s3prl_interfaces.interfaces import sums

FRAMES, WIDTH, LAYERS = 11, 6, 4


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def layers_of(dtype=torch.float64):
    return [draw(FRAMES, WIDTH, dtype=dtype, seed=seed) for seed in range(LAYERS)]


TERMS = [[(0, 1), (2, 0), (2, 2)], [(1, 2)], [(2, 1), (0, 0)]]  # layer 3 meets nothing


def weighted_sum(layers, shares):
    return (sum(share * layer for share, layer in zip(shares, layers, strict=True)),)


def sums_of_products(layers, matrices, bias):
    return tuple(bias + sum(layers[one] @ matrices[other].T for one, other in pairs) for pairs in TERMS)


def mixture(layers, shares):
    return (torch.einsum("nhl,lnd->nhd", shares, torch.stack(list(layers))),)


OURS = {
    weighted_sum: lambda layers, shares: (sums.weighted_sum(layers, shares),),
    sums_of_products: lambda layers, matrices, bias: sums.sums_of_products(layers, matrices, bias, TERMS),
    mixture: lambda layers, shares: (sums.mixture(layers, shares),),
}
WEIGHTS = {
    weighted_sum: [(LAYERS,)],
    sums_of_products: [(3, 5, WIDTH), (5,)],
    mixture: [(FRAMES, 2, LAYERS)],
}


@pytest.fixture(autouse=True)
def _several_parts(monkeypatch):
    monkeypatch.setattr(sums, "_PART", 4)  # of 11


def weights_of(formula, dtype=torch.float64):
    return [draw(*shape, dtype=dtype, seed=7 + index) for index, shape in enumerate(WEIGHTS[formula])]


def gradients(function, layers, weights, wanted):
    """Results, and the gradients of those inputs that want one."""
    inputs = [one.clone().requires_grad_(want) for one, want in zip([*layers, *weights], wanted, strict=True)]
    results = function(inputs[: len(layers)], *inputs[len(layers) :])
    if not any(wanted):
        return results, []
    torch.autograd.backward(results, [draw(*result.shape, seed=99).to(result.dtype) for result in results])
    return results, [one.grad for one in inputs]


@pytest.mark.parametrize("wanted", ["all", "weights", "layers", "second weight and layers 0 and 2", "none"])
@pytest.mark.parametrize("formula", OURS)
def test_results_and_gradients(formula, wanted):
    layers, weights = layers_of(), weights_of(formula)
    of_layers = {
        "all": [True] * LAYERS,
        "layers": [True] * LAYERS,
        "second weight and layers 0 and 2": [True, False] * 2,
    }
    of_weights = {"all": [True, True], "weights": [True, True], "second weight and layers 0 and 2": [False, True]}
    want = [*of_layers.get(wanted, [False] * LAYERS), *of_weights.get(wanted, [False, False])[: len(weights)]]
    results, found = gradients(OURS[formula], layers, weights, want)
    expected_results, expected = gradients(formula, layers, weights, want)
    assert_close(results, expected_results)
    assert_close(found, expected)  # None for what wants no gradient, and for a layer that meets nothing
    assert all(result.requires_grad == any(want) for result in results)


@pytest.mark.parametrize("formula", OURS)
def test_inputs_may_lie_anyhow_in_memory(formula):
    layers = list(torch.stack(layers_of(), dim=-1).unbind(-1))
    weights = [one.transpose(0, -1).contiguous().transpose(0, -1) for one in weights_of(formula)]
    assert not layers[0].is_contiguous()
    want = [True] * (LAYERS + len(weights))
    results, found = gradients(OURS[formula], layers, weights, want)
    expected_results, expected = gradients(formula, layers, weights, want)
    assert_close(results, expected_results)
    assert_close(found, expected)


def test_gradient_of_matrices_lies_as_they_do():
    """So that views of a weight (O, M * D) as M matrices need no copy on the way back."""
    weight = draw(5, 3 * WIDTH).requires_grad_()
    matrices = weight.unflatten(1, (3, -1)).transpose(0, 1)
    matrices.register_hook(lambda gradient: strides.append(gradient.stride()))
    strides = []
    results = sums.sums_of_products(layers_of(), matrices, draw(5), TERMS)
    sum(result.sum() for result in results).backward()
    assert strides == [matrices.stride()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("formula", OURS)
def test_half_precision(formula, dtype):
    """Sums in float32, also those of gradients; the gradient of a layer in the layer's dtype."""
    layers, weights = layers_of(dtype), weights_of(formula, torch.float32)
    if formula is mixture:
        weights = [one.to(dtype) for one in weights]
    want = [True] * (LAYERS + len(weights))
    results, found = gradients(OURS[formula], layers, weights, want)
    assert {result.dtype for result in results} == {dtype if formula is mixture else torch.float32}
    exact = [one.to(dtype).float() if formula is sums_of_products else one.float() for one in weights]
    expected_results, expected = gradients(formula, [layer.float() for layer in layers], exact, want)
    tolerance = {torch.bfloat16: 4e-2, torch.float16: 5e-3}[dtype]
    for one, other in zip(results, expected_results, strict=True):
        assert_close(one.float(), other, rtol=tolerance, atol=tolerance)
    for given, one, other in zip([*layers, *weights], found, expected, strict=True):
        if other is None:
            assert one is None
        else:
            assert one.dtype == given.dtype
            assert_close(one.float(), other, rtol=tolerance, atol=3 * tolerance)


def test_sums_of_gradients_are_kept_in_float32():
    """In bfloat16, ones add up to 256 and no further."""
    many = 300
    layers = [torch.ones(1, 1, dtype=torch.bfloat16)] * many
    matrix = torch.ones(1, 1, 1, requires_grad=True)
    (total,) = sums.sums_of_products(layers, matrix, torch.zeros(1), [[(index, 0) for index in range(many)]])
    total.backward()
    assert (total.item(), matrix.grad.item()) == (many, many)
    layer = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    results = sums.sums_of_products([layer], torch.ones(many, 1, 1), torch.zeros(1), [[(0, i)] for i in range(many)])
    sum(results).backward()
    assert layer.grad.item() == 300


@pytest.mark.parametrize(
    ("dtypes", "autocast", "expected"),
    [
        (["float32", "float32"], None, "float32"),
        (["bfloat16", "float16"], None, "float32"),
        (["bfloat16", "bfloat16"], None, "bfloat16"),
        (["float16", "float64"], None, "float64"),
        (["float32", "float32"], "bfloat16", "bfloat16"),
        (["float64", "float32"], "bfloat16", "float64"),
    ],
)
def test_dtype_of_products(dtypes, autocast, expected):
    layers = [torch.zeros(2, 3, dtype=getattr(torch, dtype)) for dtype in dtypes]
    with torch.autocast("cpu", getattr(torch, autocast or "bfloat16"), enabled=autocast is not None):
        assert sums.product_dtype(layers) == getattr(torch, expected)


@pytest.mark.parametrize("formula", OURS)
def test_layers_that_want_no_gradient_are_not_kept_twice(formula):
    layers, weights = layers_of(), [one.requires_grad_() for one in weights_of(formula)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        OURS[formula](layers, *weights)
    assert {one.data_ptr() for one in kept} <= {one.data_ptr() for one in [*layers, *weights]}


@pytest.mark.parametrize("time_first", [False, True])
def test_rows_are_views(time_first):
    states = [draw(*((5, 3) if time_first else (3, 5)), 2, seed=seed) for seed in range(2)]
    layers = [state.transpose(0, 1) for state in states] if time_first else states
    rows, back = sums.to_rows(layers)
    for row, layer in zip(rows, layers, strict=True):
        assert row.data_ptr() == layer.data_ptr()
        assert row.shape == (15, 2)
        assert torch.equal(back(row), layer)


def test_rows_of_layers_that_lie_otherwise():
    layers = [draw(3, 5, 2), draw(5, 3, 2, seed=1).transpose(0, 1), draw(3, 5, 4, seed=2)[..., ::2]]
    rows, back = sums.to_rows(layers)
    assert all(torch.equal(back(row), layer) for row, layer in zip(rows, layers, strict=True))
