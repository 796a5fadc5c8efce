"""``s3prl-interfaces prepare``: corpora that are whole, and everything that a corpus lacks, in one message."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from downstream_tasks.er.prepare import prepare as prepare_er
from downstream_tasks.ic.prepare import prepare as prepare_ic
from downstream_tasks.ks.prepare import prepare as prepare_ks
from downstream_tasks.layout import missing_files, refuse
from downstream_tasks.registry import load_prepare
from downstream_tasks.sid.prepare import prepare as prepare_sid
from s3prl_interfaces.errors import DataError
from s3prl_interfaces.mini_superb.corpus import digest


def copy(corpus, tmp_path):
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))


@pytest.mark.parametrize("prepare", [prepare_er, prepare_ic, prepare_ks, prepare_sid])
def test_a_missing_folder_is_named(tmp_path, prepare):
    with pytest.raises(DataError, match="nowhere is incomplete: the folder does not exist"):
        prepare(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("prepare", "corpus"),
    [(prepare_ic, "fluent_commands"), (prepare_ks, "speech_commands"), (prepare_sid, "voxceleb1")],
)
def test_nothing_is_written(request, prepare, corpus):
    root = request.getfixturevalue(corpus)
    before = digest(root)
    assert prepare(str(root)) == prepare(root)
    assert digest(root) == before


def test_problems_beyond_ten_are_counted(tmp_path):
    refuse(tmp_path, [])
    with pytest.raises(DataError) as caught:
        refuse(tmp_path, [f"p{number}" for number in range(13)])
    listed = "; ".join(f"p{number}" for number in range(10))
    assert str(caught.value) == f"{tmp_path} is incomplete: {listed}; and 3 more."
    with pytest.raises(DataError, match=r"p9\.$"):
        refuse(tmp_path, [f"p{number}" for number in range(10)])


def test_missing_files_are_found_with_one_listing_a_folder(tmp_path, monkeypatch):
    for name in ("a/1.wav", "a/2.wav", "b/1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = []
    monkeypatch.setattr(Path, "iterdir", lambda self, iterdir=Path.iterdir: listed.append(self) or iterdir(self))
    wanted = [tmp_path / name for name in ("a/1.wav", "c/1.wav", "a/3.wav", "b/1.wav", "a/2.wav", "c/2.wav")]
    assert missing_files(wanted) == [tmp_path / name for name in ("c/1.wav", "a/3.wav", "c/2.wav")]
    assert listed == [tmp_path / "a", tmp_path / "b"]


# Fluent Speech Commands.


def test_fluent_commands(fluent_commands):
    assert prepare_ic(fluent_commands) == [
        f"{fluent_commands}: train 40, dev 8, test 10",
        "  values: 6 of action, 14 of object, 4 of location",
        "Set in the config:",
        f"  downstream_expert.datarc.file_path: {fluent_commands}",
    ]


def test_fluent_commands_that_lack_much(fluent_commands, tmp_path):
    root = copy(fluent_commands, tmp_path)
    (root / "data/test_data.csv").unlink()
    with (root / "data/valid_data.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (root / rows[0]["path"]).unlink()
    shutil.rmtree((root / rows[-1]["path"]).parent)
    rows[1]["object"] = "tuba"
    with (root / "data/valid_data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DataError) as caught:
        prepare_ic(root)
    message = str(caught.value)
    assert "data/test_data.csv is missing" in message
    assert f"{rows[0]['path']}, which data/valid_data.csv names, is missing" in message
    assert f"{rows[-1]['path']}, which data/valid_data.csv names, is missing" in message
    assert "object 'tuba' does not occur in train_data.csv" in message


def test_a_table_that_cannot_be_used_is_named_with_the_others(fluent_commands, tmp_path):
    root = copy(fluent_commands, tmp_path)
    for file in ("train_data.csv", "valid_data.csv"):
        (root / "data" / file).write_text("path,action\n")
    with pytest.raises(
        DataError, match=r"train_data\.csv has no column object, location; .*valid_data\.csv has no col"
    ):
        prepare_ic(root)


# VoxCeleb1.


def test_voxceleb1(voxceleb1):
    lines = prepare_sid(voxceleb1)
    text = (voxceleb1 / "veri_test_class.txt").read_text().splitlines()
    counts = [sum(line.startswith(f"{number} ") for line in text) for number in (1, 2, 3)]
    speakers = len({line.split()[1].split("/")[0] for line in text})
    assert lines == [
        f"{voxceleb1}: {speakers} speakers; train {counts[0]}, dev {counts[1]}, test {counts[2]}",
        "Set in the config:",
        f"  downstream_expert.datarc.file_path: {voxceleb1}",
        f"  downstream_expert.datarc.meta_data: {voxceleb1 / 'veri_test_class.txt'}",
    ]


def test_voxceleb1_that_lacks_its_halves(tmp_path):
    (tmp_path / "dev").mkdir()
    with pytest.raises(
        DataError, match=r"dev/wav/ is missing; test/wav/ is missing; veri_test_class\.txt is missing: "
    ):
        prepare_sid(tmp_path)


def test_voxceleb1_that_lacks_utterances(voxceleb1, tmp_path):
    root = copy(voxceleb1, tmp_path)
    metadata = root / "veri_test_class.txt"
    text = metadata.read_text()
    first, second = sorted(path.name for path in root.glob("dev/wav/*"))[:2]
    shutil.rmtree(root / "dev/wav" / first)
    gone = next(line.split()[1] for line in text.splitlines() if line.startswith(f"1 {second}/"))
    (root / "dev/wav" / gone).unlink()
    utterances = text.count(f" {first}/")
    expected = f"{root} is incomplete: no folder */wav/{first} ({utterances} utterances); dev/wav/{gone} is missing."
    with pytest.raises(DataError) as caught:
        prepare_sid(root)
    assert str(caught.value) == expected
    metadata.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("2 ")))
    with pytest.raises(DataError, match=r"has no utterance of split dev; no folder .*; dev/wav/id.* is missing"):
        prepare_sid(root)
    metadata.write_text("5 a/b/c.wav\n")
    with pytest.raises(DataError, match=r"line 1: must be `<1\|2\|3>"):
        prepare_sid(root)


# IEMOCAP.


def test_iemocap(iemocap, tmp_path):
    root = Path(shutil.copytree(iemocap, tmp_path / "corpus", ignore=shutil.ignore_patterns("meta_data")))
    lines = prepare_er(str(root))
    assert lines[0] == "Session1: 8 utterances with an emotion that counts: 2 neu, 2 hap, 2 ang, 2 sad"
    assert lines[1] == "  Its dialogs are not IEMOCAP's: they are in alphabetical order, scores do not compare."
    assert lines[10:] == [
        f"Written: {root}/meta_data/SessionN/{{train,test}}_meta_data.json",
        "Set in the config:",
        f"  downstream_expert.datarc.root: {root}",
        f"  downstream_expert.datarc.meta_data: {root / 'meta_data'}",
    ]
    written = {path.relative_to(root): path.read_bytes() for path in (root / "meta_data").rglob("*.json")}
    expected = {path.relative_to(iemocap): path.read_bytes() for path in (iemocap / "meta_data").rglob("*.json")}
    assert written == expected
    assert len(written) == 10
    prepare_er(root)
    assert {path.relative_to(root) for path in (root / "meta_data").rglob("*") if path.is_file()} == set(written)


def test_iemocap_that_lacks_much(iemocap, tmp_path):
    root = copy(iemocap, tmp_path)
    shutil.rmtree(root / "Session2")
    shutil.rmtree(root / "Session3" / "sentences")
    shutil.rmtree(root / "Session4" / "dialog")
    entries = json.loads((root / "meta_data/Session1/test_meta_data.json").read_text())["meta_data"]
    shutil.rmtree(root / "meta_data")
    (root / entries[0]["path"]).unlink()
    dialog = sorted((root / "Session5/dialog/EmoEvaluation").iterdir())[0]
    dialog.write_text("[0.0 - 1.0] x\n")
    with pytest.raises(DataError) as caught:
        prepare_er(root)
    message = str(caught.value)
    for problem in (
        "Session2/ is missing",
        "no wav in Session3/sentences/wav/*/",
        "no annotation in Session4/dialog/EmoEvaluation/",
        f"{entries[0]['path']} is missing",
        f"{dialog}, line 1: must be",
    ):
        assert problem in message
    assert message.count(";") == 4
    assert not (root / "meta_data").exists()


def test_a_full_disk_leaves_iemocaps_metadata_as_it_was(iemocap, tmp_path, monkeypatch):
    root = copy(iemocap, tmp_path)
    kept = root / "meta_data/Session1/train_meta_data.json"
    kept.write_text("mine")
    write_text = Path.write_text

    def write(self, *args, **kwargs):
        if "Session4" in str(self):
            raise OSError("disk full")
        return write_text(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(DataError, match=r"meta_data cannot be written: disk full\."):
        prepare_er(root)
    assert kept.read_text() == "mine"
    assert len([path for path in (root / "meta_data").rglob("*") if path.is_file()]) == 10


# Speech Commands.

TRAIN, TEST = "speech_commands_v0.01", "speech_commands_test_set_v0.01"


def test_speech_commands(speech_commands):
    words = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
    lines = prepare_ks(speech_commands)
    assert lines[:-4] == [
        f"{speech_commands / TRAIN}: 65 clips of 18 words, 5 background noises",
        f"  train: {', '.join(f'2 {word}' for word in words)}, 16 _unknown_",
        f"  dev: {', '.join(f'1 {word}' for word in words)}, 8 _unknown_",
        "  neither: 11 clips of the speakers that the test set is made of",
        f"{speech_commands / TEST}: 12 clips",
        f"  test: {', '.join(f'1 {word}' for word in words)}, 1 _unknown_, 1 _silence_",
    ]
    assert "not the whole of Speech Commands v0.01" in lines[-4]
    assert lines[-3:] == [
        "Set in the config:",
        f"  downstream_expert.datarc.speech_commands_root: {speech_commands / TRAIN}",
        f"  downstream_expert.datarc.speech_commands_test_root: {speech_commands / TEST}",
    ]
    assert prepare_ks(speech_commands.parent) == lines


def test_speech_commands_that_lack_a_set(speech_commands, tmp_path):
    root = copy(speech_commands, tmp_path)
    with pytest.raises(DataError, match=f"the test set is missing: unpack {TEST}.tar.gz into a folder {TEST}"):
        prepare_ks(root / TRAIN)
    with pytest.raises(DataError, match=f"the training set is missing: unpack {TRAIN}.tar.gz into a folder {TRAIN}"):
        prepare_ks(root / TEST)
    shutil.copytree(root / TRAIN, root / "speech_commands_v0.02")
    with pytest.raises(DataError, match=r"v0\.01, .*v0\.02 all look like the training set"):
        prepare_ks(root)


def test_speech_commands_that_lack_classes(speech_commands, tmp_path):
    root = copy(speech_commands, tmp_path)
    for folder in (f"{TRAIN}/_background_noise_", f"{TRAIN}/up", f"{TEST}/_unknown_", f"{TEST}/go"):
        shutil.rmtree(root / folder)
    with pytest.raises(DataError) as caught:
        prepare_ks(root)
    assert str(caught.value) == (
        f"{root} is incomplete: {TRAIN}: no wav in up/; {TRAIN}: no wav in _background_noise_/; "
        f"{TEST}: no wav in go/; {TEST}: no wav in _unknown_/."
    )


def test_the_whole_of_speech_commands_is_recognised(speech_commands, monkeypatch):
    monkeypatch.setattr("downstream_tasks.ks.prepare._WORD_CLIPS", 65)
    monkeypatch.setattr("downstream_tasks.ks.prepare._TEST_CLIPS", 12)
    assert not [line for line in prepare_ks(speech_commands) if "not the whole" in line]


# LibriSpeech.


@pytest.mark.parametrize("task", ["asr", "pr"])
def test_librispeech_that_is_not_there(tmp_path, task):
    with pytest.raises(
        DataError, match=r"nowhere does not exist: it must be LibriSpeech's folder.*libri_root.*corpus\.path"
    ):
        load_prepare(task)(tmp_path / "nowhere")
