"""The product of everything, and how it is put together into runs: against plain loops."""

import dataclasses
import itertools
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3prl_interfaces import cli
from s3prl_interfaces.runner import RunArguments
from s3prl_interfaces.runner.variants import variants
from s3prl_interfaces.sweep.cells import boxes
from s3prl_interfaces.sweep.command import flags_of, process_of, shell_line
from s3prl_interfaces.sweep.naming import LONGEST, distinct, entry_name, values_name
from s3prl_interfaces.sweep.plan import load_sweep
from tests.sweep.conftest import UPSTREAM

HCONV = "hconv:kernel_size=3,stride=2"


def parsed(args):
    """What the command line of a run makes of the arguments of one."""
    known = vars(cli.parser().parse_args(["run", *flags_of(args)]))
    return RunArguments(**{key: value for key, value in known.items() if key != "command"})


def lanes_of(run):
    """The folders that `run` itself would make of a command."""
    from s3prl_interfaces.runner.config import load_config

    return {lane.args.folder for lane in variants(run.args, load_config(run.args.config))}


def test_every_combination_is_a_cell_and_a_run_takes_all_that_share_a_pass(place):
    upstreams = [UPSTREAM, {"name": UPSTREAM, "upstream_layer_selection": 1}]
    interfaces = ["weighted_sum", {"name": "hconv", "kernel_size": 3, "stride": 2}]
    values = {
        "config.optimizer.lr": [0.1, 1e-5],
        "config.runner.gradient_clipping": [1, 0.5],
        "args.upstream_feature_normalize": [False, True],
        "config.downstream_expert.extra": [[1, "a b"], {"x": None}, "1"],
    }
    path = place.write(upstreams=upstreams, interfaces=interfaces, seeds=[3, 4], values=values)
    sweep = load_sweep(path)
    expected = set()
    for layer, clip, normalize, extra, interface, seed, lr in itertools.product(
        [None, 1], [1, 0.5], [False, True], ["list", "dict", "str"], ["weighted_sum", "hconv"], [3, 4], [0.1, 1e-5]
    ):
        expected.add((layer, clip, normalize, extra, interface, seed, lr))
    found = [
        (
            cell.args.upstream_layer_selection,
            cell.config["runner"]["gradient_clipping"],
            cell.args.upstream_feature_normalize,
            type(cell.config["downstream_expert"]["extra"]).__name__,
            cell.args.interface[0],
            cell.args.seed,
            cell.config["optimizer"]["lr"],
        )
        for cell in sweep.cells
    ]
    assert len(found) == len(expected)
    assert set(found) == expected
    runs = sweep.runs()
    assert len(runs) == 2 * 2 * 2 * 3
    assert all(run.args.interface == ["weighted_sum", HCONV] for run in runs)
    assert all((run.args.seeds, run.args.lr, run.args.auto_resume) == ([3, 4], [0.1, 1e-5], True) for run in runs)
    assert len({run.args.folder for run in runs}) == len(runs)
    assert len({cell.folder for cell in sweep.cells}) == len(sweep.cells)
    for run in runs:  # the command makes these folders, and no other
        assert lanes_of(run) == {cell.folder for cell in run.cells}
        assert parsed(run.args) == run.args


def test_names_of_folders_say_what_is_inside(place):
    values = {"config.runner.fp16": [False], "args.upstream_layer_selection": [2]}
    run, *_ = load_sweep(place.write(values=values, interfaces=[HCONV], seeds=[7])).runs()
    folder = "result/downstream/toys/tests.runner.toys_build/toytask/fp16=false-upstream_layer_selection=2"
    assert run.args.folder.as_posix() == f"{folder}/hconv-kernel_size=3-stride=2-seed=7"
    assert run.title == (f"{UPSTREAM}, toytask, fp16=false-upstream_layer_selection=2, {HCONV} (1 interface x 1 seed)")
    (run,) = load_sweep(place.write(name=None, dir="elsewhere/x")).runs()
    assert run.args.expdir == "elsewhere/x/tests.runner.toys_build/toytask"
    assert run.args.expname is None


def test_a_run_of_one_lane_stands_where_it_would_as_one_of_several(place):
    (alone,) = load_sweep(place.write(interfaces=["last_layer"], seeds=[2])).runs()
    (several,) = load_sweep(place.write()).runs()
    assert {alone.args.folder} == lanes_of(alone) == {alone.cells[0].folder}
    assert alone.args.folder in lanes_of(several)


def test_what_is_left_out_is_the_configs(place):
    with (place.folder / "toy.yaml").open("a") as file:
        file.write(f"interfaces: [hconv, {{name: concat}}]\nupstream: {UPSTREAM}\n")
    (run,) = load_sweep(place.write(upstreams=None, interfaces=None, seeds=None)).runs()
    assert run.args.interface == ["hconv", "concat"]
    assert run.args.seeds == [1337]
    assert run.args.upstream is None
    assert run.args.folder.as_posix() == "result/downstream/toys/toytask"
    assert run.cells[0].args.upstream == UPSTREAM
    assert run.title.startswith(f"{UPSTREAM}, toytask, hconv concat (")
    place.config()
    (run,) = load_sweep(place.write(interfaces=None, seeds=[5])).runs()
    assert run.args.interface == []
    assert run.args.folder.name == "weighted_sum-seed=5"


def test_a_fine_tuned_upstream_is_not_shared(place):
    sweep = load_sweep(place.write(flags={"upstream_trainable": True}))
    assert [lanes_of(run) for run in sweep.runs()] == [{cell.folder} for cell in sweep.cells]
    assert len(sweep.runs()) == 4


def test_normalisation_both_ways_is_one_run(place):
    (run,) = load_sweep(place.write(flags={"normalize": "both"})).runs()
    assert run.args.normalize == "both"
    assert lanes_of(run) == {cell.folder for cell in run.cells}
    assert len(run.cells) == 8
    assert "with and without normalisation" in run.title


def test_every_fold_is_a_run(place):
    place.config(downstream_expert={"fold": None})
    runs = load_sweep(place.write()).runs()
    assert [run.args.override for run in runs] == [f"config.downstream_expert.fold=fold{n}" for n in (1, 2)]
    assert [run.args.folder.name for run in runs] == ["fold1", "fold2"]
    assert [cell.config["downstream_expert"]["fold"] for run in runs for cell in run.cells] == ["fold1"] * 4 + [
        "fold2"
    ] * 4
    assert all(run.args.all_folds is False for run in runs)
    for chosen in (
        {"values": {"config.downstream_expert.fold": ["fold2"]}},
        {"flags": {"downstream_variant": "fold2"}},
    ):
        (run,) = load_sweep(place.write(**chosen)).runs()
        assert run.args.folder.name in ("fold=fold2", "toytask")


def test_emotion_recognition_has_its_five_folds(place):
    runs = load_sweep(place.write(tasks=["er", "ic"], config=None, upstreams=["tiny_hubert"])).runs()
    key = "config.downstream_expert.datarc.test_fold"
    assert [run.args.override for run in runs] == [*(f"{key}=fold{n}" for n in range(1, 6)), None]
    assert [run.args.config for run in runs] == [[]] * 6


def test_a_config_may_name_the_task(place):
    configs = ["configs/{task}.yaml", "configs/mini/{task}.yaml"]
    runs = load_sweep(place.write(tasks=["fluent_commands", "sid"], upstreams=None, config=configs)).runs()
    assert [run.args.config for run in runs] == [
        ["configs/ic.yaml", "configs/mini/ic.yaml"],
        ["configs/sid.yaml", "configs/mini/sid.yaml"],
    ]
    assert [run.cells[0].config["runner"]["total_steps"] for run in runs] == [500, 600]


def test_flags_of_an_upstream_win_over_those_of_all_and_values_over_both(place):
    path = place.write(
        upstreams=[{"name": UPSTREAM, "data_seed": 5, "upstream_layer_selection": 0}],
        flags={"data_seed": 4, "override": "config.runner.log_step=3", "device": "cpu", "upstream_layer_selection": 1},
        values={"args.upstream_layer_selection": [2], "config.runner.eval_step": [2]},
    )
    (run,) = load_sweep(path).runs()
    assert (run.args.data_seed, run.args.upstream_layer_selection, run.args.device) == (5, 2, "cpu")
    assert run.args.override == "config.runner.log_step=3,,config.runner.eval_step=2"
    assert run.cells[0].config["runner"]["log_step"] == 3


def test_choices_that_leaderboards_cannot_tell_apart_have_one_each(place):
    upstreams = [UPSTREAM, {"name": UPSTREAM, "upstream_layer_selection": 1}, "tiny_hubert"]
    sweep = load_sweep(place.write(upstreams=upstreams, values={"config.runner.log_step": [1, 2]}))
    boards = {group.board for group in sweep.groups}
    first, second = "tests.runner.toys_build", "tests.runner.toys_build-layer_selection=1"
    assert boards == {f"{up}log_step={step}" for up in (f"{first}, ", f"{second}, ", "") for step in (1, 2)}
    assert sweep.boards() == {}


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), max_size=30))
@settings(max_examples=200, deadline=None)
def test_boxes_hold_every_point_once_and_no_other(points):
    found = [point for box in boxes(sorted(points)) for point in itertools.product(*box)]
    assert sorted(found) == sorted(points)


def test_boxes_are_few():
    everything = [*itertools.product("abcd", (1, 2, 3), (0.1, 0.2))]
    assert boxes(everything) == [(["a", "b", "c", "d"], [1, 2, 3], [0.1, 0.2])]
    everything.remove(("b", 2, 0.1))
    assert boxes(everything) == [
        (["a", "c", "d"], [1, 2, 3], [0.1, 0.2]),
        (["b"], [1, 3], [0.1, 0.2]),
        (["b"], [2], [0.2]),
    ]


def test_names():
    assert values_name({"config.runner.fp16": True, "config.a.lr": 1e-5}) == "fp16=true-lr=1e-05"
    assert values_name({"config.a.x": 1, "config.b.x": "a b/c d"}) == "config.a.x=1-config.b.x=c_d"
    assert entry_name("hf:org/model", {}) == "hf_org_model"
    assert entry_name("hubert_local", {"upstream_ckpt": "/data/a.pt"}) == "hubert_local-ckpt=a.pt"
    assert entry_name("..", {}) == "__"
    long, other = (entry_name("x" * 300, {"data_seed": seed}) for seed in (1, 2))
    assert len(long) == LONGEST
    assert long != other
    names = [name for _, name in distinct([("a", "x"), ("b", "x"), ("c", "x"), ("d", "y")])]
    assert names[0] == "x"
    assert names[3] == "y"
    assert len(set(names)) == 4
    assert names[1] == distinct([("d", "x"), ("b", "x")])[1][1]


def test_commands(place):
    args = RunArguments(
        mode="train",
        upstream="hubert_local",
        downstream="ic",
        interface=[HCONV, 'x.y:Z:a="b c"'],
        seeds=[1, 2],
        lr=[0.001],
        config=["a b.yaml"],
        override="config.a='x',,config.b=[1, 2]",
        expname="n",
        auto_resume=True,
        upstream_layer_selection=-1,
        upstream_trainable=True,
        upstream_ckpt="a.pt",
        data_seed=3,
        device="cuda:1",
        normalize="both",
        hub="huggingface",
        verbose=True,
    )
    assert parsed(args) == args
    assert shlex.split(shell_line(args)) == ["s3prl-interfaces", "run", *flags_of(args)]
    assert process_of(args)[1:4] == ["-m", "s3prl_interfaces.cli", "run"]
    for entry in dataclasses.fields(RunArguments):  # a flag for each argument
        value = {"str": "torch", "bool": True, "int": 3}[entry.type.split(" ")[0].split("[")[0].replace("list", "str")]
        if entry.type.startswith("list"):
            value = [{"str": "x", "int": 3, "float": 0.5}[entry.type[5:-1]]]
        if entry.name in ("mode", "normalize", "all_folds"):
            value = {"mode": "evaluate", "normalize": "on", "all_folds": True}[entry.name]
        one = RunArguments(**{"mode": "train", entry.name: value})
        if entry.name not in ("push_to_hf_hub", "all_folds"):
            assert parsed(one) == one


@pytest.mark.parametrize("count", [2, 3])
def test_only_what_is_to_do_is_in_a_command(place, count):
    sweep = load_sweep(place.write(seeds=[*range(count)]))
    (group,) = sweep.groups
    todo = [cell for cell in group.cells if cell.folder.name != "last_layer-seed=0"]
    runs = group.runs(todo)
    assert [cell for run in runs for cell in run.cells] == todo
    assert [lanes_of(run) for run in runs] == [{cell.folder for cell in run.cells} for run in runs]
    assert len(runs) == 2
