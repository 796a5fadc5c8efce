"""Runs one split through a task head as a runner does, with features that state the labels under noise."""

from collections import defaultdict

import numpy as np
import torch


class Logger:
    def __init__(self):
        self.scalars = {}

    def add_scalar(self, tag, value, global_step):
        self.scalars[tag, global_step] = value


def features_of(labels, sizes, noise, generator):
    """Features that hold the labels under noise, of 2 to 9 frames."""
    offsets = np.cumsum([0, *sizes[:-1]])
    features = []
    for label in labels:
        frames = int(torch.randint(2, 10, (1,), generator=generator))
        feature = noise * torch.randn(frames, sum(sizes), generator=generator)
        feature[:, torch.as_tensor(label) + torch.as_tensor(offsets)] += 1
        features.append(feature)
    return features


def run(expert, split, noise, sizes, step, order_seed=0):
    """One pass over a split as a runner makes it: batch losses, what is logged, what is to be saved."""
    torch.manual_seed(order_seed)  # of the shuffled training split
    generator = torch.Generator().manual_seed(1)
    records, logger, losses = defaultdict(list), Logger(), []
    with torch.no_grad():
        for batch, (_, labels, names) in enumerate(expert.get_dataloader(split)):
            features = features_of(labels, sizes, noise, generator)
            losses.append(expert(split, features, labels, names, records=records, batch_id=batch))
    saved = expert.log_records(
        split, records=records, logger=logger, global_step=step, batch_ids=[], total_batch_num=len(losses)
    )
    return torch.stack(losses), logger.scalars, saved
