"""What can be wrong with a sweep.yaml: one line with the file, the key and the remedy, before anything is run."""

# ruff: noqa: E501 (a table)

import re
from pathlib import Path

import pytest
import yaml

from s3prl_interfaces.sweep.plan import load_sweep
from tests.sweep.conftest import ROOT, SWEEP, UPSTREAM


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"task": ["ic"]}, "Unknown key in `sweep.yaml`: 'task'. Did you mean 'tasks'?"),
        ({"tasks": None}, "`sweep.yaml.tasks` is missing"),
        ({"tasks": "ic"}, "`sweep.yaml.tasks` must be a list, but is 'ic'."),
        ({"tasks": []}, "`sweep.yaml.tasks` is empty"),
        ({"tasks": ["toytask", "toytask"]}, "`sweep.yaml.tasks` names 'toytask' twice."),
        ({"tasks": ["toytask", "icc"]}, "sweep.yaml (tests.runner.toys:build, icc): Unknown task 'icc'. Did you mean 'ic'"),
        ({"tasks": ["ctc"], "config": None}, "name `-d pr` or `-d sf`"),
        ({"tasks": ["toytask"], "config": None}, "S3PRL's task `toytask` needs its config"),
        ({"name": None}, "sweep.yaml: where should the runs go? Give either `name` or `dir`."),
        ({"dir": "x"}, "Give either `name` or `dir`."),
        ({"upstreams": []}, "`sweep.yaml.upstreams` is empty"),
        ({"upstreams": [UPSTREAM, UPSTREAM]}, "`sweep.yaml.upstreams` names 'tests.runner.toys:build' twice."),
        ({"upstreams": [{"nam": "x"}]}, "`sweep.yaml.upstreams[0]` must be a name or a mapping with a `name`"),
        ({"upstreams": [{"name": UPSTREAM, "upstream_ckp": "x"}]}, "Unknown key in `sweep.yaml.upstreams[0]`: 'upstream_ckp'. Did you mean 'upstream_ckpt'?"),
        ({"upstreams": [UPSTREAM, "huber"]}, "sweep.yaml (huber, toytask): Unknown upstream 'huber'. Did you mean 'hubert'?"),
        ({"upstreams": ["nowhere.py:build"]}, "Upstream 'nowhere.py:build': there is no file nowhere.py."),
        ({"upstreams": [{"name": "hubert_local", "upstream_ckpt": "no.pt"}]}, "there is no checkpoint file no.pt"),
        ({"upstreams": None}, "Which upstream? Name one under `upstreams`"),
        ({"interfaces": ["weighted_sum", "hcon"]}, "Unknown interface 'hcon'. Did you mean 'hconv'?"),
        ({"interfaces": ["hconv:kernel=3"]}, "Unknown option of interface 'hconv': 'kernel'. Did you mean 'kernel_size'?"),
        ({"interfaces": [{"kernel_size": 3}]}, "`interface` must be a name or a mapping with a `name`"),
        ({"interfaces": [3]}, "`sweep.yaml.interfaces[0]` must be a name or a mapping with a `name`, but is 3."),
        ({"interfaces": ["hconv:kernel_size=3", {"name": "hconv", "kernel_size": 3}]}, "`sweep.yaml.interfaces` names 'hconv:kernel_size=3' twice."),
        ({"interfaces": [{"name": "hconv", "kernel_size": {"a": "b=1"}}]}, "cannot go through a command line"),
        ({"seeds": [1, 1]}, "`sweep.yaml.seeds` names 1 twice."),
        ({"seeds": [True]}, "`sweep.yaml.seeds[0]` must be of type int, but is True."),
        ({"seeds": [-1]}, "`sweep.yaml.seeds` must be from 0 to 2**32 - 1, but one is -1."),
        ({"config": ["nothing.yaml"]}, "nothing.yaml does not exist"),
        ({"config": ["{task}.yaml"]}, "toytask.yaml does not exist"),
        ({"flags": {"devise": "cpu"}}, "Unknown key in `sweep.yaml.flags`: 'devise'. Did you mean 'device'?"),
        ({"flags": {"seed": 1}}, "`sweep.yaml.flags.seed`: name seeds under `seeds`."),
        ({"flags": {"data_seed": "x"}}, "`sweep.yaml.flags.data_seed` must be of type int, but is 'x'."),
        ({"flags": {"normalize": "sometimes"}}, "`--normalize` must be off, on or both"),
        ({"flags": {"override": "config.runner.fp=1"}}, "Unknown key in `runner`: 'fp'."),
        ({"values": {"optimizer.lr": [1]}}, "`sweep.yaml.values.optimizer.lr`: a key of `values` must read `config.a.b` or `args.x`."),
        ({"values": {"config": [1]}}, "must read `config.a.b`"),
        ({"values": {"config.optimizer.lr": 0.1}}, "`sweep.yaml.values.config.optimizer.lr` must be a list of values, but is 0.1."),
        ({"values": {"config.optimizer.lr": [0.1, 0]}}, "must be numbers above 0, but one is 0."),
        ({"values": {"config.optimizer.lr": ["x"]}}, "must be numbers above 0, but one is 'x'."),
        ({"values": {"config.runner.fp16": []}}, "`sweep.yaml.values.config.runner.fp16` is empty"),
        ({"values": {"config.runner.fp16": [1, 1]}}, "`sweep.yaml.values.config.runner.fp16` names 1 twice."),
        ({"values": {"config.runner.total_step": [1]}}, "sweep.yaml (tests.runner.toys:build, toytask, total_step=1): Unknown key in `runner`: 'total_step'. Did you mean 'total_steps'?"),
        ({"values": {"config.runner.eval_step": [1, 0]}}, "(tests.runner.toys:build, toytask, eval_step=0): `runner.eval_step` must be above 0"),
        ({"values": {"config.downstream_expert.x": ["a,,b"]}}, "`sweep.yaml.values.config.downstream_expert.x`: 'a,,b' cannot go through a command line"),
        ({"values": {"config.downstream_expert.x": [float("inf")]}}, "inf cannot go through a command line"),
        ({"values": {"config.interface": ["hconv"]}}, "`sweep.yaml.values.config.interface`: name interfaces under `interfaces`."),
        ({"values": {"config.upstream": ["hubert"]}}, "name upstreams under `upstreams`."),
        ({"values": {"args.lr": [[1.0]]}}, "`sweep.yaml.values.args.lr`: name learning rates under `values`, `config.optimizer.lr`."),
        ({"values": {"args.devise": ["cpu"]}}, "Unknown key in `sweep.yaml.values.args`: 'devise'."),
        ({"values": {"args.data_seed": ["x"]}}, "`sweep.yaml.values.args.data_seed` must be of type int, but is 'x'."),
    ],
)  # fmt: skip
def test_one_line_before_anything_is_run(place, keys, message):
    assert message in place.refused(**keys)


def test_files(place):
    assert place.sweep()[2] == "error: sweep.yaml does not exist: give the YAML file of a sweep.\n"
    Path("sweep.yaml").write_text("tasks: [ic\n")
    assert "error: Config file sweep.yaml is not valid YAML" in place.sweep()[2]
    Path("sweep.yaml").write_text("tasks: [toytask]\nname: x\nvalues: {config.a.b: [2020-01-01]}\n")
    assert "is no number, text, list or mapping" in place.sweep()[2]


def test_a_configs_list_of_interfaces_is_checked(place):
    with Path("toy.yaml").open("a") as file:
        file.write("interfaces: hconv\n")
    assert "`interfaces` must be a list of names" in place.refused(interfaces=None)


def test_what_the_readme_shows(place):
    """Its example is a sweep, and stands for as many runs as it says."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Sweeps\n")[2].partition("\n## ")[0]
    (text,) = re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)
    Path("sweep.yaml").write_text(text)
    sweep = load_sweep(Path("sweep.yaml"))
    cells, runs = (int(number) for number in re.search(r"(\d+) cells in (\d+) runs", section).groups())
    assert (len(sweep.cells), len(sweep.runs())) == (cells, runs)
    assert yaml.safe_load(text).keys() >= SWEEP.keys() - {"seeds"}
