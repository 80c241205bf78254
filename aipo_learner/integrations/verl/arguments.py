"""verl's configuration: our settings in it; refused where it means nothing here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from verl.utils.torch_dtypes import PrecisionType

from aipo_env import ConfigError, Environment, Scenario, suggest
from aipo_learner.build import build_training_scenario, with_rules
from aipo_learner.learn.base_algorithms import find_base
from aipo_learner.learn.checker import check_objective
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig

MODE = "aipo"
"""What verl knows the trainer and the agent loop by."""
SECTION = f"trainer.v1.{MODE}"
"""Of verl's configuration: where our settings stand."""
_SETTINGS = (
    "environment",
    "seed",
    "objective",
    "independence",
    "aided_share",
    "anneal_from",
    "baseline",
    "held_out",
    "consult_bonus",
    "consult_cost",
    "overlong_buffer",
    "stop_after_idle_steps",
)
"""Fields of `TrainConfig` that the section may have; the others are verl's to say."""
_OBJECTIVE = f"the loss is set by {SECTION}.objective"
_CLIP = f"{SECTION}.objective.clip_low and .clip_high are the clip"
_SAMPLER_RATIO = (
    f"{SECTION}.objective.sampler_ratio and .sampler_ratio_cap weigh what was sampled"
)
_ADVANTAGES = f"advantages are by {SECTION}.baseline and .objective.base"
_VERDICT = "rewards are the environment's"
_TURNS = "who has a turn, and how many there are, say the environment's rules"
_SEEDS = f"draws are by {SECTION}.seed"
_WHOLE_VOCABULARY = "draws are from the whole vocabulary, as the loss takes them to be"
_ACTOR = "actor_rollout_ref.actor"
_ROLLOUT = "actor_rollout_ref.rollout"
_REQUIRED: dict[str, tuple[tuple[Any, ...], str]] = {
    "trainer.use_v1": ((True,), "the older trainer has no place for it"),
    "trainer.v1.trainer_mode": ((MODE,), "the agent loop plays for this trainer alone"),
    "trainer.v1.sampler.custom_sampler.path": ((None, ""), "groups are played whole"),
    "trainer.v1.sampler.sync_refill_failed_groups": (
        (False,),
        "a group with a failed rollout is left out",
    ),
    "trainer.critic_warmup": ((0,), "there is no critic"),
    "algorithm.adv_estimator": (("grpo",), _ADVANTAGES),
    "algorithm.norm_adv_by_std_in_grpo": ((True,), _ADVANTAGES),
    "algorithm.gamma": ((1.0,), _ADVANTAGES),
    "algorithm.lam": ((1.0,), _ADVANTAGES),
    "algorithm.use_pf_ppo": ((False,), _ADVANTAGES),
    "algorithm.use_kl_in_reward": ((False,), _OBJECTIVE),
    "algorithm.filter_groups.enable": (
        (False,),
        "groups that teach nothing are left out",
    ),
    "algorithm.rollout_correction.rollout_is": ((None,), _SAMPLER_RATIO),
    "algorithm.rollout_correction.rollout_rs": ((None,), _SAMPLER_RATIO),
    "algorithm.rollout_correction.bypass_mode": ((False,), _SAMPLER_RATIO),
    "critic.enable": ((None, False), "there is no critic"),
    "data.apply_chat_template_kwargs": (({},), "set the tokenizer's template"),
    "data.gen_batch_size": ((None,), "a step plays data.train_batch_size groups"),
    "distillation.enabled": ((False,), _OBJECTIVE),
    "reward.reward_model.enable": ((False,), _VERDICT),
    "reward.reward_manager.name": (("naive",), _VERDICT),
    "reward.reward_manager.source": (("register",), _VERDICT),
    "reward.custom_reward_function.path": ((None, ""), _VERDICT),
    f"{_ACTOR}.strategy": (
        ("fsdp", "fsdp2"),
        "other engines were not tried, and its loss was compared in fsdp2",
    ),
    f"{_ACTOR}.clip_ratio": ((0.2,), _CLIP),
    f"{_ACTOR}.clip_ratio_low": ((0.2,), _CLIP),
    f"{_ACTOR}.clip_ratio_high": ((0.2,), _CLIP),
    f"{_ACTOR}.clip_ratio_c": ((3.0,), _CLIP),
    f"{_ACTOR}.loss_agg_mode": (
        ("token-mean",),
        f"{SECTION}.objective.base says how tokens are averaged",
    ),
    f"{_ACTOR}.loss_scale_factor": (
        (None,),
        f"{SECTION}.objective.max_policy_tokens is what dr_grpo divides by",
    ),
    f"{_ACTOR}.policy_loss.loss_mode": (("vanilla",), _OBJECTIVE),
    f"{_ACTOR}.entropy_coeff": ((0,), "objective.entropy_coef is the bonus"),
    f"{_ACTOR}.calculate_entropy": (
        (False,),
        "entropy is computed where objective.entropy_coef is set",
    ),
    f"{_ACTOR}.kl_loss_type": (("low_var_kl",), _OBJECTIVE),
    f"{_ACTOR}.use_prefix_grouper": (
        (False,),
        "prompts of a group differ",
    ),
    f"{_ROLLOUT}.name": (("vllm",), "turns are asked for in its words"),
    f"{_ROLLOUT}.top_p": ((1,), _WHOLE_VOCABULARY),
    f"{_ROLLOUT}.top_k": ((-1,), _WHOLE_VOCABULARY),
    f"{_ROLLOUT}.val_kwargs.top_p": ((1,), _WHOLE_VOCABULARY),
    f"{_ROLLOUT}.val_kwargs.top_k": ((-1,), _WHOLE_VOCABULARY),
    f"{_ROLLOUT}.do_sample": ((True,), "rollouts of a task are to differ"),
    f"{_ROLLOUT}.ignore_eos": ((False,), "a turn has an end"),
    f"{_ROLLOUT}.calculate_log_probs": ((True,), "sampler_ratio weighs by them"),
    f"{_ROLLOUT}.logprobs_mode": (
        ("processed_logprobs",),
        "log-probabilities are those at the temperature of the draws",
    ),
    f"{_ROLLOUT}.full_determinism": (
        (False,),
        "turns are asked for in no fixed order",
    ),
    f"{_ROLLOUT}.seed": ((42,), _SEEDS),
    f"{_ROLLOUT}.agent.default_agent_loop": (
        ("single_turn_agent", MODE),
        "rows of write_tasks name theirs",
    ),
    f"{_ROLLOUT}.multi_turn.enable": ((False,), _TURNS),
    f"{_ROLLOUT}.multi_turn.max_assistant_turns": ((None,), _TURNS),
    f"{_ROLLOUT}.multi_turn.max_user_turns": ((None,), _TURNS),
    f"{_ROLLOUT}.multi_turn.tool_config_path": (
        (None, ""),
        "tools are the environment's",
    ),
    f"{_ROLLOUT}.multi_turn.function_tool_path": (
        (None, ""),
        "tools are the environment's",
    ),
}
"""By settings of verl's: the values that may stand there, and why no other. A setting
that is not there at all is none that verl would follow.
"""


def check_verl_config(config: DictConfig) -> None:
    """Raise ConfigError for settings, verl's or ours, that would not do what they say.

    A rule or a base of one's own is checked as well.
    """
    for name, (valid, reason) in _REQUIRED.items():
        value = OmegaConf.select(config, name, default=valid[0])
        if value not in valid:
            choice = " or ".join(map(_shown, filter(_is_shown, valid)))
            raise ConfigError(
                f"{name}={value!r} is not for the trainer {MODE!r}: {reason}. Set it to"
                f" {choice}."
            )
    objective = run_settings(config).objective
    if objective.observation_weight:
        raise ConfigError(
            f"{SECTION}.objective.observation_weight={objective.observation_weight} is"
            f" not for the trainer {MODE!r}: its rows do not say which tokens are"
            " observed. Set it to 0, or train with `aipo train` or TRL."
        )
    check_objective(objective)
    _check_reference(config, objective)
    _check_precision(config, objective)


def _shown(value: Any) -> str:
    """Return a value as verl's command line takes it."""
    return "null" if value is None else str(value)


def _is_shown(value: Any) -> bool:
    """Return whether a value is told of: "" is what null is as well."""
    return value != ""


def _check_reference(config: DictConfig, objective: ObjectiveConfig) -> None:
    """Raise ConfigError where verl and the objective differ about a reference model."""
    actor = config.actor_rollout_ref.actor
    coefficient = actor.kl_loss_coef if actor.use_kl_loss else 0.0
    if coefficient != objective.kl_coef:
        raise ConfigError(
            f"{_ACTOR}.use_kl_loss={actor.use_kl_loss} with kl_loss_coef="
            f"{actor.kl_loss_coef}, and {SECTION}.objective.kl_coef="
            f"{objective.kl_coef}: verl loads a reference model by the first, and the"
            " loss is by the last. Set use_kl_loss=True and both coefficients to one"
            " number, or use_kl_loss=False and kl_coef=0."
        )


def _check_precision(config: DictConfig, objective: ObjectiveConfig) -> None:
    """Raise ConfigError where the pass is coarser than the clip, as gspo's is."""
    name = f"{_ACTOR}.fsdp_config.mixed_precision.param_dtype"
    given = OmegaConf.select(config, name, default="bf16")
    bounds = objective.clip_bounds(find_base(objective.base).clip)
    # rloo has no clip: 0.
    narrow = [bound for bound in bounds if 0 < bound < torch.finfo(torch.bfloat16).eps]
    if narrow and PrecisionType.to_dtype(given) != torch.float32:
        raise ConfigError(
            f"{name}={given!r} with {SECTION}.objective.base={objective.base!r}, whose"
            f" clip is {narrow[0]}: verl's log-probabilities come in larger steps than"
            f" that. Set +{name}=fp32, and"
            " +actor_rollout_ref.model.override_config.attn_implementation=sdpa, or"
            " another base."
        )


def run_settings(config: DictConfig) -> TrainConfig:
    """Return the settings of a run: our section of verl's, and what verl itself says.

    Args:
        config: verl's, in whichever of its processes. The steps of the run are in it
            once the trainer has counted the tasks; until then it is taken to have one.

    Raises:
        ConfigError: A setting is unknown, or cannot be used.
    """
    num_steps = OmegaConf.select(
        config, f"{_ACTOR}.optim.total_training_steps", default=0
    )
    rollout = config.actor_rollout_ref.rollout
    return TrainConfig(
        **_known(_section(config)),
        group_size=rollout.n,
        groups_per_step=config.data.train_batch_size,
        temperature=rollout.temperature,
        num_steps=max(num_steps, 1),
    )


def training_run(config: DictConfig) -> tuple[TrainConfig, Scenario]:
    """Return the settings of a run, and what is played: one scenario per process.

    Args:
        config: As for `run_settings`.

    Raises:
        ConfigError: A setting is unknown, or cannot be used.
    """
    scenario = _scenario(json.dumps(_section(config), sort_keys=True))
    return with_rules(run_settings(config), scenario), scenario


@cache
def _scenario(section: str) -> Scenario:
    """Build what is played, of the section's JSON."""
    settings = TrainConfig(**_known(json.loads(section)))
    return build_training_scenario(settings, None)


def _section(config: DictConfig) -> dict[str, Any]:
    """Return our settings as they stand in verl's."""
    section = OmegaConf.select(config, SECTION, default=None)
    if section is None:
        return {}
    if not isinstance(section, DictConfig):
        raise ConfigError(f"{SECTION}={section!r}: settings stand in it by name.")
    return cast("dict[str, Any]", OmegaConf.to_container(section, resolve=True))


def _known(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `TrainConfig` that the section gives."""
    _check_names(section, SECTION, _SETTINGS)
    objective = section.get("objective", {})
    names = [item.name for item in fields(ObjectiveConfig)]
    _check_names(objective, f"{SECTION}.objective", names)
    held_out = section.get("held_out", ())
    read = {
        "environment": Environment.of(section.get("environment", "toy")),
        "objective": ObjectiveConfig(**objective),
        "held_out": (held_out,) if isinstance(held_out, str) else tuple(held_out),
    }
    return {**section, **read}


def _check_names(given: Any, where: str, names: Sequence[str]) -> None:
    """Raise ConfigError for a setting that there is not."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}={given!r}: settings stand in it by name.")
    for name in given:
        if name not in names:
            raise ConfigError(
                f"{where}.{name} is no setting here. {suggest(str(name), names)}"
            )
