"""Where the episodes of a step come from: sampled now, or up to `max_staleness` steps ahead."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from aipo_env import Episode, Scenario, Session, task_index
from aipo_learner.config import TrainConfig
from aipo_learner.distributed import gathered, share
from aipo_learner.independence import WithholdingPool, aided_flags, anneal
from aipo_learner.rollouts import run_episodes
from aipo_learner.samplers.base import Sampler

Groups = list[list[Episode]]
"""Episodes by task: what advantages are taken over."""


class Workers(Protocol):
    """Plays the rollouts of some groups of a step elsewhere, with the weights that this process has."""

    def play(self, step: int, groups: Sequence[int], policy_version: int) -> list[Episode]:
        """Return the groups' episodes, in order."""


class SampledBatches:
    """Samples the batches of a run in order, each at most `max_staleness` steps before it is trained on.

    The batch of step s is sampled whole by the weights after max(0, s - max_staleness) steps, which is the
    `policy_version` of all its tokens: no episode spans two versions.

    Args:
        step: The first step to be made.
        queued: Episodes of the batches from `step` on that were sampled before the last checkpoint.
        workers: Who plays instead of `sampler`.
    """

    def __init__(
        self,
        config: TrainConfig,
        scenario: Scenario,
        sampler: Sampler,
        step: int,
        queued: Sequence[Episode],
        workers: Workers | None = None,
    ) -> None:
        self._config, self._scenario, self._sampler, self._workers = config, scenario, sampler, workers
        size = config.groups_per_step * config.group_size
        self._queue = deque(list(queued[start : start + size]) for start in range(0, len(queued), size))
        self._next = step + len(self._queue)

    def take(self, step: int) -> Groups:
        """Sample, with the weights as they are, what is due by `step`; return that step's groups."""
        last = min(step + self._config.source.max_staleness, self._config.num_steps - 1)
        while self._next <= last:
            groups = share(range(self._config.groups_per_step))
            self._queue.append(gathered(self._play(self._next, groups, step)))
            self._next += 1
        episodes, size = self._queue.popleft(), self._config.group_size
        return [episodes[start : start + size] for start in range(0, len(episodes), size)]

    def queued(self) -> list[Episode]:
        """Return the episodes that wait for their steps, in order: a checkpoint keeps them."""
        return [episode for batch in self._queue for episode in batch]

    def _play(self, step: int, groups: Sequence[int], policy_version: int) -> list[Episode]:
        if self._workers:
            return self._workers.play(step, groups, policy_version)
        return play_groups(self._config, self._scenario, self._sampler, step, groups, policy_version)


def play_groups(
    config: TrainConfig,
    scenario: Scenario,
    sampler: Sampler,
    step: int,
    groups: Sequence[int],
    policy_version: int,
) -> list[Episode]:
    """Play all rollouts of some groups of a step; who plays the others makes no difference to them."""
    sessions = step_sessions(config, scenario, step, groups, policy_version=policy_version)
    return asyncio.run(run_episodes(sessions, sampler))


def step_sessions(
    config: TrainConfig, scenario: Scenario, step: int, groups: Sequence[int], *, policy_version: int
) -> list[Session]:
    """Start the sessions of a step: group after group, each with its task and its keys."""
    if isinstance(scenario.pool, WithholdingPool):
        scenario.pool.accept = anneal(config, step)
    sessions = []
    for group in groups:
        position = step * config.groups_per_step + group
        index = task_index(scenario.source, "train", position, config.seed)
        task = scenario.source.task("train", index)
        for rollout, aided in enumerate(aided_flags(config, step)):
            sessions.append(
                scenario.session(
                    task,
                    aided=aided,
                    key=(config.seed, step, group, rollout),
                    group_id=f"{step}-{group}",
                    policy_version=policy_version,
                )
            )
    return sessions
