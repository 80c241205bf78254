"""Solutions that tasks carry are run, and those that fail are named."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from aipo_env import CodeTests, CodeVerifier, Task, cli, run_sync
from aipo_env.sandboxes.base import Limits, Program, RunResult
from aipo_env.verifiers.solutions import solution_verdicts

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the process sandbox needs Linux"
)


def row(name: str, **tests: Any) -> dict[str, Any]:
    hidden = [{"input": "3\n", "output": "9\n"}]
    fields = {"hidden": hidden, **tests}
    return {"id": name, "prompt": "?", "answer": "", "kind": "code", "tests": fields}


def told(folder: Path, *rows: dict[str, Any]) -> int:
    path = folder / "tasks.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return cli.main(["tasks", f"file:{path}", "--solutions"])


@linux
def test_a_solution_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    rows = [
        row("right", solution="print(int(input()) ** 2)"),
        row("wrong", solution="print(8)"),
        row("slow", solution="import time\ntime.sleep(9)", time_limit_s=0.3),
        row("greedy", solution="print(9)", time_limit_s=299),
        row("none"),
    ]
    assert told(tmp_path, *rows) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[2:] == [
        "wrong: wrong, test 1 of 1: another result than expected",
        "slow: timeout, test 1 of 1: time limit reached",
        "greedy: error, task 'greedy': tests: time_limit_s=299 is more than is granted"
        " here, 60. The verifier's max_time_s grants more.",
    ]
    assert "3 of 4 solutions fail on the tests of their own tasks" in err


@linux
def test_solutions_that_pass_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert told(tmp_path, row("right", solution="print(9)"), row("none")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "solutions that pass: 1"
    assert told(tmp_path, row("none")) == 2
    assert "no code task has a 'solution'" in capsys.readouterr().err


class Recording:
    layer = "none"

    def __init__(self) -> None:
        self.sources: list[str] = []

    async def run(self, program: Program, limits: Limits) -> RunResult:
        self.sources.append(program.source)
        return RunResult("ok", "none", stdout=b"9\n")

    def close(self) -> None:
        pass


def test_a_task_of_two_splits_is_run_once():
    sandbox = Recording()
    fields = row("t", solution="print(9)")["tests"]
    task = Task(id="t", prompt="?", answer="", kind="code", tests=CodeTests(**fields))
    verdicts = run_sync(solution_verdicts(CodeVerifier(sandbox), [task, task]))
    assert [verdict.correct for verdict in verdicts.values()] == [True]
    assert sandbox.sources == ["print(9)"]
