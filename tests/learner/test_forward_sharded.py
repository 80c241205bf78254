"""The forward pass of a model that FSDP2 has sharded over two processes: values and
gradients of the whole one.
"""

import os
import socket
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).parent))
from test_forward import ROWS, build, by_full_logits, gradients

import aipo_learner.policy.forward as forward_module
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.rows import collate
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.settings.compute import ComputeConfig

WAYS = ({}, {"gradient_checkpointing": True}, {"layout": "packed"})


def compare(rank: int, port: int, name: str, head_alone: bool) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2"
    )
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    forward_module._FEW_LOGITS = 0
    batch = collate(ROWS, pad_token_id=0)
    for way in WAYS:
        whole, model = build(name), build(name)
        for layer in model.model.layers:
            fully_shard(layer)
        if head_alone:
            fully_shard(model.lm_head)
        fully_shard(model)
        logprobs, _ = microbatch_logprobs(
            LearnerForward(model, ComputeConfig(**way)), batch
        )
        wanted, _ = by_full_logits(whole, batch, 1.0)
        torch.testing.assert_close(logprobs, wanted, rtol=1e-4, atol=1e-5)
        theirs = gradients(whole, wanted)
        model.zero_grad()
        (
            logprobs * torch.linspace(-1, 1, logprobs.numel()).view(logprobs.shape)
        ).sum().backward()
        ours = torch.cat([p.grad.full_tensor().flatten() for p in model.parameters()])
        torch.testing.assert_close(
            ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item()
        )
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head_alone"),
    [
        ("qwen3", False),
        ("llama", False),
        ("llama", True),
        ("gemma2", False),
        ("phi", False),
    ],
)
def test_a_sharded_model_gives_what_the_whole_one_gives(name: str, head_alone: bool):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(compare, args=(port, name, head_alone), nprocs=2)
