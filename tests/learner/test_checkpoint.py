"""Runs on disk: resumed runs equal uninterrupted ones bit for bit, and nothing whole is ever lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import aipo_learner.checkpoint as checkpoint_module
from aipo_env import AgentReply, AgentRequest, CheckpointError, Journal, Outcome, data_folder
from aipo_learner.checkpoint import Run
from aipo_learner.config import TrainConfig
from aipo_learner.metrics import read_metrics
from aipo_learner.objective import ObjectiveConfig
from aipo_learner.policy import policy_folder
from aipo_learner.tiny import build_model, build_tokenizer
from aipo_learner.train import train

TIMES = ("seconds", "consult_seconds")


def config(out: Path, **changes) -> TrainConfig:
    defaults = {
        "out": out,
        "num_steps": 4,
        "groups_per_step": 2,
        "group_size": 4,
        "checkpoint_every": 2,
        "episodes_every": 2,
        "num_threads": 1,
        "lr": 1e-3,
        "objective": ObjectiveConfig(base="dr_grpo", agent_rule="floored", negative_weight=0.5),
    }
    return TrainConfig(**{**defaults, **changes})


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(Path(policy_folder(str(out))) / "model.safetensors")


def same_run(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert untimed(one) == untimed(other)


def untimed(out: Path) -> list[dict[str, float]]:
    rows = read_metrics(out / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train(config(out), Console(quiet=True))
    return out


def test_training_changes_the_weights_and_keeps_every_record(uninterrupted: Path):
    before = load_file(data_folder("tiny_policy") / "model.safetensors")
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(uninterrupted).items())
    assert [row["step"] for row in read_metrics(uninterrupted / "metrics.jsonl")] == [0, 1, 2, 3]
    assert sorted(p.name for p in (uninterrupted / "episodes").iterdir()) == [
        "step-000000.coefficients.json",
        "step-000000.jsonl",
        "step-000002.coefficients.json",
        "step-000002.jsonl",
    ]
    assert sorted(p.name for p in (uninterrupted / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    assert (uninterrupted / "journal.jsonl").read_text() == ""


def test_a_run_stopped_by_an_error_resumes_bit_equal(uninterrupted: Path, tmp_path: Path, monkeypatch):
    out = tmp_path / "run"
    calls = {"n": 0}
    import aipo_learner.train as train_module

    real = train_module.training_rows

    def failing(*args, **kwargs):
        calls["n"] += 1
        if calls["n"] == 4:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(train_module, "training_rows", failing)
    with pytest.raises(KeyboardInterrupt):
        train(config(out), Console(quiet=True))
    assert len(read_metrics(out / "metrics.jsonl")) == 3
    monkeypatch.undo()
    train(config(out), Console(quiet=True))
    same_run(out, uninterrupted)


def test_a_killed_run_resumes_bit_equal(uninterrupted: Path, tmp_path: Path):
    out = tmp_path / "run"
    arguments = json.dumps({**config(out).to_dict()})
    program = (
        "import json, sys; from aipo_learner.config import TrainConfig; from aipo_learner.train import train;"
        "train(TrainConfig.from_dict(json.loads(sys.argv[1])))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", program, arguments],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(read_metrics(out / "metrics.jsonl")) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
        assert child.poll() is None or len(read_metrics(out / "metrics.jsonl")) >= 3
    child.send_signal(signal.SIGKILL)
    child.wait()
    train(config(out), Console(quiet=True))
    same_run(out, uninterrupted)


def test_a_finished_run_has_nothing_left_to_do(uninterrupted: Path):
    before = (Path(policy_folder(str(uninterrupted))) / "model.safetensors").stat().st_mtime_ns
    train(config(uninterrupted), Console(quiet=True))
    assert (Path(policy_folder(str(uninterrupted))) / "model.safetensors").stat().st_mtime_ns == before


def test_other_settings_in_the_same_folder_are_refused(uninterrupted: Path):
    with pytest.raises(CheckpointError, match=r"lr was 0.001, is 0.1"):
        train(config(uninterrupted, lr=0.1), Console(quiet=True))


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_a_truncated_checkpoint_says_how_to_go_on(uninterrupted: Path, tmp_path: Path):
    out = copied(uninterrupted, tmp_path)
    state = out / "checkpoints" / "step-000004" / "state.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"Delete .*step-000004 to resume one checkpoint earlier"):
        train(config(out), Console(quiet=True))
    shutil.rmtree(state.parent)
    train(config(out), Console(quiet=True))
    same_run(out, uninterrupted)


def test_a_half_written_checkpoint_is_ignored(uninterrupted: Path, tmp_path: Path):
    out = copied(uninterrupted, tmp_path)
    (out / "checkpoints" / "step-000004").rename(out / "checkpoints" / "step-000004.writing")
    train(config(out), Console(quiet=True))
    same_run(out, uninterrupted)


def test_a_checkpoint_of_another_format_is_refused(uninterrupted: Path, tmp_path: Path, monkeypatch):
    out = copied(uninterrupted, tmp_path)
    monkeypatch.setattr(checkpoint_module, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="written in format 1, this version reads 2"):
        train(config(out), Console(quiet=True))


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path):
    settings = config(tmp_path / "run")
    holder = (
        "import sys; from pathlib import Path; from aipo_learner.checkpoint import FolderLock\n"
        "lock = FolderLock(); lock.take(Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    settings.out.mkdir()
    command = [sys.executable, "-c", holder, str(settings.out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(CheckpointError, match="another process is training here"):
            Run.open(settings)
        other.stdin.close()
    with Run.open(settings) as run:
        assert run.step == 0


def test_a_full_disk_leaves_the_previous_checkpoint(uninterrupted: Path, tmp_path: Path, monkeypatch):
    out = copied(uninterrupted, tmp_path)
    settings = config(out)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=3)
    optimizer = torch.optim.AdamW(model.parameters())

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module.torch, "save", full)
    with Run.open(settings) as run, pytest.raises(CheckpointError, match="No space left on device"):
        run.save(5, model, tokenizer, optimizer)
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step-000002", "step-000004"]


def test_the_journal_replays_what_was_paid_for(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    request = AgentRequest(kind="knowledge", query="q", key=(0, 1, 2, 3, 0))
    journal = Journal(path)
    journal.put(request, Outcome(reply=AgentReply(text="a", tokens=1)))
    journal.close()
    path.write_text(path.read_text() + '{"key": "(0, 1', encoding="utf-8")
    again = Journal(path)
    assert again.get(request) == Outcome(reply=AgentReply(text="a", tokens=1))
    assert again.get(AgentRequest(kind="knowledge", query="other", key=(0, 1, 2, 3, 0))) is None
    again.clear()
    assert again.get(request) is None
    again.close()
    assert path.read_text() == ""
