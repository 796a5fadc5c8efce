"""Speech encoders of transformers as upstreams, each held against transformers' own model and feature extractor."""

import json
import logging
import math
import shutil

import pytest
import torch
import transformers as hf
from torch import nn

from s3prl_interfaces.errors import DataError
from s3prl_interfaces.featurizer import InterfaceFeaturizer
from s3prl_interfaces.transformers_upstream.inputs import FilterBanks, LogMels, Waveforms
from tests.second_device import DEVICE, run_with_it
from tests.transformers_models import FAMILIES, LAYERS, WIDTH, load, states_of, utterances, write_whisper

NOT_PROMISED = ("conformer", "sew")
PROMISED = [family for family in FAMILIES if family not in NOT_PROMISED]
RATES = dict.fromkeys(FAMILIES, 320) | {"sew": 640}
# What comes after the last hidden state or is not used, and what transformers itself never trains.
NO_GRADIENT = (
    "layer_norm.",
    "encoder.layer_norm.",
    "encoder.upsample.",
    "encoder.pos_conv_embed.",  # of Conformer
    "embed_positions.weight",
    "masked_spec_embed",
)
LOGGER = "s3prl_interfaces.transformers_upstream.load"


@torch.no_grad()
def transformers_own(folder, wavs, **padding):
    """The hidden states of transformers' own model on what its own feature extractor makes of utterances."""
    model = hf.AutoModel.from_pretrained(folder).eval()
    extractor = hf.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor([wav.numpy() for wav in wavs], sampling_rate=16000, return_tensors="pt", **padding)
    encoder = model.encoder if isinstance(model, hf.WhisperModel) else model
    return encoder(**inputs, output_hidden_states=True).hidden_states


def own_frames(family, samples):
    """Frames of an utterance alone: of Whisper, those within it; of w2v-BERT, whole pairs of filter bank frames."""
    if family == "whisper":
        return math.ceil(samples / 320)
    if family == "w2v_bert":
        return (1 + (samples - 400) // 160) // 2
    frames = 1 + (samples - 400) // 320
    return frames // 2 if family == "sew" else frames


def difference(family, padded, folder, wavs):
    """The largest from any utterance of a batch to transformers' own output of it alone."""
    worst = 0.0
    for row, wav in enumerate(wavs):
        alone = transformers_own(folder, [wav])
        assert len(padded) == len(alone)
        own = own_frames(family, len(wav))
        assert padded[0].size(1) >= own
        for ours, theirs in zip(padded, alone, strict=True):
            worst = max(worst, float((ours[row, :own] - theirs[0, :own]).abs().max()))
    return worst


@pytest.mark.parametrize("family", PROMISED)
def test_padded_is_what_transformers_gives_alone(family, transformers_folder, caplog):
    with caplog.at_level(logging.WARNING):
        upstream = load(transformers_folder(family))
    wavs = utterances(16000, 9600, 4321, 12345)
    states = states_of(upstream, wavs)
    assert len(states) == LAYERS + 1
    assert states[0].shape == (4, own_frames(family, 16000), WIDTH)
    assert upstream.get_downsample_rates("hidden_states") == RATES[family]
    assert difference(family, states, transformers_folder(family), wavs) < 1e-4
    assert not caplog.text


@pytest.mark.parametrize("family", ["hubert_base", "wavlm_base", "data2vec"])
def test_transformers_lets_padding_in(family, transformers_folder):
    """What the repairs are for; a mask does not help."""
    wavs = utterances(16000, 9600)
    theirs = transformers_own(transformers_folder(family), wavs, padding=True, return_attention_mask=True)
    assert difference(family, theirs, transformers_folder(family), wavs) > 0.01


@pytest.mark.parametrize("tied", [False, True])
def test_the_last_state_of_a_pre_norm_model(tied, transformers_folder, tmp_path):
    folder = shutil.copytree(transformers_folder("hubert_large"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_last_hidden_states": tied, "return_dict": False}))
    upstream = load(folder)
    wavs = utterances(9600)
    norm = upstream.model.encoder.layer_norm
    before = (states_of(upstream, wavs)[-1] - norm.bias) / norm.weight  # of mean 0 if it is the norm's output
    assert bool((before.mean(-1).abs() < 1e-4).all()) is tied


@pytest.mark.parametrize("family", NOT_PROMISED)
def test_what_depends_on_padding_says_so(family, transformers_folder, caplog):
    wavs = utterances(16000, 9600, 4321)
    with caplog.at_level(logging.WARNING, LOGGER):
        padded = load(transformers_folder(family))
    (record,) = caplog.records
    assert "--upstream_unpadded" in record.message
    assert str(transformers_folder(family)) in record.message
    assert padded.get_downsample_rates("hidden_states") == RATES[family]
    assert difference(family, states_of(padded, wavs), transformers_folder(family), wavs) > 1e-3
    caplog.clear()
    alone = load(transformers_folder(family), unpadded=True)
    assert not caplog.records
    states = states_of(alone, wavs)
    assert difference(family, states, transformers_folder(family), wavs) < 1e-4
    # where an utterance ends, nothing follows
    assert all(state[2, own_frames(family, 4321) :].abs().max() == 0 for state in states)


def test_what_cannot_be_repaired_is_transformers_own_batch(transformers_folder):
    wavs = utterances(16000, 9600, 4321)
    theirs = transformers_own(transformers_folder("conformer"), wavs, padding=True)
    for mine, expected in zip(states_of(load(transformers_folder("conformer")), wavs), theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["hubert_base", "w2v_bert", "whisper"])
def test_unpadded_runs_one_at_a_time(family, transformers_folder):
    wavs = utterances(16000, 9600, 4321)
    upstream = load(transformers_folder(family), unpadded=True)
    seen = []
    upstream.model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(len(args[0])), with_kwargs=True)
    states = states_of(upstream, wavs)
    assert seen == [1, 1, 1]
    assert difference(family, states, transformers_folder(family), wavs) < 1e-4


@pytest.mark.parametrize("normalize", [True, False])
def test_waveforms_are_the_extractors(normalize):
    extractor = hf.Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=True)
    wavs = [wav + 0.2 for wav in utterances(800, 500, 650)]
    expected = extractor([wav.numpy() for wav in wavs], padding=True, sampling_rate=16000, return_tensors="pt")
    inputs, mask, samples = Waveforms(normalize, least=400)(wavs)
    torch.testing.assert_close(inputs, expected["input_values"], atol=1e-5, rtol=0)
    assert torch.equal(mask, expected["attention_mask"].long())
    assert samples == [800, 500, 650]


@pytest.mark.parametrize("family", ["hubert_base", "w2v_bert", "whisper"])
def test_autocast_leaves_the_inputs_alone(family, transformers_folder):
    upstream = load(transformers_folder(family))
    seen = []
    upstream.model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(args[0]), with_kwargs=True)
    wavs = utterances(16000, 9600)
    expected = states_of(upstream, wavs)
    with torch.autocast("cpu", torch.bfloat16):
        states = states_of(upstream, wavs)
    assert torch.equal(seen[0], seen[1])
    assert seen[1].dtype == torch.float32
    assert 0 < (states[-1].float() - expected[-1]).abs().max() < 1


def chirp(samples):
    """Loud and of one frequency at a time, so that most mel bins hold next to nothing."""
    time = torch.arange(samples, dtype=torch.float64)
    return torch.sin(1.5 * time.square() / samples).float() * 0.9


def test_filter_banks_are_the_extractors():
    extractor = hf.SeamlessM4TFeatureExtractor(padding_value=1)
    wavs = [*utterances(16000, 8159, 8160), chirp(7000), torch.zeros(6000)]
    expected = extractor([wav.numpy() for wav in wavs], sampling_rate=16000, return_tensors="pt")
    inputs, mask, _ = FilterBanks(extractor)(wavs)
    assert torch.equal(mask, expected["attention_mask"].long())
    assert mask.sum(1).tolist() == [49, 24, 24, 21, 18]
    for row, own in enumerate(mask.sum(1).tolist()):
        torch.testing.assert_close(inputs[row, :own], expected["input_features"][row, :own], atol=1e-4, rtol=0)


def test_log_mels_are_the_extractors():
    extractor = hf.WhisperFeatureExtractor(chunk_length=2)
    wavs = [*utterances(32000, 8159), chirp(7000), torch.zeros(6000)]
    windows = torch.stack([nn.functional.pad(wav, (0, 32000 - len(wav))) for wav in wavs])
    expected = extractor([wav.numpy() for wav in wavs], sampling_rate=16000, return_tensors="pt")["input_features"]
    torch.testing.assert_close(LogMels(extractor)(windows), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_utterances_of_less_than_a_frame(family, transformers_folder):
    upstream = load(transformers_folder(family))
    long, short = utterances(16000, 100)
    states = states_of(upstream, [long, short[:1], short])
    assert all(state.isfinite().all() for state in states)
    own = states_of(upstream, [short])
    assert own[0].size(1) == 1
    if family in PROMISED:
        torch.testing.assert_close(states[-1][2, :1], own[-1][0], atol=1e-4, rtol=0)


def test_silence_follows_an_utterance_of_less_than_a_frame(transformers_folder):
    (short,) = utterances(100)
    upstream = load(transformers_folder("wavlm_base"))  # its extractor does not normalise
    longer = nn.functional.pad(short, (0, 300))
    assert torch.equal(states_of(upstream, [short])[-1], states_of(upstream, [longer])[-1])


@pytest.mark.parametrize("wav", [torch.zeros(0), torch.zeros(1, 16000)])
@pytest.mark.parametrize("family", ["hubert_base", "whisper"])
def test_what_is_no_utterance_is_named(wav, family, transformers_folder):
    upstream = load(transformers_folder(family))
    with pytest.raises(DataError, match=rf"{tuple(wav.shape)}".replace("(", r"\(").replace(")", r"\)")):
        upstream([torch.zeros(16000), wav])


def test_whisper_beyond_its_window(tmp_path):
    write_whisper(tmp_path, chunk_length=1, max_source_positions=50)
    upstream = load(tmp_path)
    wavs = utterances(16000 * 2 + 4001, 16000, 500)
    states = states_of(upstream, wavs)
    alone = [transformers_own(tmp_path, [part]) for part in (*wavs[0].split(16000), wavs[1], wavs[2])]
    assert states[0].shape == (3, 50 + 50 + 13, WIDTH)
    for layer, state in enumerate(states):
        parts = [own[layer][0] for own in alone]
        torch.testing.assert_close(state[0], torch.cat([*parts[:2], parts[2][:13]]), atol=1e-4, rtol=0)
        torch.testing.assert_close(state[1, :50], parts[3], atol=1e-4, rtol=0)
        torch.testing.assert_close(state[2, :2], parts[4][:2], atol=1e-4, rtol=0)
        assert state[1, 50:].abs().max() == 0
        assert state[2, 2:].abs().max() == 0


@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_feeds_the_interfaces(family, transformers_folder):
    upstream = load(transformers_folder(family))
    wavs = utterances(16000, 9600, 4321)
    for interface in ("weighted_sum", "hconv"):
        featurizer = InterfaceFeaturizer(upstream, upstream_device="cpu", interface=interface)
        assert featurizer.downsample_rate == RATES[family]
        features = featurizer(wavs, upstream(wavs))
        # S3PRL's rule, by which no upstream gives more frames than it has
        longest = own_frames(family, 16000)
        lengths = [min(round(len(wav) / RATES[family]), longest) for wav in wavs]
        assert [tuple(feature.shape) for feature in features] == [(n, featurizer.output_dim) for n in lengths]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_fine_tuning(family, transformers_folder):
    upstream = load(transformers_folder(family))
    assert not upstream.training
    upstream.train()
    for module in upstream.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    wavs = utterances(16000, 9600)
    states = upstream(wavs)["hidden_states"]
    if family != "conformer":  # batch norm
        expected = states_of(upstream.eval(), wavs)
        # all layers, none masked, whatever the config says for pre-training
        for state, other in zip(states, expected, strict=True):
            torch.testing.assert_close(state, other, atol=1e-5, rtol=0)
    sum(state.square().mean() for state in states).backward()
    without = {name for name, parameter in upstream.model.named_parameters() if parameter.grad is None}
    assert all(name.startswith(NO_GRADIENT) for name in without)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("unpadded", [False, True])
def test_nothing_leaves_the_device(family, unpadded, transformers_folder, monkeypatch):
    """The meta device has no values that could leave it, and does not mix with others."""
    upstream = load(transformers_folder(family), unpadded=unpadded).to("meta")
    # one truth value does: whether a mask masks anything, which transformers asks
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: False)
    for mode in (upstream.eval(), upstream.train()):
        for state in mode([wav.to("meta") for wav in utterances(9600, 4321)])["hidden_states"]:
            assert state.device.type == "meta"
            assert state.shape == (2, own_frames(family, 9600), WIDTH)


def on_a_device(family_folders, wavs, device):
    """Hidden states of each family, moved back to the CPU."""
    upstreams = [load(folder).to(device) for folder in family_folders]
    states = [states_of(upstream, [wav.to(device) for wav in wavs]) for upstream in upstreams]
    return [[state.cpu() for state in one] for one in states]


def test_on_a_second_device(transformers_folder):
    folders, wavs = [transformers_folder(family) for family in FAMILIES], utterances(16000, 9600, 4321)
    there, here = run_with_it(on_a_device, folders, wavs, DEVICE), on_a_device(folders, wavs, "cpu")
    torch.testing.assert_close(there, here, atol=1e-5, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and PyTorch sees none here")
@pytest.mark.parametrize("family", list(FAMILIES))
def test_on_the_gpu(family, transformers_folder):
    """The CPU's values within 1e-3, and nothing but single numbers comes back from the device."""
    wavs = utterances(16000, 9600, 4321)
    expected = states_of(load(transformers_folder(family)), wavs)
    upstream = load(transformers_folder(family)).cuda()
    on_device = [wav.cuda() for wav in wavs]
    states_of(upstream, on_device)
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profile:
        states = states_of(upstream, on_device)
        torch.cuda.synchronize()
    assert {state.device.type for state in states} == {"cuda"}
    back = [event for event in profile.events() if "DtoH" in event.name]
    assert len(back) <= 1  # transformers asks whether a mask masks anything
    for state, other in zip(states, expected, strict=True):
        for row, wav in enumerate(wavs):
            own = own_frames(family, len(wav))
            torch.testing.assert_close(state[row, :own].cpu(), other[row, :own], atol=1e-3, rtol=0)
