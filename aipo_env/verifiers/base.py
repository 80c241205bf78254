"""What a verifier is."""

from typing import Protocol, runtime_checkable

from aipo_env.records import Task, Verdict


@runtime_checkable
class Verifier(Protocol):
    """Decides whether an answer is right. Its text comes from a model: read it, never run it."""

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict on the final turn of an episode."""
