"""The command line: S3PRL's flags with S3PRL's defaults, and the other commands."""

import json
import logging
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from s3prl_interfaces import __version__, list_interfaces
from s3prl_interfaces.cli import main, run_downstream
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.results import Primary, RunResult, write_result
from s3prl_interfaces.runner import RunArguments

SCRIPT = Path(__file__).parents[1] / "scripts" / "run_downstream.py"

# S3PRL's flags (s3prl/run_downstream.py, get_downstream_args): spelling, what is given, the attribute, its value.
S3PRL_FLAGS = [
    ("-t", "dev", "evaluate_split", "dev"),
    ("--evaluate_split", "dev", "evaluate_split", "dev"),
    ("-o", "config.a=1", "override", "config.a=1"),
    ("--override", "None", "override", "None"),
    ("--backend", "gloo", "backend", "gloo"),
    ("--local_rank", "1", "local_rank", 1),
    ("-e", "a.ckpt", "past_exp", "a.ckpt"),
    ("--past_exp", "a.ckpt", "past_exp", "a.ckpt"),
    ("-i", "a.ckpt", "init_ckpt", "a.ckpt"),
    ("--init_ckpt", "a.ckpt", "init_ckpt", "a.ckpt"),
    ("-c", "a.yaml", "config", ["a.yaml"]),
    ("--config", "a.yaml", "config", ["a.yaml"]),
    ("-d", "voxceleb1", "downstream", "voxceleb1"),
    ("--downstream", "asr", "downstream", "asr"),
    ("-v", "fold1", "downstream_variant", "fold1"),
    ("--downstream_variant", "fold1", "downstream_variant", "fold1"),
    ("--hub", "huggingface", "hub", "huggingface"),
    ("-u", "hubert", "upstream", "hubert"),
    ("--upstream", "hubert", "upstream", "hubert"),
    ("-k", "a.pt", "upstream_ckpt", "a.pt"),
    ("--upstream_ckpt", "a.pt", "upstream_ckpt", "a.pt"),
    ("-g", "a.yaml", "upstream_model_config", "a.yaml"),
    ("--upstream_model_config", "a.yaml", "upstream_model_config", "a.yaml"),
    ("-r", None, "upstream_refresh", True),
    ("--upstream_refresh", None, "upstream_refresh", True),
    ("-f", None, "upstream_trainable", True),
    ("--upstream_trainable", None, "upstream_trainable", True),
    ("-s", "last_hidden_state", "upstream_feature_selection", "last_hidden_state"),
    ("--upstream_feature_selection", "PR", "upstream_feature_selection", "PR"),
    ("-l", "-1", "upstream_layer_selection", -1),
    ("--upstream_layer_selection", "3", "upstream_layer_selection", 3),
    ("--upstream_feature_normalize", None, "upstream_feature_normalize", True),
    ("--upstream_model_name", "a.pt", "upstream_model_name", "a.pt"),
    ("--upstream_revision", "main", "upstream_revision", "main"),
    ("-n", "a", "expname", "a"),
    ("--expname", "a", "expname", "a"),
    ("-p", "a/b", "expdir", "a/b"),
    ("--expdir", "a/b", "expdir", "a/b"),
    ("-a", None, "auto_resume", True),
    ("--auto_resume", None, "auto_resume", True),
    ("--push_to_hf_hub", "True", "push_to_hf_hub", True),
    ("--push_to_hf_hub", "False", "push_to_hf_hub", False),
    ("--hf_hub_org", "org", "hf_hub_org", "org"),
    ("--seed", "7", "seed", 7),
    ("--device", "cuda:1", "device", "cuda:1"),
    ("--cache_dir", "a", "cache_dir", "a"),
    ("--verbose", None, "verbose", True),
    ("--disable_cudnn", None, "disable_cudnn", True),
]

S3PRL_DEFAULTS = {
    "mode": "train",
    "evaluate_split": "test",
    "override": None,
    "backend": "nccl",
    "local_rank": None,
    "past_exp": None,
    "init_ckpt": None,
    "downstream": None,
    "downstream_variant": None,
    "hub": "torch",
    "upstream": None,
    "upstream_ckpt": None,
    "upstream_model_config": None,
    "upstream_refresh": False,
    "upstream_trainable": False,
    "upstream_feature_selection": "hidden_states",
    "upstream_layer_selection": None,
    "upstream_feature_normalize": False,
    "upstream_model_name": "model.pt",
    "upstream_revision": None,
    "expname": None,
    "expdir": None,
    "auto_resume": False,
    "push_to_hf_hub": False,
    "hf_hub_org": None,
    "seed": 1337,
    "cache_dir": None,
    "verbose": False,
    "disable_cudnn": False,
}
# S3PRL: one file or None, no such flag, cuda, no such flag.
DIFFERENT = {
    "config": [],
    "interface": [],
    "normalize": None,
    "seeds": [],
    "lr": [],
    "data_seed": None,
    "device": "auto",
    "all_folds": False,
    "upstream_unpadded": False,
}


@pytest.fixture(autouse=True)
def _logging_untouched(monkeypatch):
    """The command line sets up logging for a process of its own."""
    monkeypatch.setattr("s3prl_interfaces.runner.logs.log_to_terminal", lambda verbose: None)


@pytest.fixture
def parse(monkeypatch):
    """The arguments with which a command line would run."""
    runs = []
    monkeypatch.setattr("s3prl_interfaces.runner.run", runs.append)

    def parse(*flags, command=run_downstream):
        runs.clear()
        assert command(list(flags)) == 0
        (arguments,) = runs
        return arguments

    return parse


@pytest.mark.parametrize(("flag", "given", "attribute", "value"), S3PRL_FLAGS)
def test_s3prl_flags(flag, given, attribute, value, parse):
    flags = [flag] if given is None else [flag, given]
    changed = {key: item for key, item in parse("-m", "train", *flags).to_dict().items() if item != DEFAULTS[key]}
    assert changed == ({attribute: value} if value != DEFAULTS[attribute] else {})


DEFAULTS = {**S3PRL_DEFAULTS, **DIFFERENT}


def test_defaults_are_s3prls(parse):
    assert parse("-m", "train").to_dict() == DEFAULTS
    assert RunArguments(mode="train").to_dict() == DEFAULTS


@pytest.mark.parametrize("mode", ["train", "evaluate", "inference"])
def test_modes(mode, parse):
    assert parse("-m", mode).mode == parse("--mode", mode).mode == mode


def test_every_flag_is_in_the_table():
    table = {attribute for _, _, attribute, _ in S3PRL_FLAGS}
    assert table == S3PRL_DEFAULTS.keys() - {"mode"} | {"config", "device"}


def test_an_s3prl_command_line(parse):
    line = "-m train -n x -u hubert -d voxceleb1 -f -l 3 -o config.optimizer.lr=1.0e-3,,args.seed=5 -a"
    args = parse(*line.split())
    assert (args.expname, args.upstream, args.downstream, args.upstream_trainable) == ("x", "hubert", "voxceleb1", True)
    assert (args.upstream_layer_selection, args.auto_resume) == (3, True)


def test_flags_of_ours(parse):
    args = parse("-m", "train", "--interface", "hconv", "concat", "-c", "a.yaml", "b.yaml")
    assert (args.interface, args.config) == (["hconv", "concat"], ["a.yaml", "b.yaml"])
    assert parse("-m", "train", "--upstream_unpadded").upstream_unpadded is True


def test_run_is_the_same_as_the_script(parse):
    flags = ["-m", "evaluate", "-d", "ic", "-l", "2", "-t", "dev"]
    assert parse("run", *flags, command=main) == parse(*flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "required: -m/--mode"),
        (["-m", "trian"], "invalid choice: 'trian'"),
        (["-m", "train", "-l", "first"], "invalid int value: 'first'"),
        (["-m", "train", "--push_to_hf_hub", "perhaps"], "must be true or false, but is 'perhaps'"),
        (["-m", "train", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    ],
)
def test_wrong_flags(flags, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_downstream(flags)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_exit_codes(monkeypatch, capsys):
    def stop(error):
        def run(_):
            raise error

        monkeypatch.setattr("s3prl_interfaces.runner.run", run)
        return run_downstream(["-m", "train"])

    assert stop(ConfigError("two\nlines")) == 2
    assert capsys.readouterr().err == "error: two lines\n"
    assert stop(KeyboardInterrupt()) == 130
    assert "`-a`" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):  # a bug of ours is not dressed up as the user's mistake
        stop(ZeroDivisionError())


def test_verbose_shows_where(monkeypatch, caplog):
    def run(_):
        raise ConfigError("x")

    monkeypatch.setattr("s3prl_interfaces.runner.run", run)
    with caplog.at_level(logging.ERROR, "s3prl_interfaces"):
        assert run_downstream(["-m", "train"]) == 2
        assert not caplog.records
        assert run_downstream(["-m", "train", "--verbose"]) == 2
    assert "ConfigError: x" in caplog.text


# The other commands


def out(capsys, *arguments):
    assert main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["lst"], ["list"], ["list", "dogs"]])
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == (0 if arguments == ["--help"] else 2)
    printed = capsys.readouterr()
    assert "usage: s3prl-interfaces" in printed.out + printed.err


def test_script_help():
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: run_downstream.py")
    assert all(flag in done.stdout for flag, *_ in S3PRL_FLAGS if flag not in ("--backend", "--hf_hub_org"))


def test_script_exits_with_the_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_downstream.py", "-m", "train"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: Which task?")


def test_list_interfaces(capsys):
    lines = out(capsys, "list", "interfaces")
    assert [line.split()[0] for line in lines[::2]] == list_interfaces()
    options = dict(zip(list_interfaces(), lines[1::2], strict=True))
    assert options["hconv"].strip() == "options: kernel_size=5, stride=3, padding=None, normalize=False"


def test_list_tasks(capsys):
    (line,) = [line for line in out(capsys, "list", "tasks") if line.startswith("ic ")]
    assert "fluent_commands" in line
    assert "accuracy" in line


def test_list_upstreams(capsys):
    *listed, transformers, _, _ = out(capsys, "list", "upstreams")
    assert {"hubert", "wavlm_large", "wav2vec2_local", "fbank", "tiny_hubert"} <= set(listed)
    assert listed == sorted(listed)
    assert transformers == "hf:FOLDER_OR_ID"


def test_list_configs(capsys):
    assert {"configs/ic.yaml", "configs/mini/ic.yaml", "configs/interface/hconv.yaml"} <= set(
        out(capsys, "list", "configs")
    )


def test_mini_superb(tmp_path, monkeypatch, capsys):
    made = []

    def make(root, corpora, seed):
        made.append((root, corpora, seed))
        return [root / "corpus"]

    monkeypatch.setattr("s3prl_interfaces.mini_superb.make_mini_superb", make)
    assert out(capsys, "mini-superb", str(tmp_path), "--seed", "3") == [str(tmp_path / "corpus")]
    assert out(capsys, "mini-superb", str(tmp_path), "--corpora", "voxceleb1") == [str(tmp_path / "corpus")]
    assert made == [(tmp_path, None, 3), (tmp_path, ["voxceleb1"], 0)]


@pytest.fixture
def results(tmp_path):
    """Two interfaces, two seeds each, and the runs' folders."""
    for interface, values in {"weighted_sum": (0.5, 0.6), "hconv": (0.7, 0.8)}.items():
        for seed, value in enumerate(values):
            folder = tmp_path / interface / str(seed)
            folder.mkdir(parents=True)
            result = RunResult(
                task="ic",
                upstream="tiny",
                interface=interface,
                seed=seed,
                metrics={"test": {"acc": value, "step": 1}},
                primary=Primary(name="acc", split="test", value=value, higher_is_better=True),
                parameters={"interface": 13},
                config_sha256="a" * 64,
            )
            write_result(folder / "results.json", result)
    return tmp_path


def test_leaderboard(results, capsys):
    table = "\n".join(out(capsys, "leaderboard", str(results)))
    assert "hconv" in table
    assert "75.00" in table
    assert "55.00" in table
    assert "\x1b[" not in table  # no colours in a pipe


@pytest.mark.parametrize(
    ("baseline", "differences"),
    [([], {"hconv": 0.2, "weighted_sum": None}), (["--baseline", "hconv"], {"hconv": None, "weighted_sum": -0.2})],
)
def test_leaderboard_options(baseline, differences, results, capsys):
    folders = [str(results / "hconv"), str(results / "weighted_sum")]
    printed = json.loads("\n".join(out(capsys, "leaderboard", *folders, "--format", "json", *baseline)))
    (table,) = printed["tables"]
    assert {row["label"]: row["cells"][0]["difference"] for row in table["rows"]} == pytest.approx(differences)


def test_leaderboard_significance_is_tried(results, capsys):
    """These runs left no predictions: that is said, and the table is there."""
    (table,) = json.loads("\n".join(out(capsys, "leaderboard", str(results), "--format", "json")))["tables"]
    (note,) = table["notes"]
    assert note.startswith("ic: differences are not tested. ")
    assert "evaluate the run again" in note


def test_leaderboard_published(results, tmp_path, capsys):
    mine = tmp_path / "mine.yaml"
    mine.write_text("[{upstream: Tiny, names: [tiny], source: Me, scores: {ic: {acc: 12.34}}}]")
    sources = {}
    for flags in ((), ("--published",), ("--published", str(mine))):
        (table,) = json.loads("\n".join(out(capsys, "leaderboard", str(results), "--format", "json", *flags)))["tables"]
        sources[len(flags)] = [row["label"] for row in table["published"]]
    assert sources == {0: [], 1: ["FBANK", "best of 2021"], 2: ["FBANK", "best of 2021", "Tiny"]}


def test_leaderboard_published_takes_no_folder(results, capsys):
    with pytest.raises(SystemExit):
        main(["leaderboard", "--published", str(results)])
    assert "must be a YAML file" in capsys.readouterr().err


def test_leaderboard_csv_says_what_it_leaves_out(results, capsys, caplog):
    (results / "half").mkdir()
    (results / "half" / "states-10.ckpt").touch()
    lines = out(capsys, "leaderboard", str(results), "--format", "csv")
    assert len(lines) == 3
    assert f"Not counted: {results / 'half'}: not finished, step 10" in caplog.text
    caplog.clear()
    table = "\n".join(out(capsys, "leaderboard", str(results), "--format", "markdown"))
    assert "not finished, step 10" in table
    assert "Not counted" not in caplog.text
