"""Runs the programs that code tasks carry as solutions: one that fails is no task.

Its tests are wrong, or its limits too tight for this machine, and every policy's
programs would be judged by them.
"""

from collections.abc import Iterable

from aipo_env.errors import VerifierError, message_of
from aipo_env.records import Task, Verdict
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.unit_tests import CodeVerifier


async def solution_verdicts(
    verifier: CodeVerifier, tasks: Iterable[Task]
) -> dict[str, Verdict]:
    """Return the verdict on the solution of each task that has one, by the task's id.

    A task that cannot be judged has one of status "error".

    Raises:
        SandboxUnavailable: The sandbox itself fails.
    """
    verdicts: dict[str, Verdict] = {}
    for task in tasks:
        if task.tests is None or not task.tests.solution or task.id in verdicts:
            continue
        try:
            verdict, _ = await verifier.verify_program(task, task.tests.solution)
        except VerifierError as error:
            verdict = judged("error", reason=message_of(error))
        verdicts[task.id] = verdict
    return verdicts
