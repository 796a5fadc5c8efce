"""The small LibriSpeech: its layout, its sounds and texts, and that every word has a pronunciation."""

import json
import platform
import re
import shutil
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import soundfile
from numpy.random import RandomState

from s3prl_interfaces.errors import DataError
from s3prl_interfaces.mini_superb import CORPORA, corpus, librispeech, make_mini_superb
from s3prl_interfaces.mini_superb.pronunciations import _TABLE, PRONUNCIATIONS
from s3prl_interfaces.mini_superb.sentences import sentences, vocabulary, words_of

CORPUS = ["librispeech"]
SETS = ("train-clean-100", "dev-clean", "test-clean")
SCALE = 0.03
SHA256 = "bfe6af37bf6efe99ded2fd7eea42e2acb2835c2ae8e4d2de3a0776516664fdda"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("mini"), corpora=CORPUS, scale=SCALE)
    return folder


@pytest.fixture(scope="module")
def texts(tiny):
    """Name: words, of each set, as the transcripts have them."""
    found = {}
    for part in SETS:
        lines = [line for path in sorted(tiny.glob(f"{part}/*/*/*.trans.txt")) for line in path.open()]
        assert all(line.endswith("\n") for line in lines)
        found[part] = dict(line.rstrip("\n").split(" ", 1) for line in lines)
        assert len(found[part]) == len(lines)
    return found


def fail(*args):
    raise OSError("disk full")


def test_name():
    assert set(CORPUS) < set(CORPORA)


def test_layout_is_that_of_librispeech(tiny, texts):
    assert tiny.name == "LibriSpeech"
    assert {path.name for path in tiny.iterdir()} == {*SETS, "lexicon.txt", "mini_superb.json"}
    for part in SETS:
        files = {path.relative_to(tiny / part).as_posix() for path in (tiny / part).rglob("*") if path.is_file()}
        expected = set()
        for name in texts[part]:
            speaker, chapter, _ = name.split("-")
            assert re.fullmatch(r"[1-9]\d*-[1-9]\d*-\d{4}", name)
            expected |= {f"{speaker}/{chapter}/{name}.flac", f"{speaker}/{chapter}/{speaker}-{chapter}.trans.txt"}
        assert files == expected


def test_texts_are_short_plain_and_learnable(texts):
    heard = {word for text in texts["train-clean-100"].values() for word in text.split(" ")}
    for part, of_set in texts.items():
        for text in of_set.values():
            assert re.fullmatch(r"[A-Z']+( [A-Z']+){2,8}", text)
            assert heard.issuperset(text.split(" "))
            assert part == "train-clean-100" or text not in texts["train-clean-100"].values()
    assert [len(of_set) for of_set in texts.values()] == [18, 2, 2]


def test_sound(tiny):
    durations = []
    for path in tiny.rglob("*.flac"):
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.channels, info.samplerate) == ("FLAC", "PCM_16", 1, 16000)
        samples, _ = soundfile.read(path, dtype="int16")
        assert 5000 <= np.abs(samples.astype(int)).max() < 26000
        durations.append(len(samples) / 16000)
    assert 1 < min(durations) < max(durations) < 5
    assert 1.5 < np.median(durations) < 3.5


def test_plan_at_full_size():
    utterances = list(librispeech._plan(0, 1.0))
    assert Counter(one.split for one in utterances) == dict(zip(SETS, (600, 80, 80), strict=True))
    assert len({one.name for one in utterances}) == 760
    speakers = {part: {one.speaker.id for one in utterances if one.split == part} for part in SETS}
    assert [len(ids) for ids in speakers.values()] == [24, 5, 6]
    assert len(set().union(*speakers.values())) == 35
    assert len({one.speaker.variant for one in utterances}) == 35
    assert {one.speaker.accent for one in utterances} == {"gmw/en-US"}
    chapters = Counter((one.speaker.id, one.chapter) for one in utterances)
    assert max(chapters.values()) == 10
    for key, count in chapters.items():
        assert [one.number for one in utterances if (one.speaker.id, one.chapter) == key] == list(range(count))
    words = {part: {word for one in utterances if one.split == part for word in words_of(one.text)} for part in SETS}
    assert words["train-clean-100"] == vocabulary()


def test_smallest_and_large_plans():
    counts = Counter(one.split for one in librispeech._plan(0, 1e-9))
    assert counts == dict(zip(SETS, (16, 2, 2), strict=True))
    assert sum(1 for _ in librispeech._plan(0, 20.0)) == 760 * 20  # more than there are different sentences


def test_every_word_has_one_pronunciation():
    assert PRONUNCIATIONS.keys() == vocabulary()
    assert len(_TABLE.split("\n")) - 2 == len(PRONUNCIATIONS)  # no word twice
    assert list(PRONUNCIATIONS) == sorted(PRONUNCIATIONS)
    vowels = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
    consonants = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
    valid = {*consonants.split(), *(f"{vowel}{stress}" for vowel in vowels.split() for stress in "012")}
    for word, phones in PRONUNCIATIONS.items():
        assert phones, word
        assert valid.issuperset(phones), word
        assert sum(phone[-1] in "012" for phone in phones) >= 1, word
        assert sum(phone[-1] == "1" for phone in phones) <= 2, word  # OUTSIDE has two
    drawn = {word for text in islice(sentences(RandomState(0)), 3000) for word in words_of(text)}
    assert drawn == vocabulary()


def test_words_of():
    assert words_of("Last summer, at my uncle's farm") == ["LAST", "SUMMER", "AT", "MY", "UNCLE'S", "FARM"]


def test_lexicon(tiny):
    lines = (tiny / "lexicon.txt").read_bytes().decode().split("\n")
    assert lines.pop() == ""
    assert {word: tuple(phones.split(" ")) for word, phones in (line.split("\t") for line in lines)} == PRONUNCIATIONS
    assert "UNCLE'S\tAH1 NG K AH0 L Z" in lines


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="eSpeak NG's floats may round otherwise")
def test_pinned_hash(tiny):
    marker = json.loads((tiny / corpus.MARKER).read_text())
    assert marker == {"corpus": "librispeech", "version": 1, "seed": 0, "scale": SCALE, "sha256": corpus.digest(tiny)}
    assert marker["sha256"] == SHA256, (
        "other samples or texts for the same seed: raise VERSION and pin anew, or mend it"
    )


def test_the_hash_is_of_samples_not_of_how_flac_packs_them(tiny, tmp_path):
    copy = shutil.copytree(tiny, tmp_path / "copy")
    path = sorted(copy.rglob("*.flac"))[0]
    samples, rate = soundfile.read(path, dtype="int16")
    before = path.read_bytes()
    soundfile.write(path, samples, rate, format="FLAC", subtype="PCM_16", compression_level=0.0)
    assert path.read_bytes() != before
    assert corpus.digest(copy) == corpus.digest(tiny)
    samples[1000] += 1
    soundfile.write(path, samples, rate, format="FLAC", subtype="PCM_16")
    assert corpus.digest(copy) != corpus.digest(tiny)


def test_other_seed_differs(tiny, texts, tmp_path):
    (other,) = make_mini_superb(tmp_path, corpora=CORPUS, seed=1, scale=SCALE)
    assert corpus.digest(other) != corpus.digest(tiny)
    assert not {path.name for path in other.rglob("*.flac")} & {path.name for path in tiny.rglob("*.flac")}


def test_nothing_is_left_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(librispeech, "record", fail)
    with pytest.raises(DataError, match="disk full"):
        make_mini_superb(tmp_path, corpora=CORPUS, scale=SCALE)
    assert list(tmp_path.iterdir()) == []
