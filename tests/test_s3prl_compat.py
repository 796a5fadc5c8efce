"""S3PRL imports on this stack, and nobody else sees what makes it."""

import argparse
import builtins
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from s3prl_interfaces import s3prl_compat as compat
from s3prl_interfaces.errors import DataError, UpstreamError, UserError

MODULES = ["s3prl.hub", "s3prl.nn", "s3prl.upstream.interfaces", "s3prl.downstream.runner"]
IMPORT_ALL = f"""
import importlib, json
def outcome(name):
    try:
        importlib.import_module(name)
    except Exception as error:
        return f"{{type(error).__name__}}: {{error}}"
    return "imported"
outcomes = {{name: outcome(name) for name in {MODULES}}}
"""
removed_from_torchaudio = pytest.mark.skipif(hasattr(torchaudio, "sox_effects"), reason="torchaudio has it")


def run(code):
    root = Path(compat.__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@removed_from_torchaudio
def test_s3prl_needs_it_on_this_stack():
    outcomes = run(IMPORT_ALL + "print(json.dumps(outcomes))")
    assert "set_audio_backend" in outcomes["s3prl.hub"]
    assert "set_audio_backend" in outcomes["s3prl.nn"]
    assert "imported" not in outcomes["s3prl.downstream.runner"]


def test_all_import_and_the_libraries_stay_as_they_were():
    code = """
import sys, torchaudio, huggingface_hub
libraries = torchaudio, huggingface_hub
from s3prl_interfaces.s3prl_compat import prepare
def state():
    return [{name: id(value) for name, value in vars(library).items()} for library in libraries]
before = state()
prepare()
prepare()
"""
    code += (
        IMPORT_ALL
        + """
changed = [now[name] != then[name] for then, now in zip(before, state()) for name in then]
outcomes["changed"] = sum(changed)
added = set(state()[0]) - set(before[0]) | set(state()[1]) - set(before[1])
names = "set_audio_backend", "sox_effects", "info", "HfFolder", "Repository"
outcomes["added"] = [name for name in names if name in added]
outcomes["modules"] = [n for n in ("torchaudio.sox_effects", "tensorboardX") if n in sys.modules]
print(json.dumps(outcomes))
"""
    )
    outcomes = run(code)
    assert {name: outcomes[name] for name in MODULES} == dict.fromkeys(MODULES, "imported")
    assert outcomes["changed"] == 0
    if not hasattr(torchaudio, "sox_effects"):
        assert outcomes["added"] == outcomes["modules"] == []


@removed_from_torchaudio
def test_removed_functions_raise_when_called():
    expert = compat.import_s3prl("s3prl.upstream.mos_prediction.expert")
    with pytest.raises(UserError, match=r"apply_effects_tensor.*torchaudio<2\.9"):
        expert.apply_effects_tensor(torch.zeros(1, 10), 16000, [["rate", "8000"]])
    runner = compat.import_s3prl("s3prl.downstream.runner")
    with pytest.raises(UserError, match=r"HfFolder.*hf auth login"):
        runner.HfFolder.get_token()
    with pytest.raises(UserError, match=r"Repository.*hf upload"):
        runner.Repository(local_dir="x", clone_from="y")
    assert not hasattr(runner.HfFolder, "__wrapped__")  # what inspect and others ask for


def overlays_with(monkeypatch, **libraries):
    for name, library in libraries.items():
        monkeypatch.setitem(sys.modules, name, library)
    return compat._overlays()


def library(name, **attributes):
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    return module


def test_what_exists_is_left_alone(monkeypatch):
    complete = {
        "torchaudio": library(
            "torchaudio", set_audio_backend=object(), info=object(), sox_effects=object(), load=object()
        ),
        "huggingface_hub": library("huggingface_hub", HfFolder=object(), Repository=object()),
        "tensorboardX": library("tensorboardX"),
        "distutils": library("distutils"),
    }
    assert overlays_with(monkeypatch, **complete) == {}
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, compat._S3PRLFinder)])
    finders = list(sys.meta_path)
    compat.prepare()
    assert sys.meta_path == finders

    # one name missing: the others are still the library's own
    partial = library("torchaudio", set_audio_backend=object(), info=object(), load=object())
    overlay = overlays_with(monkeypatch, torchaudio=partial)["torchaudio"]
    assert overlay.set_audio_backend is partial.set_audio_backend
    assert overlay.load is partial.load
    assert overlay.info is partial.info
    assert not hasattr(partial, "sox_effects")
    with pytest.raises(UserError):
        overlay.sox_effects.apply_effects_file("a.wav", [])


def test_a_working_load_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", library("torchcodec"))
    overlay = compat._overlays().get("torchaudio", torchaudio)
    assert overlay.load is torchaudio.load


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("import torchaudio", "torchaudio.sox_effects.apply_effects_file"),
        ("import torchaudio.sox_effects", "torchaudio.sox_effects.apply_effects_file"),
        ("import torchaudio.sox_effects as x", "x.apply_effects_file"),
        ("from torchaudio import sox_effects, load", "sox_effects.apply_effects_file"),
        ("from torchaudio.sox_effects import apply_effects_file", "apply_effects_file"),
        ("import torchaudio.transforms", "torchaudio.sox_effects.apply_effects_file"),
        ("def f():\n  import torchaudio as t\n  return t.sox_effects.apply_effects_file", "f()"),
    ],
)
@removed_from_torchaudio
def test_every_form_of_import(statement, value):
    names = {"__builtins__": compat._S3PRLFinder(compat._overlays()).builtins}
    exec(statement, names)
    assert isinstance(eval(value, names), compat._Removed)


def test_other_imports_are_the_real_ones():
    names = {
        "__builtins__": compat._S3PRLFinder(compat._overlays()).builtins,
        "__name__": "a.b",
        "__package__": "os",
    }
    exec(
        "from torchaudio.compliance import kaldi; import os.path; import torch.nn as n; from . import path",
        names,
    )
    assert names["kaldi"] is torchaudio.compliance.kaldi
    assert names["os"] is os
    assert names["n"] is torch.nn
    assert names["path"] is os.path
    for missing in (
        "from torchaudio import nothing",
        "import torchaudio.nothing",
        "from torchaudio.sox_effects import no",
    ):
        with pytest.raises(ImportError):
            exec(missing, names)


def test_distutils_of_python_312(monkeypatch):
    installed = compat._installed
    monkeypatch.setattr(compat, "_installed", lambda name: name != "distutils" and installed(name))
    names = {"__builtins__": compat._S3PRLFinder(compat._overlays()).builtins}
    exec("from distutils.util import strtobool; import distutils.util", names)
    assert [names["strtobool"](text) for text in ("True", "no", "1")] == [1, 0, 1]
    assert names["distutils"].util.strtobool is names["strtobool"]
    with pytest.raises(ValueError, match="maybe"):
        names["strtobool"]("maybe")


def test_tensorboard_stands_for_tensorboardx(monkeypatch):
    installed = compat._installed
    monkeypatch.setattr(compat, "_installed", lambda name: name != "tensorboardX" and installed(name))
    names = {"__builtins__": compat._S3PRLFinder(compat._overlays()).builtins}
    exec("from tensorboardX import SummaryWriter", names)
    from torch.utils.tensorboard import SummaryWriter

    assert names["SummaryWriter"] is SummaryWriter


@pytest.fixture
def wav(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32767, size=(400, 2), dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    return tmp_path / "a.wav", torch.from_numpy(samples.astype("float32") / 32768).T


def test_load_reads_what_the_file_holds(wav):
    path, expected = wav
    for form in (path, str(path)):
        samples, rate = compat._load(form)
        assert rate == 8000
        assert samples.dtype == torch.float32
        torch.testing.assert_close(samples, expected, rtol=0, atol=0)
    with path.open("rb") as file:
        torch.testing.assert_close(compat._load(file)[0], expected, rtol=0, atol=0)
    part, _ = compat._load(path, frame_offset=50, num_frames=100)
    torch.testing.assert_close(part, expected[:, 50:150], rtol=0, atol=0)
    torch.testing.assert_close(compat._load(path, frame_offset=390, num_frames=100)[0], expected[:, 390:])
    torch.testing.assert_close(compat._load(path, channels_first=False)[0], expected.T)
    assert compat._info(path) == (8000, 400, 2, 16, "PCM_S")


def test_load_says_what_it_cannot_read(wav, tmp_path):
    path, _ = wav
    with pytest.raises(ValueError, match="torchcodec"):
        compat._load(path, normalize=False)
    for wrong in ({"num_frames": 0}, {"num_frames": -2}, {"frame_offset": -1}):
        with pytest.raises(ValueError, match="frame_offset"):
            compat._load(path, **wrong)
    (tmp_path / "text.m4a").write_text("no sound")
    for unreadable in ("text.m4a", "missing.wav"):
        with pytest.raises(DataError, match=rf"{unreadable} cannot be read.*torchcodec"):
            compat._load(tmp_path / unreadable)
    with pytest.raises(DataError, match=r"missing\.wav"):
        compat._info(tmp_path / "missing.wav")


def test_a_task_of_s3prl_reads_audio(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 1600).astype("float32")
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    meta = {"labels": {"neu": 0}, "meta_data": [{"path": "a.wav", "label": "neu"}]}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    dataset = compat.import_s3prl("s3prl.downstream.emotion.dataset")
    wav, label, _ = dataset.IEMOCAPDataset(str(tmp_path), str(tmp_path / "meta.json"))[0]
    np.testing.assert_allclose(wav, samples, atol=1e-6)
    assert label == 0


def test_import_s3prl_says_what_is_missing(monkeypatch):
    with pytest.raises(UpstreamError, match=r"s3prl\.no_such_module cannot be imported"):
        compat.import_s3prl("s3prl.no_such_module")
    monkeypatch.setitem(sys.modules, "s3prl", None)
    with pytest.raises(UpstreamError, match="S3PRL is not installed: `pip install s3prl`"):
        compat.import_s3prl("s3prl")


def test_safe_loading_restores_everything(monkeypatch):
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    compat.import_s3prl("s3prl.hub")
    module = sys.modules["s3prl.upstream.hubert.hubert_model"]
    before = set(torch.serialization.get_safe_globals())

    def build():
        with compat.safe_loading():
            assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
            assert module.eval is not builtins.eval
            raise KeyError

    with pytest.raises(KeyError):
        build()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert set(torch.serialization.get_safe_globals()) == before
    assert not hasattr(module, "eval")
    # what the user had set or allowed before stays
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    with torch.serialization.safe_globals([argparse.Namespace]):
        with pytest.raises(KeyError):
            build()
        assert argparse.Namespace in torch.serialization.get_safe_globals()
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "0"


def test_a_user_may_trust_a_file(monkeypatch):
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with compat.safe_loading():
        assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_every_module_that_evaluates_a_config_is_covered():
    package = compat.import_s3prl("s3prl.hub").__file__
    upstream = Path(package).parent / "upstream"
    evaluating = {
        ".".join(path.relative_to(upstream.parent.parent).with_suffix("").parts)
        for path in upstream.rglob("*.py")
        if path.stem not in ("expert", "interfaces") and re.search(r"(?<![.\w])eval\(\w", path.read_text())
    }
    assert "s3prl.upstream.hubert.hubert_model" in evaluating
    with compat.safe_loading():
        for name in evaluating & set(sys.modules):
            assert hasattr(sys.modules[name], "eval"), name
    assert evaluating <= set(sys.modules)


def test_plain_evaluation():
    names = {"torchaudio": torchaudio, "os": os}
    layers = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,-2)] * 2"
    assert compat._evaluate_plain(names, layers) == eval(layers)
    kaldi = "torchaudio.compliance.kaldi"
    assert compat._evaluate_plain(names, f"{kaldi}.fbank") is torchaudio.compliance.kaldi.fbank
    for code in (
        "open('x')",
        "[x for x in (1,)]",
        "lambda: 1",
        "().__class__",
        f"{kaldi}.torch.load",
        "os.path",
        "x",
    ):
        with pytest.raises(ValueError, match="plain list of layers"):
            compat._evaluate_plain(names, code)
