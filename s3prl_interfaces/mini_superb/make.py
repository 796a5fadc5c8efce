"""Making corpora by name."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from s3prl_interfaces.errors import ConfigError, unknown_name
from s3prl_interfaces.mini_superb import fluent_speech_commands, iemocap, librispeech, snips, speech_commands, voxceleb1

CORPORA: dict[str, Callable[..., Path]] = {
    fluent_speech_commands.NAME: fluent_speech_commands.make,
    voxceleb1.NAME: voxceleb1.make,
    iemocap.NAME: iemocap.make,
    librispeech.NAME: librispeech.make,
    snips.NAME: snips.make,
    speech_commands.NAME: speech_commands.make,
}
"""The corpora that can be made, by name."""


def make_mini_superb(
    root: Path, *, corpora: Sequence[str] | None = None, seed: int = 0, scale: float = 1.0
) -> list[Path]:
    """Make small synthetic corpora below ``root``, each in the layout of a real one.

    The same arguments give the same bytes. A corpus that is there already, made with the same arguments, is
    left as it is; one that fails half-way leaves nothing behind.

    Args:
        root: Directory to hold the corpora; made if missing.
        corpora: Names out of :data:`CORPORA`; all of them if None.
        seed: Seed of everything random, 0 to 2**32 - 1.
        scale: Size relative to the usual one (for ``fluent_speech_commands`` 1344 + 250 + 348 utterances,
            130 MB; for ``voxceleb1`` 600 + 120 + 160 utterances of 20 speakers, 86 MB; for ``librispeech``
            600 + 80 + 80 utterances, 44 MB; for ``snips`` 480 + 80 + 80 utterances, 45 MB; for
            ``speech_commands`` 943 clips to train on and 204 to test on, 36 MB); 0.03 is enough for seeing whether
            something runs.

    Returns:
        The directory of each corpus, in the order of ``corpora``.

    Raises:
        ConfigError: If a corpus is unknown, or the seed or the scale out of range.
        DataError: If a directory holds something else already or cannot be written.
        UserError: If the extra ``mini`` is not installed.
    """
    names = list(CORPORA) if corpora is None else list(corpora)
    for name in names:
        if name not in CORPORA:
            raise ConfigError(unknown_name("corpus", name, CORPORA))
    if not 0 <= seed < 2**32:
        raise ConfigError(f"The seed must be from 0 to 2**32 - 1, not {seed}.")
    if not (math.isfinite(scale) and scale > 0):
        raise ConfigError(f"The scale must be above 0, not {scale}.")
    return [CORPORA[name](Path(root), seed=int(seed), scale=float(scale)) for name in names]
