"""Which groups are aided, where what happened decides: `aid` of a run.

Of every group the unaided rollouts are played first. What became of them, and of
earlier ones of the same task or family, says whether the others of the group may
consult:

all_wrong         none of the unaided ones was right (hints when all fail, as in
                  Scaf-GRPO and NuRL)
competence        their running success is below a bound (as in PATS)
module:function   anybody's function of a `PlayedAlone`

What exactly counts as running success is our reconstruction.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from aipo_env import ConfigError, Episode, Task, shown
from aipo_learner.settings.aid import AIDS, AidSettings

MEMORY = 16
"""Earlier rollouts weigh together at most as much as so many of now."""


Competence = Mapping[str, tuple[float, int]]
"""Running success of unaided rollouts, by task or by family of tasks: the mean, and how
many rollouts it weighs as.
"""
NOT_PLAYED: Competence = {}
"""Before anything was played."""


@dataclass(frozen=True, kw_only=True)
class PlayedAlone:
    """A group of which the unaided rollouts are played, and the others are not.

    Args:
        task: Of the group.
        episodes: Of the unaided rollouts, at least one, each with a reward.
        step: Which of the run, from 0.
        num_steps: Of the run.
        competence: Running success of the task or family, with these episodes.
    """

    task: Task
    episodes: Sequence[Episode]
    step: int
    num_steps: int
    competence: float


IsAided = Callable[[PlayedAlone], bool]
"""Says whether the rest of a group may consult."""


def all_wrong(group: PlayedAlone) -> bool:
    """Return whether no unaided rollout of a group was right."""
    return not any(episode.correct for episode in group.episodes)


def is_below(group: PlayedAlone, below: float) -> bool:
    """Return whether the running success of a group's task or family is below a bound.

    Args:
        group: Any.
        below: From 0 to 1.
    """
    return group.competence < below


def find_aid(aid: AidSettings) -> IsAided | None:
    """Return what decides which groups are aided; None where their share alone does.

    Raises:
        ConfigError: There is no such function.
    """
    if not aid.is_decided:
        return None
    if aid.kind == "all_wrong":
        return all_wrong
    if aid.kind == "competence":
        return partial(is_below, below=aid.below)
    found = AIDS.component(aid.kind)
    if not callable(found):
        raise ConfigError(
            f"aid {aid.kind!r} is {type(found).__name__}: it must be a function that"
            " takes a PlayedAlone and says whether the rest of the group is aided."
        )
    decide: IsAided = found
    return partial(_checked, decide, aid.kind)


def _checked(decide: IsAided, name: str, group: PlayedAlone) -> bool:
    """Return what a function of somebody's own says.

    Raises:
        ConfigError: It raises, or says neither yes nor no.
    """
    try:
        is_aided = decide(group)
    except Exception as error:
        raise ConfigError(
            f"aid {name!r} raised {type(error).__name__} for the task"
            f" {group.task.id!r}: {error}. Correct the function."
        ) from error
    if not isinstance(is_aided, bool | np.bool_):
        raise ConfigError(
            f"aid {name!r} returned {shown(is_aided)} for the task {group.task.id!r}:"
            " it must say True or False."
        )
    return bool(is_aided)


def family_of(task: Task, family: str) -> str:
    """Return under which name a task's successes are counted.

    Args:
        task: Any.
        family: The key of its `meta` that names its family; "": it is counted alone,
            and so is a task that has no such key.
    """
    if not family or family not in task.meta:
        return task.id
    value = json.dumps(task.meta[family], sort_keys=True, default=str)
    return f"{family}={value}"


def with_played(
    competence: Competence, episodes: Sequence[Episode], family: str = ""
) -> Competence:
    """Return the running success after some episodes, of which the unaided count.

    Earlier rollouts weigh at most as much as `MEMORY` of now, and each of these
    episodes as one. Their order changes nothing. Those without a verdict do not count.

    Args:
        competence: As it was before them.
        episodes: Of one step.
        family: As for `family_of`.
    """
    successes: dict[str, list[bool]] = {}
    for episode in episodes:
        if not episode.aided and episode.reward is not None:
            name = family_of(episode.task, family)
            successes.setdefault(name, []).append(episode.correct)
    after = dict(competence)
    for name, of_name in successes.items():
        mean, num_rollouts = competence.get(name, (0.0, 0))
        total = num_rollouts + len(of_name)
        mean = (mean * num_rollouts + sum(of_name)) / total
        after[name] = (mean, min(total, MEMORY))
    return after


def played_alone(
    episodes: Sequence[Episode],
    competence: Competence,
    *,
    step: int,
    num_steps: int,
    family: str = "",
) -> PlayedAlone:
    """Return what is known of a group whose unaided rollouts are played.

    Args:
        episodes: Of these rollouts.
        competence: As it was before the step.
        step: Which of the run, from 0.
        num_steps: Of the run.
        family: As for `family_of`.
    """
    task = episodes[0].task
    after = with_played(competence, episodes, family)
    mean, _ = after[family_of(task, family)]
    return PlayedAlone(
        task=task,
        episodes=episodes,
        step=step,
        num_steps=num_steps,
        competence=mean,
    )
