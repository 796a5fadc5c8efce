"""``install()`` in S3PRL's own ``Runner``, driven by S3PRL's own command line."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from downstream_tasks.registry import TASKS, Task
from s3prl_interfaces import install, plugin
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.featurizer import InterfaceFeaturizer
from s3prl_interfaces.mini_superb import make_mini_superb
from s3prl_interfaces.runner import RunArguments, run
from s3prl_interfaces.s3prl_compat import import_s3prl

# S3PRL's
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.autocast:FutureWarning")

RATE, LAYERS, WIDTH = 320, 4, 6
CONFIGS = Path(__file__).parent.parent / "configs"
# S3PRL's downstream/example/config.yaml, shrunk; S3PRL's package does not contain it.
EXAMPLE = {
    "runner": {
        "total_steps": 4,
        "gradient_clipping": 1,
        "gradient_accumulate_steps": 2,
        "log_step": 1,
        "eval_step": 2,
        "save_step": 2,
        "max_keep": 1,
        "evaluate_ratio": 0.02,
        "eval_dataloaders": ["dev", "test"],
    },
    "optimizer": {"name": "AdamW", "lr": 1.0e-2},
    "downstream_expert": {
        "datarc": {"num_workers": 0, "train_batch_size": 2, "eval_batch_size": 2},
        "modelrc": {"input_dim": 8},
    },
}


class TinyUpstream(nn.Module):
    """Each layer a linear map of the samples of one frame."""

    def __init__(self, **_):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(RATE, WIDTH) for _ in range(LAYERS))

    def get_downsample_rates(self, key):
        return RATE

    def forward(self, wavs):
        wavs = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        frames = wavs[:, : wavs.size(1) // RATE * RATE].unflatten(1, (-1, RATE))
        return {"hidden_states": [layer(frames) for layer in self.layers]}


@pytest.fixture
def s3prl(monkeypatch):
    """S3PRL with a small upstream and small utterances; what ``install`` changes is put back afterwards."""
    runner = import_s3prl("s3prl.downstream.runner").Runner
    monkeypatch.setattr(import_s3prl("s3prl.hub"), "tiny", TinyUpstream, raising=False)
    example = import_s3prl("s3prl.downstream.example.dataset")
    monkeypatch.setattr(example, "EXAMPLE_WAV_MIN_SEC", 1)
    monkeypatch.setattr(example, "EXAMPLE_WAV_MAX_SEC", 1)
    # S3PRL's evaluate() fails for `--device cpu` where there is a GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    names = [f"s3prl.downstream.{task.name}.expert" for task in TASKS]
    before = {name: sys.modules.get(name) for name in names}
    original = runner._get_featurizer
    yield runner
    runner._get_featurizer = original
    for name in names:
        sys.modules.pop(name, None)
        if before[name] is not None:
            sys.modules[name] = before[name]


@pytest.fixture
def run_downstream(s3prl, tmp_path, monkeypatch):
    """S3PRL's run_downstream.py up to the ``Runner`` that it builds."""

    def build(config, *flags, task="example"):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        line = ["-m", "train", "-u", "tiny", "-d", task, "-c", path, "-p", tmp_path / "run", "--device", "cpu", *flags]
        monkeypatch.setattr(sys, "argv", ["run_downstream.py", *map(str, line)])
        args, config, _ = import_s3prl("s3prl.run_downstream").get_downstream_args()
        torch.manual_seed(args.seed)
        return s3prl(args, config)

    return build


def with_interface(block):
    return {**EXAMPLE, "interface": block}


def test_s3prls_runner_trains_the_interface_that_its_config_names(run_downstream, tmp_path):
    install()
    runner = run_downstream(with_interface({"name": "hconv", "kernel_size": 3}))
    featurizer = runner.featurizer.model
    assert isinstance(featurizer, InterfaceFeaturizer)
    assert featurizer.interface.convs[0].kernel_size == (3,)
    assert runner.downstream.model.connector.in_features == featurizer.output_dim == 6
    before = {name: parameter.clone() for name, parameter in featurizer.named_parameters()}
    upstream = {name: parameter.clone() for name, parameter in runner.upstream.model.named_parameters()}
    runner.train()
    assert list(before) == ["interface.convs.0.weight", "interface.convs.0.bias"]
    assert not any(torch.equal(before[name], parameter) for name, parameter in featurizer.named_parameters())
    assert all(torch.equal(upstream[name], p) for name, p in runner.upstream.model.named_parameters())

    assert [path.name for path in (tmp_path / "run").glob("states-*.ckpt")] == ["states-4.ckpt"]
    # S3PRL pickles its arguments
    saved = torch.load(tmp_path / "run" / "states-4.ckpt", weights_only=False)["Featurizer"]
    assert list(saved) == list(before)
    assert all(torch.equal(saved[name], parameter) for name, parameter in featurizer.named_parameters())


def test_without_an_interface_block_s3prl_does_what_it_always_did(run_downstream):
    install()
    runner = run_downstream(EXAMPLE)
    assert type(runner.featurizer.model) is import_s3prl("s3prl.upstream.interfaces").Featurizer


def test_before_install_the_block_means_nothing(run_downstream):
    runner = run_downstream(with_interface("hconv"))
    assert type(runner.featurizer.model) is import_s3prl("s3prl.upstream.interfaces").Featurizer


def test_installing_twice_is_harmless(s3prl, run_downstream):
    original = s3prl._get_featurizer
    install()
    once = s3prl._get_featurizer
    install()
    assert s3prl._get_featurizer is once is not original
    assert isinstance(run_downstream(with_interface("hconv")).featurizer.model, InterfaceFeaturizer)


def test_s3prls_flags_reach_the_featurizer(run_downstream):
    install()
    flags = ("--upstream_feature_normalize", "-s", "hidden_states")
    featurizer = run_downstream(with_interface("hconv"), *flags).featurizer.model
    assert featurizer.interface.normalize
    featurizer = run_downstream(with_interface("weighted_sum"), "-l", "2").featurizer.model
    assert (featurizer.layer_selection, featurizer.interface) == (2, None)


def test_an_unknown_interface_is_an_error(run_downstream):
    install()
    with pytest.raises(ConfigError, match="Did you mean 'hconv'"):
        run_downstream(with_interface("hcnov"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("mini"), corpora=["fluent_speech_commands"], scale=0.03)
    return folder


def test_our_task_runs_in_s3prls_runner(run_downstream, corpus, tmp_path):
    config = yaml.safe_load((CONFIGS / "ic.yaml").read_text())
    config["runner"].update(total_steps=3, eval_step=3, save_step=3, log_step=1)
    config["optimizer"]["lr"] = 1e-2
    config["interface"] = "hconv"
    config["downstream_expert"]["datarc"].update(file_path=str(corpus), num_workers=0, train_batch_size=16)
    install()
    runner = run_downstream(config, task="ic")
    assert type(runner.downstream.model).__module__ == "downstream_tasks.ic.expert"
    before = runner.downstream.model.projector.weight.clone()
    runner.train()
    assert not torch.equal(before, runner.downstream.model.projector.weight)
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"states-3.ckpt", "dev_predict.csv", "dev_truth.csv", "test_predict.csv", "test_truth.csv"} <= written
    assert len((tmp_path / "run" / "test_predict.csv").read_text().splitlines()) == 10


def test_s3prls_own_tasks_stay_s3prls(s3prl, monkeypatch):
    monkeypatch.setattr(plugin, "TASKS", (*TASKS, Task("example", "example", "a name that S3PRL has given away")))
    install()
    for name in ("example", "fluent_commands"):
        module = importlib.import_module(f"s3prl.downstream.{name}.expert")
        assert module.DownstreamExpert.__module__ == f"s3prl.downstream.{name}.expert"


def test_a_checkpoint_of_s3prls_is_scored_as_s3prl_scores_it(run_downstream, corpus, tmp_path, monkeypatch):
    """S3PRL trains its own fluent_commands and scores it; `-m evaluate -e` of ours finds the same."""
    config = yaml.safe_load((CONFIGS / "ic.yaml").read_text())
    del config["interface"]
    config["runner"].update(total_steps=30, eval_step=30, save_step=30, eval_dataloaders=["test"])
    config["optimizer"]["lr"] = 3e-2
    config["downstream_expert"]["datarc"].update(file_path=str(corpus), num_workers=0, train_batch_size=8)
    runner = run_downstream(config, "--upstream_feature_normalize", task="fluent_commands")
    # The upstream is not in the checkpoint: both sides have to build the same one.
    state = runner.upstream.model.state_dict()

    class SameUpstream(TinyUpstream):
        def __init__(self, **_):
            super().__init__()
            self.load_state_dict(state)

    monkeypatch.setattr(import_s3prl("s3prl.hub"), "tiny", lambda **_: SameUpstream())
    runner.train()
    theirs = (tmp_path / "run" / "log.log").read_text().split("test at step 30: ")[1].split()[0]

    run(RunArguments(mode="evaluate", past_exp=str(tmp_path / "run"), evaluate_split="test", device="cpu"))
    folder = tmp_path / "run" / "evaluate" / "states-30-test"
    assert json.loads((folder / "metrics.json").read_text())["metrics"]["acc"] == pytest.approx(float(theirs), abs=1e-6)
    predicted = (folder / "test_predict.csv").read_text()
    assert predicted == (tmp_path / "run" / "test_predict.csv").read_text()
    # Not all the same answer, so that equality says something.
    assert len({line.split(",", 1)[1] for line in predicted.splitlines()}) > 1
