"""Make tiny_hubert from nothing: speech, clusters, and HuBERT's two rounds of masked prediction.

    python scripts/pretrain_tiny_hubert.py FOLDER [--recordings FOLDER_OF_AUDIO]

FOLDER is then an upstream: -u hf:FOLDER. Needs pip install 's3prl-interfaces[pretrain]'. A GPU is used if there is one.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from s3prl_interfaces.errors import ConfigError, UserError
from s3prl_interfaces.tiny_hubert.corpus import make_corpus
from s3prl_interfaces.tiny_hubert.network import layer_features, make_model, save
from s3prl_interfaces.tiny_hubert.pretraining import Round, train
from s3prl_interfaces.tiny_hubert.targets import cluster, mfcc

MIDDLE = 6  # the layer whose clusters are the second round's targets, as in HuBERT Base

logger = logging.getLogger(__name__)


def pretrain(options: argparse.Namespace) -> None:
    """Take all steps; the folder is written at the end, its log from the start."""
    if options.folder.exists() and (not options.folder.is_dir() or any(options.folder.iterdir())):
        raise ConfigError(f"{options.folder} is there already and not empty: name a new folder, or remove it.")
    if options.recordings is not None and not options.recordings.is_dir():
        raise ConfigError(f"--recordings {options.recordings}: there is no such folder.")
    if options.hours <= 0 or min(options.updates) < 1:
        raise ConfigError("--hours must be above 0, and so must both --updates.")
    options.folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger().addHandler(logging.FileHandler(options.folder / "pretraining.log", encoding="utf-8"))
    began = time.monotonic()
    first = Round(clusters=100, updates=options.updates[0], distorted=False)
    second = Round(clusters=200, updates=options.updates[1], distorted=True, learning_rate=1.2e-3)
    logger.info("Seed %d. First round: %s. Second round: %s.", options.seed, first, second)

    corpus = make_corpus(options.hours, options.recordings, options.seed)
    logger.info("%d utterances, %.1f hours, made in %.0f s", len(corpus), corpus.hours, time.monotonic() - began)
    torch.manual_seed(options.seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = make_model()
    targets = cluster(corpus, mfcc, first.clusters, options.seed, "MFCCs")
    train(model, corpus, targets, first, options.seed, "first round")
    # HuBERT's second round starts from fresh weights; here there is no time to learn the filters twice.
    targets = cluster(corpus, layer_features(model, MIDDLE), second.clusters, options.seed + 1, f"layer {MIDDLE}")
    train(model, corpus, targets, second, options.seed + 1, "second round")
    save(model, options.folder)
    logger.info("%s was written after %.0f s", options.folder, time.monotonic() - began)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns the exit code: 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--recordings", type=Path, help="audio files of recorded voices, added to the synthetic speech")
    parser.add_argument("--hours", type=float, default=6.0, help="of synthetic speech (%(default)s)")
    parser.add_argument(
        "--updates", type=int, nargs=2, default=(2500, 5000), metavar="N", help="of the two rounds (2500 5000)"
    )
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
