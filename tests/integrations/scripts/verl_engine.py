"""verl in one process: its configuration, and its worker around its FSDP2 engine."""

import os
import socket
from collections import Counter
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


def not_a_number(task: Any, answer: str) -> float:
    """Stand for a reward function that fails."""
    return float("nan")


_seen: Counter[str] = Counter()


def exact(task: Any, answer: str) -> float:
    """Return 1 for the right answer; a number that is none for one of task 1's."""
    _seen[task.id] += 1
    if task.id == "toy-0-train-1" and _seen[task.id] == 2:
        return float("nan")
    return float(f"boxed{{{task.answer}}}" in answer)


def verl_config(policy: Path | str, *overrides: str) -> Any:
    """Return verl's configuration, as its command line makes it.

    Args:
        policy: The policy's folder.
        overrides: What stands on the command line beside the least that a run needs.
    """
    import verl
    from hydra import compose, initialize_config_dir

    least = [
        "trainer.v1.trainer_mode=aipo",
        "algorithm.adv_estimator=grpo",
        "actor_rollout_ref.rollout.name=vllm",
        f"actor_rollout_ref.model.path={policy}",
    ]
    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(str(folder), version_base=None):
        return compose("ppo_trainer", overrides=[*least, *overrides])


def engine_worker(
    policy: Path | str,
    precision: str = "fp32",
    micro_batch_size: int = 4,
    lr: float = 0.0,
    max_tokens: int = 0,
) -> Any:
    """Return a worker that trains a policy's folder, without clipping gradients.

    Args:
        policy: The folder.
        precision: Of the pass, "fp32" or "bf16"; weights are float32.
        micro_batch_size: Rows of a pass.
        lr: The rate.
        max_tokens: Of a pass that has its rows behind each other without padding, in
            the place of their number; 0: it is padded.
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
        use_dynamic_bsz=max_tokens > 0,
        max_token_len_per_gpu=max_tokens or None,
        infer_max_token_len_per_gpu=max_tokens or None,
        use_remove_padding=max_tokens > 0,
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
                use_remove_padding=max_tokens > 0,
                override_config={"attn_implementation": "sdpa"},
            ),
            engine_config=engine,
            optimizer_config=FSDPOptimizerConfig(lr=lr, clip_grad=1e9),
            checkpoint_config=None,
        )
    )
    worker.reset()
    return worker
