"""Batches that are sampled: when they are due, or up to `max_staleness` steps ahead."""

from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
from aipo_learner.rollout.aid import (
    NOT_PLAYED,
    Competence,
    IsAided,
    find_aid,
    played_alone,
    with_played,
)
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
Play = Callable[[int, Sequence[int], int, Competence], Playing]
"""Takes a step, numbers of groups, the version of the weights that this process has at
the call, with which it plays the groups, and the running success before the step.
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

    def competence(self) -> Competence:
        """Return the running success after all that was sampled, for a checkpoint."""
        return NOT_PLAYED

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
        competence: Running success after them, as that checkpoint has it.
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
        competence: Competence = NOT_PLAYED,
        samples_during_update: bool = False,
    ) -> None:
        self._settings = settings
        self._play = play
        self._interrupt = interrupt
        # Batches that wait, the next step's first.
        self._queue = deque(_by_step(queued))
        self._competence = competence
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

    def competence(self) -> Competence:
        """Return the running success after all that was sampled, for a checkpoint.

        Empty where nothing asks for it.
        """
        return self._competence

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
        aid = self._settings.aid
        if aid.has_memory:
            self._competence = with_played(self._competence, batch, aid.family)
        self._next += 1

    def _begin(self, policy_version: int) -> Playing:
        """Begin to play this rank's groups of the next batch."""
        groups = share(range(self._settings.groups_per_step))
        return self._play(self._next, groups, policy_version, self._competence)


async def play_groups(
    settings: RolloutSettings,
    scenario: Scenario,
    sampler: WaveVoices,
    step: int,
    groups: Sequence[int],
    policy_version: int,
    competence: Competence = NOT_PLAYED,
    is_constant: IsConstant | None = None,
    progress: Progress = SILENT,
) -> list[Episode]:
    """Play all rollouts of some groups of a step; return them group after group.

    Each has its task and its keys, so that it makes no difference who plays the others.
    Where what happened decides who is aided, those of a group that never are come
    first, and the others, aided or not, in a wave behind them. Behind a group that is
    constant comes one of another task, and behind that another, up to `max_refills`.

    Args:
        settings: Of the rollouts.
        scenario: What is played.
        sampler: Gives the policy's voices.
        step: Which of the run, from 0.
        groups: Numbers of the groups within the step.
        policy_version: Of the weights that the sampler has.
        competence: Running success before the step, where it decides who is aided.
        is_constant: Which groups are followed by others; None: none is.
        progress: Says how far they are.
    """
    if isinstance(scenario.pool, WithholdingPool):
        pool = scenario.pool.accepting(anneal(settings, step))
        scenario = replace(scenario, pool=pool)
    flags = aided_flags(settings, aided_share(settings, scenario), step)
    decide = find_aid(settings.aid)
    meter = RolloutMeter("rollouts", sampler, len(groups) * settings.group_size)
    step_waves = _StepWaves(
        settings=settings,
        scenario=scenario,
        step=step,
        groups=groups,
        policy_version=policy_version,
        competence=competence,
        is_constant=is_constant,
        meter=meter,
        flags=flags,
        decide=decide,
        # The first of a group are those that may be aided.
        num_waiting=sum(flags) if decide else 0,
    )
    first = [session for group in groups for session in step_waves.begin(group, 0)]
    with progress.part(meter.text):
        made = await play_wave(scenario, first, sampler, step_waves.further, meter)
    played = _by_id(made)
    # In order of the groups, whoever plays how many of them.
    return [
        episode
        for group in groups
        for wave in range(settings.max_refills + 1)
        for episode in step_waves.played(played, group, wave)
    ]


@dataclass(frozen=True, kw_only=True)
class _StepWaves:
    """What is played of a step, wave after wave.

    Args:
        flags: Of each rollout of a group, whether it may consult.
        decide: Says whether those of a group that may do; None: they do.
        num_waiting: So many rollouts of a group, the first, wait for the others, by
            which it is decided.

    The other arguments are those of `play_groups`.
    """

    settings: RolloutSettings
    scenario: Scenario
    step: int
    groups: Sequence[int]
    policy_version: int
    competence: Competence
    is_constant: IsConstant | None
    meter: RolloutMeter
    flags: Sequence[bool]
    decide: IsAided | None
    num_waiting: int

    def begin(self, group: int, wave: int) -> list[Session]:
        """Return the sessions of a group that wait for nothing."""
        rollouts = range(self.num_waiting, self.settings.group_size)
        return [
            self._session(group, wave, rollout, aided=self.flags[rollout])
            for rollout in rollouts
        ]

    def further(self, episodes: Sequence[Episode], number: int) -> list[Session]:
        """Return the sessions of the next wave: see `EpisodeRunner.waves`."""
        if not self.num_waiting:
            return self._refills(episodes, number)
        # Behind each wave comes that of the rollouts that waited for it.
        wave, is_second = divmod(number, 2)
        if is_second:
            return self._waiting(episodes, wave)
        return self._refills(episodes, wave)

    def played(
        self, by_id: Mapping[str, list[Episode]], group: int, wave: int
    ) -> list[Episode]:
        """Return the episodes of a group, in the order of its rollouts; [] if none.

        Args:
            by_id: Those that were played so far.
            group: Its number within the step.
            wave: In which it began.
        """
        of_group = by_id.get(_group_id(self.step, group, wave), [])
        # Those that waited were played last.
        num_first = self.settings.group_size - self.num_waiting
        return of_group[num_first:] + of_group[:num_first]

    def _waiting(self, episodes: Sequence[Episode], wave: int) -> list[Session]:
        """Return the sessions that waited for the others of their groups."""
        by_id = _by_id(episodes)
        more: list[Session] = []
        for group in self.groups:
            alone = self.played(by_id, group, wave)
            if not alone:
                continue
            is_aided = self._is_aided(alone)
            more += [
                self._session(group, wave, rollout, aided=is_aided)
                for rollout in range(self.num_waiting)
            ]
        return more

    def _is_aided(self, alone: Sequence[Episode]) -> bool:
        """Return whether the rest of a group may consult."""
        # With a failed episode it is left out whole: help would be for nothing.
        has_failed = any(episode.reward is None for episode in alone)
        if self.decide is None or has_failed:
            return False
        known = played_alone(
            alone,
            self.competence,
            step=self.step,
            num_steps=self.settings.num_steps,
            family=self.settings.aid.family,
        )
        return self.decide(known)

    def _refills(self, episodes: Sequence[Episode], wave: int) -> list[Session]:
        """Return the sessions of groups that follow constant ones."""
        if self.is_constant is None or wave > self.settings.max_refills:
            return []
        by_id = _by_id(episodes)
        more: list[Session] = []
        num_groups = 0
        for group in self.groups:
            last = self.played(by_id, group, wave - 1)
            # There is none where an earlier wave had nothing to follow.
            if last and self.is_constant(self.step, last):
                more += self.begin(group, wave)
                num_groups += 1
        self.meter.total += num_groups * self.settings.group_size
        return more

    def _session(self, group: int, wave: int, rollout: int, *, aided: bool) -> Session:
        """Return the session of a rollout, by its own key."""
        settings = self.settings
        # Tasks are taken one after another, through all steps; those of further waves
        # stand behind all of these.
        reading = wave * settings.num_steps + self.step
        position = reading * settings.groups_per_step + group
        source = self.scenario.source
        index = task_index(source, "train", position, settings.seed)
        return self.scenario.session(
            source.task("train", index),
            aided=aided,
            key=rollout_key(settings.seed, self.step, group, rollout, wave),
            group_id=_group_id(self.step, group, wave),
            policy_version=self.policy_version,
        )


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
