"""The training loop, top to bottom: rollouts, advantages, rows, update, record."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import torch
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import (
    AgentPool,
    ConfigError,
    Episode,
    Journal,
    Scenario,
    build_scenario,
    check_agents,
    choose,
    construct,
    parse_spec,
    run_sync,
    without_contaminated,
    write_episodes,
)
from aipo_learner.evaluation.scheduled import held_out_metrics, held_out_scenario
from aipo_learner.learn.advantages import group_advantages, is_dropped, overlong_penalty
from aipo_learner.learn.idle import Learned, stop_idle, what_to_do, why_idle
from aipo_learner.learn.rows import Row, episode_row
from aipo_learner.learn.update import update
from aipo_learner.policy.distributed import (
    copy_weights,
    gathered,
    join_ranks,
    own_copy,
    rank,
    shard,
)
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.policy.lora import add_adapter
from aipo_learner.policy.runtime import prepare
from aipo_learner.reporting.annotations import episode_coefficients, write_coefficients
from aipo_learner.rollout.independence import WithholdingPool, agent_free_row, anneal
from aipo_learner.rollout.ray_workers import RayWorkers
from aipo_learner.rollout.sampled import (
    Batches,
    Groups,
    SampledBatches,
    play_groups,
    staleness,
)
from aipo_learner.rollout.stored import StoredBatches, sft_config, sft_row
from aipo_learner.run.folder import Run
from aipo_learner.run.guards import (
    check_bounds,
    guarded_update,
    out_of_memory_explained,
    sampling_advice,
)
from aipo_learner.run.interrupt import Abandoned, InterruptFlag
from aipo_learner.run.metrics import MetricsLog, episode_metrics
from aipo_learner.samplers.base import ChatFormat, Sampler
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.samplers.vllm.sampler import VLLMSampler, served_sampler, vllm_sampler
from aipo_learner.samplers.weight_sync import sync_weights
from aipo_learner.settings.schedule import best_step, is_stalled
from aipo_learner.settings.train import TrainConfig

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "transformers": HFSampler,
    "vllm": vllm_sampler,
    "vllm-serve": served_sampler,
}


def train(
    config: TrainConfig, console: Console | None = None, num_workers: int = 0
) -> Learned:
    """Train to the end of `config.num_steps`, from the last checkpoint in `config.out` if there is one.

    With `num_workers`, so many Ray actors sample in its place. Started by torchrun, every rank does its share.

    Returns what the run came to.

    Raises:
        AgentLost: An agent can never answer. NoGradient: nothing was learned for
            `stop_after_idle_steps` steps; the run is saved.
        ConfigError, DataError, PolicyError: Before the first step, with the mend.
        CheckpointError: A checkpoint cannot be read or written; earlier ones are whole.
        Interrupted: Ctrl-C; the step was finished and saved. Terminated: SIGTERM; likewise, except that
            episodes that were being sampled are sampled again.
    """
    prepare(config.num_threads)
    torch.manual_seed(config.seed)
    join_ranks()
    with Run.open(config) as run:
        scenario = _training_scenario(config, run.journal)
        if not config.source.is_stored:
            run_sync(check_agents(scenario.pool))
        model, tokenizer = _whole_policy(config, run.policy_path())
        run.restore(model)
        forward, reference = _forwards(config, model, run.initial_policy)
        weights = forward.model.parameters()
        optimizer = torch.optim.AdamW(
            weights, lr=config.lr, weight_decay=config.weight_decay
        )
        run.restore_optimizer(forward.model, optimizer)
        sampler = build_sampler(config, model, tokenizer)
        workers = (
            RayWorkers(num_workers, config, model, build_rollouts)
            if num_workers
            else None
        )
        players, interrupt = workers or sampler, InterruptFlag()
        batches: Batches = _sampled_batches(run, scenario, players, interrupt)
        if config.source.is_stored:
            batches = StoredBatches(config, scenario, tokenizer)
        held_out = held_out_scenario(config) if config.evaluation.every else scenario
        log = MetricsLog(config, run.step, console or Console())
        idle_note = ""
        run.mark_best(best_step(log.scores))
        plays_here = not workers and not config.source.is_stored
        with (
            interrupt,
            closing(log),
            closing(sampler),
            closing(players),
            closing(batches),
        ):
            for step in range(run.step, config.num_steps + 1):
                # Here the weights are those after `step` steps, and nothing of the next is begun.
                waiting = batches.queued()
                is_interrupted = any(gathered([interrupt.requested]))
                run.settle()
                if step > run.step and (is_interrupted or _is_saved(config, step)):
                    run.save(
                        step,
                        model,
                        tokenizer,
                        optimizer,
                        waiting,
                        keep_journal=is_interrupted,
                    )
                if is_interrupted and step < config.num_steps:
                    raise interrupt.error(_stopped(config, step))
                gap, telemetry = dict[str, float](), dict[str, float]()
                is_measured = (
                    config.evaluation.is_due(step, config.num_steps)
                    and step not in log.scores
                )
                try:
                    with (
                        interrupt.abandonable(),
                        out_of_memory_explained(sampling_advice(config)),
                    ):
                        if is_measured or (plays_here and step < config.num_steps):
                            gap = sync_weights(sampler, model, config.max_sampler_gap)
                        if is_measured:
                            log.write_evaluation(
                                step, held_out_metrics(config, held_out, sampler)
                            )
                            run.mark_best(best_step(log.scores))
                        if step == config.num_steps or is_stalled(
                            log.scores, config.evaluation.patience
                        ):
                            break
                        start = time.monotonic()
                        groups = batches.take(step)
                        sampled = time.monotonic()
                except Abandoned:
                    if step > run.step:
                        run.save(
                            step,
                            model,
                            tokenizer,
                            optimizer,
                            waiting,
                            keep_journal=True,
                        )
                    raise interrupt.error(_stopped(config, step)) from None
                episodes = [episode for group in groups for episode in group]
                _keep_episodes(run, step, groups[0], model)
                rows, counts = training_rows(config, scenario, groups, step, tokenizer)
                counts |= staleness(step, episodes, is_stored=config.source.is_stored)
                batches.sample_ahead(step)
                _set_learning_rate(optimizer, config, step)
                settings, pad = sft_config(config), tokenizer.pad_token_id or 0
                if rows:
                    with guarded_update(config, step, rows, episodes):
                        telemetry = update(
                            forward,
                            optimizer,
                            rows,
                            settings,
                            pad_token_id=pad,
                            reference=reference,
                        )
                        check_bounds(telemetry, config.bounds)
                    copy_weights(forward.model, model)
                updated = time.monotonic()
                with suppress(Abandoned), interrupt.abandonable():
                    batches.settle()
                seconds = {
                    "seconds/rollouts": sampled - start + time.monotonic() - updated
                }
                seconds["seconds/update"] = updated - sampled
                reasons = "" if rows else why_idle(groups)
                measured = episode_metrics(episodes) | counts | telemetry
                log.write(step, measured | gap | seconds, reasons)
                if rows:
                    continue
                idle_note = f"{reasons}. {what_to_do(groups)}"
                if 0 < config.stop_after_idle_steps <= log.num_idle:
                    queued = batches.queued()
                    run.save(step + 1, model, tokenizer, optimizer, queued)
                    raise stop_idle(log.num_idle, groups, config.out)
        return Learned(log.had_gradient, idle_note)


def _whole_policy(
    config: TrainConfig, path: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the policy to sample from, with adapters if they are what is trained."""
    model, tokenizer = load_policy(path, trust_remote_code=config.trust_remote_code)
    if config.compute.lora_rank:
        add_adapter(model, config.compute.lora_rank)
    # Dropout would make the learner another policy than the one that sampled.
    return model.eval(), tokenizer


def _forwards(
    config: TrainConfig, model: PreTrainedModel, initial_policy: str
) -> tuple[LearnerForward, LearnerForward | None]:
    """Return the learner's forward passes of the policy and, where the loss needs it, of the initial one."""
    models = [own_copy(model)]
    if config.objective.kl_coef:
        models += [
            load_policy(initial_policy, trust_remote_code=config.trust_remote_code)[0]
        ]
    forwards = [
        LearnerForward(each, config.compute, temperature=config.temperature)
        for each in models
    ]
    for forward in forwards:
        shard(forward)
    return forwards[0], forwards[1] if len(forwards) > 1 else None


def _sampled_batches(
    run: Run,
    scenario: Scenario,
    players: RayWorkers | Sampler,
    interrupt: InterruptFlag,
) -> SampledBatches:
    """Return the batches that the workers or the sampler play."""
    if isinstance(players, RayWorkers):
        play, is_apart = players.play, True
    else:
        play = partial(play_groups, run.config, scenario, players)
        # By vLLM's own transfer, an engine that is brought up again is given the weights of that moment.
        is_apart = isinstance(players, VLLMSampler) and players.weights == "file"
    return SampledBatches(run, play, interrupt, is_apart=is_apart)


def _is_saved(config: TrainConfig, step: int) -> bool:
    """Return whether the weights after `step` steps make a checkpoint; those that are evaluated always do."""
    is_evaluated = config.evaluation.is_due(step, config.num_steps)
    return (
        step % config.checkpoint_every == 0 or step == config.num_steps or is_evaluated
    )


def _stopped(config: TrainConfig, step: int) -> str:
    return (
        f"stopped after step {step} of {config.num_steps}, which is saved in {config.out}. The same command goes "
        "on from there."
    )


def _keep_episodes(
    run: Run, step: int, episodes: Sequence[Episode], model: PreTrainedModel
) -> None:
    """Keep episodes for the viewer, with the coefficients that the objective gives their agents' tokens."""
    if step % run.config.episodes_every == 0 and rank() == 0:
        path = run.episodes_path(step)
        write_episodes(path, episodes)
        write_coefficients(path, episode_coefficients(model, episodes, run.config))


def build_sampler(
    config: TrainConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Sampler:
    """Build the sampler that `config.sampler` names; "auto" is vLLM where it is installed and has a GPU."""
    kind, options = parse_spec(config.sampler, "sampler")
    if kind == "auto":
        has_vllm = torch.cuda.is_available() and find_spec("vllm") is not None
        kind = "vllm" if has_vllm else "transformers"
    make = choose(SAMPLERS, kind, "sampler")
    fixed = {"model": model, "tokenizer": tokenizer, "temperature": config.temperature}
    return construct(make, {**options, **fixed}, "sampler")


def build_rollouts(config: TrainConfig) -> tuple[PreTrainedModel, Sampler, Scenario]:
    """Build what a worker in another process plays episodes with; it is given the policy's weights later."""
    prepare(config.num_threads)
    model, tokenizer = _whole_policy(config, policy_folder(config.policy))
    return (
        model,
        build_sampler(config, model, tokenizer),
        _training_scenario(config, None),
    )


def training_rows(
    config: TrainConfig,
    scenario: Scenario,
    groups: Groups,
    step: int,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[Row], dict[str, float]]:
    """Turn the groups of a step into rows; count what was left out and why.

    A group with a failed episode is left out whole: its baseline would be another than intended.
    """
    if config.source.sft_episodes:
        rows = [
            sft_row(e, agent_tokens=config.source.sft_agent_tokens)
            for group in groups
            for e in group
        ]
        return rows, {"rows": len(rows)}
    rows = []
    num_partial = num_constant = 0
    for group in groups:
        if any(episode.reward is None for episode in group):
            num_partial += 1
            continue
        advantages = group_advantages(
            [_reward(config, scenario, episode, step) for episode in group],
            [episode.aided for episode in group],
            base=config.objective.base,
            baseline=config.baseline,
        )
        if is_dropped(advantages):
            num_constant += 1
            continue
        rows += [
            episode_row(episode, advantage)
            for episode, advantage in zip(group, advantages, strict=True)
        ]
        if config.independence == "internalised":
            rows += _agent_free_rows(scenario, group, advantages, tokenizer)
    return rows, {
        "groups/partial": num_partial,
        "groups/constant": num_constant,
        "rows": len(rows),
    }


def _agent_free_rows(
    scenario: Scenario,
    group: Sequence[Episode],
    advantages: Sequence[float],
    tokenizer: PreTrainedTokenizerBase,
) -> list[Row]:
    """Return the agent-free forms of a group's correct aided episodes."""
    plain = scenario.session(group[0].task, aided=False).open()
    pieces = ChatFormat(tokenizer).prompt(plain)
    prompt = [token_id for token_ids, _ in pieces for token_id in token_ids]
    candidates = [
        agent_free_row(
            episode,
            advantage,
            prompt,
            scenario.codec,
            tokenizer,
            keeps_tools=scenario.rules.tools_when == "always",
        )
        for episode, advantage in zip(group, advantages, strict=True)
    ]
    return [row for row in candidates if row is not None]


def _reward(
    config: TrainConfig, scenario: Scenario, episode: Episode, step: int
) -> float:
    """Return the verdict's reward and the optional terms."""
    answered = sum(
        consult.is_agents and consult.status == "answered"
        for consult in episode.consults
    )
    reward = float(episode.reward or 0.0) - config.consult_cost * answered
    if episode.correct and answered:
        reward += config.consult_bonus * anneal(config, step)
    if config.overlong_buffer:
        num_tokens = int(episode.tokens.policy_mask.sum())
        reward += overlong_penalty(
            num_tokens, scenario.rules.max_policy_tokens, config.overlong_buffer
        )
    return reward


def _training_scenario(config: TrainConfig, journal: Journal | None) -> Scenario:
    """Build the scenario with the run's journal; with `accept_anneal`, behind a pool that withholds."""
    scenario = build_scenario(
        config.environment,
        "none" if config.source.is_stored else None,
        seed=config.seed,
        journal=journal,
    )
    if not scenario.offered and config.aided_share and not config.source.is_stored:
        raise ConfigError(
            f"config: aided_share={config.aided_share} with nobody to consult: the "
            f"environment {config.environment.name!r} has no agents. Name some, as in "
            "--agents openai:MODEL@URL, or leave --aided-share out."
        )
    if config.overlong_buffer > scenario.rules.max_policy_tokens:
        raise ConfigError(
            f"config: overlong_buffer={config.overlong_buffer} is more than the rules' max_policy_tokens="
            f"{scenario.rules.max_policy_tokens}; use at most that."
        )
    scenario = replace(
        scenario, source=without_contaminated(scenario.source, config.held_out)
    )
    if config.independence != "accept_anneal":
        return scenario
    pool: AgentPool = WithholdingPool(
        scenario.pool.agents, scenario.pool.limits, journal
    )
    return replace(scenario, pool=pool)


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, config: TrainConfig, step: int
) -> None:
    """Set the rate of a step: a linear rise over `warmup_steps`, then a linear fall to `lr_end` of the peak."""
    rise = min(1.0, (step + 1) / max(1, config.warmup_steps))
    fallen = max(0, step + 1 - config.warmup_steps) / max(
        1, config.num_steps - config.warmup_steps
    )
    for group in optimizer.param_groups:
        group["lr"] = config.lr * rise * (1 - (1 - config.lr_end) * fallen)
