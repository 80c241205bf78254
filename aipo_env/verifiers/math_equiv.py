"""Ground truth for mathematics: the last \\boxed{} of an answer against the gold, exactly.

Numbers are compared by value (integers, decimals, fractions of integers), everything else as normalised
text. Nothing is evaluated, so no answer can hang or execute anything.
"""

import re
from fractions import Fraction
from typing import Literal

from aipo_env.records import Task, Verdict

MAX_ANSWER_CHARS = 10_000
"""Only this much of the end of an answer is read."""
# Digits are bounded: Python refuses to read integers of more than 4300, and an answer must not make it raise.
_NUMBER = re.compile(r"([+-]?)(\d{1,300}(?:,\d{3}){0,100}|\d{1,300})?(\.\d{1,300})?")
_BRACE = re.compile(r"(?<!\\)\{|\\boxed\{|(?<!\\)\}")
_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{(-?\d{1,300})\}\{(-?\d{1,300})\}|([+-]?\d{1,300})/(\d{1,300})")


def last_boxed(text: str) -> str | None:
    """Return what stands in the last balanced `\\boxed{…}`, or None."""
    text = text[-MAX_ANSWER_CHARS:]
    opened: list[tuple[int, bool]] = []
    last = (-1, -1)
    for brace in _BRACE.finditer(text):
        if brace.group().endswith("{"):
            opened.append((brace.end(), len(brace.group()) > 1))
        elif opened:
            begin, is_box = opened.pop()
            last = max(last, (begin, brace.start())) if is_box else last
    return text[last[0] : last[1]].strip() if last[0] >= 0 else None


def normalise(answer: str) -> str:
    """Drop what never matters: dollar signs, spaces, sizing commands, a final full stop."""
    answer = re.sub(r"\\(?:left|right)(?![a-zA-Z])|\\[,;! ]|[$\s]", "", answer)
    return answer.removesuffix(".")


def compare(given: str, gold: str) -> tuple[bool, Literal["value", "text"]]:
    """Return whether two answers are the same, and how: by value if both are plain numbers, else as text."""
    given, gold = normalise(given), normalise(gold)
    values = number(given), number(gold)
    return (given == gold, "text") if None in values else (values[0] == values[1], "value")


def number(answer: str) -> Fraction | None:
    """Return the exact value of a plain number, or None when it is none."""
    if fraction := _FRACTION.fullmatch(answer):
        sign, above, below, plain_above, plain_below = fraction.groups()
        numerator, denominator = int(above or plain_above), int(below or plain_below)
        value = Fraction(numerator, denominator) if denominator else None
        return -value if value is not None and sign == "-" else value
    if (plain := _NUMBER.fullmatch(answer)) and (plain.group(2) or plain.group(3)):
        return Fraction(answer.replace(",", ""))
    return None


class MathVerifier:
    """Compares the last boxed answer with the gold."""

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict; a text without a box is `no_answer` and earns nothing."""
        boxed = last_boxed(text)
        if not boxed:
            return Verdict(correct=False, reward=0.0, status="no_answer", reason="no \\boxed{} answer")
        correct, stage = compare(boxed, task.answer)
        return Verdict(
            correct=correct,
            reward=float(correct),
            status="correct" if correct else "wrong",
            extracted=boxed[:200],
            stage=stage,
        )
