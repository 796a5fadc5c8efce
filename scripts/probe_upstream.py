"""What each hidden state of an upstream tells, linearly, about phonemes, speakers and intents.

    python scripts/probe_upstream.py -u tiny_hubert [-u hf:FOLDER ...] [--data DIR] [--output FILE.md]

The baselines are the same network with random weights (of upstreams that are transformers models) and log-mel
filterbanks. The data are mini-SUPERB's; what is missing is made (pip install 's3prl-interfaces[mini]').
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from s3prl_interfaces.errors import ConfigError, UserError
from s3prl_interfaces.probing.data import ProbeTask, intent_task, speaker_frame_task, speaker_task
from s3prl_interfaces.probing.features import log_mel
from s3prl_interfaces.probing.measure import Result, measure, score_layers
from s3prl_interfaces.probing.phonemes import phoneme_task
from s3prl_interfaces.probing.table import markdown, record, terminal
from s3prl_interfaces.upstream import load_upstream

TASKS: dict[str, Callable[[argparse.Namespace], ProbeTask]] = {
    "phoneme": lambda options: phoneme_task(scale=options.scale),
    "speaker-frame": lambda options: speaker_frame_task(options.data, options.scale),
    "speaker": lambda options: speaker_task(options.data, options.scale),
    "intent": lambda options: intent_task(options.data, options.scale),
}


def probe(options: argparse.Namespace) -> None:
    """Probe, print the tables and write what was asked for."""
    for file in filter(None, (options.output, options.json)):  # now, not after ten minutes
        if file.is_dir() or not file.parent.is_dir():
            raise ConfigError(f"{file} cannot be written: it must be a file in a folder that there is.")
    upstreams = {name: load_upstream(name) for name in options.upstream}
    results: dict[str, list[Result]] = {name: [] for name in upstreams}
    for name in dict.fromkeys(options.tasks):
        task = TASKS[name](options)
        (baseline,) = score_layers(task, log_mel, "log-mel")
        for upstream in upstreams:
            results[upstream].append(measure(task, upstreams[upstream], range(options.seeds), baseline))
    console = Console()
    for upstream, found in results.items():
        console.print(terminal(upstream, found))
    if options.output:
        tables = "\n".join(markdown(upstream, found) for upstream, found in results.items())
        options.output.write_text(tables, encoding="utf-8")
    if options.json:
        records = [record(upstream, found) for upstream, found in results.items()]
        options.json.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns the exit code: 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-u", "--upstream", action="append", required=True, help="as run_downstream.py takes it")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--data", type=Path, default=Path("mini_superb_data"), help="mini-SUPERB (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the data that are made (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="draws of random weights (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the tables here too, as Markdown")
    parser.add_argument("--json", type=Path, help="write all figures here")
    try:
        probe(parser.parse_args(arguments))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
