"""Runs whose hidden states are kept."""

import json
import random
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from s3prl_interfaces import load_experiment
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner.batches import run_upstream
from s3prl_interfaces.runner.layers import look_at_layers
from tests.runner.test_runs import assert_same, weights
from tests.runner.toys import Upstream, toy_run


@pytest.fixture
def passes(monkeypatch):
    """The utterances that went through the toy upstream, but the second of sound from which its sizes are read."""
    counted = []
    forward = Upstream.forward

    def counting(self, wavs):
        counted.extend(wav for wav in wavs if len(wav) != 16000)
        return forward(self, wavs)

    monkeypatch.setattr(Upstream, "forward", counting)
    return counted


def changes(place, crop=False, **cache):
    return {
        "runner": {"feature_cache": {"dir": str(place), **cache}},
        "downstream_expert": {"crop": crop},
    }


@pytest.mark.parametrize("interface", [["hconv"], ["pca_concat"]])
def test_training_is_that_of_unpadded_utterances(tmp_path, transformers_folder, interface):
    """Bit for bit, the first time and when all is read; of a model that padding would change at random."""
    arguments = {"upstream": f"hf:{transformers_folder('hubert_base')}", "interface": interface}
    plain = toy_run(tmp_path / "plain", {"downstream_expert": {"crop": False}}, upstream_unpadded=True, **arguments)
    for name in ("first", "second"):
        folder = toy_run(tmp_path / name, changes(tmp_path / "cache"), **arguments)
        assert_same(weights(folder), weights(plain))
        for file in ("losses.txt", "dev_predict.txt", "test_predict.txt"):
            assert (folder / file).read_text() == (plain / file).read_text()
        one, other = (read_result(place / "results.json") for place in (folder, plain))
        assert one.metrics == other.metrics
        assert one.upstream == other.upstream


def test_every_utterance_passes_once(tmp_path, passes):
    toy_run(tmp_path / "one", changes(tmp_path / "cache"), interface=["weighted_sum", "hconv"])
    assert len(passes) == 22 + 7 + 9
    del passes[:]
    folder = toy_run(tmp_path / "another", changes(tmp_path / "cache"), interface=["cls_pooling"], seed=7)
    assert len(passes) == 0
    toy_run(tmp_path / "another", mode="evaluate", past_exp=str(folder), upstream=None, evaluate_split="test")
    look_at_layers([folder])
    assert len(passes) == 0
    model = load_experiment(folder)
    for _ in range(2):  # what a trained model is used on is not kept
        model.features([torch.ones(3200)])
    assert len(passes) == 2
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
    shutil.rmtree(tmp_path / "cache")
    (folder / "layers.json").unlink()
    look_at_layers([folder])
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1


@pytest.fixture
def drawing(monkeypatch):
    """An upstream that draws numbers for nothing, as fairseq's do in eval mode too."""
    forward = Upstream.forward

    def drawing(self, wavs):
        torch.rand(()), np.random.random(), random.random()
        return forward(self, wavs)

    monkeypatch.setattr(Upstream, "forward", drawing)


@pytest.mark.usefixtures("drawing")
def test_crops_are_right(tmp_path, passes, monkeypatch):
    """The toy task's, from PyTorch's own generator and not marked: each is another utterance."""
    cropped = toy_run(tmp_path / "cached", changes(tmp_path / "cache", crop=True))
    assert len(passes) > 2 * 22
    forward = Upstream.forward

    def unpadded(self, wavs):
        layers = zip(*(forward(self, [wav])["hidden_states"] for wav in wavs), strict=True)
        padded = [nn.utils.rnn.pad_sequence([state[0] for state in layer], batch_first=True) for layer in layers]
        return {"hidden_states": padded}

    monkeypatch.setattr(Upstream, "forward", unpadded)
    assert_same(weights(cropped), weights(toy_run(tmp_path / "plain")))


@pytest.mark.usefixtures("drawing")
@pytest.mark.parametrize("training", [False, True])
def test_what_an_upstream_draws_counts_in_training_only(training):
    states = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
    run_upstream(Upstream().train(training), [torch.ones(640)])
    assert torch.equal(torch.get_rng_state(), states[0]) != training
    assert (np.random.get_state()[2] == states[1]) != training
    assert (random.getstate() == states[2]) != training


def test_other_selections_are_kept_apart(tmp_path):
    for name, arguments in {
        "all": {},
        "one": {"upstream_layer_selection": 1},
        "half": {},
        "same": {"upstream_layer_selection": 1},
    }.items():
        dtype = "bfloat16" if name == "half" else "float32"
        toy_run(tmp_path / name, changes(tmp_path / "cache", dtype=dtype), **arguments)
    assert len(list((tmp_path / "cache").iterdir())) == 3
    results = {name: read_result(tmp_path / name / "run" / "results.json") for name in ("all", "half")}
    assert results["all"].upstream.endswith("(unpadded)")
    assert results["half"].upstream.endswith("(unpadded, bfloat16)")


def test_one_layer_is_that_of_a_run_without_cache(tmp_path, transformers_folder):
    arguments = {
        "upstream": f"hf:{transformers_folder('hubert_base')}",
        "upstream_layer_selection": 1,
    }
    plain = toy_run(tmp_path / "plain", {"downstream_expert": {"crop": False}}, upstream_unpadded=True, **arguments)
    assert_same(weights(toy_run(tmp_path / "one", changes(tmp_path / "cache"), **arguments)), weights(plain))


def test_a_run_that_fails_keeps_what_it_has_computed(tmp_path, passes):
    class StopError(Exception):
        pass

    from tests.runner.toys import DownstreamExpert

    forward = DownstreamExpert.forward

    def failing(self, split, *rest, **kwargs):
        if split == "dev":
            raise StopError
        return forward(self, split, *rest, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DownstreamExpert, "forward", failing)
        with pytest.raises(StopError):
            toy_run(tmp_path / "one", changes(tmp_path / "cache"))
    assert len(passes) > 4
    toy_run(tmp_path / "two", changes(tmp_path / "cache"))
    assert len(passes) == 22 + 7 + 9


def test_fine_tuning_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"`runner.feature_cache` keeps what a frozen upstream says"):
        toy_run(tmp_path, changes(tmp_path / "cache"), upstream_trainable=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ({"dtype": "int8"}, "must be one of float32, bfloat16, float16"),
        ({"max_bytes": 0}, "`runner.feature_cache.max_bytes` must be above 0"),
        ({"folder": "x"}, "folder"),
    ],
)
def test_refuses(tmp_path, cache, message):
    with pytest.raises(ConfigError, match=message):
        toy_run(tmp_path, changes(tmp_path / "cache", **cache))
    with pytest.raises(ConfigError, match=r"`runner\.feature_cache\.dir` is missing"):
        toy_run(tmp_path, {"runner": {"feature_cache": {}}})


def test_a_folder_that_cannot_be_made(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    folder = toy_run(tmp_path, changes(tmp_path / "cache"))
    assert json.loads((folder / "results.json").read_text())["task"]
    assert "No more hidden states are stored" in caplog.text


def test_override(tmp_path):
    override = f"config.runner.feature_cache.dir={tmp_path / 'cache'},,config.runner.feature_cache.dtype=bfloat16"
    toy_run(tmp_path, override=override)
    (shard,) = (tmp_path / "cache").rglob("*.safetensors")
    with safe_open(shard, framework="pt") as content:
        assert {content.get_tensor(key).dtype for key in content.keys()} == {torch.bfloat16}  # noqa: SIM118
