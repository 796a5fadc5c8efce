"""Slot filling, against S3PRL's own ``ctc`` with ``snips.yaml`` and by itself."""

import copy
import logging
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torch.testing import assert_close

from downstream_tasks.sf import metrics
from downstream_tasks.sf.dataset import parse_line
from downstream_tasks.sf.expert import DownstreamExpert
from downstream_tasks.sf.prepare import prepare
from downstream_tasks.sf.slots import CHARACTERS, SlotVocabulary, read_slots
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.runner.config import shipped_configs
from s3prl_interfaces.s3prl_compat import import_s3prl
from tests.tasks.ctc_parity import Windows, features_of, gradients, load_s3prl, run, same_weights, set_long

SPLITS = ("train", "dev", "test")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
METRICS = ["slot_type_f1", "slot_value_cer", "slot_value_wer", "slot_edit_f1_full", "slot_edit_f1_part", "wer", "cer"]
SPEAKERS = {
    "train": ["Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"],
    "valid": ["Aditi", "Amy", "Geraint", "Nicole"],
    "test": ["Brian", "Emma", "Raveena", "Russell"],
}

# S3PRL's snips.yaml.
S3PRLS = {
    "corpus": {
        "name": "snips",
        "path": "?",
        "train": ["train"],
        "dev": ["valid"],
        "test": ["test"],
        "bucketing": True,
        "batch_size": 32,
        **{f"{split}_speakers": names for split, names in SPEAKERS.items()},
        "num_workers": 12,
    },
    "text": {"mode": "character-slot", "vocab_file": "?", "slots_file": "?"},
    "model": {
        "project_dim": 1024,
        "zero_infinity": True,
        "select": "RNNs",
        "Wav2Letter": {"total_rate": 320},
        "RNNs": {
            "total_rate": -1,
            "module": "LSTM",
            "bidirection": True,
            "dim": [1024, 1024],
            "dropout": [0.2, 0.2],
            "layer_norm": [False, False],
            "proj": [False, False],
            "sample_rate": [1, 1],
            "sample_style": "concat",
        },
    },
    "save_best_on": ["dev"],
    "metric_higher_better": True,
    "metric": METRICS,
}


class SnipsDataset(Windows):
    """S3PRL's rule: the wavs of a folder's speakers that are in the list of texts, each with its line's text."""

    def __init__(self, split, tokenizer, bucket_size, path, **keys):
        texts = dict(line.strip().split(" ", 1) for line in (Path(path) / "all.iob.snips.txt").read_text().splitlines())
        speakers = tuple(keys[f"{split[0]}_speakers"])
        files = sorted(file for name in split for file in Path(path, name).rglob("*.wav"))
        files = [file for file in files if file.stem in texts and file.stem.startswith(speakers)]
        super().__init__([(file, tokenizer.encode(texts[file.stem])) for file in files], bucket_size)


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "character.txt"
    path.write_text("\n".join([" ", *LETTERS, "'"]))
    return path


def config_of(corpus, vocab_file=None, text=(), model=(), **keys):
    block = copy.deepcopy(S3PRLS)
    block["corpus"].update({"path": str(corpus), "batch_size": 5, "num_workers": 0, **keys})
    block["text"].update(
        vocab_file=None if vocab_file is None else str(vocab_file), slots_file=str(corpus / "slots.txt"), **dict(text)
    )
    width = 31 + 2 * (len((corpus / "slots.txt").read_text().split()) - 1) if corpus.exists() else 8
    block["model"].update({"project_dim": width, "select": "FrameLevel", **dict(model)})
    return block


def narrow(select):
    """A small head."""
    return {"select": select, "RNNs": {**S3PRLS["model"]["RNNs"], "dim": [8, 8]}}


def width_of(block):
    return block["model"]["project_dim"]


def build(cls, block, expdir, **keywords):
    expdir.mkdir(parents=True, exist_ok=True)
    keywords = {"downstream_expert": copy.deepcopy(block), "expdir": str(expdir), **keywords}
    return cls(upstream_dim=width_of(block), upstream_rate=320, **keywords)


@pytest.fixture
def s3prl(monkeypatch):
    return load_s3prl(monkeypatch, "snips", SnipsDataset)


@pytest.fixture
def both(snips, tmp_path, vocab_file, s3prl):
    """Our expert and S3PRL's with the same weights."""
    block = config_of(snips, vocab_file)
    ours = build(DownstreamExpert, block, tmp_path / "ours")
    theirs = build(s3prl.DownstreamExpert, block, tmp_path / "theirs")
    same_weights(ours, theirs)
    return ours, theirs


@pytest.fixture
def encoder(tmp_path, vocab_file):
    """S3PRL's tokenizer for the slots a and b."""
    (tmp_path / "slots.txt").write_text("O\na\nb")
    text = import_s3prl("s3prl.downstream.ctc.text")
    return text.load_text_encoder("character-slot", str(vocab_file), str(tmp_path / "slots.txt"))


def make(root, lines, samples=800, speakers=SPEAKERS):
    """A corpus by hand: each speaker of a split says all lines."""
    slots = Counter(slot for _, labels in lines for slot in labels.split())
    root.mkdir()
    with (root / "all.iob.snips.txt").open("w") as file:
        for split, names in speakers.items():
            (root / split).mkdir()
            for speaker in names:
                for number, (words, labels) in enumerate(lines):
                    name = f"{speaker}-snips-{split}-{number}"
                    file.write(f"{name} BOS {words} EOS\tO {labels} Intent\n")
                    soundfile.write(root / split / f"{name}.wav", np.zeros(samples, dtype=np.int16), 16000)
    (root / "slots.txt").write_text("\n".join(["O", *sorted(slots.keys() - {"O"})]))
    return root


LINES = [("PLAY NINA SIMONE", "O artist artist"), ("PLAY", "O")]
FEW = {"train": ["Ivy"], "valid": ["Amy"], "test": ["Emma", "Brian"]}


def few(tmp_path, **keys):
    """A corpus with few speakers, and the keys that say so."""
    return make(tmp_path / "corpus", LINES, speakers=FEW), {f"{split}_speakers": names for split, names in FEW.items()}


# Tokens.


def test_tokens_are_s3prls(both, snips):
    ours, theirs = both
    assert (" ", *LETTERS, "'") == CHARACTERS
    slots = (snips / "slots.txt").read_text().split("\n")[1:]
    assert len(slots) >= 5
    assert theirs.tokenizer.vocab_size == len(ours.tokens) == 31 + 2 * len(slots)
    assert [theirs.tokenizer.idx_to_vocab(index) for index in range(len(ours.tokens))] == ours.tokens.tokens
    assert (ours.tokens.ids[" "], ours.tokens.ids["A"], ours.tokens.ids["'"]) == (3, 4, 30)
    assert ours.tokens.tokens[31:33] == [f"B-{slots[0]} ", f" E-{slots[0]}"]


def encode(words, labels, eos=True):
    return SlotVocabulary(CHARACTERS, ["a", "b"]).encode(words.split(" "), labels.split(" "), eos).tolist()


def test_encoding_is_s3prls_on_random_requests(encoder):
    source = random.Random(0)
    ours = SlotVocabulary(CHARACTERS, ["a", "b"])
    for _ in range(300):
        size = source.randint(1, 7)
        words = ["".join(source.choices("AB'é9", k=source.randint(1, 3))) for _ in range(size)]
        words[: source.randint(0, 1)] = ["&"]
        labels = source.choices(["O", "a", "b"], k=len(words))
        line = f"BOS {' '.join(words)} EOS\tO {' '.join(labels)} Intent"
        expected = encoder.encode(line)
        assert encode(" ".join(words), " ".join(labels)) == expected
        assert ours.decode(expected) == encoder.decode(expected)
        assert encode(" ".join(words), " ".join(labels), eos=False) == expected[:-1]


def test_and_and_unknown_characters():
    ids = encode("R & B9", "O O a")
    assert SlotVocabulary(CHARACTERS, ["a", "b"]).decode(ids) == "R AND B-a B<unk> E-a"


@pytest.mark.parametrize("mark", ["?", "!", ".", ",", ";", "-", "?!", "!.", ".,;-", ""])
@pytest.mark.parametrize(
    ("words", "labels", "text", "theirs"),
    [
        ("UP * DOWN", "O O O", "UP DOWN", "UP DOWN"),
        ("UP * DOWN", "a O a", "B-a UP E-a B-a DOWN E-a", "B-a UP E-a B-a DOWN E-a"),
        ("UP * DOWN", "a a a", "B-a UP DOWN E-a", "B-a UP DOWN E-a"),
        ("UP *", "O O", "UP", "UP "),  # D22: no <eos> after a last word that is punctuation
        ("UP *", "a a", "B-a UP E-a", "B-a UP "),  # D22: no E- either
        ("* UP", "a a", "B-a UP E-a", "UP E-a"),  # D22: no B-
    ],
)
def test_punctuation_is_left_out(encoder, mark, words, labels, text, theirs):
    words = words.replace("*", mark)
    ids = encode(words, labels)
    assert SlotVocabulary(CHARACTERS, ["a", "b"]).decode(ids) == text
    assert ids[-1] == 1
    their_ids = encoder.encode(f"BOS {words} EOS\tO {labels} Intent")
    assert encoder.decode(their_ids) == theirs
    assert (their_ids == ids) == (text == theirs)
    assert (1 in their_ids) == (not theirs.endswith(" "))


def test_words_that_only_contain_punctuation_are_kept():
    assert SlotVocabulary(CHARACTERS, ["a"]).decode(encode("!? A.", "O O")) == "<unk><unk> A<unk>"
    assert encode(",", "O") == [1]
    assert encode(",", "O", eos=False) == []


def test_neighbours_with_one_label_are_one_value():
    assert SlotVocabulary(CHARACTERS, ["a", "b"]).decode(encode("A B C", "a a b")) == "B-a A B E-a B-b C E-b"


def test_a_newline_at_the_end_of_the_slots_adds_none(tmp_path, vocab_file):
    """D22: S3PRL reads another slot after it, without a name, and its output layer has two tokens more."""
    text = import_s3prl("s3prl.downstream.ctc.text")
    sizes = []
    for end in ("", "\n"):
        (tmp_path / "slots.txt").write_text(f"O\na\nb{end}")
        theirs = text.load_text_encoder("character-slot", str(vocab_file), str(tmp_path / "slots.txt"))
        sizes.append((len(SlotVocabulary(CHARACTERS, read_slots(tmp_path / "slots.txt"))), theirs.vocab_size))
    assert sizes == [(35, 35), (35, 37)]


# Metrics.


def random_text(source):
    """A request with slots, some nested, unfinished, empty or of a type whose name begins like another's."""
    pieces = []
    for _ in range(source.randint(0, 6)):
        pieces.append(
            source.choice(
                [
                    "B-list ",
                    " E-list",
                    "B-list_owner ",
                    " E-list_owner",
                    "B-a A E-a",
                    "B-a A B E-a",
                    "B-a A E-a B-a C E-a",
                    "B-list L E-list",
                    "A",
                    " ",
                    "BB  A",
                    "<unk>",
                ]
            )
        )
    return source.choice(["", " "]).join(pieces)


def well_formed(source):
    """A reference as the tokenizer makes it."""
    pieces = []
    for _ in range(source.randint(1, 4)):
        words = " ".join(source.choices(["A", "B", "C", "AB", "LONG WORD"], k=source.randint(1, 2)))
        slot = source.choice(["", "a", "list", "list_owner"])
        pieces.append(f"B-{slot} {words} E-{slot}" if slot else words)
    return " ".join(pieces)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_s3prls_on_random_texts(name):
    theirs = getattr(import_s3prl("s3prl.downstream.ctc.metric"), name)
    ours = metrics.METRICS[name].compute
    source = random.Random(name)
    values = set()
    for _ in range(400):
        size = source.randint(1, 4)
        references = [source.choice([well_formed, random_text])(source) for _ in range(size)] + ["B-a A E-a"]
        hypotheses = [source.choice([random_text(source), well_formed(source), text]) for text in references]
        assert ours(hypotheses, references) == pytest.approx(theirs(hypotheses, references), abs=1e-12)
        values.add(round(ours(hypotheses, references), 6))
    assert len(values) > 40


def test_a_value_a_hundred_times_too_long_is_no_match():
    theirs = import_s3prl("s3prl.downstream.ctc.metric")
    for size in (98, 99, 100, 101, 120):
        texts = ([f"B-a {'B' * size} E-a"], ["B-a A E-a"])
        assert metrics.slot_value_cer(*texts) == theirs.slot_value_cer(*texts) == (size if size < 100 else 1)
    words = ([f"B-a {'B ' * 120}E-a"], ["B-a A E-a"])
    assert metrics.slot_value_wer(*words) == theirs.slot_value_wer(*words) == 1


def test_metrics_by_hand():
    texts = (["B-a X E-a B-b Y Z E-b", "PLAY", "B-a X E-a"], ["B-a X E-a", "PLAY", "B-b YZ E-b"])
    values = {name: metric.compute(*texts) for name, metric in metrics.METRICS.items()}
    assert values["slot_type_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert values["slot_value_cer"] == pytest.approx(2 / 3)
    assert values["slot_value_wer"] == pytest.approx(1 / 2)
    assert values["slot_edit_f1_full"] == pytest.approx(100 * 2 / (2 + 1 + 2))
    assert values["slot_edit_f1_part"] == pytest.approx(100 * 2 / (2 + 1))
    assert metrics.METRICS["slot_type_f1"].higher_is_better
    assert not metrics.METRICS["slot_value_cer"].higher_is_better


@pytest.mark.parametrize(
    ("hypotheses", "references", "values"),
    [
        (["PLAY"], ["PLAY"], {"cer": 0.0, "wer": 0.0, "edit_full": 100.0, "edit_part": 100.0}),
        (["B-a X E-a"], ["PLAY"], {"cer": 0.0, "wer": 0.0, "edit_full": 0.0, "edit_part": 100.0}),
    ],
)
def test_without_any_slot(hypotheses, references, values):
    """D22: S3PRL divides by zero."""
    theirs = import_s3prl("s3prl.downstream.ctc.metric")
    names = {
        "cer": "slot_value_cer",
        "wer": "slot_value_wer",
        "edit_full": "slot_edit_f1_full",
        "edit_part": "slot_edit_f1_part",
    }
    for short, name in names.items():
        assert metrics.METRICS[name].compute(hypotheses, references) == values[short]
        if (short, hypotheses) == ("edit_full", ["B-a X E-a"]):
            assert theirs.slot_edit_f1_full(hypotheses, references) == 0
            continue
        with pytest.raises(ZeroDivisionError):
            getattr(theirs, name)(hypotheses, references)


# Against S3PRL.


def test_parameters_have_s3prls_names(snips, tmp_path, vocab_file, s3prl):
    for select in ("FrameLevel", "RNNs"):
        block = config_of(snips, vocab_file, model=narrow(select))
        experts = [build(cls, block, tmp_path) for cls in (DownstreamExpert, s3prl.DownstreamExpert)]
        shapes = [{name: value.shape for name, value in expert.state_dict().items()} for expert in experts]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("bucketing", [True, False])
@pytest.mark.parametrize("long", [37000, 300000])
def test_batches_are_s3prls(snips, tmp_path, vocab_file, s3prl, s3prls_order, monkeypatch, split, bucketing, long):
    set_long(monkeypatch, long)
    block = config_of(snips, vocab_file, bucketing=bucketing)
    batches = []
    for expert in [build(cls, block, tmp_path) for cls in (DownstreamExpert, s3prl.DownstreamExpert)]:
        torch.manual_seed(3)
        batches.append(list(expert.get_dataloader(split)))
    assert len(batches[0]) == len(batches[1]) > 1
    for (wavs, targets, names), (their_wavs, their_targets, their_names) in zip(*batches, strict=True):
        assert names == their_names
        assert all(np.array_equal(one, other) for one, other in zip(wavs, their_wavs, strict=True))
        assert all(np.array_equal(one, other) for one, other in zip(targets, their_targets, strict=True))
    sizes = {len(names) for *_, names in batches[0]}
    if split != "train":
        assert sizes == {1}
    elif bucketing:
        assert sizes == ({2, 5} if long == 37000 else {5})


@pytest.mark.parametrize("select", ["FrameLevel", "RNNs"])
def test_loss_and_gradients_are_s3prls(snips, tmp_path, vocab_file, s3prl, select):
    block = config_of(snips, vocab_file, model=narrow(select))
    ours, theirs = (build(cls, block, tmp_path) for cls in (DownstreamExpert, s3prl.DownstreamExpert))
    same_weights(ours, theirs)
    _, targets, _ = next(iter(ours.get_dataloader("train")))
    features = features_of(targets, width_of(block), 1.0, torch.Generator().manual_seed(0))
    results = [gradients(expert, features, targets) for expert in (ours, theirs)]
    assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for name, gradient in results[0][1].items():
        assert_close(gradient, results[1][1][name], atol=1e-6, rtol=1e-4)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("split", SPLITS)
def test_loss_and_metrics_are_s3prls(both, split, s3prls_order):
    width = len(both[0].tokens)
    results = [run(expert, split, 1.1, width) for expert in both]
    assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], abs=1e-5)
    assert {tag for tag, _ in results[0][1]} == {f"ctc-snips/{split}-{key}" for key in ("loss", *METRICS)}
    assert 0.1 < results[0][1][f"ctc-snips/{split}-slot_type_f1", 1] < 1
    assert 0 < results[0][1][f"ctc-snips/{split}-slot_value_cer", 1] < 1.5


def test_the_best_on_dev_is_s3prls(both):
    noises = (1.6, 1.1, 1.1, 0.5, 2.5)
    width = len(both[0].tokens)
    saved = [[run(expert, "dev", noise, width, step)[2] for step, noise in enumerate(noises)] for expert in both]
    assert saved[0] == saved[1]
    assert saved[0][1:] == [["dev-best.ckpt"], [], ["dev-best.ckpt"], []]
    assert [run(expert, "test", 0.0, width)[2] for expert in both] == [[], []]
    assert_close(both[0].best_score, both[1].best_score)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_predictions_are_s3prls_and_each_utterance_is_there_once(both, split, snips):
    for expert in both:
        run(expert, split, 1.1, len(both[0].tokens))
    for kind in ("hyp", "ref"):
        text = (both[0].expdir / f"{split}-{kind}.ark").read_text()
        assert text == (Path(both[1].expdir) / f"{split}-{kind}.ark").read_text()
        names = Counter(line.split()[0] for line in text.splitlines())
        assert names == Counter(path.stem for path in (snips / {"dev": "valid"}.get(split, split)).glob("*.wav"))
        assert set(names.values()) == {1}
    said = dict(line.split(" ", 1) for line in text.splitlines())
    for line in (snips / "all.iob.snips.txt").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if name in said:
            words = [word for word in said[name].split() if word[:2] not in ("B-", "E-")]
            assert ["BOS", *words, "EOS"] == rest.split("\t")[0].split()


# The corpus.


def test_only_a_splits_speakers_are_read(tmp_path):
    corpus, keys = few(tmp_path)
    keys["test_speakers"] = ["Em"]  # what a name begins with, as in S3PRL
    expert = build(DownstreamExpert, config_of(corpus, **keys), tmp_path)
    names = {split: sorted(one.path.stem for one in data.utterances) for split, data in expert.datasets.items()}
    assert names == {
        "train": ["Ivy-snips-train-0", "Ivy-snips-train-1"],
        "dev": ["Amy-snips-valid-0", "Amy-snips-valid-1"],
        "test": ["Emma-snips-test-0", "Emma-snips-test-1"],
    }
    longest = [one.path.stem for one in expert.datasets["test"].utterances]
    assert longest == ["Emma-snips-test-0", "Emma-snips-test-1"]  # the longer target first


def test_a_speaker_without_audio_is_named(tmp_path):
    corpus, keys = few(tmp_path)
    keys["valid_speakers"] = ["Amy", "Adit", "Nikole"]
    with pytest.raises(DataError, match=r"valid has no audio of Adit, Nikole, which .*corpus\.valid_speakers` names"):
        build(DownstreamExpert, config_of(corpus, **keys), tmp_path)


def test_a_folder_without_audio_is_named(tmp_path):
    corpus, keys = few(tmp_path)
    shutil.rmtree(corpus / "test")
    with pytest.raises(DataError, match=r"corpus/test holds no \.wav file"):
        build(DownstreamExpert, config_of(corpus, **keys), tmp_path)


def test_audio_without_a_line(tmp_path, caplog):
    """S3PRL prints their names and goes on."""
    corpus, keys = few(tmp_path)
    for number in range(20, 32):
        shutil.copy(corpus / "test/Emma-snips-test-0.wav", corpus / f"test/Emma-snips-test-{number}.wav")
    shutil.copy(corpus / "test/Emma-snips-test-0.wav", corpus / "test/Nobody-snips-test-0.wav")
    with pytest.raises(
        DataError, match=r"all\.iob\.snips\.txt has no line for .*test-20\.wav; .*; and 2 more\. "
    ) as caught:
        build(DownstreamExpert, config_of(corpus, **keys), tmp_path)
    assert "Nobody" not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        expert = build(DownstreamExpert, config_of(corpus, skip_bad_audio=True, **keys), tmp_path)
    assert "12 left out, as `skip_bad_audio` says: no line in" in caplog.text
    assert len(expert.datasets["test"]) == 4


def test_lines_without_audio_are_counted(tmp_path, caplog):
    """Audio SNIPS lists what nobody has recorded, so this is no error; other speakers' lines do not count."""
    corpus, keys = few(tmp_path)
    (corpus / "test/Emma-snips-test-1.wav").unlink()
    with (corpus / "all.iob.snips.txt").open("a") as file:
        file.write("Joey-snips-test-0 BOS PLAY EOS\tO O Intent\nEmma-snips-valid-0 BOS PLAY EOS\tO O Intent\n")
    with caplog.at_level(logging.WARNING):
        build(DownstreamExpert, config_of(corpus, **keys), tmp_path)
    assert [record.getMessage() for record in caplog.records] == ["test: 1 of 4 lines of its speakers have no audio."]


def test_unknown_characters_are_told_of(tmp_path, caplog):
    corpus, keys = few(tmp_path)
    path = corpus / "all.iob.snips.txt"
    path.write_text(path.read_text().replace("NINA", "NIÑA"))
    with caplog.at_level(logging.WARNING):
        build(DownstreamExpert, config_of(corpus, **keys), tmp_path)
    assert "valid: 1 utterances have characters that are not in the vocabulary" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        "BOS PLAY EOS O O Intent",
        "BOS PLAY EOS\tO O O Intent",
        "BOS PLAY NOW EOS\tO O Intent",
        "PLAY EOS\tO Intent",
        "BOS PLAY\tO Intent",
        "BOS PLAY EOS\tB O Intent",
        "BOS\tO",
        "",
    ],
)
def test_malformed_lines(line, tmp_path):
    with pytest.raises(DataError, match=r"iob, line 7: must be `<utterance> BOS WORDS EOS<tab>O SLOTS INTENT`"):
        parse_line(Path("iob"), 7, line)


def test_well_formed_lines():
    assert parse_line(Path("iob"), 1, "BOS PLAY IT EOS\tO O a Intent") == (["PLAY", "IT"], ["O", "a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + text.splitlines()[0] + "\n", r"line 9: Ivy-snips-train-0 is on line 1 already"),
        (lambda text: text.replace("artist artist", "singer singer"), r"line 1: the slot singer is not in slots\.txt"),
        (lambda text: text.replace("\tO O artist", " O O artist"), r"line 1: must be"),
        (None, r"all\.iob\.snips\.txt cannot be read.*corpus\.path"),
    ],
)
def test_transcripts_that_cannot_be_used(tmp_path, change, message):
    corpus, keys = few(tmp_path)
    path = corpus / "all.iob.snips.txt"
    text = path.read_text()
    path.unlink()
    if change:
        path.write_text(change(text))
    with pytest.raises(DataError, match=message):
        build(DownstreamExpert, config_of(corpus, **keys), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("artist\nO", r"slots\.txt, line 1: must be `O`"),
        ("", r"slots\.txt, line 1: must be `O`"),
        ("O\n\nartist", r"slots\.txt, line 2: must be a slot type of its own, but is ''"),
        ("O\nartist\nartist", r"slots\.txt, line 3: must be a slot type of its own, but is 'artist'"),
        ("O\nan artist", r"slots\.txt, line 2: must be a slot type"),
        (None, r"slots\.txt cannot be read.*prepare sf"),
    ],
)
def test_slots_that_cannot_be_used(tmp_path, content, message):
    corpus, keys = few(tmp_path)
    block = config_of(corpus, **keys)
    (corpus / "slots.txt").unlink()
    if content is not None:
        (corpus / "slots.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        build(DownstreamExpert, block, tmp_path)


def test_the_slots_may_be_anywhere(tmp_path):
    corpus, keys = few(tmp_path)
    block = config_of(corpus, **keys)
    block["text"]["slots_file"] = str(shutil.move(corpus / "slots.txt", tmp_path / "labels.txt"))
    assert build(DownstreamExpert, block, tmp_path).label_state()[-2:] == ["B-artist ", " E-artist"]


def test_the_slots_may_be_those_of_the_corpus(snips, tmp_path):
    block = config_of(snips)
    expected = build(DownstreamExpert, block, tmp_path).label_state()
    for key in ("train", "valid", "test"):
        del block["corpus"][f"{key}_speakers"]  # SUPERB's
    del block["text"]["slots_file"], block["text"]["vocab_file"]
    assert build(DownstreamExpert, block, tmp_path).label_state() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": {"name": "libriphone"}}, "corpus.name` must be snips for this task, but is 'libriphone'"),
        ({"text": {"mode": "subword-slot"}}, "text.mode` must be character-slot for this task"),
        ({"text": {"stress": "keep"}}, "Unknown key in `downstream_expert.text`: 'stress'"),
        ({"corpus": {"dev": ["dev"]}}, r"corpus.dev` must begin with one of the folders train, valid, test.*\['dev'\]"),
        ({"corpus": {"dev": []}}, "corpus.dev` must begin with one of the folders"),
        ({"corpus": {"test_speakers": []}}, "corpus.test_speakers` must name a speaker"),
        ({"metric": ["slot_f1"]}, "Unknown metric in `downstream_expert.metric`: 'slot_f1'"),
        ({"metric_higher_better": False}, "metric_higher_better` must be true for slot_type_f1"),
    ],
)
def test_configs_that_cannot_be_used(snips, tmp_path, change, message):
    block = config_of(snips)
    for key, value in change.items():
        block[key] = {**block[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match=message):
        build(DownstreamExpert, block, tmp_path)


def test_audio_that_cannot_be_read(tmp_path):
    corpus, keys = few(tmp_path)
    (corpus / "test/Emma-snips-test-1.wav").write_bytes(b"no audio")
    soundfile.write(corpus / "train/Ivy-snips-train-1.wav", np.zeros(100), 16000)
    expert = build(DownstreamExpert, config_of(corpus, **keys), tmp_path)
    with pytest.raises(DataError, match=r"Emma-snips-test-1\.wav cannot be read"):
        list(expert.get_dataloader("test"))
    with pytest.raises(DataError, match=r"Ivy-snips-train-1\.wav has 100 samples, less than one frame"):
        expert.get_dataloader("train")
    expert = build(DownstreamExpert, config_of(corpus, skip_bad_audio=True, **keys), tmp_path)
    names = [names for _, *rest in expert.get_dataloader("test") for names in rest[1:]]
    assert sorted(names) == [("Brian-snips-test-0",), ("Brian-snips-test-1",), ("Emma-snips-test-0",)]
    assert {name for _, _, names in expert.get_dataloader("train") for name in names} == {"Ivy-snips-train-0"}


def test_other_sounds(tmp_path):
    corpus, keys = few(tmp_path)
    soundfile.write(corpus / "test/Emma-snips-test-0.wav", np.full((1000, 2), [0.5, 0.25]), 16000)
    soundfile.write(corpus / "test/Emma-snips-test-1.wav", np.full(500, 0.5), 8000)
    keys["test_speakers"] = ["Emma"]
    wavs = [wavs[0] for wavs, *_ in build(DownstreamExpert, config_of(corpus, **keys), tmp_path).get_dataloader("test")]
    assert [len(wav) for wav in wavs] == [1000, 1000]
    assert wavs[0] == pytest.approx(np.full(1000, 0.375), abs=1e-3)


def test_without_eos_in_the_targets(snips, tmp_path):
    targets = []
    for eos in (True, False):
        expert = build(DownstreamExpert, config_of(snips, text={"eos_in_targets": eos}), tmp_path)
        assert expert.protocol == {"windows": "overlapping", "half_window_rule": True, "eos_in_targets": eos}
        targets.append([one.target.tolist() for one in expert.datasets["test"].utterances])
    assert targets[0] == [[*target, 1] for target in targets[1]]


# Use.


def test_inference_says_words_and_slots(snips, tmp_path):
    trained = build(DownstreamExpert, config_of(snips), tmp_path)
    same_weights(trained, trained, scale=0.01)
    block = config_of(snips)
    block["corpus"]["path"] = block["text"]["slots_file"] = str(tmp_path / "nowhere")
    expert = build(DownstreamExpert, block, tmp_path, label_state=trained.label_state())
    expert.load_state_dict(trained.state_dict())
    slot, other = (token.split("-")[1].strip() for token in trained.label_state()[28:32:2])
    text = ["A", " ", f"B-{slot} ", "X", " ", "Y", f" E-{slot}", " ", f"B-{other} ", "Z", f" E-{other}", f"B-{slot} "]
    ids = [trained.tokens.ids[token] for token in text]
    features = features_of([ids, ids[:2]], len(trained.tokens), 0.0, torch.Generator())
    answers = expert.inference(features, ["a", "b"])
    assert answers == expert.predict(features)
    assert answers == [
        {"transcript": "A X Y Z", "slots": f"{slot}=X Y; {other}=Z"},
        {"transcript": "A", "slots": ""},
    ]
    nested = expert.answer("A B-a X  B-b Y E-a  E-c B")
    assert nested == {"transcript": "A X Y B", "slots": "a=X Y"}
    assert (tmp_path / "inference.ark").read_text() == f"a {''.join(text)}\nb A \n"


def test_s3prls_own_config_builds_it(snips, tmp_path, vocab_file):
    block = copy.deepcopy(S3PRLS)
    block["corpus"]["path"] = str(snips)
    block["text"].update(vocab_file=str(vocab_file), slots_file=str(snips / "slots.txt"))
    expert = DownstreamExpert(upstream_dim=4, upstream_rate=320, downstream_expert=block, expdir=str(tmp_path))
    assert expert.config.corpus.batch_size == 32
    assert [len(dataset) for dataset in expert.datasets.values()] == [48, 8, 8]


def test_the_shipped_config_is_superbs(snips, tmp_path):
    config = yaml.safe_load((shipped_configs() / "sf.yaml").read_text())
    assert config["runner"] == {
        "total_steps": 200000,
        "gradient_clipping": 1,
        "gradient_accumulate_steps": 1,
        "log_step": 100,
        "eval_step": 2000,
        "save_step": 500,
        "max_keep": 1,
        "eval_dataloaders": ["dev"],
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
    model = {key: value for key, value in S3PRLS["model"].items() if key != "Wav2Letter"}
    assert block["model"] == model
    for key in S3PRLS["corpus"].keys() - {"path"}:
        assert block["corpus"][key] == S3PRLS["corpus"][key]
    for key in ("metric", "metric_higher_better", "save_best_on"):
        assert block[key] == S3PRLS[key]
    block["corpus"]["path"] = str(snips)
    block["text"]["slots_file"] = str(snips / "slots.txt")
    expert = DownstreamExpert(upstream_dim=4, upstream_rate=320, downstream_expert=block, expdir=str(tmp_path))
    assert expert.protocol == {"windows": "overlapping", "half_window_rule": True, "eos_in_targets": True}
    assert DownstreamExpert.score.metric == "slot_type_f1"
    assert DownstreamExpert.score.higher_is_better


# Preparation.


def test_prepare_writes_the_slots(tmp_path):
    lines = [("ADD IT TO ROCK", "O O O b"), ("A B", "c a"), ("A", "c")]
    corpus = make(tmp_path / "corpus", lines)
    (corpus / "slots.txt").unlink()
    report = prepare(corpus)
    assert (corpus / "slots.txt").read_text() == "O\nc\na\nb"
    assert report[0] == f"train: 24 utterances of 8 speakers in {corpus}/train"
    assert report[3] == f"{corpus}/slots.txt: written, 3 slots"
    assert "slots_file" in report[-1]
    (corpus / "slots.txt").write_text("O\na\nb\nc\nd\n")
    assert "there already, 4 slots" in prepare(corpus)[3]
    assert (corpus / "slots.txt").read_text() == "O\na\nb\nc\nd\n"


def test_prepare_says_all_that_is_missing(tmp_path):
    corpus = make(tmp_path / "corpus", LINES)
    (corpus / "slots.txt").write_text("O\nsinger")
    for path in (corpus / "valid").glob("Geraint*"):
        path.unlink()
    transcripts = corpus / "all.iob.snips.txt"
    text = transcripts.read_text().replace("Russell-snips-test-0", "Nobody-snips-test-0")
    transcripts.write_text(text.replace("Nicole-snips-valid-0 BOS", "Nicole-snips-valid-0"))
    shutil.rmtree(corpus / "train")
    with pytest.raises(DataError) as caught:
        prepare(corpus)
    message = str(caught.value)
    for part in ("must be `<utterance> BOS", "train has no audio of Ivy", "and 2 more"):
        assert part in message
    corpus = make(tmp_path / "another", LINES)
    (corpus / "slots.txt").write_text("O\nsinger")
    for path in (corpus / "valid").glob("Geraint*"):
        path.unlink()
    (corpus / "all.iob.snips.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        prepare(corpus)
    message = str(caught.value)
    for part in ("valid has no audio of Geraint", "Russell-snips-test-0.wav has no line", "lacks the slot artist"):
        assert part in message
    (corpus / "slots.txt").unlink()
    with pytest.raises(DataError, match="Geraint"):
        prepare(corpus)
    assert not (corpus / "slots.txt").exists()
    with pytest.raises(DataError, match="nowhere is incomplete: the folder does not exist: it must hold train, valid"):
        prepare(tmp_path / "nowhere")
    transcripts.unlink()
    with pytest.raises(DataError, match=r"all\.iob\.snips\.txt cannot be read"):
        prepare(str(tmp_path / "corpus"))
