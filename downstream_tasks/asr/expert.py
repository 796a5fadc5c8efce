"""SUPERB's ASR as S3PRL runs it (``s3prl/downstream/asr``): characters, CTC, greedy decoding or a language model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from downstream_tasks.asr.beam_search import DecoderConfig, make_beam_search
from downstream_tasks.asr.dataset import TranscribedDataset, groups_of, read_split
from downstream_tasks.asr.text import BLANK, SPECIALS, Characters, read_characters, words_of
from downstream_tasks.ctc import CTCExpert, CTCModelConfig, error_rate
from downstream_tasks.loading import Groups, ReadingConfig, generator_of, make_loader, tell_skipped
from downstream_tasks.records import mean
from downstream_tasks.score import Score
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.schema import read_block

SPLITS = ("train", "dev-clean", "dev-other", "test-clean", "test-other")


@dataclass(frozen=True, kw_only=True)
class DataConfig(ReadingConfig):
    """The ``datarc`` block. A split is a list of LibriSpeech's sets, and is read when it is first asked for."""

    libri_root: str
    """The folder that holds train-clean-100, dev-clean, test-clean, ..."""
    train: list[str] = field(default_factory=lambda: ["train-clean-100"])
    dev_clean: list[str] = field(default_factory=lambda: ["dev-clean"], metadata={"key": "dev-clean"})
    dev_other: list[str] = field(default_factory=lambda: ["dev-other"], metadata={"key": "dev-other"})
    test_clean: list[str] = field(default_factory=lambda: ["test-clean"], metadata={"key": "test-clean"})
    test_other: list[str] = field(default_factory=lambda: ["test-other"], metadata={"key": "test-other"})
    train_batch_size: Any = None
    """S3PRL's config states it; nothing reads it."""
    batch_size: int = 32
    """Of train, before ``batch_rule``."""
    eval_batch_size: int = 1
    bucket_file: str | None = None
    """The folder of S3PRL's tables of lengths, ``<set>.csv``; None measures the audio."""
    dict_path: str | None = None
    """S3PRL's char.dict; None takes SUPERB's characters."""
    zero_infinity: bool = True
    """A transcript that is too long for its frames has loss 0, not infinity."""
    decoder_args: DecoderConfig = field(default_factory=DecoderConfig)
    batch_rule: Literal["superb", "plain"] = "superb"
    """``superb``: a batch of ``batch_size`` utterances is halved, so that 32 are 16 in truth; a last batch that is not
    full stays. ``plain``: a batch has as many as ``batch_size`` says."""
    eos_in_targets: bool = True
    """True (SUPERB): CTC has to give ``</s>`` after the last word, which decoding removes. False: it has not to."""


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """The ``downstream_expert`` block."""

    datarc: DataConfig
    modelrc: CTCModelConfig


class DownstreamExpert(CTCExpert):
    """Speech recognition on LibriSpeech.

    Args:
        upstream_dim: width of the features.
        upstream_rate: samples per frame.
        downstream_expert: the config's block, see :class:`ExpertConfig`.
        expdir: where transcripts go.
        seed: of the order of the batches.
        label_state: the symbols, from a checkpoint: the dictionary is then not read.

    Attributes:
        protocol: the options by which SUPERB's protocol and a sounder way differ, with the values that are used.

    Raises:
        ConfigError: a key that nothing reads, or a value that does not fit.
        DataError: the dictionary, the language model or its lexicon is missing or malformed.
        UserError: the language model's extra is not installed.
    """

    score = Score("wer", "test-clean", higher_is_better=False)
    best_score: Tensor

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
        data = config.datarc
        if min(data.batch_size, data.eval_batch_size) < 1:
            raise ConfigError("`downstream_expert.datarc`: batch_size and eval_batch_size must be 1 or more.")
        if label_state is not None:
            characters = Characters(label_state[len(SPECIALS) :])
        else:
            characters = Characters() if data.dict_path is None else read_characters(Path(data.dict_path))
        super().__init__(
            upstream_dim,
            upstream_rate,
            config.modelrc,
            vocabulary=len(characters.symbols),
            blank=BLANK,
            zero_infinity=data.zero_infinity,
        )
        self.data = data
        self.characters = characters
        self.expdir = Path(expdir)
        self.seed = seed
        self.beam_search = make_beam_search(data.decoder_args, characters.symbols)
        self.protocol = {
            "batch_rule": data.batch_rule,
            "eos_in_targets": data.eos_in_targets,
            "decoder": "greedy" if self.beam_search is None else "kenlm",
        }
        self.sets = {split: getattr(data, split.replace("-", "_")) for split in SPLITS}
        self.datasets: dict[str, TranscribedDataset] = {}
        self.register_buffer("best_score", torch.full((1,), 100.0))

    def share_corpus(self, other: "DownstreamExpert") -> None:
        """Let an expert of the same config that was made from :meth:`label_state` use this one's corpus."""
        other.datasets = self.datasets

    def get_dataloader(self, split: str, epoch: int = 0) -> DataLoader:
        """Batches ``(wavs, targets, names)`` of one epoch of a split; ``train`` is shuffled by batches.

        Raises:
            KeyError: there is no such split.
            ConfigError: it has no set.
            DataError: a set of it is missing or malformed.
        """
        dataset = self._dataset(split)
        training = split == "train"
        groups = groups_of(
            [utterance.length for utterance in dataset.utterances],
            self.data.batch_size if training else self.data.eval_batch_size,
            halve=self.data.batch_rule == "superb",
        )
        return make_loader(
            dataset,
            Groups(groups, generator_of(self.seed, split, epoch) if training else None),
            self.data,
            seed=self.seed,
            split=split,
            epoch=epoch,
        )

    def _dataset(self, split: str) -> TranscribedDataset:
        sets = self.sets[split]
        if not sets:
            raise ConfigError(f"`downstream_expert.datarc.{split}` must name a set of LibriSpeech, but is empty.")
        if split not in self.datasets:
            root, bucket = Path(self.data.libri_root), self.data.bucket_file
            utterances = read_split(
                root, sets, self.characters, Path(bucket) if bucket else None, self.data.skip_bad_audio
            )
            self.datasets[split] = TranscribedDataset(utterances, self.characters, self.data.eos_in_targets)
        return self.datasets[split]

    def forward(
        self,
        split: str,
        features: Sequence[Tensor],
        targets: Sequence[Any],
        names: Sequence[str],
        records: dict[str, list[Any]],
        **_: Any,
    ) -> Tensor:
        """CTC loss of a batch.

        Args:
            split: which split the batch is of.
            features: one (frames, upstream_dim) tensor per utterance.
            targets: one (characters,) array of ids per utterance.
            names: of the utterances.
            records: gets the loss per batch, and per utterance its name and what was said, as symbols and as words,
                in truth and as transcribed.

        Returns:
            A scalar.
        """
        log_probs, lengths = self.log_probs(features)
        targets = [torch.as_tensor(target) for target in targets]  # a checkpoint takes tensors
        loss = self.loss(log_probs, lengths, targets)
        records["loss"].append(loss.detach())
        records["name"] += names
        if split == "train":  # decoded where it is logged
            records["heard"].append((log_probs.detach().argmax(dim=-1), lengths, targets))
        else:
            self._transcribe(records, *self._decode(log_probs, lengths), targets)
        return loss

    def _transcribe(
        self, records: dict[str, list[Any]], tokens: list[list[str]], words: list[list[str]], targets: Sequence[Any]
    ) -> None:
        """Record what was transcribed of utterances, and what was said."""
        true_tokens = [self.characters.tokens(target.tolist()) for target in targets]
        records["tokens"] += tokens
        records["words"] += words
        records["true_tokens"] += true_tokens
        records["true_words"] += map(words_of, true_tokens)

    def _greedy_texts(self, likeliest: Tensor, lengths: Tensor) -> tuple[list[list[str]], list[list[str]]]:
        """Symbols of each utterance, and its words."""
        tokens = [self.characters.tokens(ids) for ids in self.greedy(likeliest, lengths)]
        return tokens, [words_of(symbols) for symbols in tokens]

    def _decode(self, log_probs: Tensor, lengths: Tensor) -> tuple[list[list[str]], list[list[str]]]:
        """Symbols of each utterance, greedily; and its words, of the language model if there is one."""
        tokens, words = self._greedy_texts(log_probs.detach().argmax(dim=-1), lengths)
        if self.beam_search is not None and not self.training:
            for index, length in enumerate(lengths.tolist()):
                found = self.beam_search(log_probs[index, :length])
                words[index] = words[index] if found is None else found
        return tokens, words

    def log_records(
        self, split: str, records: dict[str, list[Any]], logger: Any, global_step: int, **_: Any
    ) -> list[str]:
        """Log loss and error rates in percent; outside training write ``<split>-noLM-hyp.ark`` and ``-ref.ark``.

        ``wer`` is of words, ``uer`` of the symbols of greedy decoding, boundaries included (both as S3PRL), and
        ``cer`` of the characters of the words with a space between.

        Returns:
            ``["dev-clean-best.ckpt"]`` when the WER on dev-clean is strictly the lowest so far, else nothing.
        """
        for likeliest, lengths, targets in records.pop("heard", []):
            self._transcribe(records, *self._greedy_texts(likeliest, lengths), targets)
        spelt = [[" ".join(words) for words in records[key]] for key in ("words", "true_words")]
        wer = 100 * error_rate(records["words"], records["true_words"])
        values = {
            "loss": mean(records["loss"]),
            "uer": 100 * error_rate(records["tokens"], records["true_tokens"]),
            "wer": wer,
            "cer": 100 * error_rate(*spelt),
        }
        for key, value in values.items():
            logger.add_scalar(f"asr/{split}-{key}", value, global_step=global_step)
        if split == "train":
            return []
        tell_skipped(split, len(records["name"]), len(self._dataset(split)))
        decoder = "noLM" if self.beam_search is None else "LM"
        for kind, lines in zip(("hyp", "ref"), spelt, strict=True):
            self._write(f"{split}-{decoder}-{kind}.ark", records["name"], lines)
        # As float32, which the buffer has: a tie is one there, too.
        if split != "dev-clean" or not torch.tensor(wer) < self.best_score:
            return []
        self.best_score.fill_(wer)
        return ["dev-clean-best.ckpt"]

    def predict(self, features: Sequence[Tensor]) -> list[dict[str, str]]:
        """Transcripts of utterances: (frames, upstream_dim) each."""
        _, words = self._decode(*self.log_probs(features))
        return [{"transcript": " ".join(spoken)} for spoken in words]

    def inference(self, features: Sequence[Tensor], names: Sequence[str]) -> list[dict[str, str]]:
        """As :meth:`predict`; the transcripts are added to ``inference.ark``, which S3PRL writes anew each time."""
        answers = self.predict(features)
        self._write("inference.ark", names, [answer["transcript"] for answer in answers], mode="a")
        return answers

    def label_state(self) -> list[str]:
        """All symbols by id, for checkpoints: given to the constructor, it does without the dictionary."""
        return list(self.characters.symbols)

    def _write(self, file: str, names: Sequence[str], texts: Sequence[str], mode: str = "w") -> None:
        with (self.expdir / file).open(mode, encoding="utf-8") as handle:
            handle.writelines(f"{name} {text}\n" for name, text in zip(names, texts, strict=True))
