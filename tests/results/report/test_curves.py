import math
import shutil

import pytest
from torch.utils.tensorboard import SummaryWriter

from s3prl_interfaces.results import Primary
from s3prl_interfaces.results.report.curves import (
    Curve,
    Events,
    Measure,
    average,
    chosen_measure,
    read_events,
    thinned,
    training_loss,
)
from tests.results.report.conftest import write_scalars


def test_events_are_what_was_written(tmp_path):
    dev = {step: 1 / (step + 1) for step in range(0, 30_000, 10)}
    write_scalars(tmp_path, {"asr/dev-clean-wer": dev, "asr/train-loss": {10: 2.0}})
    scalars = read_events(tmp_path).scalars
    assert set(scalars) == {"dev-clean-wer", "train-loss"}
    # TensorBoard keeps 32 bits; every value is there, not the ten thousand that it samples.
    assert scalars["dev-clean-wer"] == pytest.approx(dev, rel=1e-6)
    assert scalars["train-loss"] == {10: 2.0}


def test_the_newest_value_of_a_step_counts(tmp_path):
    for name, time, series in (("b", 100, {10: 0.1, 20: 0.2, 30: 0.9}), ("a", 200, {40: 0.4, 20: 0.25, 30: 0.3})):
        with SummaryWriter(str(tmp_path / name)) as writer:
            for step, value in series.items():
                writer.add_scalar("ic/dev-acc", value, step, walltime=time + step)
        # The continued run's file, `a`, comes first by name.
        shutil.move(next((tmp_path / name).iterdir()), tmp_path / f"{name}.tfevents")
    assert read_events(tmp_path).scalars == {"dev-acc": pytest.approx({10: 0.1, 20: 0.25, 30: 0.3, 40: 0.4})}
    assert list(read_events(tmp_path).scalars["dev-acc"]) == [10, 20, 30, 40]


def test_days(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for day in (3, 1, 2):
            writer.add_scalar("a/b-c", 0.0, day, walltime=day * 86400 + 1)
    assert read_events(tmp_path).days == ("1970-01-02", "1970-01-04")


def test_values_that_are_not_finite_are_left_out(tmp_path):
    write_scalars(tmp_path, {"ic/train-loss": {1: 1.0, 2: math.nan, 3: math.inf, 4: 0.5}})
    assert read_events(tmp_path).scalars == {"train-loss": {1: 1.0, 4: 0.5}}


def test_no_events(tmp_path):
    assert read_events(tmp_path) is None
    (tmp_path / "events.out.tfevents.1").write_bytes(b"not an event file, whatever its name says" * 9)
    (tmp_path / "events.out.tfevents.2").write_bytes(b"")
    assert read_events(tmp_path) is None


def test_a_file_that_was_cut_is_read_as_far_as_it_goes(tmp_path):
    write_scalars(tmp_path, {"ic/dev-acc": dict.fromkeys(range(100), 0.5)})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:2000])
    assert 10 < len(read_events(tmp_path).scalars["dev-acc"]) < 100


def test_what_chose_the_weights(make_result):
    metrics = {"dev-clean": {"wer": 7.0, "step": 1}, "test-clean": {"wer": 8.0, "step": 1}}
    old = make_result(8.0, metric="wer", split="test-clean", higher_is_better=False, metrics=metrics)
    assert chosen_measure(old) == Measure("dev-clean", "wer", False)
    # SUPERB's SV has no dev split.
    assert chosen_measure(make_result(0.1, metric="EER", higher_is_better=False)) == Measure("test", "EER", False)
    metrics["dev-other"] = {"uer": 3.0, "step": 1}
    told = make_result(
        8.0,
        metric="wer",
        split="test-clean",
        higher_is_better=False,
        metrics=metrics,
        selection=Primary(name="uer", split="dev-other", value=3.0, higher_is_better=True),
    )
    assert chosen_measure(told) == Measure("dev-other", "uer", True)


def test_training_loss():
    scalars = {"dev-loss": {1: 9.0}, "train-acc": {1: 8.0}, "train-intent_loss": {1: 2.0}}
    assert training_loss(Events(scalars, ())) == {1: 2.0}
    assert training_loss(Events({**scalars, "train-loss": {1: 3.0}}, ())) == {1: 3.0}
    assert training_loss(Events({"dev-loss": {1: 9.0}}, ())) == {}


def test_average_over_the_steps_that_all_have():
    runs = [{1: 1.0, 2: 2.0, 3: 3.0}, {3: 5.0, 2: 3.0}, {2: 7.0, 3: 1.0, 4: 9.0}]
    assert average(runs) == Curve((2, 3), (4.0, 3.0), (2.0, 1.0), (7.0, 5.0), 3)
    assert average([{1: 1.0}, {2: 1.0}]) is None
    assert average([]) is None


def test_thinned():
    steps = tuple(range(1000))
    values = tuple(map(float, steps))
    curve = Curve(steps, values, values, values, 1)
    few = thinned(curve, 11)
    assert few.steps == (0, 100, 200, 300, 400, 500, 599, 699, 799, 899, 999)
    assert few.mean == few.low == few.high == tuple(map(float, few.steps))
    assert thinned(curve, 1000) == curve
