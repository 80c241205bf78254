"""LiveCodeBench: problems, tests in each of their packings, releases and windows;
hostile packings.
"""

import base64
import json
import os
import pickle
import zlib
from pathlib import Path

import pytest

from aipo_env import DataError, build_source
from aipo_env.tasks import livecodebench
from aipo_env.tasks.livecodebench import read_problem
from aipo_env.tasks.rows import Unusable

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


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(livecodebench, "MAX_TEST_BYTES", 10_000)
    with pytest.raises(Unusable, match="cut short or larger than 10000 bytes"):
        read_problem(row(private_test_cases=pack("x" * 1_000_000)))


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
