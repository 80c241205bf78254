"""Sends every task to the verifier of its kind."""

from typing import Any

from aipo_env.errors import ConfigError, shown, suggest
from aipo_env.records import MAX_OUTPUT_MB, Task, Verdict
from aipo_env.sandboxes.self_test import open_sandbox
from aipo_env.verifiers.base import Verifier
from aipo_env.verifiers.choice import ChoiceVerifier
from aipo_env.verifiers.math.verifier import MathVerifier
from aipo_env.verifiers.unit_tests import CodeVerifier


class ByKind:
    """Verifies tasks of every kind: "math", "choice" and "code".

    Args:
        sandbox: The sandbox for code tasks, opened and tested at the first of them.
        allow_unsafe: Run programs unprotected where none holds; see `open_sandbox`.
        max_time_s, max_memory_mb, max_output_mb, max_threads, max_total_s: What a code
            task may ask for; see `CodeVerifier`.
    """

    def __init__(
        self,
        sandbox: str = "auto",
        allow_unsafe: bool = False,
        max_time_s: float = 60.0,
        max_memory_mb: int | None = None,
        max_output_mb: int = MAX_OUTPUT_MB,
        max_threads: int = 32,
        max_total_s: float = 300.0,
    ) -> None:
        self._sandbox = sandbox
        self._allow_unsafe = allow_unsafe
        self._limits: dict[str, Any] = {
            "max_time_s": max_time_s,
            "max_memory_mb": max_memory_mb,
            "max_output_mb": max_output_mb,
            "max_threads": max_threads,
            "max_total_s": max_total_s,
        }
        self._verifiers: dict[str, Verifier] = {
            "math": MathVerifier(),
            "choice": ChoiceVerifier(),
        }

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict of the task's verifier.

        Raises:
            ConfigError: No verifier is for this kind of task.
            SandboxUnavailable: A code task, and no sandbox holds on this machine.
        """
        # Opening one tries it by attacks, which takes long: only where it is needed.
        if task.kind == "code" and "code" not in self._verifiers:
            sandbox = await open_sandbox(self._sandbox, self._allow_unsafe)
            self._verifiers["code"] = CodeVerifier(sandbox, **self._limits)
        if task.kind not in self._verifiers:
            kinds = {"code", *self._verifiers}
            raise ConfigError(
                f"task {shown(task.id)}: there is no kind {shown(task.kind)}."
                f" {suggest(task.kind, kinds)} For tasks of your own kind name the"
                " verifier that judges them: verifier=, --environment.verifier, or a"
                " function by --reward."
            )
        return await self._verifiers[task.kind].verify(task, text)
