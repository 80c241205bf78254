"""Low-rank adapters by peft (arXiv 2106.09685), put into the model in place; what is
exported is a plain model.
"""

from importlib.util import find_spec

from torch import Tensor
from transformers import PreTrainedModel

from aipo_env import ConfigError


def add_adapter(model: PreTrainedModel, rank: int) -> None:
    """Freeze the model and give every linear layer but the head an adapter of this
    rank, scaled by 2.

    The first matrices are drawn from torch's generator, the second are 0: the model's
    outputs stay.

    Raises:
        ConfigError: peft is not installed.
    """
    if find_spec("peft") is None:
        raise ConfigError(
            f'config: compute.lora_rank={rank} needs peft: pip install "aipo-rl[lora]".'
        )
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    inject_adapter_in_model(config, model)


def adapter_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the adapters' weights by name; none of a model without adapters."""
    return {
        name: value for name, value in model.state_dict().items() if ".lora_" in name
    }


def merged_state(model: PreTrainedModel) -> dict[str, Tensor] | None:
    """Return the weights of the plain model that computes the same; None where there
    are no adapters.

    The model itself keeps base and adapter apart: adding and taking away again would
    not give the same bits.
    """
    if not hasattr(model, "peft_config"):
        return None
    from peft.tuners.lora import Linear

    state = {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in model.named_modules():
        if isinstance(layer, Linear):
            state[f"{name}.weight"] = state[f"{name}.weight"] + layer.get_delta_weight(
                "default"
            )
    return state
