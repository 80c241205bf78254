"""The unit behind a value, and whether those of two answers contradict each other.

An answer without a unit contradicts none, and neither does one whose words say nothing
of a unit. A quantity may be given in another unit of its kind: 50 mm are 5 cm.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from aipo_env.verifiers.math.text import CONNECTIVES, TABLES

_SIZES: dict[str, dict[str, str]] = TABLES["unit_sizes"]
"""Names of units and their sizes, by what they measure."""
_SYNONYMS: dict[str, str] = TABLES["unit_synonyms"]
_GENERIC = frozenset(TABLES["generic_nouns"].split())
"""Words behind a number that say nothing of what it counts."""
_MAX_POWER = 3
_MAX_UNIT_CHARS = 60
_MIN_STEM_CHARS = 4
"""Words that begin with the same letters are one noun: apple, apples."""

_WRAPPED = re.compile(
    r"\\(?:text\w{0,6}|math(?:rm|bf|it)|mbox|operatorname)\s?\{([^{}]*)\}"
)
_BLANK = re.compile(r"\\[,;:! ]|~|\\q?quad(?![a-z])|\$")
_POWER = re.compile(r" ?\^ ?(?:\{ ?(-?[123]) ?\}|(-?[123])(?![0-9]))")
_OHM = re.compile(r" ?(?P<prefix>[kKMm]?) ?(?:\\Omega(?![A-Za-z])|[\u03a9\u2126])")
_OHMS = {"": "ohm", "k": "kilohm", "K": "kilohm", "M": "megohm", "m": "milliohm"}
_RAISED = {"²": "^2", "³": "^3", "µ": "u", "μ": "u", "·": " ", "⋅": " "}
_RAISED_MARK = re.compile("[" + "".join(_RAISED) + "]")
_CELSIUS = re.compile(r"\^?\s?(?:\\circ|°|\\degree)\s?")
_BEHIND = re.compile(
    r"""
    (?<=[0-9)\]}i])                                  # of 12, (3), \pi
    (?P<blank> \s? )
    (?P<unit>
      [A-Za-z]{1,20} (?: \^-?[123] | [23] )?
      (?: [ ./-]{1,3} [A-Za-z]{1,20} (?: \^-?[123] | [23] )? ){0,8}
    )
    """,
    re.VERBOSE,
)
_MONEY = re.compile(
    r"""
    \s* -? \s*
    (?P<sign> \\?\$ | [€£¥₹] | \\(?: pounds | euro | yen ) | Rs\.? | USD | EUR | GBP )
    \s* [0-9.]
    """,
    re.VERBOSE,
)
_SIGNS = {
    "$": "dollar",
    "\\$": "dollar",
    "USD": "dollar",
    "€": "euro",
    "\\euro": "euro",
    "EUR": "euro",
    "£": "sterling",
    "\\pounds": "sterling",
    "GBP": "sterling",
    "¥": "yen",
    "\\yen": "yen",
    "₹": "rupee",
    "Rs": "rupee",
    "Rs.": "rupee",
}
"""What stands before a sum of money, and of which currency."""
_SCALES_OF_DEGREES = {
    "C": "celsius",
    "celsius": "celsius",
    "F": "fahrenheit",
    "fahrenheit": "fahrenheit",
}
_RATES = re.compile(r"\b(mph|kmh|kph|kmph|mps)\b", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+|\^-?[0-9]|/|[23](?![0-9])")


_PART = r"[0-9]{1,9}(?:\.[0-9]{1,9})? ?(?:[A-Za-z]{1,20}|['\"\u2032\u2033])"
_SUM = re.compile(rf"{_PART}(?:(?:,? and |, | ?){_PART}){{1,2}}[.]?")
"""A quantity in several units: `2 hours and 24 minutes`, `1h 30min`."""
_SUMMAND = re.compile(
    r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,9})?) ?"
    r"(?P<name>[A-Za-z]{1,20}|['\"\u2032\u2033])"
)
_MARKS_OF_LENGTH = {"'": "ft", "\u2032": "ft", '"': "in", "\u2033": "in"}


class Unit(NamedTuple):
    """What a value is measured in.

    Args:
        measures: The kinds of quantity and their powers, sorted; empty for words that
            name no unit.
        size: How large it is against the first unit of its kinds.
        words: The words behind the value, stems of nouns.
        value: The text before the unit.
        is_letter: One letter, which may be a variable as well.
    """

    measures: tuple[tuple[str, int], ...]
    size: Fraction
    words: frozenset[str]
    value: str
    is_letter: bool = False


def unit_of(text: str) -> Unit | None:
    """Return the unit of a value as it is written; None where it has none."""
    money = _money_of(text)
    if money is not None:
        return money
    # No two blanks stand side by side from here on, so that all below is linear.
    text = " ".join(text.split())
    bare = _RAISED_MARK.sub(lambda mark: _RAISED[mark[0]], text)
    is_wrapped = _WRAPPED.search(bare) is not None
    # Powers before, for what is wrapped may hold no braces, and those behind it after.
    bare = _WRAPPED.sub(r" \1 ", _POWER.sub(r"^\1\2", bare))
    bare = _CELSIUS.sub(" degrees ", bare)
    bare = _OHM.sub(lambda ohm: f" {_OHMS[ohm['prefix']]} ", bare)
    bare = _POWER.sub(r"^\1\2", bare)
    bare = " ".join(_BLANK.sub(" ", bare).split()).rstrip(" .,;!")
    behind = _last_unit(bare)
    if behind is None:
        return None
    start = behind.start("unit")
    words = behind["unit"]
    if words.startswith("per "):
        return None
    value = bare[:start].strip()
    measured = _measured(words)
    if measured is not None:
        measures, size = measured
        is_letter = len(words) == 1 and not is_wrapped
        if is_letter and not behind["blank"]:
            return None  # 5m is a product as well
        return Unit(measures, size, frozenset(), value, is_letter)
    nouns = frozenset(word.lower() for word in re.findall("[A-Za-z]{3,}", words))
    if not nouns or nouns & CONNECTIVES or not value[-1:].isdigit():
        return None
    return Unit((), Fraction(1), nouns, value)


def in_first_unit(text: str) -> str:
    """Return a quantity in several units in the first: `2 h 30 min` is `5/2 h`.

    Any other text is returned as it is.
    """
    plain = " ".join(_BLANK.sub(" ", _WRAPPED.sub(r" \1 ", text)).split())
    if not _SUM.fullmatch(plain):
        return text
    total = Fraction(0)
    first: tuple[str, Fraction] | None = None
    last_size: Fraction | None = None
    for part in _SUMMAND.finditer(plain):
        name = _MARKS_OF_LENGTH.get(part["name"], part["name"])
        known = _known(name if len(name) <= 2 else name.lower())
        if known is None:
            return text
        kind, size = known
        first = first or known
        # From the large to the small: 24 minutes and 2 hours is not how a time is told.
        if kind != first[0] or (last_size is not None and size >= last_size):
            return text
        total += Fraction(part["number"]) * size
        last_size = size
    if first is None:
        return text
    unit = _SUMMAND.match(plain)
    name = _MARKS_OF_LENGTH.get(unit["name"], unit["name"]) if unit else ""
    return f"{total / first[1]} {name}"


def _last_unit(text: str) -> re.Match[str] | None:
    """Return the words that a text ends with, behind a number."""
    start = max(0, len(text) - _MAX_UNIT_CHARS)
    for match in _BEHIND.finditer(text, start):
        if match.end() == len(text):
            return match
    return None


def _money_of(text: str) -> Unit | None:
    """Return the currency before a sum; a pair of dollar signs is LaTeX's."""
    bare = text.strip()
    if bare.count("$") - bare.count("\\$") > 1:
        bare = bare.strip("$")
    money = _MONEY.match(bare)
    if money is None:
        return None
    name = _SIGNS[money["sign"]]
    # "$5 million", "$3 per hour": more than a sum.
    if re.search("[A-Za-z]{3}", _WRAPPED.sub("", bare[money.end("sign") :])):
        return None
    return Unit(((name, 1),), Fraction(1), frozenset(), text)


def _measured(words: str) -> tuple[tuple[tuple[str, int], ...], Fraction] | None:
    """Return what a unit measures and its size; None if its first word is none."""
    powers: dict[str, int] = {}
    size = Fraction(1)
    sign = 1
    next_power = 1
    last: tuple[str, Fraction] | None = None
    previous = ""
    for mark in _WORD.findall(_RATES.sub(_spelled_rate, words)):
        name = mark if len(mark) <= 2 else mark.lower()
        if name in _SCALES_OF_DEGREES and powers == {"angle": 1}:
            powers = {_SCALES_OF_DEGREES[name]: 1}
            break
        if mark in ("/", "per"):
            sign = -1
            last = None
        elif name in ("square", "sq"):
            next_power = 2
        elif name in ("cubic", "cu"):
            next_power = 3
        elif name in ("squared", "cubed") or mark[0] == "^" or mark.isdigit():
            if last is None:
                break
            digits = mark.lstrip("^")
            power = {"squared": 2, "cubed": 3}.get(name) or int(digits)
            if not -_MAX_POWER <= power <= _MAX_POWER:
                return None
            kind, own_size = last
            powers[kind] += sign * (power - 1)
            size *= own_size ** (sign * (power - 1))
            last = None
        else:
            known = _known(name)
            if known is None:
                if mark != "in" and previous == "in":
                    return None  # a preposition, and no inch
                break
            previous = name
            kind, own_size = known
            powers[kind] = powers.get(kind, 0) + sign * next_power
            size *= own_size ** (sign * next_power)
            last = known
            next_power = 1
    if not powers:
        return None
    measures = tuple(sorted((kind, power) for kind, power in powers.items() if power))
    return _expanded(measures), size


def _spelled_rate(rate: re.Match[str]) -> str:
    """Return what `mph` and its like stand for."""
    name = rate[1].lower()
    if name == "mph":
        return "mile/h"
    return "m/s" if name == "mps" else "km/h"


def _expanded(measures: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """Return measures with volumes as cubes of lengths."""
    powers = dict(measures)
    volume = powers.pop("volume", 0)
    if volume:
        powers["length"] = powers.get("length", 0) + 3 * volume
    return tuple(sorted((kind, power) for kind, power in powers.items() if power))


def _known(name: str) -> tuple[str, Fraction] | None:
    name = _SYNONYMS.get(name, name)
    for kind, units in _SIZES.items():
        if name in units:
            return kind, Fraction(units[name])
    return None


def contradicts(gold: Unit, answer: Unit) -> bool:
    """Return whether an answer's unit cannot be that of the gold."""
    if gold.measures and answer.measures:
        return gold.measures != answer.measures
    if not gold.measures and not answer.measures:
        return not _same_nouns(gold.words, answer.words)
    nouns = gold.words or answer.words
    return not nouns & _GENERIC


def _same_nouns(first: frozenset[str], second: frozenset[str]) -> bool:
    """Return whether words may count the same things."""
    if first & _GENERIC or second & _GENERIC:
        return True
    stems = {word[:_MIN_STEM_CHARS] for word in first}
    return any(word[:_MIN_STEM_CHARS] in stems for word in second)
