"""Ground truth for mathematics: is the answer of a reply the gold's equal?

Stages, each only if the one before could not decide: the answer is extracted, brought to one spelling,
compared by exact value or by form, screened for bombs, and compared by algebra in a worker process that can
be killed. The value decides; nothing is rounded, but a decimal of six significant digits or more may differ by
1e-6 relatively. Nothing that a model wrote is ever executed.
"""

import asyncio
import os
import re
from functools import partial
from typing import Literal

from aipo_env.records import Task, Verdict, VerdictStatus
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.math_compare import equivalent
from aipo_env.verifiers.math_extract import extract
from aipo_env.verifiers.math_extract import last_boxed as last_boxed
from aipo_env.verifiers.math_text import MAX_CHARS, clean, number, screen
from aipo_env.verifiers.workers import shared_pool

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_MAX_CACHED = 50_000
_VERDICTS: dict[tuple[str, str], Verdict] = {}
"""What was decided before: in a group of rollouts most answers are the same."""
_REPLIES: dict[str, tuple[VerdictStatus, str]] = {
    "correct": ("correct", ""),
    "wrong": ("wrong", ""),
    "bad gold": ("error", "the gold {!r} cannot be read"),
    "timeout": ("timeout", "the comparison took too long and was killed"),
    "memory": ("memory", "the comparison exhausted its process"),
}
"""What a worker's reply makes of an answer."""


class Undecided(Exception):
    """Only algebra can tell."""


class _NoAlgebra:
    """A judge that knows none."""

    def undecided(self, *_: object) -> bool:
        raise Undecided

    scalars = relations = sets = undecided


def normalise(answer: str) -> str:
    """Drop what never matters: dollar signs, spaces, sizing commands, a final full stop."""
    answer = re.sub(r"\\(?:left|right)(?![a-zA-Z])|\\[,;! ]|[$\s]", "", answer)
    return answer.removesuffix(".")


def compare(given: str, gold: str) -> tuple[bool, Literal["value", "text"]]:
    """Return whether two answers are the same as far as this is seen without algebra, and how: else as text."""
    if max(len(given), len(gold)) <= MAX_CHARS:
        try:
            return _decide(clean(gold), clean(given)), "value"
        except Undecided:
            pass
    return normalise(given) == normalise(gold), "text"


def check_gold(gold: str) -> str:
    """Return why a gold answer cannot be used, for dropping its task; empty when it can."""
    if not (text := clean(gold)):
        return "it is empty"
    if reason := screen(text):
        return f"it holds {reason}"
    if number(text) is not None:
        return ""
    reply = shared_pool(os.getpid()).submit("unreadable", text).result()
    if reply.status != "answered":
        return "reading it takes too long"
    return f"it cannot be read: {reply.text}" if reply.text else ""


class MathVerifier:
    """Compares the answer of a reply with the gold.

    Args:
        unmarked: Accept a reply that marks no answer (box, answer tag, "Answer:"): its last expression counts.
    """

    def __init__(self, unmarked: bool = False) -> None:
        self._unmarked = unmarked

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict on a whole reply; one without an answer is `no_answer` and earns nothing."""
        answer, _ = extract(text, unmarked=self._unmarked)
        if not answer:
            return judged("no_answer", reason="no answer in a \\boxed{}")
        return await self.grade(task.answer, answer)

    async def grade(self, gold: str, answer: str) -> Verdict:
        """Return the verdict on a bare answer."""
        if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(gold):
            status: VerdictStatus = "correct" if int(answer) == int(gold) else "wrong"
            return judged(status, extracted=answer, stage="value")
        if len(answer) > MAX_CHARS:
            reason = f"the answer holds more than {MAX_CHARS} characters"
            return judged(
                "refused", extracted=answer[:200], reason=reason, stage="screen"
            )
        if known := _VERDICTS.get((gold, answer)):
            return known
        if len(_VERDICTS) >= _MAX_CACHED:
            _VERDICTS.clear()
        verdict = await _compare(gold, answer)
        if verdict.status in ("correct", "wrong"):
            _VERDICTS[gold, answer] = verdict
        return verdict


async def _compare(gold: str, answer: str) -> Verdict:
    """Return the verdict of the first stage that can tell. An answer that exhausts its worker earns nothing."""
    texts, shown = (clean(gold), clean(answer)), partial(judged, extracted=answer[:200])
    if not texts[1]:
        return shown("no_answer", reason="an empty answer")
    try:
        return shown("correct" if _decide(*texts) else "wrong", stage="value")
    except Undecided:
        if reason := screen(texts[1]):
            return shown("refused", reason=f"the answer holds {reason}", stage="screen")
    reply = await asyncio.wrap_future(shared_pool(os.getpid()).submit("decide", *texts))
    status, reason = _REPLIES.get(reply.text or reply.status, _REPLIES["memory"])
    return shown(
        status,
        reason=reason.format(gold[:80]),
        stage="algebra",
        isolation=reply.isolation,
    )


def _decide(gold: str, answer: str) -> bool:
    return equivalent(gold, answer, _NoAlgebra())
