"""How fast the interfaces are and how much memory they take, against what others ship or one would write down."""

from s3prl_interfaces.bench.benchmark import INTERFACES, SIZES, Figures, Size, benchmark, render, write_json

__all__ = ["INTERFACES", "SIZES", "Figures", "Size", "benchmark", "render", "write_json"]
