"""``s3prl-interfaces validate``: what a run needs is what it then took, and nothing is written."""

import re
from dataclasses import replace

import pytest

from s3prl_interfaces.cli import main
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments, validation
from s3prl_interfaces.runner.checkpoint import step_checkpoints
from s3prl_interfaces.runner.validation import render, validate
from tests.runner.toys import TASK, toy_run


def asked(folder, **more):
    """The arguments of a run that ``toy_run`` did in ``folder``, for one beside it."""
    common = {"mode": "train", "upstream": "tests.runner.toys:build", "downstream": TASK, "device": "cpu"}
    return RunArguments(**{**common, "config": [str(folder / "toy.yaml")], "expdir": str(folder / "other"), **more})


def everything(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


LANES = ["hconv", "pca_concat"]


@pytest.fixture
def lanes(tmp_path):
    toy_run(tmp_path, interface=LANES)
    return tmp_path


def test_needs_are_those_of_the_run(lanes):
    before = everything(lanes)
    (needs,) = validate(asked(lanes, interface=LANES))
    assert everything(lanes) == before
    for name in LANES:
        parameters = read_result(lanes / "run" / name / "results.json").parameters
        assert needs.lanes[name] == (parameters["interface"], parameters["downstream"])
    # toys.CONFIG: 12 updates of two batches, 22 utterances in batches of 4; a checkpoint at 3, 6, 9 and 12; dev and
    # test are evaluated at 4, 8 and 12
    assert (needs.updates, needs.per_update, needs.batches) == (12, 2, 6)
    assert (needs.evaluations, needs.splits) == (3, ("dev", "test"))
    files = [path for name in LANES for path in (lanes / "run" / name).glob("*.ckpt")]
    assert len(files) == 2 * 5
    size = sum(path.stat().st_size for path in files)
    assert needs.disk == pytest.approx(size, rel=0.5)  # random states and what heads record make the rest
    assert needs.disk < size < needs.free
    assert needs.folder == lanes / "other"


def test_time_is_that_of_all_updates_and_evaluations(lanes, monkeypatch):
    paces = iter([2.0, 0.5, 0.25])  # an update, a batch of each split
    monkeypatch.setattr(validation, "_pace", lambda work: next(paces))
    monkeypatch.setattr(validation, "scored_splits", lambda lane, runner: ["dev"])
    (needs,) = validate(asked(lanes, override="config.runner.eval_dataloaders=[dev],,config.runner.evaluate_ratio=0.5"))
    assert needs.evaluation == 2 * 0.5 / 2  # dev has two batches
    assert needs.seconds == pytest.approx(12 * 2.0 + 3 * 0.5 + 2 * 0.5, abs=0.1)


def test_pace_leaves_the_first_out_and_does_not_look_for_ever(monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 13.0, 15.0])
    monkeypatch.setattr(validation.time, "monotonic", lambda: next(clock))
    assert validation._pace(iter([None] * 9)) == 2.0  # of 1, 3 and 2
    clock = iter([0.0, 30.0])
    assert validation._pace(iter([None] * 9)) == 30.0


def test_a_continued_run_needs_less(lanes):
    done = lanes / "run" / "hconv"
    (needs,) = validate(asked(lanes, past_exp=str(done), config=[], override="config.runner.total_steps=17"))
    assert (needs.updates, needs.evaluations) == (5, 2)  # at 16 and 17
    assert validate(asked(lanes, past_exp=str(done), config=[])) == []
    assert [path.name for path in step_checkpoints(done)][-1] == "states-12.ckpt"


def test_a_cache_is_left_alone(lanes, tmp_path):
    cache = tmp_path / "cache"
    (needs,) = validate(asked(lanes, override=f"config.runner.feature_cache.dir={cache}"))
    assert needs.update > 0
    assert not cache.exists()


def test_fine_tuning_keeps_the_upstream_too(lanes):
    (frozen,), (tuned,) = (validate(asked(lanes, upstream_trainable=trained)) for trained in (False, True))
    assert tuned.disk > frozen.disk


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mode": "evaluate"}, "is for `-m train`, not for `-m evaluate`"),
        ({"all_folds": True}, "looks at one fold"),
        ({"interface": ["hconvv"]}, "hconvv"),
        ({"override": "config.runner.eval_dataloaders=[nowhere]"}, "nowhere"),
        ({"override": "config.runner.totl_steps=3"}, "totl_steps"),
    ],
)
def test_what_the_run_would_have_said(lanes, more, message):
    with pytest.raises(ConfigError, match=message):
        validate(asked(lanes, **more))


def test_a_folder_that_is_taken(lanes):
    with pytest.raises(ConfigError, match="already holds a finished run"):
        validate(asked(lanes, interface=["hconv", "last_layer"], expdir=str(lanes / "run")))


def test_gradients_that_are_not_finite(lanes, caplog):
    validate(asked(lanes, override="config.downstream_expert.nan_at=0"))
    assert "weighted_sum: the gradient norm of an update is nan. The loss was not finite with u" in caplog.text


def test_it_is_told(lanes, capsys, logging_restored):
    flags = ["-u", "tests.runner.toys:build", "-d", TASK, "-c", str(lanes / "toy.yaml"), "-p", str(lanes / "other")]
    assert main(["validate", *flags, "--device", "cpu", "--interface", *LANES]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^toytask on tests\.runner\.toys:build: 3 hidden states, 5,760 parameters$", told, re.MULTILINE)
    assert re.search(r"^  hconv: [1-9][0-9,]* parameters, head [1-9][0-9]*$", told, re.MULTILINE)
    assert "Steps   12 updates of 2 batches: 4.0 epochs of 6; 3 evaluations of dev, test\n" in told
    assert re.search(
        r"^Time    about .* s: .* s an update, .* s an evaluation, .* s before and after$", told, re.MULTILINE
    )
    assert main(["validate", "-m", "train", *flags, "--interface", "hconvv"]) == 2
    assert "hconvv" in capsys.readouterr().err


def test_times_and_sizes_are_told_in_their_units(lanes):
    (needs,) = validate(asked(lanes))
    for seconds, told in (
        (0.04, "0.04 s"),
        (12.4, "12 s"),
        (150, "2.5 min"),
        (3 * 3600, "3 h"),
        (86400 * 2.5, "2.5 days"),
    ):
        assert f"about {told}: " in render(replace(needs, updates=1, update=seconds, evaluations=0, before_and_after=0))
    for size, told in ((900, "0.9 kB"), (3.2e6, "3.2 MB"), (1.29e11, "129 GB")):
        assert f"Memory  {told} at" in render(replace(needs, memory=int(size)))
