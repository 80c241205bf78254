"""TRL's arguments: made of a run's settings; refused where they mean nothing here."""

import os
from dataclasses import fields
from operator import attrgetter
from typing import Any

import torch
from trl import GRPOConfig

from aipo_env import ConfigError
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig

_OBJECTIVE = "the loss is set by objective=ObjectiveConfig(…)"
_SAMPLER_RATIO = "objective.sampler_ratio and .sampler_ratio_cap weigh what was sampled"
_WHOLE_VOCABULARY = "draws are from the whole vocabulary, as the loss takes them to be"
_OWN_SAMPLER = "the transformers sampler is ours"
_NO_EVALUATION = "`evaluate` measures a policy"
_NO_TABLE = "episodes are no table of completions"
_NOT_USED = {
    "loss_type": "objective.base names the base algorithm",
    "epsilon": "objective.clip_low and .clip_high are the clip",
    "epsilon_high": "objective.clip_low and .clip_high are the clip",
    "delta": _OBJECTIVE,
    "importance_sampling_level": 'objective.base="gspo" weighs sequences',
    "top_entropy_quantile": _OBJECTIVE,
    "entropy_coef": "objective.entropy_coef is the bonus",
    "use_adaptive_entropy": _OBJECTIVE,
    "entropy_coef_min": _OBJECTIVE,
    "entropy_coef_max": _OBJECTIVE,
    "entropy_coef_delta": _OBJECTIVE,
    "entropy_target": _OBJECTIVE,
    "sapo_temperature_neg": _OBJECTIVE,
    "sapo_temperature_pos": _OBJECTIVE,
    "vespo_k_pos": _OBJECTIVE,
    "vespo_lambda_pos": _OBJECTIVE,
    "vespo_k_neg": _OBJECTIVE,
    "vespo_lambda_neg": _OBJECTIVE,
    "use_bias_correction_kl": _OBJECTIVE,
    "router_aux_loss_coef": "the objective has no term that balances experts",
    "off_policy_mask_threshold": _SAMPLER_RATIO,
    "vllm_importance_sampling_correction": _SAMPLER_RATIO,
    "vllm_importance_sampling_mode": _SAMPLER_RATIO,
    "vllm_importance_sampling_clip_max": _SAMPLER_RATIO,
    "vllm_importance_sampling_clip_min": _SAMPLER_RATIO,
    "vllm_importance_sampling_cap": _SAMPLER_RATIO,
    "scale_rewards": 'objective.base says whether it is so; in "dr_grpo" it is not',
    "multi_objective_aggregation": "parts of a reward belong to the environment",
    "reward_weights": "parts of a reward belong to the environment",
    "max_completion_length": "rules of the environment limit turns and episodes",
    "chat_template_kwargs": "set the tokenizer's template",
    "generation_kwargs": _WHOLE_VOCABULARY,
    "top_p": _WHOLE_VOCABULARY,
    "top_k": _WHOLE_VOCABULARY,
    "min_p": _WHOLE_VOCABULARY,
    "repetition_penalty": _WHOLE_VOCABULARY,
    "vllm_structured_outputs_regex": _WHOLE_VOCABULARY,
    "use_transformers_continuous_batching": _OWN_SAMPLER,
    "use_transformers_paged": _OWN_SAMPLER,
    "transformers_continuous_batching_config": _OWN_SAMPLER,
    "cache_implementation": _OWN_SAMPLER,
    "vllm_enable_sleep_mode": "weights would be loaded anew before every turn",
    "log_completions": _NO_TABLE,
    "log_completions_hub_repo": _NO_TABLE,
    "log_multimodal": _NO_TABLE,
    "log_unique_prompts": _NO_TABLE,
    "num_completions_to_print": _NO_TABLE,
    "num_generations_eval": _NO_EVALUATION,
    "shuffle_dataset": "seed and environment say the order of tasks",
    "max_tool_calling_iterations": "rules of the environment limit turns",
    "ds3_gather_for_generation": "DeepSpeed is not for it either",
    "neftune_noise_alpha": "with noise it would be another policy than the one sampled",
    "fp16": "it is float32, or bfloat16 by bf16=True",
}
"""Arguments of TRL that cannot be used here, and what does what they would."""
_OWN_EPISODES = "TRL's trainer plays every batch when it is due"
_NOT_CARRIED = {
    "source.max_staleness": _OWN_EPISODES,
    "source.max_refills": _OWN_EPISODES,
    "source.episodes": _OWN_EPISODES,
    "source.sft_episodes": _OWN_EPISODES,
    "compute.compile_layers": "set TRL's torch_compile",
    "compute.lora_rank": "give the trainer a policy that has adapters of peft",
    "checkpoints.resume_from": "train(resume_from_checkpoint=…) goes on",
    "evaluation.every": "`evaluate` measures a policy",
    "bounds": "a callback of transformers' stops a run by its metrics",
}
"""Settings of a run that no argument of TRL's has, and what does what they would."""
_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_fused": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
}
"""What transformers calls our optimisers."""


def check_arguments(args: GRPOConfig, objective: ObjectiveConfig) -> None:
    """Raise ConfigError for arguments that would say one thing and do another."""
    defaults = {item.name: item.default for item in fields(GRPOConfig)}
    for name, instead in _NOT_USED.items():
        value = getattr(args, name)
        if value != defaults[name]:
            raise ConfigError(
                f"args: {name}={value!r} is not for AipoGRPOTrainer: {instead}."
                " Leave it out."
            )
    if objective.teacher:
        raise ConfigError(
            f"objective.teacher={objective.teacher!r}: AipoGRPOTrainer asks no teacher."
            " Leave it out, or train with `aipo train`."
        )
    if args.beta != objective.kl_coef:
        raise ConfigError(
            f"args: beta={args.beta} and objective.kl_coef={objective.kl_coef} must be"
            " equal: the first has TRL load the reference model, the second is what the"
            " loss takes."
        )
    _check_whole_groups(args)


def _check_whole_groups(args: GRPOConfig) -> None:
    """Raise ConfigError where groups would be torn apart by the processes."""
    local = args.per_device_train_batch_size * args.steps_per_generation
    if local % args.num_generations:
        raise ConfigError(
            "args: per_device_train_batch_size="
            f"{args.per_device_train_batch_size} times steps_per_generation="
            f"{args.steps_per_generation} is {local} rollouts for each process, which"
            f" num_generations={args.num_generations} does not divide: a group would be"
            " torn apart, and its advantages taken over a part of it. Choose a"
            " multiple."
        )


def grpo_arguments(config: TrainConfig, **arguments: Any) -> GRPOConfig:
    """Return TRL's arguments for the settings of a run, such as a recipe.

    A pass is one group; where a run makes several updates of a batch or splits it into
    minibatches, TRL's steps are these, and all that counts steps is multiplied. The
    objective, the environment and what belongs to rollouts are arguments of
    `AipoGRPOTrainer`, which also has the rate rise as ours does. What says only where
    or how often something is written or computed, such as `loggers` and
    `microbatch_tokens`, is TRL's to say.

    Args:
        config: Of the run.
        arguments: Others, or in the place of these; `output_dir` by default is
            `config.out`.

    Raises:
        ConfigError: The groups of a step cannot be shared by the processes, or a
            setting has no counterpart.
    """
    _check_carried(config)
    num_processes = _num_processes()
    parts = num_processes * config.num_minibatches
    if config.groups_per_step % parts:
        raise ConfigError(
            f"config: groups_per_step={config.groups_per_step} must be a multiple of"
            f" {parts}, the number of processes times that of minibatches."
        )
    num_updates = config.updates_per_step * config.num_minibatches
    made: dict[str, Any] = {
        "output_dir": str(config.out),
        "seed": config.seed,
        "max_steps": config.num_steps * num_updates,
        "num_generations": config.group_size,
        "per_device_train_batch_size": config.group_size,
        "gradient_accumulation_steps": config.groups_per_step // parts,
        "steps_per_generation": config.groups_per_step // num_processes,
        "num_iterations": config.updates_per_step,
        "temperature": config.temperature,
        "beta": config.objective.kl_coef,
        "mask_truncated_completions": config.source.mask_truncated,
        "learning_rate": config.lr,
        "warmup_steps": config.warmup_steps * num_updates,
        "optim": _OPTIMIZERS[config.optimizer.name],
        "adam_beta1": config.optimizer.beta1,
        "adam_beta2": config.optimizer.beta2,
        "weight_decay": config.optimizer.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        _checkpointing_name(): config.compute.gradient_checkpointing,
        "bf16": config.compute.precision != "float32" and torch.cuda.is_available(),
        # It would make the learner another policy than the one that sampled.
        "disable_dropout": True,
        # Its rows are no tensors.
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_steps": config.checkpoint_every * num_updates,
        "save_total_limit": config.keep_checkpoints,
        **_schedule(config),
    }
    return GRPOConfig(**(made | arguments))


def _check_carried(config: TrainConfig) -> None:
    """Raise ConfigError for a setting that TRL's arguments would drop."""
    defaults = TrainConfig()
    for name, instead in _NOT_CARRIED.items():
        value = attrgetter(name)(config)
        if value != attrgetter(name)(defaults):
            raise ConfigError(
                f"config: {name}={value!r} has no counterpart among TRL's arguments:"
                f" {instead}. Leave it out."
            )


def _num_processes() -> int:
    """Return how many processes the launcher started.

    They do not know each other yet: that is what TRL's arguments see to.
    """
    return int(os.environ.get("WORLD_SIZE", 1))


def _checkpointing_name() -> str:
    """Return what transformers calls computing layers again; it changes the name."""
    names = {item.name for item in fields(GRPOConfig)}
    new_name = "activation_checkpointing"
    return new_name if new_name in names else "gradient_checkpointing"


def _schedule(config: TrainConfig) -> dict[str, Any]:
    """Return the names by which transformers knows how the rate falls."""
    if config.lr_end == 1 or config.optimizer.decay == "constant":
        return {"lr_scheduler_type": "constant_with_warmup"}
    if config.optimizer.decay == "cosine":
        return {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": config.lr_end},
        }
    # A polynomial of degree 1 is the one line whose end can be set.
    line = {"lr_end": config.lr_end * config.lr, "power": 1.0}
    return {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": line}
