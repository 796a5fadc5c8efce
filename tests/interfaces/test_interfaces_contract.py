"""What every interface must keep, those of plug-ins included.

To check an interface of one's own, add its ``package.module:Class`` to ``NAMES``.
"""

import copy
import io

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from s3prl_interfaces import build_interface, list_interfaces
from s3prl_interfaces.interfaces import get_spec

BUILT_IN = [name for name in list_interfaces() if get_spec(name).cls.__module__.startswith("s3prl_interfaces.")]
NAMES = [*BUILT_IN, "tests.interfaces.contract_plugin:MaskedContext", "contract_scales"]
OPTIONS = {"cls_pooling": {"feedforward_dim": 16}}  # the width of the paper is not the point here
LAYERS, DIM = 4, 12

PLUGIN = '''
import torch
from s3prl_interfaces import register_interface
from s3prl_interfaces.interfaces import Interface

@register_interface("contract_scales", min_layers=2)
class Scales(Interface):
    """Layers scaled and added up."""

    def __init__(self, num_layers, feature_dim, *, normalize=False):
        if num_layers < 2:
            raise ValueError("`num_layers` must be at least 2.")
        super().__init__(num_layers, feature_dim, normalize=normalize)
        self.scales = torch.nn.Parameter(torch.ones(num_layers, 1))

    def combine(self, layers, lengths):
        return sum(scale * layer for scale, layer in zip(self.scales, layers))
'''

pytestmark = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True, scope="module")
def _plugin(install_plugin):
    install_plugin("plugin_scales", PLUGIN, contract_scales="plugin_scales:Scales")


@pytest.fixture
def build(make_states):
    """Return a function that builds an interface, fitted where it has to be, in evaluation mode."""

    def build(name, num_layers=LAYERS, feature_dim=DIM, **options):
        torch.manual_seed(0)
        options = OPTIONS.get(name, {}) | options
        interface = build_interface(name, num_layers=num_layers, feature_dim=feature_dim, **options)
        if get_spec(name).fitted:
            interface.partial_fit(make_states(num_layers, feature_dim, batch=8, frames=16, seed=7))
            interface.finish_fit()
        return interface.eval()

    return build


@pytest.mark.parametrize(
    ("num_layers", "feature_dim"),
    [(1, 24), (2, 24), (3, 24), (13, 24), (25, 24), (13, 50), (25, 47), (7, 11)],
)
def test_sizes(build, make_states, name, num_layers, feature_dim):
    if num_layers < get_spec(name).min_layers:
        with pytest.raises(ValueError, match="must be at"):
            build(name, num_layers, feature_dim)
        return
    interface = build(name, num_layers, feature_dim)
    assert (interface.num_layers, interface.feature_dim) == (num_layers, feature_dim)
    assert isinstance(interface.output_dim, int)
    features = interface(make_states(num_layers, feature_dim))
    assert features.shape == (3, 7, interface.output_dim)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    assert str(interface.output_dim) in repr(interface)


def test_gradients_reach_every_parameter_and_layer(build, make_states, name):
    interface = build(name, 13)
    states = [state.requires_grad_() for state in make_states(13, DIM)]
    features = interface(states)
    (features * torch.randn(features.shape)).sum().backward()
    for key, parameter in interface.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), key  # noqa: PT018
        assert parameter.grad.isfinite().all(), key
    used = [12] if name in ("last_layer", "single_layer") else range(13)
    for index in used:
        assert states[index].grad.any(), index


def test_a_frozen_upstream_needs_no_gradient(build, make_states, name):
    interface, states = build(name), make_states(LAYERS, DIM)
    assert interface(states).requires_grad == any(p.requires_grad for p in interface.parameters())
    with torch.no_grad():
        assert not interface(states).requires_grad
    with torch.inference_mode():
        interface(states)


def test_gradients_are_right(build, make_states, name):
    interface = build(name).double()
    states = torch.stack(make_states(LAYERS, DIM, batch=1, frames=2, dtype=torch.float64)).requires_grad_()
    values = [parameter.detach().clone().requires_grad_() for parameter in interface.parameters()]
    keys = [key for key, _ in interface.named_parameters()]

    def call(stack, *parameters):
        return torch.func.functional_call(interface, dict(zip(keys, parameters, strict=True)), (stack,))

    assert torch.autograd.gradcheck(call, (states, *values), fast_mode=True)


def test_a_list_equals_a_stack(build, make_states, name):
    interface, states = build(name), make_states(LAYERS, DIM)
    expected = interface(states)
    assert_close(interface(tuple(states)), expected, rtol=0, atol=0)
    assert_close(interface(torch.stack(states)), expected)
    time_first = [state.transpose(0, 1).contiguous().transpose(0, 1) for state in states]
    assert_close(interface(time_first), expected)
    stack = torch.stack(states, dim=-1).permute(3, 0, 1, 2)
    assert not stack.is_contiguous()
    assert_close(interface(stack), expected)


def test_input_is_left_alone(build, make_states, name):
    interface, states = build(name), make_states(LAYERS, DIM)
    before = copy.deepcopy(states)
    state_dict = copy.deepcopy(interface.state_dict())
    interface(states, [7, 3, 0])
    assert all(map(torch.equal, states, before))
    assert_close(interface.state_dict(), state_dict, rtol=0, atol=0)


class LargestResult(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_no_copy_of_all_layers_is_made(build, make_states, name):
    interface, states = build(name, 13, 24), make_states(13, 24, batch=8, frames=100)
    stack = torch.stack(states, dim=2).permute(2, 0, 1, 3)
    with LargestResult() as largest, torch.no_grad():
        interface(states)
        interface(stack)
    # A mixture of the layers for each of cls_pooling's 8 heads, whatever the number of layers.
    assert largest.numel <= (8 if name == "cls_pooling" else 3) * states[0].numel()


LENGTHS = [7, 4, 1, 0]


def test_padding_changes_nothing(build, make_states, name):
    interface, states = build(name), make_states(LAYERS, DIM, batch=4)
    junk = [state.clone() for state in states]
    for state in junk:
        for row, length in zip(state, LENGTHS, strict=True):
            row[length:] = 1e4
    clean, dirty = interface(states, LENGTHS), interface(junk, torch.tensor(LENGTHS))
    for index, length in enumerate(LENGTHS):
        assert_close(dirty[index, :length], clean[index, :length])
        alone = interface([state[index : index + 1, :length] for state in states], [length])
        assert_close(alone[0], clean[index, :length], rtol=1e-5, atol=1e-5)


def test_frames_depend_on_other_frames_only_if_so_declared(build, make_states, name):
    interface, states = build(name), make_states(LAYERS, DIM)
    changed = [state.clone() for state in states]
    for state in changed:
        state[:, 3:] += 10
    same = torch.equal(interface(states)[:, :3], interface(changed)[:, :3])
    assert same != (get_spec(name).looks_across_time or "MaskedContext" in name)


def test_padding_does_not_change_a_fit(make_states, name):
    if not get_spec(name).fitted:
        return
    states = make_states(LAYERS, DIM, batch=4, frames=9)
    fitted = []
    for padding in (0.0, 1e4):
        interface = build_interface(name, num_layers=LAYERS, feature_dim=DIM)
        for state in states:
            for row, length in zip(state, LENGTHS, strict=True):
                row[length:] = padding
        interface.partial_fit(states, LENGTHS)
        interface.finish_fit()
        fitted.append(interface.state_dict())
    assert_close(fitted[0], fitted[1], rtol=0, atol=0)


def test_normalize(build, make_states, name):
    states = [4 * state + 3 for state in make_states(LAYERS, DIM)]
    plain, normalizing = build(name), build(name, normalize=True)
    normalizing.load_state_dict(plain.state_dict())
    normalized = [F.layer_norm(state, (DIM,)) for state in states]
    assert_close(normalizing(states), plain(normalized))
    assert not torch.allclose(normalizing(states), plain(states), rtol=1e-2)


@pytest.mark.parametrize("parameters", ["float32", "same"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(build, make_states, name, dtype, parameters):
    interface, states = build(name, 13), make_states(13, DIM, dtype=dtype)
    expected = interface([state.float() for state in states])
    if parameters == "same":
        interface.to(dtype)
    features = interface(states)
    assert features.dtype == dtype
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 4e-2, torch.float64: 1e-5}[dtype]
    assert_close(features.float(), expected, rtol=tolerance, atol=tolerance)


def test_states_of_different_dtypes(build, make_states, name):
    interface, states = build(name), make_states(LAYERS, DIM)
    mixed = [states[0].half(), *states[1:-1], states[-1].bfloat16()]
    features = interface(mixed)
    assert features.dtype == torch.float32
    assert_close(features, interface([state.float() for state in mixed]), rtol=4e-2, atol=4e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast(build, make_states, name, dtype):
    interface, states = build(name, 13), make_states(13, DIM, dtype=dtype)
    expected = interface([state.float() for state in states])
    states = [state.requires_grad_() for state in states]
    with torch.autocast("cpu", torch.bfloat16):
        features = interface(states)
    assert features.dtype == dtype
    assert_close(features.float(), expected, rtol=4e-2, atol=4e-2)
    features.float().square().sum().backward()
    assert states[-1].grad.dtype == dtype
    assert all(parameter.grad.dtype == torch.float32 for parameter in interface.parameters())


def check_compiled(interface, states, backend):
    torch._dynamo.reset()
    compiled = torch.compile(interface, backend=backend)
    results = []
    for module in (interface, compiled):
        inputs = [state.clone().requires_grad_() for state in states]
        features = module(inputs, torch.tensor([7, 4, 0]))
        features.square().sum().backward()
        gradients = [parameter.grad for parameter in interface.parameters()]
        interface.zero_grad()
        results.append((features.detach(), inputs[-1].grad, *gradients))
    assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-5)
    # Gradients of parameters are sums over frames, here up to some tens.
    assert_close(results[1][1:], results[0][1:], rtol=1e-4, atol=1e-4)


def test_compile(build, make_states, name):
    check_compiled(build(name), make_states(LAYERS, DIM), "aot_eager")


@pytest.mark.nightly
def test_compile_with_inductor(build, make_states, name):
    check_compiled(build(name), make_states(LAYERS, DIM), "inductor")


def test_state_dict_round_trip(build, make_states, name):
    interface, states = build(name), make_states(LAYERS, DIM)
    for parameter in interface.parameters():
        torch.nn.init.normal_(parameter)
    file = io.BytesIO()
    torch.save(interface.state_dict(), file)
    file.seek(0)
    loaded = build_interface(name, num_layers=LAYERS, feature_dim=DIM, **OPTIONS.get(name, {})).eval()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(loaded(states), interface(states))
    assert torch.equal(copy.deepcopy(interface)(states), interface(states))


def test_keys_of_the_state_dict(build, name):
    """Names of parameters are an API: checkpoints depend on them."""
    layer = "encoder_layer"
    expected = {
        "weighted_sum": ["weights"],
        "grouped_weighted_sum": ["weights.0", "weights.1", "projection.weight", "projection.bias"],
        "concat": ["projection.weight", "projection.bias"],
        "hconv": ["convs.0.weight", "convs.0.bias"],
        "cls_pooling": [
            "cls",
            *(f"{layer}.self_attn.{key}" for key in ("in_proj_weight", "in_proj_bias")),
            *(f"{layer}.self_attn.out_proj.{key}" for key in ("weight", "bias")),
            *(f"{layer}.{part}.{key}" for part in ("linear1", "linear2") for key in ("weight", "bias")),
            *(f"{layer}.{part}.{key}" for part in ("norm1", "norm2") for key in ("weight", "bias")),
        ],
        "pca_concat": ["mean", "components", "fitted"],
        "last_layer": [],
        "single_layer": [],
    }
    if name in expected:
        assert list(build(name).state_dict()) == expected[name]


def test_reset_parameters(build, name):
    interface = build(name)
    if not list(interface.parameters()) or name not in BUILT_IN:
        return
    torch.manual_seed(5)
    for parameter in interface.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    interface.reset_parameters()
    for key, parameter in interface.named_parameters():
        assert not (parameter == 7.0).any(), key
    if name == "cls_pooling":
        torch.manual_seed(5)
        fresh = torch.nn.TransformerEncoderLayer(DIM, 4, 16)
        for key, parameter in fresh.named_parameters():
            ours = interface.encoder_layer.get_parameter(key)
            assert_close(ours.std(correction=0), parameter.std(correction=0), rtol=0.3, atol=1e-6)


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 1), (2, 0), (0, 5)])
def test_few_frames(build, make_states, name, batch, frames):
    interface, states = build(name), make_states(LAYERS, DIM, batch, frames)
    assert interface(states).shape == (batch, frames, interface.output_dim)
    features = interface(states, [0] * batch)
    assert features.shape == (batch, frames, interface.output_dim)
    assert features.isfinite().all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda states: states[:-1], "must be 4 layers, but are 3"),
        (lambda states: [*states, states[0]], "must be 4 layers, but are 5"),
        (lambda states: [], "must be 4 layers, but are 0"),
        (lambda states: torch.stack(states[:2]), "must be 4 layers, but are 2"),
        (lambda states: torch.stack(states)[0], r"\(layers, batch, time, channels\), but have \(3, 7, 12\)"),
        (lambda states: torch.stack(states)[..., :5], r"\(batch, time, 12\), but has \(3, 7, 5\)"),
        (
            lambda states: [*states[:-1], states[-1][:, :2]],
            r"state 3 has \(3, 2, 12\) and state 0 .* \(3, 7, 12\)",
        ),
        (lambda states: [*states[:-1], states[-1][0]], r"Hidden state 3 .*, but has \(7, 12\)"),
        (
            lambda states: [*states[:-1], states[-1].tolist()],
            "Hidden state 3 must be a tensor, but is a list",
        ),
        (lambda states: [state.long() for state in states], "must be floating point, but is torch.int64"),
        (lambda states: dict(enumerate(states)), "must be a list or tuple of tensors .* but is a dict"),
        (lambda states: iter(states), "must be a list or tuple of tensors .* but is a list_iterator"),
        (lambda states: None, "must be a list or tuple of tensors .* but is a NoneType"),
    ],
)
def test_wrong_states(build, make_states, name, spoil, message):
    with pytest.raises(ValueError, match=message):
        build(name)(spoil(make_states(LAYERS, DIM)))


@pytest.mark.parametrize(
    "lengths", [[7, 7], [7, 7, 7, 7], [7.0, 7.0, 7.0], 7, [[7, 7, 7]], [True, True, True], ["7", "7", "7"]]
)
def test_wrong_lengths(build, make_states, name, lengths):
    with pytest.raises(ValueError, match="`lengths` must be"):
        build(name)(make_states(LAYERS, DIM), lengths)


@pytest.mark.parametrize("argument", ["num_layers", "feature_dim"])
@pytest.mark.parametrize("value", [0, -1, 1.5, 13.0, "13", None, True])
def test_wrong_sizes(name, argument, value):
    sizes = {"num_layers": LAYERS, "feature_dim": DIM} | {argument: value}
    with pytest.raises(ValueError, match=f"`{argument}` must be"):
        build_interface(name, **sizes)


def test_normalize_is_a_truth_value(name):
    with pytest.raises(ValueError, match="`normalize` must be true or false, but is 'no'"):
        build_interface(name, num_layers=LAYERS, feature_dim=DIM, normalize="no")
