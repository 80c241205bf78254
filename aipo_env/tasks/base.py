"""What a task source is, and in which order its tasks are read."""

from typing import Any, Protocol

import numpy as np

from aipo_env.records import Split, Task
from aipo_env.registry import TASKS, Spec


class TaskSource(Protocol):
    """A supply of tasks by split and index. Equal arguments give equal tasks."""

    def num_tasks(self, split: Split) -> int | None:
        """Return how many tasks a split has; None when it is endless."""

    def task(self, split: Split, index: int) -> Task:
        """Return one task."""


def build_source(spec: Spec | TaskSource, seed: int) -> TaskSource:
    """Build a task source from its spec: `toy`, `toy:difficulty=2,seed=7`, `file:PATH`.

    `seed` is the toy world's unless the spec gives its own.

    Raises:
        ConfigError: Unknown source or option. DataError: an unreadable file.
    """
    source: Any = TASKS.build(spec, seed=seed)
    return source  # type: ignore[no-any-return]


def task_index(source: TaskSource, split: Split, position: int, seed: int) -> int:
    """Return the task at `position` of an endless reading; each epoch of a finite source is shuffled anew."""
    size = source.num_tasks(split)
    if not size:
        return position
    epoch, within = divmod(position, size)
    return int(np.random.default_rng([seed, 6, epoch]).permutation(size)[within])
