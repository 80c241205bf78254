"""A training run, built from its settings: all that the loop works with."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import (
    AgentPool,
    ConfigError,
    DialogueRules,
    Episode,
    Journal,
    Scenario,
    Spec,
    build_scenario,
    check_agents,
    choose,
    construct,
    named_options,
    parse_spec,
    run_sync,
    shown,
    task_index,
    without_contaminated,
)
from aipo_learner.evaluation.scheduled import check_held_out, held_out_scenario
from aipo_learner.first_words import (
    before_loading,
    of_what_is_played,
    of_what_was_loaded,
)
from aipo_learner.learn.checker import check_objective
from aipo_learner.learn.episode_metrics import sources_of
from aipo_learner.learn.optimizer import build_optimizer
from aipo_learner.learn.rewards import step_reward
from aipo_learner.learn.training_rows import is_constant
from aipo_learner.policy.chat import choose_template
from aipo_learner.policy.distributed import join_ranks, own_copy, rank, shard
from aipo_learner.policy.fitness import check_context, max_positions
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import count_weights, load_policy, policy_folder
from aipo_learner.policy.lora import add_adapter
from aipo_learner.policy.runtime import choose_threads, prepare, thread_limit
from aipo_learner.rollout.aid import find_aid
from aipo_learner.rollout.demonstrations import (
    NO_DEMONSTRATIONS,
    Demonstrations,
    read_demonstrations,
)
from aipo_learner.rollout.independence import WithholdingPool, aided_share
from aipo_learner.rollout.prompts import check_prompts
from aipo_learner.rollout.ray_workers import RayWorkers, WorkerSettings
from aipo_learner.rollout.sampled import (
    Batches,
    IsConstant,
    SampledBatches,
    play_groups,
)
from aipo_learner.rollout.stored import StoredBatches
from aipo_learner.run.folder import Run, resumed_setting
from aipo_learner.run.interrupt import InterruptFlag
from aipo_learner.run.metrics_log import MetricsLog
from aipo_learner.run.places import is_whole, whole_checkpoints
from aipo_learner.run.progress import Progress, say
from aipo_learner.samplers.base import Sampler
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.samplers.vllm.sampler import served_sampler, vllm_sampler
from aipo_learner.samplers.weight_sync import check_sampler
from aipo_learner.settings.aid import AidSettings, read_aid
from aipo_learner.settings.train import TrainConfig
from aipo_learner.teachers import Tuition, build_tuition, check_shown

_log = logging.getLogger("aipo_learner")
SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "transformers": HFSampler,
    "vllm": vllm_sampler,
    "vllm-serve": served_sampler,
}
"""By the names that `--sampler` takes, beside "auto"."""
_NUM_TASKS = 16
"""So many tasks are looked at for what all of them should have."""
_NOT_FOR_SPECS = ("model", "tokenizer", "temperature", "thread", "is_served")
"""Arguments of samplers that no spec sets."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run, built.

    Args:
        config: Its settings.
        run: Its folder; `run.step` is the first step that is still to be made.
        scenario: What is played.
        model: What is sampled from and exported, whole on every rank.
        tokenizer: The policy's.
        forward: Its forward pass in the update; on several ranks that of a copy in
            shards.
        reference: The forward pass of the initial policy, where the loss needs it.
        tuition: Who teaches the policy on its own tokens, where the loss has a teacher.
        optimizer: Of the weights of `forward`.
        sampler: Writes the policy's turns.
        sampler_gap: The metric of `check_sampler`; empty where there is nothing to
            check.
        batches: Where the episodes of a step come from.
        demonstrations: Solutions that stand in the groups beside these.
        plays_here: Whether this process samples episodes itself.
        held_out: What is evaluated on schedule.
        sources: The origins of tasks that metrics tell apart.
        log: Takes the metrics of every step.
        progress: Says what goes on within a step.
        interrupt: Says whether the run was asked to stop.
    """

    config: TrainConfig
    run: Run
    scenario: Scenario
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    forward: LearnerForward
    reference: LearnerForward | None
    tuition: Tuition | None
    optimizer: torch.optim.Optimizer
    sampler: Sampler
    sampler_gap: dict[str, float]
    batches: Batches
    demonstrations: Demonstrations
    plays_here: bool
    held_out: Scenario
    sources: tuple[str, ...]
    log: MetricsLog
    progress: Progress
    interrupt: InterruptFlag


@contextmanager
def open_run(config: TrainConfig) -> Iterator[Run]:
    """Open the run in `config.out`. Started by torchrun, every rank does.

    Raises:
        ConfigError, PolicyError: There is no such policy, or checkpoint to start from;
            or a rule or a base of the objective cannot be used.
        CheckpointError: The run's folder cannot be used.
    """
    check_objective(config.objective)
    # What decides may be somebody's own: it is found now, or the run has no folder.
    find_aid(read_aid(config.aid))
    config = _with_threads(with_origin(config))
    prepare(config.num_threads or 1)
    join_ranks()
    with Run.open(config) as run:
        yield run


@contextmanager
def build_training(
    run: Run, console: Console, num_workers: int = 0
) -> Iterator[Training]:
    """Build a run, from its last checkpoint if there is one, and say what it does.

    Everything is closed in the end, what was opened last before what it needs. Started
    by torchrun, every rank does its share.

    Args:
        run: Its folder, with its settings.
        console: What is printed to.
        num_workers: So many Ray actors sample in this process's place; 0 for none.

    Raises:
        AgentLost: An agent can never answer.
        ConfigError, DataError, PolicyError: What the settings name cannot be used, and
            why.
        CheckpointError: A checkpoint cannot be used.
    """
    config = run.config
    # Adapters are drawn from it, alike on every rank.
    torch.manual_seed(config.seed)
    if rank():
        # One speaks for all.
        console = Console(quiet=True)
    with ExitStack() as opened:
        for line in before_loading(run):
            say(console, line)
        progress = opened.enter_context(Progress(console))
        progress.begin(config.out.name)
        loading = opened.enter_context(ExitStack())
        loading.enter_context(progress.part(lambda: "loading"))
        scenario = build_training_scenario(config, run.journal)
        config = with_rules(config, scenario)
        if not config.source.is_stored:
            run_sync(check_agents(scenario.pool))
        for line in of_what_is_played(config, scenario):
            say(console, line)
        held_out = _build_held_out(config, scenario)
        if not config.source.is_stored:
            run.check_data(scenario.source)
        model, tokenizer = build_policy(config, run.policy_path())
        run.check_template(tokenizer)
        max_tokens = _max_sampled_tokens(config, scenario, held_out)
        check_context(model, max_tokens)
        kind, _ = read_sampler(config.sampler)
        for line in of_what_was_loaded(config, model, kind):
            say(console, line)
        # Before the copies that the learner's forward passes may make.
        run.restore(model)
        forward, reference = _build_forwards(config, model, run.initial_policy)
        tuition = build_tuition(config, model, tokenizer, forward)
        if tuition is not None:
            opened.enter_context(closing(tuition.teacher))
        # After sharding, which replaces the parameters.
        parameters = forward.model.parameters()
        optimizer = build_optimizer(parameters, config.optimizer_settings)
        run.restore_optimizer(forward.model, optimizer)
        # Before what samples, so that it is closed after it: a logger may take its
        # time.
        log = MetricsLog(
            config.out,
            console,
            num_steps=config.num_steps,
            num_made=run.step,
            loggers=config.loggers,
            settings=config.to_dict(),
            writes=rank() == 0,
            is_stored=config.source.is_stored,
        )
        opened.enter_context(closing(log))
        sampler = build_sampler(
            config.sampler, model, tokenizer, temperature=config.temperature
        )
        opened.enter_context(closing(sampler))
        gap: dict[str, float] = {}
        if max_tokens:
            # Before anything is sampled, by this process or by workers.
            gap = check_sampler(sampler, model, config.max_sampler_gap, max_tokens)
        _check_prompts(config, scenario, held_out, tokenizer)
        demonstrations = NO_DEMONSTRATIONS
        if config.source.demonstrations:
            demonstrations = read_demonstrations(
                Path(config.source.demonstrations),
                scenario,
                tokenizer,
                max_tokens=max_positions(model),
            )
            say(console, f"{config.out.name}  {demonstrations.note}")
        refilled = _constant_groups(config, scenario, demonstrations)
        workers = None
        if num_workers:
            # This process's own sampler still evaluates.
            workers = _build_workers(num_workers, config, refilled, model, progress)
            opened.enter_context(closing(workers))
        interrupt = InterruptFlag(progress.note)
        batches: Batches
        if config.source.is_stored:
            batches = StoredBatches(
                config.source,
                config.rollouts,
                scenario,
                tokenizer,
                max_tokens=max_positions(model),
            )
        else:
            batches = _build_batches(
                run,
                config,
                scenario,
                sampler,
                refilled,
                workers,
                interrupt,
                progress,
            )
        opened.enter_context(closing(batches))
        training = Training(
            config=config,
            run=run,
            scenario=scenario,
            model=model,
            tokenizer=tokenizer,
            forward=forward,
            reference=reference,
            tuition=tuition,
            optimizer=optimizer,
            sampler=sampler,
            sampler_gap=gap,
            batches=batches,
            demonstrations=demonstrations,
            plays_here=not workers and not config.source.is_stored,
            held_out=held_out,
            sources=sources_of(scenario.source),
            log=log,
            progress=progress,
            interrupt=interrupt,
        )
        loading.close()
        # Signals are caught from here to the last thing that is closed: what is opened
        # moves inside, so that it is closed before the signals are let go.
        with interrupt, opened.pop_all():
            yield training


def with_rules(config: TrainConfig, scenario: Scenario) -> TrainConfig:
    """Return the settings with what they leave to the rules of the episodes."""
    objective = config.objective
    if objective.max_policy_tokens is not None:
        return config
    limit = scenario.rules.max_policy_tokens
    return replace(config, objective=replace(objective, max_policy_tokens=limit))


def _build_held_out(config: TrainConfig, scenario: Scenario) -> Scenario:
    """Return what is evaluated on schedule; what is trained in where nothing is."""
    if not config.evaluation.every:
        return scenario
    held_out = held_out_scenario(
        config.evaluation, config.environment, seed=config.seed
    )
    if not config.source.is_stored:
        name = config.evaluation.environment or config.environment.name
        check_held_out(scenario.source, held_out.source, name)
    return held_out


def _max_sampled_tokens(
    config: TrainConfig, scenario: Scenario, held_out: Scenario
) -> int:
    """Return the length of the longest episode that is sampled; 0 where none is."""
    lengths = [0]
    # What is stored is as long as it is.
    if not config.source.is_stored:
        lengths.append(scenario.rules.max_context_tokens)
    if config.evaluation.every:
        lengths.append(held_out.rules.max_context_tokens)
    return max(lengths)


def _check_prompts(
    config: TrainConfig,
    scenario: Scenario,
    held_out: Scenario,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Write the prompts of a few tasks of all that is sampled.

    Raises:
        ConfigError, PolicyError: As `check_prompts`.
    """
    if not config.source.is_stored:
        check_training_prompts(config, scenario, tokenizer)
    if config.evaluation.every:
        check_prompts(held_out, tokenizer, split="test", ways=[False], seed=config.seed)


def check_training_prompts(
    config: TrainConfig, scenario: Scenario, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write the prompts of a few training tasks.

    Raises:
        ConfigError, PolicyError: As `check_prompts`.
    """
    share = aided_share(config.rollouts, scenario)
    ways = [False] if share < 1 else []
    ways += [True] if share > 0 else []
    check_prompts(scenario, tokenizer, split="train", ways=ways, seed=config.seed)


def with_origin(config: TrainConfig) -> TrainConfig:
    """Return settings with the policy, or adapter, of the checkpoint to start from.

    Raises:
        ConfigError: There is no such checkpoint, or it does not fit the settings.
    """
    if not config.checkpoints.resume_from:
        return config
    origin = Path(config.checkpoints.resume_from)
    # A run that goes on has checkpoints of its own.
    if not whole_checkpoints(config.out / "checkpoints"):
        _check_origin(origin, has_adapter=config.compute.lora_rank > 0)
    if not config.compute.lora_rank:
        return replace(config, policy=str(origin / "policy"))
    if config.compute.lora_adapter:
        raise ConfigError(
            f"config: compute.lora_adapter={config.compute.lora_adapter!r} beside"
            f" resume_from={str(origin)!r}, which has an adapter too. Leave one out."
        )
    adapter = str(origin / "adapter")
    return replace(config, compute=replace(config.compute, lora_adapter=adapter))


def _check_origin(origin: Path, *, has_adapter: bool) -> None:
    """Raise ConfigError unless a folder is a checkpoint that a run can start from."""
    if not is_whole(origin):
        inside = whole_checkpoints(origin / "checkpoints")
        example = inside[-1] if inside else "runs/x/checkpoints/step-000050"
        raise ConfigError(
            f"config: resume_from={str(origin)!r} is no checkpoint, which is a folder"
            f" with policy, optimizer and state.pt. Give one, as in {example}; of"
            " weights alone, --policy."
        )
    if has_adapter and not (origin / "adapter").is_dir():
        raise ConfigError(
            f"config: resume_from={str(origin)!r} has no adapter, and"
            " compute.lora_rank is set. To put a new one on its weights: --policy"
            f" {origin / 'policy'}."
        )


def _with_threads(config: TrainConfig) -> TrainConfig:
    """Return settings that say how many threads there are.

    A run that is resumed goes on with those that it began with: sums depend on them.
    """
    if config.num_threads is not None:
        return config
    num_threads = resumed_setting(config.out, "num_threads")
    if type(num_threads) is not int or num_threads < 1:
        num_weights = count_weights(
            policy_folder(config.policy), trust_remote_code=config.trust_remote_code
        )
        return replace(config, num_threads=choose_threads(num_weights))
    limit = thread_limit()
    if limit is not None and num_threads > limit:
        _log.warning(
            "the run goes on with the num_threads=%s that it began with, more than"
            " OMP_NUM_THREADS=%s: sums depend on it.",
            num_threads,
            limit,
        )
    return replace(config, num_threads=num_threads)


def build_policy(
    config: TrainConfig, path: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the policy to sample from, with adapters if they are what is trained.

    Args:
        config: Of the run.
        path: The policy's folder.
    """
    model, tokenizer = load_policy(path, trust_remote_code=config.trust_remote_code)
    tokenizer.chat_template = choose_template(
        tokenizer, config.chat.chat_template, config.chat.chat_template_kwargs
    )
    compute = config.compute
    if compute.lora_rank:
        add_adapter(
            model,
            compute.lora_rank,
            alpha=compute.lora_alpha,
            targets=compute.lora_targets,
            start=compute.lora_adapter,
        )
    # Dropout would make the learner another policy than the one that sampled.
    return model.eval(), tokenizer


def _build_forwards(
    config: TrainConfig, model: PreTrainedModel, initial_policy: str
) -> tuple[LearnerForward, LearnerForward | None]:
    """Return the learner's forward passes, of the policy and of the initial one.

    The second is None where the loss does not need it.
    """
    forward = _build_forward(config, own_copy(model))
    # Imitation is by cross-entropy alone.
    is_imitation = bool(config.source.sft_episodes)
    if is_imitation or not config.objective.kl_coef:
        return forward, None
    # With its adapter, which may have been trained before.
    initial, _ = build_policy(config, initial_policy)
    return forward, _build_forward(config, initial)


def _build_forward(config: TrainConfig, model: PreTrainedModel) -> LearnerForward:
    # It runs the model to see what it does, which needs all of it: before sharding.
    forward = LearnerForward(
        model,
        config.compute,
        temperature=config.temperature,
        entropy_gradient=config.objective.entropy_coef > 0,
    )
    shard(model, is_bfloat16=forward.is_bfloat16)
    return forward


def build_sampler(
    spec: Spec,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    temperature: float = 1.0,
) -> Sampler:
    """Build the sampler that a spec names.

    "auto" is vLLM where it is installed and there is a GPU, else transformers.

    Args:
        spec: As for `--sampler`.
        model: The policy.
        tokenizer: The policy's.
        temperature: Of every draw.

    Raises:
        ConfigError: There is no such sampler, or it cannot be built so.
    """
    kind, options = read_sampler(spec)
    fixed = {"model": model, "tokenizer": tokenizer, "temperature": temperature}
    return construct(SAMPLERS[kind], {**fixed, **options}, "sampler")


def read_sampler(spec: Spec) -> tuple[str, dict[str, Any]]:
    """Return a sampler's name in `SAMPLERS` and its options, all by name.

    Raises:
        ConfigError: There is no such sampler, or an option is not the spec's to give.
    """
    kind, options = parse_spec(spec, "sampler")
    if kind == "auto":
        has_vllm = torch.cuda.is_available() and find_spec("vllm") is not None
        kind = "vllm" if has_vllm else "transformers"
    make = choose(SAMPLERS, kind, "sampler")
    options = named_options(make, options, "sampler", _NOT_FOR_SPECS)
    for name in options:
        if name in _NOT_FOR_SPECS:
            raise ConfigError(
                f"sampler: {name!r} is a setting of the run, not of the sampler's spec."
            )
    return kind, options


def _build_workers(
    number: int,
    config: TrainConfig,
    refilled: IsConstant | None,
    model: PreTrainedModel,
    progress: Progress,
) -> RayWorkers:
    """Start the workers of a run, which sample with `model`'s weights.

    Raises:
        ConfigError: Episodes come from a file; or as for `RayWorkers`.
    """
    if config.source.is_stored:
        raise ConfigError(
            f"ray={number}: stored episodes leave nothing to sample. Leave --ray out."
        )
    settings = WorkerSettings(
        rollouts=config.rollouts,
        max_sampler_gap=config.max_sampler_gap,
        journal=config.out / "journal.jsonl",
        is_constant=refilled,
    )
    build = partial(build_rollouts, config)
    return RayWorkers(number, settings, model, build, progress)


def _constant_groups(
    config: TrainConfig, scenario: Scenario, demonstrations: Demonstrations
) -> IsConstant | None:
    """Return what finds groups that are refilled; None where none is."""
    if not config.source.max_refills:
        return None
    return partial(_is_constant, config, scenario.rules, demonstrations)


def _is_constant(
    config: TrainConfig,
    rules: DialogueRules,
    demonstrations: Demonstrations,
    step: int,
    group: Sequence[Episode],
) -> bool:
    return is_constant(
        [*group, *demonstrations.of(group)],
        step_reward(config, rules, step),
        base=config.objective.base,
        baseline=config.baseline,
        mask_truncated=config.source.mask_truncated,
        objective=config.objective,
    )


def _build_batches(
    run: Run,
    config: TrainConfig,
    scenario: Scenario,
    sampler: Sampler,
    refilled: IsConstant | None,
    workers: RayWorkers | None,
    interrupt: InterruptFlag,
    progress: Progress,
) -> SampledBatches:
    """Return the batches that the workers play; without any, the sampler."""
    settings = config.rollouts
    if workers:
        play = workers.play
    else:
        play = partial(
            play_groups,
            settings,
            scenario,
            sampler,
            is_constant=refilled,
            progress=progress,
        )
    return SampledBatches(
        settings,
        play,
        interrupt,
        first_step=run.step,
        queued=run.queued_episodes(),
        competence=run.competence(),
        # Workers have copies of the weights.
        samples_during_update=bool(workers) or sampler.samples_during_update,
    )


def build_rollouts(config: TrainConfig) -> tuple[PreTrainedModel, Sampler, Scenario]:
    """Build what a worker in another process plays episodes with.

    It is given the policy's weights later: what it loads has only their shapes.
    """
    prepare(config.num_threads or 1)
    model, tokenizer = build_policy(config, policy_folder(config.policy))
    sampler = build_sampler(
        config.sampler, model, tokenizer, temperature=config.temperature
    )
    return model, sampler, build_training_scenario(config, None)


def build_training_scenario(config: TrainConfig, journal: Journal | None) -> Scenario:
    """Build the scenario that is trained in.

    With `accept_anneal` its pool withholds replies.

    Args:
        config: Of the run.
        journal: What agents answered before, and where new answers are kept.

    Raises:
        ConfigError: The settings do not fit the environment's agents or rules.
    """
    # None: those of the environment. Stored episodes ask nobody, whoever is named.
    agents = "none" if config.source.is_stored else None
    scenario = build_scenario(
        config.environment, agents, seed=config.seed, journal=journal
    )
    aid = read_aid(config.aid)
    if not config.source.is_stored:
        _check_helpers(config, aid, scenario)
    if config.overlong_buffer > scenario.rules.max_policy_tokens:
        raise ConfigError(
            f"config: overlong_buffer={config.overlong_buffer} is more than the rules'"
            f" max_policy_tokens={scenario.rules.max_policy_tokens}; use at most that."
        )
    _check_observed(config, scenario)
    check_shown(config, scenario)
    source = without_contaminated(scenario.source, config.held_out)
    scenario = replace(scenario, source=source)
    if aid.family and not config.source.is_stored:
        _check_family(config, aid.family, scenario)
    if config.independence != "accept_anneal":
        return scenario
    pool: AgentPool = WithholdingPool(
        scenario.pool.agents, scenario.pool.limits, journal
    )
    return replace(scenario, pool=pool)


def _check_helpers(config: TrainConfig, aid: AidSettings, scenario: Scenario) -> None:
    """Raise ConfigError where rollouts are to be aided and nobody is there to help."""
    is_wanted = aid.is_decided or bool(aid.share)
    if is_wanted and not scenario.offered:
        raise ConfigError(
            f"config: aid={config.aid!r} with nobody to consult: the environment"
            f" {config.environment.name!r} has no agents. Name some, as in --agents"
            " openai:MODEL@URL, or leave --aid out."
        )


def _check_family(config: TrainConfig, family: str, scenario: Scenario) -> None:
    """Raise ConfigError where none of the first tasks has a family."""
    positions = range(_NUM_TASKS)
    indices = [
        task_index(scenario.source, "train", position, config.seed)
        for position in positions
    ]
    metas = [scenario.source.task("train", index).meta for index in indices]
    if any(family in meta for meta in metas):
        return
    keys = sorted({key for meta in metas for key in meta})
    there = ", ".join(map(shown, keys)) or "nothing"
    raise ConfigError(
        f"config: aid={config.aid!r}: none of the first {_NUM_TASKS} tasks has"
        f" {family!r} in its meta, which has {there}. Name one of these, or leave"
        " family out: then each task counts alone."
    )


def _check_observed(config: TrainConfig, scenario: Scenario) -> None:
    """Raise ConfigError where nobody writes what is to be learned as observations.

    Of stored episodes only they themselves can tell.
    """
    objective = config.objective
    if not objective.observation_weight or config.source.is_stored:
        return
    # Notices come in every environment.
    writing = {"env"}
    if scenario.toolbox.names:
        writing.add("tool")
    if scenario.offered:
        writing.add("agent")
    if writing.isdisjoint(objective.observation_authors):
        raise ConfigError(
            "config: objective.observation_authors="
            f"{list(objective.observation_authors)}, and in the environment"
            f" {config.environment.name!r} none of them writes anything: observed"
            f" could be {', '.join(sorted(writing))}. Name one of these, or set"
            " observation_weight to 0."
        )
