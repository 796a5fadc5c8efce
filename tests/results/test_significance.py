import itertools

import numpy as np
import pytest

from downstream_tasks.sv.metrics import equal_error_rate
from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results import significance
from s3prl_interfaces.results.scores import Counted, Trials
from s3prl_interfaces.results.significance import compare


def _counted(numerators, denominators=None, prefix="u", classes=None):
    numerators = np.asarray(numerators, dtype=float)
    denominators = np.ones(len(numerators)) if denominators is None else np.asarray(denominators, dtype=float)
    return Counted(tuple(f"{prefix}{index:05d}" for index in range(len(numerators))), numerators, denominators, classes)


def _trials(scores, labels, pairs):
    return Trials(tuple(pairs), np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool))


# --- against plain loops ---


def _ratio(counted, drawn):
    return sum(counted.numerators[index] for index in drawn) / sum(counted.denominators[index] for index in drawn)


def _eer(trials, drawn):
    """Each trial, for each time that its first was drawn with each time that its second was."""
    labels, scores = [], []
    for (first, second), label, score in zip(trials.names, trials.labels, trials.scores, strict=True):
        for one, other in itertools.product(drawn, drawn):
            if (trials.utterances[one], trials.utterances[other]) == (first, second):
                labels.append(label)
                scores.append(score)
    return equal_error_rate(np.array(labels), np.array(scores))


def _plain(ours, baseline, score, resamples, seed, level):
    """The docstring's bootstrap, draw by draw."""
    generator = np.random.default_rng(seed)
    folds = range(len(ours[0]))
    drawn = [generator.integers(len(of.utterances), size=(resamples, len(of.utterances))) for of in ours[0]]

    def mean(side, row):
        everything = [drawn[fold][row] if row is not None else range(len(drawn[fold][0])) for fold in folds]
        return np.mean([np.mean([score(seed[fold], everything[fold]) for fold in folds]) for seed in side])

    # To 12 digits: what is equal on paper is equal.
    differences = np.array([round(mean(ours, row) - mean(baseline, row), 12) for row in range(resamples)])
    extreme = min((differences <= 0).sum(), (differences >= 0).sum())
    low, high = np.percentile(differences, [50 * (1 - level), 50 * (1 + level)])
    return mean(ours, None) - mean(baseline, None), low, high, min(1, 2 * (1 + extreme) / (resamples + 1))


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_error_rate_over_seeds_and_folds(level):
    generator = np.random.default_rng(1)
    lengths = [generator.integers(1, 9, size=size) for size in (15, 11)]
    ours, baseline = (
        [[_counted(generator.integers(0, 4, size=len(of)), of) for of in lengths] for _ in range(seeds)]
        for seeds in (3, 2)
    )
    found = compare(ours, baseline, resamples=200, seed=4, level=level)
    expected = _plain(ours, baseline, _ratio, 200, 4, level)
    assert (found.difference, found.low, found.high, found.p_value) == pytest.approx(expected, abs=1e-11)
    assert (found.level, found.units, found.resamples) == (level, 26, 200)


def test_eer_over_seeds():
    generator = np.random.default_rng(2)
    pairs = [(f"u{a}", f"u{b}") for a in range(14) for b in range(14) if a != b]
    labels = generator.random(len(pairs)) < 0.5
    sides = [
        [[_trials(generator.normal(size=len(pairs)) + shift * labels, labels, pairs)] for _ in range(seeds)]
        for shift, seeds in ((1.5, 2), (1.0, 1))
    ]
    # Names sort as the loop counts them.
    ours, baseline = ([[folds[0].in_order()] for folds in side] for side in sides)
    found = compare(*sides, resamples=60, seed=9)
    expected = _plain(ours, baseline, _eer, 60, 9, 0.95)
    assert (found.difference, found.low, found.high, found.p_value) == pytest.approx(expected, abs=1e-11)
    assert (found.units, found.resamples) == (14, 60)


def test_balanced_accuracy():
    generator = np.random.default_rng(3)
    classes = generator.integers(3, size=30)
    ours, baseline = (_counted(generator.random(30) < share, classes=classes) for share in (0.8, 0.5))

    def balanced(counted, drawn):
        recalls = [
            np.mean([counted.numerators[index] for index in drawn if classes[index] == label])
            for label in set(classes[list(drawn)])
        ]
        return np.mean(recalls)

    found = compare([[ours]], [[baseline]], resamples=100, seed=1)
    expected = _plain([[ours]], [[baseline]], balanced, 100, 1, 0.95)
    assert (found.difference, found.low, found.high, found.p_value) == pytest.approx(expected, abs=1e-11)


# --- what it promises ---


def _experiment(generator, ours, baseline, size=200):
    """Two systems that tend to be right on the same utterances, with these true accuracies."""
    ease = generator.random(size)
    chance = generator.random((2, size))
    return [[[_counted(0.6 * ease + 0.4 * luck < share)]] for luck, share in zip(chance, (ours, baseline), strict=True)]


def _true_accuracy(share):
    """P(0.6 x + 0.4 y < share) for uniform x and y, and share between 0.4 and 0.6: area of a trapezium."""
    return (share - 0.2) / 0.6


def test_interval_covers_the_true_difference():
    generator = np.random.default_rng(0)
    true = _true_accuracy(0.57) - _true_accuracy(0.47)
    covered = {0.95: 0, 0.8: 0}
    for number, level in itertools.product(range(300), covered):
        found = compare(*_experiment(generator, 0.57, 0.47), resamples=400, seed=number, level=level)
        covered[level] += found.low <= true <= found.high
    # Four standard errors of a share of 300.
    assert covered[0.95] / 300 == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 300))
    assert covered[0.8] / 300 == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 300))


def test_p_values_are_evenly_spread_where_there_is_no_difference():
    generator = np.random.default_rng(1)
    p_values = np.array(
        [compare(*_experiment(generator, 0.5, 0.5), resamples=400, seed=number).p_value for number in range(300)]
    )
    for share in (0.05, 0.2, 0.5, 0.8):
        # Ties make a test careful, so a little fewer.
        assert np.mean(p_values <= share) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 300) + 0.03)


def test_trials_that_share_utterances_do_not_feign_significance():
    """Every utterance shifts the scores of all its 24 trials; drawing trials would find a difference in a fifth."""
    generator = np.random.default_rng(2)
    pairs = [(a, b) for a in range(25) for b in range(a)]
    names = [(f"u{a:02d}", f"u{b:02d}") for a, b in pairs]
    labels = np.array([a % 5 == b % 5 for a, b in pairs])
    found = []
    for number in range(150):
        sides = []
        for _ in range(2):
            shift = generator.normal(size=25)
            scores = [shift[a] + shift[b] for a, b in pairs] + 0.1 * generator.normal(size=len(pairs)) + 4 * labels
            sides.append([[_trials(scores, labels, names)]])
        found.append(compare(*sides, resamples=200, seed=number).p_value <= 0.05)
    assert np.mean(found) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_a_much_better_verifier_is_found():
    generator = np.random.default_rng(3)
    pairs = [(f"u{a:02d}", f"u{b:02d}") for a in range(40) for b in range(a)]
    labels = generator.random(len(pairs)) < 0.5
    ours, baseline = (_trials(generator.normal(size=len(pairs)) + shift * labels, labels, pairs) for shift in (3, 1))
    found = compare([[ours]], [[baseline]], resamples=500)
    assert found.difference == pytest.approx(
        equal_error_rate(labels, ours.scores) - equal_error_rate(labels, baseline.scores), abs=1e-11
    )
    assert found.low < found.difference < found.high < 0
    assert found.p_value == 2 / 501


def test_identical_systems():
    generator = np.random.default_rng(0)
    counted = _counted(generator.integers(0, 5, size=40), generator.integers(1, 9, size=40))
    found = compare([[counted]], [[counted]], resamples=100)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_the_order_of_seeds_makes_no_difference():
    """Sums of the same numbers in another order differ in the last digit; that is not a difference of systems."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 9, size=40)
    seeds = [[_counted(generator.integers(0, 5, size=40), lengths)] for _ in range(7)]
    found = compare(seeds, seeds[3:] + seeds[:3], resamples=300)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_pairing_finds_what_is_lost_between_independent_systems():
    """Ours is right wherever the baseline is, and on 8 utterances more."""
    generator = np.random.default_rng(0)
    baseline = generator.random(400) < 0.6
    ours = baseline.copy()
    ours[np.flatnonzero(~baseline)[:8]] = True
    paired = compare([[_counted(ours)]], [[_counted(baseline)]])
    unpaired = compare([[_counted(generator.permutation(ours))]], [[_counted(baseline)]])
    assert paired.difference == unpaired.difference == 0.02
    assert paired.p_value < 0.01 < 0.3 < unpaired.p_value
    assert 0 < paired.low < 0.02 < paired.high
    assert unpaired.low < 0 < unpaired.high


def test_sides_exchanged_mirror_the_interval():
    generator = np.random.default_rng(0)
    ours, baseline = ([[_counted(generator.random(100) < share)]] for share in (0.7, 0.6))
    one, other = compare(ours, baseline), compare(baseline, ours)
    assert one.difference == -other.difference
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)
    assert one.p_value == other.p_value


def test_the_seed_decides_and_the_order_of_utterances_does_not():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 9, size=50)
    ours, baseline = (_counted(generator.integers(0, 5, size=50), lengths) for _ in range(2))
    order = generator.permutation(50)
    shuffled = Counted(tuple(ours.names[i] for i in order), ours.numerators[order], ours.denominators[order])
    found = compare([[ours]], [[baseline]], seed=1)
    assert compare([[ours]], [[baseline]], seed=1) == found
    assert compare([[shuffled]], [[baseline]], seed=1) == found
    assert compare([[ours]], [[baseline]], seed=2) != found


def test_large_test_sets_are_resampled_in_parts(monkeypatch):
    generator = np.random.default_rng(0)
    ours, baseline = (_counted(generator.random(60) < 0.5) for _ in range(2))
    whole = compare([[ours]], [[baseline]], resamples=100)
    sizes = []
    draw = significance._draw
    monkeypatch.setattr(significance, "_AT_ONCE", 7 * 60)
    monkeypatch.setattr(significance, "_draw", lambda *args: sizes.append(args[:2]) or draw(*args))
    assert compare([[ours]], [[baseline]], resamples=100) == whole
    assert sizes == [(7, 60)] * 14 + [(2, 60)]
    monkeypatch.setattr(significance, "_AT_ONCE", 1)
    assert compare([[ours]], [[baseline]], resamples=100) == whole


def test_draws_without_a_score_are_left_out():
    names = [(f"a{index}", f"b{index}") for index in range(3)]
    ours, baseline = (_trials(scores, [True, False, False], names) for scores in ([3, 2, 1], [1, 2, 3]))
    found = compare([[ours]], [[baseline]], resamples=500)
    assert 0 < found.resamples < 400
    assert (found.difference, found.low, found.high) == (-1, -1, -1)
    assert found.p_value == 2 / (found.resamples + 1)


# --- what cannot be compared ---


def test_no_draw_has_a_score():
    silent = _counted([0, 0], [0, 0])
    with pytest.raises(ResultError, match="too few utterances"):
        compare([[silent]], [[silent]])


def test_other_utterances():
    ours, baseline = _counted([1, 0, 1]), _counted([1, 0, 1, 1])
    with pytest.raises(ResultError, match=r"not scored on the same utterances: 1 are in one of them only, of 4 and 3"):
        compare([[ours]], [[baseline]])
    with pytest.raises(ResultError, match=r"6 are in one of them only, of 3 and 3"):
        compare([[ours], [_counted([1, 0, 1], prefix="v")]], [[ours]])
    with pytest.raises(ResultError, match=r"6 are in one of them only"):
        compare([[ours, ours]], [[ours, _counted([1, 0, 1], prefix="v")]])


def test_other_truth():
    pairs = [("a", "b"), ("c", "d")]
    labels = np.array([True, False])
    alike = [
        (_counted([1, 0], [3, 4]), _counted([1, 0], [3, 5])),
        (_counted([1, 0], classes=np.array([0, 1])), _counted([1, 0], classes=np.array([0, 0]))),
        (_counted([1, 0], classes=np.array([0, 1])), _counted([1, 0])),
        (_trials([1, 0], labels, pairs), _trials([1, 0], ~labels, pairs)),
    ]
    for ours, baseline in alike:
        with pytest.raises(ResultError, match="same truth"):
            compare([[ours]], [[baseline]])


def test_other_metrics():
    trials = _trials([1, 0], [True, False], [("a", "b"), ("c", "d")])
    with pytest.raises(ResultError, match="different metrics"):
        compare([[_counted([1, 0])]], [[trials]])


def test_other_folds():
    counted = _counted([1, 0])
    with pytest.raises(ResultError, match="with 1 and 2 folds"):
        compare([[counted, counted], [counted]], [[counted, counted]])
    with pytest.raises(ResultError, match="with 2 and 1 folds"):
        compare([[counted]], [[counted, counted]])
    with pytest.raises(ResultError, match="with 0 and 0 folds"):
        compare([[]], [[]])


@pytest.mark.parametrize("options", [{"resamples": 0}, {"level": 0}, {"level": 1}, {"level": 95}])
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match="`compare` needs"):
        compare([[_counted([1])]], [[_counted([1])]], **options)


def test_no_seed():
    for ours, baseline in [([], [[_counted([1])]]), ([[_counted([1])]], [])]:
        with pytest.raises(ValueError, match="a seed on each side"):
            compare(ours, baseline)
