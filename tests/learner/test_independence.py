"""Replies that are withheld, and training that is interrupted."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from rich.console import Console

import aipo_learner.training as train_module
from aipo_env import AgentRequest, Interrupted, ScriptedAgent, ToySource, World
from aipo_learner.rollout.independence import WithholdingPool
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train


def test_replies_are_withheld_by_the_seed_of_the_request():
    world = World(seed=0)
    name = next(iter(world.operators))
    pool = WithholdingPool({"knowledge": ScriptedAgent(ToySource(world))})
    requests = [
        AgentRequest(kind="knowledge", query=name, seed=seed) for seed in range(200)
    ]

    def given(accept: float) -> list[bool]:
        pool.accept = accept
        return [
            asyncio.run(pool.consult(request)).reply is not None for request in requests
        ]

    assert given(0.0) == [False] * 200
    assert given(1.0) == [True] * 200
    half = given(0.5)
    assert 70 < sum(half) < 130
    assert half == given(0.5)


@pytest.mark.parametrize(
    "mode", ["mixed", "prompt_switch", "accept_anneal", "internalised"]
)
def test_every_mode_trains(mode: str, tmp_path: Path):
    config = TrainConfig(
        independence=mode,
        out=tmp_path,
        num_steps=2,
        groups_per_step=2,
        group_size=4,
        num_threads=1,
        lr=1e-4,
    )
    train(config, Console(quiet=True))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert ("success/unaided" in rows[0]) == (mode in ("mixed", "internalised"))


def test_ctrl_c_finishes_the_step_saves_it_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch
):
    real = train_module.training_rows

    def interrupted(*args, **settings):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **settings)

    monkeypatch.setattr(train_module, "training_rows", interrupted)
    config = TrainConfig(
        out=tmp_path, num_steps=3, groups_per_step=1, group_size=4, num_threads=1
    )
    with pytest.raises(
        Interrupted, match=r"stopped after step 1 of 3.*The same command goes on"
    ):
        train(config, Console(quiet=True))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [
        "step-000001"
    ]
    monkeypatch.undo()
    train(config, Console(quiet=True))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [
        1,
        2,
        3,
    ]
