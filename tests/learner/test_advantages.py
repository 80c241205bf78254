"""Advantages of a group: baselines, standard deviation, leave-one-out, dropped
groups.
"""

import math

import pytest

from aipo_learner.learn.advantages import group_advantages, is_dropped, overlong_penalty
from aipo_learner.learn.base_algorithms import BASE_ALGORITHMS

# Aided: right, right, wrong. Unaided: right, wrong, wrong.
REWARDS = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]
AIDED = [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("split", [1 / 2, 1 / 2, -1 / 2, 2 / 3, -1 / 3, -1 / 3]),
        ("union", [1 / 2, 1 / 2, -1 / 2, 1 / 2, -1 / 2, -1 / 2]),
        ("per_mode", [1 / 3, 1 / 3, -2 / 3, 2 / 3, -1 / 3, -1 / 3]),
    ],
)
def test_each_baseline_without_std(baseline: str, expected: list[float]):
    got = group_advantages(REWARDS, AIDED, base="dr_grpo", baseline=baseline)
    assert got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("split", [3 / 5, 3 / 5, -3 / 5, 1, -1 / 2, -1 / 2]),
        ("union", [3 / 5, 3 / 5, -3 / 5, 3 / 5, -3 / 5, -3 / 5]),
        ("per_mode", [1 / 2, 1 / 2, -1, 1, -1 / 2, -1 / 2]),
    ],
)
def test_each_baseline_leaving_the_episode_itself_out(
    baseline: str, expected: list[float]
):
    got = group_advantages(REWARDS, AIDED, base="rloo", baseline=baseline)
    assert got == pytest.approx(expected, rel=1e-12)


def test_the_std_is_over_the_same_set_as_the_mean():
    """Population std: 1/2 over the whole group, sqrt(2)/3 over the unaided three."""
    whole, unaided = 0.5 + 1e-6, math.sqrt(2) / 3 + 1e-6
    got = group_advantages(REWARDS, AIDED, base="grpo")
    assert got == pytest.approx(
        [
            *(0.5 / whole, 0.5 / whole, -0.5 / whole),
            *((2 / 3) / unaided, (-1 / 3) / unaided, (-1 / 3) / unaided),
        ],
        rel=1e-12,
    )


def test_grpo_in_one_number():
    got = group_advantages([1, 0, 0, 0], [False] * 4, base="grpo")
    assert got == pytest.approx(
        [1.7320468, -0.5773489, -0.5773489, -0.5773489], rel=1e-6
    )


@pytest.mark.parametrize("base", BASE_ALGORITHMS)
def test_split_rewards_help_while_the_unaided_half_fails(base: str):
    """Unaided failures are not pushed down for what only help could give."""
    got = group_advantages([1, 1, 0, 0], [True, True, False, False], base=base)
    assert min(got[:2]) > 0.4
    assert got[2:] == [0.0, 0.0]


@pytest.mark.parametrize("base", BASE_ALGORITHMS)
def test_per_mode_gives_no_signal_when_every_aided_episode_is_right(base: str):
    got = group_advantages(
        [1, 1, 0, 0], [True, True, False, False], base=base, baseline="per_mode"
    )
    assert is_dropped(got)


@pytest.mark.parametrize("base", BASE_ALGORITHMS)
@pytest.mark.parametrize("baseline", ["split", "union", "per_mode"])
@pytest.mark.parametrize("reward", [0.1, 0.7, 1 / 3, -1e9, 0.0])
def test_equal_rewards_give_exactly_0(base: str, baseline: str, reward: float):
    got = group_advantages([reward] * 7, [*AIDED, False], base=base, baseline=baseline)
    assert got == [0.0] * 7
    assert is_dropped(got)


@pytest.mark.parametrize("base", BASE_ALGORITHMS)
@pytest.mark.parametrize("baseline", ["split", "union", "per_mode"])
def test_a_set_of_one_gives_0(base: str, baseline: str):
    assert group_advantages([1.0], [True], base=base, baseline=baseline) == [0.0]
    got = group_advantages(
        [1.0, 0.0, 1.0], [True, True, False], base=base, baseline="split"
    )
    assert got[2] == 0.0


def test_a_group_is_dropped_only_when_every_advantage_is_0():
    assert is_dropped([0.0, -0.0, 0.0])
    assert not is_dropped([0.0, 1e-12])
    assert is_dropped([])


@pytest.mark.parametrize(
    ("num_policy_tokens", "buffer_tokens", "expected"),
    [
        (0, 20, 0.0),
        (80, 20, 0.0),
        (85, 20, -0.25),
        (90, 20, -0.5),
        (100, 20, -1.0),
        (130, 20, -1.0),
        (100, 0, 0.0),
        (101, 0, -1.0),
    ],
)
def test_overlong_penalty(num_policy_tokens: int, buffer_tokens: int, expected: float):
    assert overlong_penalty(num_policy_tokens, 100, buffer_tokens) == expected
