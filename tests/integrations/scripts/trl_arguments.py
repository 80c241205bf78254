"""What grpo_arguments makes of a run's settings, and the rates that come of it."""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from aipo_env import AipoError
from aipo_learner import TrainConfig, policy_folder
from aipo_learner.integrations.trl import AipoGRPOTrainer, grpo_arguments
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.evaluation import EvaluationSchedule
from aipo_learner.settings.optimizer import OptimizerConfig

FIELDS = (
    "max_steps",
    "warmup_steps",
    "save_steps",
    "gradient_accumulation_steps",
    "steps_per_generation",
    "num_iterations",
    "optim",
    "mask_truncated_completions",
)


def rates(folder: str, **settings: Any) -> list[float]:
    """Return the rate of each optimiser step of a run of six steps."""
    sizes = {"groups_per_step": 2, "group_size": 4}
    config = TrainConfig(num_steps=6, lr=1.0, **sizes, **settings)
    args = grpo_arguments(config, output_dir=folder, report_to=[])
    trainer = AipoGRPOTrainer(str(policy_folder("tiny")), "toy", args)
    optimizer = trainer.create_optimizer()
    scheduler = trainer.create_scheduler(args.max_steps)
    told = []
    for _ in range(args.max_steps):
        told.append(round(optimizer.param_groups[0]["lr"], 6))
        optimizer.step()
        scheduler.step()
    return told


def refusals() -> list[str]:
    """Return what is said of settings that TRL's arguments do not have."""
    told = []
    settings: list[dict[str, Any]] = [
        {"source": EpisodeSource(max_refills=3)},
        {"source": EpisodeSource(max_staleness=1)},
        {"source": EpisodeSource(episodes="episodes.jsonl")},
        {"source": EpisodeSource(sft_episodes="episodes.jsonl")},
        {"compute": ComputeConfig(compile_layers=True)},
        {"compute": ComputeConfig(lora_rank=4)},
        {"evaluation": EvaluationSchedule(every=5)},
        {"bounds": {"entropy": [0.05, None]}},
    ]
    for of_run in settings:
        try:
            grpo_arguments(TrainConfig(**of_run))
        except AipoError as error:
            told.append(str(error))
    return told


def main() -> None:
    warnings.simplefilter("ignore", FutureWarning)
    config = TrainConfig(
        num_steps=50,
        groups_per_step=4,
        warmup_steps=10,
        checkpoint_every=25,
        updates_per_step=2,
        num_minibatches=2,
        source=EpisodeSource(mask_truncated=True),
        optimizer=OptimizerConfig(name="adamw_8bit"),
    )
    with tempfile.TemporaryDirectory() as folder:
        args = grpo_arguments(config, output_dir=str(Path(folder) / "out"))
        cosine = OptimizerConfig(decay="cosine")
        told = {
            "fields": {name: getattr(args, name) for name in FIELDS},
            "linear": rates(folder, warmup_steps=2, lr_end=0.5),
            "cosine": rates(folder, warmup_steps=2, lr_end=0.0, optimizer=cosine),
            "constant": rates(folder, warmup_steps=3),
            "twice": rates(folder, warmup_steps=2, lr_end=0.5, updates_per_step=2),
            "refusals": refusals(),
        }
    print(json.dumps(told), flush=True)


torch.set_num_threads(1)
main()
