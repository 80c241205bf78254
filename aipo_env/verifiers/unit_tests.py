"""Ground truth for programs: they pass every hidden test, each in a fresh process of
the sandbox.

The program gets one test's input. What is expected never leaves this process, which
compares plain data: exit status alone passes nothing.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aipo_env.errors import VerifierError, shown
from aipo_env.records import COMPARE_MODES, CodeTests, Task, Verdict, VerdictStatus
from aipo_env.sandboxes.base import Limits, Program, RunResult, Sandbox
from aipo_env.sandboxes.child import encode
from aipo_env.threads import in_thread
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.math_extract import without_thinking

MAX_CHARS = 200_000
"""Only this much of the end of an answer is read."""
MAX_OUTPUT_BYTES = 2**24
"""A test that expects more output is not run."""
MAX_PRELUDES = 100
"""Preludes that are remembered to be Python."""
MAX_TIMED_OUT = 10_000
"""Programs that are remembered to be too slow."""
_BLOCK = re.compile(
    r"(?ms)^[^\S\n]*```(`*[^`\n]*)$\n?(.*?)(?:(?:^|\n)[^\S\n]*```[^\S\n]*$|\Z)"
)
"""A fenced block: what its fence names, and what it holds."""
_PYTHON = ("", "python", "python3", "py")
_DECIMAL = re.compile(rb"[+-]?[\d.]+(?:[eE][+-]?\d+)?")


def read_program(text: str) -> tuple[str, bool]:
    """Return the last fenced block of Python, or the whole text, and whether there was
    a block.

    A block whose fence names another language does not count; one that never ends
    reaches to the end.
    """
    text = without_thinking(text)[-MAX_CHARS:]
    blocks = [
        code
        for language, code in _BLOCK.findall(text)
        if language.strip().lower() in _PYTHON
    ]
    return (blocks[-1], True) if blocks else (text, False)


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What one test says about a program, and why."""

    status: VerdictStatus
    reason: str
    run: RunResult


def machine_memory_mb() -> int:
    """Return how many MiB a program may have here: half of what the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**21


class CodeVerifier:
    """Runs the hidden tests of a "code" task in order, up to the first that fails.

    Args:
        max_time_s: The longest time limit per test that is granted. A task that asks
            for more fails.
        max_memory_mb: The most memory that is granted; None: half of the machine's.
        max_total_s: Seconds for all tests of a verdict together; a program that is not
            through then is too slow.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        max_time_s: float = 60.0,
        max_memory_mb: int | None = None,
        max_total_s: float = 300.0,
    ) -> None:
        self._sandbox = sandbox
        self._max_time_s, self._max_total_s = max_time_s, max_total_s
        self._max_memory_mb = max_memory_mb or machine_memory_mb()
        self._sound_preludes: set[str] = set()
        self._slow_once: set[bytes] = set()
        self._timed_out: dict[bytes, CaseResult] = {}
        """What ran out of time before: in a group of rollouts many programs are the
        same.
        """

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict; a failed test's status is the verdict's, and
        `infra_error` has no reward.

        Raises:
            VerifierError: The task has no tests, asks for more time, memory or output
                than is granted, or puts before every program what is no Python.
        """
        source, is_block = read_program(text)
        verdict, _ = await self.verify_program(task, source)
        if verdict.status == "compile_error" and not is_block:
            return replace(
                verdict,
                status="no_answer",
                reason="no fenced code, and the whole is no program",
            )
        return verdict

    async def verify_program(
        self, task: Task, source: str
    ) -> tuple[Verdict, list[CaseResult]]:
        """Return the verdict on a bare program, and the tests it was put to.

        Raises:
            VerifierError: As `verify`.
        """
        if task.tests is None:
            raise VerifierError(f"task {shown(task.id)}: a code task needs 'tests'.")
        mode = task.tests.compare.get("mode", COMPARE_MODES[task.tests.kind][0])
        limits = self._limits(task)
        told = partial(judged, extracted=source[:200], isolation=self._sandbox.layer)
        if not source.strip():
            return told("no_answer", reason="no program"), []
        cases: list[CaseResult] = []
        left_s = self._max_total_s
        for test in task.tests.hidden:
            case = await self._run(source, task.tests, test, limits, mode)
            if case.status == "output_limit":
                # What is right may be long: only a run that was cut off is worth the
                # count.
                more = replace(limits, output_bytes=_output_bytes(task, test))
                if more != limits:
                    case = await self._run(source, task.tests, test, more, mode)
            if case.status == "compile_error":
                await self._check_prelude(task, limits)
            left_s -= case.run.seconds
            if case.status == "correct" and left_s < 0:
                reason = f"the tests took more than {self._max_total_s:g} s together"
                case = replace(case, status="timeout", reason=reason)
            cases.append(case)
            if case.status != "correct":
                stage = f"test {len(cases)} of {len(task.tests.hidden)}"
                return told(case.status, reason=case.reason, stage=stage), cases
        return told("correct"), cases

    def _limits(self, task: Task) -> Limits:
        """Return a task's limits, if this machine grants them."""
        assert task.tests is not None
        asked = (
            ("time_limit_s", task.tests.time_limit_s, self._max_time_s),
            ("memory_mb", task.tests.memory_mb, self._max_memory_mb),
        )
        for name, value, most in asked:
            if value > most:
                raise VerifierError(
                    f"task {shown(task.id)}: tests: {name}={value} is more than is"
                    f" granted here, {most:g}. The verifier's max_time_s and"
                    " max_memory_mb grant more."
                )
        return Limits(time_s=task.tests.time_limit_s, memory_mb=task.tests.memory_mb)

    async def _run(
        self, source: str, tests: CodeTests, test: Any, limits: Limits, mode: str
    ) -> CaseResult:
        """Put a program to a test, unless it ran out of time at this very test
        before.
        """
        program = _program(source, tests, test)
        parts = (program.source, program.stdin, program.entry, limits)
        name = hashlib.sha256(repr(parts).encode("utf-8", "replace")).digest()
        known = self._timed_out.get(name)
        if known:
            return known
        run = await self._sandbox.run(program, limits)
        # A megabyte of output takes seconds to compare, in which others go on.
        compare = partial(_outcome, run, tests, test, mode)
        status, reason = await in_thread(compare, "aipo-compare-output")
        case = CaseResult(status, reason, run)
        if status == "timeout":
            self._remember(name, case)
        return case

    async def _check_prelude(self, task: Task, limits: Limits) -> None:
        """Raise VerifierError if what is put before a task's programs is no Python, so
        that none of them is.
        """
        assert task.tests is not None
        prelude = task.tests.prelude
        if not prelude or prelude in self._sound_preludes:
            return
        run = await self._sandbox.run(Program(_joined(prelude, "")), limits)
        if run.status == "compile_error":
            raise VerifierError(
                f"task {shown(task.id)}: tests: field 'prelude' is no Python by itself"
                f" ({run.reason[:200]}), so no program behind it is. Mend it."
            )
        if len(self._sound_preludes) >= MAX_PRELUDES:
            self._sound_preludes.clear()
        self._sound_preludes.add(prelude)

    def _remember(self, name: bytes, case: CaseResult) -> None:
        """Keep that a program is too slow for a test, once it was so twice: a machine
        may be busy for a while.
        """
        if (
            len(self._slow_once) >= MAX_TIMED_OUT
            or len(self._timed_out) >= MAX_TIMED_OUT
        ):
            self._slow_once.clear()
            self._timed_out.clear()
        if name in self._slow_once:
            run = replace(case.run, stdout=b"", stderr=b"")
            self._timed_out[name] = replace(case, run=run)
        self._slow_once.add(name)


def _program(source: str, tests: CodeTests, test: Any) -> Program:
    source = _joined(tests.prelude, source)
    if tests.kind == "stdin":
        return Program(source, test["input"].encode())
    return Program(source, json.dumps(test["args"]).encode(), tests.entry)


def _joined(prelude: str, source: str) -> str:
    """Put a prelude before a program; the program begins in a line of its own where the
    prelude's has no end.
    """
    is_open = prelude and not prelude.endswith(("\n", "; "))
    return f"{prelude}\n{source}" if is_open else prelude + source


def _output_bytes(task: Task, test: Any) -> int:
    """Return how much a program may print: what is expected, with blanks and line ends
    to spare.

    Raises:
        VerifierError: More is expected than any program may print.
    """
    assert task.tests is not None
    if task.tests.kind == "stdin":
        expected = len(test["output"].encode())
    else:
        expected = len(json.dumps(encode(test["expected"])))
    if expected > MAX_OUTPUT_BYTES:
        raise VerifierError(
            f"task {shown(task.id)}: tests: {expected} bytes of output are expected;"
            f" {MAX_OUTPUT_BYTES} are granted at most. Delete the test."
        )
    return max(Limits().output_bytes, 2 * expected)


def _outcome(
    result: RunResult, tests: CodeTests, test: Any, mode: str
) -> tuple[VerdictStatus, str]:
    """Return what a run says about the program, and why."""
    if result.status != "ok":
        return result.status, result.reason
    if tests.kind == "function" and not result.stdout:
        return "runtime_error", f"the program ended before {tests.entry} returned"
    rtol, atol = tests.compare.get("rtol", 1e-6), tests.compare.get("atol", 1e-9)
    near = (
        partial(math.isclose, rel_tol=rtol, abs_tol=atol) if "float" in mode else None
    )
    try:
        if tests.kind == "stdin":
            same = _alike(
                _tokens(result.stdout), _tokens(test["output"].encode()), near
            )
        else:
            same = _alike(json.loads(result.stdout), encode(test["expected"]), near)
    except (ValueError, OverflowError, RecursionError):
        return "wrong", "the result is no plain value"
    return ("correct", "") if same else ("wrong", "another result than expected")


def _tokens(output: bytes) -> list[list[bytes]]:
    return [line.split() for line in output.rstrip().split(b"\n")]


def _alike(
    found: Any, expected: Any, near: Callable[[float, float], bool] | None
) -> bool:
    """Compare tokens, or plain data in the form of `encode`; numbers by `near` if
    given.
    """
    if near is None:
        return bool(found == expected)
    if isinstance(found, list) and isinstance(expected, list):
        pairs = zip(found, expected, strict=False)
        return len(found) == len(expected) and all(
            _alike(one, other, near) for one, other in pairs
        )
    if (
        isinstance(found, dict)
        and isinstance(expected, dict)
        and found.keys() == expected.keys() == {"dict"}
    ):
        return _alike(found["dict"], expected["dict"], near)
    one, other = _number(found), _number(expected)
    if one is None or other is None:
        return bool(found == expected)
    return (
        one == other
        if isinstance(one, int) and isinstance(other, int)
        else near(one, other)
    )


def _number(value: Any) -> float | None:
    """Return the number that a token or an encoded value stands for, if it does; an
    integer stays one.
    """
    try:
        if isinstance(value, bytes):
            return (
                (float if value.strip(b"+-0123456789") else int)(value)
                if _DECIMAL.fullmatch(value)
                else None
            )
        return float(value["float"]) if "float" in value else int(value["int"], 16)
    except (TypeError, ValueError, KeyError):
        return None
