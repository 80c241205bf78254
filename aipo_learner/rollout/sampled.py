"""Batches that are sampled: when they are due, or up to `max_staleness` steps ahead."""

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
    Session,
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
from aipo_learner.rollout.meter import RolloutMeter
from aipo_learner.rollout.waves import play_wave
from aipo_learner.run.interrupt import Abandoned, InterruptFlag
from aipo_learner.run.progress import SILENT, Progress
from aipo_learner.samplers.base import WaveVoices
from aipo_learner.settings.stages import RolloutSettings

Groups = list[list[Episode]]
"""Episodes by task: what advantages are taken over."""
Playing = Coroutine[Any, Any, list[Episode]]
"""Awaited for the episodes that are being played."""
IsConstant = Callable[[int, Sequence[Episode]], bool]
"""Takes a step and a group of it, and says whether it teaches nothing."""
Play = Callable[[int, Sequence[int], int], Playing]
"""Takes a step, numbers of groups, and the version of the weights that this process has
at the call: with these it plays the groups.
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
        """Return the episodes that wait for their steps, in order, for a checkpoint."""
        return []

    def close(self) -> None:
        """End what is being sampled."""


class SampledBatches(Batches):
    """Samples a run's batches, each at most `max_staleness` steps before it is used.

    The batch of step s is sampled whole by the weights after max(0, s - max_staleness)
    steps, which is the `policy_version` of all its tokens: no episode spans two
    versions. With `samples_during_update`, where an update leaves the weights that are
    sampled from as they are, it is sampled during the update of step s - max_staleness.

    Args:
        settings: Of the rollouts.
        play: Plays groups.
        interrupt: Of the run; what is being sampled may be given up by it.
        first_step: The first step that is still to be made.
        queued: Episodes that were sampled for it and the steps after it, before the
            last checkpoint.
        samples_during_update: Whether the weights that are sampled from outlast an
            update.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        play: Play,
        interrupt: InterruptFlag,
        *,
        first_step: int = 0,
        queued: Sequence[Episode] = (),
        samples_during_update: bool = False,
    ) -> None:
        self._settings = settings
        self._play = play
        self._interrupt = interrupt
        # Batches that wait, the next step's first.
        self._queue = deque(_by_step(queued))
        # The step whose batch is sampled next.
        self._next = first_step + len(self._queue)
        self._may_overlap = samples_during_update and settings.max_staleness > 0
        self._ahead: Running[list[Episode]] | None = None

    def take(self, step: int) -> Groups:
        """Return the step's groups, once all that is due by now is sampled.

        It is sampled with the weights as they are.
        """
        last = step + self._settings.max_staleness
        if self._may_overlap:
            # The batch of that step is begun by `sample_ahead`.
            last -= 1
        last = min(last, self._settings.num_steps - 1)
        while self._next <= last:
            self._keep(lambda: run_sync(self._begin(step)))
        return by_group(self._queue.popleft())

    def sample_ahead(self, step: int) -> None:
        """Begin to sample the batch that is `max_staleness` steps ahead of `step`.

        It is sampled with the weights as they are.
        """
        if self._may_overlap and self._next < self._settings.num_steps:
            self._ahead = start(self._begin(step))

    def settle(self) -> None:
        """Wait for what `sample_ahead` began. What is raised meanwhile gives it up."""
        ahead = self._take_ahead()
        if ahead is None:
            return
        try:
            self._keep(ahead.result)
        finally:
            # Where waiting was given up, it still runs.
            ahead.cancel()

    def queued(self) -> list[Episode]:
        """Return the episodes that wait for their steps, in order, for a checkpoint."""
        return [episode for batch in self._queue for episode in batch]

    def close(self) -> None:
        """End what is being sampled. May be called twice."""
        ahead = self._take_ahead()
        if ahead is not None:
            ahead.cancel()

    def _take_ahead(self) -> Running[list[Episode]] | None:
        """Return what `sample_ahead` began, and have it no more."""
        ahead = self._ahead
        self._ahead = None
        return ahead

    def _keep(self, wait: Callable[[], list[Episode]]) -> None:
        """Wait for this rank's part of a batch and queue the parts of all ranks.

        Raises:
            Abandoned: A rank gave its part up, and with it all do.
        """
        mine: list[Episode] | None = None
        with suppress(Abandoned), self._interrupt.abandonable(together=True):
            mine = wait()
        # A rank that gave up comes here too: the others wait for what it has.
        parts = [part for part in gathered([mine]) if part is not None]
        if len(parts) < world_size():
            raise Abandoned
        batch = [episode for part in parts for episode in part]
        self._queue.append(batch)
        self._next += 1

    def _begin(self, policy_version: int) -> Playing:
        """Begin to play this rank's groups of the next batch."""
        groups = share(range(self._settings.groups_per_step))
        return self._play(self._next, groups, policy_version)


async def play_groups(
    settings: RolloutSettings,
    scenario: Scenario,
    sampler: WaveVoices,
    step: int,
    groups: Sequence[int],
    policy_version: int,
    is_constant: IsConstant | None = None,
    progress: Progress = SILENT,
) -> list[Episode]:
    """Play all rollouts of some groups of a step; return them group after group.

    Each has its task and its keys, so that it makes no difference who plays the others.
    Behind a group that is constant comes one of another task, and behind that another,
    up to `max_refills`.

    Args:
        settings: Of the rollouts.
        scenario: What is played.
        sampler: Gives the policy's voices.
        step: Which of the run, from 0.
        groups: Numbers of the groups within the step.
        policy_version: Of the weights that the sampler has.
        is_constant: Which groups are followed by others; None: none is.
        progress: Says how far they are.
    """
    if isinstance(scenario.pool, WithholdingPool):
        pool = scenario.pool.accepting(anneal(settings, step))
        scenario = replace(scenario, pool=pool)
    share_of_group = aided_share(settings, scenario)
    flags = aided_flags(settings, share_of_group, step)

    def sessions(group: int, wave: int) -> list[Session]:
        # Tasks are taken one after another, through all steps; those of further waves
        # stand behind all of these.
        reading = wave * settings.num_steps + step
        position = reading * settings.groups_per_step + group
        index = task_index(scenario.source, "train", position, settings.seed)
        task = scenario.source.task("train", index)
        return [
            scenario.session(
                task,
                aided=aided,
                key=rollout_key(settings.seed, step, group, rollout, wave),
                group_id=_group_id(step, group, wave),
                policy_version=policy_version,
            )
            for rollout, aided in enumerate(flags)
        ]

    def refills(episodes: Sequence[Episode], wave: int) -> list[Session]:
        if is_constant is None or wave > settings.max_refills:
            return []
        played = _by_id(episodes)
        more: list[Session] = []
        for group in groups:
            # There is none where an earlier wave had nothing to follow.
            last = played.get(_group_id(step, group, wave - 1))
            if last is not None and is_constant(step, last):
                more += sessions(group, wave)
        meter.total += len(more)
        return more

    first = [session for group in groups for session in sessions(group, 0)]
    meter = RolloutMeter("rollouts", sampler, len(first))
    with progress.part(meter.text):
        episodes = await play_wave(scenario, first, sampler, refills, meter)
    played = _by_id(episodes)
    # In order of the groups, whoever plays how many of them.
    return [
        episode
        for group in groups
        for wave in range(settings.max_refills + 1)
        for episode in played.get(_group_id(step, group, wave), ())
    ]


def _group_id(step: int, group: int, wave: int) -> str:
    """Return what names a group: STEP-GROUP, and the wave if it is a further one.

    Steps are counted from 1.
    """
    name = f"{step + 1}-{group}"
    return f"{name}-{wave}" if wave else name


def by_group(episodes: Sequence[Episode]) -> Groups:
    """Return episodes by group, groups in the order in which they first appear."""
    return list(_by_id(episodes).values())


def _by_id(episodes: Sequence[Episode]) -> dict[str, list[Episode]]:
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.group_id, []).append(episode)
    return groups


def _by_step(episodes: Sequence[Episode]) -> list[list[Episode]]:
    """Return episodes that wait for their steps, a step's together."""
    steps: dict[str, list[Episode]] = {}
    for episode in episodes:
        # As `_group_id` wrote it: STEP-GROUP.
        step, _, _ = episode.group_id.partition("-")
        steps.setdefault(step, []).append(episode)
    return list(steps.values())


def staleness(
    step: int, episodes: Sequence[Episode], *, is_stored: bool
) -> dict[str, float]:
    """Return by how many versions the policy's tokens are older than `step`.

    Args:
        step: That is trained on them; its weights are of the version of that number.
        episodes: Of the step.
        is_stored: Whether they come from a file. Then only those whose tokens have
            versions of their own count; the others' may never have been set.

    Returns:
        The metrics `staleness`, the mean, and `staleness_max`; none if no version is
        known.
    """
    # With one that is empty: there may be no other to concatenate.
    versions = [np.zeros(0, np.int32)]
    for episode in episodes:
        if is_stored and episode.tokens.policy_version is None:
            continue
        versions.append(episode.policy_versions[episode.tokens.policy_mask])
    all_versions = np.concatenate(versions)
    # -1 says that it is not known.
    ages = step - all_versions[all_versions >= 0]
    if not len(ages):
        return {}
    mean = float(ages.mean())
    largest = float(ages.max())
    return {"staleness": mean, "staleness_max": largest}
