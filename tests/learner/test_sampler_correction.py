"""The truncated importance weights of what another engine, or other weights,
sampled.
"""

import math

import pytest
import torch
from torch import Tensor

from aipo_learner.learn.metrics import summarize
from aipo_learner.learn.objective import aipo_loss
from aipo_learner.settings.objective import ObjectiveConfig

NAN = math.nan
# One episode: two own tokens (ratios 4 and 0.5), an agent's two, an own token of
# unknown probability.
OWN = torch.tensor([[True, True, False, False, True]])
OLD = torch.tensor([[-1.0, -2.0, -3.0, -0.5, -1.5]], dtype=torch.float64)
RATIOS = torch.tensor([[4.0, 0.5, NAN, NAN, NAN]], dtype=torch.float64)


def run(sampler: Tensor, **settings) -> tuple[Tensor, Tensor, dict[str, float]]:
    logprobs = OLD.clone().requires_grad_()
    config = ObjectiveConfig(**{"base": "dapo", "agent_rule": "on_policy", **settings})
    advantages = torch.ones(1, dtype=torch.float64)
    loss, metrics = aipo_loss(
        logprobs, OLD, advantages, OWN, ~OWN, config, sampler_logprobs=sampler
    )
    loss.backward()
    return loss.detach(), logprobs.grad, summarize(metrics)


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, [2.0, 0.5, 1.0]),
        ({"sampler_ratio_cap": 8.0}, [4.0, 0.5, 1.0]),
        ({"sampler_ratio": "sequence"}, [2.0, 2.0, 2.0]),
        ({"sampler_ratio": "sequence", "sampler_ratio_cap": 1.5}, [1.5, 1.5, 1.5]),
        ({"sampler_ratio": "geometric"}, [2 ** (1 / 3)] * 3),
    ],
)
def test_own_tokens_carry_the_truncated_weight(settings, weights):
    _, gradient, _ = run(OLD - RATIOS.log(), **settings)
    # dapo divides by the three own tokens; the ratio to the old weights is 1.
    assert (-3 * gradient[OWN]).tolist() == pytest.approx(weights)


def test_gspo_weighs_an_episode_by_its_geometric_mean_and_may_be_told_otherwise():
    weights = {
        level: (
            (
                -3 * run(OLD - RATIOS.log(), base="gspo", sampler_ratio=level)[1][OWN]
            ).tolist()
        )
        for level in (None, "geometric", "token")
    }
    assert weights[None] == weights["geometric"] == pytest.approx([2 ** (1 / 3)] * 3)
    assert weights["token"] == pytest.approx([2.0, 0.5, 1.0])


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
def test_what_stands_at_an_agents_tokens_never_enters_the_ratios(level):
    expected = run(OLD - RATIOS.log(), sampler_ratio=level)
    for garbage in (0.0, -700.0, 5.0, math.inf, -math.inf):
        sampler = torch.where(OWN, OLD - RATIOS.log(), garbage)
        loss, gradient, metrics = run(sampler, sampler_ratio=level)
        assert torch.equal(loss, expected[0])
        assert torch.equal(gradient, expected[1])
        assert metrics == expected[2]


def test_the_effective_sample_size_is_one_without_drift_and_falls_with_the_spread():
    assert run(torch.where(OWN, OLD, NAN))[2]["effective_sample_size"] == pytest.approx(
        1.0
    )
    # Weights 2 and 0.5 of the two known tokens: 2.5^2 / (2 * 4.25).
    drifted = run(OLD - RATIOS.log())[2]
    assert drifted["effective_sample_size"] == pytest.approx(6.25 / 8.5)
    assert "effective_sample_size" not in run(torch.full_like(OLD, NAN))[2]
