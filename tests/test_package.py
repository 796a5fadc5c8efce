"""The package as a user gets it: a wheel that works from any directory, and documentation that runs."""

import re
import shlex
import subprocess
import sys
import zipfile
from itertools import dropwhile
from pathlib import Path

import pytest
import yaml

from downstream_tasks.registry import TASKS

ROOT = Path(__file__).resolve().parent.parent
MODEL = ("README.md", "config.json", "model.safetensors", "preprocessor_config.json")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The contents of a wheel, built from what git would check out, in a folder of their own."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run_elsewhere(site, tmp_path, *arguments):
    """Run the command line with the wheel first on the path, in an empty directory."""
    code = "import sys; from s3prl_interfaces.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )


def test_the_wheel_has_all_that_is_needed(site):
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {
        "s3prl_interfaces/py.typed",
        "s3prl_interfaces/configs/interface/hconv.yaml",
        "s3prl_interfaces/results/report/page.css",
        "s3prl_interfaces/results/published.yaml",
        *(f"s3prl_interfaces/tiny_hubert/model/{name}" for name in MODEL),
        *(f"s3prl_interfaces/configs/{task.name}.yaml" for task in TASKS),
        *(f"s3prl_interfaces/configs/mini/{task.name}.yaml" for task in TASKS),
        *(f"s3prl_interfaces/configs/mini/quick/{task.name}.yaml" for task in TASKS),
        *(f"downstream_tasks/{task.name}/expert.py" for task in TASKS),
        *(f"downstream_tasks/{task.name}/prepare.py" for task in TASKS),
    } <= names
    assert not any(name.startswith("tests/") for name in names)
    (metadata,) = site.glob("*.dist-info/METADATA")
    text = metadata.read_text()
    assert "Name: s3prl-interfaces" in text
    assert "License-Expression: Apache-2.0" in text or "License: Apache-2.0" in text
    assert "Requires-Dist: torch==2.11.0" in text
    assert "Requires-Dist: torchaudio==2.11.0" in text


def test_the_wheel_runs_from_any_directory(site, tmp_path):
    """Configs and tasks are found: the first thing that is missing is the corpus."""
    upstream = tmp_path / "upstream.py"
    upstream.write_text((ROOT / "scripts/demo_upstream.py").read_text())
    done = run_elsewhere(
        site, tmp_path, "run", "-m", "train", "-u", "upstream.py:build", "-d", "fluent_commands", "-n", "x"
    )
    assert done.returncode == 2
    assert "fluent_speech_commands_dataset/data/train_data.csv does not exist" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "result").exists()
    done = run_elsewhere(site, tmp_path, "list", "configs")
    assert "configs/mini/ic.yaml" in done.stdout.split()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.strip().split("\n")[-1][:30])
def test_readme_python(code):
    from s3prl_interfaces.interfaces import registry

    known = dict(registry._SPECS)
    try:
        exec(code, {"__name__": "readme"})
    finally:
        registry._SPECS.clear()
        registry._SPECS.update(known)


def test_readme_yaml():
    from s3prl_interfaces import build_interface
    from s3prl_interfaces.runner.config import check_blocks, interface_block

    interface, feature_cache, _ = (yaml.safe_load(text) for text in blocks("yaml"))
    name, options = interface_block(interface)
    assert build_interface(name, num_layers=13, feature_dim=8, **options).num_layers == 13
    runner = {"total_steps": 1, **feature_cache["runner"]}
    config = check_blocks({"runner": runner, "optimizer": {}, "downstream_expert": {}}, strict=True)
    assert config.feature_cache.max_bytes == 500_000_000_000


def test_readme_commands():
    """Scripts exist, and every command line parses."""
    from s3prl_interfaces import cli

    commands = [line.split("#")[0].strip() for text in blocks("bash") for line in text.replace("\\\n", "").split("\n")]
    commands = [shlex.split(command) for command in commands if command]
    commands = [[*dropwhile(lambda word: re.match(r"[A-Z]+=", word), command)] for command in commands]
    assert len(commands) == 12
    for program, *arguments in commands:
        if program == "torchrun":  # what it starts
            program, *arguments = arguments[arguments.index("--no-python") + 1 :]
        if program == "bash":
            assert (ROOT / arguments[0]).is_file()
        else:
            assert program == "s3prl-interfaces"
            assert cli.parser().parse_args(arguments).command is not None


def test_readme_parameter_counts():
    from s3prl_interfaces import build_interface, list_interfaces

    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([\d,]+) \|$", README, flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == list_interfaces()
    for name, count in rows:
        interface = build_interface(name, num_layers=13, feature_dim=768)
        assert sum(parameter.numel() for parameter in interface.parameters()) == int(count.replace(",", ""))
