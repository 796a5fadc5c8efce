"""Synthetic voices that nobody else has: eSpeak NG voice variants with a drawn pitch, vocal tract and voice quality.

None of eSpeak NG's own variants is used: those are the speakers of mini-SUPERB, of its dev and test splits too.
"""

from random import Random

_FORMANTS = 9


def draw_variant(name: str, random: Random) -> str:
    """Draw a voice variant, the text of a file as espeak-ng/docs/voices.md describes it.

    Args:
        name: The variant's name.
        random: Source of all that is drawn.
    """
    female = random.random() < 0.5
    tract = random.uniform(1.02, 1.28) if female else random.uniform(0.86, 1.08)  # of the formants' frequencies
    base = random.uniform(130, 250) if female else random.uniform(65, 140)
    lines = [
        "language variant",
        f"name {name}",
        f"gender {'female' if female else 'male'}",
        f"pitch {base:.0f} {base * random.uniform(1.2, 1.75):.0f}",
        f"flutter {random.randint(0, 8)}",
        f"roughness {random.randint(0, 5)}",
        f"voicing {random.randint(70, 130)}",
        f"consonants {random.randint(70, 130)} {random.randint(70, 130)}",
    ]
    for formant in range(_FORMANTS):
        frequency = 100 * tract * random.uniform(0.94, 1.06)
        amplitude, width = random.randint(60, 140), random.randint(70, 150)
        lines.append(f"formant {formant} {frequency:.0f} {amplitude} {width}")
    if random.random() < 0.3:
        lines.append("breath " + " ".join(str(random.randint(0, 6)) for _ in range(8)))
    return "\n".join(lines) + "\n"
