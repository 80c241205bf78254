"""Low-rank adapters by peft (arXiv 2106.09685), put into the model in place.

What is exported is a plain model.
"""

from importlib.util import find_spec

from torch import Tensor
from transformers import PreTrainedModel

from aipo_env import ConfigError

_SCALE = 2
"""What an adapter adds is multiplied by it; peft takes it times the rank."""
_ADAPTER_MARK = ".lora_"
"""Stands in the name of every weight of an adapter, and of no other."""
_BASE_MARK = ".base_layer."
"""Stands, in a layer with an adapter, in the names of its own weights."""
_ADAPTER_NAME = "default"
"""What peft calls an adapter that was given no name."""


def add_adapter(model: PreTrainedModel, rank: int) -> None:
    """Freeze the model; give every linear layer but the head an adapter, scaled by 2.

    The first matrices are drawn from torch's generator, the second are 0: the model's
    outputs stay.

    Args:
        model: Is changed in place.
        rank: Columns of the first matrix and rows of the second.

    Raises:
        ConfigError: peft is not installed.
    """
    if find_spec("peft") is None:
        raise ConfigError(
            f'config: compute.lora_rank={rank} needs peft: pip install "aipo-rl[lora]".'
        )
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=_SCALE * rank,
        # peft leaves the head out of "all-linear" if it knows that it is one, and it
        # knows by the type of the task.
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    inject_adapter_in_model(config, model)


def adapter_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the adapters' weights by name; none of a model without adapters."""
    state = model.state_dict()
    return {name: value for name, value in state.items() if _ADAPTER_MARK in name}


def merged_state(model: PreTrainedModel) -> dict[str, Tensor] | None:
    """Return the weights of a plain model that computes the same; None if it is one.

    The model itself keeps base and adapter apart: adding and taking away again would
    not give the same bits.
    """
    if not hasattr(model, "peft_config"):
        return None
    from peft.tuners.lora import Linear

    state = {
        name.replace(_BASE_MARK, "."): value
        for name, value in model.state_dict().items()
        if _ADAPTER_MARK not in name
    }
    for name, layer in model.named_modules():
        if isinstance(layer, Linear):
            delta = layer.get_delta_weight(_ADAPTER_NAME)
            # A new tensor: what `state` has is the model's own weight.
            state[f"{name}.weight"] = state[f"{name}.weight"] + delta
    return state
