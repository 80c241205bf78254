"""The training loop: sampler's weights, rollouts, rows, update, log, checkpoint."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from rich.console import Console

from aipo_env import Episode, write_episodes
from aipo_learner.build import Training, build_training, open_run
from aipo_learner.evaluation.scheduled import held_out_metrics
from aipo_learner.learn.agent_free_rows import agent_free_rows
from aipo_learner.learn.base_algorithms import divides_by_token_places, find_base
from aipo_learner.learn.coefficients import episode_coefficients, write_coefficients
from aipo_learner.learn.episode_metrics import episode_metrics
from aipo_learner.learn.guards import check_bounds, guarded_update, update_advice
from aipo_learner.learn.idle import Learned, stop_idle, what_to_do, why_idle
from aipo_learner.learn.learning_rate import learning_rate, set_learning_rate
from aipo_learner.learn.rewards import step_reward
from aipo_learner.learn.rows import Row
from aipo_learner.learn.teaching import write_contexts
from aipo_learner.learn.training_rows import (
    TrainingRows,
    imitation_rows,
    no_further_rows,
    training_rows,
)
from aipo_learner.learn.update import update
from aipo_learner.policy.distributed import copy_weights, gathered, rank
from aipo_learner.policy.memory import out_of_memory_explained
from aipo_learner.rollout.aid import Competence
from aipo_learner.rollout.sampled import Groups, staleness
from aipo_learner.run.folder import Run
from aipo_learner.run.found import FoundRun, found_run, what_is_there
from aipo_learner.run.interrupt import Abandoned
from aipo_learner.run.metrics_log import is_idle
from aipo_learner.run.scores import best_step, is_stalled
from aipo_learner.samplers.weight_sync import sync_weights
from aipo_learner.settings.aid import read_aid
from aipo_learner.settings.train import TrainConfig


def train(
    config: TrainConfig, console: Console | None = None, num_workers: int = 0
) -> Learned:
    """Train to the end of `config.num_steps`, from the last checkpoint if there is one.

    Started by torchrun, every rank does its share.

    Args:
        config: Of the run, whose checkpoints are in `config.out`.
        console: What is printed to; standard output if None.
        num_workers: So many Ray actors sample in this process's place; 0 for none.

    Returns:
        What the run came to.

    Raises:
        AgentLost: An agent can never answer. NoGradient: nothing was learned for
            `stop_after_idle_steps` steps; the run is saved.
        ConfigError, DataError, PolicyError: Before the first step, with what to change.
        CheckpointError: A checkpoint cannot be read or written; earlier ones are whole.
        Interrupted: Ctrl-C; the step was finished and saved. Terminated: SIGTERM;
            likewise, except that episodes that were being sampled are sampled again.
    """
    with open_run(config) as run:
        found = found_run(run.folder)
        if _is_done(run.config, found):
            had_gradient = any(row.get("rows") for row in found.rows)
            return Learned(had_gradient, found=what_is_there(found))
        return _train(run, console or Console(), num_workers)


def _is_done(config: TrainConfig, found: FoundRun) -> bool:
    """Return whether nothing of a run is left to do: no step, and no evaluation."""
    scores = {step: score for step, score in found.scores.items() if step <= found.step}
    if is_stalled(scores, config.evaluation.patience):
        return True
    is_due = config.evaluation.is_due(found.step, config.num_steps)
    is_measured = not is_due or found.step in scores
    return found.step == config.num_steps and is_measured


def _train(run: Run, console: Console, num_workers: int) -> Learned:
    """Train a run to its end, and say what it came to."""
    with build_training(run, console, num_workers) as training:
        config = training.config
        batches = training.batches
        progress = training.progress
        log = training.log
        training.run.mark_best(best_step(log.scores))
        idle_note = ""
        # One more than there are steps: the last weights are evaluated as well.
        for step in range(training.run.step, config.num_steps + 1):
            number = min(step + 1, config.num_steps)
            progress.begin(f"{run.folder.name}  step {number}/{config.num_steps}")
            # The weights are those after `step` steps, and nothing of the next is
            # begun.
            with _saved_if_given_up(training, step):
                gap = _sync_and_evaluate(training, step)
                if _is_over(training, step):
                    break
                # It may have been while this was evaluated.
                if _is_asked_to_stop(training):
                    raise Abandoned
                started = time.monotonic()
                groups = batches.take(step)
            sampled = time.monotonic()
            episodes = [episode for group in groups for episode in group]
            # Before the update: coefficients depend on the weights that sampled.
            _keep_episodes(training, step, groups[0])
            made = _make_rows(training, step, groups)
            batches.sample_ahead(step)
            telemetry = _update(training, step, made.rows, episodes)
            updated = time.monotonic()
            # Waited for here, so that a checkpoint has what was sampled ahead.
            _settle(training)
            waited = time.monotonic() - updated
            ages = staleness(step, episodes, is_stored=config.source.is_stored)
            seconds = {
                "seconds/rollouts": sampled - started + waited,
                "seconds/update": updated - sampled,
            }
            idle_reasons = ""
            if is_idle(made.counts):
                idle_reasons = why_idle(
                    groups, mask_truncated=config.source.mask_truncated
                )
            metrics = episode_metrics(episodes, training.sources)
            row = metrics | made.counts | ages | telemetry
            log.write(
                step + 1,
                row | gap | seconds,
                idle_reasons,
                tokens_per_second=_tokens_per_second(episodes, seconds),
            )
            if idle_reasons:
                idle_note = f"{idle_reasons}. {what_to_do(groups)}"
            _save_or_stop(training, step + 1, groups)
        num_held_out = 0
        if not config.evaluation.every and not config.source.is_stored:
            num_held_out = training.scenario.source.num_tasks("test") or 0
        return Learned(log.had_gradient, idle_note, num_held_out=num_held_out)


def _sync_and_evaluate(training: Training, step: int) -> dict[str, float]:
    """Give the sampler the weights after `step` steps; measure them if that is due.

    Returns the metric of the sampler's gap: after each time that weights were given to
    it, and of one that shares the learner's in the first step of the run.
    """
    config = training.config
    log = training.log
    is_due = config.evaluation.is_due(step, config.num_steps)
    # A run that goes on from a checkpoint may have measured its weights already.
    is_measured = is_due and step not in log.scores
    samples = training.plays_here and step < config.num_steps
    if not is_measured and not samples:
        return {}
    gap = sync_weights(training.sampler, training.model, config.max_sampler_gap)
    if is_measured:
        row = held_out_metrics(
            config.evaluation,
            training.held_out,
            training.sampler,
            seed=config.seed,
            progress=training.progress,
        )
        log.write_evaluation(step, row)
        training.run.mark_best(best_step(log.scores))
    # In no later step: a run that is resumed has the rows of one that never stopped.
    return gap if step else gap | training.sampler_gap


def _is_over(training: Training, step: int) -> bool:
    """Return whether the weights after `step` steps are the last."""
    patience = training.config.evaluation.patience
    is_last = step == training.config.num_steps
    return is_last or is_stalled(training.log.scores, patience)


@contextmanager
def _saved_if_given_up(training: Training, step: int) -> Iterator[None]:
    """When a signal ends what is within, save the weights and stop the run.

    They are those after `step` steps.
    """
    config = training.config
    interrupt = training.interrupt
    # Now: a batch that is taken within is not yet trained on, and would be lost.
    waiting = training.batches.queued()
    competence = training.batches.competence()
    num_episodes = config.groups_per_step * config.group_size
    advise = partial(training.sampler.memory_advice, num_episodes)
    try:
        with interrupt.abandonable(), out_of_memory_explained(advise):
            yield
    except Abandoned:
        # Otherwise the checkpoint that the run began with has these weights.
        if step > training.run.step:
            _save(training, step, waiting, competence, keep_journal=True)
        raise interrupt.error(_stopped(config, step)) from None


def _make_rows(training: Training, step: int, groups: Groups) -> TrainingRows:
    """Turn the groups of a step into rows.

    With `internalised`, correct aided episodes also become agent-free ones.
    """
    config = training.config
    if config.source.sft_episodes:
        return imitation_rows(
            groups,
            agent_tokens=config.source.sft_agent_tokens,
            mask_truncated=config.source.mask_truncated,
        )
    tuition = training.tuition
    teaching = None if tuition is None else tuition.teaching
    further = no_further_rows
    if config.independence == "internalised":
        further = partial(
            agent_free_rows,
            training.scenario,
            training.tokenizer,
            objective=config.objective,
            teaching=teaching,
        )
    made = training_rows(
        training.demonstrations.joined(groups),
        step_reward(config, training.scenario.rules, step),
        base=config.objective.base,
        baseline=config.baseline,
        mask_truncated=config.source.mask_truncated,
        further=further,
        objective=config.objective,
        teaching=teaching,
    )
    if config.source.max_refills:
        made.counts["groups/refilled"] = len(groups) - config.groups_per_step
    if config.source.demonstrations:
        num_groups = training.demonstrations.num_groups(groups)
        made.counts["groups/demonstrated"] = num_groups
    if read_aid(config.aid).is_decided:
        made.counts["aided_groups"] = _aided_share(groups)
    return made


def _aided_share(groups: Groups) -> float:
    """Return the share of the groups in which some rollout might consult."""
    num_aided = sum(any(episode.aided for episode in group) for group in groups)
    return num_aided / len(groups)


def _update(
    training: Training, step: int, rows: Sequence[Row], episodes: Sequence[Episode]
) -> dict[str, float]:
    """Change the weights by the rows of a step; return the telemetry.

    Without rows it is the learning rate alone, which goes on all the same.
    """
    config = training.config
    rate = learning_rate(
        step,
        peak=config.lr,
        warmup_steps=config.warmup_steps,
        num_steps=config.num_steps,
        end_share=config.lr_end,
        decay=config.optimizer.decay,
    )
    set_learning_rate(training.optimizer, rate)
    if not rows:
        return {"lr": rate}
    advise = partial(
        update_advice,
        rows,
        config.microbatch_tokens,
        has_checkpointing=config.compute.gradient_checkpointing,
    )
    with (
        guarded_update(training.run.folder, step + 1, rows, episodes),
        out_of_memory_explained(advise),
    ):
        telemetry = update(
            training.forward,
            training.optimizer,
            rows,
            config.update,
            pad_token_id=training.tokenizer.pad_token_id or 0,
            reference=training.reference,
            key=(config.seed, step),
            progress=training.progress,
            teacher=None if training.tuition is None else training.tuition.teacher,
        )
        # Within the guard, so that a batch that breaks a bound is kept too.
        check_bounds(telemetry, config.bounds)
    copy_weights(training.forward.model, training.model)
    objective = config.update.objective
    if divides_by_token_places(find_base(objective.base)):
        telemetry["dr_grpo/max_policy_tokens"] = objective.token_places
    return telemetry | {"lr": rate}


def _tokens_per_second(
    episodes: Sequence[Episode], seconds: Mapping[str, float]
) -> float:
    """Return how many of the policy's tokens the step had for each of its seconds."""
    num_tokens = sum(int(episode.tokens.policy_mask.sum()) for episode in episodes)
    # A clock may stand still for a step that had nothing to do.
    return num_tokens / (sum(seconds.values()) or 1.0)


def _settle(training: Training) -> None:
    """Wait for what is sampled ahead; a SIGTERM gives it up."""
    with suppress(Abandoned), training.interrupt.abandonable():
        training.batches.settle()


def _keep_episodes(training: Training, step: int, episodes: Sequence[Episode]) -> None:
    """Keep episodes for the viewer, with the coefficients of their agents' tokens.

    What the policy reads as its own teacher stands beside them.
    """
    config = training.config
    # Rank 0 alone writes files.
    if step % config.episodes_every or rank():
        return
    path = training.run.episodes_path(step + 1)
    write_episodes(path, episodes)
    coefficients = episode_coefficients(
        training.model, episodes, config.objective, temperature=config.temperature
    )
    write_coefficients(path, coefficients)
    tuition = training.tuition
    if tuition is not None and tuition.teaching.shown:
        write_contexts(path, episodes, tuition.teaching)


def _save_or_stop(training: Training, step: int, groups: Groups) -> None:
    """Save the weights if that is due; stop if asked to, or if nothing is learned.

    Args:
        training: The run.
        step: How many steps were made.
        groups: Of the last step: they say why nothing was learned.

    Raises:
        NoGradient: Too many steps in a row had no gradient.
        Interrupted: The run was asked to stop; or Terminated, by SIGTERM.
    """
    config = training.config
    run = training.run
    log = training.log
    is_interrupted = _is_asked_to_stop(training)
    is_idle = 0 < config.stop_after_idle_steps <= log.num_idle
    run.settle()
    if is_interrupted or is_idle or _is_saved(config, step):
        waiting = training.batches.queued()
        competence = training.batches.competence()
        _save(training, step, waiting, competence, keep_journal=is_interrupted)
    if is_idle:
        raise stop_idle(
            log.num_idle,
            groups,
            config.out,
            mask_truncated=config.source.mask_truncated,
            observes=config.objective.observation_weight > 0,
        )
    if is_interrupted and step < config.num_steps:
        raise training.interrupt.error(_stopped(config, step))


def _is_asked_to_stop(training: Training) -> bool:
    """Return whether any rank was: a signal may have reached one, and all must stop."""
    return any(gathered([training.interrupt.requested]))


def _save(
    training: Training,
    step: int,
    waiting: Sequence[Episode],
    competence: Competence,
    *,
    keep_journal: bool,
) -> None:
    with training.progress.part(lambda: "saving"):
        training.run.save(
            step,
            training.model,
            training.tokenizer,
            training.optimizer,
            waiting,
            competence=competence,
            keep_journal=keep_journal,
        )


def _is_saved(config: TrainConfig, step: int) -> bool:
    """Return whether the weights after `step` steps make a checkpoint."""
    # Those that are evaluated always do: they may turn out to be the best.
    if config.evaluation.is_due(step, config.num_steps):
        return True
    return step % config.checkpoint_every == 0 or step == config.num_steps


def _stopped(config: TrainConfig, step: int) -> str:
    if not step:
        return (
            f"stopped before the first of {config.num_steps} steps was made; there is"
            f" nothing to save in {config.out}. The same command begins anew."
        )
    return (
        f"stopped after step {step} of {config.num_steps}, which is saved in"
        f" {config.out}. The same command goes on from there."
    )
