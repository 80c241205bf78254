"""The runner of arms: resumes, goes on where one fails, and loses nothing."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import runner
from experiments.arms import START, Arm, Measure, Table
from experiments.places import facts

TABLE = Table(
    name="trial",
    question="Which?",
    worlds={"facts": facts()},
    methods=("aipo", "masked"),
    against="aipo",
    seeds=(1, 2),
    measure=Measure(tasks=2, samples=4),
)


def row(arm: Arm) -> dict[str, Any]:
    world, method, seed = arm.key
    counts = {"num_samples": 4, "num_correct": [1, 3]}
    return {
        "table": "trial",
        "world": world,
        "method": method,
        "seed": seed,
        "config_hash": arm.config_hash(),
        "versions": {},
        "machine": "x",
        "seconds": 1.0,
        "rollouts": 8,
        "agent_tokens": 3,
        "alone": counts,
        "aided": counts,
    }


class Arms:
    """Stands for the processes of arms: writes rows, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failing: str) -> None:
        self.made: list[str] = []
        self._failing = failing
        monkeypatch.setattr(runner.Runner, "_make", self._make)

    def _make(self, arm: Any, out: Path) -> str:
        self.made.append(f"{arm.method}-{arm.seed}")
        if arm.method in self._failing:
            return f"{arm}: ended with status 1 (no memory)"
        (out / "row.json").write_text(json.dumps(row(arm)), encoding="utf-8")
        return ""


def missing(tmp_path: Path) -> list[str]:
    arms = runner.missing_arms(TABLE, None, tmp_path / "results")
    return [f"{arm.method}-{arm.seed}" for arm in arms]


def run(tmp_path: Path) -> list[str]:
    arms = runner.missing_arms(TABLE, None, tmp_path / "results")
    one_by_one = runner.Runner(1, tmp_path / "results", tmp_path / "runs")
    return one_by_one.run(arms)


def test_what_has_a_row_is_not_run_again(tmp_path: Path, monkeypatch):
    arms = Arms(monkeypatch)
    assert run(tmp_path) == []
    assert sorted(arms.made) == sorted(
        f"{method}-{seed}" for seed in (1, 2) for method in (START, "aipo", "masked")
    )
    assert missing(tmp_path) == []
    assert run(tmp_path) == []
    assert len(arms.made) == 6


def test_an_arm_that_fails_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch):
    Arms(monkeypatch, "masked")
    faults = run(tmp_path)
    assert len(faults) == 2
    assert faults[0].startswith("trial: masked in facts, seed 1: ended with status 1")
    assert missing(tmp_path) == ["masked-1", "masked-2"]


def test_a_row_that_could_not_be_kept_is_kept_the_next_time(
    tmp_path: Path, monkeypatch
):
    arms = Arms(monkeypatch)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "append_row", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path)
    made = len(arms.made)
    assert made > 0
    monkeypatch.undo()
    arms = Arms(monkeypatch)
    assert run(tmp_path) == []
    # Those that were finished were not made again.
    assert len(arms.made) == 6 - made
    assert missing(tmp_path) == []


def test_a_process_that_dies_is_named_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    arm = TABLE.arm("facts", "aipo", 1)
    one = runner.Runner(1, tmp_path / "results", tmp_path / "runs")
    [fault] = one.run([arm])
    assert fault.startswith("trial: aipo in facts, seed 1: ended with status 1 (). Its")


@pytest.mark.slow
def test_an_arm_is_trained_measured_and_written(tmp_path: Path):
    import subprocess

    words = ["main", "facts", START, "101"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.arm", *words, "--out", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "row.json").read_text(encoding="utf-8"))
    assert values["method"] == START
    assert values["drift"]["kl_start"] == 0.0
    assert sum(values["aided"]["num_correct"]) >= 0.9 * 4 * 48
