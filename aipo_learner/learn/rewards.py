"""The reward that advantages are taken of: the verdict's, and the run's own terms."""

from collections.abc import Callable
from functools import partial

from aipo_env import DialogueRules, Episode
from aipo_learner.learn.advantages import overlong_penalty
from aipo_learner.rollout.independence import anneal
from aipo_learner.settings.stages import RewardSettings
from aipo_learner.settings.train import TrainConfig


def step_reward(
    config: TrainConfig, rules: DialogueRules, step: int
) -> Callable[[Episode], float]:
    """Return the reward of the episodes of a step.

    Args:
        config: Of the run.
        rules: Of its episodes.
        step: Which of the run, from 0.
    """
    return partial(
        shaped_reward,
        settings=config.rewards,
        rules=rules,
        bonus_share=anneal(config.rollouts, step),
    )


def shaped_reward(
    episode: Episode, settings: RewardSettings, rules: DialogueRules, bonus_share: float
) -> float:
    """Return the verdict's reward, 0 without one, with the terms that are set.

    `consult_cost` is taken for every consultation that was answered. `consult_bonus` is
    added, times `bonus_share`, where a correct episode had an answered consultation.
    The length penalty grows over the last `overlong_buffer` tokens before the limit.

    Args:
        episode: As it ended.
        settings: The terms.
        rules: Say where the limit of the policy's tokens is.
        bonus_share: From 1 to 0, as a run takes the bonus back.
    """
    # Calls of tools stand among the consultations, and cost nothing.
    num_answered = sum(
        consult.is_agents and consult.status == "answered"
        for consult in episode.consults
    )
    reward = float(episode.reward or 0.0)
    reward -= settings.consult_cost * num_answered
    if episode.correct and num_answered:
        reward += settings.consult_bonus * bonus_share
    if settings.overlong_buffer:
        num_tokens = int(episode.tokens.policy_mask.sum())
        reward += overlong_penalty(
            num_tokens, rules.max_policy_tokens, settings.overlong_buffer
        )
    return reward
