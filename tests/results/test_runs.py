"""What stands below a folder: finished runs, and those whose results do not count."""

import json
import logging
import os

import pytest
import yaml

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results import load_runs, write_result
from s3prl_interfaces.results.problems import inspect_folder


@pytest.fixture
def make_run(make_result, tmp_path):
    """Make the folder of a run of 20 steps; ``steps`` are those of its checkpoints."""

    def make(name="run", *, steps=(20,), result=True, **fields):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"runner": {"total_steps": 20}}))
        (folder / "args.yaml").write_text("{}")
        for step in steps:
            (folder / f"states-{step}.ckpt").touch()
        if result:
            write_result(folder / "results.json", make_result(**fields))
        return folder

    return make


def test_runs_know_their_folders(make_run, tmp_path):
    folders = [make_run("a/fold1", fold="fold1"), make_run("b")]
    found = load_runs([tmp_path])
    assert [run.folder for run in found.runs] == folders
    assert [run.result.fold for run in found.runs] == ["fold1", None]
    assert found.problems == ()


def test_a_result_that_was_moved_away_counts(make_run, make_result, tmp_path):
    """Beside an unfinished run too: it is named."""
    folder = make_run(steps=(10,), result=False)
    write_result(folder / "kept.json", make_result())
    (run,) = load_runs([folder / "kept.json"]).runs
    assert run.folder == folder


def _problem(folder, finished):
    """The text of the only problem beside a finished run."""
    found = load_runs([folder, finished])
    assert [run.folder for run in found.runs] == [finished]
    (problem,) = found.problems
    assert problem.folder == folder
    return problem.text


def test_unfinished(make_run):
    text = _problem(make_run(steps=(5, 10), result=False), make_run("finished"))
    assert text.startswith("not finished, step 10 of 20: if it is not running now, continue it with `s3prl-interfaces")
    assert text.endswith("/run`.")


def test_unfinished_without_a_config(make_run):
    folder = make_run(steps=(10,), result=False)
    (folder / "config.yaml").unlink()
    assert _problem(folder, make_run("finished")).startswith("not finished, step 10: ")


@pytest.mark.parametrize("config", ["{", "[]", "runner: 3", "runner: {total_steps: many}"])
def test_unfinished_with_a_config_that_says_nothing(config, make_run):
    folder = make_run(steps=(10,), result=False)
    (folder / "config.yaml").write_text(config)
    assert inspect_folder(folder).startswith("not finished, step 10: ")


def test_at_its_start(make_run):
    text = _problem(make_run(steps=(), result=False), make_run("finished"))
    assert text == "no checkpoint and no result: it is still at its start, or stopped there. Run it again."


def test_what_is_no_runs_folder(make_run, tmp_path):
    (tmp_path / "evaluate" / "dev-best-test").mkdir(parents=True)
    (tmp_path / "evaluate" / "dev-best-test" / "metrics.json").touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "config.yaml").touch()
    make_run()
    (tmp_path / "run" / "states-best.ckpt").touch()
    assert load_runs([tmp_path]).problems == ()


def test_a_result_alone_counts(make_run):
    """Only results.json was kept, as in a repository."""
    folder = make_run(steps=())
    assert len(load_runs([folder]).runs) == 1


def test_failed(make_run):
    folder = make_run(steps=(10,))  # of an earlier, shorter run there is a result
    (folder / "failed.json").write_text(json.dumps({"step": 12, "reason": "The loss is nan.\n"}))
    text = _problem(folder, make_run("finished"))
    assert text == "failed at step 12: The loss is nan. Mend that and run it again with `-a`."


@pytest.mark.parametrize("content", ["{", "[]", '{"step": 3}'])
def test_failed_without_saying_why(content, make_run):
    folder = make_run(steps=(), result=False)
    (folder / "failed.json").write_text(content)
    assert _problem(folder, make_run("finished")).startswith("failed, and its failed.json cannot be read: look into")


def test_continued_and_not_finished(make_run):
    text = _problem(make_run(steps=(10,)), make_run("finished"))
    assert text.startswith(
        "continued after its results.json, which is of fewer steps, and not finished, step 10 of 20: "
    )


def test_continued_and_not_evaluated(make_run):
    """A checkpoint that is a little newer may have been copied after the result."""
    folder = make_run()
    written = (folder / "results.json").stat().st_mtime
    os.utime(folder / "states-20.ckpt", (written + 30, written + 30))
    assert inspect_folder(folder) is None
    os.utime(folder / "states-20.ckpt", (written + 90, written + 90))
    text = _problem(folder, make_run("finished"))
    assert text.startswith(
        "results.json is older than states-20.ckpt: it was continued, and not evaluated again. Delete"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "results.json is not valid JSON ("),
        ('{"schema_version": 1}', "results.json is not a result that can be used: missing `task`,"),
        (b"\xff", "Could not read the result results.json: 'utf-8' codec"),
    ],
)
def test_broken(content, expected, make_run):
    folder = make_run()
    (folder / "results.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    text = _problem(folder, make_run("finished"))
    assert text.startswith(expected)


def test_results_of_an_older_version_count(make_run):
    folder = make_run()
    data = json.loads((folder / "results.json").read_text())
    for key in ("data_seed", "learning_rate", "selection", "macs_per_second"):
        del data[key]
    (folder / "results.json").write_text(json.dumps(data))
    assert len(load_runs([folder]).runs) == 1


def test_nothing_that_can_be_used(make_run, tmp_path):
    for number in range(6):
        make_run(f"run{number}", steps=(number + 1,), result=False)
    with pytest.raises(ResultError) as caught:
        load_runs([tmp_path])
    message = str(caught.value)
    assert message.startswith(
        f"There is no results.json in or below {tmp_path} that can be used. {tmp_path / 'run0'}: "
    )
    assert "step 5 of 20" in message
    assert "step 6 of 20" not in message
    assert message.endswith(" And 1 more.")
    with pytest.raises(ResultError, match="finish a run, or give another folder"):
        load_runs([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultError, match=r"no results\.json in or below .*empty\. A run writes it when"):
        load_runs([tmp_path / "empty"])


def test_the_newer_of_two_results_is_kept_with_a_warning(make_run, tmp_path, caplog):
    for name, value, modified in (("a", 0.7, 2000), ("b", 0.6, 1000)):
        os.utime(make_run(name, steps=(), value=value) / "results.json", (modified, modified))
    with caplog.at_level(logging.WARNING):
        found = load_runs([tmp_path])
    assert [run.folder for run in found.runs] == [tmp_path / "a"]
    assert found.problems == ()
    assert "is used because it is newer" in caplog.text
