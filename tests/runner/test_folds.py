"""``--all-folds``: every fold of a cross-validated task, each in its own folder."""

import json
import logging

import pytest

from s3prl_interfaces.errors import ConfigError
from tests.runner.toys import DownstreamExpert, toy_run


def results(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.rglob("results.json")}


def test_each_fold_is_a_run_and_the_mean_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    found = results(toy_run(tmp_path, all_folds=True))
    assert {name: result["fold"] for name, result in found.items()} == {"fold1": "fold1", "fold2": "fold2"}
    mean = sum(result["primary"]["value"] for result in found.values()) / 2
    assert caplog.messages[-1] == f"Mean test acc of 2 folds: {mean:.4f}"


def test_a_stopped_round_goes_on_with_the_fold_that_is_not_finished(tmp_path):
    folder = toy_run(tmp_path, all_folds=True)
    kept = (folder / "fold1" / "results.json").stat().st_mtime_ns
    (folder / "fold2" / "results.json").unlink()
    toy_run(tmp_path, all_folds=True, auto_resume=True)
    assert (folder / "fold1" / "results.json").stat().st_mtime_ns == kept
    assert results(folder).keys() == {"fold1", "fold2"}


def test_overrides_go_to_each_fold(tmp_path):
    found = results(toy_run(tmp_path, all_folds=True, override="config.runner.total_steps=3"))
    assert [result["metrics"]["test"]["step"] for result in found.values()] == [3, 3]


def test_what_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="goes with `-m train`"):
        toy_run(tmp_path, all_folds=True, mode="evaluate")
    monkeypatch.setattr(DownstreamExpert, "folds", ())
    with pytest.raises(ConfigError, match="`toytask` is not cross-validated"):
        toy_run(tmp_path, all_folds=True)


def test_the_protocol_is_in_the_results(tmp_path):
    protocol = {"windows": "overlapping", "stress": True}
    folder = toy_run(tmp_path, {"downstream_expert": {"protocol": protocol}})
    assert json.loads((folder / "results.json").read_text())["protocol"] == protocol
