"""What a run leaves: numbers that mean the same wherever they stand."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from aipo_env import ConfigError, NoGradient, PolicyError
from aipo_learner.learn.agent_rules import AgentTokens
from aipo_learner.learn.base_algorithms import BASE_ALGORITHMS, divides_by_token_places
from aipo_learner.reporting.report import write_report
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train


def config(out: Path, **changes: Any) -> TrainConfig:
    fields = {
        "num_steps": 2,
        "groups_per_step": 2,
        "group_size": 4,
        "num_threads": 1,
        "episodes_every": 1,
        "lr": 1e-3,
        "lr_end": 0.5,
        "warmup_steps": 1,
    }
    return TrainConfig(out=out, **{**fields, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run of two steps, and what its console said."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    said = io.StringIO()
    objective = ObjectiveConfig("dr_grpo")
    train(config(out, objective=objective), Console(file=said, width=500))
    return out, said.getvalue()


def test_steps_are_counted_alike_on_the_console_in_files_and_in_the_report(
    made: tuple[Path, str],
):
    out, said = made
    assert re.findall(r"step (\d+)/2  reward", said) == ["1", "2"]
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl")] == [1, 2]
    episodes = sorted(path.name for path in (out / "episodes").glob("*[0-9].jsonl"))
    assert episodes == ["step-000001.jsonl", "step-000002.jsonl"]
    checkpoints = [path.name for path in (out / "checkpoints").iterdir()]
    assert checkpoints == ["step-000002"]
    page = write_report(out).read_text()
    assert set(re.findall(r'data-source="mine, step (\d+)"', page)) == {"1", "2"}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("lr")] == [1, 2]


def test_the_learning_rate_is_logged_in_every_step(made: tuple[Path, str]):
    rows = read_metrics(made[0] / "metrics.jsonl")
    assert [row["lr"] for row in rows] == [1e-3, 5e-4]


def test_a_step_without_a_gradient_has_a_learning_rate_too(tmp_path: Path):
    one_token = {"environment": {"rules": {"max_policy_tokens": 1}}}
    told = config(tmp_path, num_steps=1, stop_after_idle_steps=0).changed(one_token)
    train(told, Console(quiet=True))
    [row] = read_metrics(tmp_path / "metrics.jsonl")
    assert row["rows"] == 0
    assert row["lr"] == 1e-3


def nothing_earned(task: Any, text: str) -> float:
    """Return the reward of whatever is said."""
    return 0.0


def test_a_run_that_learns_observation_tokens_alone_stops(tmp_path: Path):
    told = config(
        tmp_path,
        num_steps=4,
        stop_after_idle_steps=2,
        objective=ObjectiveConfig(
            agent_rule="masked",
            observation_weight=0.05,
            observation_authors=("env", "agent"),
        ),
    ).changed({"reward": f"{__name__}:nothing_earned"})
    said = io.StringIO()
    with pytest.raises(NoGradient, match=r"2 steps.*no gradient but of observation"):
        train(told, Console(file=said, width=500))
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    assert first["rows"] == first["rows/only_observed"] > 0
    assert second["rows"] == second["rows/only_observed"] > 0
    assert "no gradient but of observation tokens: 2 x group all" in said.getvalue()


def test_dr_grpos_constant_is_the_rules_limit_unless_it_is_set(
    made: tuple[Path, str], tmp_path: Path
):
    rows = read_metrics(made[0] / "metrics.jsonl")
    assert [row["dr_grpo/max_policy_tokens"] for row in rows] == [160, 160]
    objective = ObjectiveConfig("dr_grpo", max_policy_tokens=320)
    train(config(tmp_path, num_steps=1, objective=objective), Console(quiet=True))
    [row] = read_metrics(tmp_path / "metrics.jsonl")
    assert row["dr_grpo/max_policy_tokens"] == 320
    # The same rows, divided by twice as much.
    assert row["policy_loss"] == pytest.approx(rows[0]["policy_loss"] / 2, rel=1e-5)


def halved(tokens: AgentTokens) -> torch.Tensor:
    """Push half as strongly as the policy's probability."""
    return tokens.p.clamp(max=1) / 2


BY_PLACES = BASE_ALGORITHMS["dr_grpo"]._replace(clip=(0.1, 0.1))


def test_a_run_says_how_its_own_rule_and_base_push(tmp_path: Path):
    objective = ObjectiveConfig(f"{__name__}:BY_PLACES", f"{__name__}:halved")
    said = io.StringIO()
    told = config(tmp_path, num_steps=1, objective=objective)
    train(told, Console(file=said, width=1000))
    table = "pushes, by the policy's probability of a token: 0.0001:"
    rule = f"agent_rule '{__name__}:halved' {table} 5e-05, 0.001: 0.0005, 0.01: 0.005,"
    assert rule in said.getvalue()
    assert f"base '{__name__}:BY_PLACES' {table} 1, 0.001: 1," in said.getvalue()
    [row] = read_metrics(tmp_path / "metrics.jsonl")
    assert row["dr_grpo/max_policy_tokens"] == 160


def test_a_run_of_our_own_rules_prints_no_pushes(made: tuple[Path, str]):
    assert "pushes, by the policy's" not in made[1]


@pytest.mark.parametrize("base", BASE_ALGORITHMS)
def test_only_dr_grpo_of_ours_divides_by_token_places(base: str):
    told = divides_by_token_places(BASE_ALGORITHMS[base])
    assert told == (base == "dr_grpo")


def test_bounds_watch_the_updates_after_the_first(tmp_path: Path):
    told = config(
        tmp_path,
        num_steps=1,
        lr=0.05,
        warmup_steps=0,
        updates_per_step=3,
        bounds={"ratio_mean": [0.9, 1.1]},
    )
    with pytest.raises(
        PolicyError, match=r"step 1: ratio_mean is .* out of its bounds"
    ):
        train(told, Console(quiet=True))
    kept = torch.load(tmp_path / "failed" / "step-000001.pt", weights_only=True)
    assert kept["step"] == 1


def measured(out: Path) -> list[dict[str, float]]:
    """Return the rows of a run without what the clock says."""
    rows = read_metrics(out / "metrics.jsonl")
    return [
        {name: value for name, value in row.items() if "seconds" not in name}
        for row in rows
    ]


def weights(out: Path) -> dict[str, torch.Tensor]:
    policy = out / "checkpoints" / "step-000002" / "policy"
    return load_file(policy / "model.safetensors")


def test_a_run_that_does_not_learn_observations_is_the_same_bit_for_bit(
    tmp_path: Path,
):
    objectives = {
        "plain": ObjectiveConfig(floor=0.3),
        "off": ObjectiveConfig(
            floor=0.3,
            observation_authors=("tool", "env"),
            observation_episodes="correct",
        ),
        "on": ObjectiveConfig(
            floor=0.3, observation_weight=0.05, observation_authors=("env",)
        ),
    }
    for name, objective in objectives.items():
        told = config(tmp_path / name, objective=objective, loggers="")
        train(told, Console(quiet=True))
    plain, off, on = (measured(tmp_path / name) for name in objectives)
    assert off == plain
    before, after = weights(tmp_path / "plain"), weights(tmp_path / "off")
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any("observ" in name for name in plain[0])
    # Where it is on, the first step has the same rollouts, and the same other terms.
    for name in ("reward", "policy_loss", "agent_loss", "policy_tokens", "entropy"):
        assert on[0][name] == pytest.approx(plain[0][name], rel=1e-5), name
    assert on[0]["observation_tokens"] > 0
    assert on[0]["observation_loss"] > 0
    assert on[0]["grad_norm"] != plain[0]["grad_norm"]


def test_a_run_whose_authors_write_nothing_is_refused(tmp_path: Path):
    told = config(
        tmp_path / "run",
        objective=ObjectiveConfig(observation_weight=0.05),
        loggers="",
    )
    with pytest.raises(
        ConfigError,
        match=r"observation_authors=\['tool'\].* none of them writes .*agent, env",
    ):
        train(told, Console(quiet=True))
