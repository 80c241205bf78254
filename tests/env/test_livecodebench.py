"""LiveCodeBench: problems, tests in each of their packings, releases and windows;
hostile packings.
"""

import base64
import json
import os
import pickle
import sys
import zlib
from functools import cache
from pathlib import Path

import pytest

from aipo_env import CodeVerifier, DataError, Task, Verdict, build_source, run_sync
from aipo_env.sandboxes.process import ProcessSandbox
from aipo_env.tasks.livecodebench import read_problem
from aipo_env.tasks.rows import Unusable

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the process sandbox needs Linux"
)

STDIN = [{"input": "3\n", "output": "9\n", "testtype": "stdin"}]
MORE = [
    {"input": "4\n", "output": "16\n", "testtype": "stdin"},
    {"input": "½\n", "output": "¼\n", "testtype": "stdin"},
]
CALLS = [{"input": '[1, 2]\n"a"', "output": "true", "testtype": "functional"}]


def pack(value: object, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


def row(**fields: object) -> dict:
    return {
        "question_title": "Squares",
        "question_content": "Print the square.\n",
        "platform": "atcoder",
        "question_id": "abc1_a",
        "contest_id": "abc1",
        "contest_date": "2024-08-03T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(STDIN),
        "private_test_cases": pack(json.dumps(MORE)),
        "metadata": "{}",
        **fields,
    }


def test_a_program():
    fields = read_problem(row())
    assert (
        fields["prompt"]
        == "Print the square.\n\nWrite a Python program that reads standard input and"
        " prints to standard output. Give it whole in one ```python block."
    )
    assert (fields["kind"], fields["answer"]) == ("code", "")
    tests = fields["tests"]
    assert (tests["kind"], tests["entry"], tests["time_limit_s"]) == ("stdin", "", 6.0)
    assert tests["public"] == [{"input": "3\n", "output": "9\n"}]
    assert tests["hidden"] == [
        {"input": "3\n", "output": "9\n"},
        {"input": "4\n", "output": "16\n"},
        {"input": "½\n", "output": "¼\n"},
    ]


@pytest.mark.parametrize("protocol", range(6))
def test_every_packing_of_the_private_tests(protocol: int):
    assert read_problem(
        row(private_test_cases=pack(json.dumps(MORE), protocol))
    ) == read_problem(row())
    assert read_problem(row(private_test_cases=json.dumps(MORE))) == read_problem(row())


def test_a_function():
    starter = (
        "class Solution:\n    def isIn(self, xs: List[int], s: str) -> bool:\n        "
    )
    given = row(
        starter_code=starter,
        public_test_cases=json.dumps(CALLS),
        private_test_cases=pack(json.dumps(CALLS * 2)),
        metadata=json.dumps({"func_name": "isIn"}),
    )
    fields = read_problem(given)
    assert (
        fields["prompt"]
        == "Print the square.\n\nComplete this class.\n```python\nclass Solution:\n   "
        " def isIn(self, xs: List[int], s: str) -> bool:\n```\nGive it whole in one"
        " ```python block."
    )
    tests = fields["tests"]
    assert (tests["kind"], tests["entry"]) == ("function", "Solution.isIn")
    assert tests["public"] == [{"args": [[1, 2], "a"], "expected": True}]
    assert len(tests["hidden"]) == 3


def test_a_program_may_take_for_granted_what_the_benchmark_imports():
    names: dict = {}
    source = (
        "def f(xs: List[int]):\n    return max(accumulate(xs)), gcd(*xs),"
        " heapq.nsmallest(1, xs), abs(-pow(2, 3))"
    )
    exec(read_problem(row())["tests"]["prelude"] + source, names)
    assert names["f"]([4, 6]) == (10, 2, [4], 8)


class Attack:
    """Pickled, it asks for os.system."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    ("private", "fault"),
    [
        (pack(Attack()), "a pickle with STACK_GLOBAL, not of one text"),
        (pack(Attack(), 0), "a pickle with GLOBAL"),
        (pack([json.dumps(MORE)]), "a pickle with EMPTY_LIST"),
        (pack(b"[]", 0), "a pickle with GLOBAL"),
        (pack(12), "a pickle with BININT1"),
        (pack(json.dumps(MORE)[:-1]), "its tests cannot be read .JSONDecodeError"),
        (
            base64.b64encode(zlib.compress(b"r\xff\xff\xff\x7f.")).decode(),
            "its tests cannot be read",
        ),
        (
            base64.b64encode(zlib.compress(b"\x8d" + b"\xff" * 8 + b"x.")).decode(),
            "its tests cannot be read",
        ),
        (
            base64.b64encode(zlib.compress(b"no pickle")).decode(),
            "its private tests are a pickle with|cannot be read",
        ),
        (
            base64.b64encode(zlib.compress(b"x" * 1000)[:-8]).decode(),
            "cut short or larger",
        ),
        (base64.b64encode(b"no zlib").decode(), "no zlib data in base64"),
        ("not base64!", "no zlib data in base64"),
        ("", "its tests cannot be read|cut short"),
        ("[" * 100_000, "its tests cannot be read"),
        ('[{"input": 1, "output": "1"}]', "its tests cannot be read .TypeError"),
        ('[{"input": "1"}]', "its tests cannot be read .KeyError"),
        ("[1]", "its tests cannot be read .TypeError"),
        (None, "its tests cannot be read .AttributeError"),
    ],
    ids=range(18),
)
def test_hostile_and_damaged_private_tests(
    private: object, fault: str, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unusable, match=fault):
        read_problem(row(private_test_cases=private))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"metadata": "[]"}, "AttributeError"),
        (
            {"metadata": '{"func_name": "f;import os"}', "public_test_cases": "[]"},
            "KeyError|JSONDecode|no name",
        ),
        (
            {
                "public_test_cases": '[{"input": "1", "output": "NaN"}]',
                "metadata": '{"func_name": "f"}',
            },
            "ValueError",
        ),
        ({"question_content": None}, "AttributeError"),
    ],
)
def test_other_columns_of_the_wrong_kind(fields: dict, fault: str):
    with pytest.raises(Unusable, match=fault):
        read_problem(row(**fields))


def test_a_bomb_is_not_unpacked():
    bomb = row(private_test_cases=pack("x" * 1_000_000))
    with pytest.raises(Unusable, match="cut short or larger than 10000 bytes"):
        read_problem(bomb, 10_000)


def read(folder: Path, **options: object):
    return build_source(
        {"type": "hf", "name": "livecodebench", "folder": str(folder), **options},
        seed=0,
    )


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """One problem per file of the six releases, a month apart."""
    for number in range(1, 7):
        name = "test.jsonl" if number == 1 else f"test{number}.jsonl"
        fields = {
            "question_content": f"Problem {number}",
            "contest_date": f"2024-0{number}-01T00:00:00",
        }
        (tmp_path / name).write_text(json.dumps(row(**fields)) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"config": "release_v1"}, [1]),
        ({"config": "release_v3"}, [1, 2, 3]),
        ({"config": "v6"}, [6]),
        ({"start": "2024-03-01", "end": "2024-05-01"}, [3, 4, 5]),
        ({"config": "release_v5", "start": "2024-04-30"}, [5]),
        ({"limit": 2}, [1, 2]),
    ],
)
def test_releases_and_windows(releases: Path, options: dict, numbers: list[int]):
    source = read(releases, **options)
    found = [
        source.task("test", index).prompt[8]
        for index in range(source.num_tasks("test"))
    ]
    assert found == [str(number) for number in numbers]
    task = source.task("test", 0)
    assert task.tests.hidden[1] == {"input": "4\n", "output": "16\n"}
    assert task.meta["date"].startswith("2024-0")
    assert task.meta["difficulty"] == "easy"


def test_a_release_with_a_file_missing(releases: Path):
    (releases / "test2.jsonl").unlink()
    with pytest.raises(
        DataError, match="no data files, or not all, of config='release_v6'"
    ):
        read(releases)
    assert read(releases, config="v6").num_tasks("test") == 1


def test_parquet_files_by_config(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("release_v5", "release_v6"):
        (tmp_path / name).mkdir()
        pq.write_table(
            pa.Table.from_pylist([row(question_content=name)]),
            tmp_path / name / "test-00000.parquet",
        )
    assert (
        read(tmp_path, config="release_v6")
        .task("test", 0)
        .prompt.startswith("release_v6")
    )
    assert (
        read(tmp_path, config="release_v5")
        .task("test", 0)
        .prompt.startswith("release_v5")
    )


def test_a_problem_that_cannot_be_read_stops_the_benchmark(tmp_path: Path):
    bad = row(private_test_cases=pack(Attack()))
    (tmp_path / "test6.jsonl").write_text(
        json.dumps(row()) + "\n" + json.dumps(bad) + "\n"
    )
    with pytest.raises(
        DataError,
        match=r"test6\.jsonl, line 2: its private tests are a pickle with STACK_GLOBAL",
    ):
        read(tmp_path, config="v6")


# How programs are judged. Every verdict here is that of the benchmark's own grader, but
# for those below which say so.


@cache
def verifier() -> CodeVerifier:
    return CodeVerifier(ProcessSandbox())


def judged(code: str, given: str, expected: str, name: str = "") -> Verdict:
    """The verdict on a program, or its function `name`, for one test."""
    kind = "functional" if name else "stdin"
    tests = [{"input": given, "output": expected, "testtype": kind}]
    fields = read_problem(
        row(
            public_test_cases=json.dumps(tests),
            private_test_cases="[]",
            metadata=json.dumps({"func_name": name} if name else {}),
        )
    )
    return run_sync(
        verifier().verify(Task(id="t", **fields), f"```python\n{code}\n```")
    )


@linux
@pytest.mark.parametrize(
    ("printed", "expected", "status"),
    [
        ("2.0", "2", "correct"),
        ("2", "2.0", "correct"),
        ("1e-3 1_000", "0.001 1000", "correct"),
        ("+07 -0", "7 0", "correct"),
        ("\\n\\n7\\n\\n", "7", "correct"),
        ("  7 \\r\\n 8\\t", "7\n8", "correct"),
        ("", "", "correct"),
        ("Infinity", "inf", "correct"),
        ("", "1", "wrong"),
        ("0.33333333", "0.333333", "wrong"),
        ("1 2 3", "1\n2\n3", "wrong"),
        ("1\\n\\n2", "1\n2", "wrong"),
        ("a  b", "a b", "wrong"),
        ("x 2.0", "x 2", "wrong"),
        ("YES", "Yes", "wrong"),
        ("nan", "NaN", "wrong"),
        ("nan", "nan", "correct"),
        ("sNaN", "1", "wrong"),
        ("10000000000000000.0", "10000000000000001", "wrong"),
        ("0x10", "16", "wrong"),
        ("1/2", "0.5", "wrong"),
        ("1 2", "1 2 3", "wrong"),
    ],
    ids=range(22),
)
def test_printed_lines_are_the_same_as_texts_or_as_decimals(
    printed: str, expected: str, status: str
):
    assert judged(f"print('{printed}')", "", expected).status == status


@linux
@pytest.mark.parametrize(
    ("result", "expected", "status"),
    [
        ("3", "3.0", "correct"),
        ("3.0", "3", "correct"),
        ("1", "true", "correct"),
        ("True", "1", "correct"),
        ("0.0", "false", "correct"),
        ("3 + 0j", "3", "correct"),
        ("2 ** 70", "1180591620717411303424", "correct"),
        ("(1, 2)", "[1, 2]", "correct"),
        ("Counter('ab')", '{"b": 1, "a": 1}', "correct"),
        ("defaultdict(list, a=[1.0])", '{"a": [1]}', "correct"),
        ("type('L', (list,), {})([1])", "[1]", "correct"),
        ("type('S', (str,), {})('a')", '"a"', "correct"),
        ("__import__('decimal').Decimal('0.5')", "0.5", "correct"),
        ("__import__('fractions').Fraction(6, 2)", "3", "correct"),
        ("__import__('numpy').int64(3)", "3", "correct"),
        ("list(__import__('numpy').array([1, 2]))", "[1, 2]", "correct"),
        ("None", "null", "correct"),
        ("[(1, 2)]", "[[1, 2]]", "wrong"),
        ("((1,), 2)", "[[1], 2]", "wrong"),
        ("{1: 2}", '{"1": 2}', "wrong"),
        ("{'a': (1,)}", '{"a": [1]}', "wrong"),
        ("{1, 2}", "[1, 2]", "wrong"),
        ("range(2)", "[0, 1]", "wrong"),
        ("deque([1])", "[1]", "wrong"),
        ("(x for x in [1])", "[1]", "wrong"),
        ("'3'", "3", "wrong"),
        ("None", "false", "wrong"),
        ("0", "null", "wrong"),
        ("[]", "{}", "wrong"),
        ("0.1 + 0.2", "0.3", "wrong"),
        ("float(2 ** 53)", "9007199254740993", "wrong"),
        ("object()", "1", "wrong"),
    ],
    ids=range(32),
)
def test_results_are_equal_as_python_has_it(result: str, expected: str, status: str):
    code = f"class Solution:\n    def f(self, a):\n        return {result}"
    assert judged(code, "0", expected, "f").status == status


@linux
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def f(a):\n    return a + 1", "correct"),
        ("f = lambda a: a + 1", "correct"),
        ("{}\nif __name__ == '__main__':\n    Solution().f(input())", "correct"),
        ("{}\nif __name__ == '__main__':\n    assert 0", "correct"),
        ("{}\nif __name__ == '__main__':\n    sys.exit(1)", "correct"),
        ("{}\nprint('x' * 2_000_000)", "correct"),
        ("from __future__ import annotations\n{}", "correct"),  # fails there
        ("{}\nassert Solution().f(1) == 3", "runtime_error"),
        ("{}\nsys.exit()", "runtime_error"),
        ("{}\nint(input())", "runtime_error"),
        ("class Solution:\n    pass\ndef f(a):\n    return a + 1", "runtime_error"),
        ("def g(a):\n    return a + 1", "runtime_error"),
        ("def f(a):\n    sys.exit(0)", "runtime_error"),
        ("{}\nreturn", "compile_error"),
    ],
    ids=range(14),
)
def test_how_a_function_is_found(code: str, status: str):
    method = "class Solution:\n    def f(self, a: List[int]):\n        return a + 1"
    assert judged(code.replace("{}", method), "4", "5", "f").status == status


@linux
@pytest.mark.parametrize(
    "code",
    [
        "print(int(input()))\nexit()",
        "print(int(input()))\nsys.exit(1)",
        "n = int(input())\nif n:\n    print(n)\n    return\nprint(0)",
        "n = 0\ndef f():\n    nonlocal n\n    n = int(input())\nf()\nprint(n)",
        "import numpy as np\nprint(np.array([int(input())]).sum())",
        "if __name__ == '__main__':\n    print(input())",
        "print(5)\nsys.stderr.write('x' * 2_000_000)",
    ],
    ids=range(7),
)
def test_what_ends_well_for_the_benchmark(code: str):
    assert judged(code, "5\n", "5\n").status == "correct"


THREAD = """
import threading
def main():
    print(int(input()))
threading.stack_size(1 << 26)
sys.setrecursionlimit(1 << 20)
thread = threading.Thread(target=main)
thread.start()
thread.join()
"""


@linux
def test_a_thread_for_a_larger_stack():
    if ProcessSandbox().layer != "namespaces":
        pytest.skip("threads need namespaces")
    assert judged(THREAD, "5\n", "5").status == "correct"


FUTURE = "from __future__ import annotations\n"


@linux
@pytest.mark.parametrize(
    "code",
    [
        "n = 0\ndef f():\n    global n\n    n += int(input())\nf()\nprint(n)",
        "max = max([int(input()), 1])\nprint(max)",
        "class Node:\n    next: Node\n    value: int\nprint(input())",
        "def f(x: T) -> T:\n    return x\nT = int\nprint(f(input()))",
        "x = input()\nprint([x for _ in 'a'][0])\ndel x",
        "from math import *\nprint(floor(float(input())))",
        "import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\n"
        "print(P(input()).x)",
        "n = input()\nif n:\n    print(n)\n    return\nprint(0)",
    ],
    ids=range(8),
)
def test_a_program_that_imports_from_the_future_is_a_module(code: str):
    assert judged(FUTURE + code, "5\n", "5\n").status == "correct"


@linux
@pytest.mark.parametrize(
    "code",
    [
        "print(sum(int(line) for line in sys.stdin))",
        "n = int(input())\nprint(n + int(sys.stdin.read()))",
        "read = sys.stdin.buffer.readline\nprint(int(read()) + int(read()))",
        "print(sum(map(int, open(0))))",
        "print(int(input()) + int(input()))\nquit()",
        "n = sum(map(int, sys.stdin.read().split()))\nsys.stdout.buffer.write(b'%d'%n)",
        "n = 0\ndef f():\n    global n\n    n += int(input())\nf()\nf()\nprint(n)",
        "sum = sum(map(int, sys.stdin.read().split()))\nprint(sum)",
        "class Solution:\n    n = int(input()) + int(input())\nprint(Solution.n)",
        "import os\nos.write(1, b'3')\nos._exit(0)",
        "print(sum(map(int, open('/dev/stdin').read().split())))",
    ],
    ids=range(11),
)
def test_right_programs_that_the_benchmark_fails_by_accident(code: str):
    assert judged(code, "1\n2\n", "3\n").status == "correct"


@linux
@pytest.mark.parametrize(
    "result",
    [
        "type('E', (), {'__eq__': lambda *_: True})()",
        "type('E', (int,), {'__eq__': lambda *_: True})(4)",
        "type('E', (list,), {'__eq__': lambda *_: True, '__len__': lambda _: 1})()",
        "type('E', (dict,), {'__eq__': lambda *_: True})()",
        "[*(sys._getframe(n).f_locals.get('expected') for n in range(3))]",
        "{'int': '0x5'}",
        "{'other': 'x'}",
    ],
    ids=range(7),
)
def test_a_result_that_claims_to_equal_everything_equals_nothing(result: str):
    code = f"class Solution:\n    def f(self, a):\n        return {result}"
    for expected in ("5", "[5]", '{"a": 5}'):
        assert judged(code, "0", expected, "f").reward == 0.0


FORGED = """
import os
for number in range(3, 64):
    try:
        os.write(number, {!r})
    except OSError:
        pass
os._exit(0)
"""


@linux
@pytest.mark.parametrize(
    "form",
    [
        b'{"ratio": ["0x0", "0x0"]}',
        b'{"ratio": ["0x1' + b"0" * 40_000 + b'", "0x3' + b"0" * 40_000 + b'"]}',
        b'{"dict": [[["a"], 5]]}',
        b'{"dict": 7}',
        b'{"tuple": 7}',
        b'{"complex": ["1"]}',
        b'{"int": []}',
        b"[" * 100_000,
        b"{}",
        b"\xff",
        b"1" * 5000,
    ],
    ids=range(11),
)
def test_a_forged_result_is_a_wrong_one(form: bytes):
    for expected in ("5", "[5]", '{"a": 5}', "null"):
        verdict = judged(FORGED.format(form), "0", expected, "f")
        assert verdict.status in ("wrong", "runtime_error"), verdict


OWN_CASES = Path(__file__).with_name("data") / "code_cases.jsonl"


@linux
@pytest.mark.slow
def test_every_program_of_the_benchmark_of_graders_is_judged_as_labelled():
    wrong = []
    for line in OWN_CASES.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        if "thread" in case["code"] and ProcessSandbox().layer != "namespaces":
            continue
        kind = "functional" if case["name"] else "stdin"
        tests = [
            {"input": given, "output": expected, "testtype": kind}
            for given, expected in case["tests"]
        ]
        given_row = row(
            public_test_cases="[]",
            private_test_cases=json.dumps(tests),
            metadata=json.dumps({"func_name": case["name"]} if case["name"] else {}),
        )
        task = Task(id=case["id"], **read_problem(given_row))
        verdict, _ = run_sync(verifier().verify_program(task, case["code"]))
        if verdict.correct != case["right"]:
            wrong.append((case["id"], verdict.status, verdict.reason))
    assert not wrong
