"""What a verdict may say, and what it may not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aipo_env import Verdict


def verdict(**fields: Any) -> Verdict:
    return Verdict(**{"correct": True, "reward": 1.0, "status": "correct", **fields})


@pytest.mark.parametrize(
    ("reward", "kept"),
    [(1, 1.0), (0.3, 0.3), (-2, -2.0), (np.float32(0.5), 0.5), (np.int64(3), 3.0)],
)
def test_a_reward_is_any_finite_number_and_kept_as_a_float(reward: Any, kept: float):
    assert verdict(reward=reward).reward == kept
    assert type(verdict(reward=reward).reward) is float


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (
            float("nan"),
            "a verdict's reward is nan; it must be a finite number, or None",
        ),
        (float("inf"), "a verdict's reward is inf"),
        (10**400, "a verdict's reward is 1000"),
        (10**5000, "a verdict's reward is <int>"),
        ("1", "a verdict's reward is '1'"),
        (True, "a verdict's reward is True"),
        (1j, "a verdict's reward is 1j"),
        ([1.0], r"a verdict's reward is \[1.0\]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_reward(reward: Any, message: str):
    with pytest.raises(ValueError, match=message):
        verdict(reward=reward)


def test_parts_are_kept_as_plain_text_and_floats():
    parts = verdict(parts={"answer": 1, "length": np.float64(-0.5), "form": 0.5}).parts
    assert parts == {"answer": 1.0, "length": -0.5, "form": 0.5}
    assert {type(part) for part in parts.values()} == {float}
    assert verdict().parts == {}


def test_parts_that_cancel_each_other_out_add_up():
    assert verdict(reward=0.1, parts={"a": 1e9, "b": -1e9 + 0.1}).reward == 0.1
    assert verdict(reward=0.3, parts={"a": 0.1, "b": 0.2}).reward == 0.3


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a": 0.5}, "parts add up to 0.5, but its reward is 1.0"),
        ({"a": 1.00001}, "parts add up to 1.00001, but its reward is 1.0"),
        ({"a": 1e308, "b": 1e308}, "parts add up to inf"),
        ({"a": True}, "the part 'a' of the reward is True; it must be a finite number"),
        ({"a": "1"}, "the part 'a' of the reward is '1'"),
        ({"a": float("nan")}, "the part 'a' of the reward is nan"),
        ({"a": 10**400}, "the part 'a' of the reward is 1000"),
        (
            {"": 1.0},
            "a part of the reward is named ''; a name is printable text of 1 to",
        ),
        ({" ": 1.0}, "a part of the reward is named ' '"),
        ({"\x1b[2J": 1.0}, "a part of the reward is named '.x1b"),
        ({"x" * 101: 1.0}, "a part of the reward is named 'xxx"),
        ({1: 1.0}, "a part of the reward is named 1; a name"),
        ({str(i): 1 / 65 for i in range(65)}, "a reward has at most 64 parts"),
        ([("a", 1.0)], "a verdict's parts are .*; give a mapping"),
        (None, "a verdict's parts are None; give a mapping"),
    ],
)
def test_what_are_no_parts(parts: Any, message: str):
    with pytest.raises(ValueError, match=message):
        verdict(parts=parts)


def test_the_most_and_the_longest_parts():
    parts = {f"{i:0100}": 1 / 64 for i in range(64)}
    assert len(verdict(parts=parts).parts) == 64


def test_a_failure_has_no_reward():
    assert verdict(correct=None, reward=None, status="error").reward is None
    with pytest.raises(ValueError, match="of status 'error' has the reward 1.0"):
        verdict(status="error")
    with pytest.raises(ValueError, match="of status 'infra_error' has the reward 0.0"):
        verdict(reward=0.0, correct=False, status="infra_error")
    with pytest.raises(ValueError, match="says correct=True and has no reward"):
        verdict(reward=None)


def test_verdicts_can_be_told_apart_by_their_parts_and_hashed():
    half = verdict(parts={"a": 0.5, "b": 0.5})
    assert half != verdict()
    assert half == replace(half)
    assert len({half, replace(half), verdict(reason="so")}) == 2
