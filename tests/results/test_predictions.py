import re

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_curve

from downstream_tasks.ctc import error_rate
from downstream_tasks.sf.metrics import slot_type_f1
from downstream_tasks.sv.metrics import equal_error_rate
from downstream_tasks.text_metrics import wer
from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results.predictions import Counted, Trials, read_scores


@pytest.fixture
def write(tmp_path):
    """Write files of lines into the run's folder."""

    def write_files(**files):
        for name, lines in files.items():
            (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return tmp_path

    return lambda files: write_files(**files)


def _text(name, texts):
    return [f"{name}{index} {text}" for index, text in enumerate(texts)]


# --- accuracy ---


@pytest.mark.parametrize("task", ["ks", "sid"])
def test_accuracy(task, write, make_result):
    folder = write(
        {"test_predict.txt": ["b-1.wav no", "a-0.wav yes"], "test_truth.txt": ["b-1.wav yes", "a-0.wav yes"]}
    )
    scores = read_scores(make_result(0.5, task=task), folder)
    assert isinstance(scores, Counted)
    assert scores.names == scores.utterances == ("a-0.wav", "b-1.wav")
    assert scores.numerators.tolist() == [1, 0]
    assert scores.denominators.tolist() == [1, 1]
    assert scores.classes is None
    assert scores.numerators.dtype == scores.denominators.dtype == np.float64


def test_an_intent_is_right_if_all_its_slots_are(write, make_result):
    truth = ["a,increase,heat,none", "b,change language,none,none", "c,bring,shoes,none", "d,bring,juice,none"]
    said = ["a,increase,heat,none", "b,change language,none,none", "c,bring,juice,none", "d,bring,juice,kitchen"]
    folder = write({"test_predict.csv": said, "test_truth.csv": truth})
    scores = read_scores(make_result(0.5, task="ic"), folder)
    assert scores.names == ("a", "b", "c", "d")
    assert scores.numerators.tolist() == [1, 1, 0, 0]


def test_a_fold_has_its_own_files(write, make_result):
    folder = write(
        {
            "test_fold2_predict.txt": ["Ses02F_impro01_F000 hap", "Ses02F_impro01_F001 neu"],
            "test_fold2_truth.txt": ["Ses02F_impro01_F000 hap", "Ses02F_impro01_F001 ang"],
            "test_fold1_predict.txt": ["x hap"],
            "test_fold1_truth.txt": ["x hap"],
        }
    )
    scores = read_scores(make_result(0.5, task="er", fold="fold2"), folder)
    assert scores.numerators.tolist() == [1, 0]


@pytest.mark.parametrize("task", ["er", "ks", "sid"])
def test_balanced_accuracy_is_the_mean_of_the_recalls(task, write, make_result):
    generator = np.random.default_rng(3)
    truth = generator.choice(["yes", "no", "up"], size=50, p=[0.6, 0.3, 0.1])
    said = np.where(generator.random(50) < 0.7, truth, "no")
    fold = "fold1" if task == "er" else None
    part = "test_fold1" if fold else "test"
    folder = write({f"{part}_predict.txt": _text("u", said), f"{part}_truth.txt": _text("u", truth)})
    expected = balanced_accuracy_score(truth, said)
    scores = read_scores(make_result(expected, metric="balanced_acc", task=task, fold=fold), folder)
    assert scores.value == pytest.approx(expected, abs=1e-12)
    assert scores.value != pytest.approx(np.mean(truth == said), abs=1e-3)
    # The same truth has the same numbers, whatever was predicted.
    by_class = {
        label: {scores.classes[scores.names.index(f"u{i}")] for i in np.flatnonzero(truth == label)} for label in truth
    }
    assert sorted(by_class.values(), key=min) == [{0}, {1}, {2}]


# --- error rates ---


def test_phone_errors(write, make_result):
    truth = ["AH0 B K", "D IY1", "T"]
    said = ["AH0 K", "D IY0 T S", ""]
    expected = wer(said, truth)
    assert expected == (1 + 3 + 1) / (3 + 2 + 1)
    folder = write({"test-hyp.ark": _text("u", said), "test-ref.ark": _text("u", truth)})
    scores = read_scores(make_result(expected, metric="per", task="pr", higher_is_better=False), folder)
    assert scores.numerators.tolist() == [1, 3, 1]
    assert scores.denominators.tolist() == [3, 2, 1]
    assert scores.value == expected


def test_an_empty_phone_counts_as_s3prl_counts_it(write, make_result):
    truth, said = ["A  B", ""], ["A B", "C D"]
    folder = write({"test-hyp.ark": _text("u", said), "test-ref.ark": _text("u", truth)})
    scores = read_scores(make_result(wer(said, truth), metric="per", task="pr"), folder)
    assert scores.denominators.tolist() == [3, 1]
    assert scores.numerators.tolist() == [1, 2]


@pytest.mark.parametrize(("decoder", "part"), [("greedy", "noLM"), ("kenlm", "LM"), (None, "noLM")])
def test_word_errors_in_percent(decoder, part, write, make_result):
    truth = ["THE QUIET POET", "SHE LEFT", ""]
    said = ["THE QUITE POET", "", "OH NO"]
    words = [[text.split() for text in texts] for texts in (said, truth)]
    expected = 100 * error_rate(*words)
    assert expected == 100 * (1 + 2 + 2) / 5
    folder = write(
        {
            "test-clean-noLM-hyp.ark": _text("u", ["X"] * 3),
            "test-clean-LM-hyp.ark": _text("u", ["X"] * 3),
            "test-clean-noLM-ref.ark": _text("u", truth),
            "test-clean-LM-ref.ark": _text("u", truth),
        }
    )
    write({f"test-clean-{part}-hyp.ark": _text("u", said)})
    protocol = {} if decoder is None else {"decoder": decoder}
    result = make_result(expected, metric="wer", split="test-clean", task="asr", protocol=protocol)
    scores = read_scores(result, folder)
    assert scores.numerators.tolist() == [100, 200, 200]
    assert scores.denominators.tolist() == [3, 2, 0]
    assert scores.value == pytest.approx(expected, abs=1e-12)


def test_slot_types(write, make_result):
    texts = [
        "PLAY B-artist THE BEATLES E-artist NOW",
        "PLAY  B-artist  THE BEATLES  E-artist B-playlist MINE E-playlist",
        "ADD B-playlist_owner MY E-playlist_owner B-playlist ROAD TRIP E-playlist_owner",
        "B-artist B-album X E-album Y E-artist",
        "B-artist E-artist",
        "B-artist   E-artist",
        "B-artist X E-album",
        "",
        "B-artist A E-artist B-artist B E-artist",
    ]
    generator = np.random.default_rng(0)
    said, truth = generator.choice(texts, size=(2, 60)).tolist()
    expected = slot_type_f1(said, truth)
    folder = write({"test-hyp.ark": _text("u", said), "test-ref.ark": _text("u", truth)})
    scores = read_scores(make_result(expected, metric="slot_type_f1", task="sf"), folder)
    assert scores.value == pytest.approx(expected, abs=1e-12)
    of_each = {f"u{index}": slot_type_f1([said[index]], [truth[index]]) for index in range(60)}
    assert scores.numerators.tolist() == [of_each[name] for name in scores.names]
    assert {0, 2 / 3, 1} <= set(scores.numerators)
    assert scores.denominators.tolist() == [1] * 60


# --- equal error rate ---

NAMES = [
    "id10003-_3qCK3Px5iV-00005",
    "id10014-a-12_b-34_c-00002",
    "id10003-FKCf2aO1Yep-00001",
    "id10270-x_id1-2-3__-00007",
]


def _pairs():
    return [(a, b) for a in NAMES for b in NAMES if a != b]


def test_trials(write, make_result):
    pairs = _pairs()
    generator = np.random.default_rng(1)
    labels = generator.random(len(pairs)) < 0.5
    scores = np.round(generator.normal(size=len(pairs)) + labels, 1).astype(np.float32)
    expected = equal_error_rate(labels, scores)
    folder = write(
        {
            "test_predict.txt": [f"{a}_{b} {score}" for (a, b), score in zip(pairs, scores, strict=True)],
            "test_truth.txt": [f"{a}_{b} {int(label)}" for (a, b), label in zip(pairs, labels, strict=True)],
        }
    )
    trials = read_scores(make_result(expected, metric="EER", task="sv", higher_is_better=False), folder)
    assert isinstance(trials, Trials)
    assert trials.value == pytest.approx(expected, abs=1e-12)
    assert trials.utterances == tuple(sorted(NAMES))
    assert set(trials.names) == set(pairs)
    found = {
        pair: (score, label) for pair, score, label in zip(trials.names, trials.scores, trials.labels, strict=True)
    }
    assert found == {pair: (scores[i], labels[i]) for i, pair in enumerate(pairs)}
    assert trials.scores.dtype == np.float64
    assert trials.labels.dtype == bool


def test_trials_of_other_corpora(write, make_result):
    folder = write(
        {
            "test_predict.txt": ["s1-v-1_s2-v-2 0.5", "s1-v-1_s1-v-3 0.9"],
            "test_truth.txt": ["s1-v-1_s2-v-2 0", "s1-v-1_s1-v-3 1"],
        }
    )
    trials = read_scores(make_result(0.0, metric="EER", task="sv"), folder)
    assert trials.names == (("s1-v-1", "s1-v-3"), ("s1-v-1", "s2-v-2"))


@pytest.mark.parametrize("trial", ["s_1-v-1_s_2-v-2", "s_1-1zcIwhmdeo4-00001_s_2-1zcIwhmdeo4-00002", "s1-v-1"])
def test_a_trial_that_cannot_be_taken_apart(trial, write, make_result):
    folder = write({"test_predict.txt": [f"{trial} 0.5"], "test_truth.txt": [f"{trial} 1"]})
    with pytest.raises(ResultError, match=rf"test_predict\.txt: .* the trial {trial} is of"):
        read_scores(make_result(0.0, metric="EER", task="sv"), folder)


@pytest.mark.parametrize(("score", "label"), [("high", "1"), ("nan", "1"), ("inf", "0"), ("0.5", "2"), ("0.5", "True")])
def test_a_trial_without_a_score_or_a_truth(score, label, write, make_result):
    folder = write({"test_predict.txt": [f"a_b {score}", "a_c 1"], "test_truth.txt": [f"a_b {label}", "a_c 0"]})
    with pytest.raises(ResultError, match=f"trial a_b has score '{re.escape(score)}' and truth '{label}'"):
        read_scores(make_result(0.0, metric="EER", task="sv"), folder)


# --- the score under weights ---


def test_weighted_ratio_is_that_of_repeated_utterances():
    counted = Counted(("a", "b", "c"), np.array([1.0, 0.0, 2.0]), np.array([4.0, 1.0, 3.0]))
    weights = np.array([[1.0, 1, 1], [2, 0, 1], [0, 3, 0]])
    assert counted.weighted(weights) == pytest.approx([3 / 8, 4 / 11, 0])


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_weighted_balanced_accuracy_is_that_of_repeated_utterances():
    generator = np.random.default_rng(5)
    truth, said = generator.integers(4, size=(2, 12))
    counted = Counted(tuple("abcdefghijkl"), (truth == said).astype(float), np.ones(12), truth)
    weights = generator.integers(3, size=(40, 12)).astype(float)
    for row, value in zip(weights.astype(int), counted.weighted(weights), strict=True):
        assert value == pytest.approx(balanced_accuracy_score(truth.repeat(row), said.repeat(row)), abs=1e-12)
    absent = [len(set(truth.repeat(row))) < len(set(truth)) for row in weights.astype(int)]
    assert any(absent)
    assert not all(absent)


def _trials(generator, utterances=12, decimals=1):
    pairs = [(f"u{a}", f"u{b}") for a in range(utterances) for b in range(a)]
    labels = generator.random(len(pairs)) < 0.4
    scores = np.round(generator.normal(size=len(pairs)) + labels, decimals)
    return Trials(tuple(pairs), scores, labels)


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_weighted_eer_is_that_of_repeated_trials(decimals):
    generator = np.random.default_rng(decimals)
    trials = _trials(generator, decimals=decimals)
    weights = generator.multinomial(12, [1 / 12] * 12, size=50)
    values = trials.weighted(weights.astype(float))
    for row, value in zip(weights, values, strict=True):
        times = dict(zip(trials.utterances, row, strict=True))
        repeats = [times[first] * times[second] for first, second in trials.names]
        expected = equal_error_rate(trials.labels.repeat(repeats), trials.scores.repeat(repeats))
        assert value == pytest.approx(expected, abs=1e-12)
    assert trials.value == pytest.approx(equal_error_rate(trials.labels, trials.scores), abs=1e-12)


def test_eer_is_where_the_roc_curve_meets_the_diagonal():
    trials = _trials(np.random.default_rng(7), utterances=40, decimals=2)
    accepted, hits, _ = roc_curve(trials.labels, trials.scores, drop_intermediate=False)
    # S3PRL: brentq(lambda x: 1 - x - interp1d(fpr, tpr)(x), 0, 1)
    expected = np.interp(0, accepted + hits - 1, accepted)
    assert trials.value == pytest.approx(expected, abs=1e-9)


def test_eer_of_a_perfect_and_of_a_useless_system():
    names = tuple((f"a{index}", f"b{index}") for index in range(4))
    labels = np.array([True, True, False, False])
    assert Trials(names, np.array([4.0, 3, 2, 1]), labels).value == 0
    assert Trials(names, np.array([1.0, 2, 3, 4]), labels).value == 1
    assert Trials(names, np.ones(4), labels).value == 0.5


def test_without_one_kind_of_trial_there_is_no_eer():
    trials = Trials((("a", "b"), ("c", "d")), np.array([1.0, 0.0]), np.array([True, False]))
    weights = np.array([[1.0, 1, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1], [0, 2, 2, 0]])
    assert trials.weighted(weights) == pytest.approx([0, np.nan, np.nan, np.nan], nan_ok=True)


def test_in_order_moves_everything_along():
    classes = np.array([5, 6, 7])
    counted = Counted(("c", "a", "b"), np.array([1.0, 2, 3]), np.array([4.0, 5, 6]), classes).in_order()
    assert counted.names == ("a", "b", "c")
    assert (counted.numerators.tolist(), counted.denominators.tolist()) == ([2, 3, 1], [5, 6, 4])
    assert counted.classes.tolist() == [6, 7, 5]
    trials = Trials(
        (("b", "a"), ("a", "c"), ("a", "b")), np.array([1.0, 2, 3]), np.array([True, False, False])
    ).in_order()
    assert trials.names == (("a", "b"), ("a", "c"), ("b", "a"))
    assert trials.scores.tolist() == [3, 2, 1]
    assert trials.labels.tolist() == [False, False, True]


# --- what cannot be read ---


@pytest.mark.parametrize(
    ("task", "metric"), [("ks", "loss"), ("sf", "slot_value_cer"), ("sv", "minDCF"), ("mosei", "acc")]
)
def test_what_is_not_known_is_none(task, metric, tmp_path, make_result):
    assert read_scores(make_result(0.5, task=task, metric=metric), tmp_path) is None


def test_a_missing_file_is_named(write, tmp_path, make_result):
    result = make_result(1.0, task="ks")
    with pytest.raises(ResultError, match=r"test_predict\.txt cannot be read .*evaluate the run again"):
        read_scores(result, tmp_path)
    write({"test_predict.txt": ["a yes"]})
    with pytest.raises(ResultError, match=r"test_truth\.txt cannot be read"):
        read_scores(result, tmp_path)


def test_a_file_that_is_not_text_is_named(tmp_path, make_result):
    (tmp_path / "test_predict.txt").write_bytes(b"a \xff\n")
    with pytest.raises(ResultError, match=r"test_predict\.txt cannot be read .*utf-8"):
        read_scores(make_result(1.0, task="ks"), tmp_path)


@pytest.mark.parametrize("line", ["b", "", " yes"])
def test_a_malformed_line_is_named(line, write, make_result):
    folder = write({"test_predict.txt": ["a yes", line], "test_truth.txt": ["a yes", "b yes"]})
    with pytest.raises(ResultError, match=rf"test_predict\.txt, line 2: .*but is '{line}'"):
        read_scores(make_result(1.0, task="ks"), folder)


def test_predictions_and_truth_of_different_utterances(write, make_result):
    folder = write({"test_predict.txt": ["a yes", "b no"], "test_truth.txt": ["a yes", "c no", "d no"]})
    message = r"test_predict\.txt and test_truth\.txt .*\(2 and 3 lines, 3 names in one only, such as b\)"
    with pytest.raises(ResultError, match=message):
        read_scores(make_result(1.0, task="ks"), folder)


def test_as_many_predictions_of_other_utterances(write, make_result):
    folder = write({"test_predict.txt": ["a yes", "b no"], "test_truth.txt": ["a yes", "c no"]})
    with pytest.raises(ResultError, match=r"\(2 and 2 lines, 2 names in one only, such as b\)"):
        read_scores(make_result(1.0, task="ks"), folder)


def test_an_utterance_that_is_there_twice_in_one_file_only(write, make_result):
    folder = write({"test_predict.txt": ["a yes", "a yes"], "test_truth.txt": ["a yes"]})
    with pytest.raises(ResultError, match=r"\(2 and 1 lines, 0 names in one only\)"):
        read_scores(make_result(1.0, task="ks"), folder)


def test_an_utterance_that_is_there_twice(write, make_result):
    lines = ["b yes", "a yes", "b yes"]
    folder = write({"test_predict.txt": lines, "test_truth.txt": lines})
    with pytest.raises(ResultError, match="1 utterances are there more than once, such as b:"):
        read_scores(make_result(1.0, task="ks"), folder)


def test_predictions_of_other_weights(write, make_result):
    folder = write({"test_predict.txt": ["a yes", "b no"], "test_truth.txt": ["a yes", "b yes"]})
    assert read_scores(make_result(0.5 + 9e-5, task="ks"), folder) is not None
    with pytest.raises(ResultError, match=r"have acc 0\.5, but results\.json says 0\.50011: they are of other weights"):
        read_scores(make_result(0.5 + 1.1e-4, task="ks"), folder)


def test_no_utterance_at_all(write, make_result):
    folder = write({"test_predict.txt": [], "test_truth.txt": []})
    with pytest.raises(ResultError, match="have acc nan"):
        read_scores(make_result(0.5, task="ks"), folder)


def test_lines_end_at_newlines_alone(write, make_result):
    # A name or text may hold what str.splitlines takes for the end of a line.
    folder = write({"test-hyp.ark": ["u A\u2028B"], "test-ref.ark": ["u A\u2028B"]})
    scores = read_scores(make_result(0.0, metric="per", task="pr"), folder)
    assert scores.denominators.tolist() == [1]
