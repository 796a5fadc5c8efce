"""Intent classification, against S3PRL's own ``fluent_commands`` and by itself."""

import csv
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from torch.testing import assert_close

from downstream_tasks.heads import UtteranceLevel
from downstream_tasks.ic.dataset import FILES
from downstream_tasks.ic.expert import DownstreamExpert
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.s3prl_compat import import_s3prl
from tests.tasks.parity import features_of, run

S3PRLExpert = import_s3prl("s3prl.downstream.fluent_commands.expert").DownstreamExpert

SPLITS = ("train", "dev", "test")


def config_of(corpus, width=24):
    """The block of SUPERB's config, with batches that do not divide the splits."""
    return {
        "datarc": {"file_path": str(corpus), "num_workers": 0, "train_batch_size": 7, "eval_batch_size": 3},
        "modelrc": {"projector_dim": width, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}},
    }


def build(cls, corpus, expdir, width=24):
    expdir.mkdir(parents=True, exist_ok=True)
    return cls(upstream_dim=width, upstream_rate=320, downstream_expert=config_of(corpus, width), expdir=str(expdir))


def rows_of(corpus, split):
    with (corpus / "data" / FILES[split]).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def ours(fluent_commands, tmp_path):
    return build(DownstreamExpert, fluent_commands, tmp_path / "ours")


@pytest.fixture
def both(fluent_commands, tmp_path):
    """Our expert and S3PRL's, with the same weights: nearly the identity, so that features can state the logits."""
    width = sum(build(DownstreamExpert, fluent_commands, tmp_path / "ours").labels.sizes)
    ours, theirs = (
        build(cls, fluent_commands, tmp_path / cls.__module__, width) for cls in (DownstreamExpert, S3PRLExpert)
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in (ours.projector, ours.model.post_net.linear):
            layer.weight.copy_(torch.eye(width) + 0.1 * torch.randn(width, width))
            layer.bias.copy_(0.1 * torch.randn(width))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_vocabularies_are_s3prls(both):
    ours, theirs = both
    assert ours.labels.sizes == theirs.values_per_slot
    for slot, values in ours.labels.values.items():
        assert {index: theirs.Sy_intent[slot][index] for index in range(len(values))} == dict(enumerate(values))


@pytest.mark.parametrize("split", SPLITS)
def test_batches_are_s3prls(both, split, s3prls_order):
    batches = []
    for expert in both:
        torch.manual_seed(3)
        batches.append([tuple(map(tuple, batch)) for batch in expert.get_dataloader(split)])
    for (wavs, labels, names), (their_wavs, their_labels, their_names) in zip(*batches, strict=True):
        assert names == their_names
        assert np.array_equal(labels, their_labels)
        assert all(np.array_equal(*pair) for pair in zip(wavs, their_wavs, strict=True))


@pytest.mark.parametrize("split", SPLITS)
def test_loss_and_accuracy_are_s3prls(both, split, s3prls_order):
    ours, theirs = both
    sizes = ours.labels.sizes
    losses, scalars, _ = run(ours, split, 1.0, sizes, step=5)
    their_losses, their_scalars, _ = run(theirs, split, 1.0, sizes, step=5)
    assert_close(losses, their_losses, rtol=1e-5, atol=1e-5)
    assert scalars == pytest.approx(their_scalars, rel=1e-5)
    assert set(scalars) == {(f"fluent_commands/{split}-{key}", 5) for key in ("acc", "intent_loss")}
    assert 0 < scalars[f"fluent_commands/{split}-acc", 5] < 1  # else the comparison says little


def test_gradients_are_s3prls(both):
    sizes = both[0].labels.sizes
    _, labels, names = next(iter(both[0].get_dataloader("dev")))
    for expert in both:
        features = features_of(labels, sizes, 1.0, torch.Generator().manual_seed(2))
        expert("train", features, labels, names, records=defaultdict(list)).backward()
    for (name, parameter), theirs in zip(both[0].named_parameters(), both[1].parameters(), strict=True):
        assert_close(parameter.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_best_on_dev_is_s3prls(both):
    sizes = both[0].labels.sizes
    assert [run(expert, "test", 0.0, sizes, 0)[2] for expert in both] == [[], []]  # test never decides
    noises = (2.0, 2.0, 0.1, 2.0)  # a tie is not better, nor is worse
    decisions = [[run(expert, "dev", noise, sizes, step)[2] for step, noise in enumerate(noises)] for expert in both]
    assert decisions[0] == decisions[1] == [["dev-best.ckpt"], [], ["dev-best.ckpt"], []]
    assert torch.equal(both[0].best_score, both[1].best_score)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_predictions_are_s3prls_and_each_utterance_is_there_once(both, fluent_commands, split):
    files = (f"{split}_predict.csv", f"{split}_truth.csv")
    contents = []
    for expert in both:
        run(expert, split, 1.0, both[0].labels.sizes, step=1)
        contents.append([(Path(expert.expdir) / file).read_text() for file in files])
    assert contents[0] == contents[1]
    predicted, truth = ([line.split(",") for line in text.splitlines()] for text in contents[0])
    assert predicted != truth
    rows = rows_of(fluent_commands, split)
    assert truth == [[Path(row["path"]).stem, row["action"], row["object"], row["location"]] for row in rows]
    assert [line[0] for line in predicted] == [line[0] for line in truth]
    assert max(Counter(line[0] for line in predicted).values()) == 1


def test_training_keeps_and_writes_no_predictions(ours):
    run(ours, "train", 1.0, ours.labels.sizes, step=1)
    assert not list(ours.expdir.iterdir())
    records = defaultdict(list)
    ours("train", [torch.randn(5, 24)], [np.zeros(3, dtype=np.int64)], ["a"], records=records)
    assert set(records) == {"acc", "intent_loss"}
    assert all(isinstance(value, torch.Tensor) for key in records for value in records[key])  # read when it is logged


def test_training_sees_each_utterance_once_in_an_order_of_its_own(ours, fluent_commands):
    """The order changes from epoch to epoch and from seed to seed, and with nothing else."""
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        ours.seed = seed
        orders.append([name for _, _, names in ours.get_dataloader("train", epoch=epoch) for name in names])
    stems = [Path(row["path"]).stem for row in rows_of(fluent_commands, "train")]
    assert all(sorted(order) == sorted(stems) for order in orders)
    assert len({tuple(order) for order in (*orders[:3], stems)}) == 4
    assert orders[3] == orders[0]


def test_the_head_does_not_see_padding():
    head = UtteranceLevel(4, 3)
    features, lengths = torch.randn(2, 5, 4), torch.tensor([3, 5])
    logits = head(features, lengths)
    assert_close(logits[:1], head(features[:1, :3], torch.tensor([3])))
    assert_close(logits[0], head.post_net(features[0, :3].mean(dim=0)))
    features[0, 3:] = float("nan")
    assert_close(head(features, lengths), logits)


def test_an_utterance_without_frames_has_no_nan(ours):
    head = UtteranceLevel(4, 3)
    assert_close(head(torch.randn(2, 5, 4), torch.tensor([5, 0]))[1], head.post_net.linear.bias)
    records = defaultdict(list)
    for features in ([torch.randn(5, 24), torch.zeros(0, 24)], [torch.zeros(0, 24)] * 2):
        loss = ours("dev", features, torch.zeros(2, 3, dtype=torch.long), ("a", "b"), records=records)
        assert torch.isfinite(loss)


def test_inference_names_the_slots_and_appends(ours):
    with torch.no_grad():
        ours.projector.weight.zero_()
        ours.model.post_net.linear.bias[ours.labels.sizes[0] + 2] += 100  # the third object
    (answer,) = ours.inference([torch.randn(7, 24)], ["a"])
    ours.inference([torch.randn(3, 24)], ["b"])
    assert list(answer) == ["action", "object", "location"]
    assert answer["object"] == ours.labels.values["object"][2]
    written = (ours.expdir / "inference.csv").read_text().splitlines()
    assert written == [",".join([name, *answer.values()]) for name in "ab"]


@pytest.fixture
def corpus(fluent_commands, tmp_path):
    """A copy without wavs, to be spoilt."""
    shutil.copytree(fluent_commands / "data", tmp_path / "corpus" / "data")
    return tmp_path / "corpus"


def write_rows(corpus, split, rows):
    with (corpus / "data" / FILES[split]).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "action", "object", "location"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def test_a_missing_corpus_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.data.train_data\.csv does not exist.*datarc\.file_path.*mini-superb"):
        build(DownstreamExpert, tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize(("split", "file"), FILES.items())
def test_a_missing_split_is_an_error(corpus, tmp_path, split, file):
    (corpus / "data" / file).unlink()
    with pytest.raises(DataError, match=f"{file} does not exist"):
        build(DownstreamExpert, corpus, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column path, action, object, location"),
        ("path,action,location\n", "has no column object"),
        ("path,action,object,location\n", "holds no command"),
        ("path,action,object,location\na.wav,bring,,none\n", "line 2: a value is missing"),
        ("path,action,object,location\na.wav,bring,socks\n", "line 2: a value is missing"),
        (b"path,action,object,location\na.wav,\xff,socks,none\n", "cannot be read"),
    ],
)
def test_a_malformed_csv_is_an_error_that_names_it(corpus, tmp_path, text, message):
    (corpus / "data" / "valid_data.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"valid_data\.csv.*{message}"):
        build(DownstreamExpert, corpus, tmp_path)


def test_a_value_that_training_does_not_have_is_an_error(corpus, tmp_path):
    row = rows_of(corpus, "dev")[0] | {"path": "wavs/new.wav", "object": "tuba"}
    write_rows(corpus, "dev", [row])
    with pytest.raises(DataError, match=r"new\.wav: object 'tuba' does not occur in train_data\.csv"):
        build(DownstreamExpert, corpus, tmp_path)


def test_a_missing_wav_is_an_error_that_names_it(corpus, tmp_path):
    expert = build(DownstreamExpert, corpus, tmp_path)
    name = Path(rows_of(corpus, "dev")[0]["path"]).name
    with pytest.raises(DataError, match=f"{name} cannot be read: it does not exist"):
        next(iter(expert.get_dataloader("dev")))


def test_words_that_pandas_takes_for_nothing_are_kept(corpus, tmp_path):
    words = ["none", "null", "NA", "None", "nan", "n/a"]
    rows = [{"path": f"{i}.wav", "action": word, "object": word, "location": word} for i, word in enumerate(words)]
    for split in SPLITS:
        write_rows(corpus, split, rows)
    expert = build(DownstreamExpert, corpus, tmp_path)
    assert list(expert.labels.values.values()) == [words] * 3
    assert [expert.labels.decode(label.tolist())[0] for label in expert.datasets["test"].labels] == words


def test_a_csv_with_a_byte_order_mark_is_read(corpus, tmp_path):
    path = corpus / "data" / "test_data.csv"
    write_rows(corpus, "test", rows_of(corpus, "test"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(build(DownstreamExpert, corpus, tmp_path).datasets["test"]) == 10


def test_a_wav_of_another_rate_gives_16_khz(corpus, tmp_path):
    rows = rows_of(corpus, "dev")[:1]
    path = corpus / rows[0]["path"]
    path.parent.mkdir(parents=True)
    soundfile.write(path, np.zeros(4000), 8000)
    write_rows(corpus, "dev", rows)
    wavs, _, _ = next(iter(build(DownstreamExpert, corpus, tmp_path).get_dataloader("dev")))
    assert len(wavs[0]) == 8000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datarc": {"file_pth": "."}}, r"`downstream_expert\.datarc`: 'file_pth'\. Did you mean 'file_path'"),
        ({"datarc": {}}, r"`downstream_expert\.datarc\.file_path` is missing"),
        (
            {"datarc": {"file_path": ".", "num_workers": "4"}},
            r"`downstream_expert\.datarc\.num_workers` must be of type int",
        ),
        ({"modelrc": {"projector_dims": 8}}, "Did you mean 'projector_dim'"),
        ({"modelrc": {"select": "FrameLevel"}}, "must be one of UtteranceLevel"),
        ({"datar": {}}, "`downstream_expert`: 'datar'. Did you mean 'datarc'"),
    ],
)
def test_a_config_that_does_not_fit_is_an_error(fluent_commands, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        DownstreamExpert(4, downstream_expert=config_of(fluent_commands) | change, expdir=str(tmp_path))


def test_an_unknown_split_is_an_error(ours):
    with pytest.raises(KeyError):
        ours.get_dataloader("dev-clean")


def test_defaults_are_superbs(fluent_commands, tmp_path):
    expert = DownstreamExpert(
        8, downstream_expert={"datarc": {"file_path": str(fluent_commands)}}, expdir=str(tmp_path)
    )
    assert (expert.loader.num_workers, expert.loader.train_batch_size, expert.loader.eval_batch_size) == (12, 32, 32)
    assert isinstance(expert.projector, nn.Linear)
    assert expert.projector.out_features == 256
    assert expert.protocol == {"accuracy": "pooled"}
