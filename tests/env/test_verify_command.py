"""`aipo verify`: stored answers, one verdict object per line."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from aipo_env import ScriptedPolicy, build_scenario, cli, write_episodes

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
            "field 'compare': mode is 'eval'. Valid: float_tokens_by_line",
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
