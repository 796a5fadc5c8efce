"""Fit an interface that is fitted, not trained: one pass over the training split before the first step."""

import logging

import torch
from torch import nn
from tqdm import tqdm

from s3prl_interfaces.errors import DataError
from s3prl_interfaces.interfaces import NotFittedError, get_spec
from s3prl_interfaces.runner.batches import iterate, split_loader, to_device
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.randomness import preserved

log = logging.getLogger(__name__)


def fit_interface(upstream: nn.Module, lane: Lane, device: torch.device) -> None:
    """Stream the training split through ``partial_fit`` and ``finish_fit``, where the interface has them.

    Padding frames are left out; all random states are put back, so the first step is the one of a run without fitting.

    Raises:
        DataError: the split has too few frames, or hidden states that are not finite.
    """
    interface = lane.featurizer.interface
    if interface is None or not get_spec(lane.interface_name).fitted:
        return
    split = lane.runner.train_dataloader
    log.info("Fit %s on `%s`.", lane.interface_name, split)
    with preserved(), torch.no_grad():
        loader = split_loader(lane.head, split)
        for wavs, *_ in tqdm(iterate(loader), total=len(loader), desc="fit", dynamic_ncols=True):
            batch = to_device(wavs, device)
            hidden_states = lane.featurizer.hidden_states(upstream(batch))
            lengths = lane.featurizer.frame_lengths(batch, hidden_states[0].size(1))
            interface.partial_fit(hidden_states, lengths.to(device))
        try:
            interface.finish_fit()
        except NotFittedError as error:
            raise DataError(f"Split `{split}`: {error}") from error
