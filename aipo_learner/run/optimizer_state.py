"""The optimiser's state on disk: safetensors by the names of parameters.

AdamW's moments are divided among ranks as the weights are; those of another optimiser
are whole.

Each rank writes a file; any number of ranks reads them.
"""

import functools
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from transformers import PreTrainedModel

from aipo_learner.policy.distributed import world_size

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's running means of a parameter's gradient and of its square."""
_MOMENT_8BIT = "state1"
"""What bitsandbytes calls the first of them."""


def save_optimizer(
    folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> "Future[Any]":
    """Write an optimiser's state as safetensors, each rank its shards.

    On several ranks the state is only copied when this returns; the future ends once
    all ranks have written.

    Args:
        folder: Made if it is not there; its own folder is.
        model: Names the parameters.
        optimizer: Of all the model's parameters, in the model's order.
    """
    state = _named_state(model, optimizer)
    folder.mkdir(exist_ok=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    if state and world_size() > 1:
        saving = async_save(state, storage_writer=writer, process_group=_saving_group())
        assert isinstance(saving, Future)
        return saving
    if state:
        # torch remarks that there is one process only.
        with warnings.catch_warnings(action="ignore"):
            save(state, storage_writer=writer, no_dist=True)
    written: Future[Any] = Future()
    written.set_result(None)
    return written


def _named_state(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return the optimiser's tensors by "PARAMETER.KEY"; none before its first step."""
    parameters: list[Tensor] = []
    for group in optimizer.param_groups:
        parameters.extend(group["params"])
    state: dict[str, Tensor] = {}
    # By order, since an optimiser knows no names.
    for (name, _), parameter in zip(model.named_parameters(), parameters, strict=True):
        for key, value in optimizer.state.get(parameter, {}).items():
            # A number of steps may be a plain one.
            state[f"{name}.{key}"] = torch.as_tensor(value)
    return state


@functools.cache
def _saving_group() -> dist.ProcessGroup:
    """Return a process group for saving alone, made once.

    Its messages are sent from another thread, and do not mix with the training loop's.
    """
    return dist.new_group(backend="gloo")


def load_optimizer(
    folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> None:
    """Read what `save_optimizer` wrote on any number of ranks.

    A parameter that has no state there, since it never had a gradient, gets none.
    """
    metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
    names = metadata.state_dict_metadata
    # torch reads into tensors that are there: each rank makes its shards of them.
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if f"{name}.step" not in names:
            continue
        # The optimiser holds the very tensors that are then filled.
        if f"{name}.{_MOMENTS[0]}" in names:
            optimizer.state[parameter] = _empty_moments(parameter, optimizer)
        else:
            optimizer.state[parameter] = _empty_whole(name, parameter, names)
        for key, value in optimizer.state[parameter].items():
            state[f"{name}.{key}"] = value
    # torch remarks that there is one process only.
    with warnings.catch_warnings(action="ignore"):
        load(
            state,
            storage_reader=HuggingFaceStorageReader(str(folder)),
            no_dist=world_size() == 1,
        )
    for of_parameter in optimizer.state.values():
        # AdamW counts steps in a tensor of float32, others in a plain number.
        if not of_parameter["step"].is_floating_point():
            of_parameter["step"] = of_parameter["step"].item()


def check_optimizer(folder: Path, model: PreTrainedModel, name: str) -> None:
    """Check that a state in a folder is one for an optimiser of a model.

    Args:
        folder: As `save_optimizer` wrote it.
        model: Whose parameters are trained.
        name: Of the optimiser, as in `OptimizerConfig`.

    Raises:
        ValueError: It cannot be read, or is of another optimiser or model.
    """
    try:
        metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
    # torch and safetensors have many kinds of errors for it.
    except Exception as error:
        raise ValueError(f"no state of an optimiser ({error}).") from error
    states = metadata.state_dict_metadata
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    has_moments = name != "adamw_8bit"
    for full_name, saved in states.items():
        owner, _, key = full_name.rpartition(".")
        if owner not in shapes:
            raise ValueError(f"it is of another model, with a weight {owner!r}.")
        assert isinstance(saved, TensorStorageMetadata)
        if key in _MOMENTS and tuple(saved.size) != tuple(shapes[owner]):
            raise ValueError(
                f"it is of another model, whose weight {owner!r} has the shape"
                f" {tuple(saved.size)}; here it has {tuple(shapes[owner])}."
            )
        if key in _MOMENTS and not has_moments:
            raise ValueError(f"it is AdamW's in float32, and none of {name}.")
        if key == _MOMENT_8BIT and has_moments:
            raise ValueError(f"it is AdamW's in 8 bits, and none of {name}.")


def _empty_moments(
    parameter: Tensor, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return AdamW's state of a parameter, of zeros."""
    # One kernel for all wants the number of steps where the parameter is.
    device = parameter.device if optimizer.defaults.get("fused") else "cpu"
    moments = {key: torch.zeros_like(parameter) for key in _MOMENTS}
    return {"step": torch.tensor(0.0, device=device), **moments}


def _empty_whole(
    name: str, parameter: Tensor, names: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the state of a parameter as the checkpoint has it, of zeros.

    Args:
        name: Of the parameter.
        parameter: Says on which device.
        names: What the checkpoint holds, by name.
    """
    state: dict[str, Tensor] = {}
    for full_name, saved in names.items():
        owner, _, key = full_name.rpartition(".")
        if owner == name:
            state[key] = torch.zeros(
                saved.size, dtype=saved.properties.dtype, device=parameter.device
            )
    return state
