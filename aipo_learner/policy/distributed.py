"""One run in several processes that `torchrun` started, the weights in shards.

Every process, a rank, goes through the same loop.

Each rank samples its share of the groups from a whole copy of the policy; then all
ranks have all episodes, and make the same rows of them. Each computes its share of the
microbatches with a copy whose layers FSDP2 has spread over the ranks, gradients and
optimiser state with them. Rank 0 alone writes files. Without torchrun there is one
rank, and nothing here does anything.
"""

import atexit
import copy
import os
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

T = TypeVar("T")
_PATIENCE = timedelta(hours=4)
"""How long a rank waits for the others: their episodes may wait for slow agents."""
_CPU_BACKEND = "gloo"
_CPU_AND_GPU_BACKENDS = "cpu:gloo,cuda:nccl"
"""What carries tensors between ranks. Python objects are sent as tensors too."""


def join_ranks() -> None:
    """Join the processes that torchrun started, until this one ends."""
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        return
    backend = _CPU_BACKEND
    if torch.cuda.is_available():
        backend = _CPU_AND_GPU_BACKENDS
        # Before anything is put on "cuda", which else is the first GPU for all ranks.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend, timeout=_PATIENCE)
    atexit.register(dist.destroy_process_group)


def rank() -> int:
    """Return this process's number; rank 0 writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def parts(items: Sequence[T], number: int) -> list[Sequence[T]]:
    """Split items, in order, into `number` parts of one size to within 1."""
    total = len(items)
    bounds = [total * part // number for part in range(number + 1)]
    return [items[start:end] for start, end in pairwise(bounds)]


def share(items: Sequence[T]) -> Sequence[T]:
    """Return this rank's part of the items."""
    return parts(items, world_size())[rank()]


def gathered(items: Sequence[T]) -> list[T]:
    """Return the items of all ranks, in the order of the ranks.

    Every rank waits here for every other. So all must call it, or none: what leads to a
    call has to be the same on every rank.
    """
    # Without other ranks, what is here is all.
    of_ranks: list[Sequence[T]] = [items] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(of_ranks, items)
    return [item for part in of_ranks for item in part]


def own_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model that `shard` may take apart: on one rank itself, else a copy."""
    return model if world_size() == 1 else copy.deepcopy(model)


def shard(model: PreTrainedModel, *, is_bfloat16: bool) -> None:
    """Spread a model's weights over the ranks, with FSDP2 (arXiv 2304.11277).

    Layers are gathered one at a time, in bfloat16 if `is_bfloat16`; gradients are
    summed, and the head computed, in float32.
    """
    if world_size() == 1:
        return
    mesh = init_device_mesh(model.device.type, (world_size(),))
    dtype = torch.bfloat16 if is_bfloat16 else None
    precision = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, mesh=mesh, mp_policy=precision)
    # Last, and without a policy: it takes what no layer has, embeddings and head.
    fully_shard(model, mesh=mesh)


@torch.no_grad()
def copy_weights(sharded: PreTrainedModel, whole: PreTrainedModel) -> None:
    """Copy what is trained from the shards of all ranks to this rank's whole model.

    On one rank both are the same model, and there is nothing to copy.
    """
    pairs = zip(sharded.parameters(), whole.parameters(), strict=True)
    for source, target in pairs:
        if isinstance(source, DTensor) and source.requires_grad:
            # Every rank sends its part here: all come by in the same order.
            target.copy_(source.full_tensor())


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor with the parts of all ranks."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
