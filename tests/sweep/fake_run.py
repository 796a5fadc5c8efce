"""Stands for `s3prl-interfaces run` without importing PyTorch: leaves in the folders of lanes what a run would.

FAKE in the environment maps a part of a folder's name to what goes wrong there.
"""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

RUNNER = {"runner": {"total_steps": 4}}
LOG = Path(os.environ["FAKE_LOG"])


def finish(folder):
    name, _, seed = folder.name.partition("-seed=")
    score = {"name": "acc", "split": "test", "value": 0.5, "higher_is_better": True}
    result = {
        "schema_version": 1,
        "task": "toytask",
        "upstream": "toys",
        "interface": name,
        "seed": int(re.match(r"\d+", seed)[0]),
        "metrics": {"test": {"acc": 0.5, "step": 4}},
        "primary": score,
        "parameters": {"interface": 1},
        "config_sha256": "0" * 64,
    }
    begin(folder, 4)
    (folder / "results.json").write_text(json.dumps(result))


def begin(folder, step):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failed.json").unlink(missing_ok=True)
    (folder / "config.yaml").write_text(json.dumps(RUNNER))
    (folder / f"states-{step}.ckpt").touch()


def main(*folders):
    with LOG.open("a") as log:
        log.write(" ".join(folders) + f" {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    faults = json.loads(os.environ.get("FAKE", "{}"))
    code = 0
    for folder in map(Path, folders):
        fault = next((fault for part, fault in faults.items() if part in folder.as_posix()), None)
        if fault == "bad":
            sys.stderr.write("\rtrain: 50%")
            sys.stderr.write("\nerror: older\n\x1b[Aerror: The corpus is not here: unpack it.\nbye\n")
            return 2
        if fault == "crash":
            sys.stderr.write("Traceback ...\nRuntimeError: out of memory\n")
            return 1
        if fault == "kill":
            begin(folder, 3)
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "nothing":
            continue
        if fault == "silent":
            return 3
        if fault == "lane":  # one lane dies, the others go on
            begin(folder, 2)
            (folder / "failed.json").write_text('{"step": 1, "reason": "loss is nan"}')
            code = 2
            continue
        if fault == "slow":
            wait_for_signal(folder)
        if isinstance(fault, int):
            begin(folder, 1)
            return fault
        finish(folder)
    return code


def wait_for_signal(folder):
    """As a run: a signal makes it write a checkpoint and end; a second one would kill it, and none would be one."""

    def stop(signum, _frame):
        signal.signal(signum, signal.SIG_DFL)
        time.sleep(0.3)
        with LOG.open("a") as log:
            log.write(f"saved upon {signum}\n")
        begin(folder, 2)
        os._exit(128 + signum)

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, stop)
    if not (folder / "states-2.ckpt").exists():
        (folder.parent / "waiting").mkdir(parents=True, exist_ok=True)
        time.sleep(20)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
