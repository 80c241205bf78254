"""How the update is computed, as a run's settings."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from aipo_env import ConfigError
from aipo_learner.settings.checks import (
    Natural,
    OneOf,
    OptionalPositive,
    check_settings,
)

ALL_LINEAR = "all-linear"
"""Stands for the names of all linear layers but the head; peft's word for it."""
_LAYER_NAMES = re.compile(r"\s*[\w.]+\s*(,\s*[\w.]+\s*)*")
"""Names of layers with commas between."""


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the update is computed.

    All but what begins with `lora_` change only memory, speed and rounding.
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
    """Train adapters of this rank instead of the weights; exports are merged, with the
    adapter beside them. They bear ten times the rate. 0 is off.
    """
    lora_alpha: OptionalPositive = None
    """What an adapter adds is multiplied by lora_alpha / lora_rank. If not given, twice
    the rank, or that of lora_adapter.
    """
    lora_targets: str = ALL_LINEAR
    """Names of the layers that get an adapter, with commas between: q_proj,v_proj.
    all-linear is every linear layer but the head, or those of lora_adapter.
    """
    lora_adapter: str = ""
    """Folder of a peft adapter of the policy to start from, of rank lora_rank; "" draws
    a new one.
    """

    def __post_init__(self) -> None:
        check_settings(self, "config: compute.")
        # From a file they may be anything.
        targets: Any = self.lora_targets
        adapter: Any = self.lora_adapter
        if not isinstance(targets, str) or not _is_target(targets):
            raise ConfigError(
                f"config: compute.lora_targets={targets!r} must be names of layers with"
                f" commas between, as in q_proj,v_proj, or {ALL_LINEAR}."
            )
        if not isinstance(adapter, str):
            raise ConfigError(
                f"config: compute.lora_adapter={adapter!r} must be the path of a"
                " folder."
            )
        if not self.lora_rank and self.lora_settings != {"lora_rank": 0}:
            name = next(name for name in self.lora_settings if name != "lora_rank")
            raise ConfigError(
                f"config: compute.{name}={self.lora_settings[name]!r} without adapters."
                " Set compute.lora_rank, or leave it out."
            )

    @property
    def lora_settings(self) -> dict[str, Any]:
        """Return the rank, and of the other settings of adapters those that were set.

        They decide what is trained.
        """
        settings = {
            "lora_alpha": self.lora_alpha,
            "lora_targets": self.lora_targets,
            "lora_adapter": self.lora_adapter,
        }
        unset = {"lora_alpha": None, "lora_targets": ALL_LINEAR, "lora_adapter": ""}
        given = {
            name: value for name, value in settings.items() if value != unset[name]
        }
        return {"lora_rank": self.lora_rank, **given}


def _is_target(targets: str) -> bool:
    """Return whether a text names layers."""
    return targets == ALL_LINEAR or _LAYER_NAMES.fullmatch(targets) is not None
