"""A gold answer, and whether it is one of few candidates."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from aipo_env.records import Task
from aipo_env.verifiers.extract import read_gold
from aipo_env.verifiers.leaks.numerals import MAX_DIGITS
from aipo_env.verifiers.math.text import MAX_CHARS, clean, number

LONG_ANSWER = 6
"""Characters, without blanks and sizes, from which a gold may have many candidates."""
LONG_SIGNS = 4
"""Digits, letters, operators and commands that it has then."""
LONG_INTEGER = 6
"""Digits of a whole number, too many to try."""
LONG_RATIO = 4
"""Digits of both parts of a fraction together, too many to try."""
_FEW_WORDS = (
    "always never sometimes positive negative infinite infinity increasing decreasing "
    "constant convergent divergent converges diverges rational irrational parallel "
    "perpendicular clockwise counterclockwise isosceles scalene equilateral monday "
    "tuesday wednesday thursday friday saturday sunday january february march april "
    "may june july august september october november december"
)
FEW_WORDS = frozenset(_FEW_WORDS.split())
"""Answers by themselves that come from a handful."""
_MIN_LETTERS = 4
"""An answer of fewer letters is no word: `x`, `abc`."""
_WORD_SHARE = 0.8
"""Share of letters in what is words; the rest are blanks and marks between them."""

SIZES = re.compile(
    r"""
      \\(?: left | right ) (?![a-zA-Z])   # the size of a bracket; not \leftarrow
    | \\[,;!\ ]                           # a blank of LaTeX's
    | [$\s]
    """,
    re.VERBOSE,
)
"""What spaces an answer and says nothing."""
_SIGNS = re.compile(r"\\[a-zA-Z]+|\w|[-+*/^=<>!,]")
"""Commands, letters, digits and operators: `\\frac`, `x`, `1`, `+`."""
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LETTERS = re.compile(r"[a-z]+")
_STRUCTURE = ("\\left", "\\right", "\\text", "\\mathrm", "\\mathbf", "\\textbf")
_JOINTS = ("+", "-", "*", "\\cdot", "\\times")


@dataclass(frozen=True)
class Gold:
    """What a reply must not give away, and what the policy knows of it."""

    answer: str
    kind: str = "math"
    prompt: str = ""
    choices: tuple[str, ...] = ()
    entry: str = ""

    @classmethod
    def of(cls, task: Task) -> "Gold":
        """Return the gold of a task."""
        is_math = task.kind == "math" and not task.tests
        return cls(
            answer=read_gold(task.answer) if is_math else task.answer,
            kind="code" if task.tests else task.kind,
            prompt=task.prompt,
            choices=task.choices,
            entry=task.tests.entry if task.tests else "",
        )


def is_short(gold: Gold) -> bool:
    """Return whether to withhold a reply would tell a gold: it has few candidates.

    Args:
        gold: A gold answer; that of a code task never is.
    """
    if gold.kind == "code":
        return False
    return bool(gold.choices) or _has_few_candidates(gold.answer)


@lru_cache(4096)
def _has_few_candidates(answer: str) -> bool:
    if len(answer) > MAX_CHARS:
        return False
    if len(SIZES.sub("", answer)) < LONG_ANSWER:
        return True
    value = value_of(answer)
    if value is not None:
        return _is_simple(value)
    words = _LETTERS.findall(_COMMAND.sub(" ", answer.casefold()))
    if len(words) == 1 and words[0] in FEW_WORDS:
        return True
    signs = [sign for sign in _SIGNS.findall(answer) if sign not in _STRUCTURE]
    # A short word is one of a dictionary's, where a formula of as many signs is rare.
    is_word = "".join(signs).isalpha()
    return len(signs) < (LONG_ANSWER if is_word else LONG_SIGNS)


def _is_simple(value: Fraction) -> bool:
    """Return whether a number is one of few that somebody would try."""
    if value.denominator == 1:
        return len(str(value)) < LONG_INTEGER
    return len(f"{value.numerator}{value.denominator}") < LONG_RATIO


@lru_cache(1024)
def value_of(answer: str) -> Fraction | None:
    """Return the exact value of a plain number without its sign, or None."""
    if len(answer) > MAX_CHARS:
        return None
    value = number(clean(answer))
    # A longer number has neither words nor another base's numeral: it is text.
    if value is None or abs(value.numerator) >= 10**MAX_DIGITS:
        return None
    return abs(value)


def is_words(answer: str) -> bool:
    """Return whether an answer is words: small and capital letters do not differ."""
    num_letters = sum(map(str.isalpha, answer))
    is_mostly_letters = num_letters >= _WORD_SHARE * len(answer)
    return "\\" not in answer and is_mostly_letters and num_letters >= _MIN_LETTERS


def signs_of(text: str) -> list[str]:
    """Return the letters, digits and commands of a formula, sorted."""
    signs = _SIGNS.findall(clean(text[:MAX_CHARS]))
    return sorted(sign for sign in signs if sign not in _JOINTS)
