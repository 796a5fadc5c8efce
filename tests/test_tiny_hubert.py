"""How tiny_hubert is made: what is said, by whom, what is learned from it, and the script from end to end."""

import logging
import math
import re
import sys
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
import torch
from numpy.random import RandomState
from transformers import HubertConfig, HubertModel

from s3prl_interfaces.errors import UserError
from s3prl_interfaces.mini_superb import intents, speakers, voice_requests
from s3prl_interfaces.mini_superb.espeak import Espeak
from s3prl_interfaces.mini_superb.sentences import sentences
from s3prl_interfaces.tiny_hubert import texts
from s3prl_interfaces.tiny_hubert.corpus import Corpus, draw_batches, make_corpus
from s3prl_interfaces.tiny_hubert.distortion import distort
from s3prl_interfaces.tiny_hubert.network import layer_features, make_model, normalized, save
from s3prl_interfaces.tiny_hubert.pretraining import Round, draw_mask, train
from s3prl_interfaces.tiny_hubert.targets import Targets, cluster, mfcc
from s3prl_interfaces.tiny_hubert.voices import draw_variant
from s3prl_interfaces.upstream import load_upstream

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import pretrain_tiny_hubert

SHORT = Round(clusters=4, updates=120, distorted=False, crop_seconds=0.5, learning_rate=5e-3)


def normal(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower()).strip()


def test_no_sentence_of_mini_superb_is_said():
    theirs = {normal(text) for lines in intents.wordings().values() for text in lines}
    theirs |= {normal(text) for text in islice(sentences(RandomState(0)), 20000)}
    for held_out in (False, True):
        asked = islice(voice_requests.requests(RandomState(0), held_out=held_out), 2000)
        theirs |= {normal(" ".join(request.words)) for request in asked}
    assert len(theirs) > 5000
    random = Random(0)
    said = [texts._sentence(random) for _ in range(20000)]
    ours = {normal(sentence) for sentence in said}
    assert len(ours) > 15000
    assert not ours & theirs
    # Speech Commands' utterances are single words.
    assert min(len(normal(sentence).split()) for sentence in said) >= 3


def test_every_language_has_names_and_a_voice():
    with Espeak() as espeak:
        for voice, locale in texts.LANGUAGES.items():
            text = texts.draw_names(locale, Random(1))
            assert text.count(", ") >= 5
            assert len(espeak.speak(text, voice)) > 22050
    assert texts.draw_names("de", Random(1)) == texts.draw_names("de", Random(1))
    assert texts.draw_names("de", Random(1)) != texts.draw_names("de", Random(2))


def test_a_third_of_the_english_is_names():
    random = Random(0)
    names = sum(
        "." not in (text := texts.draw_english(random)) and "?" not in text and "!" not in text for _ in range(2000)
    )
    assert abs(names / 2000 - 0.3) < 0.05


def test_voices_are_nobody_elses():
    theirs = {name for table in speakers._VARIANTS.values() for names in table.values() for name in names.split()}
    assert "own" not in theirs
    one, other = draw_variant("own", Random(1)), draw_variant("own", Random(2))
    assert one == draw_variant("own", Random(1))
    with Espeak() as espeak:
        plain = espeak.speak("a quiet afternoon", "gmw/en")
        espeak.define_variant("own", one)
        first = espeak.speak("a quiet afternoon", "gmw/en+own")
        np.testing.assert_array_equal(first, espeak.speak("a quiet afternoon", "gmw/en+own"))
        espeak.define_variant("own", other)
        second = espeak.speak("a quiet afternoon", "gmw/en+own")
        np.testing.assert_array_equal(plain, espeak.speak("a quiet afternoon", "gmw/en"))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, plain)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(0.02, None, seed=3)


def test_corpus(corpus):
    assert 72 <= len(corpus.samples) / 16000 < 90
    assert corpus.ends[-1] == len(corpus.samples)
    assert corpus.lengths.sum() == len(corpus.samples)
    np.testing.assert_array_equal(corpus.samples, make_corpus(0.02, None, seed=3).samples)
    assert len(make_corpus(0.02, None, seed=4).samples) != len(corpus.samples)
    second = corpus.samples[corpus.ends[0] : corpus.ends[1]]
    np.testing.assert_array_equal(corpus.wav(1).numpy(), second.astype(np.float32) / 32768)
    assert corpus.wav(0).abs().max() > 0.05


def test_recordings_are_added(tmp_path, corpus):
    time = np.arange(8000 * 40) / 8000
    tone = 0.5 * np.sin(2 * math.pi * 440 * time)
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "deep" / "a.flac", np.stack([tone, tone], axis=1), 8000)
    soundfile.write(tmp_path / "short.wav", tone[:4000], 8000)
    (tmp_path / "notes.txt").write_text("no sound")
    made = make_corpus(0.02, tmp_path, seed=3)
    added = made.lengths[len(corpus) :]
    # 40 s in pieces of at most 15.6 s; half a second is too short to be of use
    assert [round(length / 16000, 1) for length in added] == [15.6, 15.6, 8.8]
    spectrum = np.abs(np.fft.rfft(made.wav(len(corpus)).numpy()))
    assert abs(spectrum.argmax() * 16000 / added[0] - 440) < 1
    with pytest.raises(UserError, match=r"--recordings .*deep/nothing: no audio file"):
        make_corpus(0.001, tmp_path / "deep" / "nothing", seed=3)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"broken.wav cannot be read.*Take it out"):
        make_corpus(0.001, tmp_path, seed=3)


def test_batches_are_of_one_length_and_on_the_grid_of_frames():
    lengths = np.array([4000, 9000, 9001, 20000, 20000, 20000, 3999])
    speech = Corpus(np.zeros(lengths.sum(), dtype=np.int16), np.cumsum(lengths))
    starts = set()
    for seed in range(20):
        batches = list(draw_batches(speech, 2, 10000, Random(seed)))
        assert len(batches) == 3
        used = [crop.utterance for batch in batches for crop in batch]
        assert len(set(used)) == 6  # none twice
        for batch in batches:
            (length,) = {crop.length for crop in batch}
            assert length == min(10000, *(lengths[crop.utterance] for crop in batch))
            for crop in batch:
                assert crop.start % 320 == 0
                assert crop.start + length <= lengths[crop.utterance]
                starts.add(crop.start)
    assert len(starts) > 10
    with pytest.raises(UserError, match="7 utterances are too few for a batch of 8"):
        next(draw_batches(speech, 8, 10000, Random(0)))


@pytest.mark.parametrize("samples", [400, 719, 720, 1039, 1040, 16000, 16079, 16080, 16081])
def test_a_frame_of_the_targets_is_a_frame_of_the_network(samples):
    wav = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    frames = len(mfcc(wav))
    assert frames == (samples - 400) // 320 + 1
    assert frames == int(make_model()._get_feat_extract_output_lengths(torch.tensor(samples)))
    assert layer_features(make_model(), 3)(wav).shape == (frames, 128)


def test_mfcc_frame_sees_its_own_samples_only():
    wav = 0.01 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    changed = wav.clone()
    changed[320 * 20 : 320 * 20 + 400] *= 20
    different = (mfcc(wav)[:, :13] - mfcc(changed)[:, :13]).abs().amax(dim=1) > 1e-2
    assert set(different.nonzero()[:, 0].tolist()) <= {19, 20, 21}
    assert different[20]
    assert mfcc(wav).shape[1] == 39
    still = mfcc(torch.sin(torch.arange(16000.0) * 2 * math.pi * 100 / 16000))  # every 10 ms the same
    assert still[5:-5, 13:].abs().max() < 0.1 * still[5:-5, :13].abs().max()


def test_clusters_are_found_and_stay_with_their_utterances():
    lengths = np.array([3200, 6400, 9600, 3200])
    speech = Corpus(np.repeat([1000, 2000, 3000, 1000], lengths).astype(np.int16), np.cumsum(lengths))

    def features(wav):
        return torch.full(((len(wav) - 400) // 320 + 1, 2), float(wav[0]) * 1000)

    targets = cluster(speech, features, 3, seed=0, name="test")
    parts = [targets.of(index) for index in range(4)]
    assert [len(part) for part in parts] == [(length - 400) // 320 + 1 for length in lengths]
    assert all(len(set(part.tolist())) == 1 for part in parts)
    one, two, three, four = (int(part[0]) for part in parts)
    assert one == four
    assert len({one, two, three}) == 3


def test_mask():
    plan = Round(clusters=2, updates=1, distorted=False, span=6, start=0.08)
    hidden = draw_mask(200, 300, plan, torch.Generator().manual_seed(0))
    assert hidden.shape == (200, 300)
    assert hidden.any(dim=1).all()
    assert abs(hidden.float().mean() - (1 - 0.92**6)) < 0.02
    for row in hidden[:20].tolist():  # spans of 6 frames or more, but one that the end cuts
        runs = [len(run) for run in "".join("x" if one else " " for one in row).split()]
        assert min(runs[:-1], default=6) >= 6
    for seed in range(20):
        few = draw_mask(1, 4, plan, torch.Generator().manual_seed(seed))
        assert few.any()
        assert not few.all()


def test_distortion_keeps_time_and_leaves_some_clean():
    random = torch.Generator().manual_seed(0)
    wavs = torch.zeros(200, 8000)
    wavs[:, 4000] = 1.0
    heard = distort(wavs, random)
    assert heard.shape == wavs.shape
    assert (heard.argmax(dim=1) == 4000).float().mean() > 0.95
    clean = (heard == wavs).all(dim=1).float().mean()
    assert abs(clean - 0.25) < 0.1
    speech = torch.randn(200, 8000, generator=random)
    heard = distort(speech, random)
    ratio = 10 * torch.log10(speech.square().mean(1) / ((heard - speech).square().mean(1) + 1e-12))
    assert ratio[ratio < 100].min() > -8
    assert ratio[ratio < 100].median() < 25
    again = distort(wavs, torch.Generator().manual_seed(0))
    torch.testing.assert_close(distort(wavs, torch.Generator().manual_seed(0)), again, rtol=0, atol=0)


def small() -> HubertModel:
    torch.manual_seed(0)
    return HubertModel(
        HubertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=(16,) * 7,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2,
            hidden_dropout=0.0,
            layerdrop=0.0,
        )
    )


def tones() -> tuple[Corpus, Targets]:
    """Utterances of one of four tones each: what is hidden can be told from what is not."""
    time = np.arange(9600) / 16000
    waves = [8000 * np.sin(2 * math.pi * (200 * 2**pitch) * time) for pitch in (0, 1, 2, 3)] * 8
    speech = Corpus(np.concatenate(waves).astype(np.int16), np.cumsum([9600] * 32))
    labels = np.repeat(np.array([0, 1, 2, 3] * 8, dtype=np.int16), 29)
    return speech, Targets(labels, np.cumsum([29] * 32))


def logged(caplog) -> list[tuple[float, float]]:
    """Accuracy on hidden and on other frames, a pair for each line of the log."""
    found = re.findall(r"hidden frames: loss [\d.]+, accuracy ([\d.]+); the others: accuracy ([\d.]+)", caplog.text)
    return [(float(hidden), float(shown)) for hidden, shown in found]


def test_training_learns_hidden_frames_and_is_repeatable(caplog):
    caplog.set_level(logging.INFO)
    speech, targets = tones()
    models = [small(), small()]
    for model in models:
        train(model, speech, targets, SHORT, seed=1, name="test")
    (first, last), again = logged(caplog)[:2], logged(caplog)[2:]
    assert last[0] > 0.9 > first[0]
    assert last[1] > 0.9
    assert again == [first, last]
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_hidden_frames_are_hidden(caplog):
    """Where the clusters are noise, frames that are seen can be learned by heart, hidden ones cannot."""
    caplog.set_level(logging.INFO)
    speech, _ = tones()
    noise = RandomState(0).randint(-8000, 8000, len(speech.samples)).astype(np.int16)
    labels = (np.arange(32 * 29) * 7919 % 4).astype(np.int16)
    RandomState(1).shuffle(labels)
    plan = Round(clusters=4, updates=300, distorted=False, crop_seconds=0.6, learning_rate=5e-3)
    train(small(), Corpus(noise, speech.ends), Targets(labels, np.cumsum([29] * 32)), plan, seed=1, name="test")
    hidden, shown = logged(caplog)[-1]
    assert shown > hidden + 0.1


def test_saved_network_is_an_upstream(tmp_path):
    torch.manual_seed(0)
    model = make_model()
    assert 1.8e6 < sum(weight.numel() for weight in model.parameters()) < 2.4e6
    save(model, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 6e6
    upstream = load_upstream(f"hf:{tmp_path}")
    assert all(weight.dtype == torch.float32 for weight in upstream.parameters())
    wavs = [torch.randn(8000, generator=torch.Generator().manual_seed(0)), torch.ones(4000).cumsum(0).sin()]
    states = upstream(wavs)["hidden_states"]
    assert len(states) == 13
    for layer in (0, 6):
        own = layer_features(model, layer)(wavs[1])
        torch.testing.assert_close(states[layer][1, : len(own)], own, rtol=0.02, atol=0.02)  # float16's weights
    torch.testing.assert_close(normalized(wavs[1][None]).var(correction=0), torch.tensor(1.0), rtol=1e-4, atol=1e-4)


def test_script(tmp_path, capsys):
    out = tmp_path / "model"
    assert pretrain_tiny_hubert.main([str(out), "--hours", "0.025", "--updates", "2", "2"]) == 0
    log = (out / "pretraining.log").read_text()
    assert re.search(r"first round: update 2 of 2, hidden frames: loss \d", log)
    assert re.search(r"second round: update 2 of 2, hidden frames: loss \d", log)
    assert len(load_upstream(f"hf:{out}")([torch.zeros(4000)])["hidden_states"]) == 13
    for arguments, message in (
        ([str(out)], "is there already and not empty"),
        ([str(tmp_path / "new"), "--recordings", str(tmp_path / "nowhere")], "there is no such folder"),
        ([str(tmp_path / "new"), "--hours", "0"], "--hours must be above 0"),
        ([str(tmp_path / "new"), "--updates", "0", "3"], "--hours must be above 0, and so must both --updates"),
    ):
        assert pretrain_tiny_hubert.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
