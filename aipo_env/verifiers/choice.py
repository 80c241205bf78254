"""Ground truth for multiple choice: which option an answer settles on, if it settles on
one.
"""

import asyncio
import json
import os
import re
from functools import lru_cache
from unicodedata import normalize

from aipo_env.errors import VerifierError, shown
from aipo_env.records import Task, Verdict
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.math_extract import (
    MAX_REPLY_CHARS,
    TAG,
    Place,
    boxes,
    joins,
    without_thinking,
)
from aipo_env.verifiers.workers import shared_pool

MAX_CHARS = 10_000
"""Only this much of the end of an answer is read."""
MAX_PLACES = 64
"""Only so many of the places that may hold the answer are read, the last ones."""
MAX_INLINE_CHARS = 2_000
"""Longer texts are read in a worker process."""
LETTERS = "ABCDEFGHIJ"

_STATED = re.compile(
    r"(?i:\banswer|\bcorrect (?:option|choice))(?:"
    r" is\b|[^\w\n]{0,9}[:=])[\s:*_]{0,20}(?![\s:*_])([^\n]{0,300})"
    r"|(?:答案[是为: ]{1,3}|选[择: ]{0,3})([^\n]{0,300})"
)
_LABEL = re.compile(
    r"([(\[]?)([A-Za-z])(?:[)\].:,]|\s*[-–—]|\s+(?=\()|$)\s*(.*)", re.DOTALL
)
_LETTER = re.compile(r"(?<![\w'’])[A-Z](?![\w'’])")
_ARTICLE = re.compile(r"\bA (?!is\b|as\b|because\b|since\b)[a-z]")
_DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\b|\\[()\[\],;! ]|[*_`${}\"“”]")
_DENIED = re.compile(
    r"(?i)\b(?:not|except|neither|never|wrong|incorrect)\b|n['’]t\b|\\ne|≠|不"
)
_RETRACTED = re.compile(
    r"(?i)\b(?:wait|actually|correction|hmm|scratch that|on second thought)\b|\bno,"
)


def read_choice(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return the letter an answer settles on, or "" and why it settles on none.

    The last box or answer tag that speaks of an option decides; without one, the last
    "answer is" line; without that, a last line that is nothing but an option. Two
    letters, a denial, a letter outside the options, a letter beside another option's
    text, and an answer taken back afterwards settle nothing.
    """
    text = normalize("NFKC", without_thinking(text)[-MAX_CHARS:])
    text = text[-MAX_CHARS:].strip()  # some characters are many when normalised
    for places in (sorted([*boxes(text), *_places(TAG, text)]), _places(_STATED, text)):
        letter, fault = _settled(text, places[-MAX_PLACES:], choices)
        if letter or fault:
            return letter, fault
    letter, fault = _read_label(_undress(text.rpartition("\n")[2]), choices)
    return letter, "" if letter else fault or "no option was chosen"


def _settled(
    text: str, places: list[Place], choices: tuple[str, ...]
) -> tuple[str, str]:
    """Return what the last place says that speaks of an option, with those before it
    that "or" joins to it.
    """
    settled, start = "", 0
    for place in reversed(places):
        if settled and not joins(text[place[1] : start]):
            break
        letter, fault = _read(place[2], choices)
        if fault:
            return "", fault
        if settled and letter not in ("", settled):
            return "", "several options are named"
        if letter and not settled and _taken_back(letter, text[place[1] :], choices):
            return "", "the answer was taken back"
        settled, start = settled or letter, place[0]
    return settled, ""


def _taken_back(letter: str, rest: str, choices: tuple[str, ...]) -> bool:
    """Return whether what follows an answer names another option or doubts it."""
    later = {_read(place, choices)[0] for _, _, place in _places(_STATED, rest)}
    return bool(later - {"", letter} or _RETRACTED.search(rest))


def _places(pattern: re.Pattern[str], text: str) -> list[Place]:
    return [
        (*found.span(), next(filter(None, found.groups()), ""))
        for found in pattern.finditer(text)
    ]


def _read(place: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return the letter that a deciding place names and "", or "" and what speaks
    against it, if anything.
    """
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
    if label and not label.group(3):
        return _valid(label.group(2).upper(), choices)
    if len(named := _named(place, choices)) == 1:
        return named[0], ""
    if (
        label
        and (label.group(1) or label.group(2).isupper())
        and (named := _named(label.group(3), choices))
    ):
        letter = label.group(2).upper()
        return (
            (letter, "")
            if letter in named
            else ("", "the letter and the text name different options")
        )
    return "", ""


def _valid(letter: str, choices: tuple[str, ...]) -> tuple[str, str]:
    return (
        (letter, "")
        if letter in LETTERS[: len(choices)]
        else ("", f"{letter} is no option")
    )


def _named(text: str, choices: tuple[str, ...]) -> list[str]:
    """Return the letters of the options that have this text."""
    return [
        letter
        for letter, choice in zip(LETTERS, choices, strict=False)
        if _plain(choice) == _plain(text)
    ]


def _undress(text: str) -> str:
    return _DRESS.sub("", text).strip().removesuffix(".").strip()


@lru_cache(4096)
def _plain(text: str) -> str:
    return (
        re.sub(r"\s", "", _undress(normalize("NFKC", text)))
        .casefold()
        .removeprefix("(")
        .removesuffix(")")
    )


async def _choice(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    """Return what `read_choice` does, and hold nobody up."""
    if len(text) + sum(map(len, choices)) <= MAX_INLINE_CHARS:
        try:
            return read_choice(text, choices)
        except Exception:
            return "", "the answer cannot be read"
    texts = json.dumps([text[-MAX_REPLY_CHARS:], choices])
    reply = await asyncio.wrap_future(shared_pool(os.getpid()).submit("choice", texts))
    if reply.status != "answered":
        return "", "the answer cannot be read"
    letter, reason = json.loads(reply.text)
    return letter, reason


class ChoiceVerifier:
    """Compares the letter an answer settles on with the gold letter."""

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict; an answer that settles on no option is `no_answer` and
        earns nothing.

        Raises:
            VerifierError: The task's gold answer is none of its options' letters, or it
                has more options than there are letters.
        """
        if len(task.choices) > len(LETTERS):
            raise VerifierError(
                f"task {shown(task.id)}: it has {len(task.choices)} choices;"
                f" {len(LETTERS)} have a letter."
            )
        if task.answer not in list(LETTERS[: len(task.choices)]):
            raise VerifierError(
                f"task {shown(task.id)}: the answer {shown(task.answer)} is no letter"
                f" of its {len(task.choices)} choices."
            )
        letter, reason = await _choice(text, task.choices)
        if not letter:
            return judged("no_answer", reason=reason)
        return judged("correct" if letter == task.answer else "wrong", extracted=letter)
