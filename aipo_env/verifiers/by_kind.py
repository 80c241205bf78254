"""The verifier of each task's kind."""

from aipo_env.records import Task, Verdict
from aipo_env.verifiers.math_equiv import MathVerifier


class ByKind:
    """Sends each task to the verifier of its kind."""

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict of the verifier of the task's kind."""
        return await MathVerifier().verify(task, text)
