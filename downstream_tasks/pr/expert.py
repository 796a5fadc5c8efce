"""SUPERB's PR as S3PRL runs it (``s3prl/downstream/ctc`` with ``libriphone.yaml``)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from downstream_tasks.librispeech import read_sets
from downstream_tasks.pr.dataset import transcribe
from downstream_tasks.pr.phones import PHONES, read_lexicon, strip_stress
from downstream_tasks.score import Score
from downstream_tasks.text_expert import (
    SPLITS,
    CorpusConfig,
    TextConfig,
    TextExpert,
    TextExpertConfig,
    Transcribed,
    check_names,
)
from downstream_tasks.text_metrics import METRICS
from downstream_tasks.vocabulary import Vocabulary, read_tokens
from s3prl_interfaces.schema import read_block


@dataclass(frozen=True, kw_only=True)
class PhonesCorpusConfig(CorpusConfig):
    """The ``corpus`` block."""

    lexicon: tuple[str, ...]
    """Files that say how words are pronounced; the first pronunciation of a word counts."""


@dataclass(frozen=True, kw_only=True)
class PhonesTextConfig(TextConfig):
    """The ``text`` block."""

    stress: Literal["keep", "strip"] = "keep"
    """SUPERB: ``keep``, a vowel with another stress is another token and an error. Sounder: ``strip``, 39 phones, as
    most phone error rates are given; they are not comparable with SUPERB's."""


@dataclass(frozen=True, kw_only=True)
class ExpertConfig(TextExpertConfig):
    """The ``downstream_expert`` block."""

    corpus: PhonesCorpusConfig
    text: PhonesTextConfig


class DownstreamExpert(TextExpert):
    """Phoneme recognition on LibriSpeech.

    Args:
        upstream_dim: width of the features.
        upstream_rate: samples per frame.
        downstream_expert: the config's block, see :class:`ExpertConfig`.
        expdir: where predictions go.
        seed: of the order of the data.
        label_state: the phones, from a checkpoint: the corpus and the lexicon are then not read.

    Raises:
        ConfigError: a key that nothing reads, or a value that does not fit.
        DataError: the corpus or the lexicon is missing, incomplete or malformed.
    """

    score = Score("per", "test", higher_is_better=False)
    tag = "ctc-libriphone"
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
        check_names(config, "libriphone", "word")
        splits: dict[str, list[Transcribed]] = {}
        if label_state is None:
            tokens, splits = _read(config)
        else:
            tokens = Vocabulary(label_state, separator=" ")
        super().__init__(upstream_dim, upstream_rate, expdir, seed=seed, config=config, splits=splits, tokens=tokens)
        self.protocol["stress"] = config.text.stress

    def answer(self, text: str) -> dict[str, str]:
        """The phones."""
        return {"phonemes": text}


def _read(config: ExpertConfig) -> tuple[Vocabulary, dict[str, list[Transcribed]]]:
    corpus, text = config.corpus, config.text
    phones = read_tokens(Path(text.vocab_file)) if text.vocab_file else list(PHONES)
    lexicon = read_lexicon(map(Path, corpus.lexicon), phones)
    if text.stress == "strip":
        phones = list(dict.fromkeys(map(strip_stress, phones)))
        lexicon = {word: list(map(strip_stress, said)) for word, said in lexicon.items()}
    tokens = Vocabulary(phones, separator=" ")
    splits = {
        split: read_sets(Path(corpus.path), getattr(corpus, split), skip_bad_audio=corpus.skip_bad_audio)
        for split in SPLITS
    }
    return tokens, transcribe(splits, lexicon, tokens, eos=text.eos_in_targets)
