"""What a verifier is."""

from typing import Protocol, runtime_checkable

from aipo_env.records import Task, Verdict, VerdictStatus


@runtime_checkable
class Verifier(Protocol):
    """Decides whether an answer is right. Its text comes from a model: read it, never run it."""

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict on the final turn of an episode."""


def judged(status: VerdictStatus, **shown: str) -> Verdict:
    """Return the verdict of a status: 1.0 for "correct", no reward where the verifier or the gold failed, else 0.0."""
    correct = None if status in ("infra_error", "error") else status == "correct"
    reward = None if correct is None else float(correct)
    return Verdict(correct=correct, reward=reward, status=status, **shown)
