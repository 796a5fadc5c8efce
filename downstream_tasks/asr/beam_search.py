"""Beam search with a word lexicon and a KenLM language model, as S3PRL's ``decoder_type: kenlm``.

The search is flashlight's, as in S3PRL, but behind torchaudio's ``ctc_decoder``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from downstream_tasks.asr.text import BLANK, BOUNDARY
from s3prl_interfaces.errors import ConfigError, DataError, UserError

WHERE = "downstream_expert.datarc.decoder_args"


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The ``decoder_args`` block: S3PRL's keys."""

    decoder_type: str | None = None
    """``kenlm``: beam search, but never in training; None or ``None``: the likeliest character of each frame."""
    criterion: Literal["ctc"] = "ctc"
    nbest: int = 1
    """How many transcripts the search gives; the best is used."""
    beam: int = 5
    beam_threshold: float = 25.0
    """A hypothesis is dropped when its score is that much below the best."""
    kenlm_model: str | None = None
    """A word language model, as ARPA or KenLM's binary."""
    lexicon: str | None = None
    """Lines ``WORD W O R D |``: a word and the characters that it is spelt with."""
    lm_weight: float = 2.0
    word_score: float = -1.0
    unk_weight: Any = -math.inf
    """Score of a word that the model does not know; S3PRL's YAML has the string ``-math.inf``."""
    sil_weight: float = 0.0
    """Score of a word boundary."""


class BeamSearch:
    """Finds the best words of an utterance.

    Args:
        config: the options.
        symbols: that the log-probabilities are of.

    Raises:
        ConfigError: an option has no value, or one that cannot be.
        DataError: the model or the lexicon is missing or malformed.
        UserError: the extra ``beam`` is not installed.
    """

    def __init__(self, config: DecoderConfig, symbols: Sequence[str]) -> None:
        model, lexicon = (_path_of(config, key) for key in ("kenlm_model", "lexicon"))
        if min(config.beam, config.nbest) < 1:
            raise ConfigError(f"`{WHERE}`: beam {config.beam} and nbest {config.nbest} must be 1 or more.")
        unknown = _unk_weight(config.unk_weight)
        _check_lexicon(lexicon, symbols)
        try:
            from torchaudio.models.decoder import ctc_decoder
        except (ImportError, RuntimeError) as error:
            raise UserError("Beam search is not installed: pip install 's3prl-interfaces[beam]'") from error
        try:
            self.search = ctc_decoder(
                lexicon=str(lexicon),
                tokens=list(symbols),
                lm=str(model),
                nbest=config.nbest,
                beam_size=config.beam,
                beam_size_token=len(symbols),
                beam_threshold=config.beam_threshold,
                lm_weight=config.lm_weight,
                word_score=config.word_score,
                unk_score=unknown,
                sil_score=config.sil_weight,
                blank_token=symbols[BLANK],
                sil_token=BOUNDARY,
                unk_word="<unk>",
            )
        except RuntimeError as error:
            raise DataError(f"{model} is no language model that KenLM can read: {_last_line(error)}") from error

    def __call__(self, log_probs: Tensor) -> list[str] | None:
        """The best words.

        Args:
            log_probs: (time, symbols) float32.

        Returns:
            The words; None if the search ends without a hypothesis.
        """
        (hypotheses,) = self.search(log_probs.detach().float().cpu().contiguous().unsqueeze(0))
        return list(hypotheses[0].words) if hypotheses else None


def make_beam_search(config: DecoderConfig, symbols: Sequence[str]) -> BeamSearch | None:
    """The search that a config asks for, or None for none.

    Raises:
        ConfigError: there is no such decoder, and as :class:`BeamSearch`.
    """
    if config.decoder_type in (None, "None", "none", ""):
        return None
    if config.decoder_type != "kenlm":
        raise ConfigError(f"`{WHERE}.decoder_type` must be kenlm or None, but is {config.decoder_type!r}.")
    return BeamSearch(config, symbols)


def _path_of(config: DecoderConfig, key: str) -> Path:
    value = getattr(config, key)
    if not value:
        raise ConfigError(f"`{WHERE}.{key}` must be a file for decoder_type kenlm.")
    if not Path(value).is_file():
        raise DataError(f"{value} does not exist: `{WHERE}.{key}` must be a file for decoder_type kenlm.")
    return Path(value)


def _unk_weight(value: Any) -> float:
    """A number, or how Python spells one; S3PRL evaluates the string."""
    try:
        return float(str(value).replace("math.", "").replace(" ", ""))
    except ValueError as error:
        raise ConfigError(f"`{WHERE}.unk_weight` must be a number or -math.inf, but is {value!r}.") from error


def _check_lexicon(path: Path, symbols: Sequence[str]) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    words = 0
    for number, line in enumerate(lines, start=1):
        word, *spelling = line.split() or [""]
        if not word:
            continue
        words += 1
        if not spelling or not set(symbols).issuperset(spelling):
            raise DataError(
                f"{path}, line {number}: must be a word and its characters, such as `WORD W O R D {BOUNDARY}`, but is "
                f"{line!r}."
            )
    if not words:
        raise DataError(f"{path} has no word.")


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1]
