"""Ground truth for programs: they pass every hidden test.

Each runs in a fresh process of the sandbox.

The program gets one test's input. What is expected never leaves this process, which
compares plain data: exit status alone passes nothing.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from typing import Any, Literal

from aipo_env.errors import VerifierError, shown
from aipo_env.records import (
    MAX_OUTPUT_MB,
    CodeTests,
    Task,
    Verdict,
    VerdictStatus,
)
from aipo_env.sandboxes.asserting import RAISED
from aipo_env.sandboxes.base import Limits, Program, RunResult, Sandbox
from aipo_env.sandboxes.values import encode, pack
from aipo_env.text import encodable
from aipo_env.threads import in_thread
from aipo_env.verifiers.base import judged
from aipo_env.verifiers.extract import without_thinking
from aipo_env.verifiers.outputs import LIVECODEBENCH, mode_of, outcome

MAX_PROGRAM_CHARS = 200_000
"""Only this much of the end of an answer is read."""
MAX_EXTRACTED_CHARS = 200
"""So much of a program stands in its verdict."""
MAX_PRELUDES = 100
"""Preludes that are remembered to be Python."""
MAX_TIMED_OUT = 10_000
"""Programs that are remembered to be too slow."""
MAX_ROUNDS = 200
"""So often the code of a test may ask for results that depend on earlier ones."""
MAX_RESULTS = 2000
"""So many results the code of a test may ask for."""
MAX_KNOWN_BYTES = 16 * 2**20
"""So many bytes all may have together that the code of a test asks, and is told."""
_TOO_LONG_RESULTS = "what a test asks, and the results, are too long together"
MAX_SHOWN_BYTES = 2000
"""So much of a run's outputs is kept once it is judged."""
MAX_SAID_CHARS = 300
"""So much of what a checker, or the code of a test, says stands in a verdict."""
CHECK = "check"
"""The function that a checker defines."""
_IS_CHECKER = f"""
def is_checker():
    import inspect
    inspect.signature({CHECK}).bind("input", "expected", "output")
    return True
"""
"""Stands behind a checker, to find out whether it can be called."""
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
        max_output_mb: The most MiB of output that are granted.
        max_threads: The most threads that are granted.
        max_total_s: Seconds for all tests of a verdict together; a program that is not
            through then is too slow.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        max_time_s: float = 60.0,
        max_memory_mb: int | None = None,
        max_output_mb: int = MAX_OUTPUT_MB,
        max_threads: int = 32,
        max_total_s: float = 300.0,
    ) -> None:
        self._sandbox = sandbox
        self._max_total_s = max_total_s
        self._max_output_mb = max_output_mb
        self._granted = {
            "time_limit_s": max_time_s,
            "memory_mb": max_memory_mb or machine_memory_mb(),
            "output_mb": max_output_mb,
            "threads": max_threads,
        }
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
            extracted=encodable(source[:MAX_EXTRACTED_CHARS]),
            isolation=self._sandbox.layer,
        )
        if not source.strip():
            return verdict_of("no_answer", reason="no program"), []
        cases: list[CaseResult] = []
        left_s = self._max_total_s
        for test in tests.hidden:
            case = await self._case(task, source, test, limits, left_s)
            left_s -= case.run.seconds
            if case.status == "correct" and left_s < 0:
                case = self._too_slow(case)
            # Those of many tests, whole, would fill the memory.
            case = replace(case, reason=_readable(case.reason), run=_cut(case.run))
            cases.append(case)
            if case.status != "correct":
                stage = f"test {len(cases)} of {len(tests.hidden)}"
                return verdict_of(case.status, reason=case.reason, stage=stage), cases
        return verdict_of("correct"), cases

    async def _case(
        self, task: Task, source: str, test: Any, limits: Limits, left_s: float
    ) -> CaseResult:
        """Put a program to a test, with more room for output where that is too long.

        Args:
            left_s: Seconds for it; only tests that are Python end before their time.

        Raises:
            VerifierError: More output is expected than is granted, what stands before
                every program is no Python, or what judges its output fails by itself.
        """
        assert task.tests is not None
        if task.tests.kind == "asserts":
            return await self._asserted(task, source, test, limits, left_s)
        case = await self._compared(task, source, test, limits)
        if case.status == "output_limit":
            # What is right may be long: only a run that was cut off is worth the count.
            more = replace(limits, output_bytes=self._output_bytes(task, test))
            if more != limits:
                first_s = case.run.seconds
                case = await self._compared(task, source, test, more)
                case = _longer(case, first_s)
        if case.status == "compile_error":
            await self._check_prelude(task, limits)
        return case

    def _too_slow(self, case: CaseResult) -> CaseResult:
        reason = f"the tests took more than {self._max_total_s:g} s together"
        return replace(case, status="timeout", reason=reason)

    def _limits(self, task: Task) -> Limits:
        """Return a task's limits, if this machine grants them."""
        tests = task.tests
        assert tests is not None
        for name, most in self._granted.items():
            value = getattr(tests, name)
            if value > most:
                option = f"max_{name}".replace("_limit", "")
                raise VerifierError(
                    f"task {shown(task.id)}: tests: {name}={value} is more than is"
                    f" granted here, {most:g}. The verifier's {option} grants more."
                )
        return Limits(
            time_s=tests.time_limit_s,
            memory_mb=tests.memory_mb,
            output_bytes=tests.output_mb * _MIB,
            threads=tests.threads,
        )

    def _output_bytes(self, task: Task, test: Any) -> int:
        """Return how many bytes may be printed: twice what is expected, or more.

        Raises:
            VerifierError: More is expected than is granted.
        """
        tests = task.tests
        assert tests is not None
        if tests.kind == "stdin":
            expected = len(test["output"].encode())
        else:
            write = pack if style_of(tests) == "benchmark" else encode
            expected = len(json.dumps(write(test["expected"])))
        most = self._max_output_mb * _MIB
        if expected > most:
            raise VerifierError(
                f"task {shown(task.id)}: tests: {expected} bytes of output are"
                f" expected; {most} are granted at most. Delete the test, or grant more"
                " by the verifier's max_output_mb."
            )
        return max(tests.output_mb * _MIB, min(2 * expected, most))

    async def _compared(
        self, task: Task, source: str, test: Any, limits: Limits
    ) -> CaseResult:
        """Run a program on a test and judge its output."""
        tests = task.tests
        assert tests is not None
        is_checked = mode_of(tests) == "checker"
        judge = partial(outcome, tests=tests, test=test)
        if is_checked:
            judge = partial(_returned, tests=tests)
        program = _program(source, tests, test)
        case = await self._put(program, limits, judge)
        if is_checked and case.status == "correct":
            case = await self._checked(task, test, case, limits)
        return case

    async def _put(
        self,
        program: Program,
        limits: Limits,
        judge: Callable[[RunResult], tuple[VerdictStatus, str]],
    ) -> CaseResult:
        """Run a program and judge the run, unless it was too slow before."""
        parts = (program, limits)
        # A model may write half a surrogate pair, which has no bytes.
        name = hashlib.sha256(repr(parts).encode("utf-8", "replace")).digest()
        earlier_case = self._timed_out.get(name)
        if earlier_case:
            return earlier_case
        run = await self._sandbox.run(program, limits)
        # A megabyte of output takes seconds to compare, in which others go on.
        compare = partial(judge, run)
        status, reason = await in_thread(compare, "aipo-compare-output")
        case = CaseResult(status, reason, run)
        if status == "timeout":
            self._remember(name, case)
        return case

    async def _checked(
        self, task: Task, test: Any, case: CaseResult, limits: Limits
    ) -> CaseResult:
        """Ask a task's checker about what a program printed or returned.

        It runs when the program has ended, in a sandbox of its own.

        Raises:
            VerifierError: The checker fails by itself.
        """
        tests = task.tests
        assert tests is not None
        arguments = partial(_checker_arguments, tests, test, case.run.stdout)
        given = await in_thread(arguments, "aipo-checker-input")
        run = await self._check(tests, given, limits)
        case = _longer(case, run.seconds)
        if run.status == "infra_error":
            return replace(case, status="infra_error", reason=run.reason)
        said = self._said(task, run)
        if said is True:
            return case
        if isinstance(said, str | bool):
            reason = f"the checker: {said or 'another result is expected'}"
            return replace(case, status="wrong", reason=reason[:MAX_SAID_CHARS])
        has_returned = run.status == "ok" and run.stdout
        if run.status != "compile_error" and not has_returned:
            # The output may be what it fails on: so one that can be asked may.
            alone = await self._check_alone(tests, limits)
            if alone.status == "infra_error":
                return replace(case, status="infra_error", reason=alone.reason)
            if self._said(task, alone) is True:
                why = run.reason[:MAX_SAID_CHARS] or "it ends"
                reason = f"the checker cannot read it ({why})"
                return replace(case, status="wrong", reason=reason)
            run = alone
        elif has_returned and await self._accepts_expected(task, test, limits):
            # One that says yes can say so: what falls through its tests is a no.
            reason = "the checker: it returns neither True nor False"
            return replace(case, status="wrong", reason=reason)
        reason = run.reason or "it says neither"
        raise VerifierError(
            f"task {shown(task.id)}: tests: the checker fails by itself"
            f" ({reason[:MAX_SAID_CHARS]}). It must define {CHECK}(input, expected,"
            " output) and return True, or False or a text."
        )

    async def _check(self, tests: CodeTests, given: bytes, limits: Limits) -> RunResult:
        """Run a checker on its arguments."""
        source = tests.compare["program"]
        checker = Program(source, given, CHECK, "benchmark", tests.packages)
        return await self._sandbox.run(checker, limits)

    async def _check_alone(self, tests: CodeTests, limits: Limits) -> RunResult:
        """Ask whether a checker defines what can be called on an output."""
        source = f"{tests.compare['program']}\n{_IS_CHECKER}"
        arguments = json.dumps({"args": [], "named": {}}).encode()
        program = Program(source, arguments, "is_checker", "benchmark", tests.packages)
        return await self._sandbox.run(program, limits)

    async def _asserted(
        self, task: Task, source: str, test: Any, limits: Limits, left_s: float
    ) -> CaseResult:
        """Run the code of a test, and the program for every result that it asks for.

        Args:
            left_s: Seconds for all of it.

        Raises:
            VerifierError: The code fails by itself, or asks for too much.
        """
        tests = task.tests
        assert tests is not None
        joined = _joined(tests.prelude, source)
        known: dict[str, str] = {}
        num_known_bytes = 0
        seconds = 0.0
        last = RunResult("ok", self._sandbox.layer)
        for _ in range(MAX_ROUNDS):
            said, run = await self._ask(task, test, known, limits)
            seconds += run.seconds
            last = replace(last, seconds=seconds)
            if run.status == "infra_error":
                return CaseResult("infra_error", run.reason, last)
            if "passed" in said:
                return CaseResult("correct", "", last)
            if "failed" in said:
                reason = said["failed"][:MAX_SAID_CHARS]
                return CaseResult("wrong", reason, last)
            if RAISED in said:
                return CaseResult("runtime_error", said[RAISED], last)
            if "fault" in said:
                raise VerifierError(
                    f"task {shown(task.id)}: tests: the code of a test fails by itself"
                    f" ({said['fault'][:MAX_SAID_CHARS]}). Correct or delete it."
                )
            if seconds > left_s:
                return self._too_slow(CaseResult("correct", "", last))
            if len(known) + len(said["asked"]) > MAX_RESULTS:
                fault = f"the code of a test asks for more than {MAX_RESULTS} results"
                if known:
                    return CaseResult("wrong", fault, last)
                raise VerifierError(
                    f"task {shown(task.id)}: tests: {fault}. Make it several tests."
                )
            for call in said["asked"]:
                program = Program(
                    joined, call.encode(), tests.entry, "benchmark", tests.packages
                )
                case = await self._put(program, limits, partial(_returned, tests=tests))
                seconds += case.run.seconds
                last = replace(case.run, seconds=seconds)
                case = replace(case, run=last)
                if case.status == "correct" and seconds > left_s:
                    return self._too_slow(case)
                error = _raised(case)
                if case.status != "correct" and not error:
                    return case
                known[call] = error or last.stdout.decode("utf-8", "replace")
                num_known_bytes += len(call) + len(known[call])
                last = _cut(last)
                if num_known_bytes > MAX_KNOWN_BYTES:
                    return CaseResult("wrong", _TOO_LONG_RESULTS, last)
                if error:
                    # Perhaps the test wants it, perhaps it ends there.
                    break
        # From the second time on, what the program returned decides what is asked.
        reason = f"the test asks for one result after the other, {MAX_ROUNDS} times"
        return CaseResult("wrong", reason, last)

    async def _ask(
        self, task: Task, test: Any, known: dict[str, str], limits: Limits
    ) -> tuple[dict[str, Any], RunResult]:
        """Run the code of a test on the results that are known.

        Returns:
            What it says, of the form of `asserting.judge`, and the run; nothing where
            the sandbox fails.

        Raises:
            VerifierError: It does not end well.
        """
        tests = task.tests
        assert tests is not None
        given = [tests.prelude, test["code"], tests.entry, known]
        write = partial(json.dumps, given)
        text = await in_thread(write, "aipo-test-input")
        stdin = text.encode()
        program = Program(_asserting(), stdin, "judge", packages=tests.packages)
        run = await self._sandbox.run(program, replace(limits, output_bytes=2**24))
        if run.status == "infra_error":
            return {}, run
        if run.status == "ok" and run.stdout:
            return _read_word(task, run.stdout), run
        fault = f"{run.status}: {run.reason[:MAX_SAID_CHARS]}"
        # Before it knows a result, what it does is its own; after that, what the
        # program returned may be made to hold it up.
        if known:
            said = {"failed": f"on the results, the test does not end ({fault})"}
            return said, run
        raise VerifierError(
            f"task {shown(task.id)}: tests: the code of a test does not end well"
            f" ({fault}). Correct or delete it."
        )

    async def _accepts_expected(self, task: Task, test: Any, limits: Limits) -> bool:
        """Return whether a checker accepts the output that is expected."""
        tests = task.tests
        assert tests is not None
        if tests.kind == "stdin":
            expected = str(test["output"]).encode()
        else:
            expected = json.dumps(pack(test["expected"])).encode()
        given = partial(_checker_arguments, tests, test, expected)
        run = await self._check(
            tests, await in_thread(given, "aipo-checker-input"), limits
        )
        return self._said(task, run) is True

    @staticmethod
    def _said(task: Task, run: RunResult) -> Any:
        """Return what a checker says; None where it says nothing.

        Raises:
            VerifierError: It is no JSON.
        """
        if run.status != "ok" or not run.stdout:
            return None
        return _read_json(task, "the checker", run.stdout)

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


def style_of(tests: CodeTests) -> Literal["strict", "benchmark"]:
    """Return how the programs of a task are run; see `Program`."""
    mode = mode_of(tests)
    is_value_checked = tests.kind == "function" and mode == "checker"
    is_benchmark = mode == LIVECODEBENCH or tests.kind == "asserts"
    return "benchmark" if is_benchmark or is_value_checked else "strict"


def _program(source: str, tests: CodeTests, test: Any) -> Program:
    source = _joined(tests.prelude, source)
    style = style_of(tests)
    if tests.kind == "stdin":
        stdin = test["input"].encode()
    elif style == "benchmark":
        stdin = json.dumps({"args": pack(test["args"]), "named": {}}).encode()
    else:
        stdin = json.dumps(test["args"]).encode()
    return Program(source, stdin, tests.entry, style, tests.packages)


@cache
def _asserting() -> str:
    """Return the program that runs the code of tests."""
    folder = files("aipo_env.sandboxes")
    return folder.joinpath("asserting.py").read_text(encoding="utf-8")


def _checker_arguments(tests: CodeTests, test: Any, output: bytes) -> bytes:
    """Return what a checker is called with: an input, what is expected, an output."""
    text = output.decode("utf-8", "replace")
    if tests.kind == "stdin":
        given = [test["input"], test["output"], text]
    else:
        # Read where the checker runs: millions of values would hold up others here.
        given = [pack(test["args"]), pack(test["expected"]), {"json": text}]
    return json.dumps({"args": given, "named": {}}).encode()


def _returned(run: RunResult, tests: CodeTests) -> tuple[VerdictStatus, str]:
    """Return whether a program ended well, and its function returned, if any."""
    is_called = tests.kind != "stdin"
    if is_called and run.status == "ok" and not run.stdout:
        return "runtime_error", f"the program ended before {tests.entry} returned"
    return ("correct" if run.status == "ok" else run.status), run.reason


def _readable(reason: str) -> str:
    """Return a reason, in which a program may have its say, in characters to be seen.

    Others command terminals, or have no bytes.
    """
    line = " ".join(reason.splitlines())
    return "".join(char if char.isprintable() else "?" for char in line)


def _cut(run: RunResult) -> RunResult:
    """Return a run with no more of its outputs than is shown."""
    stdout = run.stdout[:MAX_SHOWN_BYTES]
    return replace(run, stdout=stdout, stderr=run.stderr[:MAX_SHOWN_BYTES])


def _raised(case: CaseResult) -> str:
    """Return the form of what a program raised, for `asserting`; empty if nothing."""
    if case.status != "runtime_error":
        return ""
    kind = case.reason.partition(":")[0].rpartition(".")[2]
    return json.dumps({RAISED: [kind, case.reason]}) if kind.isidentifier() else ""


def _longer(case: CaseResult, seconds: float) -> CaseResult:
    """Return a case with the seconds of another run."""
    run = replace(case.run, seconds=case.run.seconds + seconds)
    return replace(case, run=run)


def _read_json(task: Task, author: str, text: bytes | str) -> Any:
    """Return what a program of the task's author writes.

    Raises:
        VerifierError: It is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VerifierError(
            f"task {shown(task.id)}: tests: {author} writes what is no JSON"
            f" ({shown(text)}). Correct or delete it."
        ) from error


def _read_word(task: Task, output: bytes) -> dict[str, Any]:
    """Return what the code of a test says.

    Raises:
        VerifierError: It is not of the form that `asserting.judge` writes.
    """
    author = "the code of a test"
    word = _read_json(task, author, output)
    said = _read_json(task, author, word) if isinstance(word, str) else None
    if isinstance(said, dict) and len(said) == 1:
        ((key, content),) = said.items()
        calls = content if key == "asked" and isinstance(content, list) else []
        are_texts = bool(calls) and all(isinstance(call, str) for call in calls)
        is_reason = key in ("failed", "fault", RAISED) and isinstance(content, str)
        if are_texts or is_reason or (key == "passed" and content is True):
            return said
    raise VerifierError(
        f"task {shown(task.id)}: tests: {author} writes a word of its own"
        f" ({shown(output)}). Correct or delete it."
    )


def _joined(prelude: str, source: str) -> str:
    """Put a prelude before a program, on a line of its own unless it may go on."""
    is_open = prelude and not prelude.endswith(("\n", "; "))
    if is_open:
        return f"{prelude}\n{source}"
    return prelude + source
