"""The rules for agent tokens against literal tables: the push, and how long a token
takes.
"""

import math

import pytest
import torch

from aipo_learner.learn.agent_rules import AGENT_RULES
from aipo_learner.learn.objective import agent_coefficient, aipo_loss
from aipo_learner.settings.objective import ObjectiveConfig

PROBABILITIES = [1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99]

PUSHES = {
    "masked": [0, 0, 0, 0, 0, 0, 0, 0, 0],
    "on_policy": [1, 1, 1, 1, 1, 1, 1, 1, 1],
    "plain_is": [0.0001, 0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99],
    "floored": [0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.6, 0.9, 0.99],
    "luffy": [0.001, 0.0098, 0.083, 0.222, 0.25, 0.1875, 0.122, 0.09, 0.083],
    "mixture": [0.0004, 0.004, 0.039, 0.17, 0.29, 0.53, 0.54, 0.31, 0.10],
}

TIMES_TO_HALF = {
    ("on_policy", 0.1): [5.6, 7.9, 10],
    ("plain_is", 0.1): [108, 1013, 10018],
    ("luffy", 0.1): [32, 127, 1032],
    ("mixture", 0.1): [33, 261, 2514],
    ("floored", 0.1): [38, 61, 85],
    ("floored", 0.01): [108, 340, 571],
}


def two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def row(values: list[float]) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def push(rule: str, advantage: float, **settings: float) -> list[float]:
    """-dL / dlog p of every token of one episode whose tokens are all an agent's."""
    logprobs = row(PROBABILITIES).log().requires_grad_()
    nothing = torch.zeros_like(logprobs, dtype=torch.bool)
    config = ObjectiveConfig(agent_rule=rule, **settings)
    loss, _ = aipo_loss(
        logprobs,
        logprobs.detach(),
        torch.tensor([advantage], dtype=torch.float64),
        nothing,
        ~nothing,
        config,
        agent_normalizer=1.0,
    )
    loss.backward()
    return (-logprobs.grad[0]).tolist()


def test_the_tables_name_every_rule():
    assert list(PUSHES) == [
        "masked",
        "on_policy",
        "plain_is",
        "floored",
        "luffy",
        "mixture",
    ]
    assert set(PUSHES) == set(AGENT_RULES)


@pytest.mark.parametrize("rule", PUSHES)
def test_push_by_autograd(rule: str):
    got = [two_digits(value) for value in push(rule, 1.0)]
    assert got == [two_digits(value) for value in PUSHES[rule]]


@pytest.mark.parametrize("rule", ["masked", "on_policy", "plain_is", "floored"])
def test_push_by_autograd_is_exact_where_the_table_is(rule: str):
    assert push(rule, 1.0) == pytest.approx(PUSHES[rule], rel=1e-12)


@pytest.mark.parametrize("start", range(3), ids=["p0=1e-2", "p0=1e-3", "p0=1e-4"])
@pytest.mark.parametrize(("rule", "floor"), TIMES_TO_HALF)
def test_time_until_a_token_is_as_likely_as_not(rule: str, floor: float, start: int):
    """dz/dt = c(p) (1 - p), so the time from z0 to z = 0 is the integral of dz / (c (1
    - p)).
    """
    first = 10.0 ** -(start + 2)
    logits = torch.linspace(
        math.log(first / (1 - first)), 0, 200_001, dtype=torch.float64
    )
    logprobs = torch.nn.functional.logsigmoid(logits)[None]
    coefficient = agent_coefficient(
        logprobs,
        logprobs,
        None,
        torch.ones_like(logprobs),
        ObjectiveConfig(agent_rule=rule, floor=floor),
    )
    time = torch.trapezoid(1 / (coefficient * (1 - logprobs.exp()))[0], logits).item()
    assert two_digits(time) == two_digits(TIMES_TO_HALF[rule, floor][start])


@pytest.mark.parametrize("rule", AGENT_RULES)
def test_a_negative_advantage_leaves_agent_tokens_untouched_by_default(rule: str):
    assert push(rule, -1.0) == [0.0] * 9


def test_a_negative_weight_scales_a_push_without_floor():
    expected = [-0.5 * p for p in PROBABILITIES]
    assert push("floored", -1.0, negative_weight=0.5) == pytest.approx(
        expected, rel=1e-12
    )


def test_floor_and_ceiling_of_1_are_advantage_weighted_imitation():
    assert push("floored", 2.5, floor=1.0, ceiling=1.0) == [2.5] * 9


def test_a_floor_of_0_is_plain_importance_sampling():
    assert push("floored", 2.5, floor=0.0) == push("plain_is", 2.5)


def test_the_ceiling_bounds_a_token_the_agent_thought_unlikely():
    logprobs, agent_logprobs = row([0.3]).log(), row([0.1]).log()
    one = torch.ones(1, dtype=torch.float64)

    def coefficient(rule: str, advantage: float = 1.0) -> float:
        config = ObjectiveConfig(agent_rule=rule, ceiling=2.0)
        return agent_coefficient(
            logprobs, logprobs, agent_logprobs, advantage * one, config
        ).item()

    assert coefficient("floored") == 2.0
    assert coefficient("floored", -1.0) == 2.0
    assert coefficient("plain_is") == pytest.approx(3.0)
    assert coefficient("luffy") == pytest.approx(0.1 * 3 / 3.1**2)
    assert coefficient("mixture") == pytest.approx(0.6 / (0.2 + 0.3) * math.sqrt(0.7))


def test_an_unknown_agent_probability_counts_as_1():
    logprobs = row([0.3, 0.3]).log()
    agent_logprobs = row([math.nan, math.log(0.6)])
    coefficient = agent_coefficient(
        logprobs, logprobs, agent_logprobs, torch.ones(1), ObjectiveConfig()
    )
    assert coefficient.tolist() == [pytest.approx([0.3, 0.5])]


def test_on_policy_follows_the_ratio_without_a_clip():
    coefficient = agent_coefficient(
        row([0.5]).log(),
        row([0.1]).log(),
        None,
        torch.ones(1),
        ObjectiveConfig(agent_rule="on_policy"),
    )
    assert coefficient.item() == pytest.approx(5.0)


@pytest.mark.parametrize("rule", AGENT_RULES)
def test_a_logprob_rounded_above_0_is_a_probability_of_1(rule: str):
    logprobs = torch.tensor([[2e-7]])
    coefficient = agent_coefficient(
        logprobs, logprobs, None, torch.ones(1), ObjectiveConfig(agent_rule=rule)
    )
    expected = {"masked": 0.0, "mixture": 0.0, "luffy": 0.1 / 1.1**2}.get(rule, 1.0)
    assert coefficient.item() == pytest.approx(expected, rel=1e-5, abs=1e-9)
