"""`aipo runs`: what folders say of the runs in them."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aipo_env import DataError
from aipo_learner.cli import runs
from aipo_learner.run.listing import list_runs
from aipo_learner.run.places import is_locked, locked

NOW_S = 1_800_000_000.0


def run(
    folder: Path,
    num_steps: int = 4,
    saved: int = 0,
    rows: list[dict] | None = None,
    age_s: float = 0,
) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"num_steps": num_steps}))
    if saved:
        checkpoint = folder / "checkpoints" / f"step-{saved:06d}"
        (checkpoint / "policy").mkdir(parents=True)
        (checkpoint / "state.pt").write_bytes(b"x" * 1_500_000)
    lines = [json.dumps(row) + "\n" for row in rows or []]
    metrics = folder / "metrics.jsonl"
    metrics.write_text("".join(lines))
    os.utime(metrics, (NOW_S - age_s, NOW_S - age_s))
    return folder


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW_S)


def test_runs_are_listed_with_their_states_the_last_one_last(tmp_path: Path):
    rows = [
        {"step": 1, "reward": 0.25},
        {"step": 2, "reward": 0.5, "eval/pass_at_1": 0.125},
        {"step": 3, "eval/pass_at_1": 0.1},
    ]
    run(tmp_path / "new", rows=rows[:1], age_s=5)
    run(tmp_path / "done", saved=4, rows=rows, age_s=90_000 * 3)
    run(tmp_path / "sweep" / "stopped", saved=2, rows=rows, age_s=7200)
    failed = run(tmp_path / "failed", saved=2, rows=rows, age_s=120) / "failed"
    failed.mkdir()
    (failed / "step-000004.pt").touch()
    # A model's folder, whose name is that of settings too.
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    lines = [line.replace(str(tmp_path), "R") for line in list_runs(tmp_path)]
    assert [" ".join(line.split()) for line in lines] == [
        "run state step best reward size age",
        "R/done done 4/4 0.125 at 2 0.50 1.5 MB 3 d",
        "R/sweep/stopped stopped 3/4 0.125 at 2 0.50 1.5 MB 2 h",
        "R/failed failed 3/4 0.125 at 2 0.50 1.5 MB 2 min",
        "R/new stopped 1/4 – 0.25 44 bytes 5 s",
    ]
    # Columns stand below their headers.
    place = list_runs(tmp_path)[0].index("size")
    assert {line[place - 1] for line in list_runs(tmp_path)} == {" "}


def test_a_run_in_whose_folder_a_process_trains_is_running(tmp_path: Path):
    folder = run(tmp_path / "mine", saved=4)
    with locked(folder):
        assert " running " in list_runs(tmp_path)[1]
    assert " done " in list_runs(tmp_path)[1]


def test_who_looks_at_a_lock_keeps_nobody_out(tmp_path: Path):
    folder = run(tmp_path / "mine")
    assert not is_locked(folder)
    with (folder / "lock").open("a") as look:
        # Somebody looks for a moment just when a run begins.
        fcntl.flock(look.fileno(), fcntl.LOCK_SH)
        threading.Timer(0.05, look.close).start()
        with locked(folder):
            assert is_locked(folder)
    assert not is_locked(folder)


def test_folders_of_others_are_listed_and_never_waited_for(tmp_path: Path):
    (run(tmp_path / "a") / "config.json").write_text("[")
    (run(tmp_path / "b") / "metrics.jsonl").write_text('{"step": -1}\n')
    piped = run(tmp_path / "c")
    (piped / "metrics.jsonl").unlink()
    os.mkfifo(piped / "metrics.jsonl")
    os.mkfifo(piped / "lock")
    strange = run(tmp_path / "d\x1b[31m")
    (strange / "config.json").write_text('{"num_steps": true}')
    (tmp_path / "link").symlink_to(tmp_path)
    states = [line.split()[1] for line in sorted(list_runs(tmp_path)[1:])]
    assert states == ["unreadable", "unreadable", "unreadable", "stopped"]


def test_where_there_is_no_run_it_says_so(tmp_path: Path):
    with pytest.raises(DataError, match="there is no folder .*/nowhere"):
        list_runs(tmp_path / "nowhere")
    with pytest.raises(DataError, match="there is no run in "):
        list_runs(tmp_path)


def test_the_command_prints_whole_lines_that_read_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "40")
    run(tmp_path / ("long" * 20))
    run(tmp_path / "d\x1b[31m[bold]")
    runs([str(tmp_path)])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("run ")
    assert len(lines) == 2
    assert all(line.endswith(" s") for line in lines)
    assert sum("[31m[bold]" in line and "\x1b" not in line for line in lines) == 1


def test_it_needs_no_torch(tmp_path: Path):
    run(tmp_path / "mine")
    script = (
        "import sys; from aipo_learner.cli import runs\n"
        f"runs([{str(tmp_path)!r}])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
