"""The training loop, top to bottom: rollouts, advantages, rows, update, record."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import (
    AgentPool,
    ConfigError,
    Episode,
    Interrupted,
    Scenario,
    Session,
    build_scenario,
    choose,
    construct,
    parse_spec,
    task_index,
    write_episodes,
)
from aipo_learner.advantages import group_advantages, is_dropped, overlong_penalty
from aipo_learner.batch import Row, episode_row
from aipo_learner.checkpoint import Run
from aipo_learner.config import TrainConfig
from aipo_learner.independence import WithholdingPool, agent_free_row, aided_flags, anneal
from aipo_learner.interrupt import InterruptFlag
from aipo_learner.metrics import MetricsLog, episode_metrics
from aipo_learner.policy import load_policy
from aipo_learner.reporting.annotations import episode_coefficients, write_coefficients
from aipo_learner.rollouts import run_episodes
from aipo_learner.runtime import prepare
from aipo_learner.samplers.base import ChatFormat, Sampler
from aipo_learner.samplers.hf_sampler import HFSampler
from aipo_learner.update import update


def train(config: TrainConfig, console: Console | None = None) -> None:
    """Train to the end of `config.num_steps`, from the last checkpoint in `config.out` if there is one.

    Raises:
        ConfigError, DataError, PolicyError: Before the first step, with the mend.
        CheckpointError: A checkpoint cannot be read or written; earlier ones are whole.
        Interrupted: Ctrl-C; the step was finished and saved.
    """
    console = console or Console()
    prepare(config.num_threads)
    torch.manual_seed(config.seed)
    with Run.open(config) as run:
        model, tokenizer = load_policy(run.policy_path(), trust_remote_code=config.trust_remote_code)
        reference = None
        if config.objective.kl_coef:
            reference, _ = load_policy(run.initial_policy, trust_remote_code=config.trust_remote_code)
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        run.restore_optimizer(optimizer)
        sampler = build_sampler(config, model, tokenizer)
        scenario = _training_scenario(config, run)
        log = MetricsLog(config.out, run.step, config.num_steps, console)
        # Dropout would make the learner another policy than the one that sampled.
        model.eval()
        with InterruptFlag() as interrupt, contextlib.closing(log):
            for step in range(run.step, config.num_steps):
                start = time.monotonic()
                episodes = asyncio.run(run_episodes(_sessions(config, scenario, step), sampler))
                sampled = time.monotonic()
                if step % config.episodes_every == 0:
                    _keep_episodes(run.episodes_path(step), episodes[: config.group_size], model, config)
                rows, counts = training_rows(config, scenario, episodes, step, tokenizer)
                _set_learning_rate(optimizer, config, step)
                pad = tokenizer.pad_token_id or 0
                telemetry = (
                    update(model, optimizer, rows, config, pad_token_id=pad, reference=reference)
                    if rows
                    else {}
                )
                seconds = {"seconds/rollouts": sampled - start, "seconds/update": time.monotonic() - sampled}
                log.write(step, episode_metrics(episodes) | counts | telemetry | seconds)
                is_last = step + 1 == config.num_steps
                if is_last or interrupt.requested or (step + 1) % config.checkpoint_every == 0:
                    run.save(step + 1, model, tokenizer, optimizer)
                if interrupt.requested and not is_last:
                    raise Interrupted(
                        f"stopped after step {step + 1} of {config.num_steps}, which is saved in {config.out}. "
                        "The same command goes on from there."
                    )


def _keep_episodes(
    path: Path, episodes: Sequence[Episode], model: PreTrainedModel, config: TrainConfig
) -> None:
    """Keep episodes for the viewer, with the coefficients that the objective gives their agents' tokens."""
    write_episodes(path, episodes)
    write_coefficients(path, episode_coefficients(model, episodes, config))


def build_sampler(config: TrainConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Sampler:
    """Build the sampler that `config.sampler` names."""
    kind, options = parse_spec(config.sampler, "sampler")
    make = choose({"transformers": HFSampler}, kind, "sampler")
    fixed = {"model": model, "tokenizer": tokenizer, "temperature": config.temperature}
    return construct(make, {**options, **fixed}, "sampler")


def training_rows(
    config: TrainConfig,
    scenario: Scenario,
    episodes: Sequence[Episode],
    step: int,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[Row], dict[str, float]]:
    """Turn the episodes of a step, group after group, into rows; count what was left out and why.

    A group with a failed episode is left out whole: its baseline would be another than intended.
    """
    rows: list[Row] = []
    num_partial = num_constant = 0
    for start in range(0, len(episodes), config.group_size):
        group = episodes[start : start + config.group_size]
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
            episode_row(episode, advantage) for episode, advantage in zip(group, advantages, strict=True)
        ]
        if config.independence == "internalised":
            rows += _agent_free_rows(scenario, group, advantages, tokenizer)
    return rows, {"groups/partial": num_partial, "groups/constant": num_constant, "rows": len(rows)}


def _agent_free_rows(
    scenario: Scenario,
    group: Sequence[Episode],
    advantages: Sequence[float],
    tokenizer: PreTrainedTokenizerBase,
) -> list[Row]:
    """Return the agent-free forms of a group's correct aided episodes."""
    plain = scenario.session(group[0].task, aided=False, key=(0,)).open()
    prompt = [token_id for token_ids, _ in ChatFormat(tokenizer).prompt(plain) for token_id in token_ids]
    candidates = [
        agent_free_row(episode, advantage, prompt, scenario.codec, tokenizer)
        for episode, advantage in zip(group, advantages, strict=True)
    ]
    return [row for row in candidates if row is not None]


def _reward(config: TrainConfig, scenario: Scenario, episode: Episode, step: int) -> float:
    """Return the verdict's reward and the optional terms."""
    answered = sum(consult.status == "answered" for consult in episode.consults)
    reward = float(episode.reward or 0.0) - config.consult_cost * answered
    if episode.correct and answered:
        reward += config.consult_bonus * anneal(config, step)
    if config.overlong_buffer:
        num_tokens = int(episode.tokens.policy_mask.sum())
        reward += overlong_penalty(num_tokens, scenario.rules.max_policy_tokens, config.overlong_buffer)
    return reward


def _sessions(config: TrainConfig, scenario: Scenario, step: int) -> list[Session]:
    """Start the step's sessions: group after group, each with its task and its keys."""
    if isinstance(scenario.pool, WithholdingPool):
        scenario.pool.accept = anneal(config, step)
    sessions = []
    for group in range(config.groups_per_step):
        position = step * config.groups_per_step + group
        index = task_index(scenario.source, "train", position, config.seed)
        task = scenario.source.task("train", index)
        for rollout, aided in enumerate(aided_flags(config, step)):
            key = (config.seed, step, group, rollout)
            sessions.append(
                scenario.session(task, aided=aided, key=key, group_id=f"{step}-{group}", policy_version=step)
            )
    return sessions


def _training_scenario(config: TrainConfig, run: Run) -> Scenario:
    """Build the scenario with the run's journal; with `accept_anneal`, behind a pool that withholds."""
    scenario = build_scenario(
        config.environment,
        config.agents,
        rules=config.rules,
        pool=config.pool,
        seed=config.seed,
        journal=run.journal,
    )
    if not scenario.pool.agents and config.aided_share:
        raise ConfigError(
            "config: agents='none' with aided_share > 0; set --aided-share 0 to train without agents."
        )
    if config.overlong_buffer > scenario.rules.max_policy_tokens:
        raise ConfigError(
            f"config: overlong_buffer={config.overlong_buffer} is more than the rules' max_policy_tokens="
            f"{scenario.rules.max_policy_tokens}; use at most that."
        )
    if config.independence != "accept_anneal":
        return scenario
    pool: AgentPool = WithholdingPool(scenario.pool.agents, scenario.pool.limits, run.journal)
    return replace(scenario, pool=pool)


def _set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> None:
    """Set the rate of a step: a linear rise over `warmup_steps`, then a linear fall to `lr_end` of the peak."""
    rise = min(1.0, (step + 1) / max(1, config.warmup_steps))
    fallen = max(0, step + 1 - config.warmup_steps) / max(1, config.num_steps - config.warmup_steps)
    for group in optimizer.param_groups:
        group["lr"] = config.lr * rise * (1 - (1 - config.lr_end) * fallen)
