"""The only place that knows S3PRL is older than the PyTorch around it.

S3PRL 0.4.18 expects things that newer libraries no longer have: ``torchaudio.set_audio_backend`` and
``torchaudio.sox_effects`` (without them ``s3prl.hub`` does not import), ``torchaudio.info``, a
``torchaudio.load`` that reads audio without torchcodec, ``huggingface_hub.HfFolder`` and ``Repository``,
``tensorboardX`` and, from Python 3.12, ``distutils``. :func:`prepare` gives S3PRL what is missing, and nobody
else.

How: an import hook gives every S3PRL module an ``__import__`` of its own, which hands it an *overlay*: the
installed library plus the missing names. ``torchaudio`` and the others are not touched, so that
``hasattr(torchaudio, "sox_effects")`` tells every other library the truth, and S3PRL's modules are served
whenever they are imported, a task's too. What is there is never replaced; where nothing is missing there is
no hook. A stand-in either does the real work or raises a :class:`~s3prl_interfaces.errors.UserError` once it
is used.

A process that imports S3PRL anew (a DataLoader worker under ``spawn``) has to call :func:`prepare` too.
"""

import argparse
import ast
import builtins
import contextlib
import importlib
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import torch

from s3prl_interfaces.errors import DataError, UpstreamError, UserError

logger = logging.getLogger(__name__)

_TRUE = {"y", "yes", "t", "true", "on", "1"}
_FALSE = {"n", "no", "f", "false", "off", "0"}
# torchaudio's name and width for libsndfile's subtypes; the other subtypes keep their name and get 0 bits
_ENCODINGS = {
    "PCM_U8": ("PCM_U", 8),
    "PCM_16": ("PCM_S", 16),
    "PCM_24": ("PCM_S", 24),
    "PCM_32": ("PCM_S", 32),
    "FLOAT": ("PCM_F", 32),
    "DOUBLE": ("PCM_F", 64),
}


def prepare() -> None:
    """Let ``s3prl.hub``, ``s3prl.nn`` and ``s3prl.downstream.runner`` import on this stack.

    To be called before the first ``import s3prl...``: a module that is already imported stays as it is.
    Calling it again changes nothing, and it does nothing where S3PRL misses nothing.
    """
    if any(isinstance(finder, _S3PRLFinder) for finder in sys.meta_path):
        return
    overlays = _overlays()
    if overlays:
        sys.meta_path.insert(0, _S3PRLFinder(overlays))


def import_s3prl(name: str = "s3prl") -> ModuleType:
    """Import S3PRL, or one of its modules, on this stack.

    Args:
        name: The module, e.g. ``"s3prl.hub"``.

    Returns:
        The module.

    Raises:
        UpstreamError: S3PRL is not installed, or the module or something that it needs cannot be imported.
    """
    try:
        prepare()
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == "s3prl":
            raise UpstreamError("S3PRL is not installed: `pip install s3prl`.") from error
        raise UpstreamError(f"{name} cannot be imported: {error}. Is {error.name} installed?") from error
    except Exception as error:  # S3PRL's modules run code when they are imported
        raise UpstreamError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def safe_loading() -> Iterator[None]:
    """Let S3PRL build an upstream without running code that the checkpoint file holds.

    Within it, for the whole process, ``torch.load`` reads weights only, also where S3PRL asks for
    ``weights_only=False`` (``upstream/mockingjay/builder.py``, ``upstream/roberta/convert.py``). Allowed
    beyond PyTorch's own list is only what S3PRL's own checkpoints hold: ``argparse.Namespace`` (the ``Args``
    of ``pretrain/runner.py``, RoBERTa's config) and the learning rate schedules of ``s3prl.optimizers``,
    which old files call ``optimizers``. The text that S3PRL evaluates from a checkpoint's config
    (``conv_feature_layers``) may hold lists, tuples, numbers and dotted names, no calls.

    A user who trusts a file that holds more sets PyTorch's own switch ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``,
    which is respected.

    Raises:
        UpstreamError: S3PRL cannot be imported.
    """
    schedules = set(import_s3prl("s3prl.optimizers").SCHEDULES.values())
    allowed: list[Any] = [
        argparse.Namespace,
        *schedules,
        *((s, f"optimizers.{s.__name__}") for s in schedules),
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_LOADING)  # the switches below are the process's: one upstream at a time
        already = torch.serialization.get_safe_globals()  # the user's own stay allowed afterwards
        new = [item for item in allowed if item not in already]
        stack.enter_context(torch.serialization.safe_globals(new))
        if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0") not in ("1", "y", "yes", "true"):
            stack.enter_context(_environment("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1"))
        stack.enter_context(_no_calls_in_configs())
        yield


_LOADING = threading.RLock()


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _no_calls_in_configs() -> Iterator[None]:
    """Shadow ``eval`` in the modules of S3PRL that evaluate text from a checkpoint's config.

    The modules called ``expert`` and ``interfaces`` evaluate paths of their own, in terms of local variables.
    """
    shadowed = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("s3prl.upstream.")
        and name.rpartition(".")[2] not in ("expert", "interfaces")
        and "eval" not in vars(module)
    ]
    for module in shadowed:
        vars(module)["eval"] = partial(_evaluate_plain, vars(module))
    try:
        yield
    finally:
        for module in shadowed:
            del vars(module)["eval"]


def _evaluate_plain(names: Mapping[str, Any], text: str) -> Any:
    """The value of an expression of literals, ``+``, ``*`` and dotted names."""

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.List():
                return [value(item) for item in node.elts]
            case ast.Tuple():
                return tuple(value(item) for item in node.elts)
            case ast.UnaryOp(op=ast.USub()):
                return -value(node.operand)
            case ast.BinOp(op=ast.Add()):
                return value(node.left) + value(node.right)
            case ast.BinOp(op=ast.Mult()):
                return value(node.left) * value(node.right)
            case ast.Name() if node.id in names:
                return names[node.id]
            case ast.Attribute() if not node.attr.startswith("_"):
                owner = value(node.value)
                item = getattr(owner, node.attr)
                # not through a library to one that it imports (kaldi.math)
                if not isinstance(item, ModuleType) or item.__name__ == f"{owner.__name__}.{node.attr}":
                    return item
        raise ValueError(f"the checkpoint's config holds {text!r}, which is not a plain list of layers")

    return value(ast.parse(text.strip(), mode="eval").body)


class _Overlay(ModuleType):
    """A library as S3PRL sees it: what is missing (``extra``), and for the rest the ``real`` one."""

    def __init__(self, name: str, extra: Mapping[str, Any], real: str | None = None) -> None:
        super().__init__(name)
        self.__dict__.update(extra, _real=real)

    def __getattr__(self, name: str) -> Any:
        if self._real is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(self._real), name)


class _S3PRLFinder:
    """Finds S3PRL's modules where Python finds them, and has them import through the overlays."""

    def __init__(self, overlays: Mapping[str, _Overlay]) -> None:
        self.overlays = overlays
        self.libraries = {name.partition(".")[0] for name in overlays}
        self.builtins = {**vars(builtins), "__import__": self.import_for_s3prl}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "s3prl":
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                # what its `import` statements call, those inside functions too
                module.__dict__["__builtins__"] = self.builtins
                execute(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def import_for_s3prl(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        library = name.partition(".")[0]
        if level > 0 or library not in self.libraries:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if name in self.overlays and self.overlays[name]._real != name:
            module: ModuleType = self.overlays[name]
        else:  # the real import still has to load submodules, and to fail where there is nothing to import
            module = builtins.__import__(name, globals, locals, fromlist or (), 0)
        # `import a.b` binds `a`, `from a.b import c` looks in `a.b`
        return self.overlays.get(name if fromlist else library, module)


def _overlays() -> dict[str, _Overlay]:
    """What S3PRL needs and this stack does not have, by the name under which S3PRL imports it."""
    overlays: dict[str, _Overlay] = {}
    with contextlib.suppress(ModuleNotFoundError):
        torchaudio = importlib.import_module("torchaudio")
        extra: dict[str, Any] = {}
        if not hasattr(torchaudio, "set_audio_backend"):
            extra["set_audio_backend"] = _set_audio_backend
        if not hasattr(torchaudio, "info"):
            extra["info"] = _info
        if not hasattr(torchaudio, "sox_effects"):
            functions = ("apply_effects_file", "apply_effects_tensor")
            removed = {name: _Removed(f"torchaudio.sox_effects.{name}", _NO_SOX) for name in functions}
            overlays["torchaudio.sox_effects"] = extra["sox_effects"] = _Overlay("torchaudio.sox_effects", removed)
        if hasattr(torchaudio, "load_with_torchcodec") and not _installed("torchcodec"):
            extra["load"] = _load  # torchaudio's own does nothing but raise there
        if extra:
            overlays["torchaudio"] = _Overlay("torchaudio", extra, real="torchaudio")
    with contextlib.suppress(ModuleNotFoundError):
        hub = importlib.import_module("huggingface_hub")
        removed = {
            name: _Removed(f"huggingface_hub.{name}", remedy)
            for name, remedy in (("HfFolder", _NO_HF_FOLDER), ("Repository", _NO_REPOSITORY))
            if not hasattr(hub, name)
        }
        if removed:
            overlays["huggingface_hub"] = _Overlay("huggingface_hub", removed, real="huggingface_hub")
    if not _installed("tensorboardX"):  # S3PRL uses its SummaryWriter only, which PyTorch's follows
        overlays["tensorboardX"] = _Overlay("tensorboardX", {}, real="torch.utils.tensorboard")
    if not _installed("distutils"):
        util = _Overlay("distutils.util", {"strtobool": _strtobool})
        overlays["distutils.util"], overlays["distutils"] = util, _Overlay("distutils", {"util": util})
    return overlays


def _installed(library: str) -> bool:
    return library in sys.modules or importlib.util.find_spec(library) is not None


class _Removed:
    """Stands for something that a newer library no longer has: can be imported, raises once it is used."""

    def __init__(self, name: str, remedy: str) -> None:
        self._message = f"S3PRL uses {name}, which the installed version no longer has. {remedy}"

    def _fail(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(self._message)

    __call__ = _fail

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python and its tools probe these
            raise AttributeError(name)
        self._fail()


_NO_SOX = "Use this package's own task instead of S3PRL's, or an environment with torchaudio<2.9."
_NO_HF_FOLDER = "Log in with `hf auth login`; `huggingface_hub.get_token()` gives the token."
_NO_REPOSITORY = "Upload the experiment's folder with `hf upload` instead of --push_to_hf_hub."


def _set_audio_backend(backend: str | None) -> None:
    """Nothing is left to choose: torchaudio 2.9 has no backends."""
    logger.debug("S3PRL asks for torchaudio's backend %r; torchaudio has none to choose from any more.", backend)


def _load(
    uri: Any,
    frame_offset: int = 0,
    num_frames: int = -1,
    normalize: bool = True,
    channels_first: bool = True,
    format: str | None = None,
    buffer_size: int = 4096,
    backend: str | None = None,
) -> tuple[torch.Tensor, int]:
    """``torchaudio.load`` through soundfile: float32 samples (channels, time) in [-1, 1], and the rate.

    libsndfile recognises the format by itself: ``format``, ``buffer_size`` and ``backend`` mean nothing here.
    """
    if not normalize:
        raise ValueError("torchaudio.load(normalize=False) needs torchcodec: `pip install torchcodec`.")
    if frame_offset < 0 or num_frames < -1 or num_frames == 0:
        raise ValueError(f"frame_offset={frame_offset}, num_frames={num_frames}: need >= 0, and -1 or > 0")
    wav, rate = _soundfile("read", uri, frames=num_frames, start=frame_offset, dtype="float32", always_2d=True)
    samples = torch.from_numpy(wav)
    return (samples.T.contiguous() if channels_first else samples), rate


class _AudioInfo(NamedTuple):
    sample_rate: int
    num_frames: int
    num_channels: int
    bits_per_sample: int
    encoding: str


def _info(uri: Any, format: str | None = None, buffer_size: int = 4096, backend: str | None = None) -> _AudioInfo:
    """``torchaudio.info`` through soundfile."""
    info = _soundfile("info", uri)
    encoding, bits = _ENCODINGS.get(info.subtype, (info.subtype, 0))
    encoding = "FLAC" if info.format == "FLAC" else encoding
    return _AudioInfo(info.samplerate, info.frames, info.channels, bits, encoding)


def _soundfile(function: str, uri: Any, **kwargs: Any) -> Any:
    import soundfile

    call: Callable[..., Any] = getattr(soundfile, function)
    try:
        return call(uri, **kwargs)
    # libsndfile's own errors are RuntimeErrors; the others are of a header that claims more samples than memory holds
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        remedy = "Is the path right? Formats that libsndfile does not know need `pip install torchcodec`."
        raise DataError(f"{uri} cannot be read: {error} {remedy}") from error


def _strtobool(text: str) -> int:
    """``distutils.util.strtobool``, which left Python with 3.12."""
    if text.lower() in _TRUE:
        return 1
    if text.lower() in _FALSE:
        return 0
    raise ValueError(f"invalid truth value {text!r}")
