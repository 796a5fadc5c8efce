"""Fit an interface that is fitted, not trained: one pass over the training split before the first step."""

import logging
from collections.abc import Sequence
from itertools import islice

import torch
from torch import nn

from s3prl_interfaces.errors import DataError
from s3prl_interfaces.interfaces import NotFittedError, get_spec
from s3prl_interfaces.runner.batches import Batches, readable, run_upstream, to_device
from s3prl_interfaces.runner.interruption import stop_if_requested
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.progress import progress_bar
from s3prl_interfaces.runner.randomness import preserved

log = logging.getLogger(__name__)


def fit_interfaces(
    upstream: nn.Module, lanes: Sequence[Lane], device: torch.device, batches: int | None = None
) -> None:
    """Stream the training split through ``partial_fit`` and ``finish_fit`` of every interface that has them, at once.

    Padding frames are left out; all random states are put back, so the first step is the one of a run without fitting.

    Args:
        upstream: the speech model.
        lanes: those whose interface is not fitted are left as they are.
        device: where the models are.
        batches: look at no more; None: at all.

    Raises:
        DataError: the split has too few frames, or hidden states that are not finite.
    """
    fitted = [lane for lane in lanes if lane.featurizer.interface and get_spec(lane.interface_name).fitted]
    if not fitted:
        return
    split = fitted[0].runner.train_dataloader
    log.info("Fit %s on `%s`.", ", ".join(lane.name for lane in fitted), split)
    with preserved(), torch.no_grad():
        found = Batches(fitted[0].head, split)
        total = len(found) if batches is None else min(batches, len(found))
        for wavs, *_ in progress_bar(islice(readable(found), total), total=total, desc="fit"):
            stop_if_requested()
            batch = to_device(wavs, device)
            output = run_upstream(upstream, batch)
            for lane in fitted:
                hidden_states = lane.featurizer.hidden_states(output)
                lengths = lane.featurizer.frame_lengths(batch, hidden_states[0].size(1))
                lane.featurizer.interface.partial_fit(hidden_states, lengths)
        for lane in fitted:
            try:
                lane.featurizer.interface.finish_fit()
            except NotFittedError as error:
                raise DataError(f"Split `{split}`: {error}") from error
