"""Batches sampled ahead: by which weights, and that a resumed run keeps them."""

from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import aipo_learner.training as train_module
from aipo_env import read_episodes
from aipo_learner.policy.load import policy_folder
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

TIMES = ("seconds", "consult_seconds")


def config(out: Path, **changes) -> TrainConfig:
    defaults = {
        "out": out,
        "num_steps": 5,
        "groups_per_step": 2,
        "group_size": 4,
        "checkpoint_every": 2,
        "episodes_every": 1,
        "num_threads": 1,
        "lr": 3e-3,
        "warmup_steps": 0,
        "source": EpisodeSource(max_staleness=2),
    }
    return TrainConfig(**{**defaults, **changes})


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stale") / "run"
    train(config(out), Console(quiet=True))
    return out


def test_a_batch_is_sampled_by_weights_at_most_so_many_versions_old(stale: Path):
    versions = [
        {episode.policy_version for episode in read_episodes(path)}
        for path in sorted(stale.glob("episodes/step-*.jsonl"))
    ]
    assert versions == [{0}, {0}, {0}, {1}, {2}]
    rows = read_metrics(stale / "metrics.jsonl")
    assert [row["staleness"] for row in rows] == [0, 1, 2, 2, 2]


def test_the_drift_of_the_weights_shows_in_the_effective_sample_size(stale: Path):
    rows = read_metrics(stale / "metrics.jsonl")[:4]
    sizes = [row["effective_sample_size"] for row in rows]
    assert sizes[0] > 0.99999
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[3] < 0.95
    assert all(row["kl_sampler"] > 1000 * rows[0]["kl_sampler"] for row in rows[1:])


@pytest.mark.parametrize("stopped_in", [2, 4])
def test_a_resumed_run_trains_on_the_batches_that_were_sampled_ahead(
    stale: Path, tmp_path: Path, monkeypatch, stopped_in: int
):
    real, calls = train_module.training_rows, []

    def failing(*arguments, **settings):
        calls.append(1)
        if len(calls) == stopped_in:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    monkeypatch.setattr(train_module, "training_rows", failing)
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "run"), Console(quiet=True))
    monkeypatch.undo()
    queues = [
        path.parent.name for path in tmp_path.glob("run/checkpoints/*/queue.jsonl")
    ]
    assert queues == ([] if stopped_in == 2 else ["step-000002"])
    train(config(tmp_path / "run"), Console(quiet=True))
    first, second = (
        load_file(Path(policy_folder(str(out))) / "model.safetensors")
        for out in (stale, tmp_path / "run")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert untimed(stale) == untimed(tmp_path / "run")


def untimed(out: Path) -> list[dict[str, float]]:
    rows = read_metrics(out / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]


def test_the_last_checkpoint_has_nothing_left_waiting(stale: Path):
    kept = sorted(path.parent.name for path in stale.glob("checkpoints/*/queue.jsonl"))
    assert kept == ["step-000004"]
