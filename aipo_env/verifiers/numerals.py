"""A number as people and programs write it: in digits, words, or another base.

`forms_of` gives the spellings of a number that can be looked for as text; `values_in`
the numbers that a text states in digits, `readings_in` what else these may be read as.
All are linear in the text, which has passed through `plain`.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

MAX_DIGITS = 60
"""Longer numbers are compared digit by digit only."""
MIN_BASE_DIGITS = 5
"""A shorter numeral of another base is too likely to be another number."""
MIN_NAMED_DIGITS = 4
"""The same, where a text says that it is one of another base."""

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
_NUMERALS = "0123456789abcdefghijklmnopqrstuvwxyz"
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
_RUN = re.compile(r"[0-9](?:(?:, ?|[ \-_'’·.|])?[0-9])*")
"""Digits with single marks between them: `1,048,576`, `1-4-2`."""
_PIECE = re.compile(r"[0-9]+")
_GROUPS = re.compile(r"(?:[,_'’ ][0-9]{3})+(?![0-9])")
"""What follows `1` in `1,048,576`."""
_POWER_OF_TEN = re.compile(
    r"""
      [eE] ([-+]?[0-9]{1,3}) (?![0-9.])
    | \s? (?: × | x | \* | \\times | \\cdot | · ) \s?
      10 \s? (?: \^ | \*\* ) \s? \{? \s? \(? ([-+−]?[0-9]{1,3}) \b
    """,
    re.VERBOSE,
)
"""What follows `1.5` in `1.5e6` and `1.5 × 10^{6}`."""
_PERCENT = re.compile(r"\s?(?:\\?%|percent\b|per cent\b)")
_OVER = re.compile(r"\s?(?:/|\u2044|\\over|over|divided by)\s?([0-9]{1,40})(?![0-9])")
_FRACTION = re.compile(
    r"""
    \\[dtc]?frac \s?
    (?: \{ \s? ([0-9]{1,40}) \s? \} \s? \{ \s? ([0-9]{1,40}) \s? \} | ([0-9]) ([0-9]) )
    """,
    re.VERBOSE,
)
"""`\frac{17}{64}`, `\frac34`."""
_SCALED = re.compile(r"\s?(thousand|million|billion|trillion|lakh|crore|k|M|bn)\b")
_SCALE_WORDS = {
    "k": 10**3,
    "thousand": 10**3,
    "lakh": 10**5,
    "M": 10**6,
    "million": 10**6,
    "crore": 10**7,
    "bn": 10**9,
    "billion": 10**9,
    "trillion": 10**12,
}
_DECIMALS = re.compile(r"\.[0-9]+")
_DOTTED = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3}){2,}")
"""A number with dots between its thousands."""
_ONE_DOT = re.compile(r"(?<![0-9.,])([1-9][0-9]{0,2})\.([0-9]{3})(?![0-9]|[.,][0-9])")
"""`362.880`, which may be 362880."""
_COMMA = re.compile(r"(?<![0-9.,])([0-9]{1,9}),([0-9]{1,40})(?![0-9]|[.,][0-9])")
"""`0,265625`, which may be 0.265625."""
_MIXED = re.compile(
    r"""
    (?<![0-9./]) ([0-9]{1,9}) \s (?:and\s)?
    (?: ([0-9]{1,9}) \s? [/\u2044] \s? ([0-9]{1,9}) (?![0-9])
      | \\[dtc]?frac \{ ([0-9]{1,9}) \} \{ ([0-9]{1,9}) \} )
    """,
    re.VERBOSE,
)
"""`12 3/4`, `12 and \frac{3}{4}`."""
_PART_OF = re.compile(
    r"""
    (?<![0-9.,/]) ([0-9]{1,12}) \b
    (?: (?:\s(?!out\b|in\b|of\b|among\b|per\b)[a-z-]{1,20}){0,4}
        \s (?:out\sof|in|of|among|from\samong|per)
        (?: \s (?:the|all|a\stotal\sof|every|possible|equally|likely) ){0,3} \s
      | \s?:\s? )
    ([0-9]{1,12}) (?![0-9:/]|[.,][0-9])
    """,
    re.VERBOSE,
)
"""`35 out of 128`, `35 favourable outcomes out of the 128`, `35:128`."""
_RATIO = re.compile(
    r"(?i:ratio|odds|proportion)[^0-9\n]{1,20}([0-9]{1,12}) ?to ?([0-9]{1,12})(?![0-9])"
)
"""`the ratio is 35 to 128`."""
_WHOLE_AND_PART = re.compile(
    r"""
    (?<![0-9.,/]) ([0-9]{1,12}) \b
    (?: [,;.]? \s (?!of\s)[a-z-]{1,20} ){0,4} [,;]? \s
    (?: of\s(?:which|these|them|those) (?:\s(?:exactly|only|just))? ) \s
    ([0-9]{1,12}) (?![0-9:/]|[.,][0-9])
    """,
    re.VERBOSE,
)
"""`128 outcomes, of which 35`."""
_NAMED_PARTS = re.compile(
    r"""
    (?i: numerator|denominator ) [^0-9\n]{1,30} ([0-9]{1,12}) (?![0-9]) [^0-9\n]{1,40}
    (?i: numerator|denominator ) [^0-9\n]{1,30} ([0-9]{1,12}) (?![0-9])
    """,
    re.VERBOSE,
)
"""`numerator 127, denominator 343`."""
_PARTS_AS_NAMED = re.compile(
    r"""
    (?<![0-9.]) ([0-9]{1,12}) \b [^0-9\n]{1,30} (?i: numerator|denominator )
    [^0-9\n]{1,40} (?<![0-9.]) ([0-9]{1,12}) \b
    [^0-9\n]{1,30} (?i: numerator|denominator )
    """,
    re.VERBOSE,
)
"""`127 as the numerator and 343 as the denominator`."""
_DRESS = re.compile(r"\{,\}|\\[,;:! ]|[*`\"“”$\[\]()\\]")
"""What may stand between the digits of one number and is no part of it."""
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_BACKWARDS = re.compile(r"\b(?:revers|backward|mirror)", re.IGNORECASE)
_WORD = re.compile(r"[a-z]+|[0-9]{1,15}")
_LINKS = frozenset(("and", "then", "followed", "by", "next", "finally", "s"))
"""Words that may stand between those of one number."""


def values_in(text: str) -> set[Fraction]:
    """Return the numbers that a text states in digits; signs are not read."""
    values = set(_quotients(_FRACTION, text))
    for run in _RUN.finditer(text):
        values.update(_values_of_run(text, run.start(), run.end()))
    return values


def readings_in(text: str) -> set[Fraction]:
    """Return what the digits of a text may also be read as.

    That is "35 out of 128", "12 3/4", and "362.880" as a whole number.
    """
    values = {*_quotients(_PART_OF, text), *_quotients(_RATIO, text)}
    for parts in (_NAMED_PARTS, _PARTS_AS_NAMED, _WHOLE_AND_PART):
        for value in _quotients(parts, text):
            values |= {value, 1 / value} if value else {value}
    for found in _MIXED.finditer(text):
        whole, above, below = (int(part) for part in found.groups() if part is not None)
        if below:
            values.add(whole + Fraction(above, below))
    for found in _ONE_DOT.finditer(text):
        values.add(Fraction(found[1] + found[2]))
    for found in _COMMA.finditer(text):
        values.add(Fraction(f"{found[1]}.{found[2]}"))
    return values


def _quotients(pattern: re.Pattern[str], text: str) -> Iterator[Fraction]:
    """Yield the quotients of the two numbers of each match of a pattern."""
    for found in pattern.finditer(text):
        above, below = (int(part) for part in found.groups() if part is not None)
        if below:
            yield Fraction(above, below)


def undressed(text: str) -> str:
    """Return a text without marks that may stand between the digits of a number."""
    return _DRESS.sub("", text)


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
    """Return whether digits continue a decimal or a word, and are no number."""
    before = text[max(0, start - 2) : start]
    is_decimal = before.endswith(".") and before[:1].isdigit()
    is_script = before in ("_{", "^{") or before[-1:] in ("_", "^")
    return is_decimal or is_script or before[-1:].isalpha()


def _with_suffix(value: Fraction, text: str, end: int) -> Fraction:
    """Return a number with what follows: a power of ten, "%", "million", a divisor."""
    scaled = _POWER_OF_TEN.match(text, end)
    if scaled:
        exponent = int((scaled[1] or scaled[2]).replace("−", "-"))
        # A larger one is of no number that is looked for.
        return value * Fraction(10) ** max(-MAX_DIGITS, min(exponent, MAX_DIGITS))
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
    """Return whether a text states a row of digits: "1-4-2", "1 4 2", "142"."""
    return any(_is_run_of(run, digits) for run in _RUN.finditer(text))


def _is_run_of(run: re.Match[str], digits: str) -> bool:
    """Return whether neighbouring pieces of a run are these digits."""
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
    """Return spellings of a number without digits, as words apart by single blanks."""
    above, below = abs(value.numerator), value.denominator
    if below != 1:
        whole, rest = divmod(above, below)
        mixed: list[str] = []
        if whole and whole < 10**15:
            spoken = " ".join(_words(whole))
            mixed = [f"{spoken} {part}" for part in _fraction_words(rest, below)[:1]]
        decimals = _decimal_words(abs(value))
        return (*_fraction_words(above, below), *mixed, *decimals)
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
def numerals_of(value: Fraction, least: int = MIN_BASE_DIGITS) -> tuple[str, ...]:
    """Return the numerals of a whole number in other bases, lower case.

    Args:
        value: The number; of one that is not whole there are none.
        least: Digits that a numeral has at least.
    """
    if value.denominator != 1 or value >= 10**MAX_DIGITS:
        return ()
    bases = (*range(2, 10), *range(11, 17), 32, 36)
    numerals = [_in_base(int(value), base) for base in bases]
    return tuple(numeral for numeral in numerals if len(numeral) >= least)


def stands_backwards(text: str, digits: str) -> bool:
    """Return whether a text states a row of digits backwards, and says so."""
    return digits[::-1] in text and _BACKWARDS.search(text) is not None


def number_words(text: str) -> str:
    """Return the words and numerals of a text as `forms_of` writes them."""
    tokens = [
        token
        for token in _WORD.findall(_THOUSANDS.sub("", text.lower()))
        if token not in _LINKS
    ]
    words: list[str] = []
    for token, following in zip(tokens, [*tokens[1:], ""], strict=False):
        if token[0] in "0123456789":
            words += _words_of_numeral(token)
        elif token == "a" and following in ("hundred", "thousand", "million"):
            words.append("one")
        elif token in ("oh", "nought"):
            words.append("zero")
        else:
            words.append(token)
    joined = f" {' '.join(words)} "
    if " hundred " not in joined:
        return joined
    return _MANY_HUNDREDS.sub(lambda found: _THOUSANDS_OF[found[0]], joined)


@lru_cache(1024)
def _words_of_numeral(digits: str) -> tuple[str, ...]:
    """Return how digits are read: as a number, or one by one behind a zero."""
    if digits[0] == "0":
        return tuple(_ONES[int(digit)] for digit in digits)
    return tuple(_words(int(digits)))


def _words(number: int) -> list[str]:
    if number < 20:
        return [_ONES[number]]
    for size, name in _SCALES:
        if number >= size:
            rest = number % size
            return [*_words(number // size), name, *(_words(rest) if rest else [])]
    rest = number % 10
    return [_TENS[number // 10], *([_ONES[rest]] if rest else [])]


_THOUSANDS_OF = {
    f" {' '.join(_words(number))} hundred ": f" {' '.join(_words(100 * number))} "
    for number in range(11, 100)
    if number % 10
}
"""What "twelve hundred" is called as well."""
_MANY_HUNDREDS = re.compile("|".join(sorted(_THOUSANDS_OF, key=len, reverse=True)))


def _fraction_words(above: int, below: int) -> list[str]:
    """Return "three eighths", "three over eight" and their like, without links."""
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
        f"{counted} divided {shown}",
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
        digits = _NUMERALS[number % base] + digits
        number //= base
    return digits
