"""What a user can get wrong, through the real command line: one line with the thing and the remedy, exit code 2."""

import csv
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from s3prl_interfaces.cli import main, run_downstream
from s3prl_interfaces.mini_superb import make_mini_superb

DEMO = f"{Path(__file__).parents[1] / 'scripts' / 'demo_upstream.py'}:build"
SHORT = "config.runner.total_steps=2,,config.runner.eval_step=2,,config.runner.save_step=1"
DATA = "config.downstream_expert.datarc"

pytestmark = pytest.mark.usefixtures("logging_restored")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    (root,) = make_mini_superb(tmp_path_factory.mktemp("mini"), corpora=["fluent_speech_commands"], scale=0.03)
    return root


def train_flags(corpus, folder, override="", *more):
    """A run of two steps that works, and what is put on top of it: of a flag given twice the last counts."""
    parts = (SHORT, f"{DATA}.file_path={corpus}", override)
    configs = ("-c", "configs/ic.yaml", "configs/mini/ic.yaml")
    flags = ("-m", "train", "-d", "ic", "-u", DEMO, "--device", "cpu", *configs, "-p", str(folder))
    return [*flags, "-o", ",,".join(filter(None, parts)), *map(str, more)]


@pytest.fixture(scope="session")
def finished_run(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s3prl_interfaces.runner.logs.log_to_terminal", lambda verbose: None)
        assert run_downstream(train_flags(corpus, folder)) == 0
    assert (folder / "results.json").is_file()
    return folder


class Workplace:
    """A folder of the test's own, and how to spoil things in it."""

    def __init__(self, folder, corpus, finished_run):
        self.folder = folder
        self.corpus = corpus
        self.finished_run = finished_run
        self.run = folder / "run"

    def train(self, override="", *more):
        return train_flags(self.corpus, self.run, override, *more)

    def use(self, mode, what):
        return ["-m", mode, "-e", self.states, "-t", what]

    @property
    def states(self):
        return self.finished_run / "states-2.ckpt"

    def file(self, name, content=b""):
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def own_corpus(self):
        root = self.folder / "corpus"
        shutil.copytree(self.corpus, root)
        self.corpus = root
        return root

    def csv_rows(self, name, change):
        """Rewrite a csv file of a corpus of its own; returns the arguments of a training run on it."""
        path = self.own_corpus() / "data" / name
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(change(rows))
        return self.train()

    def spoilt_wav(self, workers, content):
        """Damage one utterance of the training split (None: remove it) and train through a whole epoch."""
        root = self.own_corpus()
        rows = list(csv.DictReader((root / "data" / "train_data.csv").read_text(encoding="utf-8").splitlines()))
        wav = root / rows[len(rows) // 2]["path"]
        if content is None:
            wav.unlink()
        else:
            wav.write_bytes(content)
        self.wav = wav
        return self.train(f"{DATA}.num_workers={workers},,{DATA}.train_batch_size=4,,config.runner.total_steps=1000")

    def old_run(self, *, finished):
        shutil.copytree(self.finished_run, self.run)
        if not finished:
            (self.run / "results.json").unlink()
        return self.train()


@pytest.fixture
def place(tmp_path, corpus, finished_run):
    return Workplace(tmp_path, corpus, finished_run)


def contents(folder):
    """Everything below a folder, files with their bytes; None where there is no folder."""
    if not folder.exists():
        return None
    return {path.name: contents(path) if path.is_dir() else path.read_bytes() for path in folder.iterdir()}


def fail(flags, capfd, command=run_downstream):
    """Run the command line, which must fail as a user's mistake fails; returns the message."""
    capfd.readouterr()
    code = command([str(flag) for flag in flags])
    printed = capfd.readouterr()
    assert code == 2, printed.err
    assert "Traceback" not in printed.err + printed.out
    lines = [line for line in printed.err.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == lines[-1:], printed.err
    return errors[0]


def drop_column(rows):
    column = rows[0].index("action")
    return [row[:column] + row[column + 1 :] for row in rows]


# What is found before anything is written: the command line, and what the message must hold.
BEFORE_THE_RUN = {
    # data
    "missing corpus": (
        lambda p: p.train(f"{DATA}.file_path={p.folder / 'nowhere'}"),
        ("nowhere", "downstream_expert.datarc.file_path", "s3prl-interfaces mini-superb"),
    ),
    "missing csv column": (lambda p: p.csv_rows("valid_data.csv", drop_column), ("valid_data.csv", "column action")),
    "split without rows": (
        lambda p: p.csv_rows("test_data.csv", lambda rows: rows[:1]),
        ("test_data.csv", "no command"),
    ),
    # config keys
    "unknown top-level key": (lambda p: p.train("config.runer={}"), ("'runer'", "Did you mean 'runner'?")),
    "unknown runner key": (
        lambda p: p.train("config.runner.total_step=3"),
        ("`runner`", "'total_step'", "Did you mean 'total_steps'?"),
    ),
    "unknown datarc key": (
        lambda p: p.train(f"{DATA}.filepath=x"),
        ("`downstream_expert.datarc`", "'filepath'", "Did you mean 'file_path'?"),
    ),
    "unknown modelrc key": (
        lambda p: p.train("config.downstream_expert.modelrc.projektor_dim=2"),
        ("`downstream_expert.modelrc`", "Did you mean 'projector_dim'?"),
    ),
    "unknown optimizer option": (
        lambda p: p.train("config.optimizer.weight_decays=0"),
        ("`optimizer`", "weight_decays"),
    ),
    "unknown scheduler": (
        lambda p: p.train("config.scheduler={name: linear_schedule, num_warmup_steps: 1}"),
        ("`scheduler.name`", "Did you mean 'linear_schedule_with_warmup'?"),
    ),
    "unknown specaug option": (lambda p: p.train("config.specaug={time: 3}"), ("`specaug`", "'time'")),
    "number for a block": (lambda p: p.train("config.optimizer=3"), ("`optimizer` must be a mapping", "3")),
    "number for the interface": (
        lambda p: p.train("config.interface=3"),
        ("`interface` must be a name or a mapping", "3"),
    ),
    "negative seed": (lambda p: p.train("", "--seed", -1), ("--seed", "-1")),
    "unknown optimizer": (
        lambda p: p.train("config.optimizer.torch_optim_name=Adan"),
        ("`optimizer.torch_optim_name`", "Did you mean 'Adam'?"),
    ),
    "unknown interface option": (
        lambda p: p.train("config.interface={name: hconv, kernel: 5}"),
        ("'hconv'", "'kernel'", "Did you mean 'kernel_size'?"),
    ),
    "wrong type": (
        lambda p: p.train("config.runner.total_steps=many"),
        ("`runner.total_steps` must be of type int, but is 'many'",),
    ),
    "wrong type of an optimizer option": (lambda p: p.train("config.optimizer.lr=fast"), ("`optimizer`", "'fast'")),
    "wrong type of an interface option": (
        lambda p: p.train("config.interface={name: hconv, kernel_size: big}"),
        ("kernel_size", "'big'"),
    ),
    "batch size of 0": (lambda p: p.train(f"{DATA}.train_batch_size=0"), ("`train`", "batch_size=0")),
    "-1 workers": (lambda p: p.train(f"{DATA}.num_workers=-1"), ("`train`", "use num_workers=0")),
    "fp16 and bf16": (
        lambda p: p.train("config.runner.fp16=true,,config.runner.bf16=true"),
        ("`runner.fp16`", "`runner.bf16`", "choose one"),
    ),
    "config without the task's": (
        lambda p: p.train("", "-c", p.file("mine.yaml", "runner: {total_steps: 3}")),
        ("`optimizer`", "-c configs/<task>.yaml YOUR.yaml"),
    ),
    "broken YAML": (lambda p: p.train("", "-c", p.file("broken.yaml", "runner: [1, 2")), ("broken.yaml", "line 1")),
    # names
    "unknown interface": (lambda p: p.train("", "--interface", "hcov"), ("'hcov'", "Did you mean 'hconv'?")),
    "unknown task": (
        lambda p: p.train("", "-d", "fluent_comands"),
        ("'fluent_comands'", "Did you mean 'fluent_commands'?"),
    ),
    "unknown upstream": (
        lambda p: p.train("", "-u", "huberd"),
        ("'huberd'", "Did you mean 'hubert'", "list upstreams", "FILE.py:FACTORY"),
    ),
    "unknown config": (
        lambda p: p.train("", "-c", "configs/icc.yaml"),
        ("icc.yaml", "Did you mean 'configs/ic.yaml'?"),
    ),
    "unknown split": (lambda p: p.train("config.runner.eval_dataloaders=[dev, tset]"), ("`tset`",)),
    "unknown training split": (lambda p: p.train("config.runner.train_dataloader=trian"), ("`trian`",)),
    "unknown split to evaluate": (lambda p: p.use("evaluate", "tset"), ("`tset`",)),
    "unknown mode": (lambda p: p.train("args.mode=trian"), ("`-m`", "train, evaluate, inference", "'trian'")),
    "S3PRL's task without its config": (
        lambda p: ["-m", "train", "-d", "example", "-u", DEMO, "-p", p.run],
        ("`example`", "-c FILE.yaml"),
    ),
    "unknown device": (lambda p: p.train("", "--device", "gpu"), ("--device gpu", "auto, cpu, cuda or cuda:N")),
    "device of no use": (lambda p: p.train("", "--device", "meta"), ("--device meta", "auto, cpu, cuda or cuda:N")),
    "CUDA device that is not there": (lambda p: p.train("", "--device", "cuda:99"), ("--device cuda:99", "auto")),
    "unknown -o": (lambda p: p.train("runner.total_steps=3"), ("runner.total_steps=3", "config.a.b=value")),
    # what does not go together
    "interface for fewer layers": (
        lambda p: p.train("config.interface={name: single_layer, layer: 13}"),
        ("interface", "`layer`", "at most 12", "13"),
    ),
    "interface for another width": (
        lambda p: p.train("config.interface={name: cls_pooling, num_heads: 7}"),
        ("interface", "`num_heads`", "80", "7"),
    ),
    "layer that is not there": (lambda p: p.train("", "-l", 13), ("-l 13", "0 to 12")),
    "one layer and an interface": (
        lambda p: p.train("", "-l", 3, "--interface", "hconv"),
        ("`-l`", "`hconv`", "use one of the two"),
    ),
    "no such plug-in": (lambda p: p.train("", "--interface", "nowhere.to_be:Found"), ("nowhere", "cannot be imported")),
    "upstream file without a factory": (
        lambda p: p.train("", "-u", DEMO.removesuffix(":build")),
        ("demo_upstream.py", "FILE.py:FACTORY"),
    ),
    "no such upstream file": (lambda p: p.train("", "-u", p.folder / "my.py:build"), ("my.py", "There is no file")),
    "no such factory": (lambda p: p.train("", "-u", f"{DEMO}t"), ("'buildt'", "Did you mean 'build'?")),
    "no upstream": (lambda p: ["-m", "train", "-d", "ic", "-p", p.run], ("`-u NAME`", "list upstreams")),
    "no task": (lambda p: ["-m", "train", "-u", DEMO, "-p", p.run], ("-d NAME", "list tasks")),
    "no folder": (
        lambda p: [flag for flag in p.train() if flag not in ("-p", str(p.run))],
        ("`-n NAME`", "`-p DIR`"),
    ),
    "several interfaces": (
        lambda p: p.train("", "--interface", "hconv", "concat", "-f"),
        ("`-f`", "each lane would pull it another way", "one after another"),
    ),
    "several GPUs": (lambda p: p.train("", "--local_rank", 0), ("--local_rank", "torchrun")),
    "upload": (lambda p: p.train("", "--push_to_hf_hub", "true"), ("--push_to_hf_hub", "hf upload")),
    "folder that cannot be made": (
        lambda p: p.train("", "-p", p.file("file") / "run"),
        (str(Path("file") / "run"), "cannot be made"),
    ),
    "file for a folder": (lambda p: p.train("", "-p", p.file("file")), ("file", "cannot be made")),
    # checkpoints
    "no such checkpoint": (lambda p: p.train("", "-e", p.folder / "no.ckpt"), ("no.ckpt", "does not exist")),
    "no such checkpoint to start from": (
        lambda p: p.train("", "-i", p.folder / "no.ckpt"),
        ("no.ckpt", "does not exist"),
    ),
    "checkpoint of random bytes": (lambda p: p.train("", "-e", p.file("x.ckpt", b"\x8a" * 99)), ("x.ckpt", "damaged")),
    "empty checkpoint": (lambda p: p.train("", "-e", p.file("x.ckpt")), ("x.ckpt", "damaged")),
    "truncated checkpoint": (
        lambda p: p.train("", "-e", p.file("x.ckpt", p.states.read_bytes()[:9999])),
        ("x.ckpt", "damaged"),
    ),
    "checkpoint of another interface": (
        lambda p: p.train("", "-i", p.states, "--interface", "hconv"),
        ("states-2.ckpt", "Featurizer", "Use the upstream, interface and task"),
    ),
    "checkpoint of another optimizer": (
        lambda p: [
            "-m",
            "train",
            "-e",
            p.states,
            "-o",
            f"args.expdir={p.run},,config.runner.total_steps=4,,"
            "config.optimizer={name: TorchOptim, torch_optim_name: SGD, lr: 0.1}",
        ],
        ("states-2.ckpt", "optimizer"),
    ),
    "folder without checkpoints": (lambda p: p.train("", "-e", p.folder), ("states-<step>.ckpt",)),
    "finished run": (
        lambda p: p.old_run(finished=True),
        ("a finished run", "`-a`", "total_steps=N", "delete the folder"),
    ),
    "unfinished run": (lambda p: p.old_run(finished=False), ("an unfinished run", "`-a`", "delete the folder")),
    # inference
    "no such audio file": (lambda p: p.use("inference", p.folder / "no.wav"), ("no.wav", "does not exist")),
    "folder without audio": (lambda p: p.use("inference", p.corpus / "data"), ("data", "no audio file", ".wav")),
}


@pytest.mark.parametrize("name", BEFORE_THE_RUN)
def test_a_mistake_is_one_line_and_changes_nothing(name, place, capfd):
    make, expected = BEFORE_THE_RUN[name]
    flags = make(place)
    folders = (place.run, place.finished_run)
    before = [contents(folder) for folder in folders]
    message = fail(flags, capfd)
    assert [part for part in expected if part not in message] == [], message
    assert [contents(folder) for folder in folders] == before


@pytest.mark.parametrize(("workers", "content"), [(0, b"RIFF"), (1, b"RIFF"), (0, None), (1, None)], ids=str)
def test_damaged_audio_in_the_middle_of_an_epoch(workers, content, place, capfd):
    """Found only when it is read: the folder then says what was run and what happened, and holds no result."""
    message = fail(place.spoilt_wav(workers, content), capfd)
    assert str(place.wav) in message
    assert ("does not exist" in message) == (content is None)
    assert message.count("cannot be read") == 1
    left = {path.name for path in place.run.iterdir()}
    assert {"config.yaml", "args.yaml", "log.txt"} <= left
    assert "results.json" not in left
    assert not [name for name in left if name.endswith((".partial", ".tmp"))]


def test_damaged_audio_for_inference(place, capfd):
    message = fail(place.use("inference", place.file("bad.wav", b"RIFF")), capfd)
    assert str(place.folder / "bad.wav") in message
    assert not list(place.finished_run.rglob("inference.csv"))


def test_verbose_shows_the_traceback(place, capfd):
    assert run_downstream(place.train("config.runer={}", "--verbose")) == 2
    printed = capfd.readouterr().err
    assert "Traceback" in printed
    assert printed.splitlines()[-1].startswith("error: Unknown top-level config key")


class Malice:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("flag", ["-e", "-i"])
@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_code_in_a_checkpoint_is_not_run(save, flag, place, capfd):
    marker, checkpoint = place.folder / "executed", place.folder / "evil.ckpt"
    save({"Args": {}, "Config": {}, "Step": 1, "Downstream": Malice(marker)}, checkpoint)
    assert "evil.ckpt" in fail(place.train("", flag, checkpoint), capfd)
    assert not marker.exists()
    assert not place.run.exists()


def test_an_upstreams_checkpoint_is_sent_to_its_flag(place, capfd):
    checkpoint = place.folder / "hubert.pt"
    torch.save({"model": {"weight": torch.zeros(2)}}, checkpoint)
    message = fail(place.train("", "-e", checkpoint), capfd)
    assert "hubert.pt is not a checkpoint of a downstream run" in message
    assert "go to `-k`" in message


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["leaderboard", "{}/nowhere"], ["nowhere", "result/downstream"]),
        (["leaderboard", "{}"], ["results.json", "finish a run"]),
        (["mini-superb", "{}/file/corpora"], ["file/corpora"]),
        (["mini-superb", "{}", "--seed", "-1"], ["seed", "-1"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_other_commands(flags, expected, tmp_path, capfd):
    (tmp_path / "file").touch()
    message = fail([flag.format(tmp_path) for flag in flags], capfd, command=main)
    assert [part for part in expected if part not in message] == [], message
