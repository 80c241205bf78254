"""A run on a file of one's own: what is held out, and what may not change."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aipo_env import CheckpointError, DataError
from aipo_env.cli import main
from aipo_learner import TrainConfig, train
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.evaluation import EvaluationSchedule


def write(path: Path, numbers: Iterable[int]) -> Path:
    rows = [{"question": f"{n} + 1?", "result": n + 1} for n in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(out: Path, environment: Any, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "out": out,
        "environment": environment,
        "num_steps": 1,
        "groups_per_step": 4,
        "group_size": 2,
        "num_threads": 1,
        **changes,
    }
    return TrainConfig(**settings)


def test_the_data_stand_in_the_settings_and_may_not_change(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", range(20))
    spec = f"file:{path},prompt=question,answer=result"
    out = tmp_path / "run"
    train(config(out, spec), Console(quiet=True))
    data = json.loads((out / "config.json").read_text())["data"]
    assert {split: row["tasks"] for split, row in data.items()} == {
        "train": 18,
        "test": 2,
    }
    assert all(len(row["sha256"]) == 64 for row in data.values())
    write(path, range(21))
    with pytest.raises(
        CheckpointError, match=r"tasks have changed .*train had 18 tasks and has 18"
    ):
        train(config(out, spec, num_steps=2), Console(quiet=True))
    write(path, range(20))
    train(config(out, spec, num_steps=2), Console(quiet=True))
    assert len(read_metrics(out / "metrics.jsonl")) == 2


def test_tasks_that_are_trained_on_are_no_evaluation(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", range(20))
    spec = f"file:{path},prompt=question,answer=result"
    schedule = EvaluationSchedule(every=1, environment=f"{spec},test=1")
    settings = config(tmp_path / "run", spec, evaluation=schedule)
    with pytest.raises(DataError, match="18 of the 20 tasks of .* are trained on"):
        train(settings, Console(quiet=True))


def test_metrics_tell_the_sources_apart(tmp_path: Path):
    first = write(tmp_path / "first.jsonl", range(20))
    second = write(tmp_path / "second.jsonl", range(100, 120))
    columns = "prompt=question,answer=result"
    spec = f"3*file:{first},{columns} + 1*file:{second},{columns}"
    out = tmp_path / "run"
    train(config(out, spec, groups_per_step=8), Console(quiet=True))
    [row] = read_metrics(out / "metrics.jsonl")
    shares = {name: value for name, value in row.items() if name.endswith("/share")}
    assert set(shares) == {"source/first.jsonl/share", "source/second.jsonl/share"}
    assert sum(shares.values()) == 1.0
    assert "source/first.jsonl/success/unaided" in row


def test_the_last_line_says_how_to_measure_what_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = write(tmp_path / "mine.jsonl", range(20))
    out = tmp_path / "run"
    words = ["train", "--policy", "tiny", "--out", str(out), "--num-steps", "1"]
    words += ["--environment", f"{path},prompt=question,answer=result"]
    words += ["--groups-per-step", "2", "--group-size", "2", "--num-threads", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert "2 tasks are held out and were not measured: aipo eval --policy" in said
    assert main([*words, "--num-steps", "2", "--evaluation.every", "1"]) == 0
    assert "were not measured" not in capsys.readouterr().out


def test_a_run_is_not_measured_on_what_it_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = write(tmp_path / "mine.jsonl", range(20))
    spec = f"file:{path},prompt=question,answer=result"
    out = tmp_path / "run"
    train(config(out, spec), Console(quiet=True))
    words = ["eval", "--policy", str(out), "--samples", "1", "--num-tasks", "2"]
    assert main([*words, "--tasks", f"{spec},test=1"]) == 2
    assert "18 of the 20 tasks of" in capsys.readouterr().err
    assert main([*words, "--tasks", spec]) == 0
    said = capsys.readouterr().out
    assert "2 tasks that are held out; the 18 to train on are not measured" in said


def run_on(tmp_path: Path, spec: Any, **changes: Any) -> Path:
    out = tmp_path / "run"
    train(config(out, spec, groups_per_step=2, **changes), Console(quiet=True))
    return out


def measure(out: Path, *words: str) -> int:
    always = ["eval", "--policy", str(out), "--samples", "1", "--num-tasks", "2"]
    return main([*always, *words])


COLUMNS = "prompt=question,answer=result"


@pytest.mark.parametrize("place", ["", "checkpoints/step-000001/policy"])
def test_a_mixture_is_followed_and_a_checkpoint_is_of_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture, place: str
):
    first = write(tmp_path / "first.jsonl", range(20))
    second = write(tmp_path / "second.jsonl", range(100, 120))
    out = run_on(tmp_path, f"file:{first},{COLUMNS} + file:{second},{COLUMNS}")
    for path in (first, second):
        assert measure(out / place, "--tasks", f"file:{path},{COLUMNS},test=1") == 2
        assert "18 of the 20 tasks of" in capsys.readouterr().err
        spec = f"file:{path},{COLUMNS},test=1"
        assert measure(out / place, "--environment", spec) == 2
        assert "18 of the 20 tasks of" in capsys.readouterr().err
    third = write(tmp_path / "third.jsonl", range(200, 210))
    assert measure(out / place, "--tasks", f"file:{third},{COLUMNS},test=1") == 0


def test_what_the_training_left_out_may_be_measured(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", range(20))
    benchmark = write(tmp_path / "benchmark.jsonl", range(10, 16))
    held_out = f"file:{benchmark},{COLUMNS},test=1"
    out = run_on(tmp_path, f"file:{path},{COLUMNS}", held_out=(held_out,))
    assert measure(out, "--tasks", held_out) == 0


def test_a_file_that_has_grown_since_is_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = write(tmp_path / "mine.jsonl", range(20))
    out = run_on(tmp_path, f"file:{path},{COLUMNS}")
    assert measure(out) == 0
    write(path, range(21))
    assert measure(out) == 2
    assert "the file has changed since" in capsys.readouterr().err.replace("\n", " ")
    # Of another file it says nothing.
    other = write(tmp_path / "other.jsonl", range(200, 210))
    assert measure(out, "--tasks", f"file:{other},{COLUMNS},test=1") == 0
