"""The options of a question, and which of them a text is.

Two spellings of one option are alike: blanks, dress and, where that tells no two
options apart, capitals and an article in front do not count.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_uppercase
from typing import NamedTuple
from unicodedata import normalize

LETTERS = ascii_uppercase
"""The letters of options, in their order."""
_MAX_QUESTIONS = 64
"""The options of so many questions are kept in the form they are compared in."""

_DRESS = re.compile(
    r"""
      \\(?: text | textbf | textit | textrm | textsf | texttt | mathrm
        | mathbf | mathit | mathsf | mathtt | bf ) \b
    | \\[()\[\]{},;:!\ ]        # fences and blanks of LaTeX's
    | \\boxed \b | \\fbox \b
    | </?answer>
    | </s> | <\|\w{1,30}\|>      # what ends a turn for some tokenizers
    | (?<![A-Za-z0-9)]) \*       # marks of Markdown; 2*3 is a product
    | \* (?![A-Za-z0-9(])
    | [_`${}~"“”«»„]             # more of them, dollar signs, braces, quotes
    | (?<!\w) ['’\u2018] | (?<! [{($] [A-Za-z] ) ['’\u2018] (?!\w)
                                 # quotes; no apostrophes, no primes
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BLANK = re.compile(r"\s")
_MINUS = re.compile(r"[\u2212\u2013](?=[0-9.])")
_NUMBER = re.compile(r"[-+]?[0-9][0-9.,]{0,40}")
_ARTICLE = re.compile(r"(?:a|an|An|AN|[Tt]he|THE)\s{1,9}(?=\w\w)")
"""What may stand before an option's text; a capital A may be a letter's."""
_UNIT = re.compile(r"\s{0,40}[^\W\d_%°µ]|\s{0,40}[%°µ]")


class _Options(NamedTuple):
    """What options are compared by: their spellings, each with its letters."""

    exact: dict[str, str]
    folded: dict[str, str]
    nouns: dict[str, str]
    undressed: tuple[str, ...]


def blanked(text: str) -> str:
    """Return a text of the same length in which marks of Markdown and LaTeX are blanks.

    >>> blanked("**Answer:** $B$")
    '  Answer:    B '
    """
    return _DRESS.sub(lambda mark: " " * len(mark[0]), text)


def without_dress(text: str) -> str:
    """Return a text without marks of Markdown and LaTeX, and without its full stop.

    >>> without_dress("**24 m/s.**")
    '24 m/s'
    """
    bare = _DRESS.sub("", text).strip()
    return _MINUS.sub("-", bare.removesuffix(".").strip())


def letters_of(text: str, choices: Sequence[str]) -> str:
    """Return the letters of the options that have this text, "" if none has."""
    bare = without_dress(text)
    spelling = _spelling(bare)
    if not spelling:
        return ""
    options = _options(tuple(choices))
    letters = options.exact.get(spelling) or options.folded.get(spelling.casefold(), "")
    return letters or options.nouns.get(_noun(bare), "")


def is_text(letter: str, choices: Sequence[str]) -> bool:
    """Return whether a letter is an option's text as well, and not its own option's."""
    own = _options(tuple(choices)).exact.get(letter, "")
    return bool(own) and letter not in own


def letter_of_number(text: str, choices: tuple[str, ...]) -> str:
    """Return the letter of the one option that is this number with a unit, or ""."""
    number = without_dress(text)
    if not _NUMBER.fullmatch(number):
        return ""
    found = [
        letter
        for letter, option in zip(LETTERS, _options(choices).undressed, strict=False)
        if option.startswith(number) and _UNIT.match(option, len(number))
    ]
    return found[0] if len(found) == 1 else ""


@lru_cache(_MAX_QUESTIONS)
def _options(choices: tuple[str, ...]) -> _Options:
    exact: dict[str, str] = {}
    folded: dict[str, str] = {}
    nouns: dict[str, str] = {}
    texts = tuple(without_dress(normalize("NFKC", choice)) for choice in choices)
    for letter, text in zip(LETTERS, texts, strict=False):
        spelling = _spelling(text)
        exact[spelling] = exact.get(spelling, "") + letter
        alike = spelling.casefold()
        folded[alike] = folded.get(alike, "") + letter
        noun = _noun(text)
        nouns[noun] = nouns.get(noun, "") + letter
    return _Options(exact, folded, nouns, texts)


def _noun(bare: str) -> str:
    """Return what two spellings have in common, but for capitals and an article."""
    article = _ARTICLE.match(bare)
    return _spelling(bare[article.end() :] if article else bare).casefold()


def _spelling(text: str) -> str:
    """Return what two spellings of one option have in common, but for capitals."""
    return _BLANK.sub("", text).removeprefix("(").removesuffix(")")
