"""A number as people and programs write it: in digits, in words, in another base, spelled out, encoded.

`forms_of` gives the spellings of a number that can be looked for as text; `values_in` the numbers that a text
states in digits. Both are linear in the text.
"""

import base64
import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

MAX_DIGITS = 60
"""Longer numbers are compared digit by digit only."""
MIN_BASE_DIGITS = 5
"""A shorter numeral of another base is too likely to be another number."""

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = [
    "zero",
    "ten",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
]
_SCALES = (
    (10**12, "trillion"),
    (10**9, "billion"),
    (10**6, "million"),
    (10**3, "thousand"),
    (10**2, "hundred"),
)
_ORDINALS = {
    2: "half",
    3: "third",
    4: "quarter",
    5: "fifth",
    8: "eighth",
    9: "ninth",
    12: "twelfth",
    20: "twentieth",
}
"""How a part is called; others are the number and "th"."""
_DIGIT = re.compile(r"\d")
_RUN = re.compile(r"[0-9](?:(?:, ?|[ \-_'’·.|])?[0-9])*")
"""Digits with single marks between them: a number with its thousands apart, or one that is spelled out."""
_PIECE = re.compile(r"[0-9]+")
_GROUPS = re.compile(r"(?:[,_'’ ][0-9]{3})+(?![0-9])")
_POWER_OF_TEN = re.compile(
    r"[eE]([-+]?[0-9]{1,3})(?![0-9.])"
    r"|\s?(?:×|x|\*|\\times|\\cdot|·)\s?10\s?(?:\^|\*\*)\s?\{?\s?\(?([-+−]?[0-9]{1,3})\b"
)
_PERCENT = re.compile(r"\s?(?:\\?%|percent\b|per cent\b)")
_OVER = re.compile(r"\s?(?:/|\u2044|\\over|over|divided by)\s?([0-9]{1,40})(?![0-9])")
_FRACTION = re.compile(
    r"\\[dtc]?frac\s?\{\s?([0-9]{1,40})\s?\}\s?\{\s?([0-9]{1,40})\s?\}"
)
_SCALED = re.compile(r"\s?(thousand|million|billion|trillion|lakh|crore)\b")
_SCALE_WORDS = {
    "thousand": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "trillion": 10**12,
}
_DECIMALS = re.compile(r"\.[0-9]+")
_DOTTED = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3}){2,}")
"""A number with dots between its thousands."""
_BACKWARDS = re.compile(r"\b(?:revers|backward|mirror)", re.IGNORECASE)
_WORD = re.compile(r"[a-z]+")
_ENCODED = re.compile(r"[A-Za-z0-9+/]{8,400}={0,2}")


def plain_digits(text: str) -> str:
    """Return a text with every digit of any script as an ASCII digit, without marks that nobody sees."""
    text = unicodedata.normalize("NFKC", text)
    if text.isascii():
        return text
    text = "".join(mark for mark in text if unicodedata.category(mark) != "Cf")
    return _DIGIT.sub(lambda digit: str(int(digit[0])), text)


def values_in(text: str) -> set[Fraction]:
    """Return the numbers that a text states in digits; signs are not read."""
    values = {
        Fraction(int(found[1]), int(found[2]))
        for found in _FRACTION.finditer(text)
        if int(found[2])
    }
    for run in _RUN.finditer(text):
        values.update(_values_of_run(text, run.start(), run.end()))
    return values


def _values_of_run(text: str, start: int, end: int) -> set[Fraction]:
    """Return the numbers that begin in a run of digits, each with what follows it."""
    values: set[Fraction] = set()
    for piece in _PIECE.finditer(text, start, end):
        if len(piece[0]) > MAX_DIGITS or _is_inside(text, piece.start()):
            continue
        stop = piece.end()
        if text[max(0, piece.start() - 1)] == ".":  # .25
            value = _with_suffix(Fraction(f"0.{piece[0]}"), text, stop)
            values.add(value)
            continue
        grouped = _GROUPS.match(text, stop) if len(piece[0]) <= 3 else None
        if grouped and len(grouped[0]) < 2 * MAX_DIGITS:
            stop = grouped.end()
        whole = re.sub(r"[^0-9]", "", text[piece.start() : stop])
        decimals = _DECIMALS.match(text, stop)
        if decimals and len(decimals[0]) <= MAX_DIGITS:
            stop = decimals.end()
            whole += decimals[0]
        values.add(_with_suffix(Fraction(whole), text, stop))
    return values


def _is_inside(text: str, start: int) -> bool:
    """Return whether digits continue a decimal or a word: they are no number of their own."""
    before = text[max(0, start - 2) : start]
    is_decimal = before.endswith(".") and before[:1].isdigit()
    return is_decimal or before[-1:].isalpha() or before[-1:] in ("_", "^")


def _with_suffix(value: Fraction, text: str, end: int) -> Fraction:
    """Return a number with what follows it: a power of ten, a percent sign, "million", or a divisor."""
    scaled = _POWER_OF_TEN.match(text, end)
    if scaled:
        exponent = (scaled[1] or scaled[2]).replace("−", "-")
        return value * Fraction(10) ** int(exponent)
    if _PERCENT.match(text, end):
        return value / 100
    named = _SCALED.match(text, end)
    if named:
        return value * _SCALE_WORDS[named[1]]
    divided = _OVER.match(text, end)
    if divided and int(divided[1]):
        return value / int(divided[1])
    return value


def spells_out(text: str, digits: str) -> bool:
    """Return whether a text states a row of digits, however they are set apart: "1-4-2", "1 4 2", "142"."""
    return any(_is_run_of(run, digits) for run in _RUN.finditer(text))


def _is_run_of(run: re.Match[str], digits: str) -> bool:
    """Return whether neighbouring pieces of a run are these digits, and no larger number."""
    pieces = [piece[0] for piece in _PIECE.finditer(run[0])]
    joined = "".join(pieces)
    if digits not in joined:
        return False
    starts, place = {0: 0}, 0
    for number, piece in enumerate(pieces, 1):
        place += len(piece)
        starts[place] = number
    at = joined.find(digits)
    while at >= 0:
        is_whole = at in starts and at + len(digits) in starts
        # A decimal has the same digits and is another number.
        if is_whole and ("." not in run[0] or _DOTTED.fullmatch(run[0])):
            return True
        at = joined.find(digits, at + 1)
    return False


@lru_cache(1024)
def forms_of(value: Fraction) -> tuple[str, ...]:
    """Return spellings of a number without digits, each as words apart by single blanks."""
    above, below = abs(value.numerator), value.denominator
    if below != 1:
        return (*_fraction_words(above, below), *_decimal_words(abs(value)))
    digits = str(above)
    forms = [" ".join(_ONES[int(digit)] for digit in digits)]
    if above < 10**15:
        forms.append(" ".join(_words(above)))
    if len(digits) % 2 == 0 and len(digits) <= 8:
        pairs = [int(digits[at : at + 2]) for at in range(0, len(digits), 2)]
        if all(pair >= 10 for pair in pairs):
            forms.append(" ".join(word for pair in pairs for word in _words(pair)))
    return tuple(forms)


@lru_cache(1024)
def numerals_of(value: Fraction) -> tuple[str, ...]:
    """Return the numerals of a whole number in other bases, lower case."""
    if value.denominator != 1 or value >= 10**MAX_DIGITS:
        return ()
    numerals = [_in_base(int(value), base) for base in range(2, 17) if base != 10]
    return tuple(numeral for numeral in numerals if len(numeral) >= MIN_BASE_DIGITS)


def stands_backwards(text: str, digits: str) -> bool:
    """Return whether a text states a row of digits backwards, and says so."""
    return digits[::-1] in text and _BACKWARDS.search(text) is not None


def decoded(text: str) -> str:
    """Return what stands in base 64 in a text, decoded."""
    found = []
    for block in _ENCODED.finditer(text):
        bare = block[0].rstrip("=")
        try:
            raw = base64.b64decode(bare + "=" * (-len(bare) % 4))
        except ValueError:
            continue
        if raw.isascii():
            found.append(raw.decode("ascii"))
    return "\n".join(found)


def number_words(text: str) -> str:
    """Return the words of a text, lower case and apart by single blanks, as `forms_of` writes them."""
    words = [word for word in _WORD.findall(text.lower()) if word != "and"]
    for at, word in enumerate(words[:-1]):
        if word == "a" and words[at + 1] in ("hundred", "thousand", "million"):
            words[at] = "one"
        if word in ("oh", "nought"):
            words[at] = "zero"
    return f" {' '.join(words)} "


def _words(number: int) -> list[str]:
    if number < 20:
        return [_ONES[number]]
    for size, name in _SCALES:
        if number >= size:
            rest = number % size
            return [*_words(number // size), name, *(_words(rest) if rest else [])]
    rest = number % 10
    return [_TENS[number // 10], *([_ONES[rest]] if rest else [])]


def _fraction_words(above: int, below: int) -> list[str]:
    """Return "three eighths", "three over eight" and their like."""
    if above >= 10**6 or below >= 10**6:
        return []
    counted, parts = " ".join(_words(above)), _words(below)
    name = _ORDINALS.get(below, "")
    if not name:
        last = _ORDINALS.get(_ONES.index(parts[-1]), "") if parts[-1] in _ONES else ""
        ending = last if len(parts) > 1 and last not in ("", "half", "quarter") else ""
        name = " ".join([*parts[:-1], ending or _ordinal(parts[-1])])
    plural = "halves" if name == "half" else f"{name}s"
    shown = " ".join(parts)
    return [
        f"{counted} {name if above == 1 else plural}",
        f"{counted} over {shown}",
        f"{counted} divided by {shown}",
    ]


def _ordinal(word: str) -> str:
    return f"{word.removesuffix('y')}ieth" if word.endswith("y") else f"{word}th"


def _decimal_words(value: Fraction) -> list[str]:
    """Return "zero point two six" for a number whose decimals end."""
    num_places = next((n for n in range(1, 21) if 10**n % value.denominator == 0), 0)
    if not num_places:
        return []
    whole, rest = divmod(int(value * 10**num_places), 10**num_places)
    digits = " ".join(_ONES[int(digit)] for digit in f"{rest:0{num_places}}")
    spoken = " ".join(_words(whole)) if whole < 10**15 else ""
    return [f"{spoken} point {digits}", *([f"point {digits}"] if not whole else [])]


def _in_base(number: int, base: int) -> str:
    digits = ""
    while number:
        digits = "0123456789abcdef"[number % base] + digits
        number //= base
    return digits
