"""Checks VoxCeleb1 against the layout that SV needs, and makes dev trials where there are none."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from numpy.random import RandomState

from downstream_tasks.layout import missing_files, name_below, refuse
from downstream_tasks.sv.dataset import FOLDERS, files_of, find_wavs, read_trials
from s3prl_interfaces.errors import DataError

TEST_TRIALS = "voxceleb1_test_v2.txt"
DEV_TRIALS = "dev_meta_data.txt"

_SPEAKERS = 40  # of the dev trials, as many as S3PRL's
_TRIALS = 20000
_SEED = 1


def prepare(root: Path) -> list[str]:
    """Check the corpus; write ``dev_meta_data.txt`` if it is not there.

    S3PRL ships lists of trials in its repository, in ``s3prl/downstream/sv_voxceleb1/``, but not in its package. The
    test trials must come from there: SUPERB's scores are over them. The dev trials, which SUPERB does not score, are
    drawn as S3PRL's ``preprocess.py`` draws its own: over 40 speakers of dev/wav, half of them of one speaker.

    Args:
        root: the folder that holds dev/wav, test/wav and voxceleb1_test_v2.txt.

    Returns:
        Lines for the user: what was found, what was written, which keys to set.

    Raises:
        DataError: what is missing, all of it; or the dev trials cannot be written.
    """
    problems: list[str] = []
    wavs: dict[str, dict[str, list[str]]] = {}
    for split, folder in FOLDERS.items():
        try:
            wavs[split] = find_wavs(root / folder)
        except DataError:
            problems.append(f"no folders of speakers in {folder} (<speaker>/<video>/<n>.wav)")
            continue
        problems += [f"no wav in {folder}/{speaker}" for speaker, files in wavs[split].items() if not files]
    if not (root / TEST_TRIALS).is_file():
        problems.append(
            f"no {TEST_TRIALS} (37720 trials, as in VoxCeleb1's veri_test.txt; not its cleaned veri_test2.txt): take "
            "it from S3PRL's repository, s3prl/downstream/sv_voxceleb1/"
        )
    lists = {"test": TEST_TRIALS, "dev": DEV_TRIALS}
    found: list[str] = [
        f"{FOLDERS[split]}: {sum(map(len, mine.values()))} wavs of {len(mine)} speakers" for split, mine in wavs.items()
    ]
    for split, name in lists.items():
        if not (root / name).is_file():
            continue
        try:
            trials = read_trials(root / name, f"downstream_expert.datarc.{split}_meta_data")
        except DataError as error:
            problems.append(str(error).rstrip("."))
            continue
        files = files_of(trials)
        if split in wavs:
            folder = FOLDERS[split]
            missing = missing_files(root / folder / file for file in files)
            problems += [f"no {name_below(root, path)}, which {name} names" for path in missing]
        targets = sum(trial.target for trial in trials)
        found.append(f"{name}: {len(trials)} trials, {targets} of them of one speaker, over {len(files)} wavs")
    refuse(root, problems)
    if not (root / DEV_TRIALS).is_file():
        found.append(_write_dev_trials(root / DEV_TRIALS, wavs["dev"]))
    return [
        *found,
        f"Set downstream_expert.datarc.file_path to {root}, test_meta_data to {root / TEST_TRIALS} and dev_meta_data "
        f"to {root / DEV_TRIALS}.",
    ]


def _write_dev_trials(path: Path, wavs: dict[str, list[str]]) -> str:
    several = {speaker: files for speaker, files in wavs.items() if len(files) > 1}
    if len(several) < 2:
        raise DataError(f"{path} cannot be made: {path.parent} needs two speakers in dev/wav with two wavs or more.")
    lines = list(_draw_trials(several, RandomState(_SEED)))
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error}.") from error
    return (
        f"{path.name}: {len(lines)} trials written; not S3PRL's own list (in its repository, "
        "s3prl/downstream/sv_voxceleb1/dev_meta_data/), so dev EERs do not compare with those of that list"
    )


def _draw_trials(wavs: dict[str, list[str]], random: RandomState) -> Iterator[str]:
    """Trials of one speaker and of two by turns, each between two different wavs."""
    speakers = [sorted(wavs)[index] for index in random.permutation(len(wavs))[:_SPEAKERS]]
    for _ in range(_TRIALS // 2):
        mine = wavs[speakers[random.randint(len(speakers))]]
        first, second = random.choice(len(mine), size=2, replace=False)
        yield f"1 {mine[first]} {mine[second]}"
        one, other = (wavs[speakers[index]] for index in random.choice(len(speakers), size=2, replace=False))
        yield f"0 {one[random.randint(len(one))]} {other[random.randint(len(other))]}"
