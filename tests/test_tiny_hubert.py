"""How tiny_hubert is made: what is said, by whom, what is learned from it, and the script from end to end."""

import copy
import importlib.util
import json
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
import torchaudio
from numpy.random import RandomState
from transformers import HubertConfig, HubertModel

from s3prl_interfaces.errors import UserError
from s3prl_interfaces.mini_superb import intents, speakers, voice_requests
from s3prl_interfaces.mini_superb.espeak import Espeak
from s3prl_interfaces.mini_superb.sentences import sentences
from s3prl_interfaces.tiny_hubert import corpus as corpora
from s3prl_interfaces.tiny_hubert import distortion, filters, pretraining, texts
from s3prl_interfaces.tiny_hubert.corpus import Corpus, Crop, crops, draw_batches, endless_batches, make_corpus
from s3prl_interfaces.tiny_hubert.distortion import distort
from s3prl_interfaces.tiny_hubert.filters import FilterPlan, Spectrum, fit_spectrum, learn_filters, shrink
from s3prl_interfaces.tiny_hubert.network import layer_features, make_model, normalized, save, scale_weights
from s3prl_interfaces.tiny_hubert.pretraining import Round, draw_mask, train
from s3prl_interfaces.tiny_hubert.schedule import make_optimizer, rate, update
from s3prl_interfaces.tiny_hubert.targets import Targets, cluster, mfcc
from s3prl_interfaces.tiny_hubert.voices import draw_variant
from s3prl_interfaces.upstream import load_upstream
from tests.second_device import DEVICE, run_with_it

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import pretrain_tiny_hubert

SHORT = Round(clusters=4, updates=120, crop_seconds=0.4, learning_rate=5e-3)


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


def test_silence_of_up_to_half_a_second_surrounds_speech(corpus):
    for pause in (
        [corpus.wav(index).ne(0).int().argmax() for index in range(len(corpus))],
        [corpus.wav(index).flip(0).ne(0).int().argmax() for index in range(len(corpus))],
    ):
        assert max(pause) > 3000
        assert max(pause) < 8000 + 4000  # eSpeak has silence of its own
        assert len(set(pause)) > len(pause) / 2


def test_every_utterance_has_its_own_voice_text_and_delivery(monkeypatch):
    variants, said = [], []

    class Silent:
        __enter__ = __exit__ = lambda self, *_: self

        def define_variant(self, name, text):
            variants.append(text)

        def speak(self, text, voice, **delivery):
            said.append((text, voice, *delivery.values()))
            return np.full(22050, 40000 if len(said) % 2 else -40000, dtype=np.int32)

    monkeypatch.setattr(corpora, "Espeak", Silent)
    made = make_corpus(0.2, None, seed=3)
    assert len(set(variants)) > 0.7 * len(made)
    texts_, voices, *delivery = zip(*said, strict=True)
    assert len(set(texts_)) > 0.95 * len(made)
    english = np.mean([voice.removesuffix("+own") in speakers.ACCENTS for voice in voices])
    assert abs(english - 0.6) < 0.1
    assert len(set(voices)) > 40
    assert all(len(set(drawn)) > 20 for drawn in delivery)
    # What is too loud is cut off, it does not wrap around to the other sign.
    assert [int(np.median(made.wav(index)[8000:-8000].sign())) for index in (0, 1)] == [1, -1]


def test_speech_keeps_its_pitch(monkeypatch):
    """eSpeak NG speaks at 22,050 Hz."""

    class Tone:
        __enter__ = __exit__ = lambda self, *_: self
        define_variant = lambda *_: None  # noqa: E731

        def speak(self, *_, **__):
            return (8000 * np.sin(2 * math.pi * 440 * np.arange(44100) / 22050)).astype(np.int16)

    monkeypatch.setattr(corpora, "Espeak", Tone)
    wav = make_corpus(0.0005, None, seed=3).wav(0)
    assert 2 <= len(wav) / 16000 < 3.1
    assert abs(np.abs(np.fft.rfft(wav.numpy())).argmax() * 16000 / len(wav) - 440) < 1


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
    assert abs(made.wav(len(corpus)).abs().max() - 0.5) < 0.01
    with pytest.raises(UserError, match=r"--recordings .*deep/nothing: no audio file"):
        make_corpus(0.001, tmp_path / "deep" / "nothing", seed=3)
    (tmp_path / "deep" / "short").mkdir()
    soundfile.write(tmp_path / "deep" / "short" / "a.wav", tone[:4000], 8000)
    with pytest.raises(UserError, match=r"--recordings .*deep/short: no file there is as long as 1.0 s"):
        make_corpus(0.001, tmp_path / "deep" / "short", seed=3)
    (tmp_path / "deep" / "short" / "a.wav").unlink()
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"broken.wav cannot be read.*Take it out"):
        make_corpus(0.001, tmp_path, seed=3)


def test_batches_are_of_one_length_and_on_the_grid_of_frames():
    lengths = np.array([4000, 9000, 9001, 20000, 20000, 20000, 3999])
    speech = Corpus(np.zeros(lengths.sum(), dtype=np.int16), np.cumsum(lengths))
    starts, orders, pairs = set(), set(), set()
    for seed in range(20):
        batches = list(draw_batches(speech, 2, 10000, Random(seed)))
        assert len(batches) == 3
        order = [batch[0].length for batch in batches]
        assert sorted(order) == [3999, 9000, 10000]  # like beside like: little is cut off
        orders.add(tuple(order))
        pairs.add(frozenset(crop.utterance for crop in batches[order.index(10000)]))
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
    assert len(orders) > 3
    assert pairs == {frozenset(pair) for pair in ((3, 4), (3, 5), (4, 5))}
    with pytest.raises(UserError, match="7 utterances are too few for a batch of 8"):
        next(draw_batches(speech, 8, 10000, Random(0)))


def test_batches_never_end_and_each_epoch_has_its_own_order():
    speech = Corpus(np.zeros(12 * 4000, dtype=np.int16), np.arange(1, 13) * 4000)
    batches = endless_batches(speech, 3, 2000, Random(0))
    epochs = [[crop.utterance for batch in islice(batches, 4) for crop in batch] for _ in range(5)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    again = endless_batches(speech, 3, 2000, Random(0))
    assert [crop.utterance for batch in islice(again, 4) for crop in batch] == epochs[0]


def test_crops_are_pieces_of_their_utterances():
    speech = Corpus(np.arange(30000, dtype=np.int16), np.array([10000, 30000]))
    given = crops(speech, [Crop(1, 640, 1000), Crop(0, 320, 1000)])
    expected = torch.stack([torch.arange(10640, 11640), torch.arange(320, 1320)]) / 32768
    torch.testing.assert_close(given, expected, rtol=0, atol=0)


@pytest.fixture(scope="module")
def spectrum(corpus) -> Spectrum:
    return fit_spectrum(corpus, seed=1)


def test_a_frame_of_the_targets_is_a_frame_of_the_network(spectrum):
    model = make_model()
    for samples in (400, 719, 720, 1039, 1040, 16000, 16079, 16080, 16081):
        wav = torch.randn(samples, generator=torch.Generator().manual_seed(0))
        frames = (samples - 400) // 320 + 1
        assert mfcc(wav).shape == (frames, 39)
        assert spectrum.of(wav).shape == (frames, 40)
        assert frames == int(model._get_feat_extract_output_lengths(torch.tensor(samples)))
        assert layer_features(model, 3)(wav).shape == (frames, 128)


def test_features_of_faint_speech_are_those_of_loud_speech():
    wav = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    features = layer_features(small(), 1)
    torch.testing.assert_close(features(wav / 100), features(wav), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        normalized(torch.stack([3 * wav, wav + 1])),
        ((wav - wav.mean()) / wav.std()).expand(2, -1),
        rtol=1e-3,
        atol=1e-3,
    )


def test_mfcc_frame_sees_its_own_samples_only():
    wav = 0.01 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    changed = wav.clone()
    changed[320 * 19 + 400 : 320 * 21] *= 20  # between frames 19 and 21
    different = (mfcc(wav)[:, :13] - mfcc(changed)[:, :13]).abs().amax(dim=1) > 1e-2
    assert different.nonzero()[:, 0].tolist() == [20]
    assert mfcc(wav).shape[1] == 39
    time = torch.arange(16000) / 16000
    still = mfcc(torch.sin(time * 2 * math.pi * 100))  # every 10 ms the same
    assert still[5:-5, 13:].abs().max() < 0.1 * still[5:-5, :13].abs().max()
    rising = mfcc(torch.sin(time * 2 * math.pi * 100) * 10 ** (3 * time - 4))[5:-5]  # by the same in every frame
    assert rising[:, 13].mean() > 0.5
    assert abs(rising[:, 26].mean()) < 0.05


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


def test_clusters_are_repeatable():
    noise = RandomState(0).randint(-8000, 8000, 64000).astype(np.int16)
    speech = Corpus(noise, np.arange(1, 5) * 16000)
    labels = [
        cluster(speech, lambda wav: wav.view(-1, 2)[::40], 8, seed=seed, name="test").labels for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(labels[0], labels[1])
    assert (labels[0] != labels[2]).any()


def test_crops_have_the_clusters_of_their_frames():
    labels = np.concatenate([1000 + np.arange(30), 2000 + np.arange(30)]).astype(np.int16)
    batch = [Crop(1, 320 * 7, 320 * 3 + 400), Crop(0, 0, 320 * 3 + 400), Crop(0, 320 * 26, 320 * 4 + 399)]
    given = pretraining._clusters(Targets(labels, np.array([30, 60])), batch)
    assert given.dtype == torch.int64
    assert given.tolist() == [[2007, 2008, 2009, 2010], [1000, 1001, 1002, 1003], [1026, 1027, 1028, 1029]]


def test_spectrum_is_white_on_what_it_was_fitted_to(corpus, spectrum):
    noise = torch.Generator().manual_seed(1)
    order = Random(1).sample(range(len(corpus)), len(corpus))
    wavs = [normalized(distort(corpus.wav(index)[None], noise))[0] for index in order]
    given = torch.cat([spectrum.of(wav) for wav in wavs])
    torch.testing.assert_close(given.mean(dim=0), torch.zeros(40), rtol=0, atol=0.01)
    covariance = torch.cov(given.T)
    variances = covariance.diagonal()
    torch.testing.assert_close(covariance, torch.diag(variances), rtol=0, atol=0.01)
    assert variances[:10].min() > 0.95
    assert variances.max() < 1.01
    assert variances[:-1].ge(variances[1:] - 1e-3).all()  # the largest components come first
    # A component of variance v is divided by the root of v + 0.05: what is next to nothing is not blown up.
    lengths = spectrum.rotation.square().sum(dim=0)
    torch.testing.assert_close(variances, 1 - 0.05 * lengths, rtol=0, atol=0.01)
    assert torch.equal(fit_spectrum(corpus, seed=1).rotation, spectrum.rotation)
    assert not torch.equal(fit_spectrum(corpus, seed=2).rotation, spectrum.rotation)


def test_spectrum_is_kaldis_on_16_bit_samples(corpus, spectrum):
    """Of speech of ordinary loudness."""
    wav = normalized(corpus.wav(0)[None])[0]
    bands = torchaudio.compliance.kaldi.fbank(3000 * wav[None], num_mel_bins=80, frame_shift=20).clamp(min=5)
    torch.testing.assert_close(spectrum.of(wav), (bands - spectrum.mean) @ spectrum.rotation)


def test_spectrum_of_a_frame_sees_its_own_samples_only(spectrum):
    wav = 0.01 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    changed = wav.clone()
    changed[320 * 19 + 400 : 320 * 21] *= 20
    different = (spectrum.of(wav) - spectrum.of(changed)).abs().amax(dim=1) > 1e-2
    assert different.nonzero()[:, 0].tolist() == [20]


def test_spectrum_of_digital_silence_is_that_of_next_to_nothing(spectrum):
    silence = spectrum.of(torch.zeros(1040))
    torch.testing.assert_close(silence, ((5 - spectrum.mean) @ spectrum.rotation).expand(3, 40))
    faint = 1e-6 * torch.randn(1040, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spectrum.of(faint), silence)
    assert (spectrum.of(1e4 * faint) - silence).abs().max() > 0.1


def test_rate_rises_and_falls_in_straight_lines():
    for updates in (100, 2500):
        top = 0.08 * updates
        for step in range(updates + 1):
            expected = step / top if step <= top else (updates - step) / (updates - top)
            assert rate(step, updates) == pytest.approx(expected)
    assert [rate(step, 2) for step in range(3)] == [0, 1, 0]
    assert [rate(step, 1) for step in range(2)] == [0, 0]


def test_optimizer_follows_the_rate():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, schedule = make_optimizer([weight], 0.5, 100)
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.98), 1e-6, 0.01)
    for step in range(100):
        assert group["lr"] == pytest.approx(0.5 * rate(step, 100))
        optimizer.step()
        schedule.step()
    assert group["lr"] == 0


def test_update_is_adamw_on_a_cut_gradient():
    """Beside a plain loop, of gradients that are long and short and differ from update to update."""
    gradients = [torch.tensor([3.0, -4.0]), torch.tensor([0.1, 0.2]), torch.tensor([-60.0, 80.0])]
    ours, plain = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer, schedule = make_optimizer([ours], 0.1, 10)
    reference = torch.optim.AdamW([plain], lr=0.1, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)
    for step, gradient in enumerate(gradients):
        update(ours @ gradient, optimizer, schedule)
        reference.param_groups[0]["lr"] = 0.1 * rate(step, 10)
        plain.grad = gradient / max(1.0, gradient.norm().item())
        reference.step()
        torch.testing.assert_close(ours, plain)
    assert not ours.equal(torch.ones(2))


def test_mask():
    plan = Round(clusters=2, updates=2, span=6, start=0.08)
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
    assert not torch.equal(distort(wavs, torch.Generator().manual_seed(1)), again)


SHARES = {"_noise": 0.75, "_coloured": 0.75, "_reverberated": 0.375, "_mixed": 0.15}


@pytest.mark.parametrize(("kind", "share"), SHARES.items())
def test_share_of_each_distortion(monkeypatch, kind, share):
    """Of the utterances 3 in 4 are distorted: by noise and microphone, half of them by a room, a fifth by a voice."""
    for other in SHARES.keys() - {kind}:
        monkeypatch.setattr(distortion, other, lambda wavs, _, nothing=other == "_noise": wavs * (not nothing))
    random = torch.Generator().manual_seed(0)
    wavs = torch.randn(1000, 500, generator=random)
    assert abs((distort(wavs, random) != wavs).any(dim=1).float().mean() - share) < 0.05


def decibels(ratio: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(ratio)


def test_noise_is_5_to_35_decibels_below_and_white_to_brown():
    random = torch.Generator().manual_seed(0)
    wavs = torch.randn(300, 16000, generator=random) * torch.logspace(-3, 0, 300)[:, None]
    noise = distortion._noise(wavs, random)
    below = decibels(wavs.square().mean(1) / noise.square().mean(1))
    assert below.min() > 4.9
    assert below.max() < 35.1
    assert abs(below.mean() - 20) < 2
    power = torch.fft.rfft(noise).abs().square()
    fall = decibels(power[:, 900:1100].mean(1) / power[:, 3600:4400].mean(1)) / 2  # of two octaves
    assert fall.min() > -0.7
    assert fall.max() < 6.7
    assert abs(fall.mean() - 3) < 0.5


def test_room_follows_the_direct_path():
    random = torch.Generator().manual_seed(0)
    wavs = torch.zeros(300, 8000)
    wavs[:, 2000] = 1.0
    heard = distortion._reverberated(wavs, random)
    assert heard[:, :2000].abs().max() < 1e-5
    torch.testing.assert_close(heard[:, 2000], torch.ones(300), rtol=0, atol=1e-4)
    tail = heard[:, 2001:].square()
    below = -decibels(tail.sum(dim=1))
    assert below.min() > -0.1
    assert below.max() < 12.1
    assert abs(below.mean() - 6) < 1
    # 60 dB in 0.1 to 0.6 s are 10 to 60 dB in 0.1 s
    fall = decibels(tail[:, :800].sum(dim=1) / tail[:, 1600:2400].sum(dim=1))
    assert fall.min() > 7
    assert 50 < fall.max() < 65


def test_second_voice_is_another_and_weaker_and_covers_half_at_most():
    random = torch.Generator().manual_seed(0)
    levels = torch.tensor([1.0, -0.01]).repeat(500)  # a neighbour has the other sign
    wavs = levels[:, None].repeat(1, 1000)
    added = distortion._mixed(wavs, random) - wavs
    chosen = (added != 0).any(dim=1)
    assert abs(chosen.float().mean() - 0.2) < 0.04
    share = (added[chosen] != 0).float().mean(dim=1)
    assert share.min() > 0.09
    assert share.max() < 0.51
    ratio = (added / wavs)[added != 0]
    assert ratio.max() < 0
    assert -10.1 < decibels(ratio.square()).min() < -9
    assert -1 < decibels(ratio.square()).max() < 0.1
    # Of another moment: nowhere in proportion to what is already there.
    ramps = torch.arange(1.0, 1001.0).repeat(1000, 1)
    added = distortion._mixed(ramps, random) - ramps
    chosen = (added > 0.01).any(dim=1)
    assert all(row[row > 1e-3].std() > 1e-3 for row in (added / ramps)[chosen])


def test_microphone_changes_the_spectrum_smoothly_by_10_decibels_at_most():
    random = torch.Generator().manual_seed(0)
    wavs = torch.zeros(1000, 1600)
    wavs[:, 800] = 1.0
    heard = distortion._coloured(wavs, random)
    gains = 2 * decibels(torch.fft.rfft(heard).abs())
    assert 9 < gains.max() < 10.01
    assert -10.01 < gains.min() < -9
    # At the eight parts: the strength of an utterance, 0 to 10 dB, times -1 to 1.
    mel = 1127 * math.log1p(8000 / 700) * torch.arange(8) / 7
    parts = (700 * (torch.exp(mel / 1127) - 1) / 10).round().int()
    torch.testing.assert_close(gains[:, parts].std(dim=0), torch.full((8,), 10 / 3), rtol=0.15, atol=0)
    assert (torch.corrcoef(gains[:, parts].T) - torch.eye(8)).abs().max() < 0.15
    # Between two parts in a straight line of mel.
    low, high = (700 * (math.exp(place * math.log1p(8000 / 700)) - 1) / 10 for place in (6 / 7, 1))
    middle = round(700 * (math.exp(6.5 / 7 * math.log1p(8000 / 700)) - 1) / 10)
    ends = (gains[:, round(low)] + gains[:, round(high)]) / 2
    torch.testing.assert_close(gains[:, middle], ends, rtol=0, atol=0.1)
    # The sound stays where it is, and an odd number of samples stays odd.
    assert (heard.square()[:, 700:901].sum(dim=1) / heard.square().sum(dim=1)).min() > 0.98
    assert distortion._coloured(wavs[:2, :1599], random).shape == (2, 1599)


def test_microphone_is_behind_the_noise(monkeypatch):
    monkeypatch.setattr(distortion, "_CLEAN", 0.0)
    monkeypatch.setattr(distortion, "_noise", lambda wavs, _: torch.ones_like(wavs))
    monkeypatch.setattr(distortion, "_coloured", lambda wavs, _: 2 * wavs)
    heard = distort(torch.zeros(3, 500), torch.Generator().manual_seed(0))
    torch.testing.assert_close(heard, torch.full((3, 500), 2.0))


def small() -> HubertModel:
    torch.manual_seed(0)
    return HubertModel(
        HubertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=(16,) * 7,
            feat_extract_norm="group",
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


def test_training_learns_hidden_frames_and_is_repeatable(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(pretraining, "_LOG_EVERY", 60)
    speech, targets = tones()
    models = [small(), small()]
    for model in models:
        train(model, speech, targets, SHORT, seed=1, name="test")
    (first, last), again = logged(caplog)[:2], logged(caplog)[2:]
    assert last[0] > 0.95
    assert last[1] > 0.95
    assert first[0] < 0.9
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
    plan = Round(clusters=4, updates=300, crop_seconds=0.6, learning_rate=5e-3)
    train(small(), Corpus(noise, speech.ends), Targets(labels, np.cumsum([29] * 32)), plan, seed=1, name="test")
    hidden, shown = logged(caplog)[-1]
    assert shown > hidden + 0.1


def test_what_an_update_is_made_of(monkeypatch):
    """The input is distorted, then normalized, hidden frames are replaced, and the loss weighs both kinds of frames."""
    speech, targets = tones()
    model = small()
    heard, masks, entered, losses, drawn, modes, trained = [], [], [], [], [], [], []

    def louder(wavs, _):
        drawn.append(wavs)
        return wavs.flip(1) + 0.1

    def mask(*arguments):
        assert (arguments[-1].initial_seed(), torch.initial_seed()) == (1, 1)
        masks.append(draw_mask(*arguments))
        return masks[-1]

    def cross_entropy(logits, wanted, reduction):
        losses.append((-logits.log_softmax(dim=1).gather(1, wanted[:, None])[:, 0], wanted))
        losses[-1][0].retain_grad()
        return losses[-1][0]

    monkeypatch.setattr(pretraining, "distort", louder)
    monkeypatch.setattr(pretraining, "draw_mask", mask)
    monkeypatch.setattr(pretraining.functional, "cross_entropy", cross_entropy)
    model.feature_extractor.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    model.encoder.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0].detach().clone()))
    model.encoder.register_forward_pre_hook(lambda *_: modes.append(model.training))
    monkeypatch.setattr(pretraining, "make_optimizer", lambda *of: (trained.extend(of[0]), make_optimizer(*of))[1])
    fill = model.masked_spec_embed.detach().clone()
    model.eval()  # as clustering leaves it
    train(model, speech, targets, Round(4, 2, batch=8, crop_seconds=0.5, hidden_share=0.8), seed=1, name="test")
    assert [len(calls) for calls in (heard, masks, entered, losses, drawn)] == [2] * 5
    assert torch.equal(drawn[0], crops(speech, next(endless_batches(speech, 8, 8000, Random(1)))))
    assert modes == [True, True]
    predictor = [torch.Size([4, 32]), torch.Size([4])]
    assert [weight.shape for weight in trained] == [*(weight.shape for weight in model.parameters()), *predictor]
    assert not torch.equal(masks[0], masks[1])
    assert not model.masked_spec_embed.equal(fill)
    torch.testing.assert_close(heard[0], normalized(drawn[0].flip(1)))
    hidden, frames = masks[0], entered[0]
    assert frames[hidden].sub(fill).abs().max() < 0.01
    assert frames[~hidden].sub(fill).abs().amax(dim=1).min() > 0.01
    loss, wanted = losses[0]
    torch.testing.assert_close(loss.grad[hidden], torch.full((int(hidden.sum()),), 0.8 / hidden.sum()))
    torch.testing.assert_close(loss.grad[~hidden], torch.full((int((~hidden).sum()),), 0.2 / (~hidden).sum()))
    # A tone's label is the octave that is heard.
    pitch = torch.fft.rfft(drawn[0], n=16000).abs().argmax(dim=1)
    assert torch.log2(pitch / 200).round().tolist() == wanted[:, 0].tolist()


def test_filters_are_learned_and_then_frozen(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(filters, "_LOG_EVERY", 20)
    speech, targets = tones()
    model, untouched = small(), small()
    learn_filters(model, speech, FilterPlan(updates=100, crop_seconds=0.3), seed=1)
    found = re.findall(r"update (\d+) of 100, squared error of components 1-10: ([\d.]+)", caplog.text)
    assert [int(update) for update, _ in found] == [20, 40, 60, 80, 100]
    errors = [float(error) for _, error in found]
    assert errors[0] > 1 > 0.95 > errors[-1]  # 1 is that of always giving the mean

    def changed(one, other):
        pairs = zip(one.named_parameters(), other.parameters(), strict=True)
        return {name for (name, weight), before in pairs if not torch.equal(weight, before)}

    ears = {f"feature_extractor.{name}" for name, _ in model.feature_extractor.named_parameters()}
    assert changed(model, untouched) == ears | {f"feature_projection.layer_norm.{kind}" for kind in ("weight", "bias")}
    assert {name for name, weight in model.named_parameters() if not weight.requires_grad} == ears
    learned = copy.deepcopy(model)
    train(model, speech, targets, Round(clusters=4, updates=3, crop_seconds=0.5), seed=1, name="test")
    assert changed(model, learned) == {name for name, _ in model.named_parameters()} - ears


@pytest.mark.parametrize(("largest", "divisor"), [(0.0, 1), (100.0, 1), (4096.0, 1), (4097.0, 2), (110_000.0, 32)])
def test_filters_fit_into_float16(largest, divisor):
    convolution = torch.nn.Conv1d(3, 5, 2)
    heard = torch.randn(1, 3, 20)
    before = convolution(heard)
    shrink(convolution, largest)
    torch.testing.assert_close(divisor * convolution(heard), before)
    assert largest / divisor <= 4096


def test_filters_shrink_by_what_they_give(monkeypatch, corpus):
    """With a bound of a thousandth, instead of filters that grow."""
    models = []
    for bound in (1e-3, 4096.0):
        monkeypatch.setattr(filters, "_LARGEST", bound)
        models.append(small())
        learn_filters(models[-1], corpus, FilterPlan(updates=2, crop_seconds=0.3), seed=1)
    shrunk, other = (model.feature_extractor.conv_layers[-1].conv for model in models)
    ratios = other.weight / shrunk.weight
    assert ratios.std() < 1e-3 * ratios.mean()
    power = round(math.log2(ratios.mean().item()))
    assert power > 0
    assert ratios.mean().item() == pytest.approx(2**power, rel=1e-3)


def test_learning_of_filters_is_repeatable(corpus):
    models = [small() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        learn_filters(model, corpus, FilterPlan(updates=3, crop_seconds=0.3), seed)
    first, again, other = (torch.cat([w.flatten() for w in model.feature_extractor.parameters()]) for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_filters_hear_what_their_spectrum_is_of(corpus, spectrum, monkeypatch):
    """The very audio that they hear: distorted and normalized on both sides."""
    model = small()
    heard, clean, wanted = [], [], []

    def louder(wavs, noise):
        assert (noise.initial_seed(), torch.initial_seed()) == (1, 1)
        clean.append(wavs)
        return wavs.flip(1) + 0.1

    def of(self, wav):
        wanted.append(wav)
        return torch.zeros((len(wav) - 400) // 320 + 1, 40)

    monkeypatch.setattr(filters, "fit_spectrum", lambda corpus, seed: spectrum)
    monkeypatch.setattr(filters, "distort", louder)
    monkeypatch.setattr(Spectrum, "of", of)
    model.feature_extractor.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0].detach()))
    learn_filters(model, corpus, FilterPlan(updates=2, batch=2, crop_seconds=0.5), seed=1)
    assert torch.equal(clean[0], crops(corpus, next(endless_batches(corpus, 2, 8000, Random(1)))))
    torch.testing.assert_close(torch.stack(wanted[:2]), normalized(clean[0].flip(1)))
    torch.testing.assert_close(heard[0], normalized(clean[0].flip(1)))


def test_weights_fit_the_width():
    torch.manual_seed(0)
    model = make_model()
    assert model.config.feat_extract_norm == "group"
    assert model.config.do_stable_layer_norm
    assert model.config.layerdrop == 0
    wide = 1 / math.sqrt(128)
    for block in (model.encoder.layers[0], model.encoder.layers[-1]):
        attention, forward = block.attention, block.feed_forward
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj, forward.intermediate_dense):
            assert linear.weight.std().item() == pytest.approx(wide, rel=0.05)
            assert linear.bias.abs().max() == 0
        for linear in (attention.out_proj, forward.output_dense):
            assert linear.weight.std().item() == pytest.approx(0.2 * wide, rel=0.05)
    assert model.feature_projection.projection.weight.std().item() == pytest.approx(wide, rel=0.05)
    wav = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.inference_mode():
        features = model.feature_extractor(normalized(wav[None])).transpose(1, 2)
        assert model.feature_projection(features).std().item() == pytest.approx(1, rel=0.15)
    first, last = (layer_features(model, layer)(wav) for layer in (0, 12))
    assert torch.cosine_similarity(first, last, dim=1).mean() > 0.7
    narrow = small()
    norm = copy.deepcopy(narrow.encoder.layers[0].layer_norm.state_dict())
    scale_weights(narrow)
    assert narrow.encoder.layers[1].attention.q_proj.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)
    assert all(torch.equal(norm[key], value) for key, value in narrow.encoder.layers[0].layer_norm.state_dict().items())


def test_features_are_without_dropout():
    model = make_model().train()
    wav = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    features = layer_features(model, 12)
    assert torch.equal(features(wav), features(wav))
    assert not model.training


def test_saved_network_is_an_upstream(tmp_path):
    torch.manual_seed(0)
    model = make_model()
    assert 1.8e6 < sum(weight.numel() for weight in model.parameters()) < 2.4e6
    save(model, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 6e6
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    upstream = load_upstream(f"hf:{tmp_path}")
    assert all(weight.dtype == torch.float32 for weight in upstream.parameters())
    wavs = [torch.randn(8000, generator=torch.Generator().manual_seed(0)), torch.ones(4000).cumsum(0).sin()]
    states = upstream(wavs)["hidden_states"]
    assert len(states) == 13
    for layer in (0, 6):
        own = layer_features(model, layer)(wavs[1])
        torch.testing.assert_close(states[layer][1, : len(own)], own, rtol=0.02, atol=0.02)  # float16's weights
    extractor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert [extractor[key] for key in ("do_normalize", "return_attention_mask", "sampling_rate")] == [True, True, 16000]


def test_each_waveform_is_normalized():
    wavs = torch.tensor([[1.0, 2.0, 3.0, 4.0], [30.0, 10.0, 10.0, 30.0], [0.0, 0.0, 0.0, 0.0]])
    wide = 1.25**-0.5
    given = [[-1.5 * wide, -0.5 * wide, 0.5 * wide, 1.5 * wide], [1.0, -1.0, -1.0, 1.0], [0.0] * 4]
    torch.testing.assert_close(normalized(wavs), torch.tensor(given), rtol=1e-4, atol=1e-4)


def test_script(tmp_path, capsys, monkeypatch):
    out = tmp_path / "model"
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    assert pretrain_tiny_hubert.main([str(out), "--hours", "0.025", "--updates", "2", "3", "4"]) == 0
    assert (root.level, root.handlers) == before
    log = (out / "pretraining.log").read_text()
    assert re.search(r"filters: update 2 of 2, squared error of components 1-10: \d", log)
    assert re.search(r"first round: update 3 of 3, hidden frames: loss \d", log)
    assert re.search(r"second round: update 4 of 4, hidden frames: loss \d", log)
    assert len(load_upstream(f"hf:{out}")([torch.zeros(4000)])["hidden_states"]) == 13
    for arguments, message in (
        ([str(out)], "is there already and not empty"),
        ([str(tmp_path / "new"), "--recordings", str(tmp_path / "nowhere")], "there is no such folder"),
        ([str(tmp_path / "new"), "--hours", "0.019"], "--hours must be 0.02 or more, not 0.019"),
        ([str(tmp_path / "new"), "--hours", "nan"], "--hours must be 0.02 or more, not nan"),
        ([str(tmp_path / "new"), "--updates", "1", "0", "3"], "All three --updates must be above 0"),
    ):
        assert pretrain_tiny_hubert.main(arguments) == 2
        assert message in capsys.readouterr().err
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "babel" else find(name, *rest))
    assert pretrain_tiny_hubert.main([str(tmp_path / "new")]) == 2
    assert "babel is not installed: pip install 's3prl-interfaces[pretrain]'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def pretrain_there(folder):
    """The script where a second device is the one that is found; where the network was at the end."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain_tiny_hubert, "choose_device", lambda name: torch.device(DEVICE, 0))
        patch.setattr(pretrain_tiny_hubert, "save", lambda model, out: found.append(model.device) or save(model, out))
        assert pretrain_tiny_hubert.main([str(folder), "--hours", "0.02", "--updates", "2", "2", "2"]) == 0
    return str(found)


def test_script_uses_another_device(tmp_path):
    assert DEVICE in run_with_it(pretrain_there, tmp_path / "made")
    assert len(load_upstream(f"hf:{tmp_path / 'made'}")([torch.zeros(4000)])["hidden_states"]) == 13


def test_script_takes_the_steps_in_order(tmp_path, monkeypatch):
    model, speech, done = small(), tones()[0], []
    monkeypatch.setattr(pretrain_tiny_hubert, "make_model", lambda: done.append(torch.initial_seed()) or model)

    def step(name, result=None):
        monkeypatch.setattr(pretrain_tiny_hubert, name, lambda *given: done.append((name, *given)) or result)

    step("make_corpus", speech)
    step("learn_filters")
    step("cluster", "clusters")
    step("train")
    step("save")
    step("layer_features", "states")
    arguments = ["--hours", "2.5", "--recordings", str(tmp_path), "--updates", "5", "6", "7", "--seed", "9"]
    assert pretrain_tiny_hubert.main([str(tmp_path / "out"), *arguments]) == 0
    assert done == [
        ("make_corpus", 2.5, tmp_path, 9),
        9,
        ("learn_filters", model, speech, FilterPlan(5), 9),
        ("cluster", speech, mfcc, 100, 9, "MFCCs"),
        ("train", model, speech, "clusters", Round(100, 6), 9, "first round"),
        ("layer_features", model, 6),
        ("cluster", speech, "states", 200, 10, "layer 6"),
        ("train", model, speech, "clusters", Round(200, 7), 10, "second round"),
        ("save", model, tmp_path / "out"),
    ]
