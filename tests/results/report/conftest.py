import json

import pytest
from torch.utils.tensorboard import SummaryWriter

from s3prl_interfaces.results import write_result


@pytest.fixture
def make_run(tmp_path, make_result):
    """Write a run's folder: a result, events (tag -> {step: value}) and layers.json."""

    def make(name, value=0.5, *, scalars=None, layers=None, **fields):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        fields.setdefault("metrics", {"dev": {"acc": 0.5, "step": 20}, "test": {"acc": value, "step": 20}})
        write_result(folder / "results.json", make_result(value, **fields))
        write_scalars(folder, scalars or {})
        if layers is not None:
            (folder / "layers.json").write_text(json.dumps(layers))
        return folder

    return make


def write_scalars(folder, scalars):
    """Write one event file, as on the first day of 1970: its times are the steps."""
    if scalars:
        with SummaryWriter(str(folder)) as writer:
            for tag, series in scalars.items():
                for step, value in series.items():
                    writer.add_scalar(tag, value, step, walltime=step)


def make_layers(score=0.9, without=(0.8, 0.95, 0.7), **fields):
    """The content of a layers.json."""
    return {
        "schema_version": 1,
        "split": "dev",
        "metric": "acc",
        "higher_is_better": True,
        "score": score,
        "without": list(without),
        "step": 20,
        "checkpoint": "dev-best.ckpt",
        "weights": None,
        **fields,
    }


def softmax(*values):
    return {"what": "softmax weights", "rows": ["weights"], "values": [list(values)]}


GROUPS = {
    "what": "softmax weights of each group",
    "rows": ["group 1", "group 2"],
    "values": [[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]],
}
DEV = "fluent_commands/dev-acc"
LOSS = "fluent_commands/train-intent_loss"
EVENTS = {DEV: {10: 0.25, 20: 0.5}, LOSS: {5: 3.0, 10: 2.5, 20: 1.75}}
