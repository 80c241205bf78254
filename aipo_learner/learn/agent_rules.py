"""How strongly each agent token is pushed: one small function per rule.

An agent token adds `w(A) * A * sg(c) * log p` to the objective. A rule returns c, the
*push*: the factor in front of `A * grad log p`. The rules are our reconstruction unless
an arXiv id is given; docs/objective.md shows them beside each other.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class AgentTokens(NamedTuple):
    """What a rule may look at; every tensor is detached and of one shape.

    `p` is the policy's probability of the token, `ratio` is p / p_old, `agent_ratio` is
    p divided by the agent's own probability of its token (1 when unknown), `floor` is 0
    where A < 0.
    """

    p: Tensor
    ratio: Tensor
    agent_ratio: Tensor
    floor: Tensor
    ceiling: float
    gamma: float


def floored(tokens: AgentTokens) -> Tensor:
    """Importance sampling that neither vanishes on unlikely tokens nor grows without
    bound.

    Worked values (floor 0.1, ceiling 1, agent probability unknown): p = 1e-4 gives 0.1,
    p = 0.3 gives 0.3. Our reconstruction of the coefficient and clip of arXiv
    2605.08401.
    """
    return torch.maximum(tokens.agent_ratio, tokens.floor).clamp(max=tokens.ceiling)


def masked(tokens: AgentTokens) -> Tensor:
    """No gradient from agent tokens (arXiv 2503.09516 and most trainers)."""
    return torch.zeros_like(tokens.p)


def on_policy(tokens: AgentTokens) -> Tensor:
    """The ordinary ratio, as if the policy had written the token itself; no clip."""
    return tokens.ratio


def plain_is(tokens: AgentTokens) -> Tensor:
    """Plain importance sampling: unbiased, and close to 0 on the tokens that would
    teach most.
    """
    return tokens.agent_ratio


def luffy(tokens: AgentTokens) -> Tensor:
    """Gradient of the policy shaping f(x) = x / (x + gamma), arXiv 2504.14945."""
    return tokens.gamma * tokens.agent_ratio / (tokens.agent_ratio + tokens.gamma) ** 2


def mixture(tokens: AgentTokens) -> Tensor:
    """2p / (m + o) * sqrt(1 - p) with m = (o + agent) / 2, arXiv 2508.00222.

    Divided through by p, so that probabilities which underflow cannot give 0 / 0.
    """
    importance = 4 / (3 / tokens.ratio + 1 / tokens.agent_ratio)
    return importance * torch.sqrt((1 - tokens.p).clamp(min=0))


AGENT_RULES: dict[str, Callable[[AgentTokens], Tensor]] = {
    rule.__name__: rule
    for rule in (floored, masked, on_policy, plain_is, luffy, mixture)
}
