"""Real tasks with several lanes: bit for bit what each lane is alone, also when stopped; and one corpus for all."""

import pytest
import torch

from downstream_tasks.ic import expert as ic
from downstream_tasks.registry import TASKS, load_expert
from s3prl_interfaces.cli import run_downstream
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner.checkpoint import load_checkpoint
from s3prl_interfaces.runner.config import load_config
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.randomness import seed_everything
from tests.runner.test_lanes import KilledError
from tests.runner.test_runs import assert_same, weights
from tests.runner.toys import Upstream
from tests.tasks.mini import lay_out

LANES = {
    "weighted_sum": ["weighted_sum"],
    "hconv-kernel_size=3": ["hconv:kernel_size=3"],
    "cls_pooling": ["cls_pooling"],  # has dropout
}
HEADS = {"asr": "config.downstream_expert.modelrc.RNNs.dim=[16],,config.downstream_expert.modelrc.project_dim=16,,"}


def build(**_):
    """The upstream."""
    return Upstream()


@pytest.fixture(params=["asr", "ic"])
def train(request, tmp_path, monkeypatch):
    """Runs a task for 9 steps with given flags; ASR with dropout and SpecAugment, time warping included."""
    lay_out(request.param, request, tmp_path)
    monkeypatch.chdir(tmp_path)
    task = request.param
    configs = [f"configs/{task}.yaml", f"configs/mini/{task}.yaml", f"configs/mini/quick/{task}.yaml"]
    steps = ",,".join(f"config.runner.{key}" for key in ("total_steps=9", "eval_step=4", "save_step=3", "log_step=2"))

    def run(folder, *flags):
        common = ["-m", "train", "-a", "-d", task, "-u", f"{__name__}:build", "-p", folder, "--device", "cpu"]
        overrides = HEADS.get(task, "") + steps
        return run_downstream([*common, "-c", *configs, "-o", overrides, *flags])

    run.task = task
    return run


def test_stopped_lanes_are_what_uninterrupted_solo_runs_are(train, tmp_path, monkeypatch):
    update = Lane.update

    def dies(self, step):
        if step == 5 and self.interface_name == "hconv":
            raise KilledError
        update(self, step)

    together = ["--interface", *(text for lane in LANES.values() for text in lane)]
    with monkeypatch.context() as patch:
        patch.setattr(Lane, "update", dies)
        with pytest.raises(KilledError):
            train("lanes", *together)
    assert train("lanes", *together) == 0
    for name, flags in LANES.items():
        assert train(name, "--interface", *flags) == 0
        lane, solo = tmp_path / "lanes" / name, tmp_path / name
        assert_same(weights(lane, "states-9.ckpt"), weights(solo, "states-9.ckpt"))
        one, other = (read_result(folder / "results.json") for folder in (lane, solo))
        assert one.metrics == other.metrics
        assert (one.identity, one.counts, one.selection) == (other.identity, other.counts, other.selection)
        predictions = {
            path.name for folder in (lane, solo) for path in folder.iterdir() if path.suffix in (".ark", ".csv")
        }
        assert len(predictions) == 4
        for file in predictions:
            assert (lane / file).read_bytes() == (solo / file).read_bytes()
    if train.task == "asr":
        assert load_checkpoint(lane / "states-9.ckpt")["Config"]["specaug"]["apply_time_warp"]


def test_the_corpus_is_read_once_for_all_lanes(request, tmp_path, monkeypatch):
    lay_out("ic", request, tmp_path)
    monkeypatch.chdir(tmp_path)
    read, reads = ic._read_corpus, []
    monkeypatch.setattr(ic, "_read_corpus", lambda data: reads.append(data) or read(data))
    steps = "config.runner.total_steps=1"
    flags = ["-m", "train", "-d", "ic", "-u", f"{__name__}:build", "-p", "run", "--device", "cpu", "-o", steps]
    configs = ["configs/ic.yaml", "configs/mini/ic.yaml"]
    assert run_downstream([*flags, "-c", *configs, "--interface", "weighted_sum", "concat", "last_layer"]) == 0
    assert len(reads) == 1


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_a_lane_beside_another_starts_as_alone_and_shares_its_corpus(task, request, tmp_path, monkeypatch):
    lay_out(task, request, tmp_path)
    monkeypatch.chdir(tmp_path)
    names = [f"configs/{task}.yaml", f"configs/mini/{task}.yaml", f"configs/mini/quick/{task}.yaml"]
    config = load_config(names)

    def expert(**known):
        seed_everything(3)
        return load_expert(task)(
            upstream_dim=4,
            upstream_rate=320,
            downstream_expert=config["downstream_expert"],
            runner=config["runner"],
            expdir=str(tmp_path),
            **known,
        )

    alone = expert()
    split = alone.score.split
    batches = len(alone.get_dataloader(split))
    beside = expert(label_state=alone.label_state())
    alone.share_corpus(beside)
    assert alone.protocol == beside.protocol
    one, other = alone.state_dict(), beside.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert beside.datasets[split] is alone.datasets[split]
    assert len(beside.get_dataloader(split)) == batches
