"""Keyword spotting, against S3PRL's own ``speech_commands`` and by itself."""

import hashlib
import logging
import random
import re
import shutil
import sys
import types
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from sklearn.metrics import balanced_accuracy_score
from torch.testing import assert_close

from downstream_tasks.ks import expert as ks_expert
from downstream_tasks.ks.dataset import CLASSES, KeywordDataset, read_corpus, split_of
from downstream_tasks.ks.expert import DownstreamExpert
from downstream_tasks.loading import generator_of
from downstream_tasks.utterance_level import balanced_accuracy
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments
from s3prl_interfaces.runner import run as run_task
from s3prl_interfaces.runner.config import shipped_configs
from s3prl_interfaces.s3prl_compat import import_s3prl
from tests.tasks.parity import features_of, run

SPLITS = ("train", "dev", "test")
SIZES = [12]
TRAIN, TEST = "speech_commands_v0.01", "speech_commands_test_set_v0.01"
ORDER = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "_unknown_", "_silence_"]


def config_of(corpus, **datarc):
    """S3PRL's block, with batches that do not divide the splits."""
    return {
        "datarc": {
            "speech_commands_root": str(corpus / TRAIN),
            "speech_commands_test_root": str(corpus / TEST),
            "num_workers": 0,
            "batch_size": 5,
            **datarc,
        },
        "modelrc": {"projector_dim": 12, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}},
    }


def build(cls, corpus, expdir, seed=1337, **datarc):
    expdir.mkdir(parents=True, exist_ok=True)
    block = config_of(corpus, **datarc)
    return cls(upstream_dim=12, upstream_rate=320, downstream_expert=block, expdir=str(expdir), seed=seed)


def names_of(expert, split, **epoch):
    return [name for *_, names in expert.get_dataloader(split, **epoch) for name in names]


class SortedPath(type(Path())):
    """A disk that lists its folders in alphabetical order."""

    def iterdir(self):
        return iter(sorted(super().iterdir()))

    def glob(self, pattern):
        return iter(sorted(super().glob(pattern)))


class ReversedPath(SortedPath):
    def iterdir(self):
        return iter(sorted(super().iterdir(), reverse=True))

    def glob(self, pattern):
        return iter(sorted(super().glob(pattern), reverse=True))


@pytest.fixture
def s3prl_modules(monkeypatch):
    """S3PRL's modules, given a catalyst (used on several GPUs only), a sox, and a disk in alphabetical order."""
    sampler = types.ModuleType("catalyst.data.sampler")
    sampler.DistributedSamplerWrapper = None
    for name in ("catalyst", "catalyst.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "catalyst.data.sampler", sampler)
    expert = import_s3prl("s3prl.downstream.speech_commands.expert")
    dataset = import_s3prl("s3prl.downstream.speech_commands.dataset")

    def apply_effects_file(path, effects):
        """What sox does to a file of one channel and 16 kHz."""
        assert effects == [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]]
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
        assert (samples.shape[1], rate) == (1, 16000)
        return torch.tensor(np.rint(samples.T * 2**31 * 10 ** (-3 / 20)) / 2**31, dtype=torch.float32), rate

    monkeypatch.setattr(dataset, "apply_effects_file", apply_effects_file)
    for module in (expert, dataset):
        monkeypatch.setattr(module, "Path", SortedPath)
    return expert, dataset


@pytest.fixture
def s3prl_expert(s3prl_modules):
    return s3prl_modules[0].DownstreamExpert


@pytest.fixture
def s3prls_draws(monkeypatch, s3prls_order):
    """Draw from PyTorch's global generator, after what S3PRL's loader takes from it for its workers."""

    def generator_of(seed, split, epoch):
        torch.empty((), dtype=torch.int64).random_()
        return torch.Generator().set_state(torch.get_rng_state())

    monkeypatch.setattr(ks_expert, "generator_of", generator_of)


@pytest.fixture
def ours(speech_commands, tmp_path):
    return build(DownstreamExpert, speech_commands, tmp_path / "ours")


@pytest.fixture
def both(speech_commands, tmp_path, s3prl_expert):
    """Our expert and S3PRL's, with the same weights: nearly the identity, so that features can state the logits."""
    ours = build(DownstreamExpert, speech_commands, tmp_path / "ours")
    theirs = build(s3prl_expert, speech_commands, tmp_path / "theirs")
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in (ours.projector, ours.model.post_net.linear):
            layer.weight.copy_(torch.eye(12) + 0.1 * torch.randn(12, 12))
            layer.bias.copy_(0.1 * torch.randn(12))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


# Against S3PRL.


def test_checkpoints_load_both_ways(both):
    ours, theirs = both
    shapes = [{name: value.shape for name, value in expert.state_dict().items()} for expert in both]
    assert shapes[0] == shapes[1]
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("split", SPLITS)
def test_batches_are_s3prls(both, split, s3prls_draws):
    batches = []
    for expert in both:
        torch.manual_seed(3)
        batches.append([tuple(map(tuple, batch)) for batch in expert.get_dataloader(split)])
    assert len(batches[0]) == len(batches[1]) > 2
    for (wavs, ids, names), (their_wavs, their_ids, their_names) in zip(*batches, strict=True):
        assert names == their_names
        assert [int(row[0]) for row in ids] == list(their_ids)
        for wav, theirs, name in zip(wavs, their_wavs, names, strict=True):
            assert wav.dtype == theirs.dtype == np.float32
            assert wav.shape == theirs.shape
            if not name.startswith("_background_noise_"):  # whose crops are at random
                assert_close(torch.from_numpy(wav), torch.from_numpy(theirs), rtol=0, atol=1e-7)
    sizes = [len(names) for *_, names in batches[0]]
    assert set(sizes[:-1]) == {5}
    assert (sizes[-1] == 5) == (split == "train")


@pytest.mark.parametrize("split", SPLITS)
def test_clips_and_crops_are_s3prls(both, split):
    dataset, theirs = both[0].datasets[split], getattr(both[1], f"{split}_dataset")
    assert len(dataset) == len(theirs)
    cropped = 0
    for index in range(len(dataset)):
        items = []
        for one in (dataset, theirs):
            random.seed(index)
            items.append(one[index])
        (wav, ids, name), (their_wav, their_id, their_name) = items
        assert (ids.tolist(), ids.dtype, name) == ([their_id], np.int64, their_name)
        assert_close(torch.from_numpy(wav), torch.from_numpy(their_wav), rtol=0, atol=1e-7)
        cropped += len(soundfile.read(dataset.clips[index].path)[0]) > len(wav)
    assert cropped == (5 if split != "test" else 0)


def test_weights_are_s3prls(both):
    for split in ("train", "dev"):
        assert both[0].datasets[split].weights == getattr(both[1], f"{split}_dataset").sample_weights


@pytest.mark.parametrize("split", SPLITS)
def test_loss_and_accuracy_are_s3prls(both, split, s3prls_draws):
    (losses, scalars, _), (their_losses, their_scalars, _) = [run(expert, split, 1.5, SIZES, step=1) for expert in both]
    assert_close(losses, their_losses, atol=1e-5, rtol=1e-5)
    assert set(their_scalars) == {(f"speech_commands/{split}-{key}", 1) for key in ("acc", "loss")}
    assert {key: scalars[key] for key in their_scalars} == pytest.approx(their_scalars, abs=1e-5)
    more = {(f"speech_commands/{split}-balanced_acc", 1)} if split != "train" else set()
    assert set(scalars) - set(their_scalars) == more
    assert 0 < scalars[f"speech_commands/{split}-acc", 1] < 1


def test_gradients_are_s3prls(both):
    _, ids, names = next(iter(both[0].get_dataloader("train")))
    labels = [int(row[0]) for row in ids]
    for expert, given in zip(both, (ids, labels), strict=True):
        features = features_of(labels, SIZES, 1.0, torch.Generator().manual_seed(2))
        expert("train", features, given, names, records=defaultdict(list)).backward()
    for (name, parameter), theirs in zip(both[0].named_parameters(), both[1].parameters(), strict=True):
        assert_close(parameter.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_best_on_dev_is_s3prls(both, s3prls_draws):
    assert [run(expert, "test", 0.0, SIZES, 0)[2] for expert in both] == [[], []]  # test never decides
    noises = (2.0, 2.0, 0.1, 2.0)  # a tie is not better, nor is worse
    decisions = [[run(expert, "dev", noise, SIZES, step)[2] for step, noise in enumerate(noises)] for expert in both]
    assert decisions[0] == decisions[1] == [["dev-best.ckpt"], [], ["dev-best.ckpt"], []]
    assert torch.equal(both[0].best_score, both[1].best_score)


@pytest.mark.parametrize("split", SPLITS)
def test_predictions_are_s3prls(both, split, s3prls_draws, tmp_path):
    """S3PRL writes those of training, too (D24)."""
    for expert in both:
        run(expert, split, 1.0, SIZES, step=1)
    for kind in ("predict", "truth"):
        text = (tmp_path / "theirs" / f"{split}_{kind}.txt").read_text()
        if split == "train":
            assert not list((tmp_path / "ours").iterdir())
            continue
        assert text == (tmp_path / "ours" / f"{split}_{kind}.txt").read_text()
        assert all(re.fullmatch(r"\w+-\w+\.wav \w+", line) for line in text.splitlines())


def test_the_order_of_the_disk_does_not_count(speech_commands, tmp_path, s3prl_modules, monkeypatch, s3prls_draws):
    """D24: S3PRL's draws depend on the order in which the file system lists the corpus."""
    draws = {}
    for cls in (DownstreamExpert, s3prl_modules[0].DownstreamExpert):
        for path in (SortedPath, ReversedPath):
            for module in s3prl_modules:
                monkeypatch.setattr(module, "Path", path)
            monkeypatch.setattr(ks_expert, "Path", path)
            expert = build(cls, speech_commands, tmp_path)
            torch.manual_seed(3)
            draws[cls, path] = names_of(expert, "dev")
    assert draws[DownstreamExpert, SortedPath] == draws[DownstreamExpert, ReversedPath]
    theirs = s3prl_modules[0].DownstreamExpert
    assert draws[DownstreamExpert, SortedPath] == draws[theirs, SortedPath] != draws[theirs, ReversedPath]


def test_noise_of_less_than_a_second_is_given_whole(corpus, tmp_path, s3prl_expert):
    """D24: S3PRL cannot crop it."""
    soundfile.write(corpus / TRAIN / "_background_noise_" / "click.wav", np.full(8000, 0.5), 16000)
    soundfile.write(corpus / TRAIN / "_background_noise_" / "clock.wav", np.full(16000, 0.5), 16000)
    expert = build(DownstreamExpert, corpus, tmp_path)
    theirs = build(s3prl_expert, corpus, tmp_path)
    for split in ("train", "dev"):
        dataset = expert.datasets[split]
        places = {clip.name: index for index, clip in enumerate(dataset.clips)}
        wav, ids, _ = dataset[places["_background_noise_-click.wav"]]
        assert (len(wav), ids.tolist()) == (8000, [11])
        assert len(dataset[places["_background_noise_-clock.wav"]][0]) == 16000
        with pytest.raises(ValueError, match="empty range"):
            getattr(theirs, f"{split}_dataset")[places["_background_noise_-click.wav"]]


def test_a_second_of_silence_may_begin_anywhere_and_words_are_never_cropped(corpus, tmp_path):
    path = corpus / TRAIN / "_background_noise_" / "click.wav"
    soundfile.write(path, np.arange(16002) / 32768, 16000)
    word = next(path for path in sorted((corpus / TRAIN / "yes").iterdir()) if split_of(path.name) == "train")
    soundfile.write(word, np.zeros(20000), 16000)
    dataset = build(DownstreamExpert, corpus, tmp_path).datasets["train"]
    places = {clip.path: index for index, clip in enumerate(dataset.clips)}
    random.seed(0)
    starts = Counter(round(float(dataset[places[path]][0][0]) * 32768 / 10 ** (-3 / 20)) for _ in range(30))
    assert set(starts) == {0, 1, 2}
    assert len(dataset[places[word]][0]) == 20000


# The corpus and its splits.


def test_classes_are_in_s3prls_order(ours):
    assert list(CLASSES) == ORDER
    assert ours.labels.sizes == [12]
    assert [ours.labels.decode([index]) for index in range(12)] == [(name,) for name in ORDER]


def test_the_split_is_the_corpus_rule():
    """As the plain formula; with names on either side of its borders."""
    names = [f"{number:08x}_nohash_{number % 3}.wav" for number in range(3000)]
    for name in [*names, "without.wav", "a_nohash_b_nohash_1.wav"]:
        speaker = re.sub("_nohash_.*$", "", name)
        percent = (int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % 2**27) * (100 / (2**27 - 1))
        assert split_of(name) == ("dev" if percent < 10 else "unused" if percent < 20 else "train")
    counts = Counter(map(split_of, names))
    assert counts["dev"] == pytest.approx(300, abs=60)
    assert counts["unused"] == pytest.approx(300, abs=60)


def test_each_clip_is_where_it_belongs(speech_commands):
    corpus = read_corpus(speech_commands / TRAIN, speech_commands / TEST)
    found = {split: {str(clip.path) for clip in clips} for split, clips in corpus.words.items()}
    files = [str(path) for path in (speech_commands / TRAIN).glob("[a-z]*/*.wav")]
    assert sum(map(len, found.values())) == len(files)
    assert set().union(*found.values()) == set(files)
    for split, clips in corpus.words.items():
        for clip in clips:
            assert split_of(clip.path.name) == split
            assert clip.label == (clip.path.parent.name if clip.path.parent.name in ORDER else "_unknown_")
    assert [clip.label for clip in corpus.noises] == ["_silence_"] * 5
    assert Counter(clip.label for clip in corpus.test) == dict.fromkeys(ORDER, 1)


def test_every_clip_is_3_db_quieter(ours):
    for split in SPLITS:
        clip = ours.datasets[split].clips[0]
        samples, _ = soundfile.read(clip.path)
        assert_close(ours.datasets[split][0][0], (samples * 0.7079457843841379).astype(np.float32))
        assert_close(ours.transform(samples.astype(np.float32)), ours.datasets[split][0][0])


# What is drawn.


def test_train_and_dev_are_drawn_class_by_class(speech_commands, tmp_path):
    """SUPERB: with replacement, so dev has some clips twice and others never; test has each once."""
    counts = {split: Counter() for split in ("train", "dev")}
    for seed in range(40):
        expert = build(DownstreamExpert, speech_commands, tmp_path, seed=seed)
        for split, total in counts.items():
            items = [index for batch in expert.batches(split, 0) for index in batch]
            clips = expert.datasets[split].clips
            size = len(clips)
            assert len(items) == (size // 5 * 5 if split == "train" else size)
            total.update(clips[index].label for index in items)
    for total in counts.values():
        for label in ORDER:  # a third more or less is some three standard deviations
            assert total[label] / sum(total.values()) == pytest.approx(1 / 12, rel=0.33)
    drawn = Counter(names_of(expert, "dev"))
    assert max(drawn.values()) > 1
    assert set(drawn) < {clip.name for clip in expert.datasets["dev"].clips}
    assert Counter(names_of(expert, "test")) == dict.fromkeys((clip.name for clip in expert.datasets["test"].clips), 1)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_plain_sampling_has_each_clip_once(speech_commands, tmp_path, split):
    expert = build(DownstreamExpert, speech_commands, tmp_path, **{f"{split}_sampling": "plain"})
    assert expert.protocol[f"{split}_sampling"] == "plain"
    names = [clip.name for clip in expert.datasets[split].clips]
    drawn = names_of(expert, split)
    assert sorted(drawn) == sorted(names)
    assert (drawn == names) == (split == "dev")
    other = "dev" if split == "train" else "train"
    assert max(Counter(names_of(expert, other)).values()) > 1


def test_draws_depend_on_seed_and_epoch_alone(speech_commands, tmp_path):
    first, second, other = (build(DownstreamExpert, speech_commands, tmp_path, seed=seed) for seed in (1, 1, 2))
    dev = [[wav.tobytes() for wavs, *_ in first.get_dataloader("dev") for wav in wavs]]
    epochs = [names_of(first, "train", epoch=epoch) for epoch in (0, 1)]
    dev.append([wav.tobytes() for wavs, *_ in first.get_dataloader("dev") for wav in wavs])
    assert dev[0] == dev[1]  # at every evaluation, crops included
    assert epochs[0] != epochs[1]
    torch.manual_seed(5)
    random.seed(5)
    assert names_of(second, "train", epoch=1) == epochs[1]
    assert names_of(second, "dev") == names_of(first, "dev") != names_of(other, "dev")
    weights = torch.tensor(first.datasets["dev"].weights, dtype=torch.float64)
    draws = torch.multinomial(weights, len(weights), replacement=True, generator=generator_of(1, "dev", 0)).tolist()
    assert names_of(first, "dev") == [first.datasets["dev"].clips[index].name for index in draws]


def test_noise_can_be_held_out(speech_commands, tmp_path):
    noises = {}
    for dev_noise in ("shared", "held_out"):
        expert = build(DownstreamExpert, speech_commands, tmp_path, dev_noise=dev_noise)
        assert expert.protocol["dev_noise"] == dev_noise
        noises[dev_noise] = {
            split: [clip.path.stem for clip in expert.datasets[split].clips if clip.label == "_silence_"]
            for split in ("train", "dev")
        }
    names = ["exercise_bike", "mains_hum", "pink_noise", "running_tap", "white_noise"]
    assert noises["shared"] == {"train": names, "dev": names}
    assert noises["held_out"] == {"train": names[::2], "dev": names[1::2]}


def test_the_protocol_is_superbs_by_default(ours):
    assert ours.protocol == {
        "accuracy": "pooled",
        "train_sampling": "balanced",
        "dev_sampling": "balanced",
        "dev_noise": "shared",
    }


# Balanced accuracy.


def test_balanced_accuracy_is_the_mean_recall():
    truth = ["a", "a", "a", "b", "c", "c"]
    guess = ["a", "a", "d", "b", "a", "a"]
    assert balanced_accuracy(guess, truth) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert np.isnan(balanced_accuracy([], []))
    generator = np.random.default_rng(0)
    for classes in (2, 5, 12):
        truth, guess = generator.integers(0, classes, (2, 50)).tolist()
        assert balanced_accuracy(guess, truth) == pytest.approx(balanced_accuracy_score(truth, guess))


@pytest.mark.parametrize("split", ["dev", "test"])
def test_balanced_accuracy_of_a_split(ours, split):
    _, scalars, _ = run(ours, split, 1.5, SIZES, step=1)
    truth, guess = (
        [line.split()[1] for line in (ours.expdir / f"{split}_{kind}.txt").read_text().splitlines()]
        for kind in ("truth", "predict")
    )
    recalls = [
        np.mean([one == label for one, actual in zip(guess, truth, strict=True) if actual == label])
        for label in set(truth)
    ]
    assert scalars[f"speech_commands/{split}-balanced_acc", 1] == pytest.approx(np.mean(recalls))
    assert 0 < np.mean(recalls) < 1


# Use.


def test_inference_names_the_keyword(ours):
    with torch.no_grad():
        for layer in (ours.projector, ours.model.post_net.linear):
            layer.weight.copy_(torch.eye(12))
            layer.bias.zero_()
        features = [torch.eye(12)[[3, 3]], torch.eye(12)[[11]]]
        predicted = ours.predict(features)
        assert not list(ours.expdir.iterdir())
        answers = ours.inference(features, ["one", "two"])
    assert predicted == answers == [{"keyword": "down"}, {"keyword": "_silence_"}]
    assert (ours.expdir / "inference.txt").read_text() == "one down\ntwo _silence_\n"


def test_an_unknown_split_is_an_error(ours):
    for split in ("valid", "unused"):
        with pytest.raises(KeyError):
            ours.get_dataloader(split)


def test_a_run_says_what_the_protocol_was(speech_commands, tmp_path):
    datarc = "config.downstream_expert.datarc"
    where = f"{datarc}.speech_commands_root={speech_commands / TRAIN},,"
    where += f"{datarc}.speech_commands_test_root={speech_commands / TEST},,{datarc}.dev_sampling=plain"
    run_task(
        RunArguments(
            mode="train",
            upstream=str(Path(__file__).parents[2] / "scripts/demo_upstream.py") + ":build",
            downstream="speech_commands",
            config=["configs/ks.yaml", "configs/mini/ks.yaml"],
            override=f"{where},,config.runner.total_steps=2",
            expdir=str(tmp_path / "run"),
            device="cpu",
        )
    )
    result = read_result(tmp_path / "run/results.json")
    assert result.task == "ks"
    assert result.protocol == {
        "accuracy": "pooled",
        "train_sampling": "balanced",
        "dev_sampling": "plain",
        "dev_noise": "shared",
    }
    assert result.counts == {"dev": 23, "test": 12}
    assert set(result.metrics["test"]) == {"acc", "balanced_acc", "loss", "step"}


# What a user can get wrong.


@pytest.fixture
def corpus(speech_commands, tmp_path):
    """A copy, to be spoilt."""
    return Path(shutil.copytree(speech_commands, tmp_path / "corpus"))


def test_what_is_missing_is_named_all_at_once(corpus, tmp_path):
    shutil.rmtree(corpus / TRAIN / "yes")
    for path in (corpus / TRAIN / "go").iterdir():
        path.rename(path.with_name(f".{path.name}"))
    shutil.rmtree(corpus / TRAIN / "_background_noise_")
    with pytest.raises(
        DataError, match=rf"{TRAIN} is incomplete: no wav in yes/; no wav in go/; no wav in _background"
    ):
        build(DownstreamExpert, corpus, tmp_path)


def test_unknown_words_are_needed(corpus, tmp_path):
    for folder in (corpus / TRAIN).iterdir():
        if folder.name not in (*ORDER, "_background_noise_"):
            shutil.rmtree(folder)
    with pytest.raises(DataError, match="no wav of any word that is not a keyword"):
        build(DownstreamExpert, corpus, tmp_path)


def test_the_test_set_has_twelve_classes(corpus, tmp_path):
    shutil.rmtree(corpus / TEST / "_silence_")
    (corpus / TEST / "bird").mkdir()
    (corpus / TEST / ".cache").mkdir()
    with pytest.raises(DataError, match=r"no wav in _silence_/; bird/ is not one of the test set's twelve classes\.$"):
        build(DownstreamExpert, corpus, tmp_path)


@pytest.mark.parametrize("key", ["speech_commands_root", "speech_commands_test_root"])
def test_a_missing_folder_names_its_key(speech_commands, tmp_path, key):
    with pytest.raises(DataError, match=f"nowhere is incomplete: the folder does not exist: `{key}`"):
        build(DownstreamExpert, speech_commands, tmp_path, **{key: str(tmp_path / "nowhere")})


def test_a_split_without_clips_is_an_error(corpus, tmp_path):
    for path in (corpus / TRAIN).glob("[a-z]*/*.wav"):
        if split_of(path.name) == "dev":
            path.unlink()
    with pytest.raises(DataError, match="no clip is of split dev by its name"):
        build(DownstreamExpert, corpus, tmp_path)


def test_noise_cannot_be_held_out_of_one(corpus, tmp_path):
    for path in sorted((corpus / TRAIN / "_background_noise_").iterdir())[1:]:
        path.unlink()
    build(DownstreamExpert, corpus, tmp_path)
    with pytest.raises(DataError, match="has one background noise: `dev_noise: held_out` needs two"):
        build(DownstreamExpert, corpus, tmp_path, dev_noise="held_out")


@pytest.mark.parametrize(
    ("datarc", "message"),
    [
        ({"batch_size": 1000}, "`downstream_expert.datarc.batch_size` 1000 leaves no whole batch of the 41 training"),
        ({"train_batch_size": 32}, "Did you mean 'batch_size'"),
        ({"dev_sampling": "fair"}, "dev_sampling` must be one of balanced, plain"),
        ({"dev_noise": True}, "dev_noise` must be one of shared, held_out"),
    ],
)
def test_configs_that_cannot_be_used(speech_commands, tmp_path, datarc, message):
    with pytest.raises(ConfigError, match=message):
        build(DownstreamExpert, speech_commands, tmp_path, **datarc)


def test_a_batch_may_be_larger_than_a_plain_split(speech_commands, tmp_path):
    expert = build(DownstreamExpert, speech_commands, tmp_path, batch_size=1000, train_sampling="plain")
    assert [len(names) for *_, names in expert.get_dataloader("train")] == [41]


def test_a_bad_clip_is_an_error_or_skipped_and_counted(corpus, tmp_path, caplog):
    """With replacement, what is counted is draws: one bad clip may be drawn twice, or not at all."""
    bad = sorted((corpus / TEST / "on").iterdir()) + list((corpus / TRAIN / "_background_noise_").iterdir())
    for path in bad:
        path.write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"on/\w+\.wav cannot be read"):
        names_of(build(DownstreamExpert, corpus, tmp_path), "test")
    expert = build(DownstreamExpert, corpus, tmp_path, skip_bad_audio=True)
    clips = expert.datasets["dev"].clips
    silent = [clips[index].label for batch in expert.batches("dev", 0) for index in batch].count("_silence_")
    assert silent > 0
    with caplog.at_level(logging.WARNING):
        for split in ("dev", "test"):
            run(expert, split, 1.0, SIZES, step=1)
    told = [record.getMessage() for record in caplog.records if "were left out" in record.getMessage()]
    assert told == [f"dev: {silent} of 23 draws were left out.", "test: 1 of 12 utterances were left out."]
    assert len((tmp_path / "test_truth.txt").read_text().splitlines()) == 11


def test_other_rates_and_channels_are_converted(corpus, tmp_path):
    (path,) = (corpus / TEST / "on").iterdir()
    soundfile.write(path, np.stack([np.full(8000, 0.2), np.full(8000, 0.4)], axis=1), 8000)
    expert = build(DownstreamExpert, corpus, tmp_path)
    places = {clip.path: index for index, clip in enumerate(expert.datasets["test"].clips)}
    wav, ids, _ = expert.datasets["test"][places[path]]
    assert (len(wav), ids.tolist()) == (16000, [ORDER.index("on")])
    assert wav[8000] == pytest.approx(0.3 * 10 ** (-3 / 20), rel=1e-2)
    soundfile.write(path, np.zeros(399), 16000)
    with pytest.raises(DataError, match="less than one frame"):
        expert.datasets["test"][places[path]]


def test_test_clips_are_not_cropped(corpus):
    (path,) = (corpus / TEST / "_silence_").iterdir()
    soundfile.write(path, np.zeros(20000), 16000)
    clips = read_corpus(corpus / TRAIN, corpus / TEST).test
    assert max(len(KeywordDataset(clips, crop_silence=False)[index][0]) for index in range(len(clips))) == 20000


def test_s3prls_own_config_is_ours(speech_commands, tmp_path):
    config = yaml.safe_load((shipped_configs() / "ks.yaml").read_text())
    assert config["runner"] == {
        "total_steps": 200000,
        "gradient_clipping": 1,
        "gradient_accumulate_steps": 1,
        "log_step": 100,
        "eval_step": 5000,
        "save_step": 1000,
        "max_keep": 1,
        "eval_dataloaders": ["dev", "test"],
    }
    assert config["optimizer"] == {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1.0e-4}
    paths = {
        "speech_commands_root": str(speech_commands / TRAIN),
        "speech_commands_test_root": str(speech_commands / TEST),
    }
    s3prls = {
        "datarc": {**paths, "num_workers": 8, "batch_size": 32},
        "modelrc": {"projector_dim": 256, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}},
    }
    shipped = config["downstream_expert"]
    shipped["datarc"].update(paths)
    experts = [
        DownstreamExpert(upstream_dim=4, downstream_expert=block, expdir=str(tmp_path))
        for block in (s3prls, shipped, {"datarc": paths})
    ]
    assert experts[0].loader == experts[1].loader == experts[2].loader
    for expert in experts:
        assert [expert.loader.batch_size_of(split) for split in SPLITS] == [32, 32, 32]
        assert expert.loader.num_workers == 8
        assert expert.projector.out_features == 256
