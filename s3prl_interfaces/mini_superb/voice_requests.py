"""Requests to a voice assistant with their slots: a small grammar in the style of SNIPS, wordings of our own."""

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from numpy.random import RandomState

from s3prl_interfaces.mini_superb.speakers import endless

OUTSIDE = "O"
"""Label of a word that is in no slot."""


class Request(NamedTuple):
    """What is said, in lower case; ``labels`` has a slot type or :data:`OUTSIDE` for each word."""

    words: tuple[str, ...]
    labels: tuple[str, ...]
    intent: str


_PATTERNS = {
    "PlayMusic": ("play {artist}", "play {genre} by {artist}", "play some {genre}", "play something"),
    "AddToPlaylist": (
        "add {artist} to {playlist}",
        "add {artist} to {playlist_owner} {playlist} list",
        "put {genre} on {playlist_owner} {playlist} list",
    ),
    "GetWeather": (
        "weather in {city} {timeRange}",
        "is it {condition_description} in {city}",
        "will it be {condition_description} {timeRange}",
        "what's the weather",
    ),
    "BookRestaurant": (
        "book a {restaurant_type} in {city}",
        "table for {party_size_number} {timeRange}",
        "find a {restaurant_type} for {party_size_number}",
    ),
    "RateBook": ("rate {object_name} {rating_value}", "give {object_name} {rating_value} stars"),
    "SearchCreativeWork": ("find {object_name}", "show me {object_name} {timeRange}"),
}
_VALUES = {
    "artist": ("nina simone", "the beatles", "elvis", "madonna"),
    "genre": ("jazz", "rock", "blues", "country music"),
    "playlist": ("road trip", "dinner", "workout"),
    "playlist_owner": ("my", "anna's"),
    "city": ("boston", "new york", "berlin", "san diego"),
    "timeRange": ("tomorrow", "tonight", "next week"),
    "condition_description": ("sunny", "cold", "very hot"),
    "restaurant_type": ("pub", "tea house", "pizza place"),
    "party_size_number": ("two", "seven", "nine"),
    "object_name": ("the silver key", "moby dick", "river of stars", "ivanhoe"),
    "rating_value": ("one", "three", "five"),
}
_TRIES = 20


def requests(random: RandomState, *, held_out: bool) -> Iterator[Request]:
    """Draw requests without end; each intent, pattern of an intent and value comes before any comes again.

    Args:
        random: Source of all that is drawn.
        held_out: Draw those with several slots out of one third of all there are, else out of the other two; those
            with one slot or none are drawn either way.
    """
    patterns = {intent: endless(lines, random) for intent, lines in _PATTERNS.items()}
    values = {slot: endless(phrases, random) for slot, phrases in _VALUES.items()}
    for intent in endless(list(_PATTERNS), random):
        pattern = next(patterns[intent])
        for _ in range(_TRIES):  # a pattern of few values may have none that fits
            request = _fill(pattern, intent, values)
            if len(slots_of(request)) < 2 or _is_held_out(request) == held_out:
                yield request
                break


def slots_of(request: Request) -> set[str]:
    """Give the types of slots of a request."""
    return set(request.labels) - {OUTSIDE}


def _fill(pattern: str, intent: str, values: Mapping[str, Iterator[str]]) -> Request:
    words: list[str] = []
    labels: list[str] = []
    for item in pattern.split():
        slot = re.fullmatch(r"{(\w+)}", item)
        spoken = next(values[slot[1]]).split() if slot else [item]
        words += spoken
        labels += [slot[1] if slot else OUTSIDE] * len(spoken)
    return Request(tuple(words), tuple(labels), intent)


def _is_held_out(request: Request) -> bool:
    return zlib.crc32(" ".join(request.words).encode()) % 3 == 0
