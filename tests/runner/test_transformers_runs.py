"""Runs on speech encoders of transformers."""

from s3prl_interfaces import load_experiment
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments, experiment
from s3prl_interfaces.runner.outcome import _upstream_name
from s3prl_interfaces.upstream import load_upstream
from tests.runner.toys import toy_run
from tests.transformers_models import load, utterances


def test_a_run_keeps_how_its_upstream_was_run(transformers_folder, tmp_path, monkeypatch):
    built = []

    def remember(*args, **kwargs):
        built.append(load_upstream(*args, **kwargs))
        return built[-1]

    monkeypatch.setattr(experiment, "load_upstream", remember)
    name = f"hf:{transformers_folder('hubert_base')}"
    folder = toy_run(tmp_path, upstream=name, upstream_unpadded=True, interface=["hconv"])
    assert read_result(folder / "results.json").upstream == f"{name} (unpadded)"
    toy_run(tmp_path, mode="evaluate", past_exp=str(folder), upstream=None)
    load_experiment(folder)
    assert [upstream.unpadded for upstream in built] == [True, True, True]
    wavs = utterances(9600, 4321)
    features = load_experiment(folder).features(wavs, batch_size=2)
    assert [len(feature) for feature in features] == [29, 14]


def test_what_decides_its_output_is_in_the_upstreams_name():
    arguments = RunArguments(mode="train", upstream="hf:owner/name", upstream_revision="abc", upstream_unpadded=True)
    assert _upstream_name(arguments, None) == "hf:owner/name (abc, unpadded)"


def test_fine_tuning_in_a_run(transformers_folder, tmp_path):
    folder = toy_run(tmp_path, upstream=f"hf:{transformers_folder('hubert_base')}", upstream_trainable=True)
    result = read_result(folder / "results.json")
    expected = sum(parameter.numel() for parameter in load(transformers_folder("hubert_base")).parameters())
    assert result.parameters["upstream_trainable"] == expected
