"""The optimiser's state on disk: safetensors by the names of parameters.

Each rank writes a file; any number of ranks reads them.
"""

import functools
import warnings
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
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from transformers import PreTrainedModel

from aipo_learner.policy.distributed import world_size

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's running means of a parameter's gradient and of its square."""


def save_optimizer(
    folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> "Future[Any]":
    """Write AdamW's state as safetensors, each rank its shards.

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
            state[f"{name}.{key}"] = value
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
        moments = {key: torch.zeros_like(parameter) for key in _MOMENTS}
        # The optimiser holds the very tensors that are then filled.
        optimizer.state[parameter] = {"step": torch.tensor(0.0), **moments}
        for key, value in optimizer.state[parameter].items():
            state[f"{name}.{key}"] = value
    # torch remarks that there is one process only.
    with warnings.catch_warnings(action="ignore"):
        load(
            state,
            storage_reader=HuggingFaceStorageReader(str(folder)),
            no_dist=world_size() == 1,
        )
