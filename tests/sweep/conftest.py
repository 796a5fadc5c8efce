"""A sweep of the toy task of tests/runner, which processes of their own find too."""

import importlib.util
import signal
import sys
from pathlib import Path

import pytest
import yaml

from s3prl_interfaces.cli import main
from s3prl_interfaces.s3prl_compat import prepare

ROOT = Path(__file__).parents[2]
SITE = Path(__file__).parent / "site"
UPSTREAM = "tests.runner.toys:build"
CONFIG = {
    "runner": {
        "total_steps": 4,
        "log_step": 1,
        "eval_step": 4,
        "save_step": 2,
        "max_keep": 100,
        "eval_dataloaders": ["dev", "test"],
    },
    "optimizer": {"name": "TorchOptim", "torch_optim_name": "AdamW", "lr": 0.05},
    "downstream_expert": {"fold": "fold1"},
}
SWEEP = {
    "name": "toys",
    "upstreams": [UPSTREAM],
    "tasks": ["toytask"],
    "interfaces": ["weighted_sum", "last_layer"],
    "seeds": [1, 2],
    "config": ["toy.yaml"],
    "flags": {"device": "cpu"},
}


@pytest.fixture(autouse=True)
def _signals():
    """As in a terminal, however the tests were started: `nohup` and a shell's `&` have some ignored."""
    usual = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {signum: signal.signal(signum, handler) for signum, handler in usual.items()}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture(autouse=True)
def _toy_task(monkeypatch, logging_restored):
    """Put the toy task where S3PRL's own tasks are, here and in processes that are started."""
    prepare()
    spec = importlib.util.spec_from_file_location("toy_finder", SITE / "toy_finder.py")
    finder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(finder)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder.ToyFinder])
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{SITE}")
    yield
    for name in ("s3prl.downstream.toytask", "s3prl.downstream.toytask.expert"):
        sys.modules.pop(name, None)


class Place:
    """A folder with sweep.yaml and the toy task's config, and the command line in it."""

    def __init__(self, folder, capfd):
        self.folder = folder
        self.capfd = capfd
        self.config()

    def config(self, name="toy.yaml", **blocks):
        content = {**CONFIG, **{key: {**CONFIG.get(key, {}), **block} for key, block in blocks.items()}}
        (self.folder / name).write_text(yaml.safe_dump(content))

    def write(self, **keys):
        """sweep.yaml; a key that is None is left out."""
        content = {key: value for key, value in {**SWEEP, **keys}.items() if value is not None}
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return Path("sweep.yaml")

    def sweep(self, *flags):
        """Run the command line; returns exit code, standard output and standard error."""
        self.capfd.readouterr()
        try:
            code = main(["sweep", "sweep.yaml", *flags])
        except SystemExit as stop:
            code = stop.code
        printed = self.capfd.readouterr()
        return code, printed.out, printed.err

    def refused(self, **keys):
        """The message of a sweep that cannot be begun; nothing is left behind."""
        self.write(**keys)
        before = sorted(self.folder.rglob("*"))
        code, _, printed = self.sweep()
        assert code == 2, printed
        assert sorted(self.folder.rglob("*")) == before
        (line,) = (line for line in printed.splitlines() if "ESPnet" not in line)  # S3PRL's hub, when it is imported
        assert line.startswith("error: ")
        return line


@pytest.fixture
def place(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, capfd)
