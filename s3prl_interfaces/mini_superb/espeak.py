"""eSpeak NG in process: text in, samples out, the same samples every time.

eSpeak NG keeps state that none of its functions resets: the position in its pitch flutter table is a static
variable that survives even ``espeak_Terminate``, and its random numbers are seeded with the time of day. So
the sound of an utterance would depend on what was spoken before it. Unloading the shared library is what
forgets everything, and it is cheap (some 5 ms), so each utterance is spoken by a freshly loaded library.
"""

from __future__ import annotations

import _ctypes
import ctypes
import importlib
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from s3prl_interfaces.errors import UserError

SAMPLE_RATE = 22050
"""Samples a second that eSpeak NG gives."""

# From espeak-ng/speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS = 1
_DONT_EXIT = 0x8000  # without it, a failed initialisation ends the whole process
_CHARS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_MAX_PATH_BYTES = 140  # eSpeak NG cuts its data path at 160 bytes and then silently looks elsewhere
_VOLUME_PERCENT = 50  # loud variants clip at 100

_END_OF_EVENTS = 0
_PHONEME = 7


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """``espeak_EVENT``. ``sample`` says exactly where it happens, ``audio_position`` the same cut to milliseconds."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


class Phoneme(NamedTuple):
    """A phoneme of an utterance; it lasts until the next one starts.

    Attributes:
        start: Its first sample.
        name: eSpeak NG's mnemonic (espeak-ng/docs/phonemes.md) with its stress mark; pauses begin with ``_``.
    """

    start: int
    name: str


class Espeak:
    """A speech synthesiser; a context manager, since it holds a temporary copy of the shared library.

    The copy makes the library ours alone: nobody else in the process keeps it loaded or is disturbed by it.
    One instance must not be used by two threads at the same time.

    Raises:
        UserError: If the extra ``mini`` is not installed, or its files are incomplete.
    """

    def __init__(self) -> None:
        library, data = _find_espeak()
        self._folder = tempfile.TemporaryDirectory(prefix="espeak-")
        try:
            self._library = _loadable(Path(shutil.copy(library, self._folder.name)), library)
            self._data = _short_path(data, Path(self._folder.name))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Espeak:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary copy."""
        self._folder.cleanup()

    def define_variant(self, name: str, text: str) -> None:
        """Define a voice variant of the caller's own, or define it anew; eSpeak NG has room for some 200 at a time.

        Args:
            name: What follows the ``+`` in a voice.
            text: A variant file's text (espeak-ng/docs/voices.md).
        """
        copy = Path(self._folder.name) / "own"
        if self._data != copy:
            shutil.copytree(self._data, copy)
            self._data = copy
        (copy / "voices" / "!v" / name).write_text(text, encoding="utf-8")

    def speak(
        self, text: str, voice: str, *, rate: int = 160, pitch: int = 50, pitch_range: int = 50, seed: int = 0
    ) -> NDArray[np.int16]:
        """Speak ``text``; the result depends on the arguments alone.

        Args:
            text: What to say.
            voice: An eSpeak NG voice, with a variant if wanted, such as ``"gmw/en-US+f2"``.
            rate: Words a minute, 80 to 450.
            pitch: Base pitch, 0 to 99; 50 is normal.
            pitch_range: How lively the intonation is, 0 to 99; 50 is normal.
            seed: Seed of the breath noise, 0 to 2**31 - 1.

        Returns:
            Samples ``(time,)``, int16, at :data:`SAMPLE_RATE`.

        Raises:
            UserError: If eSpeak NG cannot start, does not know the voice or gives no sound.
        """
        settings = {_RATE: rate, _PITCH: pitch, _RANGE: pitch_range}
        return self._synthesise(text, voice, settings, seed, options=0)[0]

    def align(
        self, text: str, voice: str, *, rate: int = 160, pitch: int = 50, pitch_range: int = 50, seed: int = 0
    ) -> tuple[NDArray[np.int16], list[Phoneme]]:
        """Speak ``text`` as :meth:`speak` and say when each phoneme starts.

        eSpeak NG counts the closure before a plosive that begins a word to the sound before it.

        Args:
            text: What to say.
            voice: See :meth:`speak`, as for all that follows.
            rate: Words a minute.
            pitch: Base pitch.
            pitch_range: How lively the intonation is.
            seed: Seed of the breath noise.

        Returns:
            The samples that :meth:`speak` gives, and the phonemes in the order of their starts, in samples at
            :data:`SAMPLE_RATE`. Phonemes with no sound of their own start with the next one.

        Raises:
            UserError: See :meth:`speak`.
        """
        settings = {_RATE: rate, _PITCH: pitch, _RANGE: pitch_range}
        return self._synthesise(text, voice, settings, seed, options=_PHONEME_EVENTS)

    def _synthesise(
        self, text: str, voice: str, settings: Mapping[int, int], seed: int, options: int
    ) -> tuple[NDArray[np.int16], list[Phoneme]]:
        chunks: list[bytes] = []
        phonemes: list[Phoneme] = []

        def collect(samples: int | None, count: int, events: Any) -> int:
            if samples and count:
                chunks.append(ctypes.string_at(samples, 2 * count))
            phonemes.extend(_phonemes(events))
            return 0

        callback = _Callback(collect)  # a name of its own, so that it outlives the calls below
        library = ctypes.CDLL(str(self._library))
        try:
            self._start(library, options)
            library.espeak_SetSynthCallback(callback)
            if library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise UserError(f"eSpeak NG does not know the voice {voice!r}.")
            for parameter, value in {_VOLUME: _VOLUME_PERCENT, **settings}.items():
                library.espeak_SetParameter(parameter, int(value), 0)
            library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
            data = text.encode() + b"\0"
            failed = library.espeak_Synth(
                data, ctypes.c_size_t(len(data)), 0, 1, 0, _CHARS_UTF8, None, None
            ) or not any(chunks)
            if failed:
                raise UserError(f"eSpeak NG could not say {text!r} with the voice {voice!r}.")
        finally:
            library.espeak_Terminate()
            _unload(library._handle)
        return np.frombuffer(b"".join(chunks), dtype=np.int16), phonemes

    def _start(self, library: ctypes.CDLL, options: int) -> None:
        if not hasattr(library, "espeak_ng_SetRandSeed"):
            raise UserError("This eSpeak NG is too old: pip install -U 's3prl-interfaces[mini]'")
        rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, os.fsencode(self._data), _DONT_EXIT | options)
        if rate != SAMPLE_RATE:
            raise UserError(f"eSpeak NG could not start with its data in {self._data} (it returned {rate}).")


def _phonemes(events: Any) -> Iterator[Phoneme]:
    """Read the phonemes out of a list of events; the list may be NULL."""
    for index in itertools.count() if events else ():
        event = events[index]
        if event.type == _END_OF_EVENTS:
            return
        if event.type == _PHONEME:
            yield Phoneme(event.sample, event.id.string.decode())


def _find_espeak() -> tuple[Path, Path]:
    """Find the shared library and the data directory of the extra ``mini``."""
    try:
        loader = importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise UserError(
            "The speech synthesiser of mini-SUPERB is not installed: pip install 's3prl-interfaces[mini]'"
        ) from error
    library = Path(loader.get_library_path())
    data = library.with_name("espeak-ng-data")
    # Started without its data, eSpeak NG would take any other that it finds on the machine.
    for path in (library, data / "phontab", data / "en_dict"):
        if not path.is_file():
            raise UserError(f"{path} is missing: pip install --force-reinstall --no-deps espeakng-loader puts it back.")
    return library, data


def _loadable(copy: Path, original: Path) -> Path:
    """Give ``copy``, or ``original`` where temporary directories may not hold code (mounted ``noexec``)."""
    for library in (copy, original):
        try:
            _unload(ctypes.CDLL(str(library))._handle)
        except OSError as error:
            reason = error
        else:
            return library
    raise UserError(f"eSpeak NG cannot be loaded on this machine: {reason}")


def _short_path(data: Path, folder: Path) -> Path:
    """Give a path to ``data`` that eSpeak NG does not cut, through a link in ``folder`` if need be."""
    if len(os.fsencode(data)) <= _MAX_PATH_BYTES:
        return data
    link = folder / "data"
    if len(os.fsencode(link)) > _MAX_PATH_BYTES:
        raise UserError(f"{data} and {folder} are too long for eSpeak NG; set TMPDIR to a shorter directory.")
    try:
        link.symlink_to(data, target_is_directory=True)
    except OSError:  # Windows does not let everyone make links
        shutil.copytree(data, link)
    return link


def _unload(handle: int) -> None:
    if sys.platform == "win32":
        _ctypes.FreeLibrary(handle)
    else:
        _ctypes.dlclose(handle)
