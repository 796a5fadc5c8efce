import json
import platform
import re
import wave
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from numpy.random import RandomState

from s3prl_interfaces.errors import DataError
from s3prl_interfaces.mini_superb import CORPORA, corpus, make_mini_superb, snips
from s3prl_interfaces.mini_superb.speakers import make_speakers
from s3prl_interfaces.mini_superb.voice_requests import OUTSIDE, requests

CORPUS = ["snips"]
SCALE = 0.03
SHA256 = "ecf623a8acb1122720dccf2a80dcf060705aaafb848d626caf1cf9e198d9f8a7"
SPEAKERS = {
    "train": {"Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"},
    "valid": {"Aditi", "Amy", "Geraint", "Nicole"},
    "test": {"Brian", "Emma", "Raveena", "Russell"},
}
EVERYONE = sorted(set.union(*SPEAKERS.values()))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("mini"), corpora=CORPUS, scale=SCALE)
    return folder


@pytest.fixture(scope="module")
def lines(tiny):
    """Name, sentence and labels of each line."""
    text = (tiny / "all.iob.snips.txt").read_bytes().decode()
    assert text.endswith("\n")
    return [re.fullmatch(r"(\S+) (BOS .+ EOS)\t(O .+)", line).groups() for line in text.splitlines()]


def drawn(seed=0, scale=1.0):
    """The requests of each split."""
    return {
        split: list(islice(requests(RandomState([seed, snips._STREAM, index]), held_out=split != "train"), count))
        for index, (split, count) in enumerate(snips._sizes(scale).items())
    }


def sha256(folder):
    return json.loads((folder / "mini_superb.json").read_text())["sha256"]


def fail(*args):
    raise OSError("disk full")


def test_name():
    assert set(CORPUS) < set(CORPORA)


def test_layout_is_that_of_audio_snips(tiny):
    assert tiny.name == "SNIPS"
    files = {path.relative_to(tiny).as_posix() for path in tiny.rglob("*") if path.is_file()}
    numbers = {"train": range(7), "valid": range(2), "test": range(2)}
    assert files == {"all.iob.snips.txt", "slots.txt", "mini_superb.json"} | {
        f"{split}/{speaker}-snips-{split}-{number}.wav"
        for split, speakers in SPEAKERS.items()
        for place, speaker in enumerate(sorted(speakers))
        for number in numbers[split]
        if place % (len(speakers) // 2) == number % (len(speakers) // 2)
    }


def test_every_speaker_is_listed_with_what_others_say_and_what_he_says_himself(tiny, lines):
    expected = [
        f"{speaker}-snips-{split}-{number}"
        for split, count in (("test", 2), ("valid", 2), ("train", 7))
        for speaker in EVERYONE
        for number in range(count)
        if speaker not in SPEAKERS[split] or (tiny / split / f"{speaker}-snips-{split}-{number}.wav").exists()
    ]
    assert [name for name, *_ in lines] == expected
    texts = {}
    for name, *rest in lines:
        texts.setdefault(name.partition("-")[2], set()).add(tuple(rest))
    assert all(len(said) == 1 for said in texts.values())


def test_each_word_has_a_label(lines):
    for _, sentence, tags in lines:
        words, labels = sentence.split(" ")[1:-1], tags.split(" ")
        assert all(re.fullmatch("[A-Z']+", word) for word in words)
        assert len(labels) == len(words) + 2
        assert re.fullmatch("[A-Z][A-Za-z]+", labels[-1])  # the intent
        assert all(label == "O" or re.fullmatch("[A-Za-z_]+", label) for label in labels[1:-1])


def test_slots_come_by_frequency_without_a_last_newline(tiny, lines):
    text = (tiny / "slots.txt").read_text()
    assert not text.endswith("\n")
    requests = {name.partition("-")[2]: tags for name, _, tags in lines}
    counts = Counter(label for tags in requests.values() for label in tags.split(" ")[1:-1])
    first, *slots = text.split("\n")
    assert first == "O"
    assert slots == sorted(counts.keys() - {"O"}, key=lambda slot: (-counts[slot], slot))


def test_sound(tiny):
    durations = []
    for path in tiny.rglob("*.wav"):
        with wave.open(str(path)) as file:
            parameters = (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getcomptype())
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
        assert parameters == (1, 2, 16000, "NONE")
        assert 5000 <= np.abs(samples).max() < 26000
        durations.append(len(samples) / 16000)
    assert 0.8 < min(durations) < max(durations) < 5


def test_sizes():
    assert snips._sizes(1.0) == {"train": 240, "valid": 40, "test": 40}
    assert snips._sizes(1e-9) == {"train": 4, "valid": 2, "test": 2}
    assert snips._sizes(4.0) == {"train": 960, "valid": 160, "test": 160}


def test_requests_at_full_size():
    splits = drawn()
    words = {split: {word for request in found for word in request.words} for split, found in splits.items()}
    assert words["valid"] <= words["train"]
    assert words["test"] <= words["train"]
    types = {split: {label for request in found for label in request.labels} for split, found in splits.items()}
    assert types["train"] == types["test"]
    assert len(types["train"]) == 12
    assert {"playlist", "playlist_owner"} < types["train"]
    assert len({request.intent for request in splits["test"]}) == 6
    several = [run for request in splits["train"] for run in zip(request.labels, request.labels[1:], strict=False)]
    assert any(one == other != OUTSIDE for one, other in several)
    silent = {split: sum(set(request.labels) == {OUTSIDE} for request in found) for split, found in splits.items()}
    assert len({request.words for request in splits["train"]}) > 90
    assert all(0.05 <= silent[split] / len(splits[split]) <= 0.2 for split in splits)


def test_no_request_with_several_slots_is_in_training_and_in_evaluation():
    splits = {split: drawn(seed=3, scale=4.0)[split] for split in SPEAKERS}
    said = {
        split: {request.words for request in found if len(set(request.labels) - {OUTSIDE}) > 1}
        for split, found in splits.items()
    }
    assert min(map(len, said.values())) > 10
    assert not said["train"] & (said["valid"] | said["test"])


def test_values_come_evenly():
    counts = Counter()
    for request in islice(requests(RandomState(0), held_out=False), 2000):
        value = " ".join(w for w, label in zip(request.words, request.labels, strict=True) if label == "city")
        counts[value] += 1
    cities = {city: count for city, count in counts.items() if city}
    assert len(cities) == 4
    assert min(cities.values()) > 0.5 * max(cities.values())


def test_voices_are_of_the_matching_split():
    utterances = list(snips._plan(drawn(), 0))
    assert len(utterances) == 480 + 80 + 80
    assert Counter(one.path.split("/")[0] for one in utterances) == {"train": 480, "valid": 80, "test": 80}
    assert set(Counter(one.path.partition("-")[2] for one in utterances).values()) == {2}
    voices = {}
    for one in utterances:
        split, name = one.path.split("/")
        assert name.startswith(f"{one.speaker.id}-snips-{split}-")
        voices.setdefault((split, one.speaker.id), set()).add(one.speaker)
    assert all(len(found) == 1 for found in voices.values())
    for split, names in SPEAKERS.items():
        possible = {speaker.variant for speaker in make_speakers(split, RandomState(0))}
        used = [next(iter(voices[split, name])).variant for name in names]
        assert len(set(used)) == len(used)
        assert set(used) <= possible


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="eSpeak NG's floats may round otherwise")
def test_pinned_hash(tiny):
    assert sha256(tiny) == SHA256, "other bytes for the same seed: raise VERSION and pin anew, or mend it"


def test_marker(tiny):
    marker = json.loads((tiny / "mini_superb.json").read_text())
    assert marker == {"corpus": "snips", "version": 1, "seed": 0, "scale": SCALE, "sha256": corpus.digest(tiny)}


def test_another_scale_leaves_sounds_as_they_are(tiny, tmp_path):
    (larger,) = make_mini_superb(tmp_path, corpora=CORPUS, scale=0.06)
    for path in tiny.rglob("*.wav"):
        assert path.read_bytes() == (larger / path.relative_to(tiny)).read_bytes()


def test_other_seed_differs(tiny, tmp_path):
    (other,) = make_mini_superb(tmp_path, corpora=CORPUS, seed=1, scale=SCALE)
    assert sha256(other) != sha256(tiny)
    assert drawn(seed=1) != drawn(seed=0)
    voices = [{one.speaker for one in snips._plan(drawn(scale=SCALE), seed)} for seed in (0, 1)]
    assert not voices[0] & voices[1]


def test_nothing_is_left_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(snips, "record", fail)
    with pytest.raises(DataError, match="disk full"):
        make_mini_superb(tmp_path, corpora=CORPUS, scale=SCALE)
    assert list(tmp_path.iterdir()) == []


def test_finished_corpus_is_not_made_again(tiny, monkeypatch):
    monkeypatch.setattr(snips, "record", fail)
    assert make_mini_superb(tiny.parent, corpora=CORPUS, scale=SCALE) == [tiny]
    with pytest.raises(DataError, match=r"'scale': 0\.03"):
        make_mini_superb(tiny.parent, corpora=CORPUS, scale=0.1)


def test_foreign_directory_is_refused_and_untouched(tmp_path):
    mine = tmp_path / "SNIPS" / "slots.txt"
    mine.parent.mkdir()
    mine.write_text("O\nartist")
    with pytest.raises(DataError, match="SNIPS exists and was not made by"):
        make_mini_superb(tmp_path, corpora=CORPUS, scale=SCALE)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
