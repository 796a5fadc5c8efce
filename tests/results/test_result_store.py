import json
import logging
import os
from pathlib import Path

import pytest

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results import find_results, load_results, read_result, write_result


def _names(folder):
    return [path.name for path in folder.iterdir()]


def test_round_trip(make_result, tmp_path):
    result = make_result(
        0.1 + 0.2,
        interface="hconv",
        interface_options={"kernel_size": 3, "layers": [1, 2], "note": "é"},
        fold="fold1",
        seconds={"train": 1.5},
        peak_memory_bytes=12,
        versions={"torch": "2.9.0"},
        counts={"test": 7},
    )
    write_result(tmp_path / "results.json", result)
    assert read_result(tmp_path / "results.json") == result
    assert json.loads((tmp_path / "results.json").read_text("utf-8"))["schema_version"] == 1
    assert _names(tmp_path) == ["results.json"]


def test_failed_rename_leaves_the_old_file(make_result, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text("old")
    seen = []

    def fail(self, target):
        # The new text is complete beside the old file by now.
        seen.append((json.loads(self.read_text()), self.parent, Path(target)))
        raise OSError("disk is gone")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ResultError, match=r"Could not write the result .*results\.json: disk is gone\."):
        write_result(path, make_result())
    assert seen == [(make_result().to_json(), tmp_path, path)]
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["results.json"]


def test_failed_sync_leaves_the_old_file(make_result, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text("old")

    def fail(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ResultError, match="no space left"):
        write_result(path, make_result())
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["results.json"]


def test_invalid_result_is_not_written(make_result, tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(ResultError, match=r"results\.json: `metrics.test.acc` must be a finite number, but is nan"):
        write_result(path, make_result(float("nan")))
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["results.json"]


def test_folder_must_exist(make_result, tmp_path):
    with pytest.raises(ResultError, match="No such file or directory"):
        write_result(tmp_path / "nowhere" / "results.json", make_result())


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_others_may_read_what_the_umask_allows(make_result, tmp_path):
    before = os.umask(0o022)
    try:
        write_result(tmp_path / "results.json", make_result())
    finally:
        os.umask(before)
    assert (tmp_path / "results.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON (Expecting property name"),
        ('{"a": NaN}', "is not valid JSON (NaN is not a JSON number)"),
        ("[]", "is not a result: it holds a list, not an object."),
        ("{}", "`schema_version` must be 1, but is None."),
        ('{"schema_version": "1"}', "`schema_version` must be 1, but is '1'."),
        (
            '{"schema_version": 2}',
            "`schema_version` is 2, this release reads up to 1: the file was written by a newer version",
        ),
        ('{"schema_version": 1, "primary": 3}', "`primary` must be a mapping, but is 3."),
    ],
)
def test_unreadable_files_are_named(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultError) as caught:
        read_result(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_missing_keys_are_named(make_result, tmp_path):
    data = make_result().to_json()
    del data["seed"], data["metrics"], data["primary"]["split"]
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(ResultError, match=r"missing `seed`, `metrics`, `primary\.split`\."):
        read_result(tmp_path / "results.json")


def test_wrong_values_are_named(make_result, tmp_path):
    data = make_result().to_json()
    data["seed"] = "one"
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(ResultError, match=r"results\.json is not .*: `seed` must be a whole number, but is 'one'\."):
        read_result(tmp_path / "results.json")


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(ResultError, match=r"Could not read the result .*gone\.json: .*No such file"):
        read_result(tmp_path / "gone.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ResultError, match=r"Could not read the result .*binary\.json: 'utf-8' codec"):
        read_result(tmp_path / "binary.json")


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_find_results(tmp_path):
    first = _touch(tmp_path / "a" / "x" / "results.json")
    second = _touch(tmp_path / "a" / "results.json")
    other = _touch(tmp_path / "b" / "old_results.json")
    assert find_results([tmp_path / "a"]) == [second, first]
    # A file may have any name; what is reached twice is listed once.
    assert find_results([other, str(tmp_path / "a" / "x"), tmp_path]) == [other, first, second]


def test_find_results_follows_links_and_ends(tmp_path):
    target = _touch(tmp_path / "disk" / "run" / "results.json")
    search = tmp_path / "result"
    search.mkdir()
    (search / "linked").symlink_to(tmp_path / "disk", target_is_directory=True)
    (search / "again").symlink_to(tmp_path / "disk", target_is_directory=True)
    (target.parent / "loop").symlink_to(tmp_path, target_is_directory=True)
    (search / "itself").symlink_to(search / "itself")
    found = find_results([search])
    assert [path.resolve() for path in found] == [target.resolve()]


def test_a_file_under_two_names_is_listed_once(tmp_path):
    file = _touch(tmp_path / "run" / "results.json")
    link = tmp_path / "best.json"
    link.symlink_to(file)
    assert find_results([link, file, tmp_path]) == [link]


def test_nothing_to_find(tmp_path):
    with pytest.raises(ResultError, match=r"no directory or file .*gone\. Give the folder that the runs were"):
        find_results([tmp_path / "gone"])
    with pytest.raises(ResultError, match=r"no results\.json in or below .*: finish a run, or give another folder"):
        find_results([tmp_path])
    with pytest.raises(ResultError, match="in or below no folder"):
        find_results([])


def test_newer_duplicate_is_kept_with_a_warning(make_result, tmp_path, caplog):
    for name, value, seed, modified in (("a", 0.7, 1, 2000), ("b", 0.6, 1, 1000), ("c", 0.8, 2, 500)):
        path = _touch(tmp_path / name / "results.json")
        write_result(path, make_result(value, seed=seed))
        os.utime(path, (modified, modified))
    with caplog.at_level(logging.WARNING):
        results = load_results([tmp_path])
    assert [(result.seed, result.primary.value) for result in results] == [(1, 0.7), (2, 0.8)]
    (record,) = caplog.records
    message = record.getMessage()
    assert f"{tmp_path / 'a' / 'results.json'} is used because it is newer" in message
    assert f"{tmp_path / 'b' / 'results.json'} is ignored" in message
    assert "(ic, tiny, weighted_sum, seed 1)" in message
