"""What each stage of a run is told of its settings: its part, and no more.

The fields are those of `TrainConfig` of the same names, which says what they mean.
"""

from dataclasses import dataclass

from aipo_learner.settings.aid import AidSettings
from aipo_learner.settings.objective import ObjectiveConfig


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """Which episodes a run samples."""

    seed: int
    num_steps: int
    groups_per_step: int
    group_size: int
    max_staleness: int
    independence: str
    aid: AidSettings
    anneal_from: float
    anneal_shape: str = "linear"
    max_refills: int = 0


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """What is added to the verdict's reward."""

    consult_bonus: float
    consult_cost: float
    overlong_buffer: int


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How a gradient changes the weights."""

    name: str
    lr: float
    beta1: float
    beta2: float
    weight_decay: float


@dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """How a batch of rows changes the weights."""

    objective: ObjectiveConfig
    updates_per_step: int
    num_minibatches: int = 1
    max_grad_norm: float
    microbatch_tokens: int
