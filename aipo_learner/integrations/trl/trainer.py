"""TRL's GRPOTrainer with our episodes, advantages, rows and loss.

TRL keeps what it does around them: models, processes, accumulation of gradients,
optimiser, schedules, checkpoints, logging. Two of its methods are replaced: the one
that makes a generation batch, and the one that computes the loss of a part of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from aipo_env import (
    ConfigError,
    Environment,
    EnvironmentSpec,
    NoGradient,
    Spec,
    run_sync,
)
from aipo_learner.build import (
    build_training_scenario,
    check_training_prompts,
    with_rules,
)
from aipo_learner.integrations.trl.arguments import check_arguments, grpo_arguments
from aipo_learner.integrations.trl.batch import generation_batch
from aipo_learner.integrations.trl.turns import VLLMTurns
from aipo_learner.learn.agent_free_rows import agent_free_rows
from aipo_learner.learn.checker import check_objective
from aipo_learner.learn.episode_metrics import episode_metrics
from aipo_learner.learn.idle import what_to_do, why_idle
from aipo_learner.learn.metrics import Metrics, merge_metrics, summarize
from aipo_learner.learn.normalizers import batch_normalizers
from aipo_learner.learn.objective import aipo_loss
from aipo_learner.learn.rewards import step_reward
from aipo_learner.learn.rows import Row
from aipo_learner.learn.training_rows import (
    TrainingRows,
    no_further_rows,
    training_rows,
)
from aipo_learner.policy.distributed import gathered
from aipo_learner.policy.fitness import check_context
from aipo_learner.rollout.sampled import Groups, by_group, play_groups
from aipo_learner.run.metrics_log import is_idle
from aipo_learner.samplers.base import WaveVoices
from aipo_learner.samplers.generate import GenerateVoices
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.samplers.weight_sync import check_sampler
from aipo_learner.settings.aid import read_aid
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig

_OUT = Path("runs/trl")
"""Where TRL writes unless its arguments say."""
_LOGGED_BY_TRL = ("loss", "grad_norm", "learning_rate")
"""Metrics that TRL reports itself, of the same things."""
_PLACEHOLDER = "A task of the environment."
"""TRL counts steps by the rows of a dataset; what is played says the environment."""


class AipoGRPOTrainer(GRPOTrainer):
    """TRL's trainer on an environment: every token's author reaches the loss.

    The tasks, their order, the groups and the draws are those that `aipo train` has
    with the same seed and sizes. A generation batch is one of its steps; TRL's `args`
    say how large it is (`num_generations`, `per_device_train_batch_size`,
    `steps_per_generation`), and how many steps the optimiser makes of it.

    The normalizers of the loss are those of the whole generation batch, over all
    processes, times the share of it that an optimiser step has.

    Args:
        model: A policy that transformers can sample, or its path or name.
        environment: What is played: an `Environment`, the spec of a task source, a
            registered id.
        args: TRL's; by default those of `aipo train`, by `grpo_arguments`.
        objective: The loss.
        independence: As the field of `TrainConfig`, and so are all up to
            `overlong_buffer`.
        aid: See there; what happened in earlier steps cannot decide here.
        anneal_from: See there.
        baseline: See there.
        held_out: See there.
        consult_bonus: See there.
        consult_cost: See there.
        overlong_buffer: See there.
        stop_after_idle_steps: Generation batches in a row without a gradient after
            which training stops and says why; 0: never.
        processing_class: The policy's tokenizer; loaded with the model if not given.
        callbacks: transformers' own.
        optimizers: An optimiser and a schedule in the place of TRL's.

    Raises:
        ConfigError: A setting cannot be used, or an argument of TRL's would do nothing.
    """

    lr_scheduler: LRScheduler | None

    def __init__(
        self,
        model: str | PreTrainedModel,
        environment: EnvironmentSpec = "toy",
        args: GRPOConfig | None = None,
        *,
        objective: ObjectiveConfig | None = None,
        independence: str = "internalised",
        aid: Spec = "share",
        anneal_from: float = 0.7,
        baseline: str = "split",
        held_out: Sequence[str] = (),
        consult_bonus: float = 0.0,
        consult_cost: float = 0.0,
        overlong_buffer: int = 0,
        stop_after_idle_steps: int = 5,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        objective = objective or ObjectiveConfig()
        check_objective(objective)
        args = args or grpo_arguments(TrainConfig(out=_OUT, objective=objective))
        config = TrainConfig(
            environment=Environment.of(environment),
            seed=args.seed,
            objective=objective,
            independence=independence,
            aid=aid,
            anneal_from=anneal_from,
            baseline=baseline,
            held_out=tuple(held_out),
            group_size=args.num_generations,
            groups_per_step=args.generation_batch_size // args.num_generations,
            consult_bonus=consult_bonus,
            consult_cost=consult_cost,
            overlong_buffer=overlong_buffer,
            stop_after_idle_steps=stop_after_idle_steps,
            temperature=args.temperature,
        )
        check_arguments(args, objective)
        _check_aid(config)
        self._scenario = build_training_scenario(config, None)
        self._config = with_rules(config, self._scenario)
        super().__init__(
            model=model,
            reward_funcs=_verdict,
            args=args,
            train_dataset=self._placeholders(args),
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self._check_processes()
        if not isinstance(self.processing_class, PreTrainedTokenizerBase):
            kind = type(self.processing_class).__name__
            raise ConfigError(
                f"AipoGRPOTrainer: {kind} is no tokenizer: episodes are text. Give the"
                " policy's tokenizer as processing_class."
            )
        if objective.kl_coef and self.ref_model is None:
            raise ConfigError(
                f"objective.kl_coef={objective.kl_coef} of a policy with adapters: TRL"
                " loads no reference model for it. Set kl_coef and beta to 0."
            )
        _check_dropout(self.model)
        check_context(self.model, self._scenario.rules.max_context_tokens)
        check_training_prompts(self._config, self._scenario, self.processing_class)
        self._voices: WaveVoices | None = None
        self._parts: list[Metrics] = []
        self._num_idle = 0
        self._num_passes_before = 0
        self._run = self._config
        self.add_callback(_Beginning(self))

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LRScheduler:
        """Make the schedule that the arguments name, one step ahead.

        transformers' begin at a rate of 0, at which a batch would be played for
        nothing, and would reach their end behind the last step.
        """
        is_given = self.lr_scheduler is not None
        made = super().create_scheduler(num_training_steps, optimizer)
        if is_given or not isinstance(made, LambdaLR):
            return made
        shares: list[Callable[[int], float]] = [
            partial(_one_ahead, share) for share in made.lr_lambdas
        ]
        self.lr_scheduler = LambdaLR(made.optimizer, shares)
        return self.lr_scheduler

    def _check_processes(self) -> None:
        """Raise ConfigError where processes would have to sample together.

        Each plays its own episodes, of as many turns as they come to.
        """
        args = self.args
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError(
                "AipoGRPOTrainer: every process samples by itself, from a whole policy,"
                " which FSDP and DeepSpeed divide. Use several processes without them,"
                " or `aipo train`, which samples from a whole copy."
            )
        if not args.use_vllm:
            return
        is_together = args.vllm_mode == "server" or args.vllm_tensor_parallel_size > 1
        if is_together and self.accelerator.num_processes > 1:
            raise ConfigError(
                f"args: vllm_mode={args.vllm_mode!r} with vllm_tensor_parallel_size="
                f"{args.vllm_tensor_parallel_size}: every process samples by itself,"
                " and TRL would have them wait for each other. Use"
                " vllm_mode='colocate' with vllm_tensor_parallel_size=1, or one"
                " process."
            )

    def _placeholders(self, args: GRPOConfig) -> Dataset:
        """Return a dataset of as many rows as an epoch has tasks.

        Raises:
            ConfigError: There is no end to the tasks, and none to the steps.
        """
        num_tasks = self._scenario.source.num_tasks("train")
        if num_tasks is None:
            if args.max_steps <= 0:
                raise ConfigError(
                    f"args: max_steps={args.max_steps}: the tasks of"
                    f" {self._config.environment.name!r} have no end, so that an epoch"
                    " has none. Set max_steps."
                )
            num_passes = args.max_steps * args.gradient_accumulation_steps
            passes_per_batch = args.steps_per_generation * args.num_iterations
            num_batches = -(-num_passes // passes_per_batch)
            num_tasks = num_batches * self._config.groups_per_step
        if num_tasks < self._config.groups_per_step:
            # TRL leaves out what does not fill a generation batch.
            num_tasks = self._config.groups_per_step
        return Dataset.from_dict({"prompt": [_PLACEHOLDER] * num_tasks})

    def _generate_and_score_completions(
        self, inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """Play this process's groups; return the tensors of their rows."""
        expected = (
            self.args.per_device_train_batch_size * self.args.steps_per_generation
        )
        if len(inputs) != expected:
            raise ConfigError(
                f"{len(inputs)} rollouts for this process in the place of {expected}:"
                " groups were torn apart by batching. Leave TRL's dataloader as it is."
            )
        num_groups = expected // self._config.group_size
        first = self.accelerator.process_index * num_groups
        step = self._num_batches_made()
        groups = self._play(step, range(first, first + num_groups))
        made = self._rows(step, groups)
        batch = generation_batch(
            made.rows,
            self.args.steps_per_generation,
            self.processing_class.pad_token_id,
            self.accelerator.device,
            has_observations=self._config.objective.observation_weight > 0,
        )
        self._tell(groups, made)
        batch |= self._normalizers(made.rows)
        return batch | self._fixed_logprobs(batch)

    def _begin(self, passes_per_epoch: int) -> None:
        """Take the number of the first batch, and the length of the run, from TRL.

        Raises:
            ConfigError: The checkpoint that the run goes on from lies inside a batch,
                which would be played again, with other weights.
        """
        args, state = self.args, self.state
        accumulated = args.gradient_accumulation_steps
        passes_per_batch = args.steps_per_generation * self.num_iterations

        def num_passes(num_steps: int) -> int:
            return _num_passes(num_steps, accumulated, passes_per_epoch)

        made = num_passes(state.global_step)
        if made % passes_per_batch:
            # So many steps end at least one batch, and the end of an epoch ends one.
            last = state.global_step + passes_per_batch
            ends = [
                step
                for step in range(1, last + 1)
                if num_passes(step) % passes_per_batch == 0
            ]
            nearest = min(ends, key=lambda step: abs(step - state.global_step))
            raise ConfigError(
                f"checkpoint-{state.global_step}: it was written between the optimiser"
                " steps of a generation batch, which a checkpoint does not hold. Go on"
                f" from one at the end of a batch, such as checkpoint-{nearest}; args:"
                " save_steps says where they are."
            )
        # TRL counts passes from 0 when it goes on, and on when it trains again.
        self._step = 0
        self._buffered_inputs = None
        self._num_passes_before = made
        num_batches = -(-num_passes(state.max_steps) // passes_per_batch)
        self._run = replace(self._config, num_steps=num_batches)

    def _num_batches_made(self) -> int:
        """Return the number of this generation batch, from 0; a resumed run goes on."""
        num_passes = self._num_passes_before + self._step
        return num_passes // (self.args.steps_per_generation * self.num_iterations)

    def _play(self, step: int, groups: Sequence[int]) -> Groups:
        """Return the episodes of this process's groups of a generation batch."""
        config = self._run
        model = self.accelerator.unwrap_model(self.model)
        # With dropout or recomputed layers it would be another policy, or a slow one.
        model.eval()
        try:
            playing = play_groups(
                config.rollouts,
                self._scenario,
                self._checked_voices(model),
                step,
                groups,
                self.state.global_step,
            )
            return by_group(run_sync(playing))
        finally:
            model.train()

    def _checked_voices(self, model: PreTrainedModel) -> WaveVoices:
        """Return what samples, with the weights as they are.

        The transformers sampler is compared with the learner the first time, unless
        both round to 16 bits: then `kl_sampler` says how far they are apart.
        """
        if self.use_vllm:
            self.vllm_generation.sync_weights()
        if self._voices is None and self.use_vllm:
            turns = VLLMTurns(self.vllm_generation)
            self._voices = GenerateVoices(
                self.processing_class,
                turns.generate,
                end_ids=self.eos_token_ids,
                vocab_size=model.config.get_text_config().vocab_size,
            )
        if self._voices is None:
            sampler = HFSampler(
                model, self.processing_class, temperature=self.temperature
            )
            if self.accelerator.mixed_precision == "no":
                limit = self._scenario.rules.max_context_tokens
                check_sampler(sampler, model, self._config.max_sampler_gap, limit)
            self._voices = sampler
        return self._voices

    def _rows(self, step: int, groups: Groups) -> TrainingRows:
        """Turn groups into rows, as `aipo train` does."""
        config = self._run
        further = no_further_rows
        if config.independence == "internalised":
            further = partial(
                agent_free_rows,
                self._scenario,
                self.processing_class,
                objective=config.objective,
            )
        return training_rows(
            groups,
            step_reward(config, self._scenario.rules, step),
            base=config.objective.base,
            baseline=config.baseline,
            mask_truncated=self.args.mask_truncated_completions,
            further=further,
            objective=config.objective,
        )

    def _tell(self, groups: Groups, made: TrainingRows) -> None:
        """Keep the metrics of a generation batch; stop where nothing is learned.

        Raises:
            NoGradient: Too many of them in a row had no gradient.
        """
        all_groups = gathered(groups)
        episodes = [episode for group in all_groups for episode in group]
        counts = gathered([made.counts])
        metrics = episode_metrics(episodes)
        for name in made.counts:
            metrics[name] = sum(of_rank[name] for of_rank in counts)
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)
        self._num_idle = self._num_idle + 1 if is_idle(metrics) else 0
        if 0 < self._config.stop_after_idle_steps <= self._num_idle:
            masked = self.args.mask_truncated_completions
            reasons = why_idle(all_groups, mask_truncated=masked)
            raise NoGradient(
                f"{self._num_idle} generation batches in a row gave no gradient. The"
                f" last of them: {reasons}. {what_to_do(all_groups)}"
                " stop_after_idle_steps=0 goes on all the same."
            )

    def _normalizers(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return what the loss's terms are divided by, of all processes' rows.

        They have no dimension, so that TRL gives every part of the batch the same.
        """
        of_processes = gathered([batch_normalizers(rows, self._config.objective)])
        sums = {
            "policy_normalizer": sum(part.policy for part in of_processes),
            "agent_normalizer": sum(part.agent for part in of_processes),
            "observation_normalizer": sum(part.observation for part in of_processes),
        }
        return {name: torch.tensor(float(value)) for name, value in sums.items()}

    @torch.no_grad()
    def _fixed_logprobs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return log-probabilities that no step of the batch changes.

        Those at the weights of the rollouts, unless the first step has them all; and
        those of the reference model, where there is one.
        """
        made = {}
        num_passes = self.args.steps_per_generation * self.num_iterations
        if self.args.gradient_accumulation_steps % num_passes:
            made["old_logprobs"] = self._in_parts(self.model, batch)
        if self.ref_model is not None:
            made["ref_logprobs"] = self._in_parts(self.ref_model, batch)
        return made

    def _in_parts(self, model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return log-probabilities of a batch, as many rows at a time as in a pass."""
        num_parts = self.args.steps_per_generation
        tensors = {name: value for name, value in batch.items() if value.ndim}
        split = {name: value.chunk(num_parts) for name, value in tensors.items()}
        parts = []
        for number in range(num_parts):
            part = {name: chunks[number] for name, chunks in split.items()}
            logprobs, _ = self._logprobs(model, part)
            parts.append(logprobs)
        return torch.cat(parts)

    def _logprobs(
        self,
        model: torch.nn.Module,
        batch: dict[str, Tensor],
        *,
        has_entropy: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return log-probability of each token, and its entropy (nats) if wanted.

        Both are float32 `[rows, tokens]`, 0 before the first token that counts.
        """
        token_ids = batch["token_ids"]
        masks = [batch["policy_mask"], batch["agent_mask"]]
        if "observation_mask" in batch:
            masks.append(batch["observation_mask"])
        is_read = torch.stack(masks).any(0).any(0)
        width = token_ids.shape[1]
        # TRL computes the last so many columns: there is no need of shared prompts.
        first = int(is_read.int().argmax()) if is_read.any() else width - 1
        first = max(first, 1)
        logprobs, entropy, _ = self._get_per_token_logps_and_entropies(
            model,
            token_ids,
            batch["attention_mask"],
            width - first,
            compute_entropy=has_entropy,
        )
        pad = partial(torch.nn.functional.pad, pad=(first, 0))
        return pad(logprobs.float()), None if entropy is None else pad(entropy.float())

    def _compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Tensor]
    ) -> Tensor:
        """Return the loss of a part of a generation batch."""
        inputs = _trimmed(inputs)
        has_bonus = self._config.objective.entropy_coef > 0
        logprobs, entropy = self._logprobs(model, inputs, has_entropy=has_bonus)
        # An optimiser step has so many of the parts that the batch was split into.
        share = (
            self.current_gradient_accumulation_steps / self.args.steps_per_generation
        )
        loss, metrics = aipo_loss(
            logprobs,
            inputs.get("old_logprobs", logprobs.detach()),
            inputs["advantages"],
            inputs["policy_mask"],
            inputs["agent_mask"],
            self._config.objective,
            agent_logprobs=inputs["agent_logprobs"],
            sampler_logprobs=inputs["sampler_logprobs"],
            ref_logprobs=inputs.get("ref_logprobs"),
            entropy=entropy,
            is_rewritten=inputs["is_rewritten"],
            observation_mask=inputs.get("observation_mask"),
            policy_normalizer=float(inputs["policy_normalizer"]) * share,
            agent_normalizer=float(inputs["agent_normalizer"]) * share,
            observation_normalizer=float(inputs["observation_normalizer"]) * share,
        )
        self._parts.append({name: value.cpu() for name, value in metrics.items()})
        if self.accelerator.sync_gradients:
            self._summarize()
        # The processes' gradients are averaged; the normalizers are made for their sum.
        return loss * self.accelerator.num_processes

    def _summarize(self) -> None:
        """Keep the metrics of an optimiser step, of all its parts and processes."""
        told = summarize(merge_metrics(gathered(self._parts)))
        self._parts = []
        for name, value in told.items():
            if name not in _LOGGED_BY_TRL:
                self._metrics["train"][name].append(value)


class _Beginning(TrainerCallback):
    """Has a trainer look where its training begins, which may be at a checkpoint."""

    def __init__(self, trainer: AipoGRPOTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *told: Any, **others: Any) -> None:
        self._trainer._begin(len(others["train_dataloader"]))


def _check_aid(config: TrainConfig) -> None:
    """Raise ConfigError where earlier steps would decide who is aided."""
    if read_aid(config.aid).has_memory:
        raise ConfigError(
            f"AipoGRPOTrainer: aid={config.aid!r} goes by the success of earlier steps,"
            " which TRL's checkpoints do not hold. Use 'share:0.5' or 'all_wrong', or"
            " `aipo train`."
        )


def _check_dropout(model: torch.nn.Module) -> None:
    """Raise ConfigError where passes would be of another policy than was sampled."""
    for name, layer in model.named_modules():
        share = getattr(layer, "p", 0.0) if isinstance(layer, torch.nn.Dropout) else 0.0
        if share:
            raise ConfigError(
                f"AipoGRPOTrainer: dropout of {share} in {name}: every pass would be of"
                " another policy than the one that was sampled. Set"
                " disable_dropout=True, and lora_dropout=0 of an adapter."
            )


def _trimmed(part: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a part of a batch without the columns that pad all of its rows."""
    width = int(part["attention_mask"].sum(1).max())
    return {
        name: value[:, :width] if value.ndim > 1 else value
        for name, value in part.items()
    }


def _one_ahead(share: Callable[[int], float], step: int) -> float:
    """Return the share of the rate that the step after this one has."""
    return share(step + 1)


def _num_passes(num_steps: int, accumulated: int, passes_per_epoch: int) -> int:
    """Return how many passes a number of optimiser steps makes.

    The last step of an epoch makes those that are left.
    """
    steps_per_epoch = -(-passes_per_epoch // accumulated)
    num_epochs, further = divmod(num_steps, steps_per_epoch)
    return num_epochs * passes_per_epoch + further * accumulated


def _verdict(prompts: Sequence[str], **columns: Any) -> list[float]:
    """Stand where TRL wants a reward function: an episode has its reward already."""
    raise NotImplementedError("rewards are those of the environment's verifier")
