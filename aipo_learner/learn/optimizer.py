"""The optimiser of a run: AdamW, as it is told to be computed."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from aipo_env import ConfigError, need
from aipo_learner.policy.distributed import world_size
from aipo_learner.settings.stages import OptimizerSettings


def build_optimizer(
    parameters: Iterable[Parameter], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """Return AdamW (arXiv 1711.05101) of some weights.

    "adamw_fused" computes a step in one kernel; "adamw_8bit" keeps both moments in 8
    bits (arXiv 2110.02861), which takes a quarter of their memory and rounds them.

    Args:
        parameters: The weights.
        settings: Of the optimiser.

    Raises:
        ConfigError: torch has no such kernel for the weights' device, bitsandbytes is
            not installed, or the moments would be in shards.
    """
    options: dict[str, Any] = {
        "lr": settings.lr,
        "betas": (settings.beta1, settings.beta2),
        "weight_decay": settings.weight_decay,
    }
    if settings.name == "adamw_8bit":
        return _eight_bit(parameters, options)
    if settings.name == "adamw":
        return torch.optim.AdamW(parameters, **options)
    weights = list(parameters)
    _check_fused(weights)
    return torch.optim.AdamW(weights, **options, fused=True)


def _check_fused(weights: Sequence[Parameter]) -> None:
    """Raise ConfigError where torch has no kernel for some weights."""
    for device, dtype in {(weight.device, weight.dtype) for weight in weights}:
        # torch says so when the first step is made, which is here one of nothing.
        nothing = Parameter(torch.zeros(1, device=device, dtype=dtype))
        nothing.grad = torch.zeros_like(nothing)
        try:
            torch.optim.AdamW([nothing], fused=True).step()
        except RuntimeError as error:
            raise ConfigError(
                "config: optimizer.name='adamw_fused': torch has no such kernel for"
                f" {dtype} on {device.type} ({error}). Use 'adamw'."
            ) from error


def _eight_bit(
    parameters: Iterable[Parameter], options: dict[str, Any]
) -> torch.optim.Optimizer:
    """Return bitsandbytes' AdamW; raises ConfigError as `build_optimizer`."""
    # Its blocks of moments share a scale, and are none of the tensors that FSDP2 cuts.
    if world_size() > 1:
        raise ConfigError(
            f"config: optimizer.name='adamw_8bit' on {world_size()} ranks: its moments"
            " cannot be in shards. Use 'adamw' or 'adamw_fused', whose moments are"
            " divided among the ranks."
        )
    library = need("bitsandbytes", "bitsandbytes")
    made: torch.optim.Optimizer = library.optim.AdamW8bit(parameters, **options)
    return made
