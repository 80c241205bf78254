"""Ground truth for mathematics: the last \\boxed{} of an answer against the gold, exactly.

Numbers are compared by value (integers, decimals, fractions of integers), everything else as normalised
text. Nothing is evaluated, so no answer can hang or execute anything.
"""

import re
from fractions import Fraction

from aipo_env.records import Task, Verdict

MAX_ANSWER_CHARS = 10_000
"""Only this much of the end of an answer is read."""
_NUMBER = re.compile(r"([+-]?)(\d{1,300}(?:,\d{3})*|\d{1,300})?(\.\d{1,300})?")
_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{(-?\d{1,300})\}\{(-?\d{1,300})\}|([+-]?\d{1,300})/(\d{1,300})")


def last_boxed(text: str) -> str | None:
    """Return what stands in the last balanced `\\boxed{…}`, or None."""
    text = text[-MAX_ANSWER_CHARS:]
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for position in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position].strip()
    return None


def normalise(answer: str) -> str:
    """Drop what never matters: dollar signs, spaces, sizing commands, a final full stop."""
    answer = re.sub(r"\\left|\\right|\\[,;! ]|[$\s]", "", answer)
    return answer.removesuffix(".")


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
        given, gold = normalise(boxed), normalise(task.answer)
        values = number(given), number(gold)
        by_value = values[0] is not None and values[1] is not None
        correct = values[0] == values[1] if by_value else given == gold
        return Verdict(
            correct=correct,
            reward=float(correct),
            status="correct" if correct else "wrong",
            extracted=boxed[:200],
            stage="value" if by_value else "text",
        )
