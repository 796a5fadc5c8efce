"""Emotions to recognise, in the layout of IEMOCAP."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from tqdm import tqdm

from downstream_tasks.er.prepare import write_metadata
from s3prl_interfaces.mini_superb import acoustics, corpus
from s3prl_interfaces.mini_superb.espeak import Espeak
from s3prl_interfaces.mini_superb.sentences import sentences
from s3prl_interfaces.mini_superb.speakers import Speaker, endless, make_speakers, record

NAME = "iemocap"
DIRECTORY = "IEMOCAP_full_release"
VERSION = 1
"""Raised whenever the same seed gives other bytes."""

_SESSIONS = 5
_UTTERANCES = 60  # of one session
_DIALOG_UTTERANCES = 10
_DIALOGS = ("F_impro", "M_impro", "F_script01_", "M_script01_")  # who wears the markers, and what is played
_STREAM = 20001  # sets this corpus's random numbers apart from another's


@dataclass(frozen=True)
class _Style:
    """How an emotion changes a speaker's voice, and how annotators rate it.

    Attributes:
        pitch: Added to the pitch.
        pitch_range: Added to the liveliness.
        rate: Added to the words a minute.
        loudness: Percent.
        tilt: Gain, in 1/4096, of an echo one sample late: the voice is dull above 0 and sharp below.
        words: What the annotators call it.
        ratings: Valence, activation and dominance, 1 to 5.
    """

    pitch: int
    pitch_range: int
    rate: int
    loudness: int
    tilt: int
    words: str
    ratings: tuple[int, int, int]


# Speakers differ in these settings about as much as emotions do, so no single setting gives an emotion away.
_STYLES = {
    "neu": _Style(-4, -18, 0, 45, 0, "Neutral", (3, 3, 3)),
    "hap": _Style(24, 24, 5, 60, -800, "Happiness", (4, 3, 3)),
    "exc": _Style(28, 24, 20, 75, -1200, "Excited", (4, 4, 3)),
    "ang": _Style(-8, 20, 45, 100, -2800, "Anger", (2, 4, 4)),
    "sad": _Style(-20, -30, -45, 25, 2000, "Sadness", (2, 2, 2)),
    "fru": _Style(-4, 5, 15, 75, -1500, "Frustration", (2, 3, 3)),
    "xxx": _Style(5, 0, 5, 50, 0, "Other", (3, 3, 3)),
}
_DECK = ("neu", "neu", "hap", "exc", "ang", "ang", "sad", "sad", "fru", "xxx")
_FEWEST = len(_DECK)  # then each session has every emotion


class _Turn(NamedTuple):
    """One utterance: ``name`` is SesNN, the dialog, and F or M with a number."""

    session: int
    dialog: str
    name: str
    speaker: Speaker
    emotion: str
    text: str
    random: RandomState


def make(root: Path, *, seed: int, scale: float) -> Path:
    """Make the corpus in ``root / DIRECTORY``; see :func:`s3prl_interfaces.mini_superb.make_mini_superb`."""
    target = root / DIRECTORY
    parameters = {"corpus": NAME, "version": VERSION, "seed": seed, "scale": scale}
    corpus.build(target, parameters, lambda folder: _write(folder, seed, scale))
    return target


def _write(folder: Path, seed: int, scale: float) -> None:
    turns = list(_plan(seed, max(_FEWEST, round(_UTTERANCES * scale))))
    dialogs: dict[Path, dict[str, str]] = {}
    with Espeak() as espeak, tqdm(total=len(turns), desc=NAME, unit="wav", disable=None) as progress:
        clock = 0  # samples since the dialog began
        for turn in turns:
            session = folder / f"Session{turn.session}"
            blocks = dialogs.setdefault(session / "dialog" / "EmoEvaluation" / f"{turn.dialog}.txt", {})
            samples = _act(espeak, turn)
            corpus.write_wav(session / "sentences" / "wav" / turn.dialog / f"{turn.name}.wav", samples)
            begin = (clock if blocks else 0) + int(turn.random.randint(8000, 40000))
            clock = begin + len(samples)
            blocks[turn.name] = _annotation(turn, begin, clock)
            progress.update()
    for path, blocks in dialogs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        text += "\n".join(blocks[name] for name in sorted(blocks))  # by name, not by time, as IEMOCAP
        path.write_bytes(text.encode())
    write_metadata(folder, folder / "meta_data")


def _plan(seed: int, count: int) -> Iterator[_Turn]:
    """Let the two speakers of each session take turns in one dialog after the other."""
    women, men = _draw_speakers(RandomState([seed, _STREAM]))
    for session in range(1, _SESSIONS + 1):
        random = RandomState([seed, _STREAM, session])
        emotions, texts = endless(_DECK, random), sentences(random)
        for number in range(count):
            scene, line = divmod(number, _DIALOG_UTTERANCES)
            cycle, kind = divmod(scene, len(_DIALOGS))
            suffix = f"{cycle + 1:02}" if "impro" in _DIALOGS[kind] else f"{cycle + 1}"
            dialog = f"Ses{session:02}{_DIALOGS[kind]}{suffix}"
            gender, speaker = (("F", women), ("M", men))[line % 2]
            yield _Turn(
                session=session,
                dialog=dialog,
                name=f"{dialog}_{gender}{line // 2:03}",
                speaker=speaker[session - 1],
                emotion=next(emotions),
                text=next(texts),
                # A stream of its own for each utterance: another scale leaves its sound as it is.
                random=RandomState([seed, _STREAM, session, number]),
            )


def _draw_speakers(random: RandomState) -> tuple[list[Speaker], list[Speaker]]:
    """Draw a woman and a man for each session, all with voices of their own: Americans, as IEMOCAP's actors.

    With ten speakers, an odd voice or accent would hide the emotion; eSpeak NG's numbered variants are the plain ones.
    """
    plain = [replace(one, accent="gmw/en-US") for one in make_speakers(None, random) if one.variant[1:].isdigit()]
    women = [speaker for speaker in plain if speaker.gender == "female"][:_SESSIONS]
    men = [speaker for speaker in plain if speaker.gender == "male"][:_SESSIONS]
    # The two of a session are in one room.
    return women, [replace(man, room=woman.room) for man, woman in zip(men, women, strict=True)]


def _act(espeak: Espeak, turn: _Turn) -> NDArray[np.int16]:
    """Record a turn in its emotion, more or less strongly."""
    style, room = _STYLES[turn.emotion], turn.speaker.room
    strength = int(turn.random.randint(60, 101))  # percent
    speaker = replace(
        turn.speaker,
        pitch=turn.speaker.pitch + style.pitch * strength // 100,
        # A speaker varies by 8 from one recording to the next, and eSpeak NG takes 0 to 99.
        pitch_range=min(91, max(8, turn.speaker.pitch_range + style.pitch_range * strength // 100)),
        rate=turn.speaker.rate + style.rate * strength // 100,
        room=acoustics.Room((1, *room.delays), (style.tilt * strength // 100, *room.gains)),
    )
    samples = record(espeak, speaker, turn.text, turn.random)
    return (samples.astype(np.int32) * style.loudness // 100).astype(np.int16)


def _annotation(turn: _Turn, begin: int, end: int) -> str:
    """The lines of ``EmoEvaluation`` about a turn: what counts, then what each annotator said."""
    style = _STYLES[turn.emotion]
    valence, activation, dominance = style.ratings
    times = f"[{begin / acoustics.SAMPLE_RATE:.4f} - {end / acoustics.SAMPLE_RATE:.4f}]"
    mean = f"[{valence:.4f}, {activation:.4f}, {dominance:.4f}]"
    lines = [f"{times}\t{turn.name}\t{turn.emotion}\t{mean}"]
    lines += [f"C-E{annotator}:\t{style.words};\t()" for annotator in (2, 3, 4)]
    lines += [f"A-E{annotator}:\tval {valence}; act {activation}; dom  {dominance};\t()" for annotator in (3, 4)]
    return "\n".join(lines) + "\n"
