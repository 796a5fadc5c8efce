"""S3PRL's own loaders, on checkpoints in S3PRL's own formats, feed the interfaces."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from s3prl_interfaces.errors import UpstreamError
from s3prl_interfaces.feature_cache import CachedUpstream, Store, fingerprint
from s3prl_interfaces.interfaces import build_interface
from s3prl_interfaces.upstream import load_upstream
from tests import upstream_checkpoints as write
from tests.second_device import DEVICE, run_with_it

# hub entry -> what writes its checkpoint, where the loaded upstream keeps that model, samples a frame
FORMATS: dict[str, tuple[Callable[[Path], nn.Module], str, int]] = {
    "hubert_local": (write.hubert, "model", 320),
    "wavlm_local": (write.wavlm, "model", 320),
    "wav2vec2_local": (write.wav2vec2, "model", 320),
    "xlsr": (lambda path: write.wav2vec2(path, xlsr=True), "model", 320),
    "data2vec_local": (write.data2vec, "model", 320),
    "mockingjay_local": (write.mockingjay, "transformer.model", 160),
    "tera_local": (write.tera, "transformer.model", 160),
    "hf_hubert_custom": (lambda path: write.hf(path, "Hubert"), "model", 320),
    "hf_wav2vec2_custom": (lambda path: write.hf(path, "Wav2Vec2"), "model", 320),
}


def load(fmt: str, path: Path) -> nn.Module:
    return load_upstream("wav2vec2_local" if fmt == "xlsr" else fmt, ckpt=str(path)).eval()


def hidden_states(upstream: nn.Module, *seconds: float) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    wavs = [torch.randn(int(16000 * s), generator=generator) * 0.1 for s in seconds]
    with torch.no_grad():
        return list(upstream(wavs)["hidden_states"])


@pytest.mark.parametrize("fmt", FORMATS)
def test_checkpoint_feeds_the_interfaces(fmt, tmp_path):
    writer, where, rate = FORMATS[fmt]
    torch.manual_seed(1)
    source = writer(tmp_path / "first.pt")
    upstream = load(fmt, tmp_path / "first.pt")

    # every weight of the file is in the upstream, none is random
    loaded = dict(upstream.get_submodule(where).named_parameters())
    expected = dict(source.named_parameters())
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in loaded)

    states = hidden_states(upstream, 1.0, 0.6)
    layers = write.LAYERS + 1  # the transformer's input, and every block's output
    assert len(states) == layers
    assert {state.shape for state in states} == {states[0].shape}
    batch, time, width = states[0].shape
    assert (batch, width) == (2, write.WIDTH)
    assert upstream.get_downsample_rates("hidden_states") == rate
    assert abs(time - 16000 / rate) <= 2

    for name in ("weighted_sum", "hconv"):
        interface = build_interface(name, num_layers=layers, feature_dim=width)
        features = interface(states)
        assert features.shape == (batch, time, interface.output_dim)
        assert torch.isfinite(features).all()

    # another file gives other features, the same file the same ones
    writer(tmp_path / "second.pt")
    again, other = (hidden_states(load(fmt, tmp_path / name), 1.0, 0.6) for name in ("first.pt", "second.pt"))
    torch.testing.assert_close(again, states, rtol=0, atol=0)
    assert not torch.allclose(other[-1], states[-1], atol=1e-3)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("entry", ["mockingjay_local", "hubert_local", "wavlm_local"])
def test_checkpoint_with_code_is_refused(entry, zipped, tmp_path):
    proof = tmp_path / "executed"
    write.malicious(tmp_path / "evil.pt", proof, zipped)
    with pytest.raises(UpstreamError, match=rf"{entry}.*holds \w+\.system, which may run code"):
        load_upstream(entry, ckpt=str(tmp_path / "evil.pt"))
    assert not proof.exists()
    # the file would have run its code
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert proof.exists()


def test_code_in_a_config_is_refused(tmp_path):
    proof = tmp_path / "executed"
    write.hubert(tmp_path / "evil.pt", conv_feature_layers=f"open({str(proof)!r}, 'w') or {write.CONV_LAYERS}")
    with pytest.raises(UpstreamError, match="not a plain list of layers"):
        load_upstream("hubert_local", ckpt=str(tmp_path / "evil.pt"))
    assert not proof.exists()


def test_damaged_and_foreign_checkpoints_are_named(tmp_path):
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"not a checkpoint")
    with pytest.raises(UpstreamError, match=rf"'wavlm_local'.*damaged.*-k {damaged}"):
        load_upstream("wavlm_local", ckpt=str(damaged))
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": torch.zeros(1)}, foreign)
    with pytest.raises(UpstreamError, match=rf"'hubert_local'.*task_cfg.*-k {foreign}"):
        load_upstream("hubert_local", ckpt=str(foreign))


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UpstreamError, match=r"'hubert_local'.*no checkpoint file .*nowhere\.pt.*-k"):
        load_upstream("hubert_local", ckpt=str(tmp_path / "nowhere.pt"))
    with pytest.raises(UpstreamError, match=r"'wav2vec2_local'.*with -k"):
        load_upstream("wav2vec2_local")


def test_fbank_needs_no_file():
    states = hidden_states(load_upstream("fbank").eval(), 1.0, 0.5)
    assert [state.shape for state in states] == [(2, 98, 240)]


@pytest.mark.parametrize("fmt", FORMATS)
def test_states_that_are_kept(fmt, tmp_path):
    """Two loads are one upstream to the cache, other weights another; what is kept is what one utterance gets."""
    writer, *_ = FORMATS[fmt]
    torch.manual_seed(1)
    writer(tmp_path / "first.pt")
    (tmp_path / "cache").mkdir()
    found, wav = [], torch.randn(9600, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        upstream = load(fmt, tmp_path / "first.pt")
        key = fingerprint(upstream, None)
        found.append(key)
        with torch.no_grad():
            expected = upstream([wav])["hidden_states"]
            assert fingerprint(upstream, None) == key  # also after it was used
        store = Store(tmp_path / "cache" / key, tmp_path)
        kept = CachedUpstream(upstream, "hidden_states", None, torch.float32, store)([wav])["hidden_states"]
        store.flush()
        assert all(map(torch.equal, kept, expected))
        assert len(kept) == len(expected)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
    writer(tmp_path / "first.pt")  # other random weights under the same name
    found.append(fingerprint(load(fmt, tmp_path / "first.pt"), None))
    assert found[0] == found[1] != found[2]


def on_a_device(paths, device):
    """Hidden states of each format, moved back to the CPU."""
    wavs = [torch.linspace(-1, 1, samples).sin() for samples in (16000, 9600)]
    found = []
    for fmt, path in paths.items():
        upstream = load(fmt, path).to(device)
        with torch.no_grad():
            states = upstream([wav.to(device) for wav in wavs])["hidden_states"]
        found.append([state.cpu() for state in states])
    return found


def test_on_a_second_device(tmp_path):
    paths = {fmt: tmp_path / f"{fmt}.pt" for fmt in FORMATS}
    for fmt, path in paths.items():
        FORMATS[fmt][0](path)
    torch.testing.assert_close(run_with_it(on_a_device, paths, DEVICE), on_a_device(paths, "cpu"), atol=1e-5, rtol=1e-4)
