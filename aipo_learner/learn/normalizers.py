"""What the terms of the loss are divided by: sums over the rows of a whole batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from aipo_learner.learn.objective import (
    agent_normalizer,
    observation_normalizer,
    policy_normalizer,
)
from aipo_learner.learn.rows import Microbatch, Row, collate
from aipo_learner.settings.objective import ObjectiveConfig

_ANY_TOKEN = 0
"""Pads rows of which only the masks are read."""


@dataclass(frozen=True)
class Normalizers:
    """Of the loss's terms, over a whole batch; over ranks, add them up."""

    policy: float
    agent: float
    observation: float


def batch_normalizers(rows: Sequence[Row], objective: ObjectiveConfig) -> Normalizers:
    """Add up the normalizers of rows.

    A row of which observation tokens alone are learned is in theirs alone, so that the
    other terms are what they would be without it.

    Args:
        rows: Of the whole batch; there may be none.
        objective: What is computed of them.

    Raises:
        ValueError: The loss has a term of observation tokens, and a row does not say
            which these are.
    """
    policy = 0.0
    agent = 0.0
    observation = 0.0
    for row in rows:
        alone = collate([row], _ANY_TOKEN)
        if objective.observation_weight:
            observation += observation_normalizer(_observation_mask(alone, objective))
        if not row.is_only_observed:
            policy += policy_normalizer(alone.policy_mask, objective)
            advantages = objective.advantage_weight * alone.advantages
            agent += agent_normalizer(alone.agent_mask, advantages, objective)
    return Normalizers(policy=policy, agent=agent, observation=observation)


def _observation_mask(batch: Microbatch, objective: ObjectiveConfig) -> Tensor:
    """Return the mask of observation tokens.

    Raises:
        ValueError: There is none.
    """
    if batch.observation_mask is None:
        raise ValueError(
            f"observation_weight is {objective.observation_weight}, and a row has no"
            " observation_mask: pass the objective to what makes rows (training_rows,"
            " agent_free_rows, episode_row), or set observation_weight to 0."
        )
    return batch.observation_mask
