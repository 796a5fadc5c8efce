"""What interfaces are measured against, with the same weights: what others ship, or the formula as one writes it."""

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from s3prl_interfaces.errors import UserError
from s3prl_interfaces.interfaces import CLSPooling, Concat, GroupedWeightedSum, HConv, Interface, WeightedSum
from s3prl_interfaces.s3prl_compat import import_s3prl


@dataclass(frozen=True)
class Reference:
    """Another way to the same features.

    Attributes:
        name: What it is.
        module: Whose parameters are trained.
        call: From L hidden states (B, T, D), a list, to features (B, T, O).
    """

    name: str
    module: nn.Module
    call: Callable[[Sequence[Tensor]], Tensor]


def make_reference(interface: Interface) -> Reference:
    """Make what an interface is measured against, on its device and in its mode.

    Raises:
        UserError: There is none, or it is not installed.
    """
    makers: dict[type, Callable[..., Reference]] = {
        WeightedSum: _s3prl,
        GroupedWeightedSum: _grouped,
        Concat: _concatenated,
        HConv: _released,
        CLSPooling: _transformer,
    }
    if type(interface) not in makers:
        raise UserError(f"{type(interface).__name__} has nothing to be measured against.")
    reference = makers[type(interface)](interface)
    reference.module.to(next(interface.parameters()).device).train(interface.training)
    return reference


def _s3prl(interface: WeightedSum) -> Reference:
    Featurizer = import_s3prl("s3prl.upstream.interfaces").Featurizer  # noqa: N806 (a class)
    with contextlib.redirect_stderr(io.StringIO()):  # it tells what it found
        featurizer = Featurizer(_Zeros(interface.num_layers, interface.feature_dim), upstream_device="cpu")
    featurizer.load_state_dict(interface.state_dict())
    return Reference("S3PRL's Featurizer", featurizer, lambda states: featurizer._weighted_sum(list(states)))


class _Zeros(nn.Module):
    """An upstream for the Featurizer to learn layers and width from."""

    def __init__(self, num_layers: int, feature_dim: int) -> None:
        super().__init__()
        self.size = (num_layers, 1, 50, feature_dim)

    def get_downsample_rates(self, key: str) -> int:
        return 320

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        return {"hidden_states": list(torch.zeros(self.size))}


def _released(interface: HConv) -> Reference:
    try:
        from SSL_Interface.configs import HierarchicalConvInterfaceConfig
        from SSL_Interface.interfaces import HierarchicalConvInterface
    except ImportError as error:
        remedy = "pip install ssl-interface==0.1.0, or leave hconv out of --interfaces"
        raise UserError(f"hconv is measured against the released code, which is not installed: {remedy}.") from error
    config = HierarchicalConvInterfaceConfig(
        upstream_layer_num=interface.num_layers,
        upstream_feat_dim=interface.feature_dim,
        normalize=interface.normalize,
        output_dim=interface.output_dim,
    )
    module = HierarchicalConvInterface(config)
    for index, conv in enumerate(interface.convs):  # a ReLU after each
        module.transforms[2 * index].load_state_dict(conv.state_dict())
    return Reference("ssl-interface", module, lambda states: module(torch.stack(list(states))))


def _transformer(interface: CLSPooling) -> Reference:
    layer, module = interface.encoder_layer, nn.Module()
    module.cls = nn.Parameter(interface.cls.detach().clone())
    module.layer = nn.TransformerEncoderLayer(
        interface.feature_dim,
        layer.self_attn.num_heads,
        dim_feedforward=layer.linear1.out_features,
        dropout=layer.dropout.p,
        batch_first=True,
    )
    module.layer.load_state_dict(layer.state_dict())

    def pool(states: Sequence[Tensor]) -> Tensor:
        cls = cast("Tensor", module.cls).expand_as(states[0])
        tokens = torch.stack([cls, *states], dim=2).flatten(0, 1)  # (B * T, L + 1, D)
        return cast("nn.Module", module.layer)(tokens)[:, 0].unflatten(0, states[0].shape[:2])

    return Reference("nn.TransformerEncoderLayer", module, pool)


def _concatenated(interface: Concat) -> Reference:
    linear = nn.Linear(interface.num_layers * interface.feature_dim, interface.feature_dim)
    linear.load_state_dict(interface.projection.state_dict())
    return Reference("cat, nn.Linear", linear, lambda states: linear(torch.cat(list(states), dim=-1)))


def _grouped(interface: GroupedWeightedSum) -> Reference:
    module = nn.Module()
    module.weights = nn.ParameterList(nn.Parameter(weights.detach().clone()) for weights in interface.weights)
    module.projection = nn.Linear(interface.projection.in_features, interface.feature_dim)
    module.projection.load_state_dict(interface.projection.state_dict())

    def project(states: Sequence[Tensor]) -> Tensor:
        groups = torch.stack(list(states)).split(interface.group_sizes)
        weights = cast("nn.ParameterList", module.weights)
        sums = [
            (one.softmax(0)[:, None, None, None] * group).sum(0) for one, group in zip(weights, groups, strict=True)
        ]
        return cast("nn.Linear", module.projection)(torch.cat(sums, dim=-1))

    return Reference("stack, softmax, sum, cat, linear", module, project)
