"""The optimiser's state on disk: safetensors by the names of parameters, a file of each
rank, read by any number.
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


def save_optimizer(
    folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> "Future[Any]":
    """Write AdamW's state as safetensors, each rank its shards, by the names of the
    parameters in `model`.

    On several ranks the state is only copied when this returns; the future ends once
    all ranks have written.
    """
    parameters = [
        parameter for group in optimizer.param_groups for parameter in group["params"]
    ]
    state = {
        f"{name}.{key}": value
        for (name, _), parameter in zip(
            model.named_parameters(), parameters, strict=True
        )
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    folder.mkdir(exist_ok=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    if state and world_size() > 1:
        saving = async_save(state, storage_writer=writer, process_group=_saving_group())
        assert isinstance(saving, Future)
        return saving
    if state:
        with warnings.catch_warnings(
            action="ignore"
        ):  # torch remarks that there is one process only
            save(state, storage_writer=writer, no_dist=True)
    written: Future[Any] = Future()
    written.set_result(None)
    return written


@functools.cache
def _saving_group() -> dist.ProcessGroup:
    """Return a group of its own for saving, whose messages do not mix with those of the
    training loop.
    """
    return dist.new_group(backend="gloo")


def load_optimizer(
    folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> None:
    """Read what `save_optimizer` wrote on any number of ranks."""
    saved = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if f"{name}.step" in saved:
            moments = {
                key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")
            }
            optimizer.state[parameter] = {"step": torch.tensor(0.0), **moments}
            state |= {
                f"{name}.{key}": value
                for key, value in optimizer.state[parameter].items()
            }
    with warnings.catch_warnings(
        action="ignore"
    ):  # torch remarks that there is one process only
        load(
            state,
            storage_reader=HuggingFaceStorageReader(str(folder)),
            no_dist=world_size() == 1,
        )
