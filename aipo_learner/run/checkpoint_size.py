"""How large a checkpoint will be."""

from aipo_learner.settings.train import TrainConfig

_FLOAT32_BYTES = 4
_BYTES = {"float32": _FLOAT32_BYTES, "bfloat16": 2}
"""Of a weight in an exported policy."""
_STATE_BYTES = {"adamw": 8, "adamw_fused": 8, "adamw_8bit": 2}
"""Beside a weight that is trained: the optimiser's two means of it."""
_ADAPTER_COPIES = 2
"""An adapter is saved by itself, and in the state that is resumed from."""


def checkpoint_bytes(config: TrainConfig, *, num_params: int, num_trained: int) -> int:
    """Return the bytes of a checkpoint, but for its tokenizer and what is queued.

    Args:
        config: Of the run.
        num_params: Weights of the policy, adapters not counted.
        num_trained: Weights with a gradient.
    """
    dtype = config.checkpoints.save_dtype
    size = _BYTES[dtype] * num_params
    size += _STATE_BYTES[config.optimizer.name] * num_trained
    if config.compute.lora_rank:
        size += _ADAPTER_COPIES * _FLOAT32_BYTES * num_trained
    elif dtype != "float32":
        # The weights that training goes on with.
        size += _FLOAT32_BYTES * num_params
    return size
