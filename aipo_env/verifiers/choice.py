"""Ground truth for multiple choice: which option an answer settles on, if on any."""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from unicodedata import normalize

from aipo_env.errors import VerifierError, shown
from aipo_env.records import Task, Verdict
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.extract import (
    MAX_TURN_CHARS,
    TAG,
    Place,
    boxes,
    joins,
    without_thinking,
)
from aipo_env.verifiers.workers import shared_pool

MAX_ANSWER_CHARS = 10_000
"""Only this much of the end of an answer is read."""
MAX_PLACES = 64
"""Only so many of the places that may hold the answer are read, the last ones."""
MAX_INLINE_CHOICE = 2_000
"""Longer texts are read in a worker process."""
LETTERS = "ABCDEFGHIJ"
"""The letters of options, in their order."""

_STATED = re.compile(
    r"""
    (?i: \b answer | \b correct\ (?: option | choice ) )
    (?:
        \ is \b                  # the answer is B
      | [^\w\n]{0,9} [:=]        # **Answer**: B
    )
    [\s:*_]{0,20} (?![\s:*_])
    ([^\n]{0,300})
    |
    (?: 答案 [是为:\ ]{1,3}      # the answer is
      | 选 [择:\ ]{0,3}          # choose
    )
    ([^\n]{0,300})
    """,
    re.VERBOSE,
)
_LABEL = re.compile(
    r"""
    ([(\[]?) ([A-Za-z])
    (?: [)\].:,]        # B), (B), B.
      | \s* [-–—]       # B - the Nile
      | \s+ (?=\()      # B (the Nile)
      | $
    )
    \s* (.*)
    """,
    re.VERBOSE | re.DOTALL,
)
"""A letter as it stands before an option's text: its bracket, itself, and the text."""
_LETTER = re.compile(r"(?<![\w'’])[A-Z](?![\w'’])")
"""A capital that stands alone; not that of `A's`."""
_ARTICLE = re.compile(r"\bA (?!is\b|as\b|because\b|since\b)[a-z]")
"""An "A" that is no letter of an option, as in `A river`."""
_DRESS = re.compile(
    r"""
      \\(?: text | textbf | mathrm | mathbf ) \b
    | \\[()\[\],;!\ ]     # fences and blanks of LaTeX's
    | [*_`${}"“”]         # marks of Markdown, dollar signs, braces, quotes
    """,
    re.VERBOSE,
)
_DENIED = re.compile(
    r"""
      \b(?: not | except | neither | never | wrong | incorrect )\b
    | n['’]t \b     # isn't
    | \\ne | ≠ | 不
    """,
    re.VERBOSE | re.IGNORECASE,
)
_RETRACTED = re.compile(
    r"""
      \b(?: wait | actually | correction | hmm | scratch\ that
          | on\ second\ thought )\b
    | \b no,
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What behind an answer takes it back."""
_BLANK = re.compile(r"\s")


def read_choice(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return the letter an answer settles on, or "" and why it settles on none.

    The last box or answer tag that speaks of an option decides; without one, the last
    "answer is" line; without that, a last line that is nothing but an option. Two
    letters, a denial, a letter outside the options, a letter beside another option's
    text, and an answer taken back afterwards settle nothing.
    """
    text = normalize("NFKC", without_thinking(text)[-MAX_ANSWER_CHARS:])
    # Some characters are many when normalised.
    text = text[-MAX_ANSWER_CHARS:].strip()
    marked = sorted([*boxes(text), *_places(TAG, text)])
    for places in (marked, list(_places(_STATED, text))):
        letter, fault = _settled(text, places[-MAX_PLACES:], choices)
        if letter or fault:
            return letter, fault
    last_line = text.rpartition("\n")[2]
    letter, fault = _read_label(_undress(last_line), choices)
    if letter:
        return letter, ""
    return "", fault or "no option was chosen"


def _settled(
    text: str, places: list[Place], choices: tuple[str, ...]
) -> tuple[str, str]:
    """Return what the last place says that speaks of an option, and why it says none.

    Places before it that "or" or a comma joins to it are read with it.
    """
    settled = ""
    next_start = 0
    for start, end, content in reversed(places):
        if settled and not joins(text[end:next_start]):
            break
        letter, fault = _read(content, choices)
        if fault:
            return "", fault
        if settled and letter not in ("", settled):
            return "", "several options are named"
        if letter and not settled:
            if _is_taken_back(letter, text[end:], choices):
                return "", "the answer was taken back"
            settled = letter
        next_start = start
    return settled, ""


def _is_taken_back(letter: str, rest: str, choices: tuple[str, ...]) -> bool:
    """Return whether what follows an answer names another option or doubts it."""
    for _, _, content in _places(_STATED, rest):
        later_letter, _ = _read(content, choices)
        if later_letter not in ("", letter):
            return True
    return _RETRACTED.search(rest) is not None


def _places(pattern: re.Pattern[str], text: str) -> Iterator[Place]:
    """Yield the places of a pattern; what each says is the group that is filled."""
    for match in pattern.finditer(text):
        contents = [group for group in match.groups() if group]
        yield match.start(), match.end(), contents[0] if contents else ""


def _read(place: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return the letter that a place names, or "", and what speaks against it."""
    place = _undress(place)
    letter, fault = _read_label(place, choices)
    if letter or fault:
        return letter, fault
    letters = set(_LETTER.findall(place))
    if len(letters) > 1:
        return "", "several options are named"
    if letters and _DENIED.search(place):
        return "", "an option is denied"
    if not letters or _ARTICLE.search(place):
        return "", ""
    return _valid(letters.pop(), choices)


def _read_label(place: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Read a place that is nothing but a letter, an option's text, or both."""
    label = _LABEL.fullmatch(place)
    if label and not label[3]:
        return _valid(label[2].upper(), choices)
    letters = _letters_of(place, choices)
    if len(letters) == 1:
        return letters[0], ""
    # A small letter without a bracket is a word: "a river".
    if label is None or not (label[1] or label[2].isupper()):
        return "", ""
    letters = _letters_of(label[3], choices)
    if not letters:
        return "", ""
    letter = label[2].upper()
    if letter not in letters:
        return "", "the letter and the text name different options"
    return letter, ""


def _valid(letter: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return a letter and "", or "" and that no option has it."""
    if letter in LETTERS[: len(choices)]:
        return letter, ""
    return "", f"{letter} is no option"


def _letters_of(text: str, choices: tuple[str, ...]) -> list[str]:
    """Return the letters of the options that have this text."""
    plain_text = _plain(text)
    options = zip(LETTERS, choices, strict=False)
    return [letter for letter, choice in options if _plain(choice) == plain_text]


def _undress(text: str) -> str:
    bare = _DRESS.sub("", text).strip()
    return bare.removesuffix(".").strip()


@lru_cache(4096)
def _plain(text: str) -> str:
    """Return what two spellings of one option have in common."""
    bare = _undress(normalize("NFKC", text))
    squeezed = _BLANK.sub("", bare).casefold()
    return squeezed.removeprefix("(").removesuffix(")")


async def _choice(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return what `read_choice` does, and hold nobody up."""
    if len(text) + sum(map(len, choices)) <= MAX_INLINE_CHOICE:
        try:
            return read_choice(text, choices)
        except Exception:
            return "", "the answer cannot be read"
    texts = json.dumps([text[-MAX_TURN_CHARS:], choices])
    pool = shared_pool(os.getpid())
    reply = await asyncio.wrap_future(pool.submit("choice", texts))
    if reply.status != "answered":
        return "", "the answer cannot be read"
    letter, reason = json.loads(reply.text)
    return letter, reason


class ChoiceVerifier:
    """Compares the letter an answer settles on with the gold letter."""

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict: `no_answer`, without reward, where no option is chosen.

        Raises:
            VerifierError: The task's gold answer is none of its options' letters, or it
                has more options than there are letters.
        """
        if len(task.choices) > len(LETTERS):
            raise VerifierError(
                f"task {shown(task.id)}: it has {len(task.choices)} choices;"
                f" {len(LETTERS)} have a letter."
            )
        # A list: of a text, a part of several letters is in it, too.
        valid = list(LETTERS[: len(task.choices)])
        if task.answer not in valid:
            raise VerifierError(
                f"task {shown(task.id)}: the answer {shown(task.answer)} is no letter"
                f" of its {len(task.choices)} choices."
            )
        letter, reason = await _choice(text, task.choices)
        if not letter:
            return judged("no_answer", reason=reason)
        is_right = letter == task.answer
        return judged("correct" if is_right else "wrong", extracted=letter)
