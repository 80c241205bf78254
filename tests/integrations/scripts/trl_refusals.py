"""What AipoGRPOTrainer refuses, and what it says of rewards that are none."""

import json
import math
import tempfile
from typing import Any

import torch
from trl import GRPOConfig

from aipo_env import AipoError, Environment
from aipo_learner import RECIPES, ObjectiveConfig, load_policy, policy_folder
from aipo_learner.integrations.trl import AipoGRPOTrainer, grpo_arguments


def not_a_number(task: Any, text: str) -> float:
    """Reward nothing that can be counted."""
    return math.nan


def arguments(folder: str, **others: Any) -> GRPOConfig:
    small: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": 2,
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 2,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return grpo_arguments(RECIPES["toy"](), **(small | others))


def trainer_of(folder: str, environment: Any, **options: Any) -> AipoGRPOTrainer:
    model, tokenizer = load_policy(policy_folder("tiny"))
    names = ("objective", "stop_after_idle_steps", "independence")
    own = {name: options.pop(name) for name in names if name in options}
    args = arguments(folder, **options)
    return AipoGRPOTrainer(model, environment, args, processing_class=tokenizer, **own)


def said(folder: str, environment: Any = "toy", **options: Any) -> str:
    """Return what is said of a trainer, or of its first steps."""
    try:
        trainer_of(folder, environment, **options).train()
    except AipoError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def said_of_torn_group(folder: str) -> str:
    """Return what is said of a batch that another dataloader made."""
    try:
        trainer_of(folder, "toy")._generate_and_score_completions([{}] * 6)
    except AipoError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    unknowable = Environment(source="toy", verifier=not_a_number)
    with tempfile.TemporaryDirectory() as folder:
        told = {
            "loss_type": said(folder, loss_type="grpo"),
            "top_p": said(folder, top_p=0.9),
            "beta": said(folder, objective=ObjectiveConfig(kl_coef=0.1)),
            "max_steps": said(folder, max_steps=-1),
            "independence": said(folder, independence="internalized"),
            "torn": said_of_torn_group(folder),
            "nan": said(folder, unknowable, stop_after_idle_steps=1),
        }
    print(json.dumps(told), flush=True)


torch.set_num_threads(1)
main()
