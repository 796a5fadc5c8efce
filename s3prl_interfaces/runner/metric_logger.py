"""TensorBoard, and the numbers that went to it: how a score gets from S3PRL's ``log_records`` into results.json."""

from typing import Any

from torch.utils.tensorboard import SummaryWriter


class MetricLogger(SummaryWriter):
    """The ``logger`` of S3PRL's ``log_records``: a TensorBoard writer that remembers the scalars of the last split.

    Args:
        log_dir: where the event file goes.
        step: what a run that was killed logged of later steps is hidden: they are made once more.
    """

    def __init__(self, log_dir: str, step: int = 0) -> None:
        super().__init__(log_dir, purge_step=step + 1 if step else None)
        self._scalars: dict[str, float] = {}

    def add_scalar(self, tag: str, scalar_value: Any, *args: Any, **kwargs: Any) -> None:
        """Write one number and remember it."""
        self._scalars[tag] = float(scalar_value)
        super().add_scalar(tag, scalar_value, *args, **kwargs)

    def take(self, split: str) -> dict[str, float]:
        """The metrics of ``split`` since the last call; S3PRL's tags read ``<task>/<split>-<metric>``."""
        names = {tag.rsplit("/", 1)[-1]: value for tag, value in self._scalars.items()}
        self._scalars.clear()
        return {name[len(split) + 1 :]: value for name, value in names.items() if name.startswith(f"{split}-")}
