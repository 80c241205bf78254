"""What is found out of the prompts of a run before anything is sampled."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aipo_env import ConfigError, Environment, PolicyError, build_scenario
from aipo_learner import TrainConfig, train
from aipo_learner.policy.tiny import CHAT_TEMPLATE
from aipo_learner.rollout.prompts import check_prompts
from aipo_learner.settings.chat import ChatSettings
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
            {"environment": limited(9), "aid": "share:0"},
            r"max_context_tokens=9 of the rules .* of unaided episodes, which have \d+",
        ),
        (
            {"environment": limited(20), "aid": "share:1"},
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


REFUSING = "{% if messages | length > 5 %}{{ raise_exception('too long') }}{% endif %}"


@pytest.mark.parametrize(
    ("lead", "message"),
    [
        (REFUSING, "refuses a conversation of .*: too long. Use a template"),
        (
            "{% if messages | length > 5 %}{% set messages = messages[-1:] %}{%"
            " endif %}",
            "leaves a turn out of a conversation of",
        ),
    ],
)
def test_a_template_that_takes_no_long_episode_is_refused_before_the_first_step(
    lead: str, message: str, tmp_path: Path
):
    file = tmp_path / "mine.jinja"
    file.write_text(lead + CHAT_TEMPLATE)
    chat = ChatSettings(chat_template=str(file))
    with pytest.raises(PolicyError, match=message + ".*--chat-template FILE"):
        run(tmp_path / "run", chat=chat)
    # Prompt, turn, reply, turn: no episode is longer.
    short = Environment(rules={"max_turns": 2})
    run(tmp_path / "short", chat=chat, environment=short)


def test_turns_are_looked_at_in_bounded_time(tokenizer):
    limits = {"max_turns": 1_000_000}
    scenario = build_scenario(Environment(rules=limits), seed=5)
    check_prompts(scenario, tokenizer, split="train", ways=[False, True], seed=5)


def test_stored_episodes_need_no_room(tmp_path: Path):
    out = tmp_path / "first"
    run(out, episodes_every=1, group_size=4)
    file = next((out / "episodes").glob("*.jsonl"))
    changes = {"source": EpisodeSource(episodes=str(file)), "environment": limited(9)}
    run(tmp_path / "second", group_size=4, **changes)
    # What is evaluated is sampled.
    with pytest.raises(ConfigError, match="max_context_tokens=9 of the rules"):
        run(tmp_path / "third", evaluation=EvaluationSchedule(every=1), **changes)
