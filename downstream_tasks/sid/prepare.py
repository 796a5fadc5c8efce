"""Check VoxCeleb1 for SUPERB's speaker identification."""

from collections import Counter
from pathlib import Path

from downstream_tasks.layout import missing_files, refuse
from downstream_tasks.sid.dataset import SPLITS, read_lines, speaker_folders

METADATA = "veri_test_class.txt"


def prepare(root: Path) -> list[str]:
    """Check that every utterance of the metadata is there; nothing needs to be written.

    Args:
        root: the folder that holds dev/wav, test/wav and veri_test_class.txt.

    Returns:
        Lines for the user: what was found, and the config keys to set.

    Raises:
        DataError: folders or files are missing, all of them in one message; or a line of the metadata is malformed.
    """
    root = Path(root)
    refuse(root, _problems_of_layout(root))
    lines = read_lines(root / METADATA)
    folders = speaker_folders(root)
    speakers = Counter(line.file.parts[0] for line in lines)
    counts = Counter(line.split for line in lines)
    files = [
        folders[line.file.parts[0]].joinpath(*line.file.parts[1:]) for line in lines if line.file.parts[0] in folders
    ]
    refuse(
        root,
        [
            *(f"{METADATA} has no utterance of split {split}" for split in SPLITS.values() if not counts[split]),
            *(
                f"no folder */wav/{speaker} ({count} utterances)"
                for speaker, count in speakers.items()
                if speaker not in folders
            ),
            *(f"{path.relative_to(root)} is missing" for path in missing_files(files)),
        ],
    )
    return [
        f"{root}: {len(speakers)} speakers; " + ", ".join(f"{split} {counts[split]}" for split in SPLITS.values()),
        "Set in the config:",
        f"  downstream_expert.datarc.file_path: {root}",
        f"  downstream_expert.datarc.meta_data: {root / METADATA}",
    ]


def _problems_of_layout(root: Path) -> list[str]:
    if not root.is_dir():
        return ["the folder does not exist: it must hold dev/wav, test/wav and veri_test_class.txt"]
    problems = [f"{name}/wav/ is missing" for name in ("dev", "test") if not (root / name / "wav").is_dir()]
    if not (root / METADATA).is_file():
        problems.append(f"{METADATA} is missing: copy it from S3PRL's repository, s3prl/downstream/voxceleb1/")
    return problems
