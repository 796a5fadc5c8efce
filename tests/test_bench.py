"""The benchmark of the interfaces: it compares like with like, and its figures are what they say."""

import contextlib
import json
import re
import sys
import time

import pytest
import torch
from torch.testing import assert_close

from s3prl_interfaces import build_interface
from s3prl_interfaces.bench import INTERFACES, Figures, Size, benchmark, measure, references, render
from s3prl_interfaces.bench.benchmark import prepared_step
from s3prl_interfaces.cli import main
from s3prl_interfaces.errors import UserError
from s3prl_interfaces.interfaces import count_macs
from s3prl_interfaces.interfaces.cost import count_call

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", INTERFACES)
def test_references_do_the_same_with_the_same_weights(name):
    torch.manual_seed(0)
    interface = build_interface(name, num_layers=13, feature_dim=24).eval()
    for parameter in interface.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    reference = references.make_reference(interface)
    states = [torch.randn(2, 5, 24) for _ in range(13)]
    expected, features = reference.call(states), interface(states)
    assert_close(features, expected, rtol=1e-5, atol=1e-5)
    gradient = torch.randn(features.shape)
    features.backward(gradient)
    expected.backward(gradient)

    def norms(module):
        return sorted(parameter.grad.norm().item() for parameter in module.parameters())

    assert norms(interface) == pytest.approx(norms(reference.module), rel=1e-4, abs=1e-4)
    assert reference.module.training == interface.training


def test_references_train_as_the_interface_does():
    reference = references.make_reference(build_interface("cls_pooling", num_layers=3, feature_dim=8, dropout=0.3))
    states = [torch.randn(1, 4, 8)] * 3
    assert not torch.equal(reference.call(states), reference.call(states))
    with pytest.raises(UserError, match="LastLayer has nothing"):
        references.make_reference(build_interface("last_layer", num_layers=3, feature_dim=8))


def test_without_the_released_code(monkeypatch):
    monkeypatch.setitem(sys.modules, "SSL_Interface.configs", None)
    with pytest.raises(UserError, match="pip install ssl-interface"):
        references.make_reference(build_interface("hconv", num_layers=3, feature_dim=8))


def test_calls_take_turns(monkeypatch):
    called = []
    calls = {"slow": lambda: (called.append("slow"), time.sleep(0.02)), "fast": lambda: called.append("fast")}
    medians = measure.median_seconds(calls, 3, CPU)
    assert called == ["slow", "fast"] * 5
    assert medians["slow"] > 0.02 > medians["fast"]


def test_the_median_is_of_the_times_after_the_warm_up():
    naps = iter([0.2, 0.2, 0.001, 0.15, 0.03])
    medians = measure.median_seconds({"nap": lambda: time.sleep(next(naps))}, 3, CPU)
    assert 0.03 <= medians["nap"] < 0.1


def hold(megabytes):
    def call():
        first = torch.ones(megabytes, 1_000_000, dtype=torch.uint8)
        del first
        torch.ones(megabytes // 2, 1_000_000, dtype=torch.uint8)

    return call


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_peak_memory():
    assert measure.extra_memory(hold, 80, device=CPU) == pytest.approx(80e6, rel=0.05)


def test_memory_that_cannot_be_seen(monkeypatch):
    monkeypatch.setattr(measure.Path, "exists", lambda self: False)
    assert measure.extra_memory(hold, 80, device=CPU) is None


def test_arithmetic_of_a_step():
    """Of a frozen upstream: forward, and the gradient of the weights; a weighted sum and its dot products."""
    size = Size(4, 2, 5, 8)
    frames = size.batch * size.frames
    concat, weighted = (prepared_step(name, size, "cpu", False) for name in ("concat", "weighted_sum"))
    assert count_call(concat) == 2 * frames * 4 * 8 * 8
    assert count_call(weighted) == 2 * frames * 4 * 8


@pytest.fixture
def in_this_process(monkeypatch):
    class Here:
        def Pool(self, size):  # noqa: N802 (multiprocessing's name)
            return contextlib.nullcontext(self)

        def apply(self, function, arguments):
            return function(*arguments)

    monkeypatch.setattr(measure.multiprocessing, "get_context", lambda kind: Here())


@pytest.mark.usefixtures("in_this_process")
def test_command(capsys, tmp_path):
    file = tmp_path / "bench.json"
    flags = ["--sizes", "4,2,5,16", "7,1,3,8", "--repeat", "1", "--threads", str(torch.get_num_threads())]
    assert main(["bench", *flags, "--device", "cpu", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    rows = [line for line in shown.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [*INTERFACES, *INTERFACES]
    assert "L=4 B=2 T=5 D=16" in shown
    content = json.loads(file.read_text())
    assert content["machine"]["threads"] == torch.get_num_threads()
    figures = content["figures"]
    assert [one["interface"] for one in figures] == [*INTERFACES, *INTERFACES]
    for one in figures:
        interface = build_interface(one["interface"], num_layers=one["size"]["layers"], feature_dim=one["size"]["dim"])
        assert one["forward_macs"] == count_macs(interface, one["size"]["batch"] * one["size"]["frames"])
        assert one["step_macs"] > one["forward_macs"]
        assert min(one["forward"], one["forward_reference"], one["step"], one["step_reference"], one["rate"]) > 0


def test_table():
    """Twice as fast forward, four times with backward; half of the rate; a quarter of the memory."""
    one = Figures("concat", "cat, nn.Linear", Size(3, 2, 5, 8), 2.0, 4.0, 3.0, 12.0, 25, 100, 10_000, 30_000, 1e4)
    row = render([one], CPU).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:6] == ["2.00", "4.00", "4.00", "4.00"]
    assert cells[6].startswith("0.25")
    assert (cells[8], cells[10]) == ("50%", "100%")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--interfaces", "hcon"], "'hcon' has nothing to be compared with. Possible: weighted_sum"),
        (["--repeat", "0"], "must be 1 or more"),
        (["--threads", "0"], "must be 1 or more"),
        (["--sizes", "3,0,5,8"], "must be 1 or more"),
        (["--device", "cuda:99"], "CUDA devices|sees 0"),
    ],
)
def test_refuses(capsys, flags, message):
    assert main(["bench", *flags]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    (one,) = benchmark(["hconv"], [Size(13, 4, 50, 96)], 3, None, torch.device("cuda"))
    assert 0 < one.memory < one.memory_reference
    assert one.forward > 0
