"""How weights come to vLLM: as a model folder, or by its own transfer between GPUs."""

import asyncio
import importlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_learner.policy.load import save_policy


def export_weights(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    untie: bool,
) -> None:
    """Write the model folder that an engine loads.

    Args:
        model: What is written.
        tokenizer: Is written beside it.
        folder: Is replaced.
        untie: Write a tied output embedding by itself. On CPU vLLM packs it apart, and
            reloading a tied one leaves it as it was.
    """
    save_policy(model, tokenizer, folder)
    if not untie or not model.config.tie_word_embeddings:
        return
    # vLLM reads every .safetensors file of the folder.
    head = {"lm_head.weight": model.get_output_embeddings().weight.detach()}
    save_file(head, folder / "lm_head.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tie_word_embeddings"] = False
    path.write_text(json.dumps(config), encoding="utf-8")


def open_transfer(
    backend: str, client: Any, model: PreTrainedModel, num_workers: int
) -> Callable[[], None]:
    """Return what sends the weights of `model` by vLLM's own weight transfer.

    Both are to be called outside the event loop that `client` waits for.

    Args:
        backend: "ipc" (the same GPU) or "nccl" (other GPUs; this machine's address is
            MASTER_ADDR or loopback).
        client: A `VLLMWeightSyncClient`.
        model: The learner's; what it has at a call is sent.
        num_workers: The processes that hold weights.
    """
    transfer = importlib.import_module("vllm.distributed.weight_transfer")
    engines = importlib.import_module(
        f"vllm.distributed.weight_transfer.{backend}_engine"
    )
    if backend == "ipc":
        info = engines.IPCTrainerInitInfo(rank=0, packed=True)
    else:
        address = os.environ.get("MASTER_ADDR", "127.0.0.1")
        # The learner is one of those that the transfer connects.
        num_ranks = num_workers + 1
        info = engines.NCCLTrainerInitInfo(address, free_port(), num_ranks, rank=0)
    trainer = transfer.WeightTransferTrainerFactory.trainer_init(
        info, client=client, source=transfer.ModuleSource(model)
    )
    send: Callable[[], None] = trainer.send_weights
    return send


class OwnWeightClient:
    """vLLM's `VLLMWeightSyncClient` protocol over an `AsyncLLM`.

    The engine has four methods of the same names; here they block, as the protocol has
    it.
    """

    def __init__(self, llm: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._llm = llm
        self._loop = loop

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._do("init_weight_transfer_engine", init_info=init_info)

    def start_weight_update(self) -> None:
        self._do("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._do("update_weights", update_info=update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._do("finish_weight_update")

    def _do(self, method: str, **arguments: Any) -> None:
        call = self._llm.collective_rpc(method, kwargs=arguments)
        # The engine lives in that loop: called in it, this would wait for ever.
        asyncio.run_coroutine_threadsafe(call, self._loop).result()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        # Port 0: the kernel chooses. Another process may take it before it is used.
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
