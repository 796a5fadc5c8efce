"""Speech recognition, against S3PRL's own ``asr`` and by itself."""

import csv
import logging
import math
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import editdistance
import numpy as np
import pandas
import pytest
import soundfile
import torch
import yaml
from torch.testing import assert_close

from downstream_tasks import asr
from downstream_tasks.asr.beam_search import BeamSearch, DecoderConfig, make_beam_search
from downstream_tasks.asr.dataset import groups_of, read_split, read_table
from downstream_tasks.asr.expert import DownstreamExpert
from downstream_tasks.asr.prepare import prepare
from downstream_tasks.asr.text import Characters, UnknownCharacterError, read_characters, words_of
from s3prl_interfaces.errors import ConfigError, DataError, UserError
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments
from s3prl_interfaces.runner import run as run_task
from s3prl_interfaces.runner.config import shipped_configs
from s3prl_interfaces.s3prl_compat import import_s3prl
from tests.tasks.parity import Logger

NOISE = 0.3
SETS = ("train-clean-100", "dev-clean", "test-clean")
SPLITS = {"train": "train-clean-100", "dev-clean": "dev-clean", "test-clean": "test-clean"}
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", *"|ETAONIHSRDLUMCWFGYPBVK'XJQZ"]
CLEAR = {"module": "RNN", "bidirection": False, "dim": [32], "dropout": [0.0]}
"""A layer that can be set to pass its input on."""


@pytest.fixture(scope="module")
def corpus(librispeech, tmp_path_factory):
    """The corpus with S3PRL's tables and its char.dict."""
    folder = tmp_path_factory.mktemp("asr") / "LibriSpeech"
    shutil.copytree(librispeech, folder)
    prepare(folder)
    (folder / "char.dict").write_text("".join(f"{letter} {1000 - n}\n" for n, letter in enumerate(SYMBOLS[4:])))
    return folder


@pytest.fixture
def copy(corpus, tmp_path):
    """One that a test may spoil, with nothing measured yet."""
    return Path(
        shutil.copytree(corpus, tmp_path / "copy", ignore=shutil.ignore_patterns(".s3prl_interfaces", "len_for_bucket"))
    )


@pytest.fixture
def s3prl_asr(monkeypatch):
    """S3PRL's expert; its audio is read by soundfile, since torchaudio's `load` needs another package (D2)."""
    dataset = import_s3prl("s3prl.downstream.asr.dataset").SequenceDataset

    def load_wav(self, path):
        return torch.from_numpy(soundfile.read(Path(self.libri_root) / path, dtype="float32")[0])

    monkeypatch.setattr(dataset, "_load_wav", load_wav)
    return import_s3prl("s3prl.downstream.asr.expert").DownstreamExpert


def config_of(corpus, rnns=None, **datarc):
    """S3PRL's block, with narrow layers and batches that do not divide the splits."""
    return {
        "datarc": {
            "train": ["train-clean-100"],
            "dev-clean": ["dev-clean"],
            "dev-other": ["dev-other"],
            "test-clean": ["test-clean"],
            "test-other": ["test-other"],
            "num_workers": 0,
            "train_batch_size": 32,
            "batch_size": 5,
            "eval_batch_size": 1,
            "libri_root": str(corpus),
            "bucket_file": str(corpus / "len_for_bucket"),
            "dict_path": str(corpus / "char.dict"),
            "zero_infinity": True,
            "decoder_args": {
                "decoder_type": "None",
                "nbest": 1,
                "criterion": "ctc",
                "beam": 5,
                "beam_threshold": 25,
                "kenlm_model": "/nowhere/4-gram.arpa",
                "lexicon": "/nowhere/librispeech_lexicon.lst",
                "lm_weight": 2,
                "word_score": -1,
                "unk_weight": "-math.inf",
                "sil_weight": 0,
            },
            **datarc,
        },
        "modelrc": {
            "project_dim": 32,
            "select": "RNNs",
            "Wav2Letter": {"total_rate": 320},
            "RNNs": {
                "total_rate": -1,
                "module": "LSTM",
                "bidirection": True,
                "dim": [8, 8],
                "dropout": [0.2, 0.2],
                "layer_norm": [False, False],
                "proj": [False, False],
                "sample_rate": [1, 1],
                "sample_style": "concat",
                **(rnns or {}),
            },
        },
    }


def clear_config(corpus, **datarc):
    block = config_of(corpus, CLEAR, **datarc)
    for key in ("layer_norm", "proj", "sample_rate"):
        block["modelrc"]["RNNs"][key] = block["modelrc"]["RNNs"][key][:1]
    return block


def make(cls, block, expdir, **options):
    expdir.mkdir(parents=True, exist_ok=True)
    expert = cls(upstream_dim=32, upstream_rate=320, downstream_expert=block, expdir=str(expdir), **options)
    return expert.eval()


def make_clear(cls, block, expdir):
    """An expert that writes down which of 32 features is the greatest at each frame."""
    expert = make(cls, block, expdir)
    layer = expert.model.rnns[0].layer
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.zero_()
        for weight in (expert.projector.weight, layer.weight_ih_l0, expert.model.linear.weight):
            weight.copy_(torch.eye(32))
        expert.model.linear.weight.mul_(10)
    return expert


@pytest.fixture
def both(corpus, tmp_path, s3prl_asr):
    """Our expert and S3PRL's, which transcribe what the features say."""
    block = clear_config(corpus)
    return [
        make_clear(cls, block, tmp_path / name) for cls, name in ((DownstreamExpert, "ours"), (s3prl_asr, "theirs"))
    ]


def features_of(targets, noise, generator):
    """Each target's symbols, two frames of each and one of blank, under noise."""
    features = []
    for target in targets:
        ids = torch.stack([torch.as_tensor(target), torch.as_tensor(target), torch.zeros(len(target))], dim=1)
        feature = torch.nn.functional.one_hot(ids.flatten().long(), 32).float()
        features.append(feature + noise * torch.randn(feature.shape, generator=generator))
    return features


def run(expert, split, noise, step):
    """One pass over a split as a runner makes it: batch losses, what is logged, what is to be saved."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    records, logger, losses = defaultdict(list), Logger(), []
    with torch.no_grad():
        for batch, (_, targets, names) in enumerate(expert.get_dataloader(split)):
            features = features_of(targets, noise, generator)
            losses.append(expert(split, features, targets, names, records=records, batch_id=batch))
    saved = expert.log_records(
        split, records=records, logger=logger, global_step=step, batch_ids=[], total_batch_num=len(losses)
    )
    return torch.stack(losses), logger.scalars, saved


# As S3PRL.


def test_checkpoints_load_both_ways(corpus, tmp_path, s3prl_asr):
    ours, theirs = (make(cls, config_of(corpus), tmp_path) for cls in (DownstreamExpert, s3prl_asr))
    shapes = [{name: value.shape for name, value in expert.state_dict().items()} for expert in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.best_score.item() == theirs.best_score.item() == 100
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("zero_infinity", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_loss_and_gradients_are_s3prls(corpus, tmp_path, s3prl_asr, training, zero_infinity):
    block = config_of(corpus, zero_infinity=zero_infinity)
    ours, theirs = (make(cls, block, tmp_path) for cls in (DownstreamExpert, s3prl_asr))
    theirs.load_state_dict(ours.state_dict())
    targets = [np.array([7, 5, 4, 2]), np.array([5, 5, 2]), np.array([6, 6, 6, 6, 6, 6, 2])]
    features = [torch.randn(frames, 32, generator=torch.Generator().manual_seed(frames)) for frames in (40, 30, 9)]
    losses, gradients = [], []
    for expert in (ours, theirs):
        expert.train(training)
        torch.manual_seed(2)  # of dropout
        losses.append(expert("train", features, targets, ["a", "b", "c"], records=defaultdict(list)))
        losses[-1].backward()
        gradients.append({name: parameter.grad for name, parameter in expert.named_parameters()})
    assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)
    assert losses[0].isfinite() == zero_infinity  # the third target is too long for its nine frames
    assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("split", SPLITS)
def test_losses_and_error_rates_are_s3prls(both, split, s3prls_order):
    (losses, scalars, _), (their_losses, their_scalars, _) = [run(expert, split, NOISE, 1) for expert in both]
    assert_close(losses, their_losses, atol=1e-5, rtol=1e-5)
    assert scalars.pop((f"asr/{split}-cer", 1)) > 0
    assert scalars == pytest.approx(their_scalars, abs=1e-5)
    assert set(scalars) == {(f"asr/{split}-{key}", 1) for key in ("loss", "uer", "wer")}
    assert 20 < scalars[f"asr/{split}-wer", 1] < 100
    assert 1 < scalars[f"asr/{split}-uer", 1] < 60


def test_without_noise_there_is_no_error(both):
    _, scalars, _ = run(both[0], "test-clean", 0.0, 1)
    assert {scalars[f"asr/test-clean-{key}", 1] for key in ("wer", "uer", "cer")} == {0}


def test_cer_is_of_the_characters_as_written(both, tmp_path):
    _, scalars, _ = run(both[0], "dev-clean", NOISE, 1)
    texts = [
        [line.split(" ", 1)[1] for line in (tmp_path / f"ours/dev-clean-noLM-{kind}.ark").read_text().splitlines()]
        for kind in ("hyp", "ref")
    ]
    edits = sum(editdistance.eval(hypothesis, reference) for hypothesis, reference in zip(*texts, strict=True))
    assert scalars["asr/dev-clean-cer", 1] == pytest.approx(100 * edits / sum(map(len, texts[1])))
    assert scalars["asr/dev-clean-cer", 1] != pytest.approx(scalars["asr/dev-clean-uer", 1])


def test_the_best_on_dev_clean_is_s3prls(both):
    assert [run(expert, "test-clean", 0.0, 9)[2] for expert in both] == [[], []]  # a best on test is none
    noises = (3.0, 0.3, 0.3, 0.4, 0.25, 0.0, 0.0)
    decisions = [[run(expert, "dev-clean", noise, step)[2] for step, noise in enumerate(noises)] for expert in both]
    assert decisions[0] == decisions[1]
    best = ["dev-clean-best.ckpt"]
    assert decisions[0] == [[], best, [], [], best, best, []]
    assert both[0].best_score.item() == 0


@pytest.mark.parametrize("references", [3, 7, 31, 35])
def test_a_tie_is_no_best(both, references):
    """What is kept as float32 is a little less (3, 7) or more (31, 35) than what was measured."""
    answers = []
    for expert in both:
        words = {"words": [["A"] * references], "true_words": [["B"] + ["A"] * (references - 1)]}
        theirs = {
            "pred_words": words["words"],
            "target_words": words["true_words"],
            "filenames": ["a"],
            "pred_tokens": [""],
        }
        theirs["target_tokens"] = [""]
        records = defaultdict(list, {**words, **theirs, "loss": [1.0], "name": ["a"]})
        answers.append(
            [
                expert.log_records("dev-clean", records, Logger(), step, batch_ids=[], total_batch_num=1)
                for step in (1, 2)
            ]
        )
    assert answers[0] == answers[1] == [["dev-clean-best.ckpt"], []]


@pytest.mark.parametrize("split", ["dev-clean", "test-clean"])
def test_transcripts_are_s3prls_and_each_utterance_is_there_once(both, corpus, split, tmp_path):
    for expert in both:
        run(expert, split, NOISE, 1)
    files = [f"{split}-noLM-hyp.ark", f"{split}-noLM-ref.ark"]
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == files
    for file in files:
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()
    said = dict(line.split(" ", 1) for line in (tmp_path / "ours" / files[1]).read_text().splitlines())
    assert said == transcripts(corpus, split)


def transcripts(corpus, part):
    lines = [line for path in corpus.glob(f"{part}/*/*/*.trans.txt") for line in path.read_text().splitlines()]
    return dict(line.split(" ", 1) for line in lines)


@pytest.mark.parametrize("bucket", [True, False])
@pytest.mark.parametrize("split", SPLITS)
def test_batches_are_s3prls(corpus, tmp_path, s3prl_asr, s3prls_order, split, bucket):
    block = config_of(corpus, eval_batch_size=2 if split == "train" else 1)
    own = config_of(corpus, **({} if bucket else {"bucket_file": None, "dict_path": None}))
    batches = []
    for cls, config in ((DownstreamExpert, own), (s3prl_asr, block)):
        expert = make(cls, config, tmp_path)
        torch.manual_seed(3)
        batches.append(list(expert.get_dataloader(split)))
    assert len(batches[0]) == len(batches[1]) > 1
    for (wavs, targets, names), (their_wavs, their_targets, their_names) in zip(*batches, strict=True):
        assert list(names) == their_names
        assert all(np.array_equal(*pair) for pair in zip(wavs, their_wavs, strict=True))
        assert all(np.array_equal(*pair) for pair in zip(targets, their_targets, strict=True))
    if split == "train":
        assert Counter(len(names) for *_, names in batches[0]) == {2: 4, 3: 4, 4: 1}


def test_epochs_are_shuffled_by_seed_and_epoch_alone(corpus, tmp_path):
    def names(seed, epoch):
        expert = make(DownstreamExpert, config_of(corpus), tmp_path, seed=seed)
        return [names for *_, names in expert.get_dataloader("train", epoch=epoch)]

    expert = make(DownstreamExpert, config_of(corpus), tmp_path)
    expert.get_dataloader("train")
    (read,) = expert.datasets.values()
    expert.get_dataloader("train", epoch=1)
    assert expert.datasets["train"] is read  # the corpus is read once
    assert names(1, 0) == names(1, 0)
    for other in (names(1, 1), names(2, 0)):
        assert other != names(1, 0)
        assert sorted(other) == sorted(names(1, 0))  # batches stay what they are


# Batches (D20).


@pytest.mark.parametrize(
    ("count", "size", "halve", "expected"),
    [
        (7, 3, True, [[0], [1, 2], [3], [4, 5], [6]]),
        (7, 3, False, [[0, 1, 2], [3, 4, 5], [6]]),
        (8, 4, True, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (6, 4, True, [[0, 1], [2, 3], [4, 5]]),
        (3, 1, True, [[0], [1], [2]]),
        (2, 5, True, [[0, 1]]),
        (0, 5, True, []),
    ],
)
def test_groups(count, size, halve, expected):
    assert groups_of([16000] * count, size, halve) == expected


def test_only_long_utterances_halve_a_batch():
    assert groups_of([2001, 1, 1, 1, 1, 1], 2, halve=True) == [[0], [1], [2, 3], [4, 5]]
    assert groups_of([2000, 1, 1, 1], 2, halve=True) == [[0, 1], [2, 3]]


def sizes_of(cls, block, expdir, split):
    return sorted(len(names) for *_, names in make(cls, block, expdir).get_dataloader(split))


def test_no_utterance_is_dropped(corpus, tmp_path, s3prl_asr):
    """D20: S3PRL drops a last batch of one."""
    block = config_of(corpus, batch_size=23, eval_batch_size=2)
    for split, ours, theirs in (("train", [1, 11, 12], [11, 12]), ("dev-clean", [1, 1, 1], [1, 1])):
        assert sizes_of(DownstreamExpert, block, tmp_path, split) == ours
        assert sizes_of(s3prl_asr, block, tmp_path, split) == theirs


def test_batches_can_have_the_size_that_the_config_says(corpus, tmp_path, s3prl_asr):
    """D20: S3PRL halves every batch, so 12 are 6; SUPERB's 32 are 16."""
    block = config_of(corpus, batch_size=12)
    assert sizes_of(DownstreamExpert, block, tmp_path, "train") == [6] * 4
    assert sizes_of(s3prl_asr, block, tmp_path, "train") == [6] * 4
    block["datarc"]["batch_rule"] = "plain"
    assert sizes_of(DownstreamExpert, block, tmp_path, "train") == [12] * 2
    expert = make(DownstreamExpert, block, tmp_path)
    assert expert.protocol == {"batch_rule": "plain", "eos_in_targets": True, "decoder": "greedy"}


def test_the_end_of_the_sentence_can_be_left_out_of_targets(corpus, tmp_path):
    targets = []
    for block in (config_of(corpus), config_of(corpus, eos_in_targets=False)):
        expert = make_clear(DownstreamExpert, {**block, "modelrc": clear_config(corpus)["modelrc"]}, tmp_path)
        targets.append([target for _, batch, _ in expert.get_dataloader("dev-clean") for target in batch])
        assert run(expert, "dev-clean", 0.0, 1)[1]["asr/dev-clean-uer", 1] == 0
    for one, other in zip(*targets, strict=True):
        assert one.tolist() == [*other.tolist(), 2]
        assert other[-1] == SYMBOLS.index("|")
    assert expert.protocol == {"batch_rule": "superb", "eos_in_targets": False, "decoder": "greedy"}


# Text.


def test_characters_are_superbs(corpus):
    dictionary = import_s3prl("s3prl.downstream.asr.dictionary").Dictionary.load(str(corpus / "char.dict"))
    assert Characters().symbols == read_characters(corpus / "char.dict").symbols == dictionary.symbols == SYMBOLS
    text = "it's  a Joke"
    line = " ".join(text.upper().replace("  ", "|").replace(" ", "|")) + " |"
    ids = dictionary.encode_line(line, line_tokenizer=str.split).tolist()
    assert [*Characters().encode(text), 2] == ids
    assert Characters().encode("") == [4]
    tokens = Characters().tokens([*ids, 0, 3])
    assert " ".join(tokens) == dictionary.string([*ids, 0, 3])
    assert words_of(tokens[:-1]) == ["IT'S", "A", "JOKE"]
    assert words_of(["|", "|", "A", "|", "|", "B"]) == ["A", "B"]


def test_an_unknown_character_is_named(copy, corpus, tmp_path, s3prl_asr):
    """D20: S3PRL gives it an id that the head has no output for."""
    block = config_of(copy, bucket_file=str(corpus / "len_for_bucket"))
    path, lines = first_transcript(copy, "dev-clean")
    path.write_text("\n".join([lines[0] + " CAFÉ", *lines[1:]]) + "\n")
    theirs = make(s3prl_asr, block, tmp_path)
    targets = [target for _, batch, _ in theirs.get_dataloader("dev-clean") for target in batch]
    assert max(map(max, targets)) == 32 == theirs.model.linear.out_features
    with pytest.raises(DataError, match=r"trans\.txt, line 1 has the character 'É', which the dictionary lacks"):
        make(DownstreamExpert, block, tmp_path).get_dataloader("dev-clean")
    with pytest.raises(UnknownCharacterError):
        Characters().encode("A1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"char\.dict cannot be read .*dict_path"),
        ("E 5\n|\n", r"line 2: must be `<symbol> <count>`, but is '\|'"),
        ("E five\n", "line 1: must be"),
        ("| 3\nE 2\nE 1\n", "line 3: 'E' is there already"),
        ("| 3\n<s> 2\n", "line 2: '<s>' is there already"),
        ("E 3\n", r"lacks the word boundary '\|'"),
    ],
)
def test_dictionaries_that_cannot_be_used(corpus, tmp_path, text, message):
    if text is not None:
        (tmp_path / "char.dict").write_text(text)
    with pytest.raises(DataError, match=message):
        make(DownstreamExpert, config_of(corpus, dict_path=str(tmp_path / "char.dict")), tmp_path)


def test_another_dictionary_changes_the_outputs(corpus, tmp_path):
    (tmp_path / "char.dict").write_text("| 9\nÉ 8\n")
    expert = make(DownstreamExpert, config_of(corpus, dict_path=str(tmp_path / "char.dict")), tmp_path)
    assert expert.model.linear.out_features == 6
    assert expert.characters.encode("é") == [5, 4]


# The corpus.


def first_transcript(corpus, part):
    path = sorted(corpus.glob(f"{part}/*/*/*.trans.txt"))[0]
    return path, path.read_text().splitlines()


def test_transcripts_and_audio_must_agree(copy, corpus, tmp_path, s3prl_asr):
    """S3PRL leaves out what has only one of them, without a word."""
    path, lines = first_transcript(copy, "train-clean-100")
    other = sorted(copy.glob("train-clean-100/*/*/*.trans.txt"))[1]
    name = lines[0].split()[0]
    path.write_text("".join(f"{line}\n" for line in lines[1:]))  # audio without transcript
    other.write_text(other.read_text() + f"{other.name.split('.')[0]}-9999 NOTHING\n")  # transcript without audio
    theirs = make(s3prl_asr, config_of(copy, bucket_file=str(corpus / "len_for_bucket")), tmp_path)
    assert len(theirs.get_dataloader("train").dataset.Y) == 23
    for bucket in (None, str(corpus / "len_for_bucket")):
        with pytest.raises(DataError) as caught:
            make(DownstreamExpert, config_of(copy, bucket_file=bucket), tmp_path).get_dataloader("train")
        assert f"{name}.flac has no transcript in train-clean-100/" in str(caught.value)
        assert "-9999: there is no audio" not in str(caught.value)
        assert f"line 2: there is no audio {other.name.split('.')[0]}-9999.flac" in str(caught.value)


@pytest.mark.parametrize("bucket", [True, False])
def test_audio_and_transcripts_without_each_other_can_be_left_out(copy, corpus, tmp_path, caplog, bucket):
    one, other, third = sorted(copy.glob("train-clean-100/*/*/*.trans.txt"))[:3]
    lines = one.read_text().splitlines()
    one.write_text("".join(f"{line}\n" for line in lines[1:]))
    gone = other.with_name(f"{other.read_text().split()[0]}.flac")
    gone.unlink()
    third.unlink()
    expected = {path.stem for path in flacs(corpus, "train-clean-100")}
    expected -= {lines[0].split()[0], gone.stem, *(path.stem for path in third.parent.glob("*.flac"))}
    block = config_of(copy, bucket_file=str(corpus / "len_for_bucket") if bucket else None, skip_bad_audio=True)
    with caplog.at_level(logging.WARNING):
        loader = make(DownstreamExpert, block, tmp_path).get_dataloader("train")
    assert sorted(name for *_, names in loader for name in names) == sorted(expected)
    (told,) = caplog.messages
    assert told.startswith(f"{24 - len(expected)} left out, as `skip_bad_audio` says: ")
    for phrase in (
        f"{lines[0].split()[0]}.flac has no transcript in {one.relative_to(copy)}",
        f"{other.relative_to(copy)}, line 1: there is no audio {gone.name}",
        f"{third.relative_to(copy)} does not exist",
    ):
        assert told.count(phrase) == 1
    caplog.clear()
    list(make(DownstreamExpert, block, tmp_path).get_dataloader("dev-clean"))
    assert not caplog.messages  # nothing is left out of a set that is whole
    block["datarc"]["skip_bad_audio"] = False
    with pytest.raises(DataError) as caught:
        make(DownstreamExpert, block, tmp_path).get_dataloader("train")
    assert f"{copy} is incomplete: {told.partition(': ')[2]} Unpack again" in str(caught.value)


@pytest.mark.parametrize("bucket", [True, False])
def test_what_is_left_must_be_right(copy, corpus, tmp_path, bucket):
    tables = str(corpus / "len_for_bucket") if bucket else None
    expert = make(DownstreamExpert, config_of(copy, bucket_file=tables, skip_bad_audio=True), tmp_path)
    path, lines = first_transcript(copy, "train-clean-100")
    path.write_text(f"{lines[0].split()[0]}\n")
    with pytest.raises(DataError, match=f"line 1 must be `<utterance> WORDS`, but is '{lines[0].split()[0]}'"):
        expert.get_dataloader("train")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"trans\.txt cannot be read \(.utf-8"):
        expert.get_dataloader("train")
    for transcript in copy.glob("dev-clean/*/*/*.trans.txt"):
        transcript.unlink()
    with pytest.raises(DataError, match=r"dev-clean has no utterance.*trans\.txt does not exist"):
        expert.get_dataloader("dev-clean")


def test_an_empty_chapter_is_told(copy, tmp_path):
    (copy / "dev-clean/1/2").mkdir(parents=True)
    (copy / "dev-clean/1/README").write_text("no chapter")
    with pytest.raises(DataError, match=r"incomplete: dev-clean/1/2/1-2\.trans\.txt does not exist\. Unpack"):
        make(DownstreamExpert, config_of(copy, bucket_file=None), tmp_path).get_dataloader("dev-clean")


def test_an_utterance_is_transcribed_once(copy, tmp_path):
    path, lines = first_transcript(copy, "dev-clean")
    path.write_text("\n".join([*lines, "", lines[0]]) + "\n")
    with pytest.raises(DataError, match=f"line {len(lines) + 2} transcribes {lines[0].split()[0]} once more"):
        make(DownstreamExpert, config_of(copy, bucket_file=None), tmp_path).get_dataloader("dev-clean")


def test_nothing_is_measured_before_the_transcripts_are_right(copy, tmp_path):
    spoil(flacs(copy, "dev-clean")[0], "corrupt")
    path, lines = first_transcript(copy, "dev-clean")
    path.write_text("\n".join([*lines, "1-2-3 MORE"]))
    with pytest.raises(DataError, match=r"there is no audio 1-2-3\.flac"):
        make(DownstreamExpert, config_of(copy, bucket_file=None), tmp_path).get_dataloader("dev-clean")


def test_lower_case_and_spaces_make_no_difference(copy, corpus, tmp_path):
    path, lines = first_transcript(copy, "dev-clean")
    path.write_text("\r\n".join(line.lower().replace(" ", "  ") for line in lines))
    texts = []
    for folder in (copy, corpus):
        dataset = (
            make(DownstreamExpert, config_of(folder, bucket_file=None), tmp_path).get_dataloader("dev-clean").dataset
        )
        texts.append([target.tolist() for target in targets_of(dataset)])
    assert texts[0] == texts[1]


def targets_of(dataset):
    return [dataset[draw, draw][1] for draw in range(len(dataset))]


def test_a_split_is_read_when_it_is_asked_for(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    expert = make(DownstreamExpert, config_of(tmp_path / "empty", bucket_file=None, dict_path=None), tmp_path)
    for split, message in (("train", "it has no folder train-clean-100"), ("dev-other", "it has no folder dev-other")):
        with pytest.raises(DataError, match=message):
            expert.get_dataloader(split)
    for split in ("dev", "test", "dev_clean"):
        with pytest.raises(KeyError):
            expert.get_dataloader(split)
    with pytest.raises(ConfigError, match=r"datarc\.dev-other` must name a set"):
        make(DownstreamExpert, config_of(corpus, **{"dev-other": []}), tmp_path).get_dataloader("dev-other")


def test_a_split_can_have_several_sets(corpus, tmp_path):
    block = config_of(corpus, **{"test-other": ["dev-clean", "test-clean"]}, bucket_file=None)
    expert = make(DownstreamExpert, block, tmp_path)
    loader = expert.get_dataloader("test-other")
    names = [name for _, _, names in loader for name in names]
    assert sorted(names) == sorted({**transcripts(corpus, "dev-clean"), **transcripts(corpus, "test-clean")})
    lengths = [len(wavs[0]) for wavs, *_ in loader]
    assert lengths == sorted(lengths, reverse=True)


def test_a_set_without_chapters(copy, tmp_path):
    shutil.rmtree(copy / "dev-clean")
    (copy / "dev-clean").mkdir()
    with pytest.raises(DataError, match="dev-clean has no utterance <speaker>/<chapter>/"):
        make(DownstreamExpert, config_of(copy, bucket_file=None), tmp_path).get_dataloader("dev-clean")


# Audio.


def flacs(corpus, part):
    return sorted(corpus.glob(f"{part}/*/*/*.flac"))


def spoil(path, kind):
    samples, _ = soundfile.read(path, dtype="float32")
    if kind == "corrupt":
        path.write_bytes(b"this is no audio")
    elif kind == "short":
        soundfile.write(path, samples[:399], 16000)
    elif kind == "rate":
        soundfile.write(path, samples[::2], 8000)
    elif kind == "stereo":
        soundfile.write(path, np.stack([samples, np.zeros_like(samples)], axis=1), 16000)


@pytest.mark.parametrize("bucket", [True, False])
@pytest.mark.parametrize(("kind", "message"), [("corrupt", "cannot be read"), ("short", "less than one frame")])
def test_audio_that_cannot_be_used(copy, corpus, tmp_path, caplog, kind, message, bucket):
    spoiled = flacs(copy, "dev-clean")[1]
    spoil(spoiled, kind)
    tables = str(corpus / "len_for_bucket") if bucket else None
    expert = make(DownstreamExpert, config_of(copy, bucket_file=tables), tmp_path)
    with pytest.raises(DataError, match=f"{spoiled.name}.* {message}"):
        list(expert.get_dataloader("dev-clean"))
    block = clear_config(copy, bucket_file=tables, skip_bad_audio=True, eval_batch_size=3)
    expert = make_clear(DownstreamExpert, block, tmp_path)
    with caplog.at_level(logging.WARNING):
        _, scalars, _ = run(expert, "dev-clean", 0.0, 1)
    assert scalars["asr/dev-clean-wer", 1] == 0
    assert f"Skipped, as `skip_bad_audio` says: Audio file {spoiled}" in caplog.text
    assert "dev-clean: 1 of 3 utterances were left out." in caplog.text
    kept = {line.split()[0] for line in (tmp_path / "dev-clean-noLM-hyp.ark").read_text().splitlines()}
    assert kept == {path.stem for path in flacs(copy, "dev-clean")} - {spoiled.stem}


def test_other_rates_and_channels_are_read(copy, tmp_path):
    slow, wide, _ = flacs(copy, "dev-clean")
    original = {path.stem: soundfile.read(path, dtype="float32")[0] for path in (slow, wide)}
    spoil(slow, "rate")
    spoil(wide, "stereo")
    expert = make(DownstreamExpert, config_of(copy, bucket_file=None), tmp_path)
    wavs = {names[0]: wavs[0] for wavs, _, names in expert.get_dataloader("dev-clean")}
    assert len(wavs[slow.stem]) == pytest.approx(len(original[slow.stem]), abs=1)
    assert_close(wavs[wide.stem], original[wide.stem] / 2)


def test_wav_files_are_read_too(copy, tmp_path):
    path = flacs(copy, "dev-clean")[0]
    samples, _ = soundfile.read(path, dtype="int16")
    soundfile.write(path.with_suffix(".wav"), samples, 16000, subtype="PCM_16")
    path.unlink()
    expert = make(DownstreamExpert, config_of(copy, bucket_file=None), tmp_path)
    assert path.stem in [names[0] for *_, names in expert.get_dataloader("dev-clean")]


# S3PRL's tables of lengths.


def test_tables_are_s3prls(corpus):
    for part in SETS:
        lines = (corpus / "len_for_bucket" / f"{part}.csv").read_text().splitlines()
        assert lines[0] == ",file_path,length,label"
        rows = list(csv.reader(lines[1:]))
        files = {path.relative_to(corpus).as_posix(): soundfile.info(path).frames for path in flacs(corpus, part)}
        assert [row[0] for row in rows] == [str(index) for index in range(len(files))]
        assert {row[1]: int(row[2]) for row in rows} == files
        assert [int(row[2]) for row in rows] == sorted(files.values(), reverse=True)
        # As S3PRL's script writes it with pandas.
        frame = pandas.DataFrame(
            {"file_path": [r[1] for r in rows], "length": [int(r[2]) for r in rows], "label": None}
        )
        assert frame.to_csv() == "\n".join(lines) + "\n"


def test_a_table_says_what_is_used_and_how_long_it_is(copy, corpus, tmp_path):
    table = read_table(corpus / "len_for_bucket/train-clean-100.csv")
    chosen = dict.fromkeys(list(table)[3:10:2], 0)
    rows = [f"{n},{file},{5000 + n},\n" for n, file in enumerate(chosen)]
    (copy / "tables").mkdir()
    (copy / "tables/train-clean-100.csv").write_text(",file_path,length,label\n" + "".join(rows))
    expert = make(DownstreamExpert, config_of(copy, bucket_file=str(copy / "tables")), tmp_path)
    utterances = expert.get_dataloader("train").dataset.dataset.utterances
    assert [utterance.file for utterance in utterances] == list(chosen)[::-1]
    assert [utterance.length for utterance in utterances] == [5003, 5002, 5001, 5000]


def test_what_a_table_leaves_out_is_told(copy, corpus, tmp_path, caplog):
    table = (corpus / "len_for_bucket/train-clean-100.csv").read_text().splitlines()
    path = flacs(copy, "train-clean-100")[0]
    (copy / "tables").mkdir()
    twin = path.with_name(f"{path.stem[:-4]}0099.flac")
    shutil.copy(path, twin)
    transcript = next(path.parent.glob("*.trans.txt"))
    transcript.write_text(transcript.read_text() + f"{twin.stem} ONCE MORE\n")
    (copy / "tables/train-clean-100.csv").write_text("\n".join(table) + "\n")
    expert = make(DownstreamExpert, config_of(copy, bucket_file=str(copy / "tables")), tmp_path)
    with caplog.at_level(logging.WARNING):
        loader = expert.get_dataloader("train")
    assert sum(len(names) for *_, names in loader) == 24
    assert caplog.messages == ["1 utterances of train-clean-100 are not in its table, and are not used."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"dev-clean\.csv cannot be read .*bucket_file.*prepare asr"),
        ("a,b\n1,2\n", r"dev-clean\.csv, line 2: needs a `file_path` and a `length`"),
        (",file_path,length,label\n0,dev-clean/1/2/1-2-0.flac,many,\n", "line 2: needs"),
        (",file_path,length,label\n", "lists no audio"),
        (",file_path,length,label\n0,dev-clean/1/2/1-2-0.flac,9,\n", r"1/2/1-2\.trans\.txt does not exist"),
    ],
)
def test_tables_that_cannot_be_used(corpus, tmp_path, text, message):
    if text is not None:
        (tmp_path / "dev-clean.csv").write_text(text)
    expert = make(DownstreamExpert, config_of(corpus, bucket_file=str(tmp_path)), tmp_path)
    with pytest.raises(DataError, match=message):
        expert.get_dataloader("dev-clean")


def test_a_file_of_the_table_must_be_there(copy, corpus, tmp_path):
    table = (corpus / "len_for_bucket/dev-clean.csv").read_text()
    chapter = Path(table.splitlines()[1].split(",")[1]).parent
    (tmp_path / "dev-clean.csv").write_text(table + f"9,{chapter}/gone.flac,5000,\n")
    expert = make(DownstreamExpert, config_of(copy, bucket_file=str(tmp_path)), tmp_path)
    with pytest.raises(DataError, match=r"gone\.flac is not there, but in the table of dev-clean"):
        expert.get_dataloader("dev-clean")
    block = config_of(copy, bucket_file=str(tmp_path), skip_bad_audio=True)
    assert len(make(DownstreamExpert, block, tmp_path).get_dataloader("dev-clean").dataset) == 3


# prepare.


def test_prepare_says_what_is_there(copy):
    shutil.copytree(copy / "dev-clean", copy / "dev-other")
    lines = prepare(copy)
    hours = sum(soundfile.info(path).frames for path in flacs(copy, "train-clean-100")) / 16000 / 3600
    assert lines[0] == f"train-clean-100: 24 utterances, {hours:.2f} hours"
    assert [line.split(":")[0] for line in lines[:4]] == [*SETS, "dev-other"]
    assert lines[-2:] == [
        f"  downstream_expert.datarc.libri_root: {copy}",
        f"  downstream_expert.datarc.bucket_file: {copy / 'len_for_bucket'}",
    ]
    tables = sorted(path.name for path in (copy / "len_for_bucket").iterdir())
    assert tables == sorted(f"{part}.csv" for part in (*SETS, "dev-other"))


def test_prepare_lists_everything_that_is_wrong(copy, tmp_path):
    shutil.rmtree(copy / "test-clean")
    spoil(flacs(copy, "dev-clean")[0], "corrupt")
    path, lines = first_transcript(copy, "train-clean-100")
    path.write_text(lines[0] + " 1\n")
    sorted(copy.glob("train-clean-100/*/*/*.trans.txt"))[1].unlink()
    with pytest.raises(DataError) as caught:
        prepare(copy)
    text = str(caught.value)
    assert "it has no folder test-clean" in text
    assert f"{flacs(copy, 'dev-clean')[0]} cannot be read" in text
    assert "line 1 has the character '1'" in text
    assert "trans.txt does not exist" in text
    assert text.count(";") == 3
    assert not (copy / "len_for_bucket").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no folder train-clean-100; it has no folder dev-clean; it has no folder test"):
        prepare(tmp_path / "empty")


def test_prepare_says_when_it_cannot_write(copy):
    (copy / "len_for_bucket").write_text("a file")
    with pytest.raises(DataError, match="len_for_bucket cannot be written"):
        prepare(copy)


# Use of a trained model.


def test_inference_adds_to_its_file(both, tmp_path):
    """S3PRL's file holds the last utterance alone."""
    texts = ["HELLO WORLD", "IT'S A", ""]
    for expert in both:
        answers = []
        for number, text in enumerate(texts):
            (features,) = features_of([np.array(Characters().encode(text))], 0.0, None)
            with torch.no_grad():
                answers += expert.inference([features], [f"file{number}"])
        assert answers == ([{"transcript": text} for text in texts] if expert is both[0] else texts)
    assert (tmp_path / "ours/inference.ark").read_text() == "file0 HELLO WORLD\nfile1 IT'S A\nfile2 \n"
    assert (tmp_path / "theirs/inference.ark").read_text() == "file2 \n"


def test_predict_writes_nothing(both, tmp_path):
    features = features_of([np.array(Characters().encode(text)) for text in ("A B", "LONGER")], 0.0, None)
    with torch.no_grad():
        assert both[0].predict(features) == [{"transcript": "A B"}, {"transcript": "LONGER"}]
    assert list((tmp_path / "ours").iterdir()) == []


def test_a_checkpoints_symbols_do_without_the_dictionary(corpus, tmp_path):
    (tmp_path / "char.dict").write_text("| 9\nÉ 8\n")
    block = config_of(corpus, dict_path=str(tmp_path / "char.dict"))
    state = make(DownstreamExpert, block, tmp_path).label_state()
    assert state == [*SYMBOLS[:5], "É"]
    assert type(state) is list
    (tmp_path / "char.dict").unlink()
    expert = make(DownstreamExpert, block, tmp_path, label_state=state)
    assert expert.model.linear.out_features == 6
    assert expert.characters.encode("é") == [5, 4]
    assert expert.label_state() == state
    expert.label_state().clear()
    assert expert.label_state() == state


# Beam search.

ARPA = r"""\data\
ngram 1=6
ngram 2=4

\1-grams:
-1.0	<unk>
0	<s>	-0.3
-1.0	</s>
-1.0	TO	-0.3
-1.0	TWO	-0.3
-1.0	GO	-0.3

\2-grams:
-0.1	<s> TWO
-3.0	<s> TO
-0.1	TWO GO
-0.2	GO </s>

\end\
"""
LEXICON = "TO\tT O |\nTWO\tT W O |\nGO\tG O |\n"


@pytest.fixture
def language(tmp_path):
    """A model after which TWO GO is far likelier than TO GO."""
    (tmp_path / "lm.arpa").write_text(ARPA)
    (tmp_path / "lexicon.txt").write_text(LEXICON)
    return {
        "decoder_type": "kenlm",
        "kenlm_model": str(tmp_path / "lm.arpa"),
        "lexicon": str(tmp_path / "lexicon.txt"),
    }


@pytest.fixture
def flashlight():
    pytest.importorskip("flashlight.lib.text.decoder", reason="needs the extra `beam`")


def nearly_two_go():
    """Log-probabilities after which TO GO is a little likelier than TWO GO: (9, 32)."""
    logits = torch.full((9, 32), -10.0)
    for frame, symbol in enumerate(["T", "<s>", "O", "|", "<s>", "G", "O", "|", "</s>"]):
        logits[frame, SYMBOLS.index(symbol)] = 1.0
    logits[1, SYMBOLS.index("W")] = 0.5
    return logits.log_softmax(dim=-1)


def test_the_language_model_changes_the_answer(flashlight, language):
    log_probs = nearly_two_go()
    assert words_of(Characters().tokens(log_probs.argmax(dim=-1).unique_consecutive().tolist())) == ["TO", "GO"]
    assert BeamSearch(DecoderConfig(**language), SYMBOLS)(log_probs) == ["TWO", "GO"]
    several = BeamSearch(DecoderConfig(**language, nbest=2), SYMBOLS).search(log_probs.unsqueeze(0))
    assert [hypothesis.words for hypothesis in several[0]] == [["TWO", "GO"], ["TO", "GO"]]
    without = DecoderConfig(**language, lm_weight=0.0)
    assert BeamSearch(without, SYMBOLS)(log_probs) == ["TO", "GO"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"word_score": 3.0},
        {"sil_weight": -4.0},
        {"lm_weight": 0.5, "beam": 2},
        {"beam": 50, "beam_threshold": 100.0},
        {"beam_threshold": 0.5},
        {"unk_weight": -1.0, "nbest": 3},
    ],
)
def test_transcripts_with_a_language_model_are_s3prls(flashlight, language, options):
    """Given the same options, on noise that every option has a say in."""
    expert = import_s3prl("s3prl.downstream.asr.expert")
    dictionary = import_s3prl("s3prl.downstream.asr.dictionary").Dictionary()
    for symbol in SYMBOLS[4:]:
        dictionary.add_symbol(symbol)
    config = DecoderConfig(**{**language, **options})
    theirs = expert.get_decoder(vars(config), dictionary)
    ours = make_beam_search(config, SYMBOLS)
    generator = torch.Generator().manual_seed(0)
    spoken = [SYMBOLS.index(symbol) for symbol in ("<s>", "|", "T", "W", "O", "G")]
    answers = []
    for _ in range(40):
        logits = torch.randn(12, 32, generator=generator)
        logits[:, spoken] += 4
        log_probs = logits.log_softmax(dim=-1)
        answers.append(ours(log_probs))
        assert answers[-1] == theirs.decode(log_probs.unsqueeze(0))[0][0]["words"]
    assert len(set(map(tuple, answers))) > 2


def test_nothing_is_read_or_decoded_until_training_is_logged(corpus, tmp_path, monkeypatch):
    """On a GPU every number that is read makes the host wait."""
    expert = make_clear(DownstreamExpert, clear_config(corpus), tmp_path / "run").train()
    records, target = defaultdict(list), np.array([*Characters().encode("to go"), 2])

    def wait(*_):
        raise AssertionError("a tensor was read")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__float__", "__bool__"):
            patch.setattr(torch.Tensor, name, wait)
        for name in ("a", "b"):
            loss = expert("train", [nearly_two_go()], [target], [name], records=records)
    assert torch.equal(records["loss"][1], loss)
    assert loss.grad_fn is not None
    assert not records["loss"][1].requires_grad
    assert "words" not in records
    logger = Logger()
    expert.log_records("train", records, logger, 1)
    assert records["words"] == [["TO", "GO"]] * 2
    assert logger.scalars["asr/train-wer", 1] == 0
    assert logger.scalars["asr/train-loss", 1] == pytest.approx(loss.item())


def test_the_language_model_is_not_used_in_training(flashlight, language, corpus, tmp_path):
    block = clear_config(corpus, decoder_args=language)
    expert = make_clear(DownstreamExpert, block, tmp_path / "run")
    features = [nearly_two_go()]
    assert expert.predict(features) == [{"transcript": "TWO GO"}]
    expert.train()
    assert expert.predict(features) == [{"transcript": "TO GO"}]
    expert.eval()
    records = defaultdict(list)
    target = np.array([*Characters().encode("two go"), 2])
    expert("dev-clean", features, [target], ["a"], records=records)
    assert (records["words"], records["tokens"]) == ([["TWO", "GO"]], [list("TO|GO|")])  # as S3PRL: UER is greedy's
    logger = Logger()
    expert.log_records("dev-clean", records, logger, 1)
    assert logger.scalars["asr/dev-clean-wer", 1] == 0 < logger.scalars["asr/dev-clean-uer", 1]
    assert (tmp_path / "run/dev-clean-LM-hyp.ark").read_text() == "a TWO GO\n"
    assert (tmp_path / "run/dev-clean-LM-ref.ark").exists()


def test_the_search_sees_an_utterances_own_frames(corpus, tmp_path):
    expert = make_clear(DownstreamExpert, clear_config(corpus), tmp_path)
    seen = []
    expert.beam_search = lambda log_probs: seen.append(log_probs) or ["WORD"]
    expert.predict([torch.zeros(7, 32), torch.zeros(4, 32)])
    assert [tuple(log_probs.shape) for log_probs in seen] == [(7, 32), (4, 32)]


def test_no_hypothesis_leaves_greedys(corpus, tmp_path):
    expert = make_clear(DownstreamExpert, clear_config(corpus), tmp_path)
    expert.beam_search = lambda log_probs: None
    assert expert.predict([nearly_two_go()]) == [{"transcript": "TO GO"}]


@pytest.mark.parametrize("value", ["-math.inf", "-inf", -math.inf, "- math.inf"])
def test_unk_weight_can_be_s3prls_string(flashlight, language, value):
    """S3PRL evaluates the string of its own config, and knows no `math` there."""
    with pytest.raises(NameError):
        import_s3prl("s3prl.downstream.asr.expert").get_decoder({**language, "unk_weight": "-math.inf"}, SYMBOLS)
    assert BeamSearch(DecoderConfig(**language, unk_weight=value), SYMBOLS)(nearly_two_go()) == ["TWO", "GO"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"decoder_type": "fairseqlm"}, ConfigError, "decoder_type` must be kenlm or None, but is 'fairseqlm'"),
        ({"kenlm_model": None}, ConfigError, "kenlm_model` must be a file"),
        ({"kenlm_model": "/nowhere/lm.arpa"}, DataError, "/nowhere/lm.arpa does not exist.*kenlm_model"),
        ({"lexicon": ""}, ConfigError, "lexicon` must be a file"),
        ({"lexicon": "/nowhere/l.txt"}, DataError, "/nowhere/l.txt does not exist.*lexicon"),
        ({"unk_weight": "print()"}, ConfigError, r"unk_weight` must be a number or -math.inf, but is 'print\(\)'"),
        ({"beam": 0}, ConfigError, "beam 0 and nbest 1 must be 1 or more"),
        ({"criterion": "asg"}, ConfigError, "criterion` must be one of ctc"),
        ({"beems": 3}, ConfigError, "Did you mean 'beam'"),
    ],
)
def test_decoders_that_cannot_be(corpus, language, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        make(DownstreamExpert, config_of(corpus, decoder_args={**language, **options}), tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TO\tT O |\nTWO\n", r"lexicon\.txt, line 2: must be a word and its characters"),
        ("TO\tt o |\n", "line 1: must be a word and its characters, such as `WORD W O R D |`"),
        ("\n", "has no word"),
    ],
)
def test_lexicons_that_cannot_be_used(language, text, message):
    Path(language["lexicon"]).write_text(text)
    with pytest.raises(DataError, match=message):
        make_beam_search(DecoderConfig(**language), SYMBOLS)


def test_a_model_that_is_none(flashlight, language):
    Path(language["kenlm_model"]).write_text("no model")
    with pytest.raises(DataError, match=r"lm\.arpa is no language model that KenLM can read: "):
        make_beam_search(DecoderConfig(**language), SYMBOLS)


def test_a_missing_extra_names_the_command(language, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio.models.decoder", None)
    with pytest.raises(UserError, match=r"pip install 's3prl-interfaces\[beam\]'"):
        make_beam_search(DecoderConfig(**language), SYMBOLS)
    assert make_beam_search(DecoderConfig(), SYMBOLS) is None


# Configs.


@pytest.mark.parametrize(
    ("datarc", "message"),
    [
        ({"dev_clean": ["dev-clean"]}, "Did you mean 'dev-clean'"),
        ({"train": "train-clean-100"}, r"datarc.train` must be a list"),
        ({"dev-clean": "dev-clean"}, r"datarc.dev-clean` must be a list"),
        ({"batch_size": 0}, "batch_size and eval_batch_size must be 1 or more"),
        ({"eval_batch_size": 0}, "batch_size and eval_batch_size must be 1 or more"),
        ({"batch_rule": "full"}, "batch_rule` must be one of superb, plain"),
    ],
)
def test_configs_that_cannot_be_used(corpus, tmp_path, datarc, message):
    with pytest.raises(ConfigError, match=message):
        make(DownstreamExpert, config_of(corpus, **datarc), tmp_path)


def test_the_shipped_config_is_superbs(corpus, tmp_path):
    config = yaml.safe_load((shipped_configs() / "asr.yaml").read_text())
    assert config["runner"] == {
        "total_steps": 200000,
        "gradient_clipping": 1,
        "gradient_accumulate_steps": 1,
        "log_step": 100,
        "eval_step": 2000,
        "save_step": 500,
        "max_keep": 1,
        "eval_dataloaders": ["dev-clean"],
    }
    assert config["optimizer"] == {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1.0e-4}
    assert config["specaug"] == {
        "adaptive": False,
        "adaptive_number_ratio": 0.04,
        "adaptive_size_ratio": 0.04,
        "max_n_time_masks": 20,
        "apply_time_warp": True,
        "apply_time_mask": True,
        "apply_freq_mask": True,
        "time_warp_window": 5,
        "time_mask_width_range": [0, 40],
        "freq_mask_width_range": [0, 50],
        "num_freq_mask": 4,
        "num_time_mask": 2,
    }
    block = config["downstream_expert"]
    block["datarc"]["libri_root"] = str(corpus)
    expert = DownstreamExpert(upstream_dim=4, upstream_rate=320, downstream_expert=block, expdir=str(tmp_path))
    # The rest is S3PRL's block, which states some keys that nothing reads.
    theirs = config_of(corpus)
    assert expert.sets == {split: theirs["datarc"][split] for split in expert.sets}
    assert (expert.data.batch_size, expert.data.eval_batch_size, expert.data.num_workers) == (32, 1, 12)
    assert expert.zero_infinity
    assert expert.protocol == {"batch_rule": "superb", "eos_in_targets": True, "decoder": "greedy"}
    options = dict(theirs["datarc"]["decoder_args"], decoder_type=None, kenlm_model=None, lexicon=None)
    assert vars(expert.data.decoder_args) == options
    head = sum(parameter.numel() for parameter in expert.model.parameters())
    assert round(head / 1e6, 2) == 42.04
    assert expert.projector.out_features == 1024
    assert [layer.dp.p for layer in expert.model.rnns] == [0.2, 0.2]


def test_a_run_says_what_it_scored(corpus, tmp_path):
    where = f"config.downstream_expert.datarc.libri_root={corpus}"
    run_task(
        RunArguments(
            mode="train",
            upstream=str(Path(asr.__file__).parents[2] / "scripts/demo_upstream.py") + ":build",
            downstream="asr",
            config=["configs/asr.yaml", "configs/mini/asr.yaml", "configs/mini/quick/asr.yaml"],
            override=f"{where},,config.runner.total_steps=2,,config.downstream_expert.modelrc.RNNs.dim=[8]",
            expdir=str(tmp_path / "run"),
            device="cpu",
        )
    )
    result = read_result(tmp_path / "run/results.json")
    assert result.task == "asr"
    assert result.protocol == {"batch_rule": "superb", "eos_in_targets": True, "decoder": "greedy"}
    assert (result.primary.name, result.primary.split, result.primary.higher_is_better) == ("wer", "test-clean", False)
    assert set(result.metrics) == {"dev-clean", "test-clean"}
    assert {path.name for path in (tmp_path / "run").glob("*.ark")} == {
        f"{split}-noLM-{kind}.ark" for split in ("dev-clean", "test-clean") for kind in ("hyp", "ref")
    }


def test_sets_are_measured_once_each(corpus, tmp_path, monkeypatch):
    """Lengths are kept by set, so that a split of two sets needs no measuring anew."""
    characters = Characters()
    for part in SETS:
        read_split(corpus, [part], characters)
    monkeypatch.setattr("downstream_tasks.lengths.samples_of", lambda path: pytest.fail(f"{path} was measured again"))
    assert len(read_split(corpus, list(SETS), characters)) == 30
