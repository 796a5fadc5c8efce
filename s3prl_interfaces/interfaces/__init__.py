"""The interfaces: L hidden states in, one sequence of features out. Pure PyTorch, one file an interface.

from s3prl_interfaces.interfaces import build_interface

interface = build_interface("hconv", num_layers=13, feature_dim=768)
features = interface(hidden_states)  # (batch, time, interface.output_dim)
"""

from s3prl_interfaces.interfaces.base import Interface, LayerWeights, NotFittedError
from s3prl_interfaces.interfaces.cls_pooling import CLSPooling
from s3prl_interfaces.interfaces.concat import Concat
from s3prl_interfaces.interfaces.cost import count_macs
from s3prl_interfaces.interfaces.grouped_weighted_sum import GroupedWeightedSum
from s3prl_interfaces.interfaces.hconv import HConv
from s3prl_interfaces.interfaces.last_layer import LastLayer
from s3prl_interfaces.interfaces.pca_concat import PCAConcat
from s3prl_interfaces.interfaces.registry import (
    ENTRY_POINT_GROUP,
    InterfaceSpec,
    build_interface,
    get_spec,
    interface_options,
    list_interfaces,
    register_interface,
)
from s3prl_interfaces.interfaces.single_layer import SingleLayer
from s3prl_interfaces.interfaces.weighted_sum import WeightedSum

__all__ = [
    "ENTRY_POINT_GROUP",
    "CLSPooling",
    "Concat",
    "GroupedWeightedSum",
    "HConv",
    "Interface",
    "InterfaceSpec",
    "LastLayer",
    "LayerWeights",
    "NotFittedError",
    "PCAConcat",
    "SingleLayer",
    "WeightedSum",
    "build_interface",
    "count_macs",
    "get_spec",
    "interface_options",
    "list_interfaces",
    "register_interface",
]
