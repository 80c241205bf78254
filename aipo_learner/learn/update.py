"""The optimiser steps on a batch of rows, whose gradients are the same however split.

A batch is split into minibatches, each of which has an optimiser step, and these into
microbatches, each of which is a forward and a backward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from aipo_env import Key, PolicyError, Salt, keyed_rng
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.metrics import TERMS, Metrics, merge_metrics, summarize
from aipo_learner.learn.normalizers import Normalizers, batch_normalizers
from aipo_learner.learn.objective import aipo_loss
from aipo_learner.learn.rows import Microbatch, Row, Taught, collate, split_rows
from aipo_learner.learn.teaching import scored, taught_advantages
from aipo_learner.policy.distributed import gathered, rank, whole_tensor, world_size
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.teacher import Teacher
from aipo_learner.run.progress import SILENT, Progress, WorkCount
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.stages import UpdateSettings

_OVER_ALL_UPDATES = ("clip_fraction", "ratio_mean", "ratio_max")
"""Metrics that say how far a step's updates went; in the first, no ratio but 1 is."""
_LOSSES = ("loss", *TERMS)
"""Metrics that are means over minibatches."""


@dataclass
class _Pass:
    """One forward and backward pass, and what no update changes of it.

    `old_logprobs` are those at the weights of the step's start. Where its own first
    pass is made at these, that pass sets them.
    """

    microbatch: Microbatch
    ref_logprobs: Tensor | None
    old_logprobs: Tensor | None = None


@dataclass(frozen=True)
class _Minibatch:
    """The passes of one optimiser step."""

    passes: Sequence[_Pass]
    normalizers: Normalizers


@dataclass(frozen=True)
class _Update:
    """What was measured in an optimiser step.

    Args:
        metrics: Of this rank's microbatches.
        entropy_sum: Over the policy's tokens in them, in nats.
        norm: Of the gradient, before it was scaled down.
    """

    metrics: Sequence[Metrics]
    entropy_sum: float
    norm: float


def update(
    forward: LearnerForward,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[Row],
    settings: UpdateSettings,
    *,
    pad_token_id: int,
    reference: LearnerForward | None = None,
    key: Key = (),
    progress: Progress = SILENT,
    teacher: Teacher | None = None,
) -> dict[str, float]:
    """Make an optimiser step of each minibatch, `updates_per_step` times.

    The old log-probabilities are those before the first of them. Each minibatch has
    normalizers of its own. Rows without a gradient are left out of the passes, though
    not of the normalizers: see `rows_with_gradient`.

    Returns:
        The telemetry. `rows/without_gradient` is how many rows were left out,
        `minibatches/empty` how many minibatches had no group; all other metrics are of
        the rows that are left. `clip_fraction`, `ratio_mean`, `ratio_max` and
        `grad_norm_max` are over all optimiser steps. All else is of the first time that
        the rows were gone through, losses and `grad_norm` as means over minibatches.

    Args:
        forward: Of the policy.
        optimizer: Of its weights.
        rows: At least one; the same on all ranks, each of which computes a share.
        settings: Of the update.
        pad_token_id: Any id that the model knows.
        reference: Of the initial policy, where the loss needs it.
        key: Of the step, (seed, step): which groups share a minibatch is drawn by it.
        progress: Says how many of this rank's passes are made.
        teacher: Scores this rank's rows, where the objective has one, before the first
            step.

    Raises:
        PolicyError: A gradient is not finite; no step is made of it. Or the teacher
            gives no scores.
        ValueError: The objective has a teacher, and there is none.
    """
    has_teacher = settings.objective.has_teacher
    if has_teacher and teacher is None:
        raise ValueError(
            f"objective.teacher is {settings.objective.teacher!r}: pass a teacher."
        )
    num_trained = 0
    minibatches: list[_Minibatch] = []
    for part in minibatch_rows(rows, settings.num_minibatches, key):
        trained = rows_with_gradient(part, settings.objective)
        num_trained += len(trained)
        of_all_ranks = split_rows(
            trained, settings.microbatch_tokens, packed=forward.is_packed
        )
        mine, filler = share_passes(of_all_ranks)
        of_this_rank = [*mine, *filler]
        if has_teacher and teacher is not None:
            of_this_rank = scored(of_this_rank, teacher)
        passes = []
        for rows_of_pass in of_this_rank:
            microbatch = collate(rows_of_pass, pad_token_id, forward.model.device)
            ref_logprobs = _fixed_logprobs(reference, microbatch)
            passes.append(_Pass(microbatch, ref_logprobs))
        # Those of all ranks, of which each knows all rows.
        normalizers = batch_normalizers(part, settings.objective)
        minibatches.append(_Minibatch(passes, normalizers))
    # The first minibatch's own passes give its old log-probabilities.
    for minibatch in minibatches[1:]:
        for its_pass in minibatch.passes:
            its_pass.old_logprobs = _fixed_logprobs(forward, its_pass.microbatch)
    num_passes = sum(len(minibatch.passes) for minibatch in minibatches)
    count = WorkCount("update", settings.updates_per_step * num_passes)
    updates: list[_Update] = []
    with progress.part(count.text):
        for _ in range(settings.updates_per_step):
            for minibatch in minibatches:
                made = _step(forward, optimizer, minibatch, settings, count)
                updates.append(made)
    telemetry = _telemetry(updates, len(minibatches))
    telemetry["rows/without_gradient"] = len(rows) - num_trained
    if settings.num_minibatches > 1:
        num_empty = settings.num_minibatches - len(minibatches)
        telemetry["minibatches/empty"] = num_empty
    return telemetry


def minibatch_rows(rows: Sequence[Row], number: int, key: Key) -> list[Sequence[Row]]:
    """Split rows into minibatches, of as many groups each as can be.

    One that would have no group is left out. Within each, rows keep their order. Groups
    that are only observed take no places of others: they are dealt out to what there is
    without them.

    Args:
        rows: At least one.
        number: Of minibatches.
        key: By which it is drawn which groups share one.
    """
    if number == 1:
        return [rows]
    by_group: dict[int, list[Row]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(row)
    learned: list[int] = []
    only_observed: list[int] = []
    for place, of_group in enumerate(by_group.values()):
        is_only_observed = all(row.is_only_observed for row in of_group)
        (only_observed if is_only_observed else learned).append(place)
    rng = keyed_rng(key, Salt.MINIBATCHES)
    # The first draw is that of a step in which nothing is only observed.
    parts = _dealt(learned, number, rng)
    others = _dealt(only_observed, len(parts) or number, rng)
    groups = list(by_group.values())
    made: list[Sequence[Row]] = []
    for places, more in zip_longest(parts, others, fillvalue=()):
        # Whoever of the step's groups has the lower number comes first.
        chosen = [groups[place] for place in sorted([*places, *more])]
        made.append([row for of_group in chosen for row in of_group])
    return made


def _dealt(
    places: Sequence[int], number: int, rng: np.random.Generator
) -> list[Sequence[int]]:
    """Return places as so many parts, in an order that is drawn; none is empty."""
    order = [places[drawn] for drawn in rng.permutation(len(places))]
    parts = [part.tolist() for part in np.array_split(order, number)]
    return [part for part in parts if part]


def _step(
    forward: LearnerForward,
    optimizer: torch.optim.Optimizer,
    minibatch: _Minibatch,
    settings: UpdateSettings,
    count: WorkCount,
) -> _Update:
    """Make the optimiser step of a minibatch."""
    optimizer.zero_grad(set_to_none=True)
    metrics: list[Metrics] = []
    entropy_sum = 0.0
    for its_pass in minibatch.passes:
        measured, entropy = _backward(
            forward, its_pass, settings.objective, minibatch.normalizers
        )
        metrics.append(measured)
        entropy_sum += entropy
        count.add()
    norm = _clipped_norm(forward, settings.max_grad_norm)
    optimizer.step()
    return _Update(metrics, entropy_sum, norm)


def rows_with_gradient(rows: Sequence[Row], objective: ObjectiveConfig) -> list[Row]:
    """Return the rows that a gradient may come from, at least one.

    An advantage of 0 makes every term of a row 0, but for the penalty on the distance
    from a reference, the bonus for entropy and the term of observation tokens, which
    have none, and for what a teacher adds to it.

    Args:
        rows: At least one.
        objective: What is computed of them.
    """
    if objective.kl_coef or objective.entropy_coef:
        return list(rows)
    trained = [row for row in rows if _has_gradient(row, objective)]
    # An optimiser's step that has no gradient moves weights all the same, by its
    # momentum: one row is passed, so that it has one, of zeros.
    return trained or [min(rows, key=lambda row: len(row.token_ids))]


def _has_gradient(row: Row, objective: ObjectiveConfig) -> bool:
    """Return whether a gradient may come from a row without a penalty or a bonus."""
    if row.observation_mask is not None and row.observation_mask.any():
        return True
    if row.is_taught:
        return True
    advantage = objective.advantage_weight * row.advantage
    return advantage != 0 and bool(row.policy_mask.any() or row.agent_mask.any())


def share_passes(
    passes: Sequence[list[Row]],
) -> tuple[Sequence[list[Row]], Sequence[list[Row]]]:
    """Return this rank's microbatches, and a filler if others have one more.

    The filler is a microbatch of one row, in which no token counts. All ranks must make
    as many passes, because they gather the weights of the layers together.

    Args:
        passes: The microbatches of all ranks, at least one; the same on all ranks.
    """
    mine = passes[rank() :: world_size()]
    if len(mine) * world_size() >= len(passes):
        return mine, []
    # The shortest row there is: passes are in order of length.
    row = passes[0][0]
    nothing = np.zeros(len(row.token_ids), bool)
    filler = replace(
        row,
        policy_mask=nothing,
        agent_mask=nothing,
        observation_mask=None if row.observation_mask is None else nothing,
        taught=Taught.NOT_ASKED,
    )
    return mine, [[filler]]


def _backward(
    forward: LearnerForward,
    its_pass: _Pass,
    objective: ObjectiveConfig,
    normalizers: Normalizers,
) -> tuple[Metrics, float]:
    """Add a pass's gradient; return its metrics and its sum of entropies.

    Entropies are in nats, of the policy's tokens.
    """
    microbatch = its_pass.microbatch
    logprobs, entropy = microbatch_logprobs(forward, microbatch)
    # Not what the sampler reported: another engine rounds otherwise, and the first
    # ratio is to be exactly 1.
    if its_pass.old_logprobs is None:
        its_pass.old_logprobs = logprobs.detach()
    advantages = objective.advantage_weight * microbatch.advantages
    taught: Metrics = {}
    if microbatch.teacher_logprobs is not None:
        advantages, taught = taught_advantages(
            microbatch.advantages,
            its_pass.old_logprobs,
            microbatch.teacher_logprobs,
            microbatch.policy_mask,
            objective,
        )
    loss, metrics = aipo_loss(
        logprobs,
        its_pass.old_logprobs,
        advantages,
        microbatch.policy_mask,
        microbatch.agent_mask,
        objective,
        agent_logprobs=microbatch.agent_logprobs,
        sampler_logprobs=microbatch.sampler_logprobs,
        ref_logprobs=its_pass.ref_logprobs,
        entropy=entropy,
        is_rewritten=microbatch.is_rewritten,
        observation_mask=microbatch.observation_mask,
        policy_normalizer=normalizers.policy,
        agent_normalizer=normalizers.agent,
        observation_normalizer=normalizers.observation,
    )
    # FSDP2 takes the mean of the ranks' gradients; the normalizers are made for their
    # sum.
    (loss * world_size()).backward()
    # Ranks exchange them by pickling, and each has a GPU of its own.
    on_cpu = {name: value.cpu() for name, value in (metrics | taught).items()}
    return on_cpu, entropy.detach()[microbatch.policy_mask].sum().item()


def _clipped_norm(forward: LearnerForward, max_grad_norm: float) -> float:
    """Scale the gradient down to `max_grad_norm`; return the norm that it had.

    It is the norm over all ranks.

    Raises:
        PolicyError: It is not finite.
    """
    parameters = forward.model.parameters()
    norm = whole_tensor(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm))
    if not norm.isfinite():
        raise PolicyError(
            f"the gradient is not finite (norm {norm.item()}); no optimiser step was"
            " made of it. Lower lr or max_grad_norm; the last checkpoint is whole."
        )
    return norm.item()


def _telemetry(updates: Sequence[_Update], num_minibatches: int) -> dict[str, float]:
    """Return the metrics of a step's updates, of all ranks, as means and shares.

    Args:
        updates: In order, at least one of each minibatch.
        num_minibatches: That had a group.
    """
    first_time = updates[:num_minibatches]
    metrics = [part for update in first_time for part in update.metrics]
    telemetry = summarize(merge_metrics(gathered(metrics)))
    for name in _LOSSES:
        # Each is a sum over the microbatches of a minibatch.
        if name in telemetry:
            telemetry[name] /= num_minibatches
    num_tokens = max(1.0, telemetry["policy_tokens"])
    entropy_sums = gathered([sum(update.entropy_sum for update in first_time)])
    telemetry["entropy"] = sum(entropy_sums) / num_tokens
    norms = [update.norm for update in first_time]
    telemetry["grad_norm"] = sum(norms) / num_minibatches
    telemetry["grad_norm_max"] = max(update.norm for update in updates)
    of_all = [merge_metrics(update.metrics) for update in updates]
    overall = summarize(merge_metrics(gathered(of_all)))
    for name in _OVER_ALL_UPDATES:
        if name in overall:
            telemetry[name] = overall[name]
    return telemetry


@torch.no_grad()
def _fixed_logprobs(
    forward: LearnerForward | None, microbatch: Microbatch
) -> Tensor | None:
    """Return log-probabilities without a gradient; None without a forward pass."""
    if forward is None:
        return None
    logprobs, _ = microbatch_logprobs(forward, microbatch)
    return logprobs
