"""A number as people and programs write it: in digits, words, or another base.

`forms_of` gives the spellings of a number that can be looked for as text; `values_in`
the numbers that a text states in digits, `readings_in` what else these may be read as.
All are linear in the text, which has passed through `plain`.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise

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
"""The digits of every base up to 36, by their value."""
_BASES = (*range(2, 10), *range(11, 17), 32, 36)
"""Bases that people and programs write numbers in, besides ten."""
GROUP_DIGITS = 3
"""Digits between two commas of a long number."""
_END_OF_SCALES = 10**15
"""From here on a number has no name of its own: `_SCALES` goes no further."""
_MAX_PART = 10**6
"""Nobody says a fraction of such a numerator or denominator in words."""
_MAX_PLACES = 20
"""Nobody says more decimals in words."""
_MAX_PAIRED_DIGITS = 8
"""Nobody says a longer number two digits at a time, "fourteen ninety-two"."""
_FIRST_PAIR = 10
"""Of two digits; "05" in "19 05" is said in several ways, and so not looked for."""
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
_NO_DIGIT = re.compile(r"[^0-9]")
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
_OVER = re.compile(
    r"""
    \s? (?: / | \u2044 | \\over | over | divided\ by ) \s?
    ([0-9]{1,40}) (?![0-9])
    """,
    re.VERBOSE,
)
"""What follows `17` in `17/64`, `17 \\over 64` and `17 divided by 64`."""
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
_ONE_DOT = re.compile(
    r"""
    (?<![0-9.,]) ([1-9][0-9]{0,2})
    \. ([0-9]{3}) (?![0-9]|[.,][0-9])
    """,
    re.VERBOSE,
)
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
    r"""
    (?i: ratio | odds | proportion ) [^0-9\n]{1,20}
    ([0-9]{1,12}) \ ? to \ ? ([0-9]{1,12}) (?![0-9])
    """,
    re.VERBOSE,
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
_DRESS = re.compile(
    r"""
      \{,\}                 # LaTeX's comma of thousands: 142{,}857
    | \\[,;:!\ ]           # a blank of LaTeX's: 142\,857
    | [*`"“”$\[\]()\\]     # marks of Markdown, quotes, brackets: "1", "4", "2"
    """,
    re.VERBOSE,
)
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
        values |= _values_of_run(text, run)
    return values


def readings_in(text: str) -> set[Fraction]:
    """Return what the digits of a text may also be read as.

    That is "35 out of 128", "12 3/4", and "362.880" as a whole number.
    """
    values = {*_quotients(_PART_OF, text), *_quotients(_RATIO, text)}
    for pattern in (_NAMED_PARTS, _PARTS_AS_NAMED, _WHOLE_AND_PART):
        for value in _quotients(pattern, text):
            values.add(value)
            # Which of the two is the denominator the pattern does not tell.
            if value:
                values.add(1 / value)
    for match in _MIXED.finditer(text):
        whole, above, below = _parts(match)
        if below:
            values.add(whole + Fraction(above, below))
    for match in _ONE_DOT.finditer(text):
        values.add(Fraction(match[1] + match[2]))
    for match in _COMMA.finditer(text):
        values.add(Fraction(f"{match[1]}.{match[2]}"))
    return values


def _quotients(pattern: re.Pattern[str], text: str) -> Iterator[Fraction]:
    """Yield the quotients of the two numbers of each match of a pattern."""
    for match in pattern.finditer(text):
        above, below = _parts(match)
        if below:
            yield Fraction(above, below)


def _parts(match: re.Match[str]) -> list[int]:
    """Return the numbers of a match; the groups of its other alternatives are empty."""
    return [int(part) for part in match.groups() if part is not None]


def undressed(text: str) -> str:
    """Return a text without marks that may stand between the digits of a number."""
    return _DRESS.sub("", text)


# A run of digits and single marks between them is read piece by piece: "1-4-2" and
# "3, 142" state three numbers and two, and each may go on with decimals or a suffix.


def _values_of_run(text: str, run: re.Match[str]) -> set[Fraction]:
    """Return the numbers that begin in a run of digits, each with what follows it."""
    values: set[Fraction] = set()
    for piece in _PIECE.finditer(text, run.start(), run.end()):
        if len(piece[0]) <= MAX_DIGITS and not _is_inside(text, piece.start()):
            values.add(_value_of_piece(text, piece))
    return values


def _value_of_piece(text: str, piece: re.Match[str]) -> Fraction:
    """Return the number that begins with some digits."""
    stop = piece.end()
    before = text[max(0, piece.start() - 1)]
    if before == ".":  # .25
        return _with_suffix(Fraction(f"0.{piece[0]}"), text, stop)
    if len(piece[0]) <= GROUP_DIGITS:
        groups = _GROUPS.match(text, stop)
        # The marks between the digits double what a number of the longest kind takes.
        if groups and len(groups[0]) < 2 * MAX_DIGITS:
            stop = groups.end()
    numeral = _NO_DIGIT.sub("", text[piece.start() : stop])
    decimals = _DECIMALS.match(text, stop)
    if decimals and len(decimals[0]) <= MAX_DIGITS:
        stop = decimals.end()
        numeral += decimals[0]
    return _with_suffix(Fraction(numeral), text, stop)


def _is_inside(text: str, start: int) -> bool:
    """Return whether digits continue a decimal or a word, and are no number."""
    before = text[max(0, start - 2) : start]
    last_mark = before[-1:]
    is_decimal = before.endswith(".") and before[:1].isdigit()
    is_script = before in ("_{", "^{") or last_mark in ("_", "^")
    return is_decimal or is_script or last_mark.isalpha()


def _with_suffix(value: Fraction, text: str, end: int) -> Fraction:
    """Return a number with what follows: a power of ten, "%", "million", a divisor."""
    power = _POWER_OF_TEN.match(text, end)
    if power:
        digits = power[1] or power[2]
        exponent = int(digits.replace("−", "-"))
        # A larger one is of no number that is looked for.
        exponent = max(-MAX_DIGITS, min(exponent, MAX_DIGITS))
        return value * Fraction(10) ** exponent
    if _PERCENT.match(text, end):
        return value / 100
    scale = _SCALED.match(text, end)
    if scale:
        return value * _SCALE_WORDS[scale[1]]
    divisor = _OVER.match(text, end)
    if divisor and int(divisor[1]):
        return value / int(divisor[1])
    return value


def spells_out(text: str, digits: str) -> bool:
    """Return whether a text states a row of digits: "1-4-2", "1 4 2", "142"."""
    return any(_is_run_of(run, digits) for run in _RUN.finditer(text))


def _is_run_of(run: re.Match[str], digits: str) -> bool:
    """Return whether neighbouring pieces of a run are these digits."""
    pieces = _PIECE.findall(run[0])
    joined = "".join(pieces)
    if digits not in joined:
        return False
    # A decimal has the same digits and is another number.
    if "." in run[0] and not _DOTTED.fullmatch(run[0]):
        return False
    # The digits must begin and end where a piece does: "142" is not in "1-420".
    edges = {0, *accumulate(map(len, pieces))}
    at = joined.find(digits)
    while at >= 0:
        if at in edges and at + len(digits) in edges:
            return True
        at = joined.find(digits, at + 1)
    return False


# Spellings of a number


@lru_cache(1024)
def forms_of(value: Fraction) -> tuple[str, ...]:
    """Return spellings of a number without digits, as words apart by single blanks."""
    above = abs(value.numerator)
    below = value.denominator
    if below == 1:
        return _forms_of_whole(above)
    return (
        *_fraction_words(above, below),
        *_mixed_words(above, below),
        *_decimal_words(abs(value)),
    )


def _forms_of_whole(number: int) -> tuple[str, ...]:
    """Return "one four two", "one hundred forty two" and their like."""
    digits = str(number)
    forms = [_one_by_one(digits)]
    if number < _END_OF_SCALES:
        forms.append(_spoken(number))
    if len(digits) % 2 == 0 and len(digits) <= _MAX_PAIRED_DIGITS:
        starts = range(0, len(digits), 2)
        pairs = [int(digits[start : start + 2]) for start in starts]
        if all(pair >= _FIRST_PAIR for pair in pairs):
            forms.append(" ".join(map(_spoken, pairs)))
    return tuple(forms)


def _mixed_words(above: int, below: int) -> list[str]:
    """Return "twelve three quarters" for a fraction that is larger than one."""
    whole, rest = divmod(above, below)
    if not whole or whole >= _END_OF_SCALES:
        return []
    usual = _fraction_words(rest, below)[:1]
    return [f"{_spoken(whole)} {part}" for part in usual]


@lru_cache(1024)
def numerals_of(value: Fraction, least: int = MIN_BASE_DIGITS) -> tuple[str, ...]:
    """Return the numerals of a whole number in other bases, lower case.

    Args:
        value: The number; of one that is not whole there are none.
        least: Digits that a numeral has at least.
    """
    if value.denominator != 1 or value >= 10**MAX_DIGITS:
        return ()
    numerals = [_in_base(int(value), base) for base in _BASES]
    return tuple(numeral for numeral in numerals if len(numeral) >= least)


def stands_backwards(text: str, digits: str) -> bool:
    """Return whether a text states a row of digits backwards, and says so."""
    return digits[::-1] in text and _BACKWARDS.search(text) is not None


# The words of a text


def number_words(text: str) -> str:
    """Return the words and numerals of a text as `forms_of` writes them."""
    bare = _THOUSANDS.sub("", text.lower())
    tokens = [token for token in _WORD.findall(bare) if token not in _LINKS]
    words: list[str] = []
    for token, following in pairwise([*tokens, ""]):
        words += _words_of_token(token, following)
    joined = f" {' '.join(words)} "
    # Most texts have none, and the pattern has nearly a hundred alternatives.
    if " hundred " not in joined:
        return joined
    return _MANY_HUNDREDS.sub(lambda hundreds: _THOUSANDS_OF[hundreds[0]], joined)


def _words_of_token(token: str, following: str) -> tuple[str, ...]:
    """Return a word of a text, before another, as `forms_of` writes it."""
    if token[0] in "0123456789":
        return _words_of_numeral(token)
    if token == "a" and following in ("hundred", "thousand", "million"):
        return ("one",)
    if token in ("oh", "nought"):
        return ("zero",)
    return (token,)


@lru_cache(1024)
def _words_of_numeral(digits: str) -> tuple[str, ...]:
    """Return how digits are read: as a number, or one by one behind a zero."""
    if digits[0] == "0":
        return tuple(_one_by_one(digits).split())
    return tuple(_words(int(digits)))


def _one_by_one(digits: str) -> str:
    return " ".join(_ONES[int(digit)] for digit in digits)


def _spoken(number: int) -> str:
    return " ".join(_words(number))


def _words(number: int) -> list[str]:
    """Return the words of a whole number below `_END_OF_SCALES`, without "and"."""
    if number < len(_ONES):
        return [_ONES[number]]
    for size, name in _SCALES:
        if number >= size:
            words = [*_words(number // size), name]
            rest = number % size
            return words + _words(rest) if rest else words
    tens, ones = divmod(number, 10)
    return [_TENS[tens], _ONES[ones]] if ones else [_TENS[tens]]


_THOUSANDS_OF = {
    f" {_spoken(number)} hundred ": f" {_spoken(100 * number)} "
    for number in range(11, 100)
    if number % 10
}
"""What "twelve hundred" is called as well."""
# The longest first: "twenty one hundred" holds "one hundred".
_MANY_HUNDREDS = re.compile("|".join(sorted(_THOUSANDS_OF, key=len, reverse=True)))


def _fraction_words(above: int, below: int) -> list[str]:
    """Return "three eighths", "three over eight" and their like, without links."""
    if above >= _MAX_PART or below >= _MAX_PART:
        return []
    name = _name_of_part(below)
    if above != 1:
        name = "halves" if name == "half" else f"{name}s"
    numerator = _spoken(above)
    denominator = _spoken(below)
    return [
        f"{numerator} {name}",
        f"{numerator} over {denominator}",
        f"{numerator} divided {denominator}",
    ]


def _name_of_part(below: int) -> str:
    """Return what one of so many equal parts is called: "half", "thirty fifth"."""
    if below in _ORDINALS:
        return _ORDINALS[below]
    *first_words, last_word = _words(below)
    ordinal = ""
    if first_words and last_word in _ONES:
        ordinal = _ORDINALS.get(_ONES.index(last_word), "")
    # One of two parts is a half, but one of thirty-two is no thirty-half.
    if ordinal in ("", "half", "quarter"):
        ordinal = _ordinal(last_word)
    return " ".join([*first_words, ordinal])


_IRREGULAR_ORDINALS = {"one": "first", "two": "second"}
"""Behind a number of tens: "twenty first". Alone they name no part."""


def _ordinal(word: str) -> str:
    if word in _IRREGULAR_ORDINALS:
        return _IRREGULAR_ORDINALS[word]
    if word.endswith("y"):
        return f"{word.removesuffix('y')}ieth"
    return f"{word}th"


def _decimal_words(value: Fraction) -> list[str]:
    """Return "zero point two six" for a number whose decimals end."""
    num_places = _num_places(value.denominator)
    if not num_places:
        return []
    unit = 10**num_places
    whole, rest = divmod(int(value * unit), unit)
    decimals = _one_by_one(f"{rest:0{num_places}}")
    before = _spoken(whole) if whole < _END_OF_SCALES else ""
    forms = [f"{before} point {decimals}"]
    if not whole:
        forms.append(f"point {decimals}")
    return forms


def _num_places(below: int) -> int:
    """Return the decimals of a fraction with a denominator; 0 where they do not end."""
    for num_places in range(1, _MAX_PLACES + 1):
        if 10**num_places % below == 0:
            return num_places
    return 0


def _in_base(number: int, base: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, base)
        digits = _NUMERALS[digit] + digits
    return digits
