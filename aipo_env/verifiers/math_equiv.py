"""Ground truth for mathematics: is the answer of a reply the gold's equal?

Stages, each only if the one before could not decide: the answer is extracted, brought to one spelling,
compared by exact value or by form, screened for bombs, and compared by algebra. The value decides; nothing is
rounded, but a decimal of six significant digits or more may differ by 1e-6 relatively. Nothing that a model wrote is
ever executed.

Whatever a text is, it holds the event loop for milliseconds only: algebra, and all stages for anything that is not
short, run in a worker process that is killed when it takes too long. An answer on which a stage fails is wrong.
"""

import asyncio
import json
import os
import re
from concurrent.futures import Future

from aipo_env.records import Task, Verdict
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.math_extract import MAX_REPLY_CHARS, extract
from aipo_env.verifiers.math_extract import last_boxed as last_boxed
from aipo_env.verifiers.math_grade import Grade, Undecided, gold_fault, without_algebra
from aipo_env.verifiers.math_text import MAX_CHARS
from aipo_env.verifiers.workers import Reply, shared_pool

MAX_INLINE_CHARS = 32
"""Longer answers and golds are compared in a worker process."""
MAX_INLINE_REPLY = 10_000
"""The answer of a longer reply is looked for in a worker process."""
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_MAX_CACHED = 50_000
_VERDICTS: dict[tuple[str, str], Verdict] = {}
"""What was decided before: in a group of rollouts most answers are the same, those that time out too."""
_KILLED = {
    "timeout": Grade(
        "timeout", "algebra", "the comparison took too long and was killed"
    ),
    "crashed": Grade("memory", "algebra", "the comparison exhausted its process"),
}
"""What becomes of an answer whose worker gave no reply."""


def check_gold(gold: str) -> str:
    """Return why a gold answer cannot be used, for dropping its task; empty when it can."""
    if len(gold) <= MAX_INLINE_CHARS:
        reason = gold_fault(gold)
        if reason is not None:
            return reason
    reply = _ask("unreadable", gold).result()
    if reply.status != "answered":
        return "reading it takes too long"
    return str(json.loads(reply.text))


class MathVerifier:
    """Compares the answer of a reply with the gold.

    Args:
        unmarked: Accept a reply that marks no answer (box, answer tag, "Answer:"): its last expression counts.
    """

    def __init__(self, unmarked: bool = False) -> None:
        self._unmarked = unmarked

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict on a whole reply; one without an answer is `no_answer` and earns nothing."""
        answer = await self._extract(text[-MAX_REPLY_CHARS:])
        if not answer:
            return judged("no_answer", reason="no answer in a \\boxed{}")
        return await self.grade(task.answer, answer)

    async def _extract(self, text: str) -> str | None:
        """Return the answer of a reply; None where it has none, or looking for it fails."""
        if len(text) > MAX_INLINE_REPLY:
            marked = "" if self._unmarked else "marked"
            reply = await asyncio.wrap_future(_ask("extract", text, marked))
            answered = reply.status == "answered"
            return json.loads(reply.text) if answered else None
        try:
            return extract(text, unmarked=self._unmarked)[0]
        except Exception:
            return None

    async def grade(self, gold: str, answer: str) -> Verdict:
        """Return the verdict on a bare answer."""
        if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(gold):
            is_same = int(answer) == int(gold)
            return judged(
                "correct" if is_same else "wrong", extracted=answer, stage="value"
            )
        if len(answer) > MAX_CHARS:
            reason = f"the answer holds more than {MAX_CHARS} characters"
            return judged(
                "refused", extracted=answer[:200], reason=reason, stage="screen"
            )
        known = _VERDICTS.get((gold, answer))
        if known:
            return known
        verdict = await _compare(gold, answer)
        if len(_VERDICTS) >= _MAX_CACHED:
            _VERDICTS.clear()
        if verdict.status != "error":
            _VERDICTS[gold, answer] = verdict
        return verdict


async def _compare(gold: str, answer: str) -> Verdict:
    """Return the verdict of the first stage that can tell. An answer that exhausts its worker earns nothing."""
    isolation = "none"
    try:
        if max(len(gold), len(answer)) > MAX_INLINE_CHARS:
            raise Undecided
        grade = without_algebra(gold, answer)
    except Undecided:
        reply = await asyncio.wrap_future(_ask("grade", gold, answer))
        grade, isolation = _read(reply), reply.isolation
    return judged(
        grade.status,  # type: ignore[arg-type]
        extracted=answer[:200],
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
    """Ask a worker process; see `math_worker`."""
    return shared_pool(os.getpid()).submit(question, *texts)
