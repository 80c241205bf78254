"""Ground truth for mathematics: is the answer of a reply the gold's equal?

Stages, each only if the one before could not decide: the answer is extracted, brought
to one spelling, compared by exact value or by form, screened for bombs (expressions
that exhaust a computer), and compared by algebra. The value decides; nothing is
rounded, but a decimal of six significant digits or more may differ by 1e-6 relatively.
Nothing that a model wrote is ever executed.

Whatever a text is, it holds the event loop for milliseconds only: algebra, and all
stages for anything that is not short, run in a worker process that is killed when it
takes too long. An answer on which a stage fails is wrong.
"""

import asyncio
import json
import os
import re
from concurrent.futures import Future
from functools import lru_cache

from aipo_env.records import Task, Verdict, VerdictStatus
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.extract import MAX_TURN_CHARS, Reading, extract, read_gold
from aipo_env.verifiers.extract import last_boxed as last_boxed
from aipo_env.verifiers.math.grade import Grade, Undecided, gold_fault, without_algebra
from aipo_env.verifiers.math.text import MAX_CHARS
from aipo_env.verifiers.workers import Reply, shared_pool

MAX_INLINE_FORMULA = 32
"""Longer answers and golds are compared in a worker process."""
MAX_INLINE_REPLY = 10_000
"""The answer of a longer reply is looked for in a worker process."""
_MAX_EXTRACTED_CHARS = 200
"""Only this much of an answer stands in its verdict."""
_UNREADABLE = Reading(None, "", "", "the reply cannot be read")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_MAX_CACHED = 50_000
_VERDICTS: dict[tuple[str, str], Verdict] = {}
"""Earlier verdicts, by gold and answer: in a group most answers are the same.

Those that took too long are kept too, so that none is waited for twice.
"""
_KILLED = {
    "timeout": Grade(
        "timeout", "algebra", "the comparison took too long and was killed"
    ),
    "crashed": Grade("memory", "algebra", "the comparison exhausted its process"),
}
"""What becomes of an answer whose worker gave no reply, by the request's status."""


def check_gold(gold: str) -> str:
    """Return why a gold answer cannot be used; empty when it can."""
    marked = gold
    gold = _gold(gold)
    if marked.strip() and not gold:
        return f"it marks an answer that cannot be read: {marked.strip()[:80]}"
    if len(gold) <= MAX_INLINE_FORMULA:
        reason = gold_fault(gold)
        if reason is not None:
            return reason
    reply = _ask("unreadable", gold).result()
    if reply.status != "answered":
        return "reading it takes too long"
    return str(json.loads(reply.text))


@lru_cache(4096)
def _gold(text: str) -> str:
    """Return the answer of a gold, which may be marked as in a reply."""
    return read_gold(text)


class MathVerifier:
    """Compares the answer of a reply with the gold.

    Args:
        unmarked: Accept a reply that marks no answer (box, answer tag, "Answer:"): its
            last expression counts.
    """

    def __init__(self, unmarked: bool = False) -> None:
        self._unmarked = unmarked

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict on a whole reply.

        One without an answer is `no_answer` and earns nothing.
        """
        reading = await self._extract(text[-MAX_TURN_CHARS:])
        if not reading.answer:
            return judged(
                "no_answer",
                extracted=reading.text[:_MAX_EXTRACTED_CHARS],
                reason=reading.reason or "no answer in a \\boxed{}",
            )
        return await self.grade(_gold(task.answer), reading.answer)

    async def _extract(self, text: str) -> Reading:
        """Return what is read of a reply; no answer where this fails."""
        if len(text) > MAX_INLINE_REPLY:
            return await self._extract_in_worker(text)
        try:
            return extract(text, unmarked=self._unmarked)
        except Exception:  # whatever a model wrote, it earns nothing and ends nothing
            return _UNREADABLE

    async def _extract_in_worker(self, text: str) -> Reading:
        # A request holds texts only, and an empty one is false.
        marked = "" if self._unmarked else "marked"
        reply = await asyncio.wrap_future(_ask("extract", text, marked))
        if reply.status != "answered":
            return _UNREADABLE
        return Reading(*json.loads(reply.text))

    async def grade(self, gold: str, answer: str) -> Verdict:
        """Return the verdict on a bare answer."""
        # Most golds and answers are integers, and need no reading.
        if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(gold):
            status: VerdictStatus = "correct" if int(answer) == int(gold) else "wrong"
            return judged(status, extracted=answer, stage="value")
        if len(answer) > MAX_CHARS and len(gold) <= MAX_CHARS:
            return judged(
                "refused",
                extracted=answer[:_MAX_EXTRACTED_CHARS],
                reason=f"the answer holds more than {MAX_CHARS} characters",
                stage="screen",
            )
        cached = _VERDICTS.get((gold, answer))
        if cached:
            return cached
        verdict = await _compare(gold, answer)
        if len(_VERDICTS) >= _MAX_CACHED:
            _VERDICTS.clear()
        # "error" is said of the gold, not of the answer.
        if verdict.status != "error":
            _VERDICTS[gold, answer] = verdict
        return verdict


async def _compare(gold: str, answer: str) -> Verdict:
    """Return the verdict of the first stage that can tell.

    An answer that exhausts its worker earns nothing.
    """
    isolation = "none"
    try:
        # Even without algebra a longer text may hold the event loop for too long.
        if max(len(gold), len(answer)) > MAX_INLINE_FORMULA:
            raise Undecided
        grade = without_algebra(gold, answer)
    except Undecided:
        reply = await asyncio.wrap_future(_ask("grade", gold, answer))
        grade = _read(reply)
        isolation = reply.isolation
    return judged(
        grade.status,  # type: ignore[arg-type]
        extracted=answer[:_MAX_EXTRACTED_CHARS],
        reason=grade.reason,
        stage=grade.stage,
        isolation=isolation,
    )


def _read(reply: Reply) -> Grade:
    """Return what a worker says of an answer."""
    if reply.status != "answered":
        return _KILLED[reply.status]
    return Grade(*json.loads(reply.text))


def _ask(question: str, *texts: str) -> Future[Reply]:
    """Ask a worker process; see `worker.py`."""
    return shared_pool(os.getpid()).submit(question, *texts)
