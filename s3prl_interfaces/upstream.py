"""Getting an upstream by name: S3PRL's hub, transformers, a Python file or module of the user's, the small one here.

An upstream is what S3PRL calls one (``s3prl/upstream/interfaces.py``): a module that takes a list of 1-D
float waveforms at 16 kHz and returns a dict whose ``hidden_states`` are tensors (batch, time, width), and
that has ``get_downsample_rates(key)``, the number of samples a frame.
"""

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import logging
import pickle
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from s3prl_interfaces.errors import UpstreamError, unknown_name
from s3prl_interfaces.s3prl_compat import import_s3prl, prepare, safe_loading
from s3prl_interfaces.transformers_upstream import load_transformers_upstream

logger = logging.getLogger(__name__)

TRANSFORMERS = "hf:"
"""What a name of transformers begins with: ``hf:FOLDER_OR_ID``."""
SHIPPED = {"tiny_hubert": Path(__file__).parent / "tiny_hubert" / "model"}
"""Upstreams that come with this package: a name, and a folder of transformers."""

_NEEDS_A_FILE = ("_local", "_url", "_custom", "_gdriveid")
_CALLED_AS = "It is called as S3PRL calls a hub entry: (ckpt=..., model_config=..., refresh=...); take **kwargs."


def load_upstream(
    name: str,
    *,
    ckpt: str | None = None,
    model_config: str | None = None,
    refresh: bool = False,
    hub: str = "torch",
    model_name: str = "model.pt",
    revision: str | None = None,
    unpadded: bool = False,
) -> nn.Module:
    """Build an upstream as S3PRL's runner does (``downstream/runner.py``, ``_get_upstream``).

    Args:
        name: An entry of ``s3prl.hub`` (``hubert``, ``wavlm_local``, ...), or ``tiny_hubert``, which comes with this
            package. Or ``hf:FOLDER_OR_ID``, a speech encoder of transformers: a folder that ``save_pretrained`` has
            written, or an id of the Hugging Face Hub. Or ``FILE.py:FACTORY`` or ``package.module:FACTORY``, a class or
            function of the user's that returns the upstream. It is called as S3PRL calls a hub entry, with the
            keywords ``ckpt``, ``model_config`` and ``refresh``: best it takes ``**kwargs``. With
            ``hub="huggingface"`` a repository there with code of its own.
        ckpt: The checkpoint file (``-k``), for the entries that take one.
        model_config: The upstream's configuration file (``-g``), for the entries that take one.
        refresh: Download again what S3PRL has downloaded before.
        hub: ``"torch"``, or ``"huggingface"``: download the repository ``name`` and build the
            ``UpstreamExpert`` of its ``expert.py``, which RUNS THE CODE of that repository.
        model_name: The checkpoint's name within that repository.
        revision: The branch, tag or commit of that repository, or of an id after ``hf:``; pin a commit to know what
            code runs, and what weights.
        unpadded: Run utterances one at a time, so that none has padding beside it; of ``hf:`` and ``tiny_hubert``.

    Returns:
        The upstream, on the device and in the mode in which its loader leaves it.

    Raises:
        UpstreamError: The upstream is unknown, its checkpoint is missing, unreadable or holds code, its
            loader fails, or what it returns is not an upstream.
    """
    options = {"ckpt": ckpt, "model_config": model_config, "refresh": refresh}
    if name.startswith(TRANSFORMERS) or name in SHIPPED:
        return _from_transformers(name, hub, revision, unpadded, options)
    if unpadded:
        raise UpstreamError(f"--upstream_unpadded goes with `-u hf:FOLDER_OR_ID` and tiny_hubert, not with {name!r}.")
    if hub == "huggingface":
        if ckpt is not None:
            raise UpstreamError("-k does not go with --hub huggingface: name its file by --upstream_model_name.")
        return _from_huggingface(name, model_name, revision, options)
    if hub != "torch":
        raise UpstreamError(unknown_name("hub", hub, ("torch", "huggingface")))
    if ":" in name or name.endswith(".py"):
        return _from_user(name, options)
    return _from_s3prl(name, options)


def list_upstreams() -> list[str]:
    """The names of S3PRL's hub entries and of what comes with this package, sorted.

    Beside them :func:`load_upstream` takes ``hf:FOLDER_OR_ID``, ``FILE.py:FACTORY`` and ``package.module:FACTORY``.

    Raises:
        UpstreamError: S3PRL is not installed or cannot be imported.
    """
    return sorted([*_entries(), *SHIPPED])


def _entries() -> dict[str, Callable[..., Any]]:
    """The upstreams in ``s3prl.hub``, which holds what its files import beside them (``Path``, helpers)."""
    found: dict[str, Callable[..., Any]] = {}
    for name, value in vars(import_s3prl("s3prl.hub")).items():
        home = getattr(value, "__module__", None) or ""
        of_s3prl = home.partition(".")[0] == "s3prl"
        # a function that a user has put there is an entry too
        if not name.startswith("_") and inspect.isfunction(value) and (not of_s3prl or home.endswith(".hubconf")):
            found[name] = value
    return found


def _from_s3prl(name: str, options: dict[str, Any]) -> nn.Module:
    entries = _entries()
    if name not in entries:
        names = list_upstreams()
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        rest = (
            f"`s3prl-interfaces list upstreams` prints all {len(names)}; one of transformers is hf:FOLDER_OR_ID, one "
            "of yours FILE.py:FACTORY."
        )
        raise UpstreamError(f"Unknown upstream {name!r}.{hint} {rest}")
    ckpt = options["ckpt"]
    if ckpt is not None and name.endswith("_local") and "://" not in ckpt and not Path(ckpt).is_file():
        raise UpstreamError(f"Upstream {name!r}: there is no checkpoint file {ckpt}. Give it with -k FILE.")
    with _failures_of(f"Upstream {name!r}", _checkpoint_hint(name, ckpt)), safe_loading():
        model = entries[name](**options)
    return _checked(model, f"Upstream {name!r}")


def _from_transformers(name: str, hub: str, revision: str | None, unpadded: bool, options: dict[str, Any]) -> nn.Module:
    shipped = SHIPPED.get(name)
    source = name.removeprefix(TRANSFORMERS) if shipped is None else str(shipped)
    what = f"Upstream {name!r}"
    if options["ckpt"] is not None or options["model_config"] is not None:
        raise UpstreamError(
            f"{what} takes no -k and no -g: weights and configuration are one folder. Name it with -u hf:FOLDER."
        )
    if hub != "torch":
        raise UpstreamError(f"{what} needs no --hub: leave --hub {hub} out, which is for repositories with code.")
    if not source:
        raise UpstreamError(f"{what}: write hf:FOLDER_OR_ID.")
    if shipped is not None and (revision is not None or not shipped.is_dir()):
        missing = f"its folder {shipped} is missing: install s3prl-interfaces again"
        raise UpstreamError(f"{what}: {missing if revision is None else 'it has no revisions'}.")
    with _failures_of(what):
        return load_transformers_upstream(source, revision=revision, refresh=options["refresh"], unpadded=unpadded)


def _from_user(name: str, options: dict[str, Any]) -> nn.Module:
    source, _, factory_name = name.rpartition(":")
    if not source or not factory_name:
        raise UpstreamError(f"Upstream {name!r}: write FILE.py:FACTORY or package.module:FACTORY.")
    is_file = source.endswith(".py")
    what = f"Upstream {name!r}"
    folder = Path(source).parent if is_file else None
    with _on_path(folder):
        with _failures_of(what, "" if is_file else f"Is {source} installed, or on PYTHONPATH?"):
            prepare()
            module = _module_of_file(Path(source)) if is_file else importlib.import_module(source)
        factory = getattr(module, factory_name, None)
        if not callable(factory):
            own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            known = unknown_name("factory", factory_name, own) if own else f"It has no {factory_name}."
            raise UpstreamError(f"{what}: {source} has no callable {factory_name!r}. {known}")
        with _failures_of(what, _CALLED_AS):
            model = factory(**options)
    return _probed(_checked(model, what), what)


def _from_huggingface(name: str, model_name: str, revision: str | None, options: dict[str, Any]) -> nn.Module:
    what = f"Upstream {name!r} of the Hugging Face Hub"
    with _failures_of(what, "Is the name (owner/repository) right, and is there a connection?"):
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, revision=revision))
    for needed in ("expert.py", model_name):
        if not (folder / needed).is_file():
            remedy = "" if needed == "expert.py" else " Name its checkpoint with --upstream_model_name."
            raise UpstreamError(f"{what} has no file {needed}.{remedy}")
    logger.warning("Upstream %r: running the code that was downloaded, %s", name, folder / "expert.py")
    with _on_path(folder), _failures_of(what, f"Its {folder / 'requirements.txt'} may say what it needs."):
        prepare()
        expert = _module_of_file(folder / "expert.py").UpstreamExpert
        with safe_loading():
            model = expert(**{**options, "ckpt": str(folder / model_name)})
    return _probed(_checked(model, what), what)


def _module_of_file(path: Path) -> ModuleType:
    """Run a Python file as a module under a name of its own."""
    if not path.is_file():
        raise UpstreamError(f"There is no file {path}.")
    path = path.resolve()
    name = f"s3prl_interfaces_file_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UpstreamError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _on_path(folder: Path | None) -> Iterator[None]:
    """Let a file import its neighbours while it runs, as ``python FILE.py`` does."""
    if folder is None:
        yield
        return
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _checked(model: Any, what: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise UpstreamError(f"{what} returned a {type(model).__name__}, not a torch.nn.Module.")
    if not callable(getattr(model, "get_downsample_rates", None)):
        raise UpstreamError(f"{what} has no get_downsample_rates(key) -> samples a frame (HuBERT's is 320).")
    return model


def _probed(model: nn.Module, what: str) -> nn.Module:
    """Run a second of sound through an upstream that is not S3PRL's; keeps its mode and the random state."""
    parameter = next(model.parameters(), torch.empty(0))
    wav = torch.sin(torch.arange(16000, device=parameter.device) / 10)
    modes = {module: module.training for module in model.modules()}
    devices = [parameter.device] if parameter.is_cuda else []
    try:
        with (
            _failures_of(f"{what}, given a second of sound,"),
            torch.random.fork_rng(devices=devices),
            torch.no_grad(),
        ):
            features = model.eval()([wav])
    finally:
        for module, training in modes.items():
            module.training = training
    states = features.get("hidden_states") if isinstance(features, dict) else None
    if not isinstance(states, list | tuple) or not states:
        got = f"the keys {sorted(map(str, features))}" if isinstance(features, dict) else f"a {type(features).__name__}"
        raise UpstreamError(f"{what} must return a dict with a list of hidden_states; it returned {got}.")
    for state in states:
        if not isinstance(state, torch.Tensor) or state.dim() != 3 or len(state) != 1:
            shape = tuple(state.shape) if isinstance(state, torch.Tensor) else type(state).__name__
            raise UpstreamError(f"{what}: each of hidden_states must be (batch, time, width); one is {shape}.")
    return model


@contextlib.contextmanager
def _failures_of(what: str, hint: str = "") -> Iterator[None]:
    """Turn whatever other people's code raises into one line that names the upstream."""
    try:
        yield
    except UpstreamError as error:
        raise UpstreamError(f"{what}: {error}") from error
    except Exception as error:
        raise UpstreamError(" ".join(filter(None, (f"{what} failed: {_reason(error)}", hint)))) from error


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            return "its checkpoint is damaged, is not a checkpoint or holds more than weights."
        trust = "Only if you trust the file: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 in the environment loads it."
        return f"its checkpoint holds {refused[1]}, which may run code. {trust}"
    message = str(error).strip()
    if not message:  # a bare assert: the line says what it wanted
        frames = traceback.extract_tb(error.__traceback__)
        message = (frames[-1].line or "") if frames else ""
    return f"{type(error).__name__}: {message}".rstrip(". ") + "."


def _checkpoint_hint(name: str, ckpt: str | None) -> str:
    if ckpt is not None:
        missing = "://" not in ckpt and not Path(ckpt).exists()
        return f"There is no {ckpt} (-k)." if missing else f"Is -k {ckpt} a checkpoint for {name}?"
    if name.endswith(_NEEDS_A_FILE):
        return "It needs a file of yours: a checkpoint with -k, or a configuration with -g."
    return ""
