import csv
import io
import json
import platform
import subprocess
import sys
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.random import RandomState

from s3prl_interfaces.errors import ConfigError, DataError, UserError
from s3prl_interfaces.mini_superb import acoustics, corpus, espeak, fluent_speech_commands, make_mini_superb
from s3prl_interfaces.mini_superb.espeak import Espeak
from s3prl_interfaces.mini_superb.intents import wordings
from s3prl_interfaces.mini_superb.speakers import ACCENTS, make_speakers

CORPUS = ["fluent_speech_commands"]
SCALE = 0.03
SPLITS = ("train", "valid", "test")
SHA256 = "74f0c3393575f7d5f28ea0e4528d0bd8c19e8357c75e90d322729edc2fb23998"
LANGUAGES = {"Chinese", "English", "German", "Korean"}
THINGS = {"newspaper", "juice", "socks", "shoes"}
PLACES = {"none", "kitchen", "bedroom", "washroom"}
INTENTS = (
    {("change language", name, "none") for name in {"none", *LANGUAGES}}
    | {("bring", thing, "none") for thing in THINGS}
    | {(action, thing, "none") for action in ("activate", "deactivate") for thing in ("music", "lamp")}
    | {(action, "lights", place) for action in ("activate", "deactivate") for place in PLACES}
    | {(action, "volume", "none") for action in ("increase", "decrease")}
    | {(action, "heat", place) for action in ("increase", "decrease") for place in PLACES}
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("mini"), corpora=CORPUS, scale=SCALE)
    return folder


@pytest.fixture(scope="module")
def rows(tiny):
    return {split: read_csv(tiny / "data" / f"{split}_data.csv") for split in SPLITS}


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_wav(path):
    with wave.open(str(path)) as file:
        parameters = (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getcomptype())
        return parameters, np.frombuffer(file.readframes(file.getnframes()), "<i2")


def sha256(folder):
    return json.loads((folder / "mini_superb.json").read_text())["sha256"]


def intent(row):
    return row["action"], row["object"], row["location"]


def no_recording(*args, **kwargs):
    raise RuntimeError("should not have been recorded")


# The corpus.


def test_layout_is_that_of_fluent_speech_commands(tiny, rows):
    assert tiny.name == "fluent_speech_commands_dataset"
    header = ",path,speakerId,transcription,action,object,location\n"
    for split in SPLITS:
        assert io.StringIO((tiny / f"data/{split}_data.csv").read_text()).readline() == header
        assert [row[""] for row in rows[split]] == [str(index) for index in range(len(rows[split]))]
    paths = [row["path"] for split in SPLITS for row in rows[split]]
    files = {path.relative_to(tiny).as_posix() for path in tiny.rglob("*") if path.is_file()}
    tables = {f"data/{split}_data.csv" for split in SPLITS} | {"data/speaker_demographics.csv"}
    assert len(set(paths)) == len(paths)
    assert files == {*paths, *tables, "mini_superb.json"}
    for split in SPLITS:
        for row in rows[split]:
            assert row["path"].startswith(f"wavs/speakers/{row['speakerId']}/")


def test_sizes(rows):
    assert [len(rows[split]) for split in SPLITS] == [40, 8, 10]
    full = {split: fluent_speech_commands._count(split, 1.0) for split in SPLITS}
    assert full == {"train": 1344, "valid": 250, "test": 348}
    assert [fluent_speech_commands._count(split, 1e-9) for split in SPLITS] == [31, 1, 1]


def test_train_has_all_31_intents_and_every_value(rows):
    assert len(INTENTS) == 31
    assert {intent(row) for row in rows["train"]} == INTENTS
    assert [len({row[slot] for row in rows["train"]}) for slot in ("action", "object", "location")] == [
        6,
        14,
        4,
    ]
    assert {intent(row) for split in ("valid", "test") for row in rows[split]} <= INTENTS


def test_wordings():
    table = wordings()
    assert set(table) == INTENTS
    assert min(len(set(lines)) for lines in table.values()) >= 5
    spoken = Counter(line.lower() for lines in table.values() for line in lines)
    assert spoken.most_common(1)[0][1] == 1  # the same words never mean two things
    assert not [line for line in spoken if "{" in line or "  " in line or line != line.strip()]
    for (_, name, place), lines in table.items():
        others = (LANGUAGES | THINGS | {"lights", "lamp", "music", "kitchen", "bedroom"}) - {name, place}
        assert not [line for line in lines for other in others if other.lower() in line.lower().split()]


def test_transcriptions_mean_their_intent(rows):
    table = wordings()
    for split in SPLITS:
        for row in rows[split]:
            assert row["transcription"] in table[intent(row)]


def test_speakers_are_disjoint_and_described(tiny, rows):
    speakers = {split: {row["speakerId"] for row in rows[split]} for split in SPLITS}
    assert [len(speakers[split]) for split in SPLITS] == [24, 5, 6]
    assert len(set.union(*speakers.values())) == 24 + 5 + 6
    table = read_csv(tiny / "data" / "speaker_demographics.csv")
    assert list(table[0]) == [
        "speakerId",
        "Self-reported fluency level ",
        "First Language spoken",
        "Current language used for work/school",
        "gender",
        "ageRange",
    ]
    assert sorted(row["speakerId"] for row in table) == sorted(set.union(*speakers.values()))
    for split in SPLITS:
        genders = {row["gender"] for row in table if row["speakerId"] in speakers[split]}
        assert genders == {"male", "female"}


def test_voices_exist_and_are_disjoint_over_splits():
    variants = [one.variant for split in SPLITS for one in make_speakers(split, RandomState(0))]
    assert len(set(variants)) == len(variants) == 35
    with Espeak() as synthesiser:
        # eSpeak NG says nothing about a variant that it does not find and takes the plain voice.
        voices = ["gmw/en-US", *(f"gmw/en-US+{variant}" for variant in variants), *ACCENTS]
        sounds = {synthesiser.speak("Bath lights", voice).tobytes() for voice in set(voices)}
    assert len(sounds) == len(set(voices)) == 35 + len(ACCENTS)


def test_sound(tiny, rows):
    durations = []
    for split in SPLITS:
        for row in rows[split]:
            parameters, samples = read_wav(tiny / row["path"])
            assert parameters == (1, 2, 16000, "NONE")
            durations.append(len(samples) / 16000)
            peak = np.abs(samples.astype(float)).max()
            assert 5000 <= peak < 26000
            # Neither a click in silence nor a hum: some parts are loud, some are not.
            frames = samples[: len(samples) // 160 * 160].reshape(-1, 160).astype(float)
            levels = np.sqrt((frames**2).mean(axis=1))
            assert 0.1 < (levels > 0.1 * levels.max()).mean() < 0.9
            assert levels.min() > 0  # a microphone is never quite silent
    assert 0.8 < min(durations) < max(durations) < 3.6
    assert 1.5 < np.median(durations) < 2.5


# The same bytes every time.


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="eSpeak NG's floats may round otherwise")
def test_pinned_hash(tiny):
    assert sha256(tiny) == SHA256, "other bytes for the same seed: raise VERSION and pin anew, or mend it"


def test_hash_covers_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = corpus.digest(tmp_path)
    (tmp_path / corpus.MARKER).write_text("ignored")
    assert corpus.digest(tmp_path) == first
    (tmp_path / "a").write_text("2")
    second = corpus.digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, corpus.digest(tmp_path)}) == 3


def test_marker_holds_the_hash_of_the_files(tiny):
    marker = json.loads((tiny / "mini_superb.json").read_text())
    assert marker == {
        "corpus": "fluent_speech_commands",
        "version": 1,
        "seed": 0,
        "scale": SCALE,
        "sha256": corpus.digest(tiny),
    }


def test_same_bytes_in_another_process_after_other_utterances(tiny, tmp_path):
    code = (
        "import sys; from pathlib import Path; from s3prl_interfaces.mini_superb import make_mini_superb\n"
        "for seed in (7, 0):\n"
        "    root, scale, *corpora = sys.argv[1:]\n"
        "    make_mini_superb(Path(root, str(seed)), corpora=corpora, seed=seed, scale=float(scale))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(SCALE), *CORPUS],
        check=True,
        cwd=Path(__file__).parents[1],
        timeout=120,
    )
    assert sha256(tmp_path / "0" / tiny.name) == sha256(tiny)
    assert sha256(tmp_path / "7" / tiny.name) != sha256(tiny)


def test_seed_changes_speakers_words_and_rooms(tiny, rows, tmp_path):
    (other,) = make_mini_superb(tmp_path, corpora=CORPUS, seed=1, scale=SCALE)
    there = read_csv(other / "data" / "train_data.csv")
    assert not {row["speakerId"] for row in there} & {row["speakerId"] for row in rows["train"]}
    assert not {Path(row["path"]).name for row in there} & {Path(row["path"]).name for row in rows["train"]}
    assert [row["transcription"] for row in there] != [row["transcription"] for row in rows["train"]]
    assert make_speakers("test", RandomState(1))[0].room != make_speakers("test", RandomState(2))[0].room


@pytest.mark.parametrize("variant", ["f2", "croak", "klatt2", "whisper"])  # flutter, random breath or both
def test_speech_does_not_depend_on_what_was_spoken_before(variant):
    other = {"rate": 190, "pitch": 70, "pitch_range": 20, "seed": 9}
    with Espeak() as synthesiser:
        first = synthesiser.speak("Turn on the lights", f"gmw/en-US+{variant}")
        synthesiser.speak("Bring me my shoes", "gmw/en-GB-scotland+m3", **other)
        again = synthesiser.speak("Turn on the lights", f"gmw/en-US+{variant}")
    assert first.dtype == np.int16
    assert 0.5 < len(first) / espeak.SAMPLE_RATE < 3
    assert 1000 < np.abs(first.astype(int)).max() < 32767
    np.testing.assert_array_equal(again, first)


def test_every_setting_is_heard():
    with Espeak() as synthesiser:

        def say(**settings):
            return synthesiser.speak("Turn on the lights", "gmw/en-US+f2", **settings)

        plain = say()
        changes = [{"pitch": 70}, {"pitch_range": 90}, {"seed": 3}]
        assert len({plain.tobytes(), *(say(**change).tobytes() for change in changes)}) == 4
        assert len(say(rate=200)) < 0.9 * len(plain)


@pytest.mark.parametrize("voice", ["gmw/en-US+f2", "gmw/en-GB-scotland+m3", "gmw/en-029+croak"])
def test_alignment_leaves_the_sound_as_it_is(voice):
    settings = {"rate": 175, "pitch": 40, "pitch_range": 60, "seed": 3}
    text = "On Sunday morning, my best friend baked fresh bread"
    with Espeak() as synthesiser:
        samples, phonemes = synthesiser.align(text, voice, **settings)
        np.testing.assert_array_equal(samples, synthesiser.speak(text, voice, **settings))
        assert not np.array_equal(samples, synthesiser.align(text, voice)[0])
    starts = [phoneme.start for phoneme in phonemes]
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[-1] <= len(samples)
    assert phonemes[-1].name == "_"


def test_alignment():
    """By ear's rules: what is between two starts sounds like the phoneme."""
    with Espeak() as synthesiser:
        samples, phonemes = synthesiser.align("See, a farm", "gmw/en-US")
    assert [phoneme.name for phoneme in phonemes] == ["s", "'i:", "_:", "_", "a#", "f", "'A@", "m", "_:", "_"]
    starts = [phoneme.start for phoneme in phonemes]
    spans = [samples[start:end].astype(float) for start, end in zip(starts, [*starts[1:], len(samples)], strict=True)]
    s, see, pause, nothing, a, f, far, m, *_ = spans
    assert len(nothing) == 0
    loudness = [np.sqrt(np.mean(span**2)) for span in (s, see, pause, a, f, far, m)]
    assert min(loudness[index] for index in (1, 3, 5, 6)) > 10 * loudness[2]
    crossings = [np.mean(np.diff(np.sign(span)) != 0) for span in (s, see, far, m)]
    assert crossings[0] > 3 * max(crossings[1:])  # only the fricative hisses
    for span in (s, see, a, f, far, m):  # 30 ms to 0.5 s
        assert 660 < len(span) < 11025


# Nothing half-written, nothing of others touched.


@pytest.mark.parametrize(("error", "raised"), [(RuntimeError, RuntimeError), (OSError, DataError)])
def test_nothing_is_left_after_a_failure(tmp_path, monkeypatch, error, raised):
    record, calls = fluent_speech_commands.record, []

    def fail_at_the_third(*args):
        calls.append(args)
        if len(calls) == 3:
            assert list(tmp_path.rglob("*.wav"))  # there was something to leave behind
            raise error("disk full")
        return record(*args)

    monkeypatch.setattr(fluent_speech_commands, "record", fail_at_the_third)
    with pytest.raises(raised, match="disk full"):
        make_mini_superb(tmp_path, scale=SCALE)
    assert list(tmp_path.iterdir()) == []


def test_finished_corpus_is_not_made_again(tiny, monkeypatch):
    monkeypatch.setattr(fluent_speech_commands, "record", no_recording)
    before = (tiny / "mini_superb.json").stat().st_mtime_ns
    assert make_mini_superb(tiny.parent, corpora=CORPUS, scale=SCALE) == [tiny]
    assert (tiny / "mini_superb.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("other", [{"seed": 1, "scale": SCALE}, {"scale": 0.5}])
def test_finished_corpus_of_other_parameters_is_kept(tiny, other, monkeypatch):
    monkeypatch.setattr(fluent_speech_commands, "record", no_recording)
    with pytest.raises(DataError, match=r"'scale': 0\.03"):
        make_mini_superb(tiny.parent, **other)
    assert corpus.digest(tiny) == sha256(tiny)


@pytest.mark.parametrize("name", ["data/train_data.csv", "mini_superb.json"])
def test_foreign_directory_is_refused_and_untouched(tmp_path, name):
    mine = tmp_path / "fluent_speech_commands_dataset" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("[]")
    with pytest.raises(DataError, match="fluent_speech_commands_dataset exists and was not made by"):
        make_mini_superb(tmp_path, scale=SCALE)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "[]"


def test_empty_directory_is_filled(tiny, tmp_path):
    (tmp_path / tiny.name).mkdir()
    (made,) = make_mini_superb(tmp_path, corpora=CORPUS, scale=SCALE)
    assert sha256(made) == sha256(tiny)
    assert list(tmp_path.iterdir()) == [made]


def test_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"Cannot write .*file"):
        make_mini_superb(tmp_path / "file", scale=SCALE)


# What a user can get wrong.


def test_missing_extra_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"pip install 's3prl-interfaces\[mini\]'"):
        make_mini_superb(tmp_path, scale=SCALE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"corpora": ["fluent_speech_command"]}, "Did you mean 'fluent_speech_commands'"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"scale": 0}, "scale"),
        ({"scale": float("nan")}, "scale"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_mini_superb(tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_unknown_voice():
    with Espeak() as synthesiser, pytest.raises(UserError, match="xx-nobody"):
        synthesiser.speak("Lights", "xx-nobody")


def test_incomplete_installation(tmp_path, monkeypatch):
    import espeakng_loader

    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(tmp_path / "libespeak-ng.so"))
    with pytest.raises(UserError, match=r"libespeak-ng.so is missing"):
        Espeak()


def test_long_data_path(tmp_path, monkeypatch):
    library, data = espeak._find_espeak()
    with Espeak() as synthesiser:
        expected = synthesiser.speak("Lights", "gmw/en-US+f2")
    far = tmp_path.joinpath(*["a-long-directory-name"] * 9, "espeak-ng-data")
    far.parent.mkdir(parents=True)
    far.symlink_to(data, target_is_directory=True)
    monkeypatch.setattr(espeak, "_find_espeak", lambda: (library, far))
    monkeypatch.setenv("ESPEAK_DATA_PATH", str(tmp_path))  # where eSpeak NG looks next: nothing there
    with Espeak() as synthesiser:
        np.testing.assert_array_equal(synthesiser.speak("Lights", "gmw/en-US+f2"), expected)


def test_temporary_directory_without_permission_to_run(monkeypatch):
    def useless_copy(source, folder):
        path = Path(folder, Path(source).name)
        path.write_text("not a library")  # fails to load just as one on a noexec mount does
        return path

    monkeypatch.setattr(espeak.shutil, "copy", useless_copy)
    with Espeak() as synthesiser:
        assert len(synthesiser.speak("Lights", "gmw/en-US")) > 0
        folder = Path(synthesiser._folder.name)
    assert not folder.exists()


# Acoustics.


def tone(frequency, seconds=0.5, rate=22050):
    return np.round(10000 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def test_resampling_keeps_speech_and_removes_what_would_alias():
    assert len(acoustics.resample(np.zeros(441, np.int16))) == 320
    assert len(acoustics.resample(np.zeros(442, np.int16))) == 321
    for frequency in (100, 1000, 6000):
        resampled = acoustics.resample(tone(frequency))
        assert len(resampled) == 8000
        expected = tone(frequency, rate=16000).astype(float)
        assert np.abs(resampled - expected)[200:-200].max() < 10
    for frequency in (8200, 9500, 10900):
        assert np.abs(acoustics.resample(tone(frequency)))[200:-200].max() < 10  # 60 dB down


def test_resampling_is_exact_arithmetic():
    samples = RandomState(0).randint(-32768, 32768, size=3000).astype(np.int16)
    matrix = acoustics._resampling_matrix()
    np.testing.assert_array_equal(matrix, np.rint(matrix))
    padded = np.zeros(4 * 3087 + 96, np.int64)
    padded[48:3048] = samples
    windows = np.stack([padded[start : start + 537] for start in range(0, 3087, 441)])
    exact = (windows @ matrix.astype(np.int64)).ravel()[: len(acoustics.resample(samples))]
    assert np.abs(exact).max() < 2**40
    np.testing.assert_array_equal(acoustics.resample(samples), np.rint(exact / 65536))


def test_room_adds_its_echoes():
    click = np.zeros(10)
    click[0] = 8192
    wet = acoustics.add_room(click, acoustics.Room(delays=(3, 12), gains=(2048, -1024)))
    expected = np.zeros(22)
    expected[[0, 3, 12]] = 8192, 4096, -2048
    np.testing.assert_array_equal(wet, expected)


def test_rooms_decay():
    for seed in range(20):
        room = acoustics.draw_room(RandomState(seed))
        early = [abs(gain) for delay, gain in zip(room.delays, room.gains, strict=True) if delay < 480]
        assert all(0 < delay < 0.4 * 16000 for delay in room.delays)
        assert 10 * abs(room.gains[-1]) < max(early) < 0.17 * 4096
        assert min(early) > 0


def test_noise_has_its_level_and_is_low():
    signal = tone(1000, rate=16000).astype(float)
    noise = acoustics.add_noise(signal, 20, RandomState(0)) - signal
    assert 20 * np.log10(acoustics.rms(signal) / acoustics.rms(noise)) == pytest.approx(20, abs=0.2)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    assert spectrum[: len(spectrum) // 2].sum() > 3 * spectrum[len(spectrum) // 2 :].sum()


def test_scaling():
    scaled = acoustics.to_int16(np.array([1.0, -4.0, 2.0]), peak=10000)
    assert scaled.dtype == np.int16
    np.testing.assert_array_equal(scaled, [2500, -10000, 5000])
