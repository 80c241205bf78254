"""The loss and its gradient against a loop over single tokens, for every base and every
rule.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aipo_learner.learn.agent_rules import AGENT_RULES
from aipo_learner.learn.base_algorithms import BASE_ALGORITHMS
from aipo_learner.learn.metrics import merge_metrics
from aipo_learner.learn.objective import (
    ObjectiveConfig,
    agent_normalizer,
    aipo_loss,
    policy_normalizer,
)
from aipo_learner.learn.teaching import taught_advantages

CLIPS = {
    "grpo": (0.2, 0.2),
    "dr_grpo": (0.2, 0.2),
    "dapo": (0.2, 0.28),
    "gspo": (3e-4, 4e-4),
    "cispo": (0.2, 0.28),
    "gppo": (0.2, 0.28),
}
ROWS, TOKENS = 6, 14


def make_batch(seed: int = 0, spread: float = 0.4) -> dict[str, Tensor]:
    """Random episodes; row 4 has no tokens at all, row 5 no agent tokens."""
    rng = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(ROWS, TOKENS, generator=rng, dtype=torch.float64)

    author = torch.randint(0, 3, (ROWS, TOKENS), generator=rng)
    author[4] = 0
    author[5] = author[5].clamp(max=1)
    logprobs = -(normal().abs() * 2 + 0.01)
    unknown = torch.rand(ROWS, TOKENS, generator=rng) < 0.3
    return {
        "logprobs": logprobs,
        "old_logprobs": logprobs + spread * normal(),
        "advantages": torch.tensor(
            [1.0, -0.7, 0.0, 2.0, 1.5, -1.2], dtype=torch.float64
        ),
        "policy_mask": author == 1,
        "agent_mask": author == 2,
        "agent_logprobs": torch.where(unknown, math.nan, -normal().abs()),
        "sampler_logprobs": torch.where(unknown, math.nan, logprobs + 0.5 * normal()),
        "ref_logprobs": logprobs + 0.5 * normal(),
    }


def naive_loss(batch: dict[str, Tensor], config: ObjectiveConfig) -> Tensor:
    """The equations of docs/objective.md, one token at a time."""
    own, agents, num_own, num_agents = 0.0, 0.0, 0, 0
    for i in range(ROWS):
        mine = [t for t in range(TOKENS) if batch["policy_mask"][i, t]]
        num_own += len(mine)
        terms = [naive_policy_term(batch, i, t, mine, config) for t in mine]
        mean = config.base in ("grpo", "gspo") and len(mine) > 0
        own = own + sum(terms) / (len(mine) if mean else 1)
        for t in range(TOKENS):
            if batch["agent_mask"][i, t]:
                term, counts = naive_agent_term(batch, i, t, config)
                agents, num_agents = agents + term, num_agents + counts
    if config.base in ("grpo", "gspo", "rloo"):
        normalizer = ROWS
    elif config.base == "dr_grpo":
        normalizer = ROWS * config.max_policy_tokens
    else:
        normalizer = num_own
    agents = agents / num_agents if num_agents else 0.0
    return -(own / normalizer + config.agent_weight * agents)


def naive_policy_term(
    batch: dict[str, Tensor], i: int, t: int, mine: list[int], config: ObjectiveConfig
) -> Tensor:
    log_p, old = batch["logprobs"][i], batch["old_logprobs"][i]
    known = [math.isfinite(batch["sampler_logprobs"][i, u]) for u in range(TOKENS)]
    drift = [
        (old[u] - batch["sampler_logprobs"][i, u]) if known[u] else 0.0
        for u in range(TOKENS)
    ]
    if config.base == "gspo":
        s = torch.exp(sum(log_p[u] - old[u] for u in mine) / len(mine)).detach()
        r = s * torch.exp(log_p[t]) / torch.exp(log_p[t]).detach()
        weight = min(
            math.exp(sum(drift[u] for u in mine) / len(mine)), config.sampler_ratio_cap
        )
    else:
        r = torch.exp(log_p[t] - old[t])
        weight = min(math.exp(drift[t]), config.sampler_ratio_cap)
    x = batch["ref_logprobs"][i, t] - log_p[t]
    k3 = torch.exp(x) - x - 1
    advantage = naive_advantage(batch, i, t)
    return weight * naive_surrogate(r, log_p[t], advantage, config) - (
        config.kl_coef * k3
    )


def naive_advantage(batch: dict[str, Tensor], i: int, t: int) -> Tensor:
    """A of a token, which may be its episode's."""
    of_episode = batch["advantages"][i]
    return of_episode[t] if of_episode.dim() else of_episode


def naive_surrogate(
    r: Tensor, log_p: Tensor, a: Tensor, config: ObjectiveConfig
) -> Tensor:
    if config.base == "rloo":
        return r * a
    low, high = CLIPS[config.base]
    held = (
        r if 1 - low <= r <= 1 + high else r.new_tensor(1 - low if r < 1 else 1 + high)
    )
    if config.base == "cispo":
        return held.detach() * a * log_p
    if config.base == "gppo":
        held = held.detach() * r / r.detach()
    return r * a if r * a <= held * a else held * a


def naive_agent_term(
    batch: dict[str, Tensor], i: int, t: int, config: ObjectiveConfig
) -> tuple[Tensor, int]:
    log_p, a = batch["logprobs"][i, t], naive_advantage(batch, i, t).item()
    p, o = math.exp(log_p.item()), math.exp(batch["old_logprobs"][i, t])
    agent_logprob = batch["agent_logprobs"][i, t].item()
    mu = 1.0 if math.isnan(agent_logprob) else math.exp(agent_logprob)
    gamma, floor = config.luffy_gamma, config.floor if a > 0 else 0.0
    c = {
        "floored": min(max(p / mu, floor), config.ceiling),
        "masked": 0.0,
        "on_policy": p / o,
        "plain_is": p / mu,
        "luffy": gamma * (p / mu) / (p / mu + gamma) ** 2,
        "mixture": 2 * p / (0.5 * o + 0.5 * mu + o) * math.sqrt(1 - p),
    }[config.agent_rule]
    weighted = a if a > 0 else config.negative_weight * a
    return weighted * c * log_p, int(weighted != 0)


def loss_and_gradient(
    batch: dict[str, Tensor], config: ObjectiveConfig, **given: float
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    logprobs = batch["logprobs"].clone().requires_grad_()
    loss, metrics = aipo_loss(**{**batch, "logprobs": logprobs}, config=config, **given)
    loss.backward()
    return loss.detach(), logprobs.grad, metrics


def make_config(base: str, rule: str) -> ObjectiveConfig:
    return ObjectiveConfig(
        base,
        rule,
        floor=0.2,
        ceiling=1.5,
        agent_weight=3.0,
        negative_weight=0.5,
        kl_coef=0.05,
        max_policy_tokens=20,
    )


every_base_and_rule = pytest.mark.parametrize(
    ("base", "rule"), [(base, rule) for base in BASE_ALGORITHMS for rule in AGENT_RULES]
)


@every_base_and_rule
def test_a_loop_over_tokens_gives_the_same_loss_and_gradient(base: str, rule: str):
    batch, config = make_batch(), make_config(base, rule)
    loss, gradient, _ = loss_and_gradient(batch, config)
    logprobs = batch["logprobs"].clone().requires_grad_()
    expected = naive_loss({**batch, "logprobs": logprobs}, config)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient, logprobs.grad, rtol=1e-12, atol=1e-14)
    assert gradient[4].tolist() == [0.0] * TOKENS


@every_base_and_rule
def test_a_teachers_advantages_are_those_of_a_loop_over_tokens(base: str, rule: str):
    batch = make_batch()
    told = {"teacher": "self:answer", "teacher_weight": 0.3, "advantage_weight": 2.0}
    config = replace(make_config(base, rule), **told)
    # Rows 1 and 2 are not asked of, and some tokens of the others are unknown.
    scores = torch.where(
        batch["sampler_logprobs"].isnan(), math.nan, batch["ref_logprobs"]
    )
    scores[1:3] = math.nan
    advantages, metrics = taught_advantages(
        batch["advantages"],
        batch["old_logprobs"],
        scores,
        batch["policy_mask"],
        config,
    )
    expected, gaps = torch.zeros(ROWS, TOKENS, dtype=torch.float64), []
    for i in range(ROWS):
        for t in range(TOKENS):
            expected[i, t] = 2.0 * batch["advantages"][i]
            if batch["policy_mask"][i, t] and not math.isnan(scores[i, t]):
                gaps.append((scores[i, t] - batch["old_logprobs"][i, t]).item())
                expected[i, t] += 0.3 * gaps[-1]
    torch.testing.assert_close(advantages, expected, rtol=1e-12, atol=1e-14)
    assert len(gaps) > 10
    assert metrics["teacher_tokens"] == len(gaps)
    assert metrics["teacher_gap_sum"].item() == pytest.approx(sum(gaps))
    batch["advantages"] = advantages
    loss, gradient, _ = loss_and_gradient(batch, config)
    logprobs = batch["logprobs"].clone().requires_grad_()
    naive = naive_loss({**batch, "logprobs": logprobs}, config)
    naive.backward()
    torch.testing.assert_close(loss, naive.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient, logprobs.grad, rtol=1e-12, atol=1e-14)


@every_base_and_rule
@pytest.mark.parametrize(
    "sizes", [[6], [1] * 6, [2, 3, 1]], ids=["whole", "ones", "uneven"]
)
def test_microbatches_add_up_to_the_batch(base: str, rule: str, sizes: list[int]):
    batch, config = make_batch(), make_config(base, rule)
    loss, gradient, metrics = loss_and_gradient(batch, config)
    given = {
        "policy_normalizer": policy_normalizer(batch["policy_mask"], config),
        "agent_normalizer": agent_normalizer(
            batch["agent_mask"], batch["advantages"], config
        ),
    }
    split = {name: tensor.split(sizes) for name, tensor in batch.items()}
    parts = [
        loss_and_gradient({name: split[name][k] for name in split}, config, **given)
        for k in range(len(sizes))
    ]
    torch.testing.assert_close(
        sum(part[0] for part in parts), loss, rtol=1e-12, atol=1e-14
    )
    torch.testing.assert_close(
        torch.cat([part[1] for part in parts]), gradient, rtol=1e-12, atol=1e-14
    )
    torch.testing.assert_close(
        merge_metrics(part[2] for part in parts), metrics, rtol=1e-12, atol=1e-14
    )


@every_base_and_rule
def test_the_push_in_the_metrics_is_the_gradient_at_the_logit(base: str, rule: str):
    batch = make_batch()
    batch.pop("ref_logprobs")
    _, gradient, metrics = loss_and_gradient(batch, ObjectiveConfig(base, rule))
    logit_gradient = gradient.abs() * (1 - batch["logprobs"].exp())
    for author in ("policy", "agent"):
        expected = logit_gradient[batch[f"{author}_mask"]].sum()
        torch.testing.assert_close(
            metrics[f"{author}_push"], expected, rtol=1e-12, atol=1e-14
        )
