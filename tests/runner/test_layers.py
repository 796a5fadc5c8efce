"""`s3prl-interfaces layers`: the scored checkpoints of finished runs, lanes over one pass."""

import pytest

from s3prl_interfaces.cli import main
from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results import read_result
from s3prl_interfaces.results.layers import read_layers
from s3prl_interfaces.runner.layers import look_at_layers
from tests.runner.test_lanes import FOLDERS, THREE
from tests.runner.toys import Upstream, toy_run


@pytest.fixture
def batches(monkeypatch):
    """The batches of more than one utterance that went through the upstream."""
    seen = []
    forward = Upstream.forward

    def counting(self, wavs):
        seen.append(len(wavs))
        return forward(self, wavs)

    monkeypatch.setattr(Upstream, "forward", counting)
    return lambda: [size for size in seen if size > 1]


def test_every_run_below_a_folder(tmp_path, batches, caplog):
    lanes = toy_run(tmp_path / "lanes", interface=THREE)
    solo = toy_run(tmp_path / "solo", interface=["concat"])
    before = len(batches())
    look_at_layers([tmp_path], device="cpu")
    # dev has 4 and 3 utterances: two passes for the means and the scores, of each run, however many lanes it has.
    assert batches()[before:] == [4, 3] * 4
    for folder in (*(lanes / name for name in FOLDERS), solo):
        layers, result = read_layers(folder), read_result(folder / "results.json")
        assert (layers.checkpoint, layers.split, layers.metric) == ("dev-best.ckpt", "dev", "acc")
        assert layers.score == pytest.approx(result.metrics["dev"]["acc"], abs=1e-6)
        assert layers.step == result.metrics["dev"]["step"]
        assert len(layers.without) == 3
        assert layers.mean_over == "split"
    assert not list(tmp_path.rglob("evaluate"))


def test_what_was_done_is_left(tmp_path, batches):
    folder = toy_run(tmp_path, interface=THREE)
    look_at_layers([folder], device="cpu")
    written = {name: (folder / name / "layers.json").stat().st_mtime_ns for name in FOLDERS}
    before = len(batches())
    look_at_layers([folder], device="cpu")
    assert len(batches()) == before
    (folder / FOLDERS[0] / "layers.json").write_text("{")
    look_at_layers([folder], device="cpu")
    assert read_layers(folder / FOLDERS[0]) is not None
    assert [(folder / name / "layers.json").stat().st_mtime_ns == written[name] for name in FOLDERS] == [0, 1, 1]
    assert main(["layers", str(folder), "--mean-over", "utterance", "--device", "cpu"]) == 0
    assert {read_layers(folder / name).mean_over for name in FOLDERS} == {"utterance"}


def test_no_run(tmp_path):
    with pytest.raises(ResultError, match=r"no results\.json in or below"):
        look_at_layers([tmp_path])
