"""S3PRL's ``ctc`` for comparison. Its ``corpus`` modules are in no release: stand-ins state their rules as formulas."""

import sys
import types
from collections import defaultdict

import torch
from torch.utils.data import Dataset

from s3prl_interfaces.s3prl_compat import import_s3prl
from tests.tasks.parity import Logger


class Windows(Dataset):
    """Utterances by the length of their target; item i of a bucketed split is the window that begins at i."""

    def __init__(self, pairs, bucket_size):
        pairs = sorted(pairs, key=lambda pair: len(pair[1]), reverse=True)
        self.file_list, self.text = zip(*pairs, strict=True)
        self.bucket_size = bucket_size

    def __len__(self):
        return len(self.file_list)

    def __getitem__(self, index):
        pairs = list(zip(self.file_list, self.text, strict=True))
        if self.bucket_size == 1:
            return pairs[index]
        start = min(len(pairs) - self.bucket_size, index)  # negative where there are few utterances (D21)
        return pairs[start : start + self.bucket_size]


def load_s3prl(monkeypatch, corpus, cls):
    """S3PRL's expert module with a stand-in for the corpus."""
    module = import_s3prl("s3prl.downstream.ctc.expert")
    package = "s3prl.downstream.ctc.corpus"
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, f"{package}.{corpus}", types.ModuleType(corpus))
    setattr(sys.modules[f"{package}.{corpus}"], cls.__name__, cls)
    return module


def set_long(monkeypatch, samples):
    """Halve the windows of both above so many samples instead of 300000."""
    data = import_s3prl("s3prl.downstream.ctc.data")
    monkeypatch.setattr(data.collect_audio_batch, "__defaults__", (samples,))
    monkeypatch.setattr("downstream_tasks.windows.LONG", samples)


def keep_in_this_process(expert):
    """Give S3PRL's expert the number of workers that it took out of its config (D21)."""
    if hasattr(expert, "corpus"):
        expert.corpus["num_workers"] = 0


def same_weights(ours, theirs, scale=0.05):
    """Give both heads the same weights: those of ours, near the identity where a layer is square."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in ours.parameters():
            noise = scale * torch.randn(parameter.shape, generator=generator)
            square = parameter.dim() == 2 and parameter.size(0) == parameter.size(1)
            parameter.copy_(torch.eye(len(parameter)) + noise if square else noise)
    theirs.load_state_dict(ours.state_dict())


def features_of(labels, width, noise, generator, equal=False):
    """Features that state the tokens under noise: two frames of each token, then one of the blank.

    They need not be as many for each utterance, unless ``equal``: then the blank's frames fill up.
    """
    frames = max(map(len, labels)) * 3 + 2
    features = []
    for label in labels:
        path = [token for label_token in label for token in (label_token, label_token, 0)] + [0, 0]
        path += [0] * (frames - len(path)) if equal else []
        feature = noise * torch.randn(len(path), width, generator=generator)
        feature[torch.arange(len(path)), torch.tensor([int(token) for token in path])] += 4
        features.append(feature)
    return features


def run(expert, split, noise, width, step=1, equal=True, order_seed=0):
    """One pass over a split as a runner makes it: batch losses, what is logged, what is to be saved, the records."""
    torch.manual_seed(order_seed)
    generator = torch.Generator().manual_seed(1)
    records, logger, losses = defaultdict(list), Logger(), []
    keep_in_this_process(expert)
    expert.eval()
    with torch.no_grad():
        for batch, (_, labels, names) in enumerate(expert.get_dataloader(split)):
            features = features_of(labels, width, noise, generator, equal)
            losses.append(expert(split, features, labels, names, records=records, batch_id=batch))
    saved = expert.log_records(
        split, records=records, logger=logger, global_step=step, batch_ids=[], total_batch_num=len(losses)
    )
    return torch.stack(losses), logger.scalars, saved, records


def gradients(expert, features, labels):
    """Loss and gradients of one batch."""
    expert.eval()  # without dropout
    expert.zero_grad()
    loss = expert("train", features, labels, ["x"] * len(labels), records=defaultdict(list))
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in expert.named_parameters()}
