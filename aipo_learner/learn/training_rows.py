"""The groups of a step as rows with advantages, and what was left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aipo_env import Episode
from aipo_learner.learn.advantages import group_advantages, is_dropped
from aipo_learner.learn.rows import Row, episode_row

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
    reward: Callable[[Episode], float],
    *,
    base: str,
    baseline: str,
    further: FurtherRows = no_further_rows,
) -> TrainingRows:
    """Turn groups of episodes into rows.

    A group with a failed episode is left out whole: its baseline would be another than
    intended. So is one in which every advantage is 0.

    Args:
        groups: Episodes of one task each.
        reward: Of an episode that has a verdict.
        base: Base algorithm, see `group_advantages`.
        baseline: Whom an episode is compared with, see there.
        further: Makes more rows of a group that is not left out.
    """
    rows: list[Row] = []
    num_partial = 0
    num_constant = 0
    for number, group in enumerate(groups):
        if any(episode.reward is None for episode in group):
            num_partial += 1
            continue
        advantages = group_advantages(
            [reward(episode) for episode in group],
            [episode.aided for episode in group],
            base=base,
            baseline=baseline,
        )
        if is_dropped(advantages):
            num_constant += 1
            continue
        of_group = [*map(episode_row, group, advantages), *further(group, advantages)]
        rows += [replace(row, group=number) for row in of_group]
    counts: dict[str, float] = {
        "groups/partial": num_partial,
        "groups/constant": num_constant,
        "rows": len(rows),
    }
    return TrainingRows(rows, counts)


def imitation_rows(
    groups: Sequence[Sequence[Episode]], *, agent_tokens: bool
) -> TrainingRows:
    """Turn every episode into a row to imitate: supervised fine-tuning."""
    rows = [
        replace(imitation_row(episode, agent_tokens=agent_tokens), group=number)
        for number, group in enumerate(groups)
        for episode in group
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
