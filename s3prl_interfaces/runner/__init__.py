"""Config, training loop, evaluation and checkpoints: nothing about one task or one interface."""

from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.experiment import load_experiment, run

__all__ = ["RunArguments", "load_experiment", "run"]
