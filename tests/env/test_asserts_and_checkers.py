"""Tests that are Python, and programs that judge outputs: no program under test meets
either.
"""

import json
import sys
from functools import cache
from typing import Any

import pytest

from aipo_env import (
    CodeTests,
    CodeVerifier,
    DataError,
    Task,
    Verdict,
    VerifierError,
    run_sync,
)
from aipo_env.sandboxes.process import ProcessSandbox
from aipo_env.verifiers import unit_tests

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the process sandbox needs Linux"
)


@cache
def verifier() -> CodeVerifier:
    return CodeVerifier(ProcessSandbox())


def task_of(**tests: Any) -> Task:
    fields = {"time_limit_s": 20.0, **tests}
    return Task(id="t", prompt="?", answer="", kind="code", tests=CodeTests(**fields))


def verdict_on(task: Task, code: str) -> Verdict:
    return run_sync(verifier().verify_program(task, code))[0]


# Tests that are Python


def asserts(*codes: str, entry: str = "f", **fields: Any) -> Task:
    hidden = tuple({"code": code} for code in codes)
    return task_of(kind="asserts", entry=entry, hidden=hidden, **fields)


@pytest.mark.parametrize(
    ("code", "program", "status"),
    [
        ("assert f(2) == 4", "def f(x): return 2 * x", "correct"),
        ("assert f(2) == 4", "f = lambda x: x * 2.0", "correct"),
        ("assert f(2) == 4", "def f(x): return x", "wrong"),
        ("assert f(2) == (1, 2)", "def f(x): return 1, 2", "correct"),
        ("assert f(2) == (1, 2)", "def f(x): return [1, 2]", "wrong"),
        ("assert f((1, [2])) == {3}", "def f(x): return {x[0] + x[1][0]}", "correct"),
        ("assert f({1: 'a'}) == {'a': 1}", "def f(x): return {x[1]: 1}", "correct"),
        ("assert f(1, b=2) == 3", "def f(a, b): return a + b", "correct"),
        ("assert abs(f(1) - 0.3) < 1e-9", "def f(x): return 0.1 + 0.2", "correct"),
        ("assert f(1) is None", "def f(x): pass", "correct"),
        ("assert f(1) is True", "def f(x): return 1", "wrong"),
        ("assert not f(1)", "def f(x): return []", "correct"),
        ("assert f(f(1)) == 4", "def f(x): return 2 * x", "correct"),
        (
            "x = f(1)\nassert f(x) == 4\nassert x == 2",
            "def f(x): return 2*x",
            "correct",
        ),
        ("for n in range(5):\n    assert f(n) == n", "def f(x): return x", "correct"),
        ("for n in range(5):\n    assert f(n) == n", "def f(x): return x%4", "wrong"),
        (
            "assert f(1, int) is True",
            "def f(x, kind): return type(x) is kind",
            "correct",
        ),
        ("assert f(b'a') == 1j", "def f(x): return 1j", "correct"),
        ("assert f('\\ud800') == 10 ** 40", "def f(x): return 10 ** 40", "correct"),
        ("assert f(1)[0] == 1", "def f(x): return None", "wrong"),
        ("assert f(1) == 1", "def f(x): return 1 / 0", "runtime_error"),
        ("assert f(1) == 1", "def f(x: raise", "compile_error"),
        ("assert f(1) == 1", "def g(x): return 1", "runtime_error"),
        (
            "import random\nn = random.random()\nassert f(n) == n",
            "def f(x): return x",
            "correct",
        ),
        (
            "def check(candidate):\n    assert candidate(1) == 2\n\ncheck(f)",
            "if __name__ == '__main__':\n    f(input())\ndef f(x): return x + 1",
            "correct",
        ),
    ],
    ids=range(25),
)
def test_assertions_about_what_a_function_returns(code: str, program: str, status: str):
    assert verdict_on(asserts(code), program).status == status


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("assert {}[f('\\ud800')]", "KeyError: '\\ud800'"),
        ("raise ValueError(f('\\ud800'))", "ValueError: ?"),
        ("raise ValueError(f('\\x1b[31m\\x07'))", "ValueError: ?[31m?"),
        ("raise ValueError(f('a\\nb\\r\\x85c'))", "ValueError: a b  c"),
        ("raise ValueError(f('\\u202eab\\u200b'))", "ValueError: ?ab?"),
        ("raise ValueError(f('é 日本'))", "ValueError: é 日本"),
    ],
    ids=range(6),
)
def test_a_reason_is_text_that_can_be_written_and_seen(code: str, reason: str):
    verdict = verdict_on(asserts(code), "def f(x): return x")
    assert (verdict.status, verdict.reason) == ("wrong", reason)


def test_a_programs_own_words_in_a_verdict_can_be_written():
    loud = "raise ValueError('\\x1b[31m')  # \ud800"
    verdict = verdict_on(task_of(hidden=({"input": "", "output": ""},)), loud)
    assert verdict.extracted == "raise ValueError('\\x1b[31m')  # ?"
    wordy = "def check(input, expected, output):\n    return 'bad: ' + output"
    task = checked(wordy, {"args": [], "expected": 1}, kind="function", entry="f")
    verdict = verdict_on(task, "def f(): return '\\ud800\\x1b[31m'")
    assert verdict.reason == "the checker: bad: ??[31m"
    verdict = verdict_on(task, "def f(): raise ValueError('\\x1b[31m')")
    assert verdict.reason == "ValueError: ?[31m"


def test_a_verdict_names_the_assertion_and_not_what_it_expects():
    task = asserts("assert f(1) == 1", "x = 5\nassert f(2) == 987654")
    verdict = verdict_on(task, "def f(x): return x")
    assert (verdict.status, verdict.stage) == ("wrong", "test 2 of 2")
    assert verdict.reason == "an assertion does not hold, line 2"


def test_what_stands_before_a_program_stands_before_its_tests():
    prelude = "def one():\n    return 1\ndef f(x):\n    '''Documented.'''\n"
    task = asserts("assert f(1) == one()", prelude=prelude)
    assert verdict_on(task, "    return one()").status == "correct"
    assert verdict_on(task, "def f(x): return one()").status == "correct"
    assert verdict_on(task, "pass").status == "wrong"


def test_a_method_of_a_class():
    task = asserts("assert Solution().f(1) == 2", entry="Solution.f")
    program = "class Solution:\n    def f(self, x): return x + 1"
    assert verdict_on(task, program).status == "correct"


FORGED = """
import os
for number in range(64):
    try:
        os.write(number, b'WORD')
    except OSError:
        pass
os._exit(0)
"""
SPOOFS = [
    "import sys\nsys.exit(0)",
    "import os\nos._exit(0)",
    "import sys\ndef f(x): sys.exit(0)",
    "class E:\n    def __eq__(self, o): return True\ndef f(x): return E()",
    "class E(int):\n    def __eq__(self, o): return True\ndef f(x): return E(3)",
    "def check(candidate): pass\ndef f(x): return 0",
    "import builtins\nbuiltins.AssertionError = Exception\ndef f(x): return 0",
    "import json\njson.dumps = lambda *a, **k: 'true'\ndef f(x): return 0",
    "print('{\"passed\": true}')\ndef f(x): print('{\"passed\": true}')",
    FORGED.replace("WORD", '{"passed": true}'),
    "import gc\ndef f(x):\n    for o in gc.get_objects():\n"
    "        if type(o) is list and 987654300 + 21 in o: return 987654300 + 21",
]


@pytest.mark.parametrize("program", SPOOFS, ids=range(len(SPOOFS)))
def test_a_program_cannot_pass_assertions_without_the_answer(program: str):
    task = asserts("def check(c):\n    assert c(1000) == 987654321\ncheck(f)")
    verdict = verdict_on(task, program)
    assert (verdict.reward, verdict.correct) == (0.0, False), verdict


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("assert g(1) == 1", "NameError: name 'g' is not defined"),
        ("assert f(1 == 1", "SyntaxError"),
        ("pass", "the tests never call f"),
        ("def check(c): assert c(1) == 1", "the tests never call f"),
        ("assert f(object()) == 1", "what is no plain value"),
        ("while True: pass", "timeout"),
        ("import sys\nsys.exit(0)", "does not end well"),
    ],
    ids=range(7),
)
def test_tests_that_fail_by_themselves_are_no_verdict(code: str, reason: str):
    task = asserts(code, time_limit_s=2.0)
    with pytest.raises(VerifierError, match=reason):
        verdict_on(task, "def f(x): return 1")


WANTS_ERROR = """
try:
    f(-1)
    assert False
except ValueError:
    pass
assert f(1) == 1
"""
WANTS_MESSAGE = """
import unittest
with unittest.TestCase().assertRaises(ValueError) as caught:
    f(-1)
assert str(caught.exception) == 'too: small'
"""
RAISES = "def f(x):\n    if x < 0:\n        raise {}\n    return x"


@pytest.mark.parametrize(
    ("code", "program", "status", "reason"),
    [
        (WANTS_ERROR, RAISES.format("ValueError('-1')"), "correct", ""),
        (WANTS_ERROR, RAISES.format("ValueError"), "correct", ""),
        (WANTS_ERROR, RAISES.format("KeyError(1)"), "runtime_error", "KeyError: 1"),
        (WANTS_ERROR, RAISES.format("SystemExit(1)"), "runtime_error", None),
        (
            WANTS_ERROR,
            "class Own(ValueError): pass\n" + RAISES.format("Own('x')"),
            "runtime_error",
            "program.Own: x",
        ),
        (
            WANTS_ERROR,
            "def f(x): return x",
            "wrong",
            "an assertion does not hold, line 4",
        ),
        (
            WANTS_ERROR,
            "def f(x): raise ValueError('always')",
            "runtime_error",
            "ValueError: always",
        ),
        (
            WANTS_ERROR,
            "def f(x):\n    assert x > 0, 'small'\n    return x",
            "runtime_error",
            "AssertionError: small",
        ),
        (WANTS_MESSAGE, RAISES.format("ValueError('too: small')"), "correct", ""),
        (WANTS_MESSAGE, RAISES.format("ValueError('other')"), "wrong", None),
        (
            "try:\n    f(-1)\nexcept Exception:\n    pass\nassert f(2) == 3",
            "class Own(Exception): pass\n" + RAISES.format("Own"),
            "wrong",
            "an assertion does not hold, line 5",
        ),
        (
            "try:\n    f(1)\nexcept UnicodeDecodeError:\n    pass",
            "def f(x): return b'\\xff'.decode()",
            "runtime_error",
            None,
        ),
        (
            "try:\n    f(1)\nexcept ValueError:\n    pass\nassert f(2) == 2",
            "import os\ndef f(x):\n"
            "    if x == 1: os.write(3, b'{\"raised\": [[], 5]}')\n"
            "    else: os.write(3, b'{\"raised\": 5}')\n"
            "    os._exit(0)",
            "runtime_error",
            "5",
        ),
        ("assert f.__name__ == 'f' and f(1) == 1", "def f(x): return x", "correct", ""),
    ],
    ids=range(14),
)
def test_what_a_program_raises_is_raised_in_its_tests(
    code: str, program: str, status: str, reason: str | None
):
    verdict = verdict_on(asserts(code), program)
    assert verdict.status == status, verdict
    if reason is not None:
        assert verdict.reason == reason


@pytest.mark.parametrize(
    "word",
    [
        b'"5"',
        b"5",
        b'"{}"',
        b'{"passed": true}',
        b'"{\\"asked\\": 5}"',
        b'"{\\"asked\\": []}"',
        b'"{\\"asked\\": [5]}"',
        b'"{\\"failed\\": 5}"',
        b'"{\\"passed\\": false}"',
        b'"{\\"passed\\": true, \\"fault\\": \\"\\"}"',
        b"[" * 100_000,
        b"\xff",
        b'"[["',
    ],
    ids=range(13),
)
def test_a_word_that_the_code_of_a_test_forges_is_no_verdict(word: bytes):
    code = f"import os\nos.write(3, {word!r})\nos._exit(0)"
    with pytest.raises(VerifierError, match="the code of a test writes"):
        verdict_on(asserts(code), "def f(x): return x")


HELD_UP = [
    ("assert f(f(1)) == 2", "def f(x): return object()"),
    ("r = f(1)\nassert f(r) == 1", "def f(x): return lambda: 0"),
    ("assert sum(1 for _ in range(f(1))) == 2", "def f(x): return 10 ** 12"),
    ("assert str(f(1)) == '2'", "def f(x): return 1 << 3_900_000"),
    ("r = f(1)\nprint(r * 20)\nassert r", "def f(x): return 'b' * 1_000_000"),
    ("assert [0] * f(1) == [0]", "def f(x): return 10 ** 9"),
    ("import time\ntime.sleep(f(1))\nassert False", "def f(x): return 1000"),
    ("import sys\nsys.exit(f(1))", "def f(x): return 0"),
    ("assert {}[f(1)]", "def f(x): return 10 ** 5000"),
    (
        "import re\nassert re.match(f(1), 'a' * 40 + 'b')",
        "def f(x): return '(a+)+$'",
    ),
    (
        "assert f(1) == 2",
        "import os\ndef f(x):\n"
        "    ones = ','.join(hex((2 ** 61 - 1) * n).join(['{\"int\":\"', '\"}'])\n"
        "                    for n in range(8, 20_000))\n"
        "    os.write(3, ('{\"set\":[' + ones + ']}').encode())\n"
        "    os._exit(0)",
    ),
]
"""Tests that hold, and what may be returned to hold them up."""


@pytest.mark.parametrize(("code", "program"), HELD_UP, ids=range(len(HELD_UP)))
def test_a_result_that_holds_up_its_test_is_wrong_and_no_fault_of_the_task(
    code: str, program: str
):
    verdict = verdict_on(asserts(code, time_limit_s=1.0), program)
    assert (verdict.status, verdict.reward) == ("wrong", 0.0), verdict


@pytest.mark.parametrize("name", ["exec", "open", "print", "__import__", "__debug__"])
def test_a_result_may_be_a_type_and_no_other_builtin(name: str):
    program = (
        'import os\ndef f(x):\n    os.write(3, b\'{"type": "%s"}\')\n    os._exit(0)'
    )
    task = asserts("assert isinstance(f(1), type)")
    assert verdict_on(task, program % "int").status == "correct"
    assert verdict_on(task, program % name).status == "wrong"
    task = asserts("assert callable(f(1)) or f(1) is True")
    assert verdict_on(task, program % name).status == "wrong"


def test_results_that_ask_for_ever_more_results_are_wrong(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(unit_tests, "MAX_ROUNDS", 4)
    monkeypatch.setattr(unit_tests, "MAX_RESULTS", 20)
    chain = asserts("n = 5\nwhile n != 1: n = f(n)")
    verdict = verdict_on(chain, "def f(x): return x + 1")
    assert (verdict.status, verdict.reason) == (
        "wrong",
        "the test asks for one result after the other, 4 times",
    )
    many = asserts("for n in range(f(0)):\n    f(n)")
    verdict = verdict_on(many, "def f(x): return 50")
    assert (verdict.status, verdict.reason) == (
        "wrong",
        "the code of a test asks for more than 20 results",
    )


@pytest.mark.parametrize(
    ("code", "program"),
    [
        ("for n in range(5):\n    f(n)", "def f(x): return 'a' * 500"),
        ("x = 'a'\nfor n in range(30):\n    x = f(x)", "def f(x): return x * 2"),
        ("for n in range(5):\n    f([0] * 300 + [f(n)])", "def f(x): return x"),
    ],
    ids=range(3),
)
def test_results_that_are_too_long_together_are_wrong(
    code: str, program: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unit_tests, "MAX_KNOWN_BYTES", 2000)
    verdict = verdict_on(asserts(code), program)
    reason = "what a test asks, and the results, are too long together"
    assert (verdict.status, verdict.reason) == ("wrong", reason)


def test_a_test_that_asks_for_too_many_results_is_at_fault_before_any_is_computed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(unit_tests, "MAX_RESULTS", 20)
    task = asserts("for n in range(21):\n    assert f(n) == n")
    with pytest.raises(VerifierError, match="asks for more than 20 results. Make it"):
        # Run once, it would be too slow.
        verdict_on(task, "def f(x):\n    while True: pass")


def test_what_a_test_of_code_needs():
    with pytest.raises(DataError, match="a task of kind 'asserts' needs 'entry'"):
        CodeTests(kind="asserts", hidden=({"code": "assert f()"},))
    with pytest.raises(DataError, match=r"hidden\[0\] must be an object with code"):
        CodeTests(kind="asserts", entry="f", hidden=({"input": ""},))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'rtol' says nothing in mode 'asserts'. Leave"):
        CodeTests(
            kind="asserts",
            entry="f",
            hidden=({"code": ""},),
            compare={"rtol": 0.1},
        )


# Checkers

SUM = """
def check(input, expected, output):
    try:
        a, b = map(int, output.split())
    except ValueError:
        return "two numbers are asked for"
    return a + b == int(input)
"""


def checked(program: str, *tests: dict[str, Any], **fields: Any) -> Task:
    compare = {"mode": "checker", "program": program}
    return task_of(hidden=tests, compare=compare, **fields)


@pytest.mark.parametrize(
    ("program", "status", "reason"),
    [
        ("n = int(input())\nprint(0, n)", "correct", ""),
        ("n = int(input())\nprint(n, 0)", "correct", ""),
        ("print(1, 1)", "wrong", "the checker: another result is expected"),
        ("print('x')", "wrong", "the checker: two numbers are asked for"),
        ("pass", "wrong", "the checker: two numbers are asked for"),
        ("print(True)\nimport sys\nsys.exit(1)", "runtime_error", "exit status 1"),
        ("1 / 0", "runtime_error", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_checker_takes_any_right_output(program: str, status: str, reason: str):
    task = checked(SUM, {"input": "5\n", "output": "2 3"})
    verdict = verdict_on(task, program)
    assert (verdict.status, verdict.reason) == (status, reason)


def test_a_checker_of_values():
    anywhere = (
        "def check(input, expected, output):\n    (numbers,) = input\n    return"
        " isinstance(output, tuple) and numbers[output[0]] == expected"
    )
    task = checked(
        anywhere,
        {"args": [[7, 5, 7]], "expected": 7},
        kind="function",
        entry="f",
    )
    for index in (0, 2):
        program = f"def f(numbers): return ({index}, 'found')"
        assert verdict_on(task, program).status == "correct"
    assert verdict_on(task, "def f(numbers): return (1, 0)").status == "wrong"
    assert verdict_on(task, "def f(numbers): return [0]").status == "wrong"


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ("", "runtime_error"),
        ("[1", "wrong"),
        ('{"json": "7"}', "correct"),
        ('{"json": 7}', "wrong"),
        ('1], "named": {"output": 7', "wrong"),
        ('{"dict": [[[], 7]]}', "wrong"),
        ("[" * 100_000, "wrong"),
    ],
    ids=range(7),
)
def test_what_a_program_writes_in_place_of_its_result(form: str, status: str):
    same = "def check(input, expected, output):\n    return output == expected"
    test = {"args": [], "expected": 7}
    task = checked(same, test, kind="function", entry="f")
    program = (
        f"import os\ndef f():\n    os.write(3, {form!r}.encode())\n    os._exit(0)"
    )
    assert verdict_on(task, program).status == status


CHECKED_SPOOFS = [
    "print('True')",
    "print('true')",
    "def check(*a): return True\nprint('x')",
    FORGED.replace("WORD", "true"),
    "import builtins\nbuiltins.int = lambda x: 5\nprint(5)",
    "print('5 ' * 100_000)",
    "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
]


@pytest.mark.parametrize("program", CHECKED_SPOOFS, ids=range(len(CHECKED_SPOOFS)))
def test_a_program_cannot_forge_the_word_of_its_checker(program: str):
    task = checked(SUM, {"input": "5\n", "output": "2 3"})
    verdict = verdict_on(task, program)
    assert (verdict.status, verdict.reward) == ("wrong", 0.0), verdict


def test_an_output_on_which_a_checker_fails_is_a_wrong_one():
    careless = "def check(input, expected, output):\n    return int(output) > 0"
    task = checked(careless, {"input": "", "output": "1"})
    verdict = verdict_on(task, "print('one')")
    assert verdict.status == "wrong"
    assert verdict.reason.startswith("the checker cannot read it (ValueError")
    slow = (
        "def check(input, expected, output):\n    while output == 'x\\n': pass\n"
        "    return True"
    )
    task = checked(slow, {"input": "", "output": "1"}, time_limit_s=1.0)
    assert verdict_on(task, "print('x')").reason == (
        "the checker cannot read it (time limit reached)"
    )


@pytest.mark.parametrize(
    ("check", "program"),
    [
        ("return int(output.split()[0]) % 2 == 1", "pass"),
        ("return {}[output]", "print(1)"),
        ("exec(output)", "print('raise SystemExit')"),
        ("return output * 20", "print('x' * 1_000_000)"),
        ("return len([0] * int(output)) < 9", "print(10 ** 9)"),
        ("while output != '3': pass\n    return True", "print(2)"),
        ("raise NameError(f'the program defines no {output}')", "print('check')"),
    ],
    ids=range(7),
)
def test_a_checker_that_fails_on_an_output_and_on_what_is_expected_says_wrong(
    check: str, program: str
):
    source = f"def check(input, expected, output):\n    {check}"
    task = checked(source, {"input": "", "output": ""}, time_limit_s=2.0)
    verdict = verdict_on(task, program)
    assert (verdict.status, verdict.reward) == ("wrong", 0.0), verdict


def test_a_checker_that_falls_through_says_no():
    program = (
        "def check(input, expected, output):\n  if output == expected: return True"
    )
    task = checked(program, {"input": "", "output": "1"})
    assert verdict_on(task, "print('1', end='')").status == "correct"
    verdict = verdict_on(task, "print('2', end='')")
    assert verdict.status == "wrong"
    assert "neither True nor False" in verdict.reason


def test_a_checker_of_values_that_falls_through_says_no():
    program = (
        "def check(input, expected, output):\n  if output == expected: return True"
    )
    task = checked(program, {"args": [1], "expected": [2]}, kind="function", entry="f")
    assert verdict_on(task, "def f(x): return [x + 1]").status == "correct"
    assert verdict_on(task, "def f(x): return [x]").status == "wrong"


@pytest.mark.parametrize(
    "program",
    [
        "def check(input, expected, output): return 5",
        "def check(input, expected, output): pass",
        "1 / 0\ndef check(input, expected, output): return True",
        "check = 5",
        "def check(input, expected): return True",
        "def judge(input, expected, output): return True",
        "def check(",
    ],
)
def test_a_checker_that_fails_by_itself_is_no_verdict(program: str):
    task = checked(program, {"input": "", "output": "1"})
    with pytest.raises(VerifierError, match="the checker fails by itself"):
        verdict_on(task, "print(1)")


@pytest.mark.parametrize("word", [b"[" * 100_000, b"tru", b"{", b"\xff"], ids=range(4))
def test_a_word_of_a_checker_that_is_no_json_is_no_verdict(word: bytes):
    forging = (
        "import os\ndef check(input, expected, output):\n"
        f"    os.write(3, {word!r})\n    os._exit(0)"
    )
    task = checked(forging, {"input": "", "output": "1"})
    with pytest.raises(VerifierError, match="the checker writes what is no JSON"):
        verdict_on(task, "print(1)")


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        ({"mode": "checker"}, "'program' must be Python that defines check"),
        ({"mode": "checker", "program": 5}, "'program' must be Python that defines"),
        ({"mode": "checker", "program": " "}, "'program' must be Python that defines"),
        ({"mode": "checker", "program": "\0"}, "'compare' holds a null character"),
        (
            {"program": "x"},
            "'program' says nothing in mode 'tokens_by_line'. Use the mode 'checker'",
        ),
    ],
    ids=range(5),
)
def test_what_a_checker_needs(compare: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        CodeTests(hidden=({"input": "", "output": ""},), compare=compare)


def test_a_task_of_a_file_may_have_a_checker():
    row = {"hidden": [{"input": "5", "output": "2 3"}]}
    row["compare"] = {"mode": "checker", "program": SUM, "rtol": None}
    tests: Any = json.loads(json.dumps(row))
    task = Task(id="t", prompt="?", answer="", kind="code", tests=tests)
    assert verdict_on(task, "print(1, 4)").status == "correct"
