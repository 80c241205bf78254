"""How many CPU threads a run has, and that it keeps them."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from aipo_learner import TrainConfig, policy_folder, train
from aipo_learner.build import _with_threads
from aipo_learner.policy.load import count_weights
from aipo_learner.policy.runtime import SMALL_MODEL, choose_threads


@pytest.mark.parametrize(
    ("num_weights", "limit", "num_threads"),
    [
        (SMALL_MODEL - 1, None, 1),
        (SMALL_MODEL, None, 3),
        (7_000_000_000, None, 3),
        # torchrun sets it, for several ranks on one machine.
        (7_000_000_000, "1", 1),
        (7_000_000_000, "2", 2),
        (7_000_000_000, "64", 3),
        # OpenMP itself ignores what is no number above 0.
        (7_000_000_000, "0", 3),
        (7_000_000_000, "4,2", 3),
        (0, "8", 1),
    ],
)
def test_threads_follow_from_weights_and_cores(
    monkeypatch: pytest.MonkeyPatch,
    num_weights: int,
    limit: str | None,
    num_threads: int,
):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 5})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if limit is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert choose_threads(num_weights) == num_threads


def test_weights_are_counted_before_they_are_loaded(tmp_path: Path):
    assert count_weights(policy_folder("tiny")) == 582_912
    assert count_weights(str(tmp_path)) == 0
    assert count_weights("./nowhere") == 0


def test_a_run_that_was_refused_leaves_no_threads_to_a_new_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    config = TrainConfig(out=tmp_path)
    (tmp_path / "config.json").write_text('{"num_threads": 7}')
    checkpoint = tmp_path / "checkpoints" / "step-000001"
    (checkpoint / "policy").mkdir(parents=True)
    assert _with_threads(config).num_threads == 1
    # What makes a checkpoint whole.
    (checkpoint / "state.pt").write_bytes(b"")
    assert not caplog.records
    assert _with_threads(config).num_threads == 7
    assert "num_threads=7 that it began with, more than OMP_NUM_THREADS=2" in (
        caplog.text
    )


def test_a_resumed_run_keeps_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = {
        "out": tmp_path / "run",
        "groups_per_step": 1,
        "group_size": 2,
        "checkpoint_every": 1,
        "loggers": "",
    }
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr("aipo_learner.build.choose_threads", lambda weights: 2)
        train(TrainConfig(num_steps=1, **settings), Console(quiet=True))
        stored = json.loads((tmp_path / "run" / "config.json").read_text())
        assert stored["num_threads"] == 2
        monkeypatch.setattr("aipo_learner.build.choose_threads", lambda weights: 1)
        torch.set_num_threads(1)
        train(TrainConfig(num_steps=1, **settings), Console(quiet=True))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
