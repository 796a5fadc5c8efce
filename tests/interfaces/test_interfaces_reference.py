"""Against the reference code of the paper, the distribution ``ssl-interface``: same weights, same input.

The reference builds hierarchical convolutions only when it is given the exact ``output_dim``: without it, or
with another (1024 for 25 layers of 1024), its constructor ends the interpreter or fails with NameError. Given
it, it builds all of the sizes below. It cannot do fewer than 3 layers at stride 3, and at 243 layers its
floating-point logarithm loses one convolution; the latter is compared with the plain formula in
``test_interfaces_formulas.py``.
"""

import pytest
import torch
from SSL_Interface.configs import HierarchicalConvInterfaceConfig, WeightedSumInterfaceConfig
from SSL_Interface.interfaces import HierarchicalConvInterface, WeightSumInterface
from torch.testing import assert_close

from s3prl_interfaces import build_interface

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def reference_of(interface, kernel_size=5, stride=3):
    sizes = {
        "upstream_layer_num": interface.num_layers,
        "upstream_feat_dim": interface.feature_dim,
        "normalize": interface.normalize,
    }
    if hasattr(interface, "weights"):
        reference = WeightSumInterface(WeightedSumInterfaceConfig(**sizes))
        reference.weighte_sum_weights.data.copy_(interface.weights)
        return reference, {"weighte_sum_weights": "weights"}
    config = HierarchicalConvInterfaceConfig(
        **sizes,
        output_dim=interface.output_dim,
        conv_kernel_size=kernel_size,
        conv_kernel_stride=stride,
    )
    reference = HierarchicalConvInterface(config)
    names = {}
    for index, conv in enumerate(interface.convs):  # the reference has a ReLU after each
        reference.transforms[2 * index].load_state_dict(conv.state_dict())
        names |= {f"transforms.{2 * index}.{key}": f"convs.{index}.{key}" for key in ("weight", "bias")}
    return reference, names


def assert_same(interface, reference, names, states):
    stack = torch.stack(states).requires_grad_()
    ours = [state.clone().requires_grad_() for state in states]
    expected, actual = reference(stack), interface(ours)
    assert_close(actual, expected, **TOLERANCE)

    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (expected * cotangent).sum().backward()
    (actual * cotangent).sum().backward()
    # A layer that no kernel covers has no gradient here, and one of zeros in a stack.
    gradients = [torch.zeros_like(state) if state.grad is None else state.grad for state in ours]
    assert_close(torch.stack(gradients), stack.grad, **TOLERANCE)
    reference_parameters = dict(reference.named_parameters())
    assert names.keys() == reference_parameters.keys()
    assert set(names.values()) == {name for name, _ in interface.named_parameters()}
    for theirs, name in names.items():
        assert_close(interface.get_parameter(name).grad, reference_parameters[theirs].grad, **TOLERANCE)


@pytest.mark.parametrize(
    ("num_layers", "feature_dim", "output_dim", "layer_axis"),
    [
        (3, 32, 32, (3, 1)),
        (4, 256, 256, (4, 2)),
        (7, 512, 510, (7, 3)),
        (9, 32, 32, (9, 3, 1)),
        (13, 768, 768, (13, 5, 2)),
        (25, 1024, 1023, (25, 9, 3)),
        (27, 32, 32, (27, 9, 3, 1)),
    ],
)
def test_hconv(make_states, num_layers, feature_dim, output_dim, layer_axis):
    interface = build_interface("hconv", num_layers=num_layers, feature_dim=feature_dim)
    assert interface.output_dim == output_dim
    assert interface.layer_axis == layer_axis
    reference, names = reference_of(interface)
    assert_same(interface, reference, names, make_states(num_layers, feature_dim, batch=2, frames=3))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (4, 3), (7, 4), (1, 2)])
def test_hconv_with_other_kernels(make_states, kernel_size, stride, normalize):
    interface = build_interface(
        "hconv", num_layers=13, feature_dim=32, kernel_size=kernel_size, stride=stride, normalize=normalize
    )
    reference, names = reference_of(interface, kernel_size, stride)
    assert_same(interface, reference, names, make_states(13, 32))


def test_hconv_starts_as_the_reference_does():
    torch.manual_seed(0)
    interface = build_interface("hconv", num_layers=13, feature_dim=32)
    torch.manual_seed(0)
    config = HierarchicalConvInterfaceConfig(upstream_layer_num=13, upstream_feat_dim=32, output_dim=32)
    for ours, theirs in zip(interface.parameters(), HierarchicalConvInterface(config).parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("num_layers", "feature_dim"),
    [(3, 32), (4, 256), (7, 512), (9, 32), (13, 768), (25, 1024), (27, 32), (1, 8)],
)
def test_weighted_sum(make_states, num_layers, feature_dim, normalize):
    interface = build_interface("weighted_sum", num_layers=num_layers, feature_dim=feature_dim, normalize=normalize)
    torch.nn.init.normal_(interface.weights)
    reference, names = reference_of(interface)
    assert_same(interface, reference, names, make_states(num_layers, feature_dim))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("weighted_sum", 13),
        ("grouped_weighted_sum", 13 + 2 * 768 * 768 + 768),
        ("concat", 7_668_480),
        ("hconv", 4_424_832),
        ("pca_concat", 0),
        ("last_layer", 0),
        ("single_layer", 0),
    ],
)
def test_parameter_counts_of_the_paper(name, count):
    interface = build_interface(name, num_layers=13, feature_dim=768)
    assert sum(parameter.numel() for parameter in interface.parameters() if parameter.requires_grad) == count


def test_pca_concat_has_the_width_of_the_paper():
    assert build_interface("pca_concat", num_layers=13, feature_dim=768).output_dim == 780
