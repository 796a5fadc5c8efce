"""What the synthetic voices say: English sentences of a small grammar, and names and numbers in many languages.

The names (countries, languages, currencies, months, days) are those of the Unicode CLDR, which Babel carries: real
words in the script of each language, without a text corpus. No sentence of mini-SUPERB is among them.
"""

import functools
from random import Random

LANGUAGES = {
    "aav/vi": "vi",
    "bat/lt": "lt",
    "bat/lv": "lv",
    "bnt/sw": "sw",
    "ccs/ka": "ka",
    "cel/cy": "cy",
    "cel/ga": "ga",
    "dra/ta": "ta",
    "dra/te": "te",
    "eu": "eu",
    "gmq/da": "da",
    "gmq/is": "is",
    "gmq/nb": "nb",
    "gmq/sv": "sv",
    "gmw/af": "af",
    "gmw/de": "de",
    "gmw/nl": "nl",
    "grk/el": "el",
    "inc/bn": "bn",
    "inc/hi": "hi",
    "ine/hy": "hy",
    "ine/sq": "sq",
    "ira/fa": "fa",
    "ko": "ko",
    "poz/id": "id",
    "poz/ms": "ms",
    "roa/ca": "ca",
    "roa/es": "es",
    "roa/es-419": "es_MX",
    "roa/fr": "fr",
    "roa/it": "it",
    "roa/pt": "pt_PT",
    "roa/pt-BR": "pt",
    "roa/ro": "ro",
    "sem/ar": "ar",
    "sem/mt": "mt",
    "trk/az": "az",
    "trk/tr": "tr",
    "urj/et": "et",
    "urj/fi": "fi",
    "urj/hu": "hu",
    "zle/be": "be",
    "zle/ru": "ru",
    "zle/uk": "uk",
    "zls/bg": "bg",
    "zls/hr": "hr",
    "zls/sl": "sl",
    "zlw/cs": "cs",
    "zlw/pl": "pl",
    "zlw/sk": "sk",
}
"""eSpeak NG's voice of a language, and the CLDR's name of that language."""

_ENGLISH_NAMES = 0.3  # share of the English utterances that are names and numbers, as in the other languages
_NUMBER = 0.3  # share of numbers among names

_PATTERNS = (
    "The {adjective} {thing} {happened} {where}.",
    "{who} {did} the {adjective} {thing} {where}.",
    "{who} {did} {number} {things} {when}.",
    "Why did {who} leave the {thing} {where}?",
    "{when} {who} {did} a {thing} and {did} the {things}.",
    "There were {number} {adjective} {things} {where}.",
    "If the {thing} is {adjective}, {who} will {do} it {how}.",
    "{who} can {do} the {things} {how}, but not the {thing}.",
    "Nobody {where} could {do} such {adjective} {things}.",
    "How {adjective} the {thing} was {when}!",
    "{who} said that the {things} {happened} {how}.",
    "Should we {do} the {thing} or {do} the {adjective} {things}?",
    "It takes {number} hours to {do} {things} {where}.",
    "You might {do} a {adjective} {thing} {when}.",
    "{number} of the {things} are {adjective}, and {number} are {adjective}.",
)
_WORDS = {
    "adjective": "yellow heavy curious narrow gentle rusty purple hollow clumsy bright frozen ancient shallow mighty "
    "fragile wooden sour loyal vivid rough smooth cheap royal damp eager thick proud square northern common severe "
    "jealous usual wild brave pure tidy awkward modern honest rare polite joyful thirsty enormous vague lazy urgent "
    "leather visual foreign private cautious charming dusty oily weary shy genuine",
    "thing": "ladder telescope basket orange vehicle fountain shovel violin garage bottle cushion microscope blanket "
    "garden curtain treasure pyramid mirror hammer envelope chimney carriage pigeon donkey giraffe lizard python "
    "toothbrush mattress choir jury queue zebra voyage measure engineer judgement thermometer valley bathtub "
    "airplane keyboard pocket volcano waterfall jungle journey hedge yacht bagpipe cheese sausage biscuit walnut",
    "things": "apples boots candles drums eggs feathers gloves horses inches jackets kettles leaves mushrooms needles "
    "oysters potatoes questions ribbons spoons tickets umbrellas vegetables wheels oxen yards zippers cherries "
    "shadows branches bushes watches fishes houses bridges pages voices causes beliefs theories clothes lengths "
    "depths months risks masks lamps jumps thanks coughs laughs boys toys noises pearls",
    "who": "Oliver Beth Joshua Margaret Theo Zoe Victor Ursula George Fatima Hugo Ingrid Walter Yvonne Charles "
    "Samuel somebody everybody he she they we you a.farmer the.judge the.butcher her.cousin his.aunt this.officer "
    "that.painter an.actor the.child two.boys these.girls those.women their.uncle",
    "did": "bought threw washed carried noticed repaired touched measured imagined borrowed counted pushed chose "
    "offered wrapped buried burned cooked drove followed grabbed hid invented joined kicked licked managed needed "
    "ordered pulled questioned reached saved tasted used visited wasted yanked chewed shook shared watched heard "
    "caught taught brought fought sought rode froze stole broke woke",
    "do": "buy throw wash carry notice repair touch measure imagine borrow count push choose offer wrap bury burn cook "
    "drive follow grab hide invent join kick lick manage need order pull question reach save taste use visit waste "
    "yank chew shake share watch hear catch teach bring fight seek ride freeze steal break wake",
    "happened": "fell vanished exploded appeared rolled changed cracked grew floated shrank melted collapsed arrived "
    "turned.around opened closed slid jumped stood.still moved.away caught.fire began.to.shine lay sank",
    "where": "beneath.the.stairs beyond.the.river near.the.church around.the.corner at.the.harbour in.the.forest "
    "behind.the.school on.the.shelf along.the.beach between.the.mountains below.the.surface opposite.the.bank "
    "upstairs outdoors in.the.cellar through.the.tunnel by.the.window at.the.zoo on.board in.Geneva towards.the.south",
    "when": "yesterday tomorrow.morning this.afternoon every.Thursday in.January at.noon during.the.storm last.August "
    "once.a.year right.now after.breakfast before.the.war at.the.beginning for.three.months in.the.future on.Tuesday "
    "at.half.past.eight since.childhood until.the.end.of.March",
    "how": "quickly carefully rather.badly without.a.word with.pleasure usually loudly very.slowly by.hand in.vain "
    "with.both.thumbs gracefully for.nothing as.usual together more.smoothly",
    "number": "three four five six nine eleven thirteen fifteen eighteen twenty thirty-seven forty sixty-eight "
    "ninety hundreds thousands a.dozen a.million both several",
}
_CHOICES = {kind: [word.replace(".", " ") for word in words.split()] for kind, words in _WORDS.items()}


def draw_english(random: Random) -> str:
    """Two English sentences, or English names and numbers."""
    if random.random() < _ENGLISH_NAMES:
        return draw_names("en", random)
    return f"{_sentence(random)} {_sentence(random)}"


def draw_names(locale: str, random: Random) -> str:
    """Six names and numbers in a language.

    Args:
        locale: The CLDR's name of the language, such as ``"de"``.
        random: Source of all that is drawn.
    """
    names = _names(locale)
    return ", ".join(_number(random) if random.random() < _NUMBER else random.choice(names) for _ in range(6))


def _sentence(random: Random) -> str:
    parts = random.choice(_PATTERNS).split("{")
    sentence = parts[0] + "".join(
        random.choice(_CHOICES[kind]) + rest for kind, _, rest in (part.partition("}") for part in parts[1:])
    )
    return sentence[0].upper() + sentence[1:]


def _number(random: Random) -> str:
    return str(random.randrange(10 ** random.randint(1, 6)))


@functools.cache
def _names(locale: str) -> list[str]:
    from babel import Locale  # an extra: only pre-training needs it

    names = Locale.parse(locale)
    tables = (
        names.territories,
        names.languages,
        names.currencies,
        names.months["format"]["wide"],
        names.days["format"]["wide"],
    )
    # Sorted, so that a seed draws the same names whatever the order of Babel's tables; years in brackets are not read.
    return sorted({str(name).partition("(")[0].strip() for table in tables for name in table.values()})
