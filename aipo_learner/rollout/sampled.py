"""Where the episodes of a step come from: sampled now, or up to `max_staleness` steps
ahead.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from aipo_env import (
    Episode,
    Running,
    Scenario,
    rollout_key,
    run_sync,
    start,
    task_index,
)
from aipo_learner.policy.distributed import gathered, share, world_size
from aipo_learner.rollout.independence import (
    WithholdingPool,
    aided_flags,
    aided_share,
    anneal,
)
from aipo_learner.rollout.waves import Further, no_further, play_wave
from aipo_learner.run.interrupt import Abandoned, InterruptFlag
from aipo_learner.samplers.base import Sampler
from aipo_learner.settings.stages import RolloutSettings

Groups = list[list[Episode]]
"""Episodes by task: what advantages are taken over."""
Playing = Coroutine[Any, Any, list[Episode]]
Play = Callable[[int, Sequence[int], int], Playing]
"""Plays some groups of a step with the weights that this process has at the call, of a
version that it is told.
"""


class Batches:
    """The batches of a run, a step's after another's; by default all are there."""

    def take(self, step: int) -> Groups:
        """Return the step's groups."""
        raise NotImplementedError

    def sample_ahead(self, step: int) -> None:
        """Begin to sample what may be sampled while `step` is updated."""

    def settle(self) -> None:
        """Wait for what `sample_ahead` began. What is raised meanwhile gives it up."""

    def queued(self) -> list[Episode]:
        """Return the episodes that wait for their steps, in order: a checkpoint keeps
        them.
        """
        return []

    def close(self) -> None:
        """End what is being sampled."""


class SampledBatches(Batches):
    """Samples the batches of a run in order, each at most `max_staleness` steps before
    it is trained on.

    The batch of step s is sampled whole by the weights after max(0, s - max_staleness)
    steps, which is the `policy_version` of all its tokens: no episode spans two
    versions. With `is_apart`, where an update leaves the weights that are sampled from
    as they are, it is sampled during the update of step s - max_staleness.

    Args:
        first_step: The first step that is still to be made.
        queued: Episodes that were sampled for it and the steps after it, before the
            last checkpoint.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        play: Play,
        interrupt: InterruptFlag,
        *,
        first_step: int = 0,
        queued: Sequence[Episode] = (),
        is_apart: bool = False,
    ) -> None:
        self._settings = settings
        self._play = play
        self._interrupt = interrupt
        self._queue = deque(_by_step(queued))
        self._next = first_step + len(self._queue)
        self._may_overlap = is_apart and settings.max_staleness > 0
        self._ahead: Running[list[Episode]] | None = None

    def take(self, step: int) -> Groups:
        """Sample, with the weights as they are, what is due and not sampled ahead;
        return the step's groups.
        """
        last = step + self._settings.max_staleness
        if self._may_overlap:
            # The batch of that step is begun by `sample_ahead`.
            last -= 1
        while self._next <= min(last, self._settings.num_steps - 1):
            self._keep(lambda: run_sync(self._begin(step)))
        return by_group(self._queue.popleft())

    def sample_ahead(self, step: int) -> None:
        """Begin to sample the batch that is `max_staleness` steps ahead, with the
        weights as they are.
        """
        if self._may_overlap and self._next < self._settings.num_steps:
            self._ahead = start(self._begin(step))

    def settle(self) -> None:
        """Wait for what `sample_ahead` began. What is raised meanwhile gives it up."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        try:
            self._keep(ahead.result)
        finally:
            ahead.cancel()

    def queued(self) -> list[Episode]:
        """Return the episodes that wait for their steps, in order: a checkpoint keeps
        them.
        """
        return [episode for batch in self._queue for episode in batch]

    def close(self) -> None:
        """End what is being sampled. May be called twice."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()

    def _keep(self, wait: Callable[[], list[Episode]]) -> None:
        """Wait for this rank's part of a batch and queue the parts of all. If one of
        them is given up, all are.
        """
        mine: list[Episode] | None = None
        with suppress(Abandoned), self._interrupt.abandonable(together=True):
            mine = wait()
        parts = [part for part in gathered([mine]) if part is not None]
        if len(parts) < world_size():
            raise Abandoned
        self._queue.append([episode for part in parts for episode in part])
        self._next += 1

    def _begin(self, policy_version: int) -> Playing:
        return self._play(
            self._next, share(range(self._settings.groups_per_step)), policy_version
        )


async def play_groups(
    settings: RolloutSettings,
    scenario: Scenario,
    sampler: Sampler,
    step: int,
    groups: Sequence[int],
    policy_version: int,
    further: Further = no_further,
) -> list[Episode]:
    """Play all rollouts of some groups of a step, group after group, each with its task
    and its keys.

    Who plays the others makes no difference to them. `further` waves add rollouts to
    these groups, or groups behind them.
    """
    if isinstance(scenario.pool, WithholdingPool):
        pool = scenario.pool.accepting(anneal(settings, step))
        scenario = replace(scenario, pool=pool)
    flags = aided_flags(settings, aided_share(settings, scenario), step)
    sessions = []
    for group in groups:
        position = step * settings.groups_per_step + group
        index = task_index(scenario.source, "train", position, settings.seed)
        task = scenario.source.task("train", index)
        for rollout, aided in enumerate(flags):
            session = scenario.session(
                task,
                aided=aided,
                key=rollout_key(settings.seed, step, group, rollout),
                group_id=f"{step}-{group}",
                policy_version=policy_version,
            )
            sessions.append(session)
    episodes = await play_wave(scenario, sessions, sampler, further)
    return [episode for group in by_group(episodes) for episode in group]


def by_group(episodes: Sequence[Episode]) -> Groups:
    """Return episodes by their group, groups in the order in which they first
    appear.
    """
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.group_id, []).append(episode)
    return list(groups.values())


def _by_step(episodes: Sequence[Episode]) -> list[list[Episode]]:
    """Return episodes that wait for their steps, a step's together."""
    steps: dict[str, list[Episode]] = {}
    for episode in episodes:
        step, _, _ = episode.group_id.partition("-")
        steps.setdefault(step, []).append(episode)
    return list(steps.values())


def staleness(
    step: int, episodes: Sequence[Episode], *, is_stored: bool
) -> dict[str, float]:
    """Return by how many versions the policy's tokens are older than `step`: the mean,
    and the largest.

    Of stored episodes, those whose tokens have versions of their own count; the others'
    may never have been set.
    """
    versions = [np.zeros(0, np.int32)]
    for episode in episodes:
        if is_stored and episode.tokens.policy_version is None:
            continue
        versions.append(episode.policy_versions[episode.tokens.policy_mask])
    known = np.concatenate(versions)
    ages = step - known[known >= 0]
    if not len(ages):
        return {}
    return {"staleness": float(ages.mean()), "staleness_max": float(ages.max())}
