"""Interfaces inside an S3PRL that the user drives himself."""

import importlib
import importlib.util
import sys
from typing import Any

from downstream_tasks.registry import TASKS
from s3prl_interfaces.featurizer import InterfaceFeaturizer
from s3prl_interfaces.runner.config import interface_block
from s3prl_interfaces.s3prl_compat import import_s3prl


def install() -> None:
    """Let S3PRL's own ``Runner`` build the interface that the ``interface:`` block of its config names.

    Without that block the ``Runner`` builds what it always did. Our tasks become known to it too, under those of their
    names that S3PRL has not given away (``-d ic``). Calling it again changes nothing.

    Raises:
        UpstreamError: S3PRL is not installed or cannot be imported.
    """
    runner = import_s3prl("s3prl.downstream.runner").Runner
    original = runner._get_featurizer
    if getattr(original, "builds_interfaces", False):
        return

    def get_featurizer(self: Any) -> Any:
        name, options = interface_block(self.config)
        if name is None:
            return original(self)
        model = InterfaceFeaturizer(
            self.upstream.model,
            feature_selection=self.args.upstream_feature_selection,
            upstream_device=self.args.device,
            layer_selection=self.args.upstream_layer_selection,
            normalize=self.args.upstream_feature_normalize,
            interface=name,
            interface_options=options,
        ).to(self.args.device)
        return self._init_model(
            model=model, name="Featurizer", trainable=True, interfaces=["output_dim", "downsample_rate"]
        )

    get_featurizer.builds_interfaces = True  # type: ignore[attr-defined]
    runner._get_featurizer = get_featurizer
    for task in TASKS:
        name = f"s3prl.downstream.{task.name}"
        if importlib.util.find_spec(name) is None:  # S3PRL's own task of that name stays
            sys.modules[f"{name}.expert"] = importlib.import_module(f"downstream_tasks.{task.name}.expert")
