"""Programs against hidden tests: what passes, what does not and why."""

import asyncio
import json
import math
import sys
import time
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import pytest

from aipo_env import (
    CodeTests,
    ConfigError,
    DataError,
    Task,
    Verdict,
    VerifierError,
    run_sync,
)
from aipo_env.sandboxes.base import Limits, Program, RunResult
from aipo_env.sandboxes.process import ProcessSandbox
from aipo_env.sandboxes.values import encode, pack
from aipo_env.verifiers.by_kind import ByKind
from aipo_env.verifiers.outputs import outcome
from aipo_env.verifiers.unit_tests import CodeVerifier, read_program

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the process sandbox needs Linux"
)

TESTS = ({"input": "1 2\n", "output": "3\n"}, {"input": "10 -4\n", "output": "6\n"})
MANY = 2**20
SUM = "a, b = map(int, input().split())\nprint(a + b)"


def stdin_task(
    *tests: dict[str, str], compare: dict[str, Any] | None = None, **fields: Any
) -> Task:
    return Task(
        id="t",
        prompt="?",
        answer="",
        kind="code",
        tests=CodeTests(hidden=tests or TESTS, compare=compare or {}, **fields),
    )


def function_task(
    *pairs: tuple[list[Any], Any],
    compare: dict[str, Any] | None = None,
    entry: str = "f",
) -> Task:
    tests = tuple({"args": args, "expected": expected} for args, expected in pairs)
    return Task(
        id="t",
        prompt="?",
        answer="",
        kind="code",
        tests=CodeTests(
            kind="function",
            hidden=tests,
            entry=entry,
            compare=compare or {},
            time_limit_s=30.0,
        ),
    )


@cache
def sandbox() -> ProcessSandbox:
    return ProcessSandbox()


def verify(task: Task, text: str) -> Verdict:
    return run_sync(CodeVerifier(sandbox()).verify(task, text))


def fenced(source: str) -> str:
    return f"Here it is:\n```python\n{source}\n```\nDone."


# Reading the program


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx = 1\n```", ("x = 1", True)),
        ("```\nx = 1\n```", ("x = 1", True)),
        ("```py\nx = 1\n```\nand\n```Python3\nx = 2\n```", ("x = 2", True)),
        ("```python\nx = 1\n```\n```text\n5\n```", ("x = 1", True)),
        ("```python\nx = 1\n```\n```\n5\n```", ("5", True)),
        ("```python\nx = 1", ("x = 1", True)),
        (
            "```python\ns = '''\n  ```python\n'''\n```",
            ("s = '''\n  ```python\n'''", True),
        ),
        ("```python\n```", ("", True)),
        ("````python\nx = 1\n```", ("````python\nx = 1\n```", False)),
        ("print(1)", ("print(1)", False)),
        ("```f``` is it:\n```python\nx = 1\n```", ("x = 1", True)),
        ("<think>```python\nx = 1\n```</think>print(1)", ("print(1)", False)),
        ("```python\nx = '\u2028'\n```", ("x = '\u2028'", True)),
    ],
)
def test_read_program(text: str, program: tuple[str, bool]):
    assert read_program(text) == program


# Verdicts


@linux
def test_a_right_program_passes():
    verdict = verify(stdin_task(), fenced(SUM))
    assert (verdict.status, verdict.reward, verdict.correct) == ("correct", 1.0, True)
    assert (verdict.isolation, verdict.stage, verdict.extracted) == (
        sandbox().layer,
        "",
        SUM,
    )
    assert verify(stdin_task(), SUM).status == "correct"


@linux
@pytest.mark.parametrize(
    ("text", "status", "stage", "reason"),
    [
        (fenced("print(3)"), "wrong", "test 2 of 2", "another result than expected"),
        (fenced("print(0)"), "wrong", "test 1 of 2", "another result than expected"),
        (fenced("pass"), "wrong", "test 1 of 2", "another result than expected"),
        (
            fenced("import sys\nsys.exit(0)"),
            "wrong",
            "test 1 of 2",
            "another result than expected",
        ),
        (
            fenced("import os\nos._exit(0)"),
            "wrong",
            "test 1 of 2",
            "another result than expected",
        ),
        (
            fenced("print(3)\n1 / 0"),
            "runtime_error",
            "test 1 of 2",
            "ZeroDivisionError: division by zero",
        ),
        (
            fenced("x = ("),
            "compile_error",
            "test 1 of 2",
            "SyntaxError: '(' was never closed",
        ),
        (fenced("while True: pass"), "timeout", "test 1 of 2", "time limit reached"),
        (fenced("x = [0] * 10 ** 10"), "memory", "test 1 of 2", "memory limit reached"),
        (
            fenced("while True: print(1)"),
            "output_limit",
            "test 1 of 2",
            "output limit reached",
        ),
        (
            fenced("print(open('/etc/passwd').read())"),
            "runtime_error",
            "test 1 of 2",
            "/etc/passwd",
        ),
        (
            "I cannot do this.",
            "no_answer",
            "test 1 of 2",
            "no fenced code, and the whole is no program",
        ),
        ("", "no_answer", "", "no program"),
        ("```python\n\n```", "no_answer", "", "no program"),
    ],
)
def test_what_fails_earns_nothing_and_says_why(
    text: str, status: str, stage: str, reason: str
):
    verdict = verify(
        stdin_task(time_limit_s=1.0 if status == "timeout" else 30.0), text
    )
    assert (verdict.status, verdict.reward, verdict.correct, verdict.stage) == (
        status,
        0.0,
        False,
        stage,
    )
    assert reason in verdict.reason


@linux
@linux
def test_a_prelude_without_an_end_of_line_gets_one():
    test = {"input": "", "output": "3"}
    for prelude in ("x = 3", "x = 3; ", "x = 3\n"):
        task = stdin_task(test, prelude=prelude, time_limit_s=30.0)
        assert verify(task, fenced("print(x)")).status == "correct"


@linux
@pytest.mark.parametrize("prelude", ["def\n", "'''", '"""', "if True:"])
def test_a_prelude_that_is_no_python_is_the_tasks_fault(prelude: str):
    test = {"input": "", "output": "3"}
    task = stdin_task(test, prelude=prelude, time_limit_s=30.0)
    with pytest.raises(
        VerifierError, match="task 't': tests: field 'prelude' is no Py"
    ):
        verify(task, fenced("print(3)"))
    sound = stdin_task(test, prelude="x = 3\n", time_limit_s=30.0)
    assert verify(sound, fenced("print(")).status == "compile_error"


@linux
def test_what_is_expected_may_be_long():
    long = stdin_task({"input": "", "output": "x" * 1_500_000}, time_limit_s=30.0)
    assert verify(long, fenced("print('x' * 1_500_000)")).status == "correct"
    assert verify(long, fenced("print('x' * 9_000_000)")).status == "output_limit"
    listed = function_task(([], list(range(150_000))))
    found = verify(listed, fenced("def f():\n    return list(range(150_000))"))
    assert found.status == "correct"
    short = stdin_task({"input": "", "output": "x"}, time_limit_s=30.0)
    assert verify(short, fenced("print('x' * 1_500_000)")).status == "output_limit"
    sparing = CodeVerifier(sandbox(), max_output_mb=1)
    with pytest.raises(
        VerifierError, match="1500000 bytes of output are expected; 1048576 are granted"
    ):
        run_sync(sparing.verify(long, fenced("print('x' * 9_000_000)")))


def test_a_test_that_expects_more_than_any_program_may_print_is_refused():
    endless = "x" * (2**24 + 1)
    with pytest.raises(
        DataError, match=r"hidden\[0\]: field 'output' is longer than 16"
    ):
        CodeTests(hidden=({"input": "", "output": endless},))
    row = {"args": [], "expected": [endless]}
    with pytest.raises(DataError, match="field 'expected' is longer than 16 MiB"):
        CodeTests(kind="function", entry="f", hidden=(row,))


def test_a_prelude_stands_before_the_program():
    tests = CodeTests(
        hidden=({"input": "", "output": "3"},), prelude="x = 3\n", time_limit_s=30.0
    )
    task = Task(id="t", prompt="?", answer="", kind="code", tests=tests)
    verdict = verify(task, fenced("print(x)"))
    assert (verdict.status, verdict.extracted) == ("correct", "print(x)")


class BrokenSandbox:
    layer = "broken"

    async def run(self, program: Program, limits: Limits) -> RunResult:
        return RunResult(
            status="infra_error",
            exit_code=1,
            stdout=b"3\n",
            stderr=b"",
            seconds=0.0,
            layer="broken",
            reason="no prctl",
        )

    def close(self) -> None:
        pass


def test_a_sandbox_that_fails_says_nothing_about_the_program():
    verdict = run_sync(CodeVerifier(BrokenSandbox()).verify(stdin_task(), SUM))
    assert (verdict.status, verdict.reward, verdict.correct) == (
        "infra_error",
        None,
        None,
    )
    assert (verdict.reason, verdict.isolation) == ("no prctl", "broken")


class RecordingSandbox(BrokenSandbox):
    def __init__(self) -> None:
        self.seen: list[tuple[Program, Limits]] = []

    async def run(self, program: Program, limits: Limits) -> RunResult:
        self.seen.append((program, limits))
        return RunResult(
            status="ok", exit_code=0, stdout=b"3\n", stderr=b"", seconds=0.0, layer="x"
        )


def test_the_program_is_given_one_input_and_no_output():
    sandbox = RecordingSandbox()
    run_sync(
        CodeVerifier(sandbox).verify(
            stdin_task(time_limit_s=3.0, memory_mb=99), fenced(SUM)
        )
    )
    limits = Limits(time_s=3.0, memory_mb=99, threads=8)
    assert sandbox.seen == [
        (Program(SUM, b"1 2\n"), limits),
        (Program(SUM, b"10 -4\n"), limits),
    ]
    sandbox = RecordingSandbox()
    run_sync(
        CodeVerifier(sandbox).verify(function_task(([1, "x"], 987)), "def f(): pass")
    )
    assert sandbox.seen == [
        (Program("def f(): pass", b'[1, "x"]', "f"), Limits(time_s=30.0, threads=8))
    ]


def test_a_task_that_cannot_be_verified():
    verifier = CodeVerifier(BrokenSandbox())
    with pytest.raises(VerifierError, match="task 't': a code task needs 'tests'"):
        run_sync(
            verifier.verify(Task(id="t", prompt="?", answer="x", kind="code"), SUM)
        )


DEEP: Any = 0
for _ in range(101):
    DEEP = [DEEP]
FLOATS = {"mode": "float_tokens_by_line"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"compare": {"mode": "exact_json"}},
            "mode is 'exact_json'. Valid: checker, float_to",
        ),
        ({"compare": {"mode": ["x"]}}, r"mode is \['x'\]. Valid: checker, float_token"),
        (
            {"compare": {"tol": 1}},
            "'compare' has 'tol'. Valid: atol, mode, program, rtol.",
        ),
        (
            {"compare": FLOATS | {"rtol": math.inf}},
            "'rtol' must be a number from 0 to l",
        ),
        (
            {"compare": FLOATS | {"rtol": True}},
            "'rtol' must be .* less than 1, got True",
        ),
        ({"compare": FLOATS | {"rtol": 1}}, "'rtol' must be a number from 0 to less"),
        (
            {"compare": FLOATS | {"atol": -1e-9}},
            "'atol' must be a number from 0 to less",
        ),
        ({"compare": FLOATS | {"atol": "x"}}, "'atol' must be a number from 0 to less"),
        (
            {"compare": FLOATS | {"atol": 10**400}},
            "'atol' must be a number from 0 to l",
        ),
        ({"compare": FLOATS | {"atol": math.nan}}, "'atol' must be .* got nan"),
        ({"compare": {"rtol": 0.1}}, "'rtol' says nothing in mode 'tokens_by_line'"),
        ({"prelude": 5}, "'prelude' must be text, got 5"),
        ({"prelude": "#\ud800\n"}, "'prelude' holds half a surrogate pair"),
        ({"prelude": "\0"}, "'prelude' holds a null character"),
        ({"time_limit_s": 5e-324}, "'time_limit_s' must be .* from 0.01 to 300"),
        ({"time_limit_s": 10**400}, "'time_limit_s' must be .* from 0.01 to 300"),
        ({"kind": ["stdin"]}, r"'kind' is \['stdin'\]. Valid: asserts, function, st"),
        ({"entry": 5}, "'entry' must be text, got 5"),
        (
            {"hidden": ({"input": "\ud800", "output": "3"},)},
            r"hidden\[0\]: field 'input'",
        ),
        ({"hidden": ({"input": "", "output": "\ud800"},)}, "field 'output' holds half"),
        (
            {"public": ({"input": "", "output": "\ud800"},)},
            r"public\[0\]: field 'output'",
        ),
    ],
)
def test_tests_that_would_give_wrong_verdicts_are_refused(
    fields: dict[str, Any], message: str
):
    with pytest.raises(DataError, match=message):
        CodeTests(**{"hidden": tuple(TESTS), **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"entry": 5}, "'entry' must be text, got 5"),
        ({"entry": ["f"]}, "'entry' must be text"),
        ({"entry": "\ud800"}, '\'entry\' must be "name" or "Class.name"'),
        ({"entry": "__import__('os')"}, '\'entry\' must be "name" or "Class.name"'),
        ({"entry": "a.b.c"}, "'entry' must be"),
        ({"entry": "f" * 201}, "'entry' must be .* of 200 characters at most"),
        ({"entry": "\ufb01nd"}, "'entry' must be"),
        ({"entry": "class"}, "'entry' must be"),
        ({"entry": "S.__f"}, "'entry' must be"),
        (
            {"hidden": ({"args": [], "expected": DEEP},)},
            "'expected' is nested deeper tha",
        ),
        (
            {"hidden": ({"args": DEEP, "expected": 1},)},
            "'args' is nested deeper than 100",
        ),
        ({"hidden": ({"args": [10**4300], "expected": 1},)}, "'args' is no JSON"),
        ({"hidden": ({"args": [{1, 2}], "expected": 1},)}, "'args' is no JSON"),
    ],
)
def test_function_tests_that_would_give_wrong_verdicts_are_refused(
    fields: dict[str, Any], message: str
):
    fit = {"kind": "function", "entry": "f", "hidden": ({"args": [], "expected": 1},)}
    assert CodeTests(**fit).entry == "f"  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        CodeTests(**{**fit, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("tests", [5, [1], "x", True])
def test_tests_of_a_task_are_an_object(tests: Any):
    with pytest.raises(DataError, match="field 'tests' must be an object"):
        Task(id="t", prompt="?", answer="1", tests=tests)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"choices": ("\ud800", "x")}, "field 'choices' holds half a surrogate pair"),
        ({"source": {"a": 1}}, "field 'source' must be text"),
        ({"licence": [1]}, "field 'licence' must be text"),
        ({"meta": {"x": DEEP}}, "field 'meta' is nested deeper than 100"),
    ],
)
def test_a_task_is_refused_by_its_field(fields: dict[str, Any], message: str):
    with pytest.raises(DataError, match=f"^task 't': {message}"):
        Task(**{"id": "t", "prompt": "?", "answer": "1", **fields})


def test_what_a_message_shows_of_a_task_is_cut():
    with pytest.raises(DataError) as caught:
        Task(id="x" * 5_000_000, prompt="", answer="1")
    assert len(str(caught.value)) < 300
    with pytest.raises(DataError) as caught:
        CodeTests(hidden=tuple(TESTS), memory_mb="9" * 5_000_000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300


# Comparing outputs


@linux
@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        (b"1 2\n3\n", "1 2\n3\n", True),
        (b"1  2 \r\n3\n\n\n", "1 2\n3", True),
        (b"1 2 3\n", "1 2\n3\n", False),
        (b"1 2\n\n3\n", "1 2\n3\n", False),
        (b"1 2\n", "1 2\n3\n", False),
        (b"1 2\n3\n4\n", "1 2\n3\n", False),
        (b"", "1\n", False),
        (b"1.0\n", "1\n", False),
        (b"01\n", "1\n", False),
        (b"\xff\x00\n", "1\n", False),
        (b"1\x00\n", "1\n", False),
        (b"YES\n", "yes\n", False),
        ("\u00e4\n".encode(), "\u00e4\n", True),
    ],
)
def test_outputs_are_compared_by_line_and_token(
    output: bytes, expected: str, same: bool
):
    source = f"import sys\nsys.stdout.buffer.write({output!r})"
    verdict = verify(stdin_task({"input": "", "output": expected}), fenced(source))
    assert verdict.status == ("correct" if same else "wrong")


@linux
@pytest.mark.parametrize(
    ("output", "same"),
    [
        ("0.3333333 x\n2", True),
        ("0.33334 x\n2.0000001", True),
        ("3.33334e-1 x\n+2", True),
        ("0.334 x\n2", False),
        ("0.33333 y\n2", False),
        ("0.33333 x 2", False),
        ("nan x\n2", False),
        ("inf x\n2", False),
        ("0.3_3333 x\n2", False),
        ("1/3 x\n2", False),
        ("0.3.3 x\n2", False),
    ],
)
def test_numbers_may_differ_where_the_task_says_so(output: str, same: bool):
    compare = {"mode": "float_tokens_by_line", "rtol": 1e-4, "atol": 0.0}
    task = stdin_task({"input": "", "output": "0.333333333 x\n2\n"}, compare=compare)
    assert verify(task, fenced(f"print({output!r})")).status == (
        "correct" if same else "wrong"
    )


@linux
@pytest.mark.parametrize(
    ("result", "expected", "status"),
    [
        ("3", 3, "correct"),
        ("True", True, "correct"),
        ("True", 1, "wrong"),
        ("1", True, "wrong"),
        ("1.0", 1, "wrong"),
        ("1", 1.0, "wrong"),
        ("-0.0", 0.0, "correct"),
        ("(1, (2, 3))", [1, [2, 3]], "correct"),
        ("[1, 2]", [2, 1], "wrong"),
        ("[]", [], "correct"),
        ("[[]]", [], "wrong"),
        ("None", None, "correct"),
        ("None", [], "wrong"),
        ("'a\\ud800'", "a\ud800", "correct"),
        ("'3'", 3, "wrong"),
        ("-7", -7, "correct"),
        ("{'b': 1, 'a': [2]}", {"a": [2], "b": 1}, "correct"),
        ("{'a': 1}", {"a": 1, "b": 1}, "wrong"),
        ("{'int': '0x3'}", 3, "wrong"),
        ("{1, 2}", [1, 2], "runtime_error"),
        ("float('nan')", 1.0, "wrong"),
        ("[0] * 300_000", [], "output_limit"),
    ],
)
def test_results_are_compared_by_value_and_exact_type(
    result: str, expected: Any, status: str
):
    task = function_task(([0], expected))
    assert verify(task, fenced(f"def f(x):\n    return {result}")).status == status


@linux
@pytest.mark.parametrize(
    ("result", "same"),
    [
        ("[0.1 + 0.2, 5, {'k': 2.0}]", True),
        ("[0.3, 5.0000001, {'k': 2}]", True),
        ("[0.31, 5, {'k': 2.0}]", False),
        ("[0.3, True, {'k': 2.0}]", False),
        ("[0.3, 5, {'l': 2.0}]", False),
        ("[0.3, 5]", False),
        ("[float('nan'), 5, {'k': 2.0}]", False),
        ("[0.3, 10 ** 400, {'k': 2.0}]", False),
        ("['0.3', 5, {'k': 2.0}]", False),
    ],
)
def test_results_with_a_tolerance(result: str, same: bool):
    task = function_task(
        ([], [0.3, 5, {"k": 2.0}]),
        compare={"mode": "json_float", "rtol": 1e-6, "atol": 1e-9},
    )
    assert verify(task, fenced(f"def f():\n    return {result}")).status == (
        "correct" if same else "wrong"
    )


@linux
@pytest.mark.parametrize(
    ("printed", "returned", "expected", "same"),
    [
        ("1000001", "1000001", 1000000, False),
        ("+1000000", "10 ** 6", 1000000, True),
        ("1000001.0", "1000001.0", 1000000, True),
        ("1" + "0" * 5000, "10 ** 5000", 10**5000, True),
        ("1" + "0" * 4999 + "1", "10 ** 5000 + 1", 10**5000, False),
        ("1.5", "1.5", 10**400, False),
        ("--5", "'--5'", 5, False),
    ],
    ids=range(7),
)
def test_a_tolerance_is_for_floats_and_integers_are_exact(
    printed: str, returned: str, expected: int, same: bool
):
    text = "1" + "0" * 5000 if expected == 10**5000 else str(expected)
    compare = {"rtol": 1e-5, "atol": 0.0}
    task = stdin_task(
        {"input": "", "output": text},
        compare={"mode": "float_tokens_by_line", **compare},
    )
    assert verify(task, fenced(f"print({printed!r})")).status == (
        "correct" if same else "wrong"
    )
    task = function_task(([], expected), compare={"mode": "json_float", **compare})
    assert verify(task, fenced(f"def f():\n    return {returned}")).status == (
        "correct" if same else "wrong"
    )


RECURSION = """
import sys, threading
def depth(n):
    return n and depth(n - 1) + 1
def main():
    print(depth(int(input())))
sys.setrecursionlimit(10 ** 6)
threading.stack_size(2 ** 26)
thread = threading.Thread(target=main)
thread.start()
thread.join()
"""


@linux
def test_a_thread_with_a_large_stack_is_nothing_to_ask_for():
    if sandbox().layer != "namespaces":
        pytest.skip("threads need namespaces")
    task = stdin_task({"input": "20000", "output": "20000"}, time_limit_s=30.0)
    assert verify(task, fenced(RECURSION)).status == "correct"


@linux
def test_a_method_of_a_solution():
    task = function_task(([[1, 2, 3], 2], 6), ([[], 0], 0), entry="Solution.total")
    source = (
        "from typing import List\nclass Solution:\n    def total(self, xs: List[int],"
        " n: int) -> int:\n        return sum(xs)"
    )
    assert verify(task, fenced(source)).status == "correct"


# Programs that want the reward without the work. None of them knows the answer,
# 987654321.

SPOOFS = {
    "exit": "import sys\ndef f(x): sys.exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "exit at import": "raise SystemExit",
    "equal to all": (
        "class E:\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(x):"
        " return E()"
    ),
    "an integer equal to all": (
        "class E(int):\n    def __eq__(self, o): return True\ndef f(x): return E(5)"
    ),
    "a text equal to all": (
        "class E(str):\n    def __eq__(self, o): return True\ndef f(x): return E('5')"
    ),
    "a list equal to all": (
        "class E(list):\n    def __eq__(self, o): return True\ndef f(x): return E()"
    ),
    "its own class": (
        "class E:\n    __class__ = int\n    def __index__(self): return 5\ndef f(x):"
        " return E()"
    ),
    "patched json": (
        "import json\njson.dumps = lambda *a, **k: 'true'\ndef f(x): return 5"
    ),
    "patched loads": (
        "import json\njson.loads = lambda *a, **k: 987\ndef f(x): return 5"
    ),
    "patched harness": (
        "import sys\nframe = sys._getframe()\nwhile frame.f_back: frame ="
        " frame.f_back\nframe.f_globals['encode'] = lambda v: True\ndef f(x): return 5"
    ),
    "patched builtins": (
        "import builtins\nbuiltins.type = lambda *a: int\ndef f(x): return 5"
    ),
    "forged channel": (
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'true')\n    except"
        " OSError: pass\ndef f(x): return 5"
    ),
    "forged channel and exit": (
        'import os\nfor fd in range(3, 64):\n    try: os.write(fd, b\'{"status": "ok",'
        ' "correct": true}\')\n    except OSError: pass\nos._exit(0)'
    ),
    "two results": (
        "import os\ndef f(x):\n    for fd in range(3, 64):\n        try: os.write(fd,"
        " b'1 ')\n        except OSError: pass\n    return 2"
    ),
    "forged ready": "import os\nos.write(1, b'\\x06\\x06')\ndef f(x): return 5",
    "closed channel": "import os\nos.closerange(0, 64)\ndef f(x): return 5",
    "all frames": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n       "
        " for v in frame.f_locals.values():\n            if v == 987654300 + 21: return"
        " v\n        frame = frame.f_back"
    ),
    "all objects": (
        "import gc\ndef f(x):\n    for o in gc.get_objects():\n        if type(o) is"
        " list and 987654300 + 21 in o: return 987654300 + 21"
    ),
    "all of memory": (
        "import ctypes\ndef f(x):\n    return next(n for n in range(10) if"
        " str(987654300 + 21) in ctypes.string_at(id(x), 64).hex())"
    ),
    "print it": "def f(x): print(987654300 + 20)",
    "generator": "def f(x): yield 5",
    "deep": "def f(x):\n    r = []\n    for _ in range(10 ** 5): r = [r]\n    return r",
    "wide": "def f(x): return [[]] * 10 ** 5",
    "huge": "def f(x): return 1 << 10 ** 7",
    "raise": "def f(x): raise BaseException('correct')",
    "not finite": "def f(x): return float('inf')",
    "exit hook": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 5",
    "destructor": (
        "import os\nclass D:\n    def __del__(self): os._exit(0)\nd = D()\ndef f(x):"
        " return 5"
    ),
}


@linux
@pytest.mark.parametrize("mode", ["exact_json", "json_float"])
@pytest.mark.parametrize("name", SPOOFS)
def test_a_spoof_earns_nothing(name: str, mode: str):
    verdict = verify(
        function_task(([1000], 987654321), compare={"mode": mode}), fenced(SPOOFS[name])
    )
    assert (verdict.reward, verdict.correct) == (0.0, False), verdict
    assert verdict.status in (
        "wrong",
        "runtime_error",
        "output_limit",
        "memory",
        "timeout",
    ), verdict


@linux
def test_integers_of_any_size():
    task = function_task(([6000], 10**6000))
    assert verify(task, fenced("def f(n): return 10 ** n")).status == "correct"
    assert verify(task, fenced("def f(n): return 10 ** n + 1")).status == "wrong"


# Verifiers by kind


@linux
def test_every_kind_of_task_finds_its_verifier():
    choice = Task(id="c", prompt="?", answer="B", kind="choice", choices=("1", "2"))
    math = Task(id="m", prompt="?", answer="7", kind="math")

    async def all_kinds() -> list[Verdict]:
        verifier = ByKind()
        works = [
            verifier.verify(math, "\\boxed{7}"),
            verifier.verify(choice, "\\boxed{B}"),
        ]
        works += [verifier.verify(stdin_task(), fenced(SUM)) for _ in range(3)]
        return await asyncio.gather(*works)

    verdicts = asyncio.run(all_kinds())
    assert [verdict.status for verdict in verdicts] == ["correct"] * 5
    assert [verdict.isolation for verdict in verdicts] == [
        "none",
        "none",
        *[sandbox().layer] * 3,
    ]


def test_a_kind_without_a_verifier():
    with pytest.raises(
        ConfigError,
        match=(
            "task 'x': there is no kind 'mth'. Valid: choice, code, math. Did you mean"
            " 'math'"
        ),
    ):
        run_sync(ByKind().verify(Task(id="x", prompt="?", answer="1", kind="mth"), "1"))


# What a task may ask of a machine


class Counting:
    """A sandbox that says how a run went, and how often it was asked."""

    layer = "none"

    def __init__(self, result: RunResult) -> None:
        self.result, self.num_runs = result, 0

    async def run(self, program: Program, limits: Limits) -> RunResult:
        self.num_runs += 1
        return self.result


@pytest.mark.parametrize("memory_mb", [0.5, 1e300, float("inf"), "256", True, 10**9])
def test_memory_is_a_whole_number_within_a_cap(memory_mb: Any):
    with pytest.raises(DataError, match="'memory_mb' must be a whole number"):
        CodeTests(hidden=TESTS, memory_mb=memory_mb)


@pytest.mark.parametrize("time_limit_s", [0, -1, 1e9, 1e300, float("nan"), "2", True])
def test_time_is_a_number_within_a_cap(time_limit_s: Any):
    with pytest.raises(DataError, match="'time_limit_s' must be a number"):
        CodeTests(hidden=TESTS, time_limit_s=time_limit_s)


def test_a_whole_number_may_be_written_with_a_point():
    memory_mb: Any = 256.0
    tests = CodeTests(hidden=TESTS, memory_mb=memory_mb)
    assert repr(tests.memory_mb) == "256"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output_mb": 17}, "'output_mb' must be a whole number of MiB from 1 to 16"),
        ({"output_mb": 0}, "'output_mb' must be"),
        ({"threads": 65}, "'threads' must be a whole number from 1 to 64, got 65"),
        ({"threads": True}, "'threads' must be"),
        ({"threads": 1e300}, "'threads' must be"),
        ({"packages": ["os"]}, "'packages' must be a list of names, of numpy, got"),
        ({"packages": "numpy"}, "'packages' must be a list of names"),
        ({"packages": [["numpy"]]}, "'packages' must be a list of names"),
        ({"solution": 5}, "'solution' must be text, got 5"),
    ],
)
def test_what_a_task_asks_for_has_caps(fields: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        CodeTests(hidden=TESTS, **fields)


def test_a_task_has_the_threads_output_and_packages_it_asks_for():
    sandbox = RecordingSandbox()
    task = stdin_task(threads=4, output_mb=2, packages=["numpy"])
    run_sync(CodeVerifier(sandbox).verify(task, SUM))
    program, limits = sandbox.seen[0]
    assert program == Program(SUM, b"1 2\n", packages=("numpy",))
    assert limits == Limits(threads=4, output_bytes=2 * 2**20)


@pytest.mark.parametrize(
    "field",
    [{"time_limit_s": 61}, {"memory_mb": 513}, {"threads": 33}, {"output_mb": 9}],
)
def test_more_than_the_machine_grants_is_no_verdict(field: dict[str, Any]):
    sandbox = Counting(RunResult("ok", "none"))
    verifier = CodeVerifier(sandbox, max_memory_mb=512, max_output_mb=8)
    with pytest.raises(VerifierError, match="is more than is granted here"):
        run_sync(verifier.verify(stdin_task(**field), fenced(SUM)))
    assert sandbox.num_runs == 0


def test_all_tests_together_have_a_time():
    slow = RunResult("ok", "none", stdout=b"3\n", seconds=0.9)
    tests = [{"input": "", "output": "3\n"}] * 6
    verifier = CodeVerifier(Counting(slow), max_total_s=2.0)
    verdict = run_sync(verifier.verify(stdin_task(*tests), fenced(SUM)))
    assert (verdict.status, verdict.stage) == ("timeout", "test 3 of 6")
    assert verdict.reason == "the tests took more than 2 s together"


def test_what_ran_out_of_time_is_not_run_again():
    sandbox = Counting(RunResult("timeout", "none", seconds=2.0))
    verifier = CodeVerifier(sandbox)
    for _ in range(20):
        verdict = run_sync(verifier.verify(stdin_task(), fenced(SUM)))
        assert verdict.status == "timeout"
    assert sandbox.num_runs == 2  # the first time may be the machine's fault
    run_sync(verifier.verify(stdin_task(time_limit_s=3.0), fenced(SUM)))
    assert sandbox.num_runs == 3


@pytest.mark.parametrize("mode", ["tokens_by_line", "float_tokens_by_line"])
def test_a_long_output_is_compared_beside_the_event_loop(mode: str):
    output = "1\n" * 100_000
    tests = CodeTests(
        kind="stdin",
        hidden=({"input": "", "output": output},),
        compare={"mode": mode},
    )
    task = Task(id="t", prompt="?", answer="", kind="code", tests=tests)
    result = RunResult("ok", "none", stdout=output.encode())
    verifier = CodeVerifier(Counting(result))
    assert asyncio.run(held_s(verifier, task, "correct")) < 0.05


class Checked(RecordingSandbox):
    async def run(self, program: Program, limits: Limits) -> RunResult:
        await super().run(program, limits)
        is_checker = program.entry == "check"
        stdout = b"true" if is_checker else b"[" + b"[]," * MANY + b"1]"
        return RunResult("ok", "none", stdout=stdout)


@pytest.mark.parametrize("kind", ["stdin", "function"])
def test_what_a_checker_is_given_is_written_beside_the_event_loop(kind: Any):
    test = {"input": "", "output": ""}
    if kind == "function":
        test = {"args": [], "expected": None}
    compare = {"mode": "checker", "program": "def check(i, e, o): return True"}
    tests = CodeTests(kind=kind, entry="f", hidden=(test,), compare=compare)
    task = Task(id="t", prompt="?", answer="", kind="code", tests=tests)
    assert asyncio.run(held_s(CodeVerifier(Checked()), task, "correct")) < 0.05


async def held_s(verifier: CodeVerifier, task: Task, status: str) -> float:
    """Return for how many seconds a verdict keeps the event loop from others."""
    work = asyncio.ensure_future(verifier.verify(task, "print()"))
    worst = 0.0
    before = time.thread_time()
    while not work.done():
        await asyncio.sleep(0.001)
        now = time.thread_time()
        worst, before = max(worst, now - before), now
    assert (await work).status == status
    return worst


@pytest.mark.parametrize(
    ("mode", "output", "expected"),
    [
        ("livecodebench", b"1 " * MANY, "1"),
        ("livecodebench", b"1\n" * MANY, "1"),
        ("livecodebench", b"1" + b"\n" * MANY + b"1", "1\n1"),
        ("tokens_by_line", b"1 " * MANY, "1"),
        ("tokens_by_line", b"1\n" * MANY, "1"),
        ("float_tokens_by_line", b"1 " * MANY, "1"),
        ("exact_json", b"[" + b"[]," * MANY + b"1]", 5),
        ("json_float", b"[" + b"1.5," * MANY + b"1]", [1.5]),
        ("livecodebench", b"[" + b"[]," * MANY + b"1]", 5),
        ("livecodebench", b"[" + b"{}," * MANY + b"1]", {"a": [1]}),
        ("livecodebench", b'{"dict":[' + b'["a",1],' * MANY + b'["a",1]]}', {"a": 1}),
    ],
    ids=range(11),
)
def test_an_output_of_millions_of_parts_costs_no_more_than_what_is_expected(
    mode: str, output: bytes, expected: Any
):
    test = {"input": "", "output": expected}
    kind: Any = "stdin"
    if not isinstance(expected, str):
        test = {"args": [], "expected": expected}
        kind = "function"
    tests = CodeTests(kind=kind, entry="f", hidden=(test,), compare={"mode": mode})
    result = RunResult("ok", "none", stdout=output)
    tracemalloc.start()
    assert outcome(result, tests, test) == ("wrong", "another result than expected")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * len(output) + 2**20


@pytest.mark.parametrize("mode", ["exact_json", "livecodebench"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([0.5] * 20_000, [0.5] * 20_000),
        ([{"a,b": 1, "c": []}] * 5000, [{"a,b": 1, "c": []}] * 5000),
        ([[[1]], []] * 5000, [[[1]], []] * 5000),
        ([","] * 20_000, [","] * 20_000),
        ("," * 100_000, "," * 100_000),
        (["é" * 10] * 2000, ["é" * 10] * 2000),
        ({str(n): -n for n in range(9000)}, {str(n): -n for n in range(9000)}),
        (10**90_000, 10**90_000),
        ([None, True] * 10_000, [None, True] * 10_000),
    ],
    ids=range(9),
)
def test_a_long_result_that_is_right_is_read(mode: str, value: Any, expected: Any):
    test = {"args": [], "expected": expected}
    compare = {"mode": mode}
    tests = CodeTests(kind="function", entry="f", hidden=(test,), compare=compare)
    write = pack if mode == "livecodebench" else encode
    result = RunResult("ok", "none", stdout=json.dumps(write(value)).encode())
    assert outcome(result, tests, test) == ("correct", "")


def test_a_long_result_may_be_of_other_numbers_that_are_equal():
    expected = [[1, 2.5]] * 5000
    test = {"args": [], "expected": expected}
    compare = {"mode": "livecodebench"}
    tests = CodeTests(kind="function", entry="f", hidden=(test,), compare=compare)
    for value in ([[1 + 0j, 2.5 + 0j]] * 5000, [[True, Fraction(5, 2)]] * 5000):
        result = RunResult("ok", "none", stdout=json.dumps(pack(value)).encode())
        assert outcome(result, tests, test) == ("correct", "")


class LoudSandbox(RecordingSandbox):
    async def run(self, program: Program, limits: Limits) -> RunResult:
        run = await super().run(program, limits)
        return replace(run, stdout=b"3" + b"\n" * 10_000, stderr=b"x" * 10_000)


def test_of_a_judged_run_only_the_start_of_its_outputs_is_kept():
    tests = ({"input": "", "output": "3"}, {"input": "", "output": "4"})
    verifier = CodeVerifier(LoudSandbox())
    verdict, cases = run_sync(verifier.verify_program(stdin_task(*tests), "pass"))
    assert [case.status for case in cases] == ["correct", "wrong"]
    assert verdict.stage == "test 2 of 2"
    lengths = [(len(case.run.stdout), len(case.run.stderr)) for case in cases]
    assert lengths == [(2000, 2000), (2000, 2000)]


class SlowSandbox(RecordingSandbox):
    """Every run takes two seconds; the code of a test asks for one result more."""

    async def run(self, program: Program, limits: Limits) -> RunResult:
        run = await super().run(program, limits)
        stdout = b"true"
        if program.entry == "judge":
            known = json.loads(program.stdin)[3]
            said = json.dumps({"asked": [f"call {len(known)}"]})
            stdout = json.dumps(said).encode()
        elif limits.output_bytes == 2**20 and program.source == "long":
            return replace(run, status="output_limit", seconds=2.0)
        return replace(run, stdout=stdout, seconds=2.0)


@pytest.mark.parametrize(
    ("fields", "source", "num_runs", "stage"),
    [
        ({}, "short", 4, "test 4 of 4"),
        (
            {"compare": {"mode": "checker", "program": "def check(*a): return True"}},
            "short",
            4,
            "test 2 of 4",
        ),
        ({"test": {"output": "true" + " " * 2**20}}, "long", 4, "test 2 of 4"),
        ({"kind": "asserts", "entry": "f"}, "short", 4, "test 1 of 4"),
    ],
    ids=["printed", "checker", "long", "asserts"],
)
def test_all_that_is_run_for_a_verdict_counts_as_its_time(
    fields: dict[str, Any], source: str, num_runs: int, stage: str
):
    fields = dict(fields)
    test = {"input": "", "output": "true"} | fields.pop("test", {})
    if "kind" in fields:
        test = {"code": "f()"}
    tests = CodeTests(hidden=(test,) * 4, **fields)
    task = Task(id="t", prompt="?", answer="", kind="code", tests=tests)
    slow = SlowSandbox()
    verifier = CodeVerifier(slow, max_total_s=7.0)
    verdict, _ = run_sync(verifier.verify_program(task, source))
    assert (verdict.status, verdict.stage) == ("timeout", stage)
    assert verdict.reason == "the tests took more than 7 s together"
    assert len(slow.seen) == num_runs
