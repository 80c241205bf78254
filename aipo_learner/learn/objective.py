"""The AIPO loss: a base RL algorithm on the policy's tokens, a rule on its agents'.

Beside these two, and off by default, cross-entropy on what the policy was shown.

Our reconstruction of the objective of arXiv 2605.08401; docs/objective.md shows each
equation beside the function that computes it. Everything here is pure: tensors in,
tensors out.
"""

import math
from typing import Any

import torch
from torch import Tensor

from aipo_env import ConfigError
from aipo_learner.learn.agent_rules import AgentTokens, find_agent_rule
from aipo_learner.learn.base_algorithms import (
    BaseAlgorithm,
    PolicyTokens,
    Surrogate,
    bounded_exp,
    episode_mean,
    find_base,
    k3,
)
from aipo_learner.learn.metrics import AGENT_FREE, Metrics
from aipo_learner.settings.objective import ObjectiveConfig

_FLOATS = (torch.float32, torch.float64)
"""What is computed in: bfloat16 would round ratios to steps of a clip's size."""

__all__ = [
    "ObjectiveConfig",
    "agent_coefficient",
    "agent_normalizer",
    "aipo_loss",
    "observation_normalizer",
    "policy_normalizer",
]


def aipo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    policy_mask: Tensor,
    agent_mask: Tensor,
    config: ObjectiveConfig,
    *,
    agent_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
    entropy: Tensor | None = None,
    is_rewritten: Tensor | None = None,
    observation_mask: Tensor | None = None,
    policy_normalizer: float | None = None,
    agent_normalizer: float | None = None,
    observation_normalizer: float | None = None,
) -> tuple[Tensor, Metrics]:
    """-(sum over policy tokens / Z_policy + agent_weight * sum over agents' / Z_agent).

    The first sum is of J, what the base algorithm maximises; the second of what the
    rule for agents' tokens does. With `observation_weight`, minus that times the sum of
    log p over observation tokens / Z_observation is added.

    Tensors are `[batch, tokens]`, float32 or float64 (all the same), masks bool;
    `advantages` may be `[batch]`. One row is one episode. Only `logprobs` receives a
    gradient, and `entropy`, in nats, where `entropy_coef` is set: exactly 0 where
    no mask is set, and there every tensor may hold anything, NaN and +-inf included.

    `old_logprobs` are the learner's own at the rollout's weights, for agent tokens too.
    `agent_logprobs` are the agent's of its tokens (NaN or None: probability 1);
    `sampler_logprobs` those of the engine that sampled (NaN or None: weight 1);
    `is_rewritten`, bool `[batch]`, says which rows were sampled in another context, and
    changes only under which names metrics of the sampler are (None: no row was).
    `observation_mask`, bool, is read where `observation_weight` is set, and overlaps
    with `policy_mask` nowhere, with `agent_mask` only under the rule `masked`. The
    normalizers are the whole batch's, from the functions of the same names, so that the
    losses of microbatches add up to the loss of the batch; None computes them from
    these rows. A row without policy tokens adds exactly 0 to the policy's term.

    Returns the scalar loss and detached metrics for `merge_metrics` and `summarize`.
    Raises ValueError for a wrong shape or dtype, overlapping masks, `kl_coef` without
    `ref_logprobs`, `entropy_coef` without `entropy` or with one that has no gradient
    where `logprobs` have, `observation_weight` without `observation_mask`, a teacher
    without advantages per token, a negative or NaN normalizer. Raises ConfigError for a
    base or a rule of your own that cannot be found, or returns what is no tensor of the
    tokens' shape and dtype.
    """
    if logprobs.dim() != 2 or logprobs.dtype not in _FLOATS:
        raise ValueError(
            f"logprobs is {logprobs.dtype} of shape {list(logprobs.shape)}: it must be"
            " float32 or float64 of shape [batch, tokens]."
        )
    if config.has_teacher and advantages.dim() == 1:
        raise ValueError(
            f"objective.teacher is {config.teacher!r}: pass advantages of shape [batch,"
            " tokens], as taught_advantages makes them; or set teacher to ''."
        )
    advantages = per_token(advantages.detach(), logprobs)
    optional = {
        "agent_logprobs": agent_logprobs,
        "sampler_logprobs": sampler_logprobs,
        "ref_logprobs": ref_logprobs,
        "entropy": entropy,
    }
    _check(
        logprobs,
        logprobs.dtype,
        old_logprobs=old_logprobs,
        advantages=advantages,
        **optional,
    )
    _check(logprobs, torch.bool, policy_mask=policy_mask, agent_mask=agent_mask)
    _check_overlap(policy_mask=policy_mask, agent_mask=agent_mask)
    if config.kl_coef and ref_logprobs is None:
        raise ValueError(
            f"kl_coef is {config.kl_coef}: pass ref_logprobs, or set kl_coef to 0."
        )
    if config.entropy_coef:
        _check_entropy(entropy, logprobs, config)
    else:
        entropy = None
    algorithm = find_base(config.base)
    clip_low, clip_high = config.clip_bounds(algorithm.clip)
    own = PolicyTokens(
        logprobs=_select(policy_mask, logprobs),
        old_logprobs=_select(policy_mask, old_logprobs.detach()),
        advantages=_select(policy_mask, advantages),
        mask=policy_mask,
        clip_low=clip_low,
        clip_high=clip_high,
    )
    if is_rewritten is None:
        is_rewritten = torch.zeros_like(policy_mask[:, 0])
    policy_loss, policy_metrics = _policy_term(
        own,
        algorithm,
        config,
        sampler_logprobs,
        ref_logprobs,
        entropy,
        is_rewritten,
        policy_normalizer,
    )
    if agent_logprobs is not None:
        agent_logprobs = _select(agent_mask, agent_logprobs.detach())
    agent_loss, agent_metrics = _agent_term(
        _select(agent_mask, logprobs),
        _select(agent_mask, old_logprobs.detach()),
        agent_logprobs,
        _select(agent_mask, advantages),
        agent_mask,
        config,
        agent_normalizer,
    )
    loss = policy_loss + agent_loss
    metrics = policy_metrics | agent_metrics
    if not config.observation_weight:
        return loss, metrics
    seen_mask = _checked_observations(observation_mask, policy_mask, agent_mask, config)
    observation_loss, observation_metrics = _observation_term(
        _select(seen_mask, logprobs), seen_mask, config, observation_normalizer
    )
    return loss + observation_loss, metrics | observation_metrics


def policy_normalizer(policy_mask: Tensor, config: ObjectiveConfig) -> float:
    """Z_policy of a whole batch, from its `[batch, tokens]` mask.

    Over ranks, add the normalizers up.
    """
    return find_base(config.base).normalizer(policy_mask, config.token_places)


def agent_normalizer(
    agent_mask: Tensor, advantages: Tensor, config: ObjectiveConfig
) -> float:
    """Z_agent of a whole batch: the agent tokens whose weight times advantage is not 0.

    `advantages` is `[batch]` or `[batch, tokens]`; over ranks, add the normalizers up.
    """
    weighted = _weighted_advantages(per_token(advantages, agent_mask), config)
    return float((_select(agent_mask, weighted) != 0).sum())


def observation_normalizer(observation_mask: Tensor) -> float:
    """Z_observation of a whole batch: its observation tokens.

    Over ranks, add the normalizers up.
    """
    return float(observation_mask.sum())


def agent_coefficient(
    logprobs: Tensor,
    old_logprobs: Tensor,
    agent_logprobs: Tensor | None,
    advantages: Tensor,
    config: ObjectiveConfig,
) -> Tensor:
    """The coefficient c of every token, by `config.agent_rule`: `[batch, tokens]`.

    It is detached. Arguments as in `aipo_loss`. c leaves out the advantage and its
    `negative_weight`; read it at agent tokens only, elsewhere it has no meaning.
    """
    advantages = per_token(advantages, logprobs)
    tokens = _agent_tokens(logprobs, old_logprobs, agent_logprobs, advantages, config)
    return _coefficient(tokens, config)


def _policy_term(
    own: PolicyTokens,
    algorithm: BaseAlgorithm,
    config: ObjectiveConfig,
    sampler_logprobs: Tensor | None,
    ref_logprobs: Tensor | None,
    entropy: Tensor | None,
    is_rewritten: Tensor,
    normalizer: float | None,
) -> tuple[Tensor, Metrics]:
    """The policy tokens' part of the loss, and its metrics."""
    surrogate = _surrogate(own, algorithm, config)
    ratio = bounded_exp(own.logprobs - own.old_logprobs)
    metrics = {
        "policy_tokens": _count(own.mask, ratio),
        "clip_count": _count(surrogate.clipped & own.mask, ratio),
        "ratio_sum": _select(own.mask, ratio).sum(),
        "ratio_max": _select(own.mask, ratio).max(),
    }
    share = _token_share(own, algorithm.averages_episode)
    weight = share
    if sampler_logprobs is not None:
        sampler_weight, sampler_metrics = _sampler_correction(
            own,
            sampler_logprobs,
            # The level of the base algorithm's own ratio, unless another is set.
            config.sampler_ratio or algorithm.sampler_ratio,
            config.sampler_ratio_cap,
            is_rewritten,
        )
        weight = share * sampler_weight
        metrics |= sampler_metrics
    objective = surrogate.objective * weight
    if ref_logprobs is not None:
        own_ref_logprobs = _select(own.mask, ref_logprobs.detach())
        kl_ref = k3(own_ref_logprobs - own.logprobs)
        objective = objective - config.kl_coef * share * kl_ref
        metrics["kl_ref_sum"] = kl_ref.detach().sum()
    if entropy is not None:
        own_entropy = _select(own.mask, entropy)
        objective = objective + config.entropy_coef * share * own_entropy
    z = policy_normalizer(own.mask, config) if normalizer is None else normalizer
    loss = _divide(-objective.sum(), z, "policy_normalizer")
    # d log p / d (the token's own logit) = 1 - p.
    p = own.logprobs.detach().exp()
    logit_push = (surrogate.push * weight).abs() * (1 - p)
    metrics["policy_push"] = _divide(logit_push.sum(), z, "policy_normalizer")
    metrics["policy_loss"] = loss.detach()
    return loss, metrics


def _token_share(own: PolicyTokens, averages_episode: bool) -> Tensor:
    """1 / n_i where the base algorithm averages an episode's n_i tokens, else 1.

    `[batch, 1]`.
    """
    num_tokens = own.mask.sum(-1, keepdim=True)
    # An episode without tokens adds a sum over nothing: 0, whatever it is divided by.
    divisor = num_tokens.clamp(min=1).to(own.logprobs.dtype)
    return 1 / divisor if averages_episode else torch.ones_like(divisor)


def _sampler_correction(
    own: PolicyTokens,
    sampler_logprobs: Tensor,
    level: str,
    cap: float,
    is_rewritten: Tensor,
) -> tuple[Tensor, Metrics]:
    """min(p_old / p_sampler, cap), detached, per token or per row, and its metrics.

    Only own tokens with a known probability enter it; an agent's token never does.
    """
    known = own.mask & ~sampler_logprobs.isnan()
    log_ratio = _select(known, own.old_logprobs - sampler_logprobs.detach())
    divergence = k3(log_ratio)
    if level == "geometric":
        log_ratio = episode_mean(log_ratio, own.mask)
    elif level == "sequence":
        log_ratio = log_ratio.sum(-1, keepdim=True)
    weight = bounded_exp(log_ratio).clamp(max=cap)
    rewritten = is_rewritten[:, None]
    metrics: Metrics = {}
    for context, rows in (("", ~rewritten), (AGENT_FREE, rewritten)):
        counted = known & rows
        # A weight per row counts once for each of its tokens.
        used = _select(counted, weight)
        metrics |= {
            f"kl_sampler_sum{context}": _select(counted, divergence).sum(),
            f"sampler_tokens{context}": _count(counted, log_ratio),
            f"sampler_weight_sum{context}": used.sum(),
            f"sampler_weight_square_sum{context}": (used**2).sum(),
        }
    return weight, metrics


def _agent_term(
    logprobs: Tensor,
    old_logprobs: Tensor,
    agent_logprobs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    config: ObjectiveConfig,
    normalizer: float | None,
) -> tuple[Tensor, Metrics]:
    """The agent tokens' part of the loss, `agent_weight` included, and its metrics."""
    tokens = _agent_tokens(logprobs, old_logprobs, agent_logprobs, advantages, config)
    coefficient = _coefficient(tokens, config)
    push = config.agent_weight * _weighted_advantages(advantages, config) * coefficient
    z = agent_normalizer(mask, advantages, config) if normalizer is None else normalizer
    loss = _divide(-(push * logprobs).sum(), z, "agent_normalizer")
    # As for the policy's tokens: 1 - p leads from log p to the token's own logit.
    logit_push = (push.abs() * (1 - tokens.p)).sum()
    return loss, {
        "agent_loss": loss.detach(),
        "agent_push": _divide(logit_push, z, "agent_normalizer"),
        "agent_tokens": _count(mask, logprobs),
        "agent_p_sum": _select(mask, tokens.p).sum(),
        "agent_below_floor": _count(
            mask & (tokens.agent_ratio < config.floor), logprobs
        ),
        "agent_coefficient_sum": _select(mask, coefficient).sum(),
    }


def _observation_term(
    logprobs: Tensor, mask: Tensor, config: ObjectiveConfig, normalizer: float | None
) -> tuple[Tensor, Metrics]:
    """The observation tokens' part of the loss, weight included, and its metrics.

    ECHO (arXiv 2605.24517): cross-entropy, whatever the episode earned.
    """
    weight = config.observation_weight
    z = observation_normalizer(mask) if normalizer is None else normalizer
    loss = _divide(-weight * logprobs.sum(), z, "observation_normalizer")
    p = _select(mask, logprobs.detach().exp())
    num_tokens = _count(mask, logprobs)
    # As for the policy's tokens: 1 - p leads from log p to the token's own logit.
    logit_push = weight * (num_tokens - p.sum())
    return loss, {
        "observation_loss": loss.detach(),
        "observation_push": _divide(logit_push, z, "observation_normalizer"),
        "observation_tokens": num_tokens,
        "observation_p_sum": p.sum(),
    }


def _coefficient(tokens: AgentTokens, config: ObjectiveConfig) -> Tensor:
    """What the rule for agents' tokens returns.

    Raises:
        ConfigError: It is no tensor like the tokens'.
    """
    coefficient = find_agent_rule(config.agent_rule)(tokens)
    who = f"agent_rule {config.agent_rule!r}: its coefficient"
    _check_returned(who, coefficient, tokens.p, tokens.p.dtype)
    return coefficient.detach()


def _surrogate(
    own: PolicyTokens, algorithm: BaseAlgorithm, config: ObjectiveConfig
) -> Surrogate:
    """What the base algorithm maximises.

    Raises:
        ConfigError: It is no Surrogate of tensors like the tokens'.
    """
    surrogate: Any = algorithm.surrogate(own)
    who = f"base {config.base!r}: what its surrogate returns"
    if not isinstance(surrogate, Surrogate):
        raise ConfigError(
            f"{who} is {type(surrogate).__name__}: it must be a Surrogate."
        )
    dtype = own.logprobs.dtype
    _check_returned(f"{who} as objective", surrogate.objective, own.logprobs, dtype)
    _check_returned(f"{who} as push", surrogate.push, own.logprobs, dtype)
    _check_returned(f"{who} as clipped", surrogate.clipped, own.logprobs, torch.bool)
    return surrogate


def _check_returned(what: str, value: Any, like: Tensor, dtype: torch.dtype) -> None:
    """Raise ConfigError unless what somebody's function returned is a fitting tensor.

    A wrong shape would be spread over the batch in silence.
    """
    if not isinstance(value, Tensor):
        raise ConfigError(f"{what} is {type(value).__name__}: it must be a tensor.")
    if value.shape != like.shape or value.dtype != dtype:
        raise ConfigError(
            f"{what} is {value.dtype} of shape {list(value.shape)}: it must be {dtype}"
            f" of the tokens' shape, {list(like.shape)}."
        )


def _agent_tokens(
    logprobs: Tensor,
    old_logprobs: Tensor,
    agent_logprobs: Tensor | None,
    advantages: Tensor,
    config: ObjectiveConfig,
) -> AgentTokens:
    logprobs = logprobs.detach()
    if agent_logprobs is None:
        agent_logprobs = torch.zeros_like(logprobs)
    known_logprobs = torch.where(agent_logprobs.isnan(), 0.0, agent_logprobs)
    # A floor under a negative advantage would drive unlikely tokens towards probability
    # 0.
    full_floor = torch.full_like(logprobs, config.floor)
    floor = torch.where(advantages < 0, 0.0, full_floor)
    return AgentTokens(
        p=logprobs.exp(),
        ratio=bounded_exp(logprobs - old_logprobs),
        agent_ratio=bounded_exp(logprobs - known_logprobs),
        floor=floor,
        ceiling=config.ceiling,
        gamma=config.luffy_gamma,
    )


def _weighted_advantages(advantages: Tensor, config: ObjectiveConfig) -> Tensor:
    """w(A) * A: negative advantages count `negative_weight` times."""
    return torch.where(advantages < 0, config.negative_weight * advantages, advantages)


def _select(mask: Tensor, values: Tensor) -> Tensor:
    """`values` where the mask is set, 0 elsewhere: garbage there goes no further.

    It is no product with the mask, for NaN and infinity times 0 are NaN.
    """
    return torch.where(mask, values, 0.0)


def _count(mask: Tensor, like: Tensor) -> Tensor:
    return mask.sum().to(like.dtype)


def _divide(total: Tensor, normalizer: float, name: str) -> Tensor:
    """`total / normalizer`, or 0, gradient included, where that is 0.

    Raises:
        ValueError: `normalizer` is negative or not finite.
    """
    if not 0 <= normalizer < math.inf:
        raise ValueError(
            f"{name} is {normalizer}: it must be a finite number, 0 or more."
        )
    if not normalizer:
        # Still of the graph: a backward pass finds its way to every weight.
        return total * 0.0
    return total / normalizer


def per_token(advantages: Tensor, like: Tensor) -> Tensor:
    """`[batch]` or `[batch, tokens]` advantages as `[batch, tokens]`.

    Raises:
        ValueError: They have another shape.
    """
    if advantages.shape == like.shape:
        return advantages
    if advantages.shape == like.shape[:1]:
        return advantages.unsqueeze(-1).expand(like.shape)
    raise ValueError(
        f"advantages has shape {list(advantages.shape)}: it must be"
        f" {list(like.shape[:1])} (one per row) or {list(like.shape)} (one per token)."
    )


def _check(like: Tensor, dtype: torch.dtype, **tensors: Tensor | None) -> None:
    """Raise ValueError for a tensor of another shape or dtype; None is as good."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != like.shape:
            raise ValueError(
                f"{name} has shape {list(tensor.shape)}: it must have the shape of"
                f" logprobs, {list(like.shape)}."
            )
        if tensor is not None and tensor.dtype != dtype:
            raise ValueError(f"{name} is {tensor.dtype}: it must be {dtype}.")


def _check_entropy(
    entropy: Tensor | None, logprobs: Tensor, config: ObjectiveConfig
) -> None:
    """Raise ValueError where a bonus could not change anything."""
    if entropy is None or (logprobs.requires_grad and not entropy.requires_grad):
        raise ValueError(
            f"entropy_coef is {config.entropy_coef}: pass entropy, with its gradient,"
            " as LearnerForward computes it with entropy_gradient=True; or set"
            " entropy_coef to 0."
        )


def _checked_observations(
    observation_mask: Tensor | None,
    policy_mask: Tensor,
    agent_mask: Tensor,
    config: ObjectiveConfig,
) -> Tensor:
    """Return the mask of observation tokens.

    Raises:
        ValueError: There is none, it does not fit, or a token in it is learned in
            another way too.
    """
    if observation_mask is None:
        raise ValueError(
            f"observation_weight is {config.observation_weight}: pass"
            " observation_mask, as rows have it that were made with the objective; or"
            " set observation_weight to 0."
        )
    _check(policy_mask, torch.bool, observation_mask=observation_mask)
    _check_overlap(policy_mask=policy_mask, observation_mask=observation_mask)
    # Under `masked` nothing of an agent's tokens is learned but this.
    if config.agent_rule != "masked":
        _check_overlap(agent_mask=agent_mask, observation_mask=observation_mask)
    return observation_mask


def _check_overlap(**masks: Tensor) -> None:
    """Raise ValueError where a token is in both of two masks."""
    (name, mask), (other_name, other) = masks.items()
    both = mask & other
    if not both.any():
        return
    row, token = both.nonzero()[0].tolist()
    raise ValueError(
        f"{name} and {other_name}, both {list(both.shape)}, overlap at"
        f" {int(both.sum())} tokens, the first in row {row} at token {token}: a"
        " token has one author."
    )
