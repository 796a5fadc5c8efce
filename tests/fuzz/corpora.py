"""The least corpora that the readers take, in the layouts of the real ones; and the readers of each of their files."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from downstream_tasks.asr import beam_search
from downstream_tasks.asr import dataset as asr
from downstream_tasks.asr import prepare as asr_prepare
from downstream_tasks.asr.text import Characters, read_characters
from downstream_tasks.er import dataset as er
from downstream_tasks.er import prepare as er_prepare
from downstream_tasks.ic import dataset as ic
from downstream_tasks.ic import prepare as ic_prepare
from downstream_tasks.librispeech import SETS, read_sets
from downstream_tasks.pr import dataset as pr
from downstream_tasks.pr import phones
from downstream_tasks.pr import prepare as pr_prepare
from downstream_tasks.sf import dataset as sf
from downstream_tasks.sf import prepare as sf_prepare
from downstream_tasks.sf import slots
from downstream_tasks.sid import dataset as sid
from downstream_tasks.sid import prepare as sid_prepare
from downstream_tasks.sv import dataset as sv
from downstream_tasks.sv import prepare as sv_prepare
from downstream_tasks.vocabulary import Vocabulary, read_tokens

CHARACTERS = Characters()
PHONES = Vocabulary(phones.PHONES, separator=" ")
SLOTS = slots.SlotVocabulary(slots.CHARACTERS, ["artist", "city"])


@dataclass(frozen=True)
class Reader:
    """What reads one file of a corpus."""

    file: str
    """Below the corpus."""
    read: Callable[[Path], Any]
    """Given the corpus."""
    written: tuple[str, ...] = ()
    """Files that it may leave in the corpus."""


def write_corpus(root: Path, files: dict[str, str]) -> None:
    """Lay out a corpus: texts, and 0.1 s of sound for each audio file."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".wav", ".flac"):
            soundfile.write(path, np.zeros(1600), 16000)
        else:
            path.write_text(text, encoding="utf-8")


# Intent classification

_COMMANDS = (
    ",path,speakerId,transcription,action,object,location\n"
    '0,wavs/a/1.wav,a,"Turn it on, please",activate,lights,kitchen\n'
    "1,wavs/a/2.wav,a,Louder,increase,volume,none\n"
)
_FSC = {f"data/{name}_data.csv": _COMMANDS for name in ("train", "valid", "test")} | {
    f"wavs/a/{n}.wav": "" for n in (1, 2)
}


def _read_ic(root: Path) -> None:
    commands = ic.read_split(root, "train")
    ic.FluentCommandsDataset(commands, ic.labels_of(commands))


# Speaker identification and verification

_VIDEOS = [f"id1000{n}/video_{n}/0000{m}.wav" for n in (1, 2) for m in (1, 2)]
_CLASSES = "".join(f"{n} {file}\n" for n in (1, 2, 3) for file in _VIDEOS)
_TRIALS = f"1 {_VIDEOS[0]} {_VIDEOS[1]}\n0 {_VIDEOS[0]} {_VIDEOS[2]}\n0 {_VIDEOS[3]} {_VIDEOS[1]}\n"
_VOXCELEB = {
    **{f"{part}/wav/{file}": "" for part in ("dev", "test") for file in _VIDEOS},
    "veri_test_class.txt": _CLASSES,
    "voxceleb1_test_v2.txt": _TRIALS,
    "dev_meta_data.txt": _TRIALS,
}


def _read_sid(root: Path) -> None:
    splits = sid.read_metadata(root / "veri_test_class.txt", root)
    labels = sid.labels_of(one for utterances in splits.values() for one in utterances)
    for utterances in splits.values():
        dataset = sid.SpeakerDataset(utterances, labels)
        for index in range(len(dataset)):
            dataset.path(index)


def _read_sv(root: Path) -> None:
    path = root / "voxceleb1_test_v2.txt"
    trials = sv.read_trials(path, "test_meta_data")
    files = sv.files_of(trials)
    sv.speakers_of(files)
    assert all(trial.name for trial in trials)
    sv.check_files(root / "test/wav", files, path)


# LibriSpeech: speech and phoneme recognition

_LIBRISPEECH = {
    **{f"{name}/19/198/19-198-{n}.flac": "" for name in SETS for n in (0, 1)},
    **{f"{name}/19/198/19-198.trans.txt": "19-198-0 IT'S A DAY\n19-198-1 A DAY\n" for name in SETS},
    **{
        f"len_for_bucket/{name}.csv": f",file_path,length,label\n0,{name}/19/198/19-198-1.flac,1600,\n" for name in SETS
    },
    "librispeech-lexicon-mine.txt": "A AH0\nDAY\tD EY1\nIT'S IH1 T S\nIT'S IH0 T S\n",
    "lexicon.txt": "A AH0\nDAY D EY1\nIT'S IH1 T S\n",
    "char.dict": "| 94802\nE 51860\nT 38431\n",
    "vocab.txt": "A\nB\n \n",
    "beam.txt": "DAY D A Y |\nA A |\n",
}
_TRANSCRIPT = f"{SETS[0]}/19/198/19-198.trans.txt"
_TABLE = f"len_for_bucket/{SETS[0]}.csv"
_TABLES = tuple(f"len_for_bucket/{name}.csv" for name in SETS)


def _read_pr(root: Path) -> None:
    splits = {"train": read_sets(root, SETS[:1])}
    pr.transcribe(splits, phones.read_lexicon([root / "lexicon.txt"], phones.PHONES), PHONES)


def _prepare_pr(root: Path) -> None:
    (root / "lexicon.txt").unlink(missing_ok=True)
    pr_prepare.prepare(root)
    phones.read_lexicon([root / "lexicon.txt"], phones.PHONES)


def _prepare_asr(root: Path) -> None:
    asr_prepare.prepare(root)
    for table in _TABLES:
        asr.read_table(root / table)


# Slot filling

_LINES = "{name} BOS PLAY THE BEATLES IN PARIS EOS\tO O artist artist O city PlayMusic\n"
_SPEAKERS = {folder: [f"{one}-snips-{folder}-0" for one in sf.SPEAKERS[folder]] for folder in sf.SPEAKERS}
_SNIPS = {
    **{f"{folder}/{name}.wav": "" for folder, names in _SPEAKERS.items() for name in names},
    sf.TRANSCRIPTS: "".join(_LINES.format(name=name) for names in _SPEAKERS.values() for name in names),
    "slots.txt": "O\nartist\ncity",
}


def _read_sf(root: Path) -> None:
    for folder, speakers in sf.SPEAKERS.items():
        sf.read_split(root, [folder], speakers, sf.read_lines(root / sf.TRANSCRIPTS), SLOTS)


def _prepare_sf(root: Path) -> None:
    (root / "slots.txt").unlink(missing_ok=True)
    sf_prepare.prepare(root)
    slots.read_slots(root / "slots.txt")


# Emotion recognition


def _iemocap() -> Iterator[tuple[str, str]]:
    for n in range(1, er.SESSIONS + 1):
        turns = [f"Ses0{n}F_impro01_F00{m}" for m in range(3)]
        for turn in turns:
            yield f"Session{n}/sentences/wav/Ses0{n}F_impro01/{turn}.wav", ""
        said = "".join(
            f"[6.29 - 8.23]\t{turn}\t{e}\t[2.5, 2.5, 2.5]\n\n"
            for turn, e in zip(turns, ("neu", "exc", "xxx"), strict=True)
        )
        yield (
            f"Session{n}/dialog/EmoEvaluation/Ses0{n}F_impro01.txt",
            f"% [START - END]\tNAME\n\n{said}C-E2:\tNeutral;\n",
        )
        entries = [
            {"path": f"Session{n}/sentences/wav/Ses0{n}F_impro01/{turn}.wav", "label": label, "speaker": f"Ses0{n}F"}
            for turn, label in zip(turns[:2], ("neu", "hap"), strict=True)
        ]
        for split in ("train", "test"):
            content = {"labels": er_prepare.LABELS, "meta_data": entries}
            yield f"meta_data/Session{n}/{split}_meta_data.json", json.dumps(content)


_IEMOCAP = dict(_iemocap())
_METADATA = tuple(name for name in _IEMOCAP if name.endswith(".json"))


def _read_er(root: Path) -> None:
    splits, labels = er.read_fold(root / "meta_data", root, "fold1", 0.5)
    for utterances in splits.values():
        er.EmotionDataset(utterances, labels, pre_load=True)


def _prepare_er(root: Path) -> None:
    er_prepare.prepare(root)
    for n in range(1, er.SESSIONS + 1):
        er.read_fold(root / "meta_data", root, f"fold{n}", 0.5)


CORPORA: dict[str, tuple[dict[str, str], dict[str, Reader]]] = {
    "FluentSpeechCommands": (
        _FSC,
        {
            "ic": Reader("data/train_data.csv", _read_ic),
            "ic-prepare": Reader("data/train_data.csv", ic_prepare.prepare),
            "ic-prepare-test": Reader("data/test_data.csv", ic_prepare.prepare),
        },
    ),
    "VoxCeleb1": (
        _VOXCELEB,
        {
            "sid": Reader("veri_test_class.txt", _read_sid),
            "sid-prepare": Reader("veri_test_class.txt", sid_prepare.prepare),
            "sv": Reader("voxceleb1_test_v2.txt", _read_sv),
            "sv-prepare": Reader("dev_meta_data.txt", sv_prepare.prepare),
        },
    ),
    "LibriSpeech": (
        _LIBRISPEECH,
        {
            "asr": Reader(
                _TRANSCRIPT, lambda root: asr.read_split(root, SETS[:1], CHARACTERS), (".s3prl_interfaces/",)
            ),
            "asr-table": Reader(
                _TABLE, lambda root: asr.read_split(root, SETS[:1], CHARACTERS, root / "len_for_bucket")
            ),
            "asr-prepare": Reader(_TRANSCRIPT, _prepare_asr, (".s3prl_interfaces/", *_TABLES)),
            "asr-characters": Reader("char.dict", lambda root: read_characters(root / "char.dict")),
            "asr-lexicon": Reader(
                "beam.txt", lambda root: beam_search._check_lexicon(root / "beam.txt", CHARACTERS.symbols)
            ),
            "pr": Reader("lexicon.txt", _read_pr),
            "pr-transcripts": Reader(_TRANSCRIPT, _read_pr),
            "pr-prepare": Reader("librispeech-lexicon-mine.txt", _prepare_pr, ("lexicon.txt",)),
            "vocabulary": Reader("vocab.txt", lambda root: Vocabulary(read_tokens(root / "vocab.txt"), " ")),
        },
    ),
    "SNIPS": (
        _SNIPS,
        {
            "sf": Reader(sf.TRANSCRIPTS, _read_sf),
            "sf-slots": Reader(
                "slots.txt", lambda root: slots.SlotVocabulary(("A",), slots.read_slots(root / "slots.txt"))
            ),
            "sf-prepare": Reader(sf.TRANSCRIPTS, _prepare_sf, ("slots.txt",)),
        },
    ),
    "IEMOCAP": (
        _IEMOCAP,
        {
            "er": Reader("meta_data/Session1/train_meta_data.json", _read_er),
            "er-prepare": Reader("Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", _prepare_er, _METADATA),
        },
    ),
}
"""Files of each corpus, and who reads them."""
