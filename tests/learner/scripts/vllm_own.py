"""Trains the toy recipe for a few steps with vLLM in process; prints the sampler's
metrics and vLLM's surface.
"""

import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from vllm.distributed.weight_transfer import (
    HTTPVLLMWeightSyncClient,
    ModuleSource,
    WeightTransferTrainerFactory,
)
from vllm.distributed.weight_transfer.base import VLLMWeightSyncClient
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.samplers.vllm.weights import OwnWeightClient
from aipo_learner.settings.recipes import toy
from aipo_learner.training import train


def surface() -> dict[str, object]:
    """Return what `open_transfer` relies on, which needs GPUs to run."""
    nccl = NCCLTrainerInitInfo("127.0.0.1", 29500, 3, rank=0)
    clients = (
        OwnWeightClient(None, None),
        HTTPVLLMWeightSyncClient("http://127.0.0.1:1"),
    )
    return {
        "nccl": [nccl.backend, nccl.master_address, nccl.master_port, nccl.world_size],
        "ipc": IPCTrainerInitInfo(rank=0, packed=True).backend,
        "is_client": [isinstance(client, VLLMWeightSyncClient) for client in clients],
        "init": list(
            inspect.signature(WeightTransferTrainerFactory.trainer_init).parameters
        ),
        "source": list(inspect.signature(ModuleSource).parameters),
    }


def main(out: Path) -> None:
    """Train and print."""
    sampler = {"type": "vllm", "enforce_eager": True}
    small = {"num_steps": 3, "groups_per_step": 2, "group_size": 4, "num_threads": 1}
    train(replace(toy(), out=out, sampler=sampler, **small), Console(quiet=True))
    names = ("step", "kl_sampler", "kl_sampler/max_gap", "failed_episodes")
    rows = [
        {name: row[name] for name in names if name in row}
        for row in read_metrics(out / "metrics.jsonl")
    ]
    print(json.dumps({"rows": rows, "surface": surface()}))


if __name__ == "__main__":  # vLLM starts processes that read this file again
    main(Path(sys.argv[1]))
