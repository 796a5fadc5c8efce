"""Phoneme recognition, against S3PRL's own ``ctc`` with ``libriphone.yaml`` and by itself."""

import copy
import logging
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torch.testing import assert_close

from downstream_tasks import text_expert, windows
from downstream_tasks.librispeech import read_sets
from downstream_tasks.pr.expert import DownstreamExpert
from downstream_tasks.pr.phones import PHONES, read_lexicon
from downstream_tasks.pr.prepare import prepare
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.runner.config import shipped_configs
from s3prl_interfaces.s3prl_compat import import_s3prl
from tests.tasks.ctc_parity import (
    Windows,
    features_of,
    gradients,
    keep_in_this_process,
    load_s3prl,
    run,
    same_weights,
    set_long,
)
from tests.tasks.parity import Logger

SPLITS = ("train", "dev", "test")
VOWELS = ["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"]
CONSONANTS = [*"BDFGKLMNPRSTVWYZ", "CH", "DH", "HH", "JH", "NG", "SH", "TH", "ZH"]
TOKENS = ["SIL", "SPN", *sorted(CONSONANTS + [vowel + digit for vowel in VOWELS for digit in "012"])]
WIDTH = 74

# S3PRL's libriphone.yaml.
S3PRLS = {
    "corpus": {
        "name": "libriphone",
        "path": "?",
        "lexicon": ["?"],
        "train": ["train-clean-100"],
        "dev": ["dev-clean"],
        "test": ["test-clean"],
        "bucketing": True,
        "batch_size": 16,
        "num_workers": 24,
    },
    "text": {"mode": "word", "vocab_file": "?"},
    "model": {
        "project_dim": 256,
        "zero_infinity": True,
        "select": "FrameLevel",
        "Wav2Letter": {"total_rate": 320},
        "RNNs": {
            "total_rate": 320,
            "module": "LSTM",
            "bidirection": True,
            "dim": [1024, 1024, 1024],
            "dropout": [0.2, 0.2, 0.2],
            "layer_norm": [True, True, True],
            "proj": [True, True, True],
            "sample_rate": [1, 1, 1],
            "sample_style": "concat",
        },
    },
    "save_best_on": ["dev"],
    "metric_higher_better": False,
    "metric": ["per"],
}


class LibriPhoneDataset(Windows):
    """S3PRL's rule: phones of the words as the first of the lexicon's lines has them, in one text for the tokenizer."""

    made = 0

    def __init__(self, split, tokenizer, bucket_size, path, lexicon, **_):
        type(self).made += 1
        phones = {}
        for file in lexicon:
            for line in Path(file).read_text().splitlines():
                word, *said = line.split()
                phones.setdefault(word, said)
        pairs = []
        for file in sorted(file for name in split for file in Path(path, name).rglob("*.flac")):
            transcript = file.parent / f"{file.stem.rpartition('-')[0]}.trans.txt"
            texts = dict(line.split(" ", 1) for line in transcript.read_text().splitlines())
            said = [phone for word in texts[file.stem].split() for phone in phones[word]]
            pairs.append((file, tokenizer.encode(" ".join(said))))
        super().__init__(pairs, bucket_size)


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "phoneme.txt"
    path.write_text("\n".join(TOKENS))
    return path


def config_of(corpus, vocab_file=None, text=(), model=(), **keys):
    block = copy.deepcopy(S3PRLS)
    block["corpus"].update(
        {"path": str(corpus), "lexicon": [str(corpus / "lexicon.txt")], "batch_size": 5, "num_workers": 0, **keys}
    )
    block["text"].update(vocab_file=None if vocab_file is None else str(vocab_file), **dict(text))
    block["model"].update({"project_dim": WIDTH, **dict(model)})
    return block


def build(cls, block, expdir, width=WIDTH, **keywords):
    expdir.mkdir(parents=True, exist_ok=True)
    # S3PRL takes keys out of the block.
    keywords = {"downstream_expert": copy.deepcopy(block), "expdir": str(expdir), **keywords}
    return cls(upstream_dim=width, upstream_rate=320, **keywords)


@pytest.fixture
def s3prl(monkeypatch):
    return load_s3prl(monkeypatch, "libriphone", LibriPhoneDataset)


@pytest.fixture
def both(librispeech, tmp_path, vocab_file, s3prl):
    """Our expert and S3PRL's with the same weights."""
    block = config_of(librispeech, vocab_file)
    ours = build(DownstreamExpert, block, tmp_path / "ours")
    theirs = build(s3prl.DownstreamExpert, block, tmp_path / "theirs")
    same_weights(ours, theirs)
    return ours, theirs


def make(root, texts, samples=800, sets=("train-clean-100", "dev-clean", "test-clean")):
    """A corpus by hand: in each set one speaker, who says the texts; lengths may differ."""
    lengths = samples if isinstance(samples, list) else [samples] * len(texts)
    for number, name in enumerate(sets):
        folder = root / name / f"{number}" / "1"
        folder.mkdir(parents=True)
        lines = []
        for index, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            soundfile.write(folder / f"{number}-1-{index:04}.flac", np.zeros(length, dtype=np.int16), 16000)
            lines.append(f"{number}-1-{index:04} {text}\n")
        (folder / f"{number}-1.trans.txt").write_text("".join(lines))
    (root / "lexicon.txt").write_text("A AH0\nCAT\tK AE1 T\nCAT\tK AE2 T\nSAT  S AE1 T\n")
    return root


# Against S3PRL.


def test_tokens_are_s3prls(both):
    ours, theirs = both
    assert tuple(TOKENS) == PHONES
    assert theirs.tokenizer._vocab_list == ours.tokens.tokens
    assert len(ours.tokens) == 74
    assert (ours.tokens.ids["SIL"], ours.tokens.ids["AA0"], ours.tokens.ids["ZH"]) == (3, 5, 73)


def test_parameters_have_s3prls_names(both):
    ours, theirs = both
    assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("bucketing", [True, False])
@pytest.mark.parametrize("long", [40000, 300000])
def test_batches_are_s3prls(
    librispeech, tmp_path, vocab_file, s3prl, s3prls_order, monkeypatch, split, bucketing, long
):
    set_long(monkeypatch, long)
    block = config_of(librispeech, vocab_file, bucketing=bucketing)
    batches = []
    for expert in [build(cls, block, tmp_path) for cls in (DownstreamExpert, s3prl.DownstreamExpert)]:
        torch.manual_seed(3)
        batches.append(list(expert.get_dataloader(split)))
    assert len(batches[0]) == len(batches[1]) > 1
    for (wavs, targets, names), (their_wavs, their_targets, their_names) in zip(*batches, strict=True):
        assert names == their_names
        assert all(np.array_equal(one, other) for one, other in zip(wavs, their_wavs, strict=True))
        assert all(np.array_equal(one, other) for one, other in zip(targets, their_targets, strict=True))
        assert [len(wav) for wav in wavs] == sorted((len(wav) for wav in wavs), reverse=True)
    sizes = {len(names) for *_, names in batches[0]}
    if split != "train":
        assert sizes == {1}
    elif bucketing:
        assert sizes == ({2, 5} if long == 40000 else {5})


@pytest.mark.parametrize("select", ["FrameLevel", "RNNs"])
def test_loss_and_gradients_are_s3prls(librispeech, tmp_path, vocab_file, s3prl, select):
    rnns = {**S3PRLS["model"]["RNNs"], "dim": [8, 8, 8]}
    block = config_of(librispeech, vocab_file, model={"select": select, "RNNs": rnns})
    ours, theirs = (build(cls, block, tmp_path) for cls in (DownstreamExpert, s3prl.DownstreamExpert))
    same_weights(ours, theirs)
    _, targets, _ = next(iter(ours.get_dataloader("train")))
    features = features_of(targets, WIDTH, 1.0, torch.Generator().manual_seed(0))
    assert len({len(feature) for feature in features}) > 1
    results = [gradients(expert, features, targets) for expert in (ours, theirs)]
    assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for name, gradient in results[0][1].items():
        assert_close(gradient, results[1][1][name], atol=1e-6, rtol=1e-4)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("split", SPLITS)
def test_loss_and_metrics_are_s3prls(both, split, s3prls_order):
    results = [run(expert, split, 1.0, WIDTH) for expert in both]
    assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], abs=1e-5)
    assert results[0][1].keys() == {(f"ctc-libriphone/{split}-{key}", 1) for key in ("loss", "per")}
    assert 0.01 < results[0][1][f"ctc-libriphone/{split}-per", 1] < 0.9


def test_padding_is_not_transcribed(both):
    """S3PRL also decodes what is padded, which only shows in training: the other splits have one utterance a batch."""
    features = [10 * torch.eye(WIDTH)[[5, 0, 6]], 10 * torch.eye(WIDTH)[[7]]]
    hypotheses = []
    for expert in both:
        with torch.no_grad():
            expert.projector.weight.copy_(torch.eye(WIDTH))
            expert.projector.bias.zero_()[20] = 1  # what a frame of zeros says
            expert.model.linear.weight.copy_(torch.eye(WIDTH))
            expert.model.linear.bias.zero_()
        records = defaultdict(list)
        expert("train", features, [np.array([5, 6, 1]), np.array([7, 1])], ["a", "b"], records=records)
        expert.log_records("train", records=records, logger=Logger(), global_step=1, batch_ids=[0], total_batch_num=1)
        hypotheses.append(records["hypothesis"])
    assert hypotheses == [
        [f"{TOKENS[2]} {TOKENS[3]}", TOKENS[4]],
        [f"{TOKENS[2]} {TOKENS[3]}", f"{TOKENS[4]} {TOKENS[17]}"],
    ]


def test_an_eos_on_the_way_is_passed_over(both):
    """As S3PRL: it ends a reference, but is only left out of a hypothesis."""
    for expert in both:
        with torch.no_grad():
            for layer in (expert.projector, expert.model.linear):
                layer.weight.copy_(torch.eye(WIDTH))
                layer.bias.zero_()
        records = defaultdict(list)
        expert("dev", [10 * torch.eye(WIDTH)[[5, 5, 1, 5, 2, 0]]], [np.array([5, 1, 6])], ["a"], records=records)
        assert records["hypothesis"] == ["AA0 AA0 <unk>"]
        assert records["groundtruth"] == ["AA0"]


def test_the_best_on_dev_is_s3prls(both):
    noises = (2.5, 2.0, 2.0, 1.0, 2.5)
    saved = [[run(expert, "dev", noise, WIDTH, step)[2] for step, noise in enumerate(noises)] for expert in both]
    assert saved[0] == saved[1] == [["dev-best.ckpt"], ["dev-best.ckpt"], [], ["dev-best.ckpt"], []]
    assert [run(expert, "test", 0.0, WIDTH)[2] for expert in both] == [[], []]
    assert [run(expert, "train", 0.0, WIDTH)[2] for expert in both] == [[], []]
    assert_close(both[0].best_score, both[1].best_score)


def test_the_best_score_stays_where_it_is(both):
    """D25: S3PRL puts a tensor of the CPU in place of the buffer."""
    ours, theirs = both
    buffers = [expert.best_score for expert in both]
    for expert in both:
        run(expert, "dev", 0.3, WIDTH)
    assert ours.best_score is buffers[0]
    assert theirs.best_score is not buffers[1]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_predictions_are_s3prls_and_each_utterance_is_there_once(both, split):
    for expert in both:
        run(expert, split, 1.0, WIDTH)
    for kind in ("hyp", "ref"):
        text = (both[0].expdir / f"{split}-{kind}.ark").read_text()
        assert text == (Path(both[1].expdir) / f"{split}-{kind}.ark").read_text()
        names = Counter(line.split()[0] for line in text.splitlines())
        assert names == Counter(one.path.stem for one in both[0].datasets[split].utterances)
        assert set(names.values()) == {1}
    run(both[0], "train", 1.0, WIDTH)
    assert not list(both[0].expdir.glob("train*"))


def test_few_utterances_are_all_in_each_window(tmp_path, vocab_file, s3prl):
    """D21: with fewer utterances than a window has, S3PRL counts from the end, and never sees the first of them."""
    corpus = make(tmp_path / "corpus", ["CAT CAT CAT", "A CAT", "A"])
    block = config_of(corpus, vocab_file)  # windows of 5
    seen = []
    for cls in (DownstreamExpert, s3prl.DownstreamExpert):
        loader = build(cls, block, tmp_path).get_dataloader("train")
        seen.append([sorted(names) for _, _, names in loader])
    assert seen[0] == [["0-1-0000", "0-1-0001", "0-1-0002"]] * 3
    assert seen[1] == [["0-1-0001", "0-1-0002"]] * 3


def test_the_config_stays_as_it_is(librispeech, tmp_path, vocab_file, s3prl):
    """D21: S3PRL takes num_workers out of the config that is saved, and all later loaders have 12."""
    block = config_of(librispeech, vocab_file, num_workers=1)
    ours = build(DownstreamExpert, block, tmp_path)
    theirs = build(s3prl.DownstreamExpert, block, tmp_path)
    workers = [[expert.get_dataloader("dev").num_workers for _ in range(2)] for expert in (ours, theirs)]
    assert workers == [[1, 1], [1, 12]]
    assert "num_workers" not in theirs.corpus


def test_the_corpus_is_read_once(both, monkeypatch):
    """D21: S3PRL reads corpus and lexicon at each get_dataloader, and each batch's first file twice."""
    ours, theirs = both
    LibriPhoneDataset.made = 0
    reads = Counter()
    audio = import_s3prl("s3prl.downstream.ctc.data").torchaudio
    load = audio.load
    monkeypatch.setattr(audio, "load", lambda path: reads.update([Path(path).name]) or load(path))
    for _ in range(2):
        keep_in_this_process(theirs)
        list(theirs.get_dataloader("dev"))
    assert LibriPhoneDataset.made == 2
    assert set(reads.values()) == {4}
    mine = Counter()
    one = text_expert.load_audio
    monkeypatch.setattr(text_expert, "load_audio", lambda path: mine.update([path.name]) or one(path))
    monkeypatch.setattr("downstream_tasks.pr.expert.read_sets", None)
    for _ in range(2):
        list(ours.get_dataloader("dev"))
    assert mine.keys() == reads.keys()
    assert set(mine.values()) == {2}


def test_other_sounds(tmp_path, vocab_file, s3prl, caplog):
    """D21: S3PRL puts channels one after the other, and takes any rate for 16000."""
    corpus = make(tmp_path / "corpus", ["CAT CAT", "CAT"])
    folder = corpus / "test-clean/2/1"
    both = np.stack([np.full(1000, 0.5), np.full(1000, 0.25)], axis=1)
    soundfile.write(folder / "2-1-0000.flac", both, 16000)
    soundfile.write(folder / "2-1-0001.flac", np.full(1000, 0.5), 8000)
    lengths = []
    for cls in (DownstreamExpert, s3prl.DownstreamExpert):
        loader = build(cls, config_of(corpus, vocab_file), tmp_path).get_dataloader("test")
        wavs = [wav for wavs, *_ in loader for wav in wavs]
        lengths.append([len(wav) for wav in wavs])
        if cls is DownstreamExpert:
            assert wavs[0] == pytest.approx(np.full(1000, 0.375), abs=1e-3)
    assert lengths == [[1000, 2000], [2000, 1000]]


def test_a_split_is_named_in_full(librispeech, tmp_path, s3prl, vocab_file):
    """D21: given one string, S3PRL looks for the split's name anywhere in it."""
    block = {**config_of(librispeech, vocab_file), "save_best_on": "development"}
    theirs = build(s3prl.DownstreamExpert, block, tmp_path)
    assert run(theirs, "dev", 0.3, WIDTH)[2] == ["dev-best.ckpt"]
    with pytest.raises(ConfigError, match=r"save_best_on` must be a list, but is 'development'"):
        build(DownstreamExpert, block, tmp_path)


# Targets.


def test_the_first_pronunciation_wins(tmp_path):
    (tmp_path / "a.txt").write_text("CAT\tK AE1 T\n\nCAT\tK AE2 T\nDOG  D AO1 G\n")
    (tmp_path / "b.txt").write_text("DOG D AA1 G\nA AH0")  # without a last newline
    lexicon = read_lexicon([tmp_path / "a.txt", tmp_path / "b.txt"], PHONES)
    assert lexicon == {"CAT": ["K", "AE1", "T"], "DOG": ["D", "AO1", "G"], "A": ["AH0"]}


def test_targets_are_the_words_phones(tmp_path):
    corpus = make(tmp_path / "corpus", ["A CAT SAT"])
    transcript = corpus / "dev-clean/1/1/1-1.trans.txt"
    # D21: the last character of a file without a last newline is lost in S3PRL, `line[:-1]`.
    transcript.write_text("\n" + transcript.read_text().rstrip("\n"))  # an empty line is no line
    texts = {}
    for eos in (True, False):
        for stress in ("keep", "strip"):
            expert = build(
                DownstreamExpert, config_of(corpus, text={"eos_in_targets": eos, "stress": stress}), tmp_path
            )
            target = expert.datasets["dev"].utterances[0].target
            assert target.dtype == np.int64
            texts[eos, stress] = [expert.tokens.tokens[index] for index in target]
            assert expert.protocol == {
                "windows": "overlapping",
                "half_window_rule": True,
                "eos_in_targets": eos,
                "stress": stress,
            }
    kept = ["AH0", "K", "AE1", "T", "S", "AE1", "T"]
    stripped = ["AH", "K", "AE", "T", "S", "AE", "T"]
    assert texts == {
        (True, "keep"): [*kept, "<eos>"],
        (False, "keep"): kept,
        (True, "strip"): [*stripped, "<eos>"],
        (False, "strip"): stripped,
    }


def test_without_stress_there_are_39_phones(librispeech, tmp_path):
    expert = build(DownstreamExpert, config_of(librispeech, text={"stress": "strip"}), tmp_path, width=44)
    assert expert.label_state() == ["SIL", "SPN", *sorted({*VOWELS, *CONSONANTS})]
    assert expert.model.linear.out_features == len(expert.tokens) == 3 + 2 + 39
    run(expert, "test", 0.3, 44)
    assert not any(digit in (tmp_path / "test-ref.ark").read_text().split(" ", 1)[1] for digit in ["AH0", "IY1"])


def test_without_eos_the_score_is_of_the_same_phones(librispeech, tmp_path):
    refs = []
    for eos in (True, False):
        expert = build(DownstreamExpert, config_of(librispeech, text={"eos_in_targets": eos}), tmp_path)
        assert expert.model.linear.out_features == 74
        run(expert, "test", 0.3, WIDTH)
        refs.append((tmp_path / "test-ref.ark").read_text())
    assert refs[0] == refs[1]


# Windows.


def dealt(expert, epoch=0):
    return list(expert.batches("train", epoch))


def test_disjoint_windows_show_each_utterance_once(librispeech, tmp_path):
    expert = build(DownstreamExpert, config_of(librispeech, windows="disjoint"), tmp_path)
    batches = dealt(expert)
    assert sorted(index for batch in batches for index in batch) == list(range(24))
    assert sorted(map(len, batches)) == [4, 5, 5, 5, 5]
    assert all(batch == list(range(batch[0], batch[0] + len(batch))) for batch in batches)
    assert dealt(expert, 1) != batches != sorted(batches)
    assert dealt(expert, 0) == batches
    assert expert.protocol["windows"] == "disjoint"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [[0], [1], [2, 3], [2, 3]]),  # as S3PRL: of the first two windows, half is left out
        ({"half_window_rule": False}, [[0, 1], [1, 2], [2, 3], [2, 3]]),
        ({"windows": "disjoint"}, [[0], [1], [2, 3]]),
        ({"windows": "disjoint", "half_window_rule": False}, [[0, 1], [2, 3]]),
    ],
)
def test_long_windows(tmp_path, monkeypatch, keys, expected):
    monkeypatch.setattr(windows, "LONG", 800)
    corpus = make(tmp_path / "corpus", ["CAT CAT CAT CAT", "CAT CAT CAT", "CAT CAT", "CAT"], [900, 801, 800, 900])
    expert = build(DownstreamExpert, config_of(corpus, batch_size=2, **keys), tmp_path)
    assert sorted(dealt(expert)) == expected
    assert expert.protocol["half_window_rule"] == keys.get("half_window_rule", True)
    if "half_window_rule" in keys:
        assert not (corpus / ".s3prl_interfaces").exists()  # nothing needs to be measured


def test_half_of_an_odd_window():
    assert windows.halve_long([[0, 1, 2]], [300001] * 3, drop=False) == [[0], [1, 2]]
    assert windows.halve_long([[0, 1, 2], [1]], [300001] * 3, drop=True) == [[0], [1]]
    assert windows.halve_long([[0, 1]], [300000, 900000], drop=True) == [[0, 1]]


def test_random_batches(librispeech, tmp_path):
    expert = build(DownstreamExpert, config_of(librispeech, bucketing=False), tmp_path)
    batches = dealt(expert)
    assert sorted(index for batch in batches for index in batch) == list(range(24))
    assert any(batch != sorted(batch) for batch in batches)
    assert dealt(expert, 1) != batches == dealt(expert, 0)


# What a user can get wrong.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"corpus": {"name": "librispeech"}},
            "corpus.name` must be libriphone for this task, but is 'librispeech'.*SF with",
        ),
        ({"text": {"mode": "character"}}, "text.mode` must be word for this task, but is 'character'"),
        ({"text": {"stress": "none"}}, "text.stress` must be one of keep, strip"),
        ({"text": {"slots_file": "a"}}, "Unknown key in `downstream_expert.text`: 'slots_file'"),
        ({"corpus": {"lexicons": []}}, "Did you mean 'lexicon'"),
        ({"corpus": {"windows": "apart"}}, "corpus.windows` must be one of overlapping, disjoint"),
        ({"corpus": {"dev": []}}, "corpus.dev` must name a folder"),
        ({"corpus": {"batch_size": 0}}, "batch_size` must be 1 or more, but is 0"),
        ({"metric": ["perr"]}, "Unknown metric in `downstream_expert.metric`: 'perr'. Did you mean 'per'"),
        ({"metric": []}, "metric` must name a metric"),
        ({"metric_higher_better": True}, "metric_higher_better` must be false for per"),
        ({"save_best_on": ["valid"]}, "Unknown split in `downstream_expert.save_best_on`: 'valid'"),
    ],
)
def test_configs_that_cannot_be_used(librispeech, tmp_path, change, message):
    block = config_of(librispeech)
    for key, value in change.items():
        block[key] = {**block[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match=message):
        build(DownstreamExpert, block, tmp_path)


def test_case_of_the_corpus_name_does_not_matter(librispeech, tmp_path):
    build(DownstreamExpert, config_of(librispeech, name="LibriPhone"), tmp_path)


def test_the_score_is_always_logged(librispeech, tmp_path):
    block = {**config_of(librispeech), "metric": ["cer", "wer"]}
    scalars = run(build(DownstreamExpert, block, tmp_path), "test", 0.3, WIDTH)[1]
    assert {tag.rpartition("-")[2] for tag, _ in scalars} == {"per", "cer", "wer", "loss"}
    assert DownstreamExpert.score.metric == "per"
    assert not DownstreamExpert.score.higher_is_better


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("CAT K AE1 T\nDOG\n", r"lexicon\.txt, line 2: DOG has no phone"),
        ("CAT K AE T\n", r"lexicon\.txt, line 1: CAT has the phone AE, which the vocabulary lacks"),
        (None, r"Lexicon .*lexicon\.txt cannot be read.*downstream_expert\.corpus\.lexicon"),
    ],
)
def test_lexicons_that_cannot_be_used(tmp_path, content, message):
    corpus = make(tmp_path / "corpus", ["CAT"])
    (corpus / "lexicon.txt").unlink()
    if content is not None:
        (corpus / "lexicon.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        build(DownstreamExpert, config_of(corpus), tmp_path)


def test_words_without_a_pronunciation_are_named(tmp_path):
    """D21: S3PRL's answer is a KeyError with the first such word."""
    corpus = make(tmp_path / "corpus", ["CAT", "A CAT DOGS", *(f"NO{letter}" for letter in "ABCDEFGHIJK")])
    with pytest.raises(DataError) as caught:
        build(DownstreamExpert, config_of(corpus), tmp_path)
    message = str(caught.value)
    assert message.startswith("12 words of the transcripts are in no lexicon: DOGS (")
    assert "0-1.trans.txt, line 2); NOA (" in message
    assert "and 2 more. Add a lexicon" in message
    assert message.count("NO") == 9


def broken(tmp_path):
    """A corpus whose sets miss a file, a transcript and a whole set."""
    corpus = make(tmp_path / "corpus", ["CAT", "A CAT", "A A"])
    (corpus / "dev-clean/1/1/1-1-0000.flac").unlink()
    transcript = corpus / "test-clean/2/1/2-1.trans.txt"
    transcript.write_text("".join(transcript.read_text().splitlines(keepends=True)[:2]))
    return corpus


def test_an_incomplete_corpus_is_refused_or_used_in_part(tmp_path, caplog):
    corpus = broken(tmp_path)
    with pytest.raises(DataError, match=r"dev-clean/1/1/1-1\.trans\.txt, line 1: there is no audio 1-1-0000\.flac"):
        build(DownstreamExpert, config_of(corpus), tmp_path)
    with pytest.raises(DataError, match=r"2-1-0002\.flac has no transcript in test-clean/2/1/2-1\.trans\.txt\."):
        build(DownstreamExpert, config_of(corpus, dev=["train-clean-100"]), tmp_path)
    with caplog.at_level(logging.WARNING):
        expert = build(DownstreamExpert, config_of(corpus, skip_bad_audio=True), tmp_path)
    assert {split: len(dataset) for split, dataset in expert.datasets.items()} == {"train": 3, "dev": 2, "test": 2}
    assert caplog.text.count("1 left out, as `skip_bad_audio` says") == 2


@pytest.mark.parametrize("skip", [True, False])
def test_a_set_that_is_not_there(tmp_path, skip):
    corpus = make(tmp_path / "corpus", ["CAT"])
    (corpus / "other").mkdir()
    with pytest.raises(DataError, match="it has no folder nowhere; other has no utterance <speaker>/"):
        build(DownstreamExpert, config_of(corpus, test=["nowhere", "other"], skip_bad_audio=skip), tmp_path)


def test_a_transcript_without_words(tmp_path):
    corpus = make(tmp_path / "corpus", ["CAT"])
    (corpus / "test-clean/2/1/2-1.trans.txt").write_text("\n2-1-0000\n")
    with pytest.raises(DataError, match=r"2-1\.trans\.txt, line 2 must be `<utterance> WORDS`, but is '2-1-0000'"):
        build(DownstreamExpert, config_of(corpus), tmp_path)
    (corpus / "test-clean/2/1/2-1.trans.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"2-1\.trans\.txt cannot be read"):
        build(DownstreamExpert, config_of(corpus), tmp_path)


def test_converted_copies_are_read(tmp_path):
    corpus = make(tmp_path / "corpus", ["CAT", "A CAT"])
    converted = corpus / "test-clean/2/1/2-1-0001.flac"
    soundfile.write(converted.with_suffix(".wav"), np.zeros(900), 16000)
    both = corpus / "test-clean/2/1/2-1-0000.flac"
    soundfile.write(both.with_suffix(".wav"), np.zeros(900), 16000)
    converted.unlink()
    expert = build(DownstreamExpert, config_of(corpus), tmp_path)
    assert {one.path for one in expert.datasets["test"].utterances} == {both, converted.with_suffix(".wav")}


def test_each_chapter_is_listed_once(tmp_path, monkeypatch):
    corpus = make(tmp_path / "corpus", ["CAT", "A CAT"])
    listed, searched = [], []
    iterdir, glob = Path.iterdir, Path.glob
    monkeypatch.setattr(Path, "iterdir", lambda self: listed.append(self) or iterdir(self))
    monkeypatch.setattr(Path, "glob", lambda self, pattern: searched.append(self) or glob(self, pattern))
    read_sets(corpus, ["train-clean-100", "dev-clean"])
    assert [path for path in listed if path.name == "1"] == [corpus / "train-clean-100/0/1", corpus / "dev-clean/1/1"]
    assert searched == [corpus / "train-clean-100", corpus / "dev-clean"]


@pytest.mark.parametrize("content", [b"no audio", None])
def test_audio_that_cannot_be_read(tmp_path, content, caplog):
    corpus = make(tmp_path / "corpus", ["CAT CAT", "A CAT", "A A"])
    for number, name in enumerate(("train-clean-100", "dev-clean", "test-clean")):
        path = corpus / name / f"{number}/1/{number}-1-0001.flac"
        if content is None:
            soundfile.write(path, np.zeros(399), 16000)  # shorter than a frame
        else:
            path.write_bytes(content)
    message = r"0-1-0001\.flac (cannot be read|has 399 samples)"
    expert = build(DownstreamExpert, config_of(corpus), tmp_path)
    with pytest.raises(DataError, match=message):
        expert.get_dataloader("train")
    with pytest.raises(DataError, match=message.replace("0-1", "2-1", 1)):
        list(expert.get_dataloader("test"))
    expert = build(DownstreamExpert, config_of(corpus, skip_bad_audio=True, batch_size=2), tmp_path)
    with caplog.at_level(logging.WARNING):
        names = {name for _, _, names in expert.get_dataloader("train") for name in names}
        assert names == {"0-1-0000", "0-1-0002"}
        assert "train: 1 of 3 utterances were left out" in caplog.text
        records, logger = defaultdict(list), Logger()
        for wavs, *others in expert.get_dataloader("test"):
            if wavs:
                expert("test", [torch.zeros(9, WIDTH)], *others, records=records)
        expert.log_records("test", records, logger, 1)
        assert "test: 1 of 3 utterances were left out" in caplog.text
    with pytest.raises(DataError, match="dev: no utterance could be read"):
        expert.log_records("dev", defaultdict(list), logger, 1)


def test_bad_audio_without_the_half_window_rule(tmp_path):
    corpus = make(tmp_path / "corpus", ["CAT CAT", "A CAT", "A A"])
    (corpus / "train-clean-100/0/1/0-1-0001.flac").write_bytes(b"no audio")
    block = config_of(corpus, skip_bad_audio=True, half_window_rule=False)
    names = [names for _, _, names in build(DownstreamExpert, block, tmp_path).get_dataloader("train")]
    assert sorted(names) == [("0-1-0000", "0-1-0002")] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("SIL\n\nAH0\n", r"vocab\.txt, line 2: must be a token other than <pad>"),
        ("SIL\n<eos>\n", r"vocab\.txt, line 2: must be a token other than"),
        ("SIL\nAH0\nSIL\n", r"vocab\.txt, line 3: 'SIL' is on line 1 already"),
        ("", r"vocab\.txt is empty"),
        (None, r"vocab\.txt cannot be read.*leave the key out"),
    ],
)
def test_vocabularies_that_cannot_be_used(librispeech, tmp_path, content, message):
    if content is not None:
        (tmp_path / "vocab.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        build(DownstreamExpert, config_of(librispeech, tmp_path / "vocab.txt"), tmp_path)


def test_there_is_no_other_split(librispeech, tmp_path):
    with pytest.raises(KeyError):
        build(DownstreamExpert, config_of(librispeech), tmp_path).get_dataloader("dev-other")


# Use.


def test_inference_says_the_phones(librispeech, tmp_path):
    trained = build(DownstreamExpert, config_of(librispeech), tmp_path)
    same_weights(trained, trained, scale=0.01)
    block = config_of(tmp_path / "nowhere")
    expert = build(DownstreamExpert, block, tmp_path, label_state=trained.label_state())
    expert.load_state_dict(trained.state_dict())
    ids = [trained.tokens.ids[phone] for phone in ("K", "AE1", "T")]
    features = features_of([ids, ids[:1]], WIDTH, 0.0, torch.Generator(), equal=False)
    answers = expert.inference(features, ["a", "b"])
    assert answers == expert.predict(features) == [{"phonemes": "K AE1 T"}, {"phonemes": "K"}]
    expert.inference(features[:1], ["c"])
    assert (tmp_path / "inference.ark").read_text() == "a K AE1 T\nb K\nc K AE1 T\n"
    assert type(trained.label_state()) is list


def test_s3prls_own_config_builds_it(librispeech, tmp_path, vocab_file):
    block = copy.deepcopy(S3PRLS)
    block["corpus"].update(path=str(librispeech), lexicon=[str(librispeech / "lexicon.txt")])
    block["text"]["vocab_file"] = str(vocab_file)
    expert = build(DownstreamExpert, block, tmp_path)
    assert expert.config.corpus.batch_size == 16
    assert expert.projector.out_features == 256
    assert expert.get_dataloader("dev").num_workers == 24


def test_the_shipped_config_is_superbs(librispeech, tmp_path):
    config = yaml.safe_load((shipped_configs() / "pr.yaml").read_text())
    assert config["runner"] == {
        "total_steps": 100000,
        "gradient_clipping": 1,
        "gradient_accumulate_steps": 2,
        "log_step": 100,
        "eval_step": 1000,
        "save_step": 100,
        "max_keep": 1,
        "eval_dataloaders": ["dev"],
    }
    assert config["optimizer"] == {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1.0e-2}
    assert not {"specaug", "scheduler"} & config.keys()
    block = config["downstream_expert"]
    for key in ("bucketing", "batch_size", "num_workers", "train", "dev", "test", "name"):
        assert block["corpus"][key] == S3PRLS["corpus"][key]
    for key in ("metric", "metric_higher_better", "save_best_on"):
        assert block[key] == S3PRLS[key]
    block["corpus"].update(path=str(librispeech), lexicon=[str(librispeech / "lexicon.txt")])
    expert = build(DownstreamExpert, block, tmp_path)
    assert expert.protocol == {
        "windows": "overlapping",
        "half_window_rule": True,
        "eos_in_targets": True,
        "stress": "keep",
    }
    assert (expert.projector.out_features, expert.model.linear.out_features) == (256, 74)
    assert expert.zero_infinity
    assert windows.LONG == 300000


# Preparation.


def test_prepare_makes_one_lexicon(tmp_path):
    corpus = make(tmp_path / "corpus", ["A CAT SAT", "CAT"])
    (corpus / "lexicon.txt").unlink()
    (corpus / "lexicon").mkdir()
    (corpus / "a").mkdir()
    (corpus / "a/librispeech-lexicon.txt").write_text("A EY1\nCAT K AE0 T\nSAT S AE0 T\n")
    (corpus / "lexicon/librispeech-lexicon-allothers-g2p.txt").write_text("CAT K AE2 T\nSAT\tS AE1 T\n")
    (corpus / "lexicon/librispeech-lexicon-200k-g2p.txt").write_text("CAT K AE1 T\nDOG D AO1 G\n")
    lines = prepare(corpus)
    assert (corpus / "lexicon.txt").read_text() == "A\tEY1\nCAT\tK AE1 T\nSAT\tS AE1 T\n"
    assert f"{corpus}/train-clean-100: 2 utterances" in lines
    assert "written, 3 words, from" in lines[3]
    assert "corpus.lexicon" in lines[-1]
    (corpus / "lexicon.txt").write_text("A EY1\nCAT K\nSAT S\nMORE M\n")
    assert "there already, has all 3 words" in prepare(corpus)[3]
    assert "MORE" in (corpus / "lexicon.txt").read_text()
    build(DownstreamExpert, config_of(corpus), tmp_path)


def test_prepare_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist: it must be LibriSpeech's folder"):
        prepare(str(tmp_path / "nowhere"))
    corpus = make(tmp_path / "corpus", ["A CAT SAT"])
    (corpus / "lexicon.txt").unlink()
    with pytest.raises(DataError, match=r"holds no lexicon.*s3prl/g2p"):
        prepare(corpus)
    (corpus / "lexicon-mine.txt").write_text("CAT K AE1 T\n")
    with pytest.raises(DataError, match=r"2 words of the transcripts are in no lexicon: A \(.*line 1\); SAT"):
        prepare(corpus)
    shutil.rmtree(corpus / "train-clean-100")
    (corpus / "dev-clean/1/1/1-1-0000.flac").unlink()
    with pytest.raises(DataError, match="it has no folder train-clean-100; dev-clean has no utterance") as caught:
        prepare(corpus)
    assert "there is no audio 1-1-0000.flac" in str(caught.value)
    assert sorted(path.name for path in corpus.iterdir()) == ["dev-clean", "lexicon-mine.txt", "test-clean"]
