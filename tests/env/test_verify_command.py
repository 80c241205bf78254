"""`aipo verify`: stored answers, one verdict object per line."""

import base64
import json
import pickle
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest

from aipo_env import (
    ScriptedPolicy,
    build_scenario,
    cli,
    grading,
    run_sync,
    write_episodes,
)
from aipo_env.tasks.rows import Unusable

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the process sandbox needs Linux"
)

SUM = {
    "kind": "stdin",
    "tests": [
        {"input": "1 2\n", "output": "3\n"},
        {"input": "10 -4\n", "output": "6\n"},
    ],
    "compare": {"mode": "tokens_by_line"},
    "time_limit_s": 30.0,
    "memory_mb": 256,
    "difficulty": "easy",
}
TWICE = {
    "kind": "function",
    "entry": "Solution.twice",
    "tests": [{"args": [0.1], "expected": 0.2}, {"args": [[1]], "expected": [1, 1]}],
    "compare": {"mode": "json_float", "rtol": 1e-9, "atol": 0.0},
}


def graded(folder: Path, kind: str, *lines: Any) -> list[dict[str, Any]]:
    path, out = folder / "lines.jsonl", folder / "verdicts.jsonl"
    path.write_text(
        "".join(
            (line if isinstance(line, str) else json.dumps(line)) + "\n"
            for line in lines
        )
    )
    assert cli.main(["verify", "--kind", kind, str(path), "--out", str(out)]) == 0
    verdicts = [json.loads(line) for line in out.read_text().splitlines()]
    for verdict in verdicts:
        assert {"correct", "reward", "status", "reason"} <= verdict.keys()
    return verdicts


def outcomes(verdicts: list[dict[str, Any]]) -> list[tuple[Any, Any, str]]:
    return [
        (verdict["correct"], verdict["reward"], verdict["status"])
        for verdict in verdicts
    ]


RIGHT, WRONG, ERROR = (
    (True, 1.0, "correct"),
    (False, 0.0, "wrong"),
    (None, None, "error"),
)


def test_math(tmp_path: Path):
    verdicts = graded(
        tmp_path,
        "math",
        {"gold": "1/2", "pred": "0.5", "form": "answer", "note": "ignored"},
        {"gold": "7", "pred": "7", "form": "response"},
        {"gold": "7", "pred": "so \\boxed{7}", "form": "response"},
        {"gold": "7", "pred": "so \\boxed{8}"},
        {"gold": "\\sqrt{8}", "pred": "2\\sqrt{2}", "form": "answer"},
        {"gold": "7", "pred": "", "form": "answer"},
    )
    assert outcomes(verdicts) == [
        RIGHT,
        (False, 0.0, "no_answer"),
        RIGHT,
        WRONG,
        RIGHT,
        (False, 0.0, "no_answer"),
    ]


def test_choice(tmp_path: Path):
    verdicts = graded(
        tmp_path,
        "choice",
        {"gold": "B", "n_options": 4, "response": "Answer: B"},
        {"gold": "A", "options": ["left", "right"], "response": "\\boxed{right}"},
        {"gold": "A", "options": ["left", "right"], "response": "\\boxed{left}"},
        {"gold": "A", "n_options": 4, "response": "A or B"},
    )
    assert outcomes(verdicts) == [RIGHT, WRONG, RIGHT, (False, 0.0, "no_answer")]


@linux
def test_code(tmp_path: Path):
    verdicts = graded(
        tmp_path,
        "code",
        {
            "task": SUM,
            "code": (
                "import sys\nprint(sum(map(int, input().split())))\nprint('log',"
                " file=sys.stderr)"
            ),
        },
        {"task": SUM, "code": "print(3)"},
        {
            "task": TWICE,
            "code": (
                "class Solution:\n    def twice(self, x):\n        print('x' * 5000)\n "
                "       return x + x"
            ),
        },
        {"task": SUM, "code": "x = ("},
        {"task": SUM, "code": "1 / 0"},
        {"task": {**SUM, "time_limit_s": 0.3}, "code": "while True: pass"},
        {"task": SUM, "code": "while True: print(1)"},
        {"task": SUM, "code": "x = [0] * 10 ** 10"},
        {"task": SUM, "code": ""},
    )
    statuses = [
        "correct",
        "wrong",
        "correct",
        "compile_error",
        "runtime_error",
        "timeout",
        "output_limit",
        "memory",
        "no_answer",
    ]
    assert [verdict["status"] for verdict in verdicts] == statuses
    assert [verdict["reward"] for verdict in verdicts] == [1.0, 0.0, 1.0, *[0.0] * 6]
    first, second, third = (verdict["tests"] for verdict in verdicts[:3])
    assert [(t["status"], t["stdout"], t["stderr"]) for t in first] == [
        ("correct", "3\n", "log\n"),
        ("correct", "6\n", "log\n"),
    ]
    assert [(test["status"], test["reason"]) for test in second] == [
        ("correct", ""),
        ("wrong", "another result than expected"),
    ]
    assert verdicts[1]["stage"] == "test 2 of 2"
    assert [(test["stdout"], len(test["stderr"])) for test in third] == [
        ('{"float": "0.2"}', 2000),
        ('[{"int": "0x1"}, {"int": "0x1"}]', 2000),
    ]
    assert verdicts[-1]["tests"] == []


def test_a_bad_line_is_named_and_the_rest_go_on(tmp_path: Path):
    good = {"gold": "7", "pred": "7", "form": "answer"}
    lines = [
        good,
        "nonsense",
        good,
        "[1]",
        '{"gold": "7"}',
        {**good, "form": "x"},
        {**good, "pred": 7},
        "NaN",
        "[" * 10**5,
        good,
    ]
    verdicts = graded(tmp_path, "math", *lines)
    assert outcomes(verdicts) == [RIGHT, ERROR, RIGHT, *[ERROR] * 6, RIGHT]
    assert [verdict.get("line") for verdict in verdicts] == [
        None,
        2,
        None,
        4,
        5,
        6,
        7,
        8,
        9,
        None,
    ]
    assert verdicts[3]["reason"] == "line 4: [1] is no JSON object"
    assert verdicts[4]["reason"] == "line 5: field 'pred' is missing"
    assert (
        verdicts[5]["reason"] == "line 6: field 'form' is 'x'; use answer or response"
    )
    assert verdicts[6]["reason"] == "line 7: field 'pred' must be text, got 7"


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        (
            "choice",
            {"gold": "Z", "n_options": 2, "response": "A"},
            "'Z' is no letter of its 2 choices",
        ),
        ("choice", {"gold": "A", "response": "A"}, "field 'n_options' is missing"),
        *[
            (
                "choice",
                {"gold": "A", "n_options": number, "response": "A"},
                "field 'n_options' must be a whole number from 1 to 26, got ",
            )
            for number in ("2", True, -1, 0, 27, 10**30, 4.0, None, [4])
        ],
        *[
            (
                "choice",
                {"gold": "A", "options": options, "response": "A"},
                "field 'options' must be a list of texts, got ",
            )
            for options in ("AB", {"A": 1, "B": 2}, 5)
        ],
        (
            "choice",
            {"gold": "A", "options": None, "response": "A"},
            "field 'n_options' is missing",
        ),
        (
            "choice",
            {"gold": "A", "options": ["x", "\ud800"], "response": "A"},
            "field 'choices' holds half a surrogate pair",
        ),
        (
            "choice",
            {"gold": "A", "options": ["x"] * 27, "response": "A"},
            "27 options, of which 26 get letters",
        ),
        *[
            (
                "math",
                {"gold": gold, "pred": pred, "form": "answer"},
                f"field 'gold' is {gold!r}, which is empty",
            )
            for gold in ("", " ", "\\boxed{}", "$$", "\u200b", "\\text{ }")
            for pred in ("7", "", gold)
        ],
        *[
            (
                "math",
                {"gold": "$$", "pred": pred},
                "field 'gold' is '$$', which is empty",
            )
            for pred in ("so \\boxed{7}", "no answer")
        ],
        ("code", {"task": [1], "code": "1"}, "field 'task' must be an object"),
        (
            "code",
            {"task": {**SUM, "time_limit_s": 5e-324}, "code": "1"},
            "field 'time_limit_s' must be a number of seconds from 0.01 to 300",
        ),
        (
            "code",
            {
                "task": {**TWICE, "compare": {"mode": "json_float", "rtol": True}},
                "code": "1",
            },
            "field 'compare': 'rtol' must be a number from 0 to less than 1, got True",
        ),
        (
            "code",
            {"task": {**SUM, "memory_mb": "9" * 5_000_000}, "code": "1"},
            "field 'memory_mb' must be a whole number of MiB from 1 to 16384, got '999",
        ),
        (
            "code",
            {"task": {"kind": "stdin", "tests": []}, "code": "1"},
            "'hidden' holds no test",
        ),
        (
            "code",
            {"task": {"kind": "x", "tests": [{}]}, "code": "1"},
            "field 'kind' is 'x'",
        ),
        ("code", {"code": "1"}, "field 'task' is missing"),
        ("code", {"task": SUM}, "field 'code' is missing"),
        (
            "code",
            {"task": {**SUM, "compare": {"mode": "eval"}}, "code": "1"},
            "field 'compare': mode is 'eval'. Valid: checker, float_tokens_by_line",
        ),
    ],
)
def test_what_a_line_lacks(kind: str, row: dict[str, Any], reason: str, tmp_path: Path):
    (verdict,) = graded(tmp_path, kind, row)
    assert (verdict["status"], verdict["reward"]) == ("error", None)
    assert reason in verdict["reason"]
    assert len(verdict["reason"]) <= 1100


def test_stored_episodes_are_graded_again(tmp_path: Path):
    path, out = tmp_path / "episodes.jsonl", tmp_path / "verdicts.jsonl"
    scenario = build_scenario("toy", agents="none")
    tasks = [scenario.source.task("train", index) for index in range(2)]
    texts = [f"\\boxed{{{tasks[0].answer}}}", "\\boxed{-99999}"]
    episodes = [
        ScriptedPolicy([text]).run(scenario.session(task, aided=False, key=(0,)))
        for task, text in zip(tasks, texts, strict=True)
    ]
    write_episodes(path, episodes)
    assert cli.main(["verify", "--kind", "math", str(path), "--out", str(out)]) == 0
    assert [json.loads(line)["status"] for line in out.read_text().splitlines()] == [
        "correct",
        "wrong",
    ]


def test_unusable_files_and_arguments(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "lines.jsonl"
    assert cli.main(["verify", "--kind", "math", str(path)]) == 2
    assert "No such file" in capsys.readouterr().err
    path.write_text('{"gold": "7", "pred": "7", "form": "answer"}\n')
    assert cli.main(["verify", "--kind", "math", str(path), "--out", str(path)]) == 2
    assert "would overwrite" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        cli.main(["verify", "--kind", "maths", str(path)])
    assert exit_.value.code == 2
    capsys.readouterr()
    assert cli.main(["verify", "--kind", "math", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] is True


# The last line


def summary(folder: Path, capsys: pytest.CaptureFixture, *lines: Any) -> str:
    capsys.readouterr()
    graded(folder, "math", *lines)
    return capsys.readouterr().out.splitlines()[-1]


def test_the_last_line_counts(tmp_path: Path, capsys: pytest.CaptureFixture):
    right = {"gold": "7", "pred": "7", "form": "answer"}
    wrong = {**right, "pred": "8"}
    none = {**right, "pred": ""}
    lines = [right, right, wrong, none, "nonsense"]
    assert summary(tmp_path, capsys, *lines) == (
        "lines 5: right 2, wrong 1, no answer 1, errors 1"
    )
    labelled = [
        {**right, "expected": True},
        {**right, "expected": "wrong"},
        {**right, "expected": False},
        {**wrong, "expected": "correct"},
        {**none, "expected": "no_answer"},
        {**none, "expected": True},
        {"gold": "7", "expected": True},
        wrong,
    ]
    assert summary(tmp_path, capsys, *labelled) == (
        "lines 8: right 3, wrong 2, no answer 2, errors 1; with 'expected' 6: false"
        " positives 2, false negatives 2"
    )


def test_an_error_is_labelled_where_it_is_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    bad = {"gold": "", "pred": "7", "form": "answer"}
    right = {"gold": "7", "pred": "7", "form": "answer"}
    lines = [
        {**bad, "expected": "error"},
        {**bad, "expected": "wrong"},
        {**bad, "expected": True},
        {**right, "expected": "error"},
        {**right, "expected": "no_answer"},
        {**right, "pred": "8", "expected": "no_answer"},
    ]
    assert summary(tmp_path, capsys, *lines) == (
        "lines 6: right 2, wrong 1, no answer 0, errors 3; with 'expected' 4: false"
        " positives 2, false negatives 0"
    )


def test_a_label_that_is_none_is_an_error_of_its_line(tmp_path: Path):
    lines = [
        {"gold": "7", "pred": "7", "form": "answer", "expected": label}
        for label in ("corect", 1, [], "7")
    ]
    verdicts = graded(tmp_path, "math", *lines)
    assert outcomes(verdicts) == [ERROR] * 4
    assert (
        "field 'expected' is 'corect'; use true, false, or the status"
        in (verdicts[0]["reason"])
    )


def test_the_summary_stays_out_of_verdicts_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"gold": "7", "pred": "7", "form": "answer"}\n')
    assert cli.main(["verify", "--kind", "math", str(path)]) == 0
    told = capsys.readouterr()
    assert [json.loads(line)["correct"] for line in told.out.splitlines()] == [True]
    assert told.err == "lines 1: right 1, wrong 0, no answer 0, errors 0\n"


@pytest.mark.parametrize(
    ("kind", "line", "extracted", "status"),
    [
        ("math", {"gold": "7", "pred": "So \\boxed{7}."}, "7", "correct"),
        ("math", {"gold": "7", "pred": "So \\boxed{8}."}, "8", "wrong"),
        (
            "choice",
            {"gold": "A", "n_options": 4, "response": "Answer: B"},
            "B",
            "wrong",
        ),
        ("code", {"task": SUM, "code": "print(3)"}, "print(3)", "wrong"),
    ],
)
def test_what_was_taken_for_the_answer_is_kept(
    kind: str, line: dict[str, Any], extracted: str, status: str, tmp_path: Path
):
    if kind == "code" and sys.platform != "linux":
        pytest.skip("the process sandbox needs Linux")
    (verdict,) = graded(tmp_path, kind, line)
    assert (verdict["extracted"], verdict["status"]) == (extracted, status)
    assert {"reason", "stage"} <= verdict.keys()


# Rows of datasets


def packed(tests: list[dict[str, str]]) -> str:
    data = zlib.compress(pickle.dumps(json.dumps(tests)))
    return base64.b64encode(data).decode()


LIVECODEBENCH = {
    "question_content": "Print the square.",
    "starter_code": "",
    "public_test_cases": json.dumps(
        [{"input": "3\n", "output": "9\n", "testtype": "stdin"}]
    ),
    "private_test_cases": packed(
        [{"input": "4\n", "output": "16.0\n", "testtype": "stdin"}]
    ),
    "metadata": "{}",
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def half(x):\n    """Half of x.\n    >>> half(3)\n    1.5\n    """\n',
    "canonical_solution": "    return x / 2\n",
    "test": (
        "METADATA = {}\n\ndef check(candidate):\n    assert candidate(3) == 1.5\n"
        "    for n in range(3):\n        assert abs(candidate(n) - n / 2) < 1e-9\n"
    ),
    "entry_point": "half",
}
MBPP = {
    "task_id": 2,
    "text": "Write a function to find the shared elements.",
    "code": "def shared(a, b):\n    return tuple(set(a) & set(b))",
    "test_list": [
        "assert set(shared((3, 4), (4, 5))) == set((4,))",
        "assert isinstance(shared((), ()), tuple)",
    ],
    "test_setup_code": "",
    "challenge_test_list": [],
}


@linux
def test_rows_of_datasets_are_graded_as_they_stand(tmp_path: Path):
    verdicts = graded(
        tmp_path,
        "code",
        {"problem": LIVECODEBENCH, "code": "print(int(input()) ** 2)"},
        {"problem": LIVECODEBENCH, "code": "print(9)"},
        {"problem": HUMANEVAL, "code": HUMANEVAL["canonical_solution"]},
        {"problem": HUMANEVAL, "code": "def half(x):\n    return x / 2"},
        {"problem": HUMANEVAL, "code": "    return x // 2\n"},
        {"problem": MBPP, "code": MBPP["code"]},
        {
            "problem": MBPP,
            "code": "def shared(a, b):\n    return list(set(a) & set(b))",
        },
    )
    assert [(one["status"], one["stage"]) for one in verdicts] == [
        ("correct", ""),
        ("wrong", "test 2 of 2"),
        ("correct", ""),
        ("correct", ""),
        ("wrong", "test 1 of 1"),
        ("correct", ""),
        ("wrong", "test 2 of 2"),
    ]


def test_a_small_row_of_large_tests_is_refused_and_holds_up_nobody(tmp_path: Path):
    tests = json.dumps([{"input": "1" * 65 * 2**20, "output": "2"}])
    bomb = base64.b64encode(zlib.compress(pickle.dumps(tests))).decode()
    row = {"problem": {**LIVECODEBENCH, "private_test_cases": bomb}, "code": "1"}
    assert len(json.dumps(row)) < 200_000
    [verdict] = graded(tmp_path, "code", row)
    assert (verdict["status"], verdict["correct"]) == ("error", None)
    assert "cut short or larger than 67108864 bytes" in verdict["reason"]


def test_rows_are_unpacked_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch):
    names = []

    def read(row: dict[str, Any]) -> dict[str, Any]:
        names.append(threading.current_thread().name)
        raise Unusable("it is none")

    monkeypatch.setattr(grading, "read_code_problem", read)
    line = json.dumps({"problem": {}, "code": "1"}).encode()

    async def reasons() -> list[str]:
        verdicts = grading.Grader("code").grade([line, line])
        return [verdict["reason"] async for verdict in verdicts]

    assert run_sync(reasons()) == [
        "line 1: field 'problem' is no problem: it is none",
        "line 2: field 'problem' is no problem: it is none",
    ]
    assert names == ["aipo-read-task"] * 2


def test_a_row_that_is_no_problem_is_named(tmp_path: Path):
    attack = base64.b64encode(zlib.compress(b"cos\nsystem\n(S'true'\ntR.")).decode()
    verdicts = graded(
        tmp_path,
        "code",
        {"problem": {**LIVECODEBENCH, "private_test_cases": attack}, "code": "1"},
        {"problem": {"question": "?"}, "code": "1"},
        {"problem": "?", "code": "1"},
        {"problem": {**HUMANEVAL, "test": 5}, "code": "1"},
        {"problem": {**MBPP, "test_list": []}, "code": "1"},
        {"problem": {**MBPP, "code": "def g(): pass"}, "code": "1"},
        {"problem": {**HUMANEVAL, "entry_point": "a b"}, "code": "1"},
    )
    assert outcomes(verdicts) == [ERROR] * 7
    for verdict, reason in zip(
        verdicts,
        [
            "its private tests are a pickle with GLOBAL",
            "it has none of the columns public_test_cases, entry_point, test_list",
            "field 'problem' must be a row of a dataset, got '?'",
            "its test is no text",
            "its test_list is empty",
            "its tests call no function that a program defines",
            "'entry' must be",
        ],
        strict=True,
    ):
        assert reason in verdict["reason"]
