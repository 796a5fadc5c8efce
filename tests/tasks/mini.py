"""The tasks' small corpora, laid out as the mini configs name them."""

import shutil

CORPORA = {  # task: fixture, and the folder of it that the mini config names
    "asr": ("librispeech", "LibriSpeech"),
    "pr": ("librispeech", "LibriSpeech"),
    "ks": ("speech_commands", "speech_commands"),
    "sid": ("voxceleb1", "voxceleb1"),
    "sv": ("voxceleb1", "voxceleb1"),
    "er": ("iemocap", "IEMOCAP_full_release"),
    "ic": ("fluent_commands", "fluent_speech_commands_dataset"),
    "sf": ("snips", "SNIPS"),
}


def lay_out(task, request, folder):
    """Copy the task's corpus to where its mini config looks for it from ``folder``."""
    fixture, name = CORPORA[task]
    shutil.copytree(request.getfixturevalue(fixture), folder / "mini_superb_data" / name)
