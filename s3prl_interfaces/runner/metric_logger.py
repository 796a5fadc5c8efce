"""TensorBoard, and the numbers that went to it: how a score gets from S3PRL's ``log_records`` into results.json."""

import contextlib
import logging
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from s3prl_interfaces.errors import DataError

log = logging.getLogger(__name__)


class MetricLogger(SummaryWriter):
    """The ``logger`` of S3PRL's ``log_records``: a TensorBoard writer that remembers the scalars of the last split.

    Args:
        log_dir: where the event file goes.
        step: what a run that was killed logged of later steps is hidden: they are made once more.

    Raises:
        DataError: there can be no event file.
    """

    def __init__(self, log_dir: str, step: int = 0) -> None:
        try:
            super().__init__(log_dir, purge_step=step + 1 if step else None)
        except OSError as error:
            raise DataError(f"{log_dir} cannot be written to: {error}.") from error
        self._scalars: dict[str, float] = {}
        self._writes = True

    def add_scalar(self, tag: str, scalar_value: Any, *args: Any, **kwargs: Any) -> None:
        """Write one number and remember it. Where it cannot be written, no more are: they are not worth a run."""
        self._scalars[tag] = float(scalar_value)
        try:
            if self._writes:
                super().add_scalar(tag, scalar_value, *args, **kwargs)
        except OSError as error:
            self._writes = False
            log.warning("TensorBoard's events in %s cannot be written, so they end here: %s.", self.log_dir, error)

    def close(self) -> None:
        """End the event file."""
        with contextlib.nullcontext() if self._writes else contextlib.suppress(OSError):
            super().close()

    def take(self, split: str) -> dict[str, float]:
        """The metrics of ``split`` since the last call; S3PRL's tags read ``<task>/<split>-<metric>``."""
        names = {tag.rsplit("/", 1)[-1]: value for tag, value in self._scalars.items()}
        self._scalars.clear()
        return {name[len(split) + 1 :]: value for name, value in names.items() if name.startswith(f"{split}-")}
