"""Ground truth for programs: they pass every hidden test.

Each runs in a fresh process of the sandbox.

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
from aipo_env.verifiers.extract import without_thinking

MAX_PROGRAM_CHARS = 200_000
"""Only this much of the end of an answer is read."""
MAX_OUTPUT_BYTES = 2**24
"""A test that expects more output is not run."""
MAX_EXTRACTED_CHARS = 200
"""So much of a program stands in its verdict."""
MAX_PRELUDES = 100
"""Preludes that are remembered to be Python."""
MAX_TIMED_OUT = 10_000
"""Programs that are remembered to be too slow."""
DEFAULT_RTOL = 1e-6
DEFAULT_ATOL = 1e-9
"""How far numbers may be apart in modes with "float", unless the tests say."""
Near = Callable[[float, float], bool]
_BLOCK = re.compile(
    r"""
    ^ [^\S\n]* ``` ( `* [^`\n]* ) $ \n?       # ```python
    (.*?)
    (?: (?: ^ | \n ) [^\S\n]* ``` [^\S\n]* $   # ```
      | \Z )
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
"""A fenced block: what its fence names, and what it holds."""
_PYTHON = ("", "python", "python3", "py")
"""What the fence of a program may name."""
_DECIMAL = re.compile(rb"[+-]?[\d.]+(?:[eE][+-]?\d+)?")
"""A number among the tokens of an output; to Python `nan` and `1_0` are some, too."""
_MIB = 2**20


def read_program(text: str) -> tuple[str, bool]:
    """Return the last fenced block of Python, else the text; and whether it is a block.

    A block whose fence names another language does not count; one that never ends
    reaches to the end.
    """
    text = without_thinking(text)[-MAX_PROGRAM_CHARS:]
    blocks = [code for fence, code in _BLOCK.findall(text) if _is_python(fence)]
    if not blocks:
        return text, False
    return blocks[-1], True


def _is_python(fence: str) -> bool:
    return fence.strip().lower() in _PYTHON


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What one test says about a program, and why."""

    status: VerdictStatus
    reason: str
    run: RunResult


def machine_memory_mb() -> int:
    """Return how many MiB a program may have here: half of what the machine has."""
    num_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return num_bytes // (2 * _MIB)


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
        self._max_time_s = max_time_s
        self._max_total_s = max_total_s
        self._max_memory_mb = max_memory_mb or machine_memory_mb()
        self._sound_preludes: set[str] = set()
        self._slow_once: set[bytes] = set()
        # In a group of rollouts many programs are the same: those that ran out of time
        # before are not run again. They are named by the hash of what is run.
        self._timed_out: dict[bytes, CaseResult] = {}

    async def verify(self, task: Task, text: str) -> Verdict:
        """Return the verdict: of the status of the first test that fails, if one does.

        What is no fault of the program, `infra_error`, has no reward.

        Raises:
            VerifierError: The task has no tests, asks for more time, memory or output
                than is granted, or puts before every program what is no Python.
        """
        source, is_block = read_program(text)
        verdict, _ = await self.verify_program(task, source)
        if verdict.status != "compile_error" or is_block:
            return verdict
        reason = "no fenced code, and the whole is no program"
        return replace(verdict, status="no_answer", reason=reason)

    async def verify_program(
        self, task: Task, source: str
    ) -> tuple[Verdict, list[CaseResult]]:
        """Return the verdict on a bare program, and the tests it was put to.

        Raises:
            VerifierError: As `verify`.
        """
        tests = task.tests
        if tests is None:
            raise VerifierError(f"task {shown(task.id)}: a code task needs 'tests'.")
        limits = self._limits(task)
        verdict_of = partial(
            judged,
            extracted=source[:MAX_EXTRACTED_CHARS],
            isolation=self._sandbox.layer,
        )
        if not source.strip():
            return verdict_of("no_answer", reason="no program"), []
        cases: list[CaseResult] = []
        left_s = self._max_total_s
        for test in tests.hidden:
            case = await self._case(task, source, test, limits)
            left_s -= case.run.seconds
            if case.status == "correct" and left_s < 0:
                reason = f"the tests took more than {self._max_total_s:g} s together"
                case = replace(case, status="timeout", reason=reason)
            cases.append(case)
            if case.status != "correct":
                stage = f"test {len(cases)} of {len(tests.hidden)}"
                return verdict_of(case.status, reason=case.reason, stage=stage), cases
        return verdict_of("correct"), cases

    async def _case(
        self, task: Task, source: str, test: Any, limits: Limits
    ) -> CaseResult:
        """Put a program to a test, with more room for output where that is too long.

        Raises:
            VerifierError: More output is expected than is granted, or what stands
                before every program is no Python.
        """
        assert task.tests is not None
        case = await self._run(source, task.tests, test, limits)
        if case.status == "output_limit":
            # What is right may be long: only a run that was cut off is worth the count.
            more = replace(limits, output_bytes=_output_bytes(task, test))
            if more != limits:
                case = await self._run(source, task.tests, test, more)
        if case.status == "compile_error":
            await self._check_prelude(task, limits)
        return case

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
        self, source: str, tests: CodeTests, test: Any, limits: Limits
    ) -> CaseResult:
        """Put a program to a test, unless it was too slow for it before."""
        program = _program(source, tests, test)
        parts = (program.source, program.stdin, program.entry, limits)
        # A model may write half a surrogate pair, which has no bytes.
        name = hashlib.sha256(repr(parts).encode("utf-8", "replace")).digest()
        earlier_case = self._timed_out.get(name)
        if earlier_case:
            return earlier_case
        run = await self._sandbox.run(program, limits)
        # A megabyte of output takes seconds to compare, in which others go on.
        compare = partial(_outcome, run, tests, test)
        status, reason = await in_thread(compare, "aipo-compare-output")
        case = CaseResult(status, reason, run)
        if status == "timeout":
            self._remember(name, case)
        return case

    async def _check_prelude(self, task: Task, limits: Limits) -> None:
        """Raise VerifierError if what stands before a task's programs is no Python."""
        assert task.tests is not None
        prelude = task.tests.prelude
        if not prelude or prelude in self._sound_preludes:
            return
        alone = Program(_joined(prelude, ""))
        run = await self._sandbox.run(alone, limits)
        if run.status == "compile_error":
            raise VerifierError(
                f"task {shown(task.id)}: tests: field 'prelude' is no Python by itself"
                f" ({run.reason[:200]}), so no program behind it is. Correct it."
            )
        if len(self._sound_preludes) >= MAX_PRELUDES:
            self._sound_preludes.clear()
        self._sound_preludes.add(prelude)

    def _remember(self, name: bytes, case: CaseResult) -> None:
        """Keep that a program is too slow for a test, once it was so twice.

        The first time the machine may have been busy.
        """
        num_names = max(len(self._slow_once), len(self._timed_out))
        if num_names >= MAX_TIMED_OUT:
            self._slow_once.clear()
            self._timed_out.clear()
        if name in self._slow_once:
            # Ten thousand outputs of a megabyte each would fill the memory.
            run = replace(case.run, stdout=b"", stderr=b"")
            self._timed_out[name] = replace(case, run=run)
        self._slow_once.add(name)


def _program(source: str, tests: CodeTests, test: Any) -> Program:
    source = _joined(tests.prelude, source)
    if tests.kind == "stdin":
        return Program(source, test["input"].encode())
    arguments = json.dumps(test["args"])
    return Program(source, arguments.encode(), tests.entry)


def _joined(prelude: str, source: str) -> str:
    """Put a prelude before a program, on a line of its own unless it may go on."""
    is_open = prelude and not prelude.endswith(("\n", "; "))
    if is_open:
        return f"{prelude}\n{source}"
    return prelude + source


def _output_bytes(task: Task, test: Any) -> int:
    """Return how many bytes a program may print: twice what is expected, or more.

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
    result: RunResult, tests: CodeTests, test: Any
) -> tuple[VerdictStatus, str]:
    """Return what a run says about the program, and why."""
    if result.status != "ok":
        return result.status, result.reason
    if tests.kind == "function" and not result.stdout:
        return "runtime_error", f"the program ended before {tests.entry} returned"
    near = _nearness(tests)
    try:
        # What was printed comes from the program: it may be no JSON, or nested deeply.
        if tests.kind == "stdin":
            actual: Any = _tokens(result.stdout)
            expected: Any = _tokens(test["output"].encode())
        else:
            actual = json.loads(result.stdout)
            expected = encode(test["expected"])
        is_same = _alike(actual, expected, near)
    except (ValueError, OverflowError, RecursionError):
        return "wrong", "the result is no plain value"
    if is_same:
        return "correct", ""
    return "wrong", "another result than expected"


def _nearness(tests: CodeTests) -> Near | None:
    """Return how numbers are compared; None where everything is compared exactly."""
    mode = tests.compare.get("mode", COMPARE_MODES[tests.kind][0])
    if "float" not in mode:
        return None
    rtol = tests.compare.get("rtol", DEFAULT_RTOL)
    atol = tests.compare.get("atol", DEFAULT_ATOL)
    return partial(math.isclose, rel_tol=rtol, abs_tol=atol)


def _tokens(output: bytes) -> list[list[bytes]]:
    """Return the tokens of each line; line ends and blanks at the end do not count."""
    return [line.split() for line in output.rstrip().split(b"\n")]


def _alike(actual: Any, expected: Any, near: Near | None) -> bool:
    """Compare tokens, or plain data in the form of `encode`; numbers by `near`."""
    if near is None:
        return bool(actual == expected)
    if isinstance(actual, list) and isinstance(expected, list):
        if len(actual) != len(expected):
            return False
        pairs = zip(actual, expected, strict=True)
        return all(_alike(left, right, near) for left, right in pairs)
    if _is_encoded_dict(actual) and _is_encoded_dict(expected):
        return _alike(actual["dict"], expected["dict"], near)
    first = _number(actual)
    second = _number(expected)
    if first is None or second is None:
        return bool(actual == expected)
    # As floats, neighbouring large integers are equal.
    if isinstance(first, int) and isinstance(second, int):
        return first == second
    return near(first, second)


def _is_encoded_dict(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"dict"}


def _number(value: Any) -> float | None:
    """Return the number of a token or an encoded value, if it is one; int stays int."""
    try:
        if isinstance(value, bytes):
            return _number_of_token(value)
        if "float" in value:
            return float(value["float"])
        return int(value["int"], 16)
    except (TypeError, ValueError, KeyError):
        return None


def _number_of_token(token: bytes) -> float | None:
    """Return the number that a token stands for, if it does.

    Raises:
        ValueError: It looks like one and is none, as `1.2.3`.
    """
    if not _DECIMAL.fullmatch(token):
        return None
    is_whole = not token.strip(b"+-0123456789")
    return int(token) if is_whole else float(token)
