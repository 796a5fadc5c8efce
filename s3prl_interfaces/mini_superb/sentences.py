"""Sentences as somebody might say in an interview: a small grammar, some ten thousand of them."""

import re
from collections.abc import Iterator

from numpy.random import RandomState

from s3prl_interfaces.mini_superb.speakers import endless

_PATTERNS = (
    "{time}, {person} {deed}",
    "{person} {deed} {time}",
    "{person} {deed} {place}",
    "{person} never {deed}",
    "I think {person} {deed}",
    "{time}, {event}",
    "{person} left because {event}",
    "I grew up {place}",
    "We met {person} {place}",
    "{person} {deed}, and {event}",
    "So {person} {deed}",
    "We were {place} when {event}",
)
_WORDS = {
    "time": (
        "last summer",
        "two years ago",
        "on Sunday morning",
        "after the winter",
        "before the show",
        "late in the evening",
        "during the holidays",
        "a week later",
        "on my birthday",
        "in June",
        "just before midnight",
        "after the final match",
    ),
    "person": (
        "my sister",
        "the old captain",
        "our neighbour",
        "a young actress",
        "the whole band",
        "his teacher",
        "the tall drummer",
        "her grandfather",
        "the director",
        "my best friend",
        "a famous chef",
        "the night nurse",
        "our goalkeeper",
        "the quiet poet",
    ),
    "deed": (
        "wrote a letter",
        "painted the fence",
        "sold the blue boat",
        "told a story",
        "baked fresh bread",
        "learned to juggle",
        "missed the train",
        "won a small prize",
        "sang twice",
        "found a silver ring",
        "fixed the engine",
        "bought seven chairs",
        "drew a huge dragon",
        "spoke to the judge",
        "planted a tree",
        "gave up chocolate",
    ),
    "place": (
        "near the harbour",
        "at my uncle's farm",
        "behind the theatre",
        "on the island",
        "in a tiny village",
        "outside the museum",
        "by the frozen lake",
        "above the bakery",
        "under the old bridge",
        "across the border",
        "at the airport",
        "in the back yard",
    ),
    "event": (
        "it was raining",
        "the audience laughed",
        "nobody else would",
        "time ran out",
        "the power went out",
        "we had just moved",
        "the judges agreed",
        "everyone stood up",
        "the bus was full",
        "she asked for help",
        "the weather changed",
        "they needed money",
    ),
}


def sentences(random: RandomState) -> Iterator[str]:
    """Draw sentences without end; each pattern and each word comes before any comes again."""
    patterns = endless(_PATTERNS, random)
    words = {kind: endless(phrases, random) for kind, phrases in _WORDS.items()}
    for pattern in patterns:
        chosen = {kind: next(phrases) for kind, phrases in words.items() if f"{{{kind}}}" in pattern}
        text = pattern.format(**chosen)
        yield text[0].upper() + text[1:]


def words_of(text: str) -> list[str]:
    """Split ``text`` into words in upper case without punctuation, as transcripts of speech have them."""
    return re.findall(r"[A-Z']+", text.upper())


def vocabulary() -> set[str]:
    """Every word that a sentence can have, in upper case."""
    patterns = (re.sub(r"\{\w+\}", " ", pattern) for pattern in _PATTERNS)
    phrases = (phrase for kind in _WORDS.values() for phrase in kind)
    return {word for text in (*patterns, *phrases) for word in words_of(text)}
