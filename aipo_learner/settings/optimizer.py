"""How a step is made of a gradient, as a run's settings."""

from dataclasses import dataclass
from typing import Annotated

from aipo_learner.settings.checks import Beta, NotNegative, OneOf, check_settings

OPTIMIZERS = ("adamw", "adamw_fused", "adamw_8bit")
"""What makes a step of a gradient: `learn/optimizer.py` says what each means."""
DECAYS = ("linear", "cosine", "constant")
"""How the learning rate falls after warm-up."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How a step is made of a gradient, beside its rate."""

    name: Annotated[str, OneOf(OPTIMIZERS)] = "adamw"
    """adamw; adamw_fused: in one kernel, where torch has it; adamw_8bit: moments in 8
    bits, with bitsandbytes, on one rank.
    """
    beta1: Beta = 0.9
    """AdamW's, of the mean of gradients."""
    beta2: Beta = 0.999
    """AdamW's, of the mean of their squares."""
    weight_decay: NotNegative = 0.0
    """AdamW's."""
    decay: Annotated[str, OneOf(DECAYS)] = "linear"
    """How the rate falls to `lr_end`: linear or cosine; constant: not at all."""

    def __post_init__(self) -> None:
        check_settings(self, "config: optimizer.")
