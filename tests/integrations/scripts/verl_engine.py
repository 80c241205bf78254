"""verl's own worker around its FSDP2 engine, in the process that asks for it."""

import os
import socket
from pathlib import Path
from typing import Any


def prepare() -> None:
    """Set what verl reads when it is imported, and what its worker looks for."""
    os.environ["VERL_PLATFORM"] = "cpu"
    os.environ["VERL_USE_EXTERNAL_MODULES"] = "verl_cpu"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_PORT": port}
    for name, value in {**alone, "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, str(value))


def engine_worker(
    policy: Path | str,
    precision: str = "fp32",
    micro_batch_size: int = 4,
    lr: float = 0.0,
) -> Any:
    """Return a worker that trains a policy's folder, without clipping gradients.

    Args:
        policy: The folder.
        precision: Of the pass, "fp32" or "bf16"; weights are float32.
        micro_batch_size: Rows of a pass.
        lr: The rate.
    """
    import torch.distributed as dist
    from verl.workers.config import (
        FSDPEngineConfig,
        FSDPOptimizerConfig,
        HFModelConfig,
    )
    from verl.workers.engine.base import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
    from verl.workers.engine_workers import TrainingWorker, TrainingWorkerConfig

    if not dist.is_initialized():
        dist.init_process_group("gloo")
        register = EngineRegistry.register(
            model_type="language_model", backend="fsdp2", device="cpu", vendor="cpu"
        )
        register(FSDPEngineWithLMHead)
    engine = FSDPEngineConfig(
        forward_only=False,
        fsdp_size=-1,
        strategy="fsdp2",
        ulysses_sequence_parallel_size=1,
        use_dynamic_bsz=False,
        use_remove_padding=False,
        micro_batch_size_per_gpu=micro_batch_size,
        infer_micro_batch_size_per_gpu=micro_batch_size,
        use_torch_compile=False,
        model_dtype="fp32",
        mixed_precision={"param_dtype": precision},
    )
    worker = TrainingWorker(
        config=TrainingWorkerConfig(
            model_type="language_model",
            model_config=HFModelConfig(
                path=str(policy),
                use_remove_padding=False,
                override_config={"attn_implementation": "eager"},
            ),
            engine_config=engine,
            optimizer_config=FSDPOptimizerConfig(lr=lr, clip_grad=1e9),
            checkpoint_config=None,
        )
    )
    worker.reset()
    return worker
