"""The 31 intents of Fluent Speech Commands, with wordings of our own in the corpus's style."""

from typing import NamedTuple


class Intent(NamedTuple):
    """An intent as the corpus labels it; a slot that does not apply is ``"none"``."""

    action: str
    object: str
    location: str


# "{where}" is empty or " in the kitchen" and so on; a wording with "{room}" is left out where none is meant.
_ROOMS = {
    "none": ("",),
    "kitchen": ("kitchen",),
    "bedroom": ("bedroom",),
    "washroom": ("washroom", "bathroom"),
}
_SWITCHED = {  # "{on}" is "on" or "off"
    "lights": (
        "Turn {on} the lights{where}",
        "Turn the lights {on}{where}",
        "Switch the lights {on}{where}",
        "Lights {on}{where}",
        "Please turn the lights {on}{where}",
        "Switch {on} the {room} lights",
        "Turn the {room} lights {on}",
        "{room} lights {on}",
    ),
    "lamp": (
        "Turn {on} the lamp",
        "Turn the lamp {on}",
        "Switch {on} the lamp",
        "Switch the lamp {on}",
        "Lamp {on}",
        "Please switch the lamp {on}",
    ),
}
_HEAT: dict[str, tuple[str, ...]] = {
    "increase": (
        "Turn up the heat{where}",
        "Turn the heat up{where}",
        "Increase the temperature{where}",
        "Raise the heat{where}",
        "Make it warmer{where}",
        "It is too cold{where}",
        "Turn up the {room} heating",
        "Warm up the {room}",
    ),
    "decrease": (
        "Turn down the heat{where}",
        "Turn the heat down{where}",
        "Decrease the temperature{where}",
        "Lower the heat{where}",
        "Make it cooler{where}",
        "It is too hot{where}",
        "Turn down the {room} heating",
        "Cool down the {room}",
    ),
}
_VOLUME: dict[str, tuple[str, ...]] = {
    "increase": (
        "Turn up the volume",
        "Turn the volume up",
        "Increase the volume",
        "Volume up",
        "Make it louder",
        "Louder, please",
        "Raise the sound level",
        "It is too quiet, I cannot hear it",
    ),
    "decrease": (
        "Turn down the volume",
        "Turn the volume down",
        "Decrease the volume",
        "Volume down",
        "Make it quieter",
        "Quieter, please",
        "Lower the sound level",
        "It is too loud, my ears hurt",
    ),
}
_MUSIC: dict[str, tuple[str, ...]] = {
    "activate": (
        "Play some music",
        "Start the music",
        "Put the music on",
        "Turn on the music",
        "Music on",
        "Let me hear some songs",
        "Carry on with the music",
    ),
    "deactivate": (
        "No more music",
        "Stop the music",
        "Pause the music",
        "Turn off the music",
        "Music off",
        "Stop playing songs",
        "That is enough music",
    ),
}
_LANGUAGE = (
    "Change language",
    "Change the language",
    "Switch the language",
    "Choose another language",
    "Use a different language",
    "Open the language settings",
    "I want to speak another language",
)
_TO_LANGUAGE = (
    "Change the language to {name}",
    "Switch the language to {name}",
    "Set the language to {name}",
    "Set everything to {name}",
    "Use {name} from now on",
    "Let us practice {name}",
    "I want to speak {name}",
)
_BRING = (
    "Bring me {thing}",
    "Get me {thing}",
    "Fetch {thing}",
    "Please bring {thing}",
    "Go and get {thing}",
    "I need {thing}",
    "Could you get {thing}",
)
_THINGS = {
    "newspaper": ("the newspaper", "my newspaper"),
    "juice": ("the juice", "some juice"),
    "socks": ("my socks", "the socks"),
    "shoes": ("my shoes", "the shoes"),
}


def wordings() -> dict[Intent, list[str]]:
    """Give the wordings of each intent; the same words never mean two intents."""
    table = {Intent("change language", "none", "none"): list(_LANGUAGE)}
    for name in ("Chinese", "English", "German", "Korean"):
        table[Intent("change language", name, "none")] = [line.format(name=name) for line in _TO_LANGUAGE]
    for thing, phrases in _THINGS.items():
        table[Intent("bring", thing, "none")] = [line.format(thing=phrase) for phrase in phrases for line in _BRING]
    for action, lines in _MUSIC.items():
        table[Intent(action, "music", "none")] = list(lines)
    for action, lines in _VOLUME.items():
        table[Intent(action, "volume", "none")] = list(lines)
    for action, on in (("activate", "on"), ("deactivate", "off")):
        table[Intent(action, "lamp", "none")] = [line.format(on=on) for line in _SWITCHED["lamp"]]
        for location in _ROOMS:
            table[Intent(action, "lights", location)] = _in_rooms(_SWITCHED["lights"], location, on=on)
    for action, lines in _HEAT.items():
        for location in _ROOMS:
            table[Intent(action, "heat", location)] = _in_rooms(lines, location)
    return table


def _in_rooms(lines: tuple[str, ...], location: str, **words: str) -> list[str]:
    found = []
    for room in _ROOMS[location]:
        for line in lines:
            if room or "{room}" not in line:
                text = line.format(where=f" in the {room}" if room else "", room=room, **words)
                found.append(text[0].upper() + text[1:])
    return found
