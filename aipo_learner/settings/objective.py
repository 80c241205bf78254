"""The settings of the objective, checked when they are made."""

from dataclasses import dataclass
from typing import Annotated

from aipo_env import ConfigError
from aipo_learner.settings.checks import (
    Bounds,
    NotNegative,
    OneOf,
    OptionalCount,
    Positive,
    check_settings,
)

CLIP_OF_BASE: dict[str, tuple[float, float]] = {
    "grpo": (0.2, 0.2),
    "dr_grpo": (0.2, 0.2),
    "dapo": (0.2, 0.28),
    # It has no clip.
    "rloo": (0.0, 0.0),
    "gspo": (3e-4, 4e-4),
    "cispo": (0.2, 0.28),
    "gppo": (0.2, 0.28),
}
"""The base algorithms, each with its own `clip_low` and `clip_high`."""

BASELINES = ("split", "union", "per_mode")
"""Whom a rollout is compared with: `learn/advantages.py` says what each means."""

AGENT_RULES = ("floored", "masked", "on_policy", "plain_is", "luffy", "mixture")
"""How strongly agents' tokens are pushed: functions in `learn/agent_rules.py`."""

MAX_POLICY_TOKENS = 1024
"""Dr. GRPO's constant where neither the settings nor a run's rules say another."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which loss to compute.

    `base` and `agent_rule` name the algorithms. `floor` and `ceiling` bound the
    coefficient of `floored`, `luffy_gamma` shapes `luffy`. `agent_weight` multiplies
    the agents' term (lambda), `negative_weight` the agent tokens of episodes with a
    negative advantage (kappa). `clip_low` and `clip_high` are distances from 1; None
    takes the base algorithm's own, and `rloo` has no clip. `kl_coef` multiplies the k3
    penalty against `ref_logprobs`, `entropy_coef` the bonus for the entropy of the
    policy's tokens. `max_policy_tokens` is the constant of `dr_grpo`;
    None is the limit of the same name in the rules of a run's episodes, and 1,024
    outside of a run.
    `sampler_ratio_cap` truncates the importance weight of what other weights or another
    engine sampled; `sampler_ratio` says what has a weight: each "token", the "sequence"
    (the product over an episode's own tokens) or its "geometric" mean; None is
    "geometric" for `gspo`, else "token".

    Raises ConfigError naming the field, its value and the valid ones.
    """

    base: Annotated[str, OneOf(tuple(CLIP_OF_BASE))] = "grpo"
    agent_rule: Annotated[str, OneOf(AGENT_RULES)] = "floored"
    floor: NotNegative = 0.1
    ceiling: Positive = 1.0
    agent_weight: NotNegative = 1.0
    negative_weight: NotNegative = 0.0
    clip_low: Annotated[float | None, Bounds("a number from 0 to 1", 0, 1)] = None
    clip_high: Annotated[float | None, Bounds("a number, 0 or more")] = None
    kl_coef: NotNegative = 0.0
    entropy_coef: NotNegative = 0.0
    luffy_gamma: Positive = 0.1
    max_policy_tokens: OptionalCount = None
    sampler_ratio_cap: Positive = 2.0
    sampler_ratio: Annotated[str | None, OneOf(("token", "sequence", "geometric"))] = (
        None
    )

    def __post_init__(self) -> None:
        check_settings(self, "config: objective.")
        if self.floor > self.ceiling:
            raise ConfigError(
                f"config: objective.floor={self.floor} must be at most"
                f" ceiling={self.ceiling}."
            )

    @property
    def token_places(self) -> int:
        """Dr. GRPO's constant."""
        return self.max_policy_tokens or MAX_POLICY_TOKENS

    def clip_bounds(self) -> tuple[float, float]:
        """Return `clip_low` and `clip_high`; the base algorithm's own where None."""
        own_low, own_high = CLIP_OF_BASE[self.base]
        low = own_low if self.clip_low is None else self.clip_low
        high = own_high if self.clip_high is None else self.clip_high
        return low, high
