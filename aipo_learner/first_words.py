"""What a run says before its first step: what it does, with what, and what it takes.

What is known without torch, the command says before that is imported.
"""

from collections.abc import Iterator

from transformers import PreTrainedModel

from aipo_env import Scenario
from aipo_learner.learn.checker import check_agent_rule, check_base
from aipo_learner.run.checkpoint_size import checkpoint_bytes
from aipo_learner.run.folder import Run
from aipo_learner.run.words import bytes_text, in_units
from aipo_learner.settings.objective import AGENT_RULES, CLIP_OF_BASE, ObjectiveConfig
from aipo_learner.settings.train import TrainConfig


def before_loading(run: Run) -> Iterator[str]:
    """Yield lines on what is known before anything is loaded."""
    config = run.config
    name = config.out.name
    rollouts = f"{config.groups_per_step} tasks x {config.group_size} rollouts"
    if config.source.is_stored:
        rollouts = f"{config.groups_per_step} groups of stored episodes"
    begins = f"goes on after step {run.step}" if run.step else "begins"
    yield (
        f"{name}  {begins}: {config.num_steps} steps of {rollouts}, saved in"
        f" {config.out}"
    )
    if run.changes:
        yield (
            f"{name}  changed from here on: {run.changes}. Schedules are those of the"
            " new settings"
        )
    origin = config.checkpoints
    if origin.resume_from and not run.step:
        state = "with" if origin.resume_optimizer else "without"
        yield (
            f"{name}  starts from {origin.resume_from}, {state} its optimiser's state"
        )
    if config.source.sft_episodes and config.objective != ObjectiveConfig():
        yield (
            f"{name}  the objective that is set is not used: sft_episodes are imitated"
            " by cross-entropy"
        )
    else:
        yield from _of_own_pushes(config)


def _of_own_pushes(config: TrainConfig) -> Iterator[str]:
    """Yield how strongly a rule or a base that is none of ours pushes."""
    objective = config.objective
    pushes = {}
    if objective.agent_rule not in AGENT_RULES:
        what = f"agent_rule {objective.agent_rule!r}"
        pushes[what] = check_agent_rule(objective.agent_rule)
    if objective.base not in CLIP_OF_BASE:
        pushes[f"base {objective.base!r}"] = check_base(objective.base)
    for what, by_probability in pushes.items():
        cells = [f"{p:g}: {push:.3g}" for p, push in by_probability.items()]
        yield (
            f"{config.out.name}  {what} pushes, by the policy's probability of a token:"
            f" {', '.join(cells)}"
        )


def of_what_is_played(config: TrainConfig, scenario: Scenario) -> Iterator[str]:
    """Yield lines on the tasks, who may be asked, and what a step may take."""
    name = config.out.name
    source = config.source
    if source.is_stored:
        yield f"{name}  episodes: {source.episodes or source.sft_episodes}"
        return
    num_tasks = scenario.source.num_tasks("train")
    tasks = f"{num_tasks} tasks" if num_tasks else "tasks without end"
    num_held_out = scenario.source.num_tasks("test")
    held_out = "" if num_held_out is None else f", {num_held_out} held out"
    yield (
        f"{name}  environment: {config.environment.name}, {tasks} to train on{held_out}"
    )
    agents = [f"{role} ({scenario.pool.agent_id(role)})" for role in scenario.offered]
    asked = f"{', '.join(agents)}; each was asked once" if agents else "none"
    yield f"{name}  agents: {asked}"
    num_rollouts = config.groups_per_step * config.group_size
    num_rollouts *= 1 + source.max_refills
    limit = scenario.rules.max_policy_tokens
    yield (
        f"{name}  a step: at most {num_rollouts} rollouts x {limit} tokens ="
        f" {in_units(num_rollouts * limit)} tokens to sample"
    )


def of_what_was_loaded(
    config: TrainConfig, model: PreTrainedModel, sampler: str
) -> Iterator[str]:
    """Yield lines on the policy, what samples it, and its checkpoints.

    Args:
        config: Of the run.
        model: The policy, with its adapters.
        sampler: The name of what samples.
    """
    name = config.out.name
    num_params = model.num_parameters()
    num_trained = model.num_parameters(only_trainable=True)
    yield f"{name}  {of_policy(config.policy, model, sampler)}"
    if config.compute.lora_rank:
        num_params -= num_trained
        yield f"{name}  adapters: {in_units(num_trained)} parameters are trained"
    if config.objective.has_teacher and not config.source.sft_episodes:
        yield f"{name}  {_of_teacher(config.objective)}"
    size = checkpoint_bytes(config, num_params=num_params, num_trained=num_trained)
    yield (
        f"{name}  a checkpoint: {bytes_text(size)} every {config.checkpoint_every}"
        f" steps; the newest {config.keep_checkpoints} and the best are kept"
    )


def _of_teacher(objective: ObjectiveConfig) -> str:
    """Return who scores the policy's own tokens, and what that weighs."""
    when = objective.teacher_when
    episodes = "all episodes" if when == "all" else f"{when} episodes"
    return (
        f"teacher: {objective.teacher}, of {episodes}; advantage ="
        f" {objective.advantage_weight:g} x A + {objective.teacher_weight:g} x"
        " (log q - log o)"
    )


def of_policy(policy: str, model: PreTrainedModel, sampler: str) -> str:
    """Return what there is to say of a policy that was loaded.

    Args:
        policy: As it was named.
        model: The policy.
        sampler: The name of what samples.
    """
    dtype = str(model.dtype).removeprefix("torch.")
    return (
        f"policy: {policy}, {in_units(model.num_parameters())} parameters, {dtype},"
        f" {model.device}; sampler: {sampler}"
    )
