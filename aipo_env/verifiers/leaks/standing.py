"""Whether a gold that nobody could guess stands in a text, in whatever form."""

import re
from fractions import Fraction
from functools import lru_cache

from aipo_env.verifiers.leaks.gold import SIZES, Gold, is_short, is_words, value_of
from aipo_env.verifiers.leaks.numerals import (
    MIN_BASE_DIGITS,
    MIN_NAMED_DIGITS,
    forms_of,
    number_words,
    numerals_of,
    readings_in,
    spells_out,
    stands_backwards,
    undressed,
    values_in,
)
from aipo_env.verifiers.leaks.phrases import is_said
from aipo_env.verifiers.leaks.plain_text import folded

MIN_ENTRIES = 4
"""Numbers of a matrix that stand nowhere by chance in this order."""
MAX_SPACED_CHARS = 200
"""A longer gold is looked for as it is written, without blanks."""
_MIN_TURNED_CHARS = 8
"""A shorter word may be another one backwards."""

_TOKEN = re.compile(r"[0-9a-z]+")
_BASE = re.compile(r"(?i)\bbase\b|\bhex|\boctal")
"""What a text says that has a number of another base."""
_BASE_MARK = re.compile(r"\b0[xbo]")
_NUMBER = re.compile(
    r"""
      (?<![\w.]) [-−]? \s? \d{1,9} (?: \.\d{1,9} )? (?![\w.]\d)   # 3, - 1.5
    | [-−]\d{1,9}                                                 # the -2 of 3-2
    """,
    re.VERBOSE,
)
_SPELLED_GAP = r"[\s$*_.,\-–'\"]{0,3}"
"""What may stand between the letters of a word: "W-e-s-t"."""
_FORMULA_GAP = r"[\s$]{0,3}"
_SPACING = re.compile(r"[\s$*_.\-–,'\"]")
"""What is left out to see at once whether a text can hold an answer."""


def stands_in(gold: Gold, text: str) -> bool:
    """Return whether a gold that stands nowhere by chance stands in a text."""
    if is_short(gold) or holds(gold.answer, gold.prompt):
        return False
    return _is_in(gold, text) or _is_phrase_in(gold, text)


def _is_in(gold: Gold, text: str) -> bool:
    """Return whether a gold stands in a text, in whatever form."""
    value = value_of(gold.answer)
    if value is None:
        return holds(gold.answer, text) or _lists_entries(gold, text)
    return (
        _is_in_digits(value, text)
        or _is_in_words(value, text)
        or _is_in_a_base(value, text)
    )


def _is_in_digits(value: Fraction, text: str) -> bool:
    """Return whether a number stands in a text as digits, dressed or not."""
    bare = undressed(text)
    if value in values_in(text) or value in readings_in(text):
        return True
    if bare != text and value in values_in(bare):
        return True
    digits = str(value)
    is_whole = value.denominator == 1
    if is_whole and (spells_out(text, digits) or spells_out(bare, digits)):
        return True
    return stands_backwards(text, digits)


def _is_in_words(value: Fraction, text: str) -> bool:
    words = number_words(text)  # apart by blanks, with one at each end
    return any(f" {form} " in words for form in forms_of(value))


def _is_in_a_base(value: Fraction, text: str) -> bool:
    """Return whether a number stands in a text in another base than ten."""
    bare = _BASE_MARK.sub(" ", text.lower())
    tokens = set(_TOKEN.findall(bare))
    least = MIN_NAMED_DIGITS if _BASE.search(text) else MIN_BASE_DIGITS
    return not tokens.isdisjoint(numerals_of(value, least))


def _is_phrase_in(gold: Gold, text: str) -> bool:
    """Return whether a text says a gold of words in another order, or in more words."""
    is_text = value_of(gold.answer) is None and is_words(gold.answer)
    return is_text and is_said(gold.answer, text, gold.prompt)


def _lists_entries(gold: Gold, text: str) -> bool:
    """Return whether a text has the entries of a matrix one after another."""
    if "\\begin" not in gold.answer:
        return False
    entries = _numbers(gold.answer)
    if len(entries) < MIN_ENTRIES:
        return False
    if _holds_row(entries, _numbers(gold.prompt)):
        return False
    return _holds_row(entries, _numbers(text))


def _numbers(text: str) -> list[str]:
    """Return the numbers of a text, all without blanks and with ASCII signs."""
    numerals = _NUMBER.findall(text)
    return [numeral.replace("−", "-").replace(" ", "") for numeral in numerals]


def _holds_row(entries: list[str], numbers: list[str]) -> bool:
    # Blanks around both: "1 2" is not in "1 23".
    row = f" {' '.join(entries)} "
    all_numbers = f" {' '.join(numbers)} "
    return row in all_numbers


@lru_cache(1024)
def holds(answer: str, text: str) -> bool:
    """Return whether an answer stands in a text, however spaced, as a whole."""
    bare = SIZES.sub("", answer).removesuffix(".")
    if not is_words(bare):
        return _holds_as_is(bare, text)
    names = folded(bare)
    spellings = folded(text)
    return any(_holds_as_is(name, spelling) for name in names for spelling in spellings)


def _holds_as_is(bare: str, text: str) -> bool:
    """Return whether signs stand in a text in this order, or a word's backwards."""
    squeezed = SIZES.sub("", text)
    turned = bare[::-1]
    may_turn = is_words(bare) and len(bare) >= _MIN_TURNED_CHARS and turned != bare
    if may_turn and turned in squeezed:
        return True
    # Most texts do not hold it, and to build the pattern costs more than the rest.
    letters = _SPACING.sub("", bare)
    if not letters or letters not in _SPACING.sub("", squeezed):
        return False
    if len(bare) > MAX_SPACED_CHARS:
        return bare in squeezed
    gap = _SPELLED_GAP if bare.isalpha() else _FORMULA_GAP
    spaced = gap.join(map(re.escape, bare))
    # As a whole: 12 is not in 123, in 12.5 or in 12^2.
    return re.search(rf"(?<![\w.]){spaced}(?!\w|\.\d|\s?\^)", text) is not None
