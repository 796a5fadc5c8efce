"""IEMOCAP's metadata for SUPERB, from the corpus's own annotations."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from downstream_tasks.er.dataset import SESSIONS
from downstream_tasks.layout import refuse
from s3prl_interfaces.errors import DataError

LABELS = {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
_EMOTIONS = {**{emotion: emotion for emotion in LABELS}, "exc": "hap"}
"""What an annotated emotion counts as; utterances with another one are left out."""

# The order in which S3PRL's authors' disk listed the dialogs, without `SesNN`. It decides which utterances are dev,
# so scores compare with SUPERB's only in this order.
_ORDER = {
    "Session1": (
        "F_script02_2 F_impro07 F_script03_2 M_impro02 F_impro06 F_script01_3 M_script02_1 M_impro04 M_script01_1 "
        "F_impro01 F_script01_1 F_impro05 M_script01_2 M_script02_2 F_script02_1 M_script03_2 M_impro05 M_impro01 "
        "F_impro03 M_impro03 M_script01_3 F_script03_1 M_impro07 F_impro02 M_impro06 M_script03_1 F_impro04 "
        "F_script01_2"
    ),
    "Session2": (
        "F_impro03 F_script03_2 M_script03_2 M_impro04 M_impro05 F_script02_1 F_script02_2 M_script02_2 M_impro08 "
        "M_impro07 F_script03_1 M_script01_3 F_impro06 F_impro01 F_impro04 F_script01_2 M_impro02 M_impro03 "
        "F_script01_3 F_impro05 F_script01_1 M_impro06 M_script02_1 F_impro08 F_impro02 M_script01_1 M_impro01 "
        "M_script01_2 M_script03_1 F_impro07"
    ),
    "Session3": (
        "F_script02_1 M_impro04 M_script03_2 M_impro05b M_impro02 F_impro05 M_script02_2 M_impro08b F_impro07 "
        "M_script01_1 M_script02_1 M_impro05a M_impro07 M_script03_1 F_script03_1 M_impro01 F_script01_1 "
        "F_impro04 F_script02_2 F_script01_3 M_script01_3 M_impro06 F_impro01 F_impro03 M_script01_2 M_impro08a "
        "M_impro03 F_script03_2 F_script01_2 F_impro08 F_impro06 F_impro02"
    ),
    "Session4": (
        "F_script03_1 F_impro01 M_script02_1 M_script02_2 F_script01_3 M_impro05 F_script02_1 F_impro07 F_impro02 "
        "F_impro03 M_impro02 F_script01_1 M_script01_1 F_script03_2 M_impro06 F_script02_2 M_impro01 M_impro04 "
        "F_impro05 F_script01_2 F_impro08 F_impro06 M_impro03 M_script01_3 M_script01_2 M_script03_1 M_script03_2 "
        "M_impro07 F_impro04 M_impro08"
    ),
    "Session5": (
        "M_script01_3 F_impro04 M_script02_2 F_script01_3 F_script01_2 F_impro06 M_impro06 M_impro01 F_script03_1 "
        "F_impro07 F_script03_2 M_script01_1b F_impro05 M_script01_1 F_impro08 M_script03_1 M_impro05 F_impro01 "
        "F_impro02 M_impro03 F_script01_1 M_impro04 M_script02_1 F_impro03 F_script02_2 F_script02_1 M_script03_2 "
        "M_impro08 M_impro02 M_impro07 M_script01_2"
    ),
}


def prepare(root: Path) -> list[str]:
    """Check IEMOCAP and write its metadata to ``root/meta_data``, which S3PRL reads too.

    Args:
        root: IEMOCAP_full_release, the folder that holds Session1 to Session5.

    Returns:
        Lines for the user: what was found and written, and the config keys to set.

    Raises:
        DataError: a session or a part of it is missing, all in one message; or the metadata cannot be written.
    """
    root = Path(root)
    refuse(root, _problems(root))
    folder = root / "meta_data"
    write_metadata(root, folder)
    lines = []
    for number in range(1, SESSIONS + 1):
        session = root / f"Session{number}"
        entries = _read_session(session)
        counts = Counter(entry["label"] for entry in entries)
        numbers = ", ".join(f"{counts[label]} {label}" for label in LABELS)
        lines.append(f"Session{number}: {len(entries)} utterances with an emotion that counts: {numbers}")
        if sorted(dialog.stem for dialog in _in_order(session)) != sorted(_known_dialogs(session)):
            lines.append("  Its dialogs are not IEMOCAP's: they are in alphabetical order, scores do not compare.")
    return [
        *lines,
        f"Written: {folder}/SessionN/{{train,test}}_meta_data.json",
        "Set in the config:",
        f"  downstream_expert.datarc.root: {root}",
        f"  downstream_expert.datarc.meta_data: {folder}",
    ]


def _problems(root: Path) -> list[str]:
    """What IEMOCAP's folder lacks."""
    if not root.is_dir():
        return ["the folder does not exist: it must hold Session1 to Session5"]
    problems = []
    for session in (root / f"Session{number}" for number in range(1, SESSIONS + 1)):
        if not session.is_dir():
            problems.append(f"{session.name}/ is missing")
            continue
        wavs = {path.stem for path in session.glob("sentences/wav/*/*.wav")}
        dialogs = _in_order(session)
        if not wavs:
            problems.append(f"no wav in {session.name}/sentences/wav/*/")
        if not dialogs:
            problems.append(f"no annotation in {session.name}/dialog/EmoEvaluation/")
        for dialog in dialogs:
            try:
                turns = _read_dialog(dialog)
            except DataError as error:
                problems.append(str(error).rstrip("."))
                continue
            missing = [name for name, emotion in turns if wavs and emotion in _EMOTIONS and name not in wavs]
            problems += [f"{session.name}/sentences/wav/{dialog.stem}/{name}.wav is missing" for name in missing]
    return problems


def write_metadata(root: str | Path, folder: str | Path) -> None:
    """Write ``folder/SessionN/{train,test}_meta_data.json``: session N is tested on, the others are trained on.

    The dialogs of IEMOCAP come in the order of S3PRL's own files, those of another corpus in alphabetical order.

    Args:
        root: IEMOCAP_full_release, the folder that holds Session1 to Session5.
        folder: where the metadata goes; made if missing.

    Raises:
        DataError: the corpus is missing or incomplete, or ``folder`` cannot be written.
    """
    root, folder = Path(root), Path(folder)
    paths = sorted(path for path in root.glob("Session*") if path.is_dir())
    if len(paths) < 2:
        raise DataError(f"{root} must hold IEMOCAP's folders Session1 to Session5, but has {len(paths)} of them.")
    sessions = {path.name: _read_session(path) for path in paths}
    contents = {}
    for name, tested in sessions.items():
        trained = [entry for other, entries in sessions.items() if other != name for entry in entries]
        for split, entries in (("train", trained), ("test", tested)):
            contents[folder / name / f"{split}_meta_data.json"] = json.dumps({"labels": LABELS, "meta_data": entries})
    try:
        _write_all(contents)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}.") from error


def _write_all(contents: Mapping[Path, str]) -> None:
    """Write files, but only when there is room for all of them."""
    unfinished = {path.with_name(f".{path.name}.unfinished"): path for path in contents}
    try:
        for temporary, path in unfinished.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(contents[path], encoding="utf-8")
        for temporary, path in unfinished.items():
            temporary.replace(path)
    finally:
        for temporary in unfinished:
            temporary.unlink(missing_ok=True)


def _read_session(session: Path) -> list[dict[str, str]]:
    """The metadata's entries of one session."""
    root = session.parent
    wavs = {path.stem: path.relative_to(root).as_posix() for path in session.glob("sentences/wav/*/*.wav")}
    entries = []
    for dialog in _in_order(session):
        for name, emotion in _read_dialog(dialog):
            if emotion in _EMOTIONS and name in wavs:
                speaker = name.partition("_")[0]
                entries.append({"path": wavs[name], "label": _EMOTIONS[emotion], "speaker": speaker})
    if not entries:
        raise DataError(
            f"{session} has no utterance: it must hold sentences/wav/*/*.wav and dialog/EmoEvaluation/*.txt."
        )
    return entries


def _in_order(session: Path) -> list[Path]:
    """The annotations of a session's dialogs; not the `._*.txt` that macOS left in IEMOCAP."""
    dialogs = {path.stem: path for path in session.glob("dialog/EmoEvaluation/[!.]*.txt")}
    known = _known_dialogs(session)
    return [dialogs[name] for name in (known if sorted(known) == sorted(dialogs) else sorted(dialogs))]


def _known_dialogs(session: Path) -> list[str]:
    """IEMOCAP's dialogs of a session, in S3PRL's order."""
    return [f"Ses{session.name[-1:]:0>2}{name}" for name in _ORDER.get(session.name, "").split()]


def _read_dialog(path: Path) -> list[tuple[str, str]]:
    """The name and the emotion of each utterance: lines ``[begin - end]<tab>name<tab>emotion<tab>[V, A, D]``."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    utterances = []
    for number, line in enumerate(lines, start=1):
        if not line.startswith("["):
            continue  # a heading, or what one annotator said
        fields = [field for field in line.split("\t") if field]
        if len(fields) < 3:
            raise DataError(f"{path}, line {number}: must be `[begin - end]<tab>name<tab>emotion`, but is {line!r}.")
        utterances.append((fields[1], fields[2]))
    return utterances
