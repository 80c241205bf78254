"""How strongly each agent token is pushed: one small function per rule.

An agent token adds `w(A) * A * sg(c) * log p` to the objective. A rule returns c, the
*push*: the factor in front of `A * grad log p`. The rules are our reconstruction unless
an arXiv id is given; docs/objective.md shows them beside each other.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from aipo_env import ConfigError
from aipo_learner.settings.objective import AGENT_TOKEN_RULES


class AgentTokens(NamedTuple):
    """What a rule may look at; every tensor is detached and of one shape.

    Args:
        p: The policy's probability of the token.
        ratio: p / p_old.
        agent_ratio: p divided by the agent's own probability of its token, which is
            taken for 1 where it is unknown.
        floor: Of the coefficient; 0 where A < 0.
        ceiling: The most that the coefficient may be.
        gamma: Of `luffy`.
    """

    p: Tensor
    ratio: Tensor
    agent_ratio: Tensor
    floor: Tensor
    ceiling: float
    gamma: float


def floored(tokens: AgentTokens) -> Tensor:
    """Importance sampling that is held within a floor and a ceiling.

    So it neither vanishes on unlikely tokens nor grows without bound. Worked values
    (floor 0.1, ceiling 1, agent probability unknown): p = 1e-4 gives 0.1, p = 0.3 gives
    0.3. Our reconstruction of the coefficient and clip of arXiv 2605.08401.
    """
    raised = torch.maximum(tokens.agent_ratio, tokens.floor)
    return raised.clamp(max=tokens.ceiling)


def masked(tokens: AgentTokens) -> Tensor:
    """No gradient from agent tokens (arXiv 2503.09516 and most trainers)."""
    return torch.zeros_like(tokens.p)


def on_policy(tokens: AgentTokens) -> Tensor:
    """The ordinary ratio, as if the policy had written the token itself; no clip."""
    return tokens.ratio


def plain_is(tokens: AgentTokens) -> Tensor:
    """Plain importance sampling: unbiased, and next to 0 where a token teaches most."""
    return tokens.agent_ratio


def luffy(tokens: AgentTokens) -> Tensor:
    """Gradient of the policy shaping f(x) = x / (x + gamma), arXiv 2504.14945."""
    x = tokens.agent_ratio
    gamma = tokens.gamma
    # grad f(x) = f'(x) grad x, and grad x = x grad log p: the push is x f'(x).
    return gamma * x / (x + gamma) ** 2


def mixture(tokens: AgentTokens) -> Tensor:
    """2p / (m + o) * sqrt(1 - p) with m = (o + agent) / 2, arXiv 2508.00222.

    Divided through by p, so that probabilities which underflow cannot give 0 / 0.
    """
    # 2p / ((o + a) / 2 + o) = 4p / (3o + a), with p / o the ratio and p / a the other.
    importance = 4 / (3 / tokens.ratio + 1 / tokens.agent_ratio)
    # Rounding may put p above 1.
    doubt = (1 - tokens.p).clamp(min=0)
    return importance * torch.sqrt(doubt)


AgentRule = Callable[[AgentTokens], Tensor]
"""Returns the coefficient of each token: a pure function, and of each by itself."""
AGENT_RULES: dict[str, AgentRule] = {
    rule.__name__: rule
    for rule in (floored, masked, on_policy, plain_is, luffy, mixture)
}
"""Ours, by name."""


def find_agent_rule(spec: str) -> AgentRule:
    """Return one of ours by its name, or the one that a spec names.

    Raises:
        ConfigError: There is none, or it cannot be called.
    """
    if spec in AGENT_RULES:
        return AGENT_RULES[spec]
    found = AGENT_TOKEN_RULES.component(spec)
    if not callable(found):
        raise ConfigError(
            f"agent_rule {spec!r} is {type(found).__name__}: it must be a function that"
            " takes AgentTokens and returns the coefficient of each."
        )
    rule: AgentRule = found
    return rule
