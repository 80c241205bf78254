"""verl's synchronous trainer with our advantages, rows and loss.

verl keeps what it does around them: processes, engines, rollout servers, queues,
balancing, optimiser, checkpoints, logging.
"""

import pickle
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.padding_utils import build_padding_position_ids
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import rename_dict
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from aipo_env import ConfigError, Episode, NoGradient, PolicyError
from aipo_learner.build import check_training_prompts
from aipo_learner.integrations.verl.agent_loop import EPISODE, FAILURE
from aipo_learner.integrations.verl.arguments import (
    MODE,
    check_verl_config,
    training_run,
)
from aipo_learner.integrations.verl.loss import aipo_verl_loss
from aipo_learner.integrations.verl.rows import row_fields
from aipo_learner.integrations.verl.tasks import check_splits
from aipo_learner.learn.agent_free_rows import agent_free_rows
from aipo_learner.learn.episode_metrics import episode_metrics
from aipo_learner.learn.idle import what_to_do, why_idle
from aipo_learner.learn.metrics import TERMS, Metrics, merge_metrics, summarize
from aipo_learner.learn.normalizers import Normalizers, batch_normalizers
from aipo_learner.learn.rewards import step_reward
from aipo_learner.learn.rows import Row
from aipo_learner.learn.training_rows import (
    TrainingRows,
    no_further_rows,
    training_rows,
)
from aipo_learner.rollout.sampled import Groups

_OUR_METRICS = "aipo/"
"""Before the names of metrics that are not verl's."""
_PER_STEP = ("loss", *TERMS)
"""Metrics that are each optimiser step's, and of which the mean is told."""
_COUNT = "_tokens"
"""Behind the names of metrics that every epoch over a batch counts again."""


@register_trainer(MODE)
class AipoVerlTrainer(PPOTrainerSync):
    """verl's trainer on an environment: every token's author reaches the loss.

    Our settings stand in `trainer.v1.aipo`, by their names in `TrainConfig`:
    `environment`, `objective`, `independence`, `aided_share`, `anneal_from`,
    `baseline`, `held_out`, `consult_bonus`, `consult_cost`, `overlong_buffer`,
    `stop_after_idle_steps`, `seed`. A step plays `data.train_batch_size` groups of
    `actor_rollout_ref.rollout.n` rollouts, and the optimiser makes
    `data.train_batch_size / actor.ppo_mini_batch_size` steps of them, times
    `actor.ppo_epochs`.

    The normalizers of the loss are those of all rows of a step, on all ranks, times the
    share of them that an optimiser step has.

    Args:
        config: verl's.

    Raises:
        ConfigError: A setting cannot be used, or one of verl's would do nothing.
    """

    def __init__(self, config: DictConfig) -> None:
        check_verl_config(config)
        self._num_updates = _num_updates(config)
        self._num_idle = 0
        self._num_rows = 0
        self._normalizers = Normalizers(policy=0.0, agent=0.0, observation=0.0)
        super().__init__(config)

    def _build_replay_buffer(self) -> Any:
        # verl takes any other name for that of an asynchronous trainer.
        self.trainer_mode = "sync"
        return super()._build_replay_buffer()

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        check_splits(self.train_dataset, self.val_dataset)
        # Only now the configuration says how many steps there are.
        self._run, self._scenario = training_run(self.config)
        check_training_prompts(self._run, self._scenario, self.tokenizer)
        rollout = self.config.actor_rollout_ref.rollout
        room = rollout.max_model_len or rollout.prompt_length + rollout.response_length
        needed = self._scenario.rules.max_context_tokens
        if room < needed:
            raise ConfigError(
                f"actor_rollout_ref.rollout: its servers hold {room} tokens, and an"
                f" episode may have the rules' max_context_tokens={needed}. Set"
                " max_model_len, or data.max_prompt_length and .max_response_length, to"
                " as many, or the environment's rules to fewer."
            )

    def _setup(self) -> None:
        super()._setup()
        loss = partial(aipo_verl_loss, config=self._run.objective)
        self.actor_rollout_wg.set_loss_fn(loss)

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        """Return the number whose multiples of rows verl can divide."""
        part = self.config.actor_rollout_ref
        per_rank = self._num_updates
        if not part.actor.use_dynamic_bsz:
            per_rank *= part.actor.ppo_micro_batch_size_per_gpu
            sizes = [part.rollout.log_prob_micro_batch_size_per_gpu]
            if self.use_reference_policy:
                sizes.append(part.ref.log_prob_micro_batch_size_per_gpu)
            per_rank = int(np.lcm.reduce([per_rank, *sizes]))
        return dp_size * per_rank

    def _balance_batch(
        self, batch: KVBatchMeta, metrics: dict[str, Any], *further: Any, **others: Any
    ) -> KVBatchMeta:
        """Turn the batch's groups into rows, before verl spreads these over ranks."""
        batch = self._with_rows(batch, metrics)
        known = set(batch.keys)
        batch = super()._balance_batch(batch, metrics, *further, **others)
        padding = [key for key in batch.keys if key not in known]
        if padding:
            # verl fills up with copies of a row, whose other fields do not fit them.
            _put(batch, padding, [_advantages(1, 0.0) | _nobodys(1) for _ in padding])
        return batch

    def _with_rows(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Return the batch that is trained on: without groups that teach nothing.

        Raises:
            PolicyError: A rollout could not be played.
            NoGradient: Too many batches in a row had no gradient.
        """
        extras = _extras(batch)
        groups = _groups(extras)
        made = [self._rows(list(group.values())) for group in groups]
        self._tell([list(group.values()) for group in groups], made, metrics)
        rows = [row for of_group in made for row in of_group.rows]
        self._num_rows = len(rows)
        self._normalizers = batch_normalizers(rows, self._run.objective)
        tags: dict[str, dict[str, Any]] = {}
        for group, of_group in zip(groups, made, strict=True):
            if of_group.rows:
                tags |= self._put_rows(batch, list(group), of_group.rows, extras)
        if not rows:
            # verl's other stages need something; the weights stay as they are.
            first, tag = batch.keys[0], batch.tags[0]
            _put(batch, [first], [_advantages(tag["response_len"], 0.0)])
            tags = {first: tag}
        left_out = [key for key in batch.keys if key not in tags]
        if left_out:
            tq.kv_clear(keys=left_out, partition_id=batch.partition_id)
        return KVBatchMeta(
            keys=list(tags),
            tags=list(tags.values()),
            partition_id=batch.partition_id,
            fields=batch.fields,
            extra_info=batch.extra_info,
        )

    def _rows(self, group: Sequence[Episode]) -> TrainingRows:
        """Turn a group into rows, as `aipo train` does."""
        if len(group) < self._run.group_size:
            # verl goes on without the rollouts that it has lost.
            return TrainingRows([], {"groups/partial": 1, "groups/constant": 0})
        further = no_further_rows
        if self._run.independence == "internalised":
            further = partial(agent_free_rows, self._scenario, self.tokenizer)
        return training_rows(
            [group],
            step_reward(self._run, self._scenario.rules, self.global_steps - 1),
            base=self._run.objective.base,
            baseline=self._run.baseline,
            further=further,
        )

    def _tell(
        self, groups: Groups, made: Sequence[TrainingRows], metrics: dict[str, Any]
    ) -> None:
        """Report a step; stop where nothing is learned.

        Raises:
            NoGradient: Too many of them in a row had no gradient.
        """
        told = episode_metrics([episode for group in groups for episode in group])
        told["rows"] = sum(len(of_group.rows) for of_group in made)
        for name in ("groups/partial", "groups/constant"):
            told[name] = sum(of_group.counts[name] for of_group in made)
        # Of these verl has lost every rollout.
        num_lost = self._run.groups_per_step - len(groups)
        told["groups/partial"] += num_lost
        metrics |= {f"{_OUR_METRICS}{name}": value for name, value in told.items()}
        self._num_idle = 0 if told["rows"] else self._num_idle + 1
        if 0 < self._run.stop_after_idle_steps <= self._num_idle:
            num_lost += sum(len(group) < self._run.group_size for group in groups)
            raise NoGradient(
                f"{self._num_idle} steps in a row gave no gradient. The last of them:"
                f" {why_idle(groups)}; {num_lost} of {self._run.groups_per_step} groups"
                f" lack a rollout that verl lost. {what_to_do(groups)}"
                " stop_after_idle_steps=0 goes on all the same."
            )

    def _put_rows(
        self,
        batch: KVBatchMeta,
        keys: Sequence[str],
        rows: Sequence[Row],
        extras: dict[str, dict[str, Any]],
    ) -> dict[str, dict[str, Any]]:
        """Write the rows of a group to verl's queue; return their tags by their keys.

        Those of its episodes are there, but for what they are trained with; agent-free
        ones are new.
        """
        tag_of = dict(zip(batch.keys, batch.tags, strict=True))
        tags = {key: tag_of[key] for key in keys}
        own = [row for row in rows if not row.is_rewritten]
        fields = []
        for key, row in zip(keys, own, strict=True):
            kept = {name: extras[key][name] for name in extras[key] if name != EPISODE}
            length = tags[key]["response_len"]
            fields.append(_advantages(length, row.advantage) | {"extra_fields": kept})
        _put(batch, keys, fields)
        agent_free = [row for row in rows if row.is_rewritten]
        if not agent_free:
            return tags
        # What verl keeps beside the tokens is the same for all rows of a task.
        template = dict(
            tq.kv_batch_get(keys=[keys[0]], partition_id=batch.partition_id)[0].items()
        )
        uid = _uid(keys[0])
        new_keys = [
            f"{uid}_{len(keys) + number}_0" for number in range(len(agent_free))
        ]
        new_fields = [self._row_of(row, template) for row in agent_free]
        new_tags = [_tag_of(made, tags[keys[0]]) for made in new_fields]
        _put(batch, new_keys, new_fields, new_tags)
        return tags | dict(zip(new_keys, new_tags, strict=True))

    def _row_of(self, row: Row, template: dict[str, Any]) -> dict[str, Any]:
        """Return an agent-free row as verl keeps rows."""
        made = row_fields(row, self.tokenizer.pad_token_id or 0)
        token_ids = torch.cat([made["prompts"], made["responses"]])
        everywhere = torch.ones_like(token_ids)
        length = len(made["responses"])
        computed = {
            "input_ids": token_ids,
            "position_ids": build_padding_position_ids(
                template.get("position_ids"), everywhere
            ),
            "loss_mask": made["response_mask"],
            "rm_scores": torch.zeros(length),
        }
        if "attention_mask" in template:
            computed["attention_mask"] = everywhere
        return template | made | computed | _advantages(length, row.advantage)

    def _compute_advantage(
        self, batch: KVBatchMeta, metrics: dict[str, Any]
    ) -> KVBatchMeta:
        """Return the batch: its rows have advantages."""
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Have the optimiser make the steps of the batch."""
        if not self._num_rows:
            return batch
        actor = self.config.actor_rollout_ref.actor
        size = len(batch) // self._num_updates
        batch.extra_info |= {
            "calculate_entropy": self._run.objective.entropy_coef > 0,
            "global_batch_size": size,
            "mini_batch_size": size,
            "epochs": actor.ppo_epochs,
            "seed": actor.data_loader_seed,
            "dataloader_kwargs": {"shuffle": actor.shuffle},
            "temperature": self._run.temperature,
            "policy_normalizer": self._normalizers.policy / self._num_updates,
            "agent_normalizer": self._normalizers.agent / self._num_updates,
        }
        output = self.actor_rollout_wg.update_actor(batch)
        told = output["metrics"]
        ours = {name: told.pop(name) for name in list(told) if _is_ours(name)}
        metrics |= self._summary(ours)
        # verl counts no operations of some devices and models.
        mfu = told.pop("mfu", None)
        if mfu is not None:
            told["perf/mfu"] = mfu
        metrics |= reduce_metrics(rename_dict(told, "actor/"))
        return batch

    def _summary(self, told: dict[str, list[float]]) -> dict[str, float]:
        """Return means and shares of metrics that come as sums, of each microbatch."""
        merged: Metrics = {}
        for name, values in told.items():
            name = name.removeprefix(_OUR_METRICS)
            merged |= merge_metrics([{name: torch.tensor(value)} for value in values])
        num_epochs = self.config.actor_rollout_ref.actor.ppo_epochs
        num_steps = self._num_updates * num_epochs
        summary = summarize(merged)
        for name in summary:
            if name in _PER_STEP:
                summary[name] /= num_steps
            elif name.endswith(_COUNT):
                summary[name] /= num_epochs
        return {f"{_OUR_METRICS}{name}": value for name, value in summary.items()}


def _num_updates(config: DictConfig) -> int:
    """Return how many optimiser steps an epoch over a batch has.

    Raises:
        ConfigError: They would be of different sizes.
    """
    num_groups = config.data.train_batch_size
    groups_per_update = config.actor_rollout_ref.actor.ppo_mini_batch_size
    if num_groups % groups_per_update:
        raise ConfigError(
            f"data.train_batch_size={num_groups}: actor_rollout_ref.actor."
            f"ppo_mini_batch_size={groups_per_update} must divide it: both count"
            " groups."
        )
    return int(num_groups // groups_per_update)


def _is_ours(name: str) -> bool:
    return name.startswith(_OUR_METRICS)


def _uid(key: str) -> str:
    """Return the group of a rollout, whose key is UID_ROLLOUT_NUMBER."""
    return key.rsplit("_", 2)[0]


def _extras(batch: KVBatchMeta) -> dict[str, dict[str, Any]]:
    """Return what the agent loop says beside tensors, by the keys of its rollouts.

    Raises:
        PolicyError: A rollout could not be played.
    """
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"]
    )
    extras = dict(zip(batch.keys, data["extra_fields"], strict=True))
    for said in extras.values():
        if FAILURE in said:
            raise PolicyError(f"a rollout could not be played: {said[FAILURE]}")
    return extras


def _groups(extras: dict[str, dict[str, Any]]) -> list[dict[str, Episode]]:
    """Return the episodes of each group by their keys, in order of the rollouts."""
    groups: dict[str, dict[str, Episode]] = {}
    for key in sorted(extras, key=_rollout_number):
        episode = pickle.loads(extras[key][EPISODE])
        groups.setdefault(_uid(key), {})[key] = episode
    # In the order in which verl has them.
    return [groups[uid] for uid in dict.fromkeys(map(_uid, extras))]


def _rollout_number(key: str) -> int:
    return int(key.rsplit("_", 2)[1])


def _advantages(length: int, advantage: float) -> dict[str, Tensor]:
    """Return what verl calls advantages and returns: of every token of a response."""
    of_tokens = torch.full((length,), advantage, dtype=torch.float32)
    return {"advantages": of_tokens, "returns": of_tokens.clone()}


def _nobodys(length: int) -> dict[str, Tensor]:
    """Return the authors of a response that nobody wrote."""
    nothing = torch.zeros(length, dtype=torch.int64)
    return {
        "agent_mask": nothing,
        "agent_log_probs": torch.zeros(length),
        "is_rewritten": nothing.clone(),
    }


def _tag_of(fields: dict[str, Any], tag: dict[str, Any]) -> dict[str, Any]:
    """Return the tag of an agent-free row, from one of its group."""
    prompt_len, response_len = len(fields["prompts"]), len(fields["responses"])
    return tag | {
        "prompt_len": prompt_len,
        "response_len": response_len,
        "seq_len": prompt_len + response_len,
        # No rollout: verl leaves it out of what it tells of these.
        "is_padding": True,
    }


def _put(
    batch: KVBatchMeta,
    keys: Sequence[str],
    fields: list[dict[str, Any]],
    tags: list[dict[str, Any]] | None = None,
) -> None:
    """Write fields of rows to verl's queue."""
    tq.kv_batch_put(
        keys=list(keys),
        partition_id=batch.partition_id,
        fields=list_of_dict_to_tensordict(fields),
        tags=tags,
    )
