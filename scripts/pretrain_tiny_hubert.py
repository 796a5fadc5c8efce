"""Make tiny_hubert from nothing: speech, filters that hear it, clusters, and HuBERT's two rounds of masked prediction.

    python scripts/pretrain_tiny_hubert.py FOLDER [--recordings FOLDER_OF_AUDIO]

FOLDER is then an upstream: -u hf:FOLDER. Needs pip install 's3prl-interfaces[pretrain]'. A GPU is used if there is one.
"""

import argparse
import importlib.util
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from s3prl_interfaces.errors import ConfigError, UserError
from s3prl_interfaces.runner.device import choose_device
from s3prl_interfaces.tiny_hubert.corpus import make_corpus
from s3prl_interfaces.tiny_hubert.filters import FilterPlan, learn_filters
from s3prl_interfaces.tiny_hubert.network import layer_features, make_model, save
from s3prl_interfaces.tiny_hubert.pretraining import Round, train
from s3prl_interfaces.tiny_hubert.targets import cluster, mfcc

LEAST_HOURS = 0.02
"""Of speech, for a batch and for the clusters."""
UPDATES = (16000, 2500, 4500)
MIDDLE = 6  # the layer whose clusters are the second round's targets, as in HuBERT Base

logger = logging.getLogger(__name__)


def pretrain(options: argparse.Namespace) -> None:
    """Take all steps; the folder is written at the end, its log from the start."""
    check(options)
    options.folder.mkdir(parents=True, exist_ok=True)
    with logged_to(options.folder / "pretraining.log"):
        began = time.monotonic()
        filters, first, second = options.updates
        plans = FilterPlan(filters), Round(clusters=100, updates=first), Round(clusters=200, updates=second)
        logger.info("Seed %d. %s. First round: %s. Second round: %s.", options.seed, *plans)
        corpus = make_corpus(options.hours, options.recordings, options.seed)
        logger.info("%d utterances, %.1f hours, made in %.0f s", len(corpus), corpus.hours, time.monotonic() - began)
        torch.manual_seed(options.seed)
        model = make_model().to(choose_device("auto"))  # type: ignore[arg-type]  # transformers hides Module.to's types
        learn_filters(model, corpus, plans[0], options.seed)
        targets = cluster(corpus, mfcc, plans[1].clusters, options.seed, "MFCCs")
        train(model, corpus, targets, plans[1], options.seed, "first round")
        targets = cluster(corpus, layer_features(model, MIDDLE), plans[2].clusters, options.seed + 1, f"layer {MIDDLE}")
        # HuBERT's second round starts from fresh weights; here there is no time to learn all of it twice.
        train(model, corpus, targets, plans[2], options.seed + 1, "second round")
        save(model, options.folder)
        logger.info("Written after %.0f s", time.monotonic() - began)


def check(options: argparse.Namespace) -> None:
    """Refuse what would fail, or be lost, an hour later."""
    if options.folder.exists() and (not options.folder.is_dir() or any(options.folder.iterdir())):
        raise ConfigError(f"{options.folder} is there already and not empty: name a new folder, or remove it.")
    if options.recordings is not None and not options.recordings.is_dir():
        raise ConfigError(f"--recordings {options.recordings}: there is no such folder.")
    if not options.hours >= LEAST_HOURS:
        raise ConfigError(f"--hours must be {LEAST_HOURS} or more, not {options.hours}.")
    if min(options.updates) < 1:
        raise ConfigError("All three --updates must be above 0.")
    for module in ("babel", "sklearn"):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"{module} is not installed: pip install 's3prl-interfaces[pretrain]'")


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Write what is logged to a file too."""
    root, handler = logging.getLogger(), logging.FileHandler(path, encoding="utf-8")
    before = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns the exit code: 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--recordings", type=Path, help="audio files of recorded voices, added to the synthetic speech")
    parser.add_argument("--hours", type=float, default=6.0, help="of synthetic speech (%(default)s)")
    what = f"of the filters and of the two rounds {UPDATES}"
    parser.add_argument("--updates", type=int, nargs=3, default=UPDATES, metavar="N", help=what)
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn (%(default)s)")
    logging.basicConfig(format="%(message)s")
    try:
        pretrain(parser.parse_args(arguments))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
