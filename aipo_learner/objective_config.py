"""The settings of the objective, checked when they are made."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

from aipo_env import ConfigError
from aipo_learner.agent_rules import AGENT_RULES
from aipo_learner.base_algorithms import BASE_ALGORITHMS

SAMPLER_RATIOS = ("token", "sequence", "geometric")


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which loss to compute.

    `base` and `agent_rule` name the algorithms. `floor` and `ceiling` bound the coefficient of
    `floored`, `luffy_gamma` shapes `luffy`. `agent_weight` multiplies the agents' term (lambda),
    `negative_weight` the agent tokens of episodes with a negative advantage (kappa). `clip_low`
    and `clip_high` are distances from 1; None takes the base algorithm's own, and `rloo` has no
    clip. `kl_coef` multiplies the k3 penalty against `ref_logprobs`. `max_policy_tokens` is the
    constant of `dr_grpo`. `sampler_ratio_cap` truncates the importance weight of what other weights or
    another engine sampled; `sampler_ratio` says what has a weight: each "token", the "sequence" (the product
    over an episode's own tokens) or its "geometric" mean; None is "geometric" for `gspo`, else "token".

    Raises ConfigError naming the field, its value and the valid ones.
    """

    base: str = "grpo"
    agent_rule: str = "floored"
    floor: float = 0.1
    ceiling: float = 1.0
    agent_weight: float = 1.0
    negative_weight: float = 0.0
    clip_low: float | None = None
    clip_high: float | None = None
    kl_coef: float = 0.0
    luffy_gamma: float = 0.1
    max_policy_tokens: int = 1024
    sampler_ratio_cap: float = 2.0
    sampler_ratio: str | None = None

    def __post_init__(self) -> None:
        _check_name("base", self.base, BASE_ALGORITHMS)
        _check_name("agent_rule", self.agent_rule, AGENT_RULES)
        if self.sampler_ratio is not None:
            _check_name("sampler_ratio", self.sampler_ratio, SAMPLER_RATIOS)
        for field in ("ceiling", "luffy_gamma", "sampler_ratio_cap"):
            _check_above_zero(field, getattr(self, field))
        _check_range("floor", self.floor, 0, self.ceiling, "ceiling")
        for field in ("agent_weight", "negative_weight", "kl_coef"):
            _check_range(field, getattr(self, field), 0)
        if self.clip_low is not None:
            _check_range("clip_low", self.clip_low, 0, 1)
        if self.clip_high is not None:
            _check_range("clip_high", self.clip_high, 0)
        if not isinstance(self.max_policy_tokens, int) or self.max_policy_tokens < 1:
            raise _error("max_policy_tokens", self.max_policy_tokens, "a whole number from 1 up")

    def clip_bounds(self) -> tuple[float, float]:
        """`clip_low` and `clip_high`, the base algorithm's own where they are None."""
        own = BASE_ALGORITHMS[self.base]
        return (
            own.clip_low if self.clip_low is None else self.clip_low,
            own.clip_high if self.clip_high is None else self.clip_high,
        )


def _check_name(field: str, value: object, valid: Iterable[str]) -> None:
    names = list(valid)
    if value not in names:
        raise _error(field, value, f"one of {', '.join(names)}")


def _check_above_zero(field: str, value: object) -> None:
    if not _is_finite(value) or value <= 0:
        raise _error(field, value, "a finite number above 0")


def _check_range(field: str, value: object, low: float, high: float = math.inf, high_name: str = "") -> None:
    if not _is_finite(value) or not low <= value <= high:
        bound = "" if high == math.inf else f" to {f'{high_name}=' if high_name else ''}{high}"
        raise _error(field, value, f"a finite number from {low}{bound or ' up'}")


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _error(field: str, value: object, valid: str) -> ConfigError:
    return ConfigError(f"ObjectiveConfig.{field} is {value!r}: it must be {valid}.")
