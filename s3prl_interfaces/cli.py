"""The command line: parses, calls, prints."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from s3prl_interfaces import __version__
from s3prl_interfaces.errors import UserError

if TYPE_CHECKING:
    from s3prl_interfaces.results.published import Published

log = logging.getLogger(__name__)

LISTS = ("interfaces", "tasks", "upstreams", "configs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``s3prl-interfaces``.

    Returns:
        The exit code: 0, 2 for what the user can mend, 128 + N when signal N stopped it (130: Ctrl-C).
    """
    return _call(parser(), arguments)


def run_downstream(arguments: Sequence[str] | None = None) -> int:
    """Run ``scripts/run_downstream.py``: the same as ``s3prl-interfaces run``."""
    parser = argparse.ArgumentParser(prog="run_downstream.py", description=_RUN_DESCRIPTION)
    _fill_run(parser)
    return _call(parser, arguments)


def parser() -> argparse.ArgumentParser:
    """The parser of ``s3prl-interfaces``."""
    parser = argparse.ArgumentParser(prog="s3prl-interfaces", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _add_run,
        _add_validate,
        _add_list,
        _add_prepare,
        _add_mini_superb,
        _add_leaderboard,
        _add_layers,
        _add_report,
        _add_features,
        _add_bench,
        _add_sweep,
    ):
        add(commands)
    return parser


def _call(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    verbose = bool(getattr(options, "verbose", False))
    from tqdm.contrib.logging import logging_redirect_tqdm

    from s3prl_interfaces.runner.interruption import Stopped
    from s3prl_interfaces.runner.logs import log_to_terminal

    log_to_terminal(verbose)
    try:
        with logging_redirect_tqdm():
            command(options)
    except UserError as error:
        if verbose:
            log.exception("")
        line = re.sub(r"\s*\n\s*", " ", str(error).strip())
        sys.stderr.write(f"error: {line}\n")
        return 2
    except Stopped as stopped:
        sys.stderr.write(f"{stopped} Continue with `-a`.\n")
        return 128 + stopped.signum
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; continue a run with `-a`\n")
        return 130
    except BrokenPipeError:  # `... | head`
        sys.stderr.close()
    return 0


_RUN_DESCRIPTION = "Train, evaluate or use one task on one upstream through one interface, with S3PRL's flags."


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("run", help="train, evaluate or use (the same as scripts/run_downstream.py)")
    parser.description = _RUN_DESCRIPTION
    _fill_run(parser)


def _add_validate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("validate", help="build what `run -m train` would, and say what the run will need")
    parser.description = (
        "Build what `run -m train` with the same flags would, take its first updates and a few batches of its "
        "evaluations, and say how long the run will take and what it will need. Nothing is written."
    )
    _fill_run(parser, mode="train")
    parser.set_defaults(command=_validate)


def _fill_run(parser: argparse.ArgumentParser, mode: str | None = None) -> None:
    """S3PRL's flags (``s3prl/run_downstream.py``), and ours; ``mode`` is the default."""
    what = parser.add_argument_group("what to run")
    modes = ("train", "evaluate", "inference")
    what.add_argument("-m", "--mode", choices=modes, required=mode is None, default=mode)
    what.add_argument(
        "-u",
        "--upstream",
        help="a name of S3PRL's hub, tiny_hubert, hf:FOLDER_OR_ID (transformers), FILE.py:FACTORY or "
        "package.module:FACTORY",
    )
    what.add_argument("-d", "--downstream", help="the task, by SUPERB's or S3PRL's name")
    what.add_argument("-v", "--downstream_variant", help="a variant of the task, handed to it")
    what.add_argument("--all-folds", action="store_true", help="train every fold of a cross-validated task (er)")
    what.add_argument(
        "--interface",
        nargs="+",
        default=[],
        metavar="NAME[:OPTION=VALUE,...]",
        help="how the layers are combined; several are trained side by side, the upstream runs once for all",
    )
    what.add_argument(
        "--normalize", choices=("off", "on", "both"), help="layer-normalise hidden states first; both: each lane twice"
    )
    what.add_argument("--seeds", nargs="+", type=int, default=[], metavar="N", help="train every lane with each")
    what.add_argument("--lr", nargs="+", type=float, default=[], metavar="LR", help="train every lane with each")
    what.add_argument(
        "-c",
        "--config",
        nargs="+",
        default=[],
        metavar="YAML",
        help="merged left to right; default configs/<task>.yaml",
    )
    what.add_argument(
        "-o", "--override", metavar="config.a.b=VALUE,,args.x=VALUE", help="applied last; values are YAML"
    )
    what.add_argument(
        "-t",
        "--evaluate_split",
        default="test",
        help="evaluate: the split; inference: an audio file or a folder",
    )
    place = parser.add_argument_group("where, and from what")
    place.add_argument("-n", "--expname", help="the run's folder is result/downstream/EXPNAME")
    place.add_argument("-p", "--expdir", help="the run's folder")
    place.add_argument("-a", "--auto_resume", action="store_true", help="continue if the folder holds a checkpoint")
    place.add_argument("-e", "--past_exp", metavar="CKPT|DIR", help="continue this run, with its arguments and config")
    place.add_argument("-i", "--init_ckpt", metavar="CKPT", help="start from these weights")
    upstream = parser.add_argument_group("upstream")
    upstream.add_argument("-k", "--upstream_ckpt", metavar="FILE", help="the upstream's own checkpoint")
    upstream.add_argument("-g", "--upstream_model_config", metavar="FILE", help="the upstream's own config")
    upstream.add_argument("-r", "--upstream_refresh", action="store_true", help="download it again")
    upstream.add_argument("-f", "--upstream_trainable", action="store_true", help="fine-tune it")
    upstream.add_argument("-s", "--upstream_feature_selection", default="hidden_states", help="key of its output")
    upstream.add_argument("-l", "--upstream_layer_selection", type=int, help="use this one layer (0-based)")
    upstream.add_argument(
        "--upstream_feature_normalize", action="store_true", help="layer-normalise each hidden state first"
    )
    upstream.add_argument(
        "--hub",
        default="torch",
        choices=("torch", "huggingface"),
        help="huggingface RUNS CODE of the repository",
    )
    upstream.add_argument("--upstream_model_name", default="model.pt", help="checkpoint in a huggingface repository")
    upstream.add_argument("--upstream_revision", help="revision of a huggingface repository, or of an id after hf:")
    upstream.add_argument(
        "--upstream_unpadded", action="store_true", help="hf: and tiny_hubert: run utterances one at a time"
    )
    upstream.add_argument("--cache_dir", help="where S3PRL keeps downloads")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--seed", type=int, default=1337, help="of initialisation, dropout and SpecAugment")
    machine.add_argument("--data_seed", type=int, help="of the order of the data and its crops; default: --seed")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    machine.add_argument("--disable_cudnn", action="store_true")
    machine.add_argument("--verbose", action="store_true", help="show tracebacks and details")
    machine.add_argument("--backend", default="nccl", help="what several GPUs talk with; the CPU has gloo")
    machine.add_argument(
        "--local_rank", "--local-rank", type=int, help="given by older launchers; torchrun does without"
    )
    unsupported = parser.add_argument_group("S3PRL's, not supported")
    unsupported.add_argument(
        "--push_to_hf_hub", type=_truth, default=False, nargs="?", const=True, help="upload after training"
    )
    unsupported.add_argument("--hf_hub_org", help=argparse.SUPPRESS)
    parser.set_defaults(command=_run)


def _truth(text: str) -> bool:
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0", "none"):
        return False
    raise argparse.ArgumentTypeError(f"must be true or false, but is {text!r}")


def _run(options: argparse.Namespace) -> None:
    from s3prl_interfaces.runner import RunArguments, run

    run(RunArguments(**{key: value for key, value in vars(options).items() if key != "command"}))


def _validate(options: argparse.Namespace) -> None:
    from s3prl_interfaces.runner import RunArguments
    from s3prl_interfaces.runner.validation import render, validate

    needs = validate(RunArguments(**{key: value for key, value in vars(options).items() if key != "command"}))
    if not needs:
        log.info("The run is finished already: there is nothing left to do.")
    sys.stdout.write("\n".join(map(render, needs)))


def _add_list(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("list", help="what there is to choose from")
    parser.add_argument("what", choices=LISTS)
    parser.set_defaults(command=_list)


def _list(options: argparse.Namespace) -> None:
    for line in {"interfaces": _interfaces, "tasks": _tasks, "upstreams": _upstreams, "configs": _configs}[
        options.what
    ]():
        sys.stdout.write(f"{line}\n")


def _interfaces() -> list[str]:
    from s3prl_interfaces.interfaces import get_spec, interface_options, list_interfaces

    lines = []
    for name in list_interfaces():
        options = ", ".join(f"{option}={default}" for option, default in interface_options(name).items())
        lines += [f"{name:22}{get_spec(name).description}", f"{'':22}options: {options or 'none'}"]
    return lines


def _tasks() -> list[str]:
    from downstream_tasks.registry import TASKS

    return [f"{task.name:6}{task.s3prl_name:18}{task.description}" for task in TASKS]


def _upstreams() -> list[str]:
    from s3prl_interfaces.upstream import list_upstreams

    return [*list_upstreams(), "hf:FOLDER_OR_ID", "FILE.py:FACTORY", "package.module:FACTORY"]


def _configs() -> list[str]:
    from s3prl_interfaces.runner.config import list_configs

    return list_configs()


def _add_prepare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("prepare", help="check a downloaded corpus, and write what its task needs beside it")
    parser.description = "Check a corpus against its task's layout, and write what S3PRL's preparation scripts write."
    parser.add_argument("task", help="see `s3prl-interfaces list tasks`")
    parser.add_argument("root", type=Path, help="the folder that the corpus was unpacked to")
    parser.set_defaults(command=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    from downstream_tasks.registry import load_prepare

    for line in load_prepare(options.task)(options.root):
        sys.stdout.write(f"{line}\n")


def _add_mini_superb(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("mini-superb", help="make small synthetic corpora in the real corpora's layouts")
    parser.add_argument("dir", type=Path)
    parser.add_argument("--corpora", nargs="+", metavar="NAME", help="which ones; all of them if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(command=_mini_superb)


def _mini_superb(options: argparse.Namespace) -> None:
    from s3prl_interfaces.mini_superb import make_mini_superb

    for corpus in make_mini_superb(options.dir, corpora=options.corpora, seed=options.seed):
        sys.stdout.write(f"{corpus}\n")


def _add_leaderboard(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from s3prl_interfaces.results import DEFAULT_BASELINE, FORMATS

    parser = commands.add_parser("leaderboard", help="compare the runs below one or more folders")
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--baseline", default=DEFAULT_BASELINE, metavar="INTERFACE", help="differences are to it")
    parser.add_argument("--format", default="table", choices=FORMATS)
    _add_published(parser)
    parser.set_defaults(command=_leaderboard)


def _add_published(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--published",
        nargs="?",
        const="",
        type=_yaml_file,
        metavar="FILE.yaml",
        help="show published figures below the measured ones; those of a file of your own too",
    )


def _yaml_file(text: str) -> str:
    if text and not text.endswith((".yaml", ".yml")):  # a folder after the flag is a folder to compare
        raise argparse.ArgumentTypeError(f"must be a YAML file, but is {text!r}: give the folders first")
    return text


def _published(options: argparse.Namespace) -> "list[Published]":
    from s3prl_interfaces.results import load_published

    published = [] if options.published is None else [*load_published()]
    if options.published:
        published += load_published(Path(options.published))
    return published


def _leaderboard(options: argparse.Namespace) -> None:
    _show_leaderboard(options.dirs, options.baseline, options.format, _published(options))


def _show_leaderboard(dirs: Sequence[Path], baseline: str, form: str, published: "Sequence[Published]" = ()) -> None:
    from s3prl_interfaces.results import add_comparisons, build_leaderboard, load_runs, render_leaderboard

    board = add_comparisons(build_leaderboard(load_runs(dirs), baseline, published))
    if form == "csv":  # the other formats list them
        for problem in board.problems:
            log.warning("Not counted: %s: %s", problem.folder, problem.text)
    in_terminal = sys.stdout.isatty()
    sys.stdout.write(render_leaderboard(board, form, color=in_terminal).rstrip("\n") + "\n")


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from s3prl_interfaces.results import DEFAULT_BASELINE

    parser = commands.add_parser("report", help="write one page about the runs below one or more folders")
    parser.description = (
        "Write one HTML page that opens without a network: the leaderboard, learning curves, and what each interface "
        "looks at (from what `s3prl-interfaces layers` leaves in the runs' folders)."
    )
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), metavar="HTML")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write every figure there too, as PNG and SVG")
    parser.add_argument("--baseline", default=DEFAULT_BASELINE, metavar="INTERFACE", help="differences are to it")
    _add_published(parser)
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> None:
    from s3prl_interfaces.results.report import write_report

    write_report(options.dirs, options.output, options.figures, options.baseline, _published(options))
    sys.stdout.write(f"{options.output}\n")


def _add_layers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("layers", help="find out what the interfaces of finished runs look at")
    parser.description = (
        "Score every finished run below the folders once more on the split that chose its weights, each time with one "
        "layer replaced by a mean over time, and write layers.json beside results.json, for `report`."
    )
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR")
    parser.add_argument(
        "--mean-over",
        choices=("split", "utterance"),
        default="split",
        help="the mean over all frames of the split, or each utterance's own, which keeps what a layer says of the "
        "utterance as a whole; default split",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.set_defaults(command=_layers)


def _layers(options: argparse.Namespace) -> None:
    from s3prl_interfaces.runner.layers import look_at_layers

    look_at_layers(options.dirs, device=options.device, mean_over=options.mean_over)


def _add_features(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("features", help="write a trained interface's features of audio files")
    parser.description = "Write what a trained interface makes of audio files: one NumPy file (frames, width) for each."
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder (its newest states-*.ckpt)")
    parser.add_argument("audio", type=Path, help="an audio file, or a folder of them")
    parser.add_argument("out", type=Path, help="the folder to write to, laid out as the folder of audio")
    parser.add_argument("-o", "--override", help="as for `run`: args.upstream_ckpt=NEW/PATH.pt")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks and details")
    parser.set_defaults(command=_features)


def _features(options: argparse.Namespace) -> None:
    from s3prl_interfaces.runner import load_experiment
    from s3prl_interfaces.runner.inference import find_audio, write_features

    files = find_audio(options.audio)  # before the upstream is loaded
    model = load_experiment(options.checkpoint, device=options.device, override=options.override)
    write_features(model, files, options.audio, options.out)


def _add_bench(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("bench", help="measure how fast the interfaces are, and how much memory they take")
    parser.description = (
        "Time interfaces against what others ship, or the formula as one would write it, in turns in one process, "
        "and print a Markdown table."
    )
    parser.add_argument(
        "--interfaces", nargs="+", metavar="NAME", help="which ones; all that can be compared if not given"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=_sizes,
        metavar="L,B,T,D",
        help="layers, utterances, frames, channels; Base and Large",
    )
    parser.add_argument("--repeat", type=int, default=15, help="times of which the median is taken (%(default)s)")
    parser.add_argument("--threads", type=int, help="of the CPU; PyTorch's default if not given")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here too")
    parser.set_defaults(command=_bench)


def _sizes(text: str) -> tuple[int, int, int, int]:
    try:
        layers, batch, frames, dim = (int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be four integers with commas, as 13,8,100,768, but is {text!r}"
        ) from error
    return layers, batch, frames, dim


def _bench(options: argparse.Namespace) -> None:
    from s3prl_interfaces import bench
    from s3prl_interfaces.runner.device import choose_device

    device = choose_device(options.device)
    sizes = [bench.Size(*size) for size in options.sizes] if options.sizes else bench.SIZES
    figures = bench.benchmark(options.interfaces or bench.INTERFACES, sizes, options.repeat, options.threads, device)
    if options.json is not None:
        bench.write_json(figures, device, options.json)
    sys.stdout.write(bench.render(figures, device))


def _add_sweep(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from s3prl_interfaces.results import DEFAULT_BASELINE

    parser = commands.add_parser("sweep", help="train every combination that a YAML file names, and compare them")
    parser.description = (
        "Train the product of upstreams, tasks, interfaces, seeds and config values; what shares the upstream's pass "
        "is one run. What is finished is skipped, what is unfinished is continued."
    )
    parser.add_argument("file", type=Path, metavar="SWEEP.yaml")
    parser.add_argument("--dry-run", action="store_true", help="print every cell's state and the commands, do nothing")
    parser.add_argument("--rerun-failed", action="store_true", help="try again what has failed")
    parser.add_argument("--submitit", choices=("local", "slurm"), help="submit each run as a job, and wait for all")
    parser.add_argument(
        "--at-once", type=int, metavar="N", help="jobs in the queue at a time; default 1 with local, all with slurm"
    )
    parser.add_argument("--baseline", default=DEFAULT_BASELINE, metavar="INTERFACE", help="differences are to it")
    parser.set_defaults(command=_sweep)


def _sweep(options: argparse.Namespace) -> None:
    from s3prl_interfaces import sweep
    from s3prl_interfaces.runner.interruption import Stopped

    planned = sweep.load_sweep(options.file)
    if options.dry_run:
        sys.stdout.write(sweep.describe(planned, rerun_failed=options.rerun_failed))
        return
    try:
        sweep.run_sweep(planned, options.rerun_failed, options.submitit, options.at_once)
    except Stopped as stop:
        sys.stderr.write(f"{stop} Go on with the same command: what is unfinished is continued.\n")
        sys.exit(128 + stop.signum)
    for heading, folders in planned.boards().items():
        sys.stdout.write(f"\n{heading}\n" if heading else "")
        _show_leaderboard(folders, options.baseline, "table")
    sweep.refuse_failures(planned)


if __name__ == "__main__":
    sys.exit(main())
