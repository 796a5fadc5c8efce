"""SUPERB's SF as S3PRL runs it (``s3prl/downstream/ctc`` with ``snips.yaml``): requests with their slots as text."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from downstream_tasks.score import Score
from downstream_tasks.sf.dataset import SPEAKERS, TRANSCRIPTS, read_lines, read_split
from downstream_tasks.sf.metrics import METRICS, find_slots, without_tags
from downstream_tasks.sf.slots import CHARACTERS, SlotVocabulary, read_slots
from downstream_tasks.text_expert import (
    SPLITS,
    CorpusConfig,
    TextConfig,
    TextExpert,
    TextExpertConfig,
    Transcribed,
    check_names,
)
from downstream_tasks.vocabulary import Vocabulary, read_tokens
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.schema import read_block


@dataclass(frozen=True, kw_only=True)
class SlotsCorpusConfig(CorpusConfig):
    """The ``corpus`` block."""

    train_speakers: tuple[str, ...] = SPEAKERS["train"]
    """What the names of the utterances that are read in folder ``train`` begin with."""
    valid_speakers: tuple[str, ...] = SPEAKERS["valid"]
    test_speakers: tuple[str, ...] = SPEAKERS["test"]

    def speakers_of(self, split: str) -> tuple[str, ...]:
        """The speakers of a split: S3PRL names the key by the first of the split's folders.

        Raises:
            ConfigError: there is no such key, or it names nobody.
        """
        folders: tuple[str, ...] = getattr(self, split)
        if not folders or folders[0] not in SPEAKERS:
            raise ConfigError(
                f"`downstream_expert.corpus.{split}` must begin with one of the folders {', '.join(SPEAKERS)}, for "
                f"which there is a list of speakers (`train_speakers`, ...), but is {list(folders)}."
            )
        speakers = getattr(self, f"{folders[0]}_speakers")
        if not speakers:
            raise ConfigError(f"`downstream_expert.corpus.{folders[0]}_speakers` must name a speaker.")
        return speakers


@dataclass(frozen=True, kw_only=True)
class SlotsTextConfig(TextConfig):
    """The ``text`` block."""

    slots_file: str | None = None
    """Audio SNIPS' slots.txt; None: the one in ``corpus.path``."""


@dataclass(frozen=True, kw_only=True)
class ExpertConfig(TextExpertConfig):
    """The ``downstream_expert`` block."""

    corpus: SlotsCorpusConfig
    text: SlotsTextConfig


class DownstreamExpert(TextExpert):
    """Slot filling on Audio SNIPS.

    Args:
        upstream_dim: width of the features.
        upstream_rate: samples per frame.
        downstream_expert: the config's block, see :class:`ExpertConfig`.
        expdir: where predictions go.
        seed: of the order of the data.
        label_state: characters and tags, from a checkpoint: the corpus is then not read.

    Raises:
        ConfigError: a key that nothing reads, or a value that does not fit.
        DataError: the corpus, its transcripts or its slots are missing or malformed.
    """

    score = Score("slot_type_f1", "test", higher_is_better=True)
    tag = "ctc-snips"
    metrics = METRICS

    def __init__(
        self,
        upstream_dim: int,
        upstream_rate: int,
        downstream_expert: dict[str, Any],
        expdir: str,
        seed: int = 1337,
        label_state: list[str] | None = None,
        **_: Any,
    ) -> None:
        config = read_block(ExpertConfig, downstream_expert, "downstream_expert")
        check_names(config, "snips", "character-slot")
        splits: dict[str, list[Transcribed]] = {}
        if label_state is None:
            tokens, splits = _read(config)
        else:
            tokens = Vocabulary(label_state, separator="")
        super().__init__(upstream_dim, upstream_rate, expdir, seed=seed, config=config, splits=splits, tokens=tokens)

    def answer(self, text: str) -> dict[str, str]:
        """The words, and the slots as ``type=value; type=value``."""
        slots = "; ".join(f"{slot}={without_tags(value)}" for slot, value in find_slots(text))
        return {"transcript": re.sub(" +", " ", without_tags(text)).strip(), "slots": slots}


def _read(config: ExpertConfig) -> tuple[Vocabulary, dict[str, list[Transcribed]]]:
    corpus, text = config.corpus, config.text
    root = Path(corpus.path)
    speakers = {split: corpus.speakers_of(split) for split in SPLITS}
    characters = read_tokens(Path(text.vocab_file)) if text.vocab_file else CHARACTERS
    tokens = SlotVocabulary(characters, read_slots(Path(text.slots_file or root / "slots.txt")))
    lines = read_lines(root / TRANSCRIPTS)
    splits = {
        split: read_split(
            root,
            getattr(corpus, split),
            names,
            lines,
            tokens,
            eos=text.eos_in_targets,
            skip_bad_audio=corpus.skip_bad_audio,
        )
        for split, names in speakers.items()
    }
    return tokens, splits
