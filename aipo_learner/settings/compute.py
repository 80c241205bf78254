"""How the update is computed, as a run's settings."""

from dataclasses import dataclass
from typing import Annotated

from aipo_learner.settings.checks import Natural, OneOf, check_settings


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the update is computed.

    All but `lora_rank` change only memory, speed and rounding.
    """

    layout: Annotated[str, OneOf(("auto", "padded", "packed"))] = "auto"
    """padded; or packed: the rows of a pass joined to one sequence without padding, its
    attention block-diagonal (flex_attention on a GPU). auto packs on a GPU, where the
    model can.
    """
    precision: Annotated[str, OneOf(("auto", "float32", "bfloat16"))] = "auto"
    """float32; or bfloat16: layers computed by autocast, weights, gradients and head in
    float32. auto is bfloat16 on a GPU.
    """
    gradient_checkpointing: bool = False
    """Keep only the inputs of each layer for the backward pass and compute the rest
    again.
    """
    compile_layers: bool = False
    """Compile each layer with torch.compile."""
    lora_rank: Natural = 0
    """Train adapters of this rank instead of the weights; exports are merged. They bear
    ten times the rate. 0 is off.
    """

    def __post_init__(self) -> None:
        check_settings(self, "config: compute.")
