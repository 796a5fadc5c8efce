"""A trained model for use: predictions and features of audio that is in no corpus."""

import random

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

from s3prl_interfaces import load_experiment
from s3prl_interfaces.cli import main
from s3prl_interfaces.errors import CheckpointError, ConfigError, DataError
from tests.runner.toys import toy_run


@pytest.fixture
def trained(tmp_path):
    return toy_run(tmp_path)


@pytest.fixture
def wavs():
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(samples, generator=generator) for samples in (3200, 1600, 3520)]


def test_features_and_predictions_are_the_formula(trained, wavs):
    """Upstream, interface, head, each utterance by itself, with the checkpoint's weights and without dropout."""
    model = load_experiment(trained / "dev-best.ckpt", device="cpu")
    states = torch.load(trained / "dev-best.ckpt", weights_only=True)
    shares = states["Featurizer"]["interface.weights"].softmax(0)
    assert shares.std() > 0.001  # it was trained
    features, answers = model.features(wavs), model.predict(wavs)
    for wav, feature, answer in zip(wavs, features, answers, strict=True):
        layers = model.upstream([wav])["hidden_states"]
        expected = sum(share * layer[0] for share, layer in zip(shares, layers, strict=True))
        assert_close(feature, expected.detach(), atol=1e-5, rtol=1e-5)
        assert feature.shape == (len(wav) // 320, model.featurizer.output_dim)
        logits = feature.mean(0) @ states["Downstream"]["linear.weight"].T + states["Downstream"]["linear.bias"]
        assert answer == {"class": int(logits.argmax())}
    assert not features[0].requires_grad


def test_batches_give_what_utterances_alone_give(trained, wavs):
    model = load_experiment(trained, device="cpu")  # the newest states-*.ckpt
    for one, several in zip(model.features(wavs), model.features(wavs, batch_size=2), strict=True):
        assert_close(one, several)
    assert model.predict(wavs) == model.predict(wavs, batch_size=5)
    assert model.predict([]) == model.features([]) == []
    with pytest.raises(ConfigError, match="batch size must be 1 or more, not 0"):
        model.features(wavs, batch_size=0)


def test_files_and_samples_are_the_same(trained, wavs, tmp_path):
    model = load_experiment(trained / "dev-best.ckpt", device="cpu")
    path = tmp_path / "a.wav"
    soundfile.write(path, wavs[0].numpy(), 16000, subtype="FLOAT")
    for given in (path, str(path), wavs[0].numpy(), wavs[0].double()):
        assert_close(model.features([given])[0], model.features(wavs[:1])[0])


def test_the_head_is_told_what_the_checkpoint_says_of_the_labels(trained):
    assert load_experiment(trained / "dev-best.ckpt", device="cpu").head.known == ["quiet", "loud"]


def test_nothing_is_written_and_no_random_state_is_touched(trained, wavs):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    load_experiment(trained / "dev-best.ckpt", device="cpu").predict(wavs)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_what_is_no_utterance(trained, monkeypatch):
    model = load_experiment(trained / "dev-best.ckpt", device="cpu")
    for wav in (np.zeros((2, 1600)), np.zeros(399), torch.zeros(0)):
        with pytest.raises(DataError, match=r"must be \(samples,\) floats at 16 kHz.*has the shape"):
            model.features([wav])
    with pytest.raises(DataError, match=r"nothing\.wav cannot be read: it does not exist"):
        model.predict(["nothing.wav"])
    monkeypatch.delattr(type(model.head), "predict")
    with pytest.raises(ConfigError, match="its DownstreamExpert has no `predict`"):
        model.predict([np.zeros(1600)])


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "a.ckpt").write_text("nothing")
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        load_experiment(tmp_path / "a.ckpt")


def test_the_features_command(trained, wavs, tmp_path, capsys):
    for name, wav in zip(("a.wav", "more/b.flac", "more/b.wav"), wavs, strict=True):
        (tmp_path / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "audio" / name, wav.numpy() / 8, 16000)
    out = tmp_path / "out"
    command = ["features", str(trained / "dev-best.ckpt"), str(tmp_path / "audio"), str(out), "--device", "cpu"]
    assert main(command) == 0
    model = load_experiment(trained / "dev-best.ckpt", device="cpu")
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {"a.wav.npy", "more/b.flac.npy", "more/b.wav.npy"}
    for name in written:
        saved = np.load(out / name)
        assert saved.dtype == np.float32
        (expected,) = model.features([tmp_path / "audio" / name.removesuffix(".npy")])
        assert np.array_equal(saved, expected.numpy())
    assert main([*command[:2], str(tmp_path / "audio/a.wav"), str(tmp_path / "one"), "--device", "cpu"]) == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["a.wav.npy"]
    (tmp_path / "file").touch()
    assert main([*command[:3], str(tmp_path / "file"), "--device", "cpu"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main([*command[:2], str(tmp_path / "nowhere"), str(out)]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err
