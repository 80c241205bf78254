"""The base RL algorithms for the policy's own tokens: a function per surrogate."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from aipo_env import ConfigError
from aipo_learner.settings.objective import BASES, CLIP_OF_BASE

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-20 before `exp`: a ratio is within [2.1e-9, 4.9e8]."""


class PolicyTokens(NamedTuple):
    """The policy's own tokens: `[batch, tokens]`, 0 wherever `mask` is False.

    `clip_low` and `clip_high` are distances from 1.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    mask: Tensor
    clip_low: float
    clip_high: float


class Surrogate(NamedTuple):
    """What is maximised, per token.

    Args:
        objective: The value to maximise, J.
        push: dJ / dlog p, detached.
        clipped: bool, where the clip acted.
    """

    objective: Tensor
    push: Tensor
    clipped: Tensor


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """`exp`, with its argument clamped to +-`MAX_LOG_RATIO`; detached."""
    return log_ratio.detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def with_gradient(value: Tensor, slope: Tensor, variable: Tensor) -> Tensor:
    """`value` exactly, with the gradient `slope * grad variable`.

    So the gradient is there too where `exp` was bounded.
    """
    # The difference is 0, whatever the variable, unless that is infinite.
    return value + slope * (variable - variable.detach())


def k3(log_ratio: Tensor) -> Tensor:
    """The k3 estimate of KL(q || p), never negative.

    Args:
        log_ratio: `log p - log q` at tokens drawn from q.
    """
    bounded = log_ratio.detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    # `expm1`: near 0, where p and q nearly agree, e^x - 1 would be all rounding.
    slope = torch.expm1(bounded)
    return with_gradient(slope - bounded, slope, log_ratio)


def token_ratio(tokens: PolicyTokens) -> Tensor:
    """pi / pi_old per token."""
    ratio = bounded_exp(tokens.logprobs - tokens.old_logprobs)
    return with_gradient(ratio, ratio, tokens.logprobs)


def episode_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over each row's own tokens, `[batch, 1]`; 0 for a row that has none."""
    num_tokens = mask.sum(-1, keepdim=True)
    return values.sum(-1, keepdim=True) / num_tokens.clamp(min=1)


def sequence_ratio(tokens: PolicyTokens) -> Tensor:
    """exp(mean log-ratio of the row), with each token's own gradient (GSPO-token)."""
    log_ratio = tokens.logprobs - tokens.old_logprobs
    ratio = bounded_exp(episode_mean(log_ratio, tokens.mask))
    return with_gradient(ratio, ratio, tokens.logprobs)


def clip_ratio(ratio: Tensor, tokens: PolicyTokens) -> Tensor:
    """The ratio held within [1 - clip_low, 1 + clip_high]."""
    return ratio.clamp(1 - tokens.clip_low, 1 + tokens.clip_high)


def pessimistic(ratio: Tensor, tokens: PolicyTokens) -> Surrogate:
    """PPO's min(r A, clip(r) A): no gradient where the clip is the smaller."""
    free = ratio * tokens.advantages
    bounded = clip_ratio(ratio, tokens) * tokens.advantages
    clipped = bounded < free
    # r A has the gradient r A grad log p, so that its push is its value.
    push = free.detach().masked_fill(clipped, 0)
    return Surrogate(torch.minimum(free, bounded), push, clipped)


def clipped_token_ratio(tokens: PolicyTokens) -> Surrogate:
    """GRPO, Dr. GRPO and DAPO (arXiv 2402.03300, 2503.20783, 2503.14476)."""
    return pessimistic(token_ratio(tokens), tokens)


def clipped_sequence_ratio(tokens: PolicyTokens) -> Surrogate:
    """GSPO (arXiv 2507.18071)."""
    return pessimistic(sequence_ratio(tokens), tokens)


def unclipped_ratio(tokens: PolicyTokens) -> Surrogate:
    """RLOO (arXiv 2402.14740): r A."""
    objective = token_ratio(tokens) * tokens.advantages
    nowhere = torch.zeros_like(tokens.mask)
    return Surrogate(objective, objective.detach(), nowhere)


def clipped_weight(tokens: PolicyTokens) -> Surrogate:
    """CISPO (arXiv 2506.13585): sg(clip(r)) A log p; every token keeps a gradient."""
    ratio = token_ratio(tokens).detach()
    bounded = clip_ratio(ratio, tokens)
    push = bounded * tokens.advantages
    return Surrogate(push * tokens.logprobs, push, bounded != ratio)


def gradient_preserving_clip(tokens: PolicyTokens) -> Surrogate:
    """GPPO (arXiv 2508.07629): PPO's value, the bound written sg(clip(r)) r / sg(r)."""
    ratio = token_ratio(tokens)
    bound = clip_ratio(ratio, tokens).detach()
    bounded_ratio = with_gradient(bound, bound, tokens.logprobs)
    free = ratio * tokens.advantages
    bounded = bounded_ratio * tokens.advantages
    objective = torch.minimum(free, bounded)
    return Surrogate(objective, objective.detach(), bounded < free)


def num_episodes(mask: Tensor, max_policy_tokens: int) -> float:
    """Rows of the batch, those without policy tokens included."""
    return float(mask.shape[0])


def num_tokens(mask: Tensor, max_policy_tokens: int) -> float:
    """Policy tokens of the batch."""
    return float(mask.sum())


def num_token_places(mask: Tensor, max_policy_tokens: int) -> float:
    """Rows times a constant, so that neither length nor padding weighs an episode."""
    return float(mask.shape[0] * max_policy_tokens)


class BaseAlgorithm(NamedTuple):
    """One row of the table in docs/objective.md.

    Args:
        surrogate: What is maximised, per token: a pure function of the tokens.
        averages_episode: Whether an episode's tokens are averaged before episodes are
            summed.
        normalizer: Takes bool[batch, tokens] and `max_policy_tokens`; the sum is
            divided by it. That of a batch is the sum of its rows'.
        clip: The clip where the settings have none: distances below and above 1.
        divides_by_std: Whether an advantage is divided by the standard deviation.
        leaves_out_itself: Whether an episode is compared with the mean of the others.
        sampler_ratio: What has a weight against another sampler, where the settings
            do not say: "token", "sequence" or "geometric".
    """

    surrogate: Callable[[PolicyTokens], Surrogate]
    averages_episode: bool
    normalizer: Callable[[Tensor, int], float]
    clip: tuple[float, float] = (0.0, 0.0)
    divides_by_std: bool = True
    leaves_out_itself: bool = False
    sampler_ratio: str = "token"


GRPO = BaseAlgorithm(
    surrogate=clipped_token_ratio,
    averages_episode=True,
    normalizer=num_episodes,
    clip=CLIP_OF_BASE["grpo"],
)
DR_GRPO = BaseAlgorithm(
    surrogate=clipped_token_ratio,
    averages_episode=False,
    normalizer=num_token_places,
    clip=CLIP_OF_BASE["dr_grpo"],
    divides_by_std=False,
)
DAPO = BaseAlgorithm(
    surrogate=clipped_token_ratio,
    averages_episode=False,
    normalizer=num_tokens,
    clip=CLIP_OF_BASE["dapo"],
)
RLOO = BaseAlgorithm(
    surrogate=unclipped_ratio,
    averages_episode=False,
    normalizer=num_episodes,
    clip=CLIP_OF_BASE["rloo"],
    divides_by_std=False,
    leaves_out_itself=True,
)
GSPO = BaseAlgorithm(
    surrogate=clipped_sequence_ratio,
    averages_episode=True,
    normalizer=num_episodes,
    clip=CLIP_OF_BASE["gspo"],
    sampler_ratio="geometric",
)
CISPO = BaseAlgorithm(
    surrogate=clipped_weight,
    averages_episode=False,
    normalizer=num_tokens,
    clip=CLIP_OF_BASE["cispo"],
)
GPPO = BaseAlgorithm(
    surrogate=gradient_preserving_clip,
    averages_episode=False,
    normalizer=num_tokens,
    clip=CLIP_OF_BASE["gppo"],
)
BASE_ALGORITHMS: dict[str, BaseAlgorithm] = {
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": DAPO,
    "rloo": RLOO,
    "gspo": GSPO,
    "cispo": CISPO,
    "gppo": GPPO,
}
"""Ours, by name."""


def divides_by_token_places(algorithm: BaseAlgorithm) -> bool:
    """Return whether `max_policy_tokens` is in what a sum is divided by."""
    one_token = torch.ones(1, 1, dtype=torch.bool)
    sums = [algorithm.normalizer(one_token, places) for places in (1, 2)]
    return sums[0] != sums[1]


def find_base(spec: str) -> BaseAlgorithm:
    """Return one of ours by its name, or the one that a spec names.

    Raises:
        ConfigError: There is none, or it is no `BaseAlgorithm`.
    """
    if spec in BASE_ALGORITHMS:
        return BASE_ALGORITHMS[spec]
    found = BASES.component(spec)
    if not isinstance(found, BaseAlgorithm):
        raise ConfigError(
            f"base {spec!r} is {type(found).__name__}: it must be a BaseAlgorithm, as"
            " those in aipo_learner/learn/base_algorithms.py."
        )
    return found
