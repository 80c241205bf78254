"""What is found out of the prompts of a run before anything is sampled."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aipo_env import ConfigError, Environment, build_scenario
from aipo_learner import TrainConfig, train
from aipo_learner.rollout.prompts import check_prompts
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.evaluation import EvaluationSchedule


def limited(max_context_tokens: int) -> Environment:
    return Environment(rules={"max_context_tokens": max_context_tokens})


def run(out: Path, **changes: Any) -> None:
    settings = {
        "num_steps": 1,
        "groups_per_step": 1,
        "group_size": 2,
        "loggers": "",
        "num_threads": 1,
    }
    train(TrainConfig(out=out, **{**settings, **changes}), Console(quiet=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"environment": limited(9), "aided_share": 0.0},
            r"max_context_tokens=9 of the rules .* of unaided episodes, which have \d+",
        ),
        (
            {"environment": limited(20), "aided_share": 1.0},
            r"max_context_tokens=20 of the rules .* prompts of aided episodes",
        ),
    ],
)
def test_prompts_that_leave_no_room_are_named_before_the_first_step(
    changes: dict[str, Any], message: str, tmp_path: Path
):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, **changes)
    assert not (tmp_path / "metrics.jsonl").read_text()


def test_a_prompt_may_leave_one_token_and_some_may_leave_none(tokenizer):
    """Tasks differ: those that fit are worth a run."""

    def check(max_context_tokens: int, aided: bool) -> None:
        scenario = build_scenario(limited(max_context_tokens), seed=5)
        check_prompts(scenario, tokenizer, split="train", ways=[aided], seed=5)

    for aided in (False, True):
        shortest = 1
        while True:
            try:
                check(shortest, aided)
                break
            except ConfigError as error:
                message = str(error)
                shortest += 1
        # The shortest of four prompts, and one token.
        assert f"which have {shortest - 1} to" in message
        check(shortest + 100, aided)


def test_stored_episodes_need_no_room(tmp_path: Path):
    out = tmp_path / "first"
    run(out, episodes_every=1, group_size=4)
    file = next((out / "episodes").glob("*.jsonl"))
    changes = {"source": EpisodeSource(episodes=str(file)), "environment": limited(9)}
    run(tmp_path / "second", group_size=4, **changes)
    # What is evaluated is sampled.
    with pytest.raises(ConfigError, match="max_context_tokens=9 of the rules"):
        run(tmp_path / "third", evaluation=EvaluationSchedule(every=1), **changes)
