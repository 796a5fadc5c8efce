"""Linear probes: the data, what is probed, the probe itself, and the table."""

import io
import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from s3prl_interfaces.errors import ConfigError, DataError, UpstreamError
from s3prl_interfaces.mini_superb import make_mini_superb
from s3prl_interfaces.mini_superb.espeak import Espeak, Phoneme
from s3prl_interfaces.mini_superb.sentences import sentences
from s3prl_interfaces.mini_superb.speakers import ACCENTS, make_speakers, record, record_aligned
from s3prl_interfaces.probing import data, features, linear, measure, phonemes, table
from s3prl_interfaces.probing.data import ProbeTask, Utterance
from s3prl_interfaces.probing.features import Examples
from s3prl_interfaces.probing.linear import Score
from s3prl_interfaces.probing.measure import Result
from scripts import probe_upstream
from tests import small_upstream as small

VOWELS = ("I", "i", "E", "a", "A", "0", "O", "U", "u", "V", "@", "3", "eI", "aI", "oU", "aU", "i@", "e@")


@pytest.fixture(scope="module")
def task():
    return phonemes.phoneme_task(scale=0.06)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    make_mini_superb(folder, corpora=["voxceleb1", "fluent_speech_commands"], scale=0.03)
    return folder


@pytest.fixture
def small_upstream():
    """A HuBERT of two layers and width 16, as `-u FILE.py:build`."""
    return f"{small.__file__}:build"


# Phonemes.


@pytest.mark.parametrize(
    ("mnemonic", "name"),
    [("'i:", "i"), (",eI", "eI"), ("eI", "eI"), ("_:", "_"), ("_", "_"), ("a#", "@"), ("3", "@"), ("'3:", "3")],
)
def test_fold(mnemonic, name):
    assert phonemes.fold(mnemonic) == name


def test_fold_refuses_what_is_not_english():
    with pytest.raises(ValueError, match="'y:' of eSpeak NG has no class"):
        phonemes.fold("y:")


def test_classes():
    assert len(set(phonemes.CLASSES)) == len(phonemes.CLASSES) == 42
    assert set(phonemes._FOLDED.values()) < set(phonemes.CLASSES)
    assert set(VOWELS) < set(phonemes.CLASSES)


def test_every_phoneme_of_every_accent_has_a_class():
    texts = list(islice(sentences(RandomState(7)), 60))
    with Espeak() as espeak:
        said = {phoneme.name for accent in ACCENTS for text in texts for phoneme in espeak.align(text, accent)[1]}
    assert {phonemes.fold(name) for name in said} == set(phonemes.CLASSES)


def test_a_frame_has_the_phoneme_at_its_centre():
    spoken = [Phoneme(520, "'a"), Phoneme(1000, "s"), Phoneme(1100, "t"), Phoneme(1100, "s")]
    # Centres: 200, 520, 840, 1160, 1480, 1800; frame 6 would reach beyond sample 2319.
    labels = phonemes.frame_labels(spoken, 2319)
    assert [phonemes.CLASSES[label] for label in labels] == ["_", "a", "a", "s", "s", "s"]
    assert labels.dtype == np.int64
    assert len(phonemes.frame_labels(spoken, 2320)) == 7


def test_task_has_other_speakers_and_sentences_in_its_test(monkeypatch):
    lines = [*"abacabdabcea", *(f"sentence {number}" for number in range(20))]
    heard = []

    def recorded(espeak, speaker, text, random):
        heard.append((text, speaker.id, speaker.variant))
        return np.zeros(800, np.int16), [Phoneme(0, "_")]

    monkeypatch.setattr(phonemes, "sentences", lambda random: iter(lines))
    monkeypatch.setattr(phonemes, "record_aligned", recorded)
    monkeypatch.setattr(phonemes, "_SENTENCES", {"train": 5, "test": 7})
    made = phonemes.phoneme_task()
    train, test = heard[:5], heard[5:]
    assert [text for text, *_ in train] == [*"abaca"]
    assert [text for text, *_ in test] == ["d", "e", *(f"sentence {number}" for number in range(5))]
    assert (len(made.train), len(made.test)) == (5, 7)
    for column in (1, 2):
        assert not {one[column] for one in train} & {one[column] for one in test}
    assert [utterance.group for utterance in made.train] == [speaker for _, speaker, _ in train]
    assert len({utterance.group for utterance in made.train}) == 5


def test_every_recording_has_random_numbers_of_its_own(monkeypatch):
    drawn = []

    def recorded(espeak, speaker, text, random):
        drawn.append(random.randint(1 << 30))
        return np.zeros(800, np.int16), [Phoneme(0, "_")]

    monkeypatch.setattr(phonemes, "record_aligned", recorded)
    for seed in (0, 1):
        phonemes.phoneme_task(seed, scale=0.05)
    assert len(set(drawn)) == len(drawn) == 2 * (13 + 7)


def test_task_is_the_same_again(task):
    again = phonemes.phoneme_task(scale=0.06)
    assert (task.name, task.unit, task.by_frame, len(task.train), len(task.test)) == ("phoneme", "frames", True, 16, 8)
    for one, other in zip([*task.train, *task.test], [*again.train, *again.test], strict=True):
        np.testing.assert_array_equal(one.sound, other.sound)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert not np.array_equal(phonemes.phoneme_task(seed=1, scale=0.06).train[0].sound, task.train[0].sound)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_task_refuses_scale(scale):
    with pytest.raises(ConfigError, match="The scale must be above 0"):
        phonemes.phoneme_task(scale=scale)


def test_vowels_are_loud_and_silence_is_quiet(task):
    loudness = {name: [] for name in phonemes.CLASSES}
    for utterance in task.train:
        frames = utterance.wav().unfold(0, 400, 320).square().mean(dim=1).sqrt()
        for label, value in zip(utterance.labels, frames / frames.max(), strict=True):
            loudness[phonemes.CLASSES[label]].append(float(value))
    mean = {name: np.mean(values) for name, values in loudness.items() if values}
    assert all(mean[name] > 3 * mean["_"] for name in VOWELS if name in mean)
    assert min(mean, key=mean.get) == "_"


def test_labels_fit_their_own_frames_best(task):
    """Log-mel frames differ most from class to class where labels are not shifted: 20 ms either way is worse."""

    def explained(shift):
        banks, labels = [], []
        for utterance in task.train:
            (frames,) = features.log_mel(utterance.wav())
            frames = (frames - frames.mean(dim=0)).numpy()
            banks.append(frames[max(0, shift) : len(frames) + min(0, shift)])
            labels.append(utterance.labels[max(0, -shift) : len(frames) - max(0, shift)])
        x, y = np.concatenate(banks), np.concatenate(labels)
        within = sum(((x[y == label] - x[y == label].mean(axis=0)) ** 2).sum() for label in np.unique(y))
        return 1 - within / ((x - x.mean(axis=0)) ** 2).sum()

    values = [explained(shift) for shift in (-2, -1, 0, 1, 2)]
    assert values[2] > 0.45
    assert values[0] < values[1] < values[2] > values[3] > values[4]


def test_recording_with_alignment_sounds_the_same():
    """And its phonemes start as much later as silence stands before, at the new sampling rate."""
    speaker = make_speakers("test", RandomState(1))[2]
    text = "On Sunday morning, my best friend baked fresh bread"
    with Espeak() as espeak:
        plain = record(espeak, speaker, text, RandomState(5))
        random = RandomState(5)
        samples, spoken = record_aligned(espeak, speaker, text, random)
        replay = RandomState(5)
        drawn = [replay.randint(-10, 11), replay.randint(-4, 5), replay.randint(-8, 9)]
        seed = replay.randint(0, 1 << 31, dtype=np.int64)
        before = replay.randint(800, 4800, size=2)[0]
        _, dry = espeak.align(
            text,
            f"{speaker.accent}+{speaker.variant}",
            rate=speaker.rate + int(drawn[0]),
            pitch=speaker.pitch + int(drawn[1]),
            pitch_range=speaker.pitch_range + int(drawn[2]),
            seed=int(seed),
        )
    np.testing.assert_array_equal(samples, plain)
    assert [phoneme.name for phoneme in spoken] == [phoneme.name for phoneme in dry]
    expected = [before + phoneme.start * 16000 / 22050 for phoneme in dry]
    np.testing.assert_allclose([phoneme.start for phoneme in spoken], expected, atol=1)


# Speakers and intents.


def test_speaker_task(corpora):
    made = data.speaker_task(corpora)
    lines = [line.split() for line in (corpora / "voxceleb1/veri_test_class.txt").read_text().splitlines()]
    expected = {number: [file for split, file in lines if split == number] for number in "123"}
    speakers = sorted({file.split("/")[0] for file in expected["1"]})
    assert (made.name, made.unit, made.by_frame, made.classes) == ("speaker", "utterances", False, speakers)
    for number, utterances in (("1", made.train), ("3", made.test)):
        assert [str(one.sound).split("/wav/")[1] for one in utterances] == expected[number]
        assert [speakers[one.labels.item()] for one in utterances] == [file.split("/")[0] for file in expected[number]]
        assert [one.group.split("/wav/")[1] for one in utterances] == [
            file[: file.rindex("/")] for file in expected[number]
        ]


def test_speaker_of_a_frame(corpora):
    made, whole = data.speaker_frame_task(corpora), data.speaker_task(corpora)
    assert (made.name, made.unit, made.by_frame) == ("speaker-frame", "frames", True)
    assert made.classes == whole.classes
    for utterances, others in ((made.train, whole.train[::3]), (made.test, whole.test)):
        assert [(one.sound, one.group) for one in utterances] == [(one.sound, one.group) for one in others]
        for one, other in zip(utterances, others, strict=True):
            assert one.labels.shape == (len(features.log_mel(one.wav())[0]),)
            assert set(one.labels.tolist()) == {other.labels.item()}


def test_intent_task(corpora):
    made = data.intent_task(corpora)
    root = corpora / "fluent_speech_commands_dataset"
    assert (made.name, made.unit, made.by_frame, len(made.classes)) == ("intent", "utterances", False, 31)
    for split, utterances in (("train", made.train), ("test", made.test)):
        rows = [line.split(",") for line in (root / f"data/{split}_data.csv").read_text().splitlines()[1:]]
        assert [str(one.sound) for one in utterances] == [str(root / row[1]) for row in rows]
        assert [one.group for one in utterances] == [row[2] for row in rows]
        assert [made.classes[one.labels.item()] for one in utterances] == [" ".join(row[-3:]) for row in rows]
    assert not {one.group for one in made.train} & {one.group for one in made.test}


def test_missing_corpus_is_made(tmp_path):
    made = data.intent_task(tmp_path, scale=0.001)
    assert (tmp_path / "fluent_speech_commands_dataset/mini_superb.json").is_file()
    assert len(made.train) == 31


def test_class_that_training_lacks_is_refused(tmp_path):
    (folder,) = make_mini_superb(tmp_path, corpora=["fluent_speech_commands"], scale=0.001)
    path = folder / "data/test_data.csv"
    header, row = path.read_text().splitlines()
    path.write_text(f"{header}\n{','.join(row.split(',')[:-3])},fly,kite,none\n")
    with pytest.raises(DataError, match=r"\.wav: its class, 'fly kite none', does not occur in the training split"):
        data.intent_task(tmp_path)


def test_sound_of_an_utterance(tmp_path):
    samples = np.array([0, 16384, -32768] * 200, np.int16)
    wav = Utterance(samples, np.zeros(1, np.int64), "").wav()
    assert wav.dtype == torch.float32
    assert wav[:3].tolist() == [0.0, 0.5, -1.0]


# What is probed.


class Oracle(nn.Module):
    """Knows each utterance's true phonemes and shows them, one-hot, at the rate that it is given."""

    def __init__(self, task, rate, late=0):
        super().__init__()
        self.rate = rate
        self.labels = {len(one.sound): torch.from_numpy(one.labels).roll(late) for one in (*task.train, *task.test)}

    def get_downsample_rates(self, key):
        return self.rate

    def forward(self, wavs):
        (wav,) = wavs
        hot = nn.functional.one_hot(self.labels[len(wav)], len(phonemes.CLASSES)).float()
        own = hot.repeat_interleave(320 // self.rate, dim=0)
        return {"hidden_states": [torch.zeros(1, len(own), 3), own[None]]}


@pytest.mark.parametrize("rate", [320, 160])
def test_labels_line_up_with_frames(task, rate):
    constant, oracle = measure.score_layers(task, features.upstream_extractor(Oracle(task, rate)), "oracle")
    assert oracle.accuracy == 1.0
    assert constant.accuracy < 0.5
    late = measure.score_layers(task, features.upstream_extractor(Oracle(task, rate, late=1)), "late")
    assert late[1].accuracy < 0.95


def test_an_utterance_is_the_mean_over_time(task):
    spoken = ProbeTask("task", "utterances", "ab", [one_label(task.train[0], 1), one_label(task.train[1], 0)], [])
    extract = features.upstream_extractor(Oracle(task, 320))
    found = features.examples(spoken, "train", extract, "")
    assert found.layers[1].shape == (2, 42)
    expected = np.bincount(task.train[0].labels, minlength=42) / len(task.train[0].labels)
    np.testing.assert_allclose(found.layers[1][0], expected, rtol=1e-5)
    assert found.labels.tolist() == [1, 0]
    assert found.utterances.tolist() == [0, 1]


def one_label(utterance, label):
    return Utterance(utterance.sound, np.array([label]), utterance.group)


def test_examples_keep_utterances_and_groups_apart(task):
    found = features.examples(task, "test", features.log_mel, "")
    counts = [len(one.labels) for one in task.test]
    assert np.bincount(found.utterances).tolist() == counts
    assert found.layers[0].shape == (sum(counts), 80)
    by_utterance = dict(zip(found.utterances, found.groups, strict=True))
    same = [[one.group == other.group for other in task.test] for one in task.test]
    assert same == [[by_utterance[i] == by_utterance[j] for j in range(8)] for i in range(8)]
    assert not np.all(same)
    assert np.any(np.array(same) & ~np.eye(8, dtype=bool))


@pytest.mark.parametrize("missing", [0, 4, 6])
def test_upstream_that_ends_early(missing):
    class Early(nn.Module):
        def get_downsample_rates(self, key):
            return 320

        def forward(self, wavs):
            return {"hidden_states": [torch.arange(10.0 - missing)[None, :, None]]}

    extract = features.upstream_extractor(Early())
    if missing == 6:
        with pytest.raises(UpstreamError, match="gave 4 frames for 3280 samples: too few for its downsample rate 320"):
            extract(torch.zeros(3280))
    else:
        (state,) = extract(torch.zeros(3280))
        assert state[:, 0].tolist() == [min(frame, 9 - missing) for frame in range(10)]


def test_upstream_is_probed_without_dropout_or_gradients():
    upstream = small.build().train()
    extract = features.upstream_extractor(upstream)
    wav = torch.randn(4000)
    first, second = extract(wav), extract(wav)
    assert all(torch.equal(one, other) and not one.requires_grad for one, other in zip(first, second, strict=True))


def test_log_mel():
    """A click is in the frames that cover it alone, and a higher tone in a higher band."""
    silence = 1e-4 * torch.ones(320 * 9 + 400)
    click = silence.clone()
    click[320 * 4 + 100] = 0.5  # frame 4 covers 1280 to 1680, frame 3 960 to 1360
    (quiet,), (loud,) = features.log_mel(silence), features.log_mel(click)
    assert loud.shape == (10, 80)
    assert [frame for frame in range(10) if (loud[frame] - quiet[frame]).max() > 1] == [4]
    time = torch.arange(4000) / 16000
    bands = [
        features.log_mel(torch.sin(2 * np.pi * hertz * time))[0].mean(dim=0).argmax() for hertz in (300, 1000, 4000)
    ]
    assert bands[0] < bands[1] < bands[2]


def test_random_weights():
    upstream = small.build()
    before = {name: value.clone() for name, value in upstream.state_dict().items()}
    upstream.model.encoder.layers[0].marked = True
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    one, same, other = (features.with_random_weights(upstream, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in upstream.state_dict().items())
    weights = [copy.model.encoder.layers[0].attention.q_proj.weight.detach() for copy in (upstream, one, same, other)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[3])
    assert one.model.encoder.layers[0].marked  # what the upstream has changed about its model stays
    assert weights[1].std().item() == pytest.approx(0.02, rel=0.2)  # transformers' initializer_range


def test_random_weights_are_of_transformers_models_only(task):
    assert features.with_random_weights(Oracle(task, 320), 0) is None
    assert features.with_random_weights(SimpleNamespace(model=nn.Linear(2, 2)), 0) is None


# The probe.


def made_examples(x, y, groups=None):
    x = torch.as_tensor(x, dtype=torch.float32)
    groups = np.arange(len(x)) if groups is None else np.asarray(groups)
    return Examples([x], torch.as_tensor(y), np.arange(len(x)), groups)


def noisy(count, seed, width=60):
    """Two classes that one dimension tells badly, and many that tell nothing."""
    random = RandomState(seed)
    y = random.randint(0, 2, count)
    x = random.randn(count, width)
    x[:, 0] += 1.2 * y
    return made_examples(x, y)


def test_separable_classes_are_all_right():
    random = RandomState(0)
    centres = 6 * np.eye(4, 5)
    y = random.randint(0, 4, 600)
    x = centres[y] + 0.5 * random.randn(600, 5)
    score = linear.probe(made_examples(x[:400], y[:400]), made_examples(x[400:], y[400:]), 0, 4)
    assert score.accuracy == 1.0
    assert score.held_out == 1.0
    assert score.counts.tolist() == [1] * 200


def test_noise_is_chance():
    random = RandomState(0)
    x, y = random.randn(8000, 10), random.randint(0, 4, 8000)
    score = linear.probe(made_examples(x[:4000], y[:4000]), made_examples(x[4000:], y[4000:]), 0, 4)
    assert score.accuracy == pytest.approx(0.25, abs=0.025)
    assert score.held_out == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_fit_is_scikit_learns(penalty):
    random = RandomState(0)
    y = random.randint(0, 3, 300)
    x = random.randn(300, 6) * [1, 10, 0.1, 1, 1, 1] + [0, 5, 0, 100, 0, 0] + 0.8 * np.eye(3, 6)[y]
    unseen = random.randn(200, 6) * [1, 10, 0.1, 1, 1, 1] + [0, 5, 0, 100, 0, 0]
    (ours,) = linear.fit(torch.tensor(x, dtype=torch.float32), torch.tensor(y), 3, [penalty])
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(C=1 / (300 * penalty), tol=1e-8, max_iter=1000).fit(scaler.transform(x), y)
    np.testing.assert_allclose(ours.scale, scaler.scale_, rtol=1e-4)
    np.testing.assert_allclose(ours.weights.T, theirs.coef_, atol=5e-3)
    np.testing.assert_allclose(ours.bias - ours.bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=5e-3)
    predicted = ours.predict(torch.tensor(unseen, dtype=torch.float32)).numpy()
    assert np.mean(predicted == theirs.predict(scaler.transform(unseen))) > 0.99


def test_a_fit_that_starts_from_another_ends_where_it_would_alone():
    train = noisy(200, 0, width=5)
    path = linear.fit(train.layers[0], train.labels, 2, [1e-1, 1e-2, 1e-3])
    (alone,) = linear.fit(train.layers[0], train.labels, 2, [1e-3])
    np.testing.assert_allclose(path[2].weights, alone.weights, atol=5e-3)
    assert not np.allclose(path[0].weights, path[2].weights, atol=5e-2)


def test_constant_dimension_is_no_matter():
    x = torch.tensor([[0.0, 7.0], [1.0, 7.0], [0.1, 7.0], [0.9, 7.0]])
    (probe,) = linear.fit(x, torch.tensor([0, 1, 0, 1]), 2, [1e-2])
    assert probe.predict(x + torch.tensor([0.0, 1.0])).tolist() == [0, 1, 0, 1]


def test_held_out_are_whole_groups():
    groups = np.repeat(np.arange(20), 7)
    out = linear.held_out(groups)
    assert len(np.unique(groups[out])) == 4
    assert not set(groups[out]) & set(groups[~out])
    np.testing.assert_array_equal(out, linear.held_out(groups))
    assert sum(linear.held_out(np.array([0, 0, 1]))) in (1, 2)
    with pytest.raises(ValueError, match="two groups or more"):
        linear.held_out(np.array([3, 3]))


def test_penalty_is_chosen_on_examples_that_were_not_fitted():
    """With more dimensions than examples every penalty fits the training data; held-out data tell better."""
    random = RandomState(0)
    train = made_examples(random.randn(50, 200), random.randint(0, 2, 50))
    _, held_out = linear.choose(train, 0, 2)
    assert held_out < 0.9
    by_group = np.repeat(np.arange(10), 20)
    leaky = made_examples(np.eye(10)[by_group] + 0.01 * random.randn(200, 10), by_group % 2, by_group)
    assert linear.choose(leaky, 0, 2)[1] < 0.9  # a group that is new cannot be known


def test_test_data_choose_nothing():
    train = noisy(120, 0)
    like_train, unseen = noisy(120, 0), noisy(2000, 1)
    penalty, held_out = linear.choose(train, 0, 2)
    on = {
        name: [probe.accuracy(test.layers[0], test.labels) for probe in linear.fit(train.layers[0], train.labels, 2)]
        for name, test in (("train", like_train), ("unseen", unseen))
    }
    assert np.argmax(on["train"]) != np.argmax(on["unseen"])  # or this test would show nothing
    for test in (like_train, unseen):
        score = linear.probe(train, test, 0, 2)
        assert (score.penalty, score.held_out) == (penalty, held_out)
    (fitted,) = linear.fit(train.layers[0], train.labels, 2, [penalty])
    assert linear.probe(train, unseen, 0, 2).accuracy == pytest.approx(
        fitted.accuracy(unseen.layers[0], unseen.labels), abs=1e-6
    )


def test_penalty_is_the_best_on_held_out_data():
    train = noisy(120, 0)
    out = torch.from_numpy(linear.held_out(train.groups))
    (features_,), labels = train.layers, train.labels
    fitted = linear.fit(features_[~out], labels[~out], 2)
    accuracies = [float((one.predict(features_[out]) == labels[out]).double().mean()) for one in fitted]
    best = max(range(len(accuracies)), key=lambda index: accuracies[index])
    assert linear.choose(train, 0, 2) == (linear.PENALTIES[best], accuracies[best])
    assert accuracies[best] > min(accuracies)


def test_choosing_takes_a_limited_number_of_examples(monkeypatch):
    seen = []
    fit = linear.fit
    monkeypatch.setattr(linear, "CHOOSING_EXAMPLES", 30)
    monkeypatch.setattr(linear, "fit", lambda x, *rest: seen.append(len(x)) or fit(x, *rest))
    linear.probe(noisy(100, 0), noisy(10, 1), 0, 2)
    assert seen == [30, 100]  # fitted on everything in the end


def test_score_counts_right_answers_by_utterance():
    train = made_examples([[0.0], [1.0]] * 10, [0, 1] * 10)
    test = made_examples([[0.0], [0.0], [1.0], [1.0], [1.0]], [0, 1, 1, 1, 0])
    test = Examples(test.layers, test.labels, np.array([0, 0, 1, 1, 2]), np.zeros(5, int))
    score = linear.probe(train, test, 0, 2)
    assert score.correct.tolist() == [1, 2, 0]
    assert score.counts.tolist() == [2, 2, 1]
    assert score.accuracy == 0.6


# Measuring.


def made_score(correct, counts, held_out=0.5):
    return Score(held_out, 1e-2, np.asarray(correct, float), np.asarray(counts))


def test_interval_of_utterances_is_binomial():
    estimate = measure.accuracy([made_score([1] * 60 + [0] * 40, [1] * 100)])
    assert estimate.value == pytest.approx(0.6)
    assert estimate.half_width == pytest.approx(1.96 * np.sqrt(0.6 * 0.4 / 99))


def test_intervals_are_those_of_resampled_utterances():
    random = RandomState(0)
    counts = random.randint(20, 200, 150)
    skill = random.beta(4, 2, 150)
    one, other = (random.binomial(counts, p) for p in (skill, 0.9 * skill))
    drawn = random.randint(0, 150, (4000, 150))
    totals = counts[drawn].sum(axis=1)
    for estimate, sums in (
        (measure.accuracy([made_score(one, counts)]), one),
        (measure.difference([made_score(one, counts)], [made_score(other, counts)]), one - other),
        (measure.accuracy([made_score(one, counts), made_score(other, counts)]), (one + other) / 2),
    ):
        assert estimate.value == pytest.approx(sums.sum() / counts.sum())
        assert estimate.half_width == pytest.approx(1.96 * (sums[drawn].sum(axis=1) / totals).std(), rel=0.05)


def test_best_layer_is_that_of_held_out_data():
    scores = [made_score([9], [10], 0.4), made_score([1], [10], 0.8), made_score([8], [10], 0.7)]
    assert measure.best_layer(scores) == 1


def made_result(**changes):
    fields = {
        "task": "phoneme",
        "unit": "frames",
        "classes": 42,
        "train": 39713,
        "test": 40,
        "chance": 0.175,
        "trained": [made_score([8, 20], [10, 30], 0.7), made_score([6, 21], [10, 30], 0.9)],
        "random": [
            [made_score([4, 4], [10, 30], 0.2), made_score([2, 2], [10, 30], 0.1)],
            [made_score([8, 8], [10, 30], 0.1), made_score([6, 6], [10, 30], 0.2)],
        ],
        "log_mel": made_score([5, 15], [10, 30], 0.6),
    }
    return Result(**fields | changes)


def test_best_of_each_draw():
    result = made_result()
    assert result.best is result.trained[1]
    assert result.best_random == [result.random[0][0], result.random[1][1]]


def test_measure(task, monkeypatch):
    """With an upstream that knows everything, whose "random" copies are some frames late."""
    monkeypatch.setattr(linear, "ITERATIONS", 30)
    monkeypatch.setattr(measure, "with_random_weights", lambda upstream, seed: Oracle(task, 320, late=seed))
    with_another = ProbeTask("phoneme", "frames", (*phonemes.CLASSES, "never heard"), task.train, task.test)
    (baseline,) = measure.score_layers(with_another, features.log_mel, "")
    result = measure.measure(with_another, Oracle(task, 320), [2, 6], baseline)
    train, test = (np.concatenate([one.labels for one in split]) for split in (task.train, task.test))
    assert (result.task, result.unit) == ("phoneme", "frames")
    assert (result.train, result.test, result.classes) == (len(train), len(test), len(set(train)))
    assert result.chance == np.mean(test == np.bincount(train).argmax())
    assert result.log_mel is baseline
    assert [len(scores) for scores in (result.trained, *result.random)] == [2, 2, 2]
    assert result.trained[1].counts.tolist() == [len(one.labels) for one in task.test]
    assert 1 > baseline.accuracy > result.chance
    assert result.trained[1].accuracy == 1 > result.random[0][1].accuracy > result.random[1][1].accuracy


def test_measure_without_random_weights(task, monkeypatch):
    monkeypatch.setattr(linear, "ITERATIONS", 1)
    assert measure.measure(task, Oracle(task, 320), [4, 5], made_score([1], [1])).random == []


# The table.


def cells(text, label):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line[1:-1].split("|")][1:]


def test_markdown():
    trained = [made_score([2, 3], [10, 30])]
    speaker = made_result(task="speaker", unit="utterances", classes=20, chance=0.05, trained=trained)
    text = table.markdown("tiny", [made_result(), speaker])
    assert text.startswith("### upstream: tiny\n\n| layer | phoneme, trained | phoneme, random | speaker, trained |")
    width = 1.96 * np.sqrt(2 * ((8 - 7) ** 2 + (20 - 21) ** 2)) / 40 * 100
    assert cells(text, "0")[:2] == [f"70.0 ± {width:.1f}", "30.0"]
    assert cells(text, "0")[2].startswith("**12.5 ± ")
    assert cells(text, "1")[0].startswith("**67.5 ± ")
    assert cells(text, "1")[1:] == ["20.0", "", ""]
    best = ["**67.5 ± ", "**25.0 ± ", "**12.5 ± ", "**25.0 ± "]
    assert all(cell.startswith(start) for cell, start in zip(cells(text, "best layer"), best, strict=True))
    assert cells(text, "which") == ["layer 1", "", "layer 0", ""]
    assert cells(text, "log-mel") == ["50.0 ± 0.0", "", "50.0 ± 0.0", ""]
    assert cells(text, "chance") == ["17.5", "", "5.0", ""]
    assert cells(text, "over random")[0].startswith("+42.5 ± ")
    assert cells(text, "over log-mel")[0].startswith("+17.5 ± ")
    assert cells(text, "over log-mel")[2].startswith("-37.5 ± ")
    assert cells(text, "classes") == ["42", "", "20", ""]
    assert cells(text, "train") == ["39,713", "", "39,713", ""]
    assert cells(text, "test") == ["40", "", "40", ""]
    assert cells(text, "examples") == ["frames", "", "utterances", ""]
    assert "mean over 2 seed(s)" in text
    assert text.count("\n- ") == 5


def test_markdown_without_random_weights():
    text = table.markdown("tiny", [made_result(random=[])])
    assert text.splitlines()[2] == "| layer | phoneme, trained |"
    assert "random" not in text.lower()
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {3}


def test_terminal_shows_what_markdown_does():
    results = [made_result(), made_result(task="speaker", unit="utterances"), made_result(task="intent")]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table.terminal("tiny", results))
    shown = console.export_text()
    assert "upstream: tiny" in shown
    _, body = table.rows(results)
    position = 0
    assert max(map(len, shown.splitlines())) <= 80
    for row in body:
        line = re.compile(r"\s+".join(re.escape(cell.text.replace(" ± ", "±")) for cell in row if cell.text))
        found = line.search(shown, position)
        assert found, row
        position = found.end()
    assert "Chance is always answering" in shown


def test_record():
    record = table.record("tiny", [made_result()])
    assert json.loads(json.dumps(record)) == record
    found = record["tasks"]["phoneme"]
    assert (record["upstream"], found["best_layer"], found["chance"], found["train"]) == ("tiny", 1, 0.175, 39713)
    assert [score["accuracy"] for score in found["trained"]] == [0.7, 0.675]
    assert [[score["accuracy"] for score in scores] for scores in found["random"]] == [[0.2, 0.1], [0.4, 0.3]]
    assert found["log_mel"]["accuracy"] == 0.5
    assert found["trained"][1]["held_out"] == 0.9


# The script.


def test_script(corpora, small_upstream, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(linear, "ITERATIONS", 5)
    output, figures = tmp_path / "table.md", tmp_path / "figures.json"
    arguments = ["-u", small_upstream, "--data", str(corpora), "--scale", "0.03", "--seeds", "1"]
    assert probe_upstream.main([*arguments, "--output", str(output), "--json", str(figures)]) == 0
    (found,) = json.loads(figures.read_text())
    assert found["upstream"] == small_upstream
    assert list(found["tasks"]) == ["phoneme", "speaker-frame", "speaker", "intent"]
    sentences_ = phonemes.phoneme_task(scale=0.03).test
    assert found["tasks"]["phoneme"]["test"] == sum(len(sentence.labels) for sentence in sentences_)
    for result in found["tasks"].values():
        assert (len(result["trained"]), len(result["random"])) == (3, 1)
    text = output.read_text()
    assert all(len(cells(text, label)) == 8 for label in ("0", "1", "2", "log-mel", "chance"))
    shown = capsys.readouterr().out
    assert f"{100 * found['tasks']['speaker']['log_mel']['accuracy']:.1f}±" in shown
    assert "log-mel" in shown


def test_script_takes_tasks_and_upstreams(corpora, small_upstream, capsys, monkeypatch):
    monkeypatch.setattr(linear, "ITERATIONS", 2)
    demo = "scripts/demo_upstream.py:build"
    arguments = ["-u", small_upstream, "-u", demo, "--data", str(corpora), "--seeds", "0", "--tasks", "speaker"]
    assert probe_upstream.main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.count("upstream: ") == 2
    assert "phoneme" not in shown
    assert "random" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-u", "hubbert_nobody"], "Unknown upstream 'hubbert_nobody'"),
        (["-u", "hubert", "--output", "missing_folder/table.md"], "must be a file in a folder that there is"),
        (["-u", "hubert", "--json", "."], "must be a file in a folder that there is"),
    ],
)
def test_script_tells_what_is_wrong(arguments, message, capsys):
    assert probe_upstream.main(arguments) == 2
    error = capsys.readouterr().err
    assert re.match(f"error: .*({message})", error)
    assert error.count("\n") == 1


def test_scikit_learn_is_not_needed():
    blocked = "import sys; sys.modules['sklearn'] = None; import scripts.probe_upstream"
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", blocked], check=True, cwd=root)
