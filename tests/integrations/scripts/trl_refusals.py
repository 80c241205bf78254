"""What AipoGRPOTrainer refuses, and what it says of rewards that are none."""

import json
import math
import tempfile
import warnings
from dataclasses import fields
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments
from trl import GRPOConfig

from aipo_env import AipoError, Environment
from aipo_learner import RECIPES, ObjectiveConfig, load_policy, policy_folder
from aipo_learner.integrations.trl import AipoGRPOTrainer, grpo_arguments
from aipo_learner.integrations.trl.arguments import _NOT_USED, check_arguments


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
    names = ("objective", "stop_after_idle_steps", "independence", "aid")
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


USED = {
    "model_init_kwargs",
    "trust_remote_code",
    "disable_dropout",
    "cast_lm_head_to_fp32",
    "num_generations",
    "generation_batch_size",
    "steps_per_generation",
    "temperature",
    "beta",
    "num_iterations",
    "mask_truncated_completions",
    "sync_ref_model",
    "ref_model_mixup_alpha",
    "ref_model_sync_steps",
    "use_vllm",
    "vllm_mode",
    "vllm_model_impl",
    "vllm_server_base_url",
    "vllm_server_host",
    "vllm_server_port",
    "vllm_server_timeout",
    "vllm_group_port",
    "vllm_gpu_memory_utilization",
    "vllm_max_model_length",
    "vllm_tensor_parallel_size",
    # TRL pads its prompts by it, of which there are none; it has no fixed default.
    "pad_to_multiple_of",
}
"""Arguments that TRL adds to those of transformers, and that mean what they say."""


def of_neither_list() -> list[str]:
    """Return the arguments of TRL's own that are used and refused, or neither."""
    of_transformers = {item.name for item in fields(TrainingArguments)}
    own = {item.name for item in fields(GRPOConfig)} - of_transformers
    refused = set(_NOT_USED) - of_transformers
    return sorted((own ^ (USED | refused)) | (USED & refused))


def said_of_arguments(**values: Any) -> str:
    """Return what is said of values, some of which TRL takes on a GPU alone."""
    args = grpo_arguments(RECIPES["toy"](), report_to=[])
    for name, value in values.items():
        setattr(args, name, value)
    try:
        check_arguments(args, ObjectiveConfig())
    except AipoError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def said_of_dropout(folder: str) -> str:
    """Return what is said of an adapter that draws which of its inputs it reads."""
    model, tokenizer = load_policy(policy_folder("tiny"))
    adapter = LoraConfig(
        r=4, target_modules=["q_proj"], lora_dropout=0.1, task_type="CAUSAL_LM"
    )
    args = arguments(folder, disable_dropout=False)
    try:
        AipoGRPOTrainer(
            get_peft_model(model, adapter), "toy", args, processing_class=tokenizer
        )
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
    # A name of transformers' that peft uses.
    warnings.simplefilter("ignore", FutureWarning)
    unknowable = Environment(source="toy", verifier=not_a_number)
    with tempfile.TemporaryDirectory() as folder:
        told = {
            "loss_type": said(folder, loss_type="grpo"),
            "top_p": said(folder, top_p=0.9),
            "beta": said(folder, objective=ObjectiveConfig(kl_coef=0.1)),
            "teacher": said(folder, objective=ObjectiveConfig(teacher="self:answer")),
            "max_steps": said(folder, max_steps=-1),
            "independence": said(folder, independence="internalized"),
            "all_wrong": said(folder, aid="all_wrong"),
            "competence": said(folder, aid="competence:0.5"),
            "fp16": said_of_arguments(fp16=True),
            "regex": said_of_arguments(vllm_structured_outputs_regex="a+"),
            "experts": said_of_arguments(router_aux_loss_coef=0.1),
            "noise": said_of_arguments(neftune_noise_alpha=5.0),
            "dropout": said_of_dropout(folder),
            "of_neither_list": of_neither_list(),
            "torn": said_of_torn_group(folder),
            "nan": said(folder, unknowable, stop_after_idle_steps=1),
        }
    print(json.dumps(told), flush=True)


torch.set_num_threads(1)
main()
