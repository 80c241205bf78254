"""The groups of a step as rows with advantages, and what was left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from aipo_env import Episode
from aipo_learner.learn.advantages import group_advantages, is_dropped
from aipo_learner.learn.rows import Row, episode_row, observed_row
from aipo_learner.learn.teaching import Teaching, is_asked, teaching_counts
from aipo_learner.settings.objective import ObjectiveConfig

Reward = Callable[[Episode], float]
"""Of an episode that has a verdict."""
FurtherRows = Callable[[Sequence[Episode], Sequence[float]], list[Row]]
"""Makes rows of a group and its advantages, beside those of the episodes themselves."""


@dataclass(frozen=True)
class TrainingRows:
    """What a step is trained on.

    Args:
        rows: In the order of the groups.
        counts: Metrics: how many rows there are, and how many groups were left out and
            why.
    """

    rows: list[Row]
    counts: dict[str, float]


def no_further_rows(group: Sequence[Episode], advantages: Sequence[float]) -> list[Row]:
    """Return no rows."""
    return []


def training_rows(
    groups: Sequence[Sequence[Episode]],
    reward: Reward,
    *,
    base: str,
    baseline: str,
    mask_truncated: bool = False,
    further: FurtherRows = no_further_rows,
    objective: ObjectiveConfig | None = None,
    teaching: Teaching | None = None,
) -> TrainingRows:
    """Turn groups of episodes into rows.

    A group with a failed episode is left out whole: its baseline would be another than
    intended. So is one in which every advantage is 0 and no row is taught, except for
    its observation tokens, where the loss has a term of them.

    Args:
        groups: Episodes of one task each.
        reward: Of an episode that has a verdict.
        base: Base algorithm, see `group_advantages`.
        baseline: Whom an episode is compared with, see there.
        mask_truncated: Whether episodes that a limit cut off give no row. They are in
            the baseline of their group all the same (overlong filtering, arXiv
            2503.14476).
        further: Makes more rows of a group that is not left out.
        objective: Says which tokens are learned as observations, and what the advantage
            is multiplied by; None: none are, and by 1.
        teaching: Says which rows a teacher is asked of; None: of none.
    """
    as_row = partial(episode_row, objective=objective)
    rows: list[Row] = []
    looked_at: list[Row] = []
    num_only_observed = 0
    num_partial = 0
    num_constant = 0
    num_masked = 0
    for number, episodes in enumerate(groups):
        if is_partial(episodes):
            num_partial += 1
            continue
        compared = _advantages(episodes, reward, base=base, baseline=baseline)
        pairs = list(zip(episodes, compared, strict=True))
        if mask_truncated:
            pairs = [pair for pair in pairs if not pair[0].stop_reason.is_truncated]
        group = [episode for episode, _ in pairs]
        advantages = [advantage for _, advantage in pairs]
        own = list(map(as_row, group, advantages))
        if teaching is not None:
            pupils = zip(own, group, strict=True)
            own = [teaching.taught(row, episode, episodes) for row, episode in pupils]
        looked_at += own
        is_taught = any(row.is_taught for row in own)
        if is_dropped(_weighted(advantages, objective)) and not is_taught:
            num_constant += 1
            only_observed = _observed_rows(group, objective)
            num_only_observed += len(only_observed)
            rows += [replace(row, group=number) for row in only_observed]
            continue
        num_masked += len(episodes) - len(pairs)
        others = further(group, advantages)
        looked_at += others
        of_group = [*own, *others]
        rows += [replace(row, group=number) for row in of_group]
    counts: dict[str, float] = {
        "groups/partial": num_partial,
        "groups/constant": num_constant,
        "rows": len(rows),
    }
    if mask_truncated:
        counts["rows/truncated"] = num_masked
    if objective is not None and objective.observation_weight:
        counts["rows/only_observed"] = num_only_observed
    if teaching is not None:
        counts |= teaching_counts(looked_at)
    return TrainingRows(rows, counts)


def _weighted(
    advantages: Sequence[float], objective: ObjectiveConfig | None
) -> list[float]:
    """Return advantages as the loss takes them: times `advantage_weight`."""
    weight = 1.0 if objective is None else objective.advantage_weight
    return [weight * advantage for advantage in advantages]


def _observed_rows(
    group: Sequence[Episode], objective: ObjectiveConfig | None
) -> list[Row]:
    """Return the rows of a group of which observation tokens alone are learned."""
    made = [observed_row(episode, objective) for episode in group]
    return [row for row in made if row is not None]


def is_partial(group: Sequence[Episode]) -> bool:
    """Return whether an episode of a group has failed, and has no reward."""
    return any(episode.reward is None for episode in group)


def is_constant(
    group: Sequence[Episode],
    reward: Reward,
    *,
    base: str,
    baseline: str,
    mask_truncated: bool = False,
    objective: ObjectiveConfig | None = None,
) -> bool:
    """Return whether a group in which nothing failed teaches nothing all the same.

    Observation tokens alone count for nothing. What a teacher has to say of it counts,
    whether or not it can read it.

    Args:
        group: Episodes of one task.
        reward: As for `training_rows`, and so are the others.
        base: See there.
        baseline: See there.
        mask_truncated: See there.
        objective: Says which episodes are taught, and what the advantage is multiplied
            by; None: none are, and by 1.
    """
    if is_partial(group):
        return False
    compared = _advantages(group, reward, base=base, baseline=baseline)
    pairs = list(zip(group, compared, strict=True))
    if mask_truncated:
        pairs = [pair for pair in pairs if not pair[0].stop_reason.is_truncated]
    if not is_dropped(_weighted([advantage for _, advantage in pairs], objective)):
        return False
    if objective is None:
        return True
    return not any(
        is_asked(episode, advantage, objective) for episode, advantage in pairs
    )


def _advantages(
    group: Sequence[Episode], reward: Reward, *, base: str, baseline: str
) -> list[float]:
    """Return the advantages of a group in which no episode has failed."""
    return group_advantages(
        [reward(episode) for episode in group],
        [episode.aided for episode in group],
        base=base,
        baseline=baseline,
    )


def imitation_rows(
    groups: Sequence[Sequence[Episode]],
    *,
    agent_tokens: bool,
    mask_truncated: bool = False,
) -> TrainingRows:
    """Turn every episode into a row to imitate: supervised fine-tuning.

    Args:
        groups: Of episodes.
        agent_tokens: Whether their agents' tokens are imitated beside the policy's.
        mask_truncated: Whether those that a limit cut off give no row.
    """
    rows = [
        replace(imitation_row(episode, agent_tokens=agent_tokens), group=number)
        for number, group in enumerate(groups)
        for episode in group
        if not (mask_truncated and episode.stop_reason.is_truncated)
    ]
    counts: dict[str, float] = {"rows": len(rows)}
    return TrainingRows(rows, counts)


def imitation_row(episode: Episode, *, agent_tokens: bool) -> Row:
    """Return an episode as a sequence to imitate.

    Args:
        episode: Any.
        agent_tokens: Whether its agents' tokens are imitated beside the policy's.
    """
    # Advantage 1, and no sampler to correct for: what is left is log-likelihood.
    row = episode_row(episode, 1.0)
    imitated = row.policy_mask
    if agent_tokens:
        imitated = row.policy_mask | row.agent_mask
    return replace(
        row,
        policy_mask=imitated,
        agent_mask=np.zeros_like(row.agent_mask),
        sampler_logprobs=np.full_like(row.sampler_logprobs, np.nan),
    )
