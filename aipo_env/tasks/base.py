"""What a task source is, the one in memory, and the order in which tasks are read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from aipo_env.errors import DataError
from aipo_env.keys import Salt, keyed_rng
from aipo_env.records import Split, Task
from aipo_env.registry import TASKS, Spec
from aipo_env.tasks.datasets import known_datasets

_STRIDE = 1_000_003
"""How far apart the readings of an endless source by neighbouring seeds start."""
_NUM_INDICES = 2**31
"""Tasks of an endless source: an index fits into 32 bits, whatever keeps it."""


class TaskSource(Protocol):
    """A supply of tasks by split and index. Equal arguments give equal tasks."""

    def num_tasks(self, split: Split) -> int | None:
        """Return how many tasks a split has; None when it is endless."""

    def task(self, split: Split, index: int) -> Task:
        """Return one task."""


@dataclass(frozen=True, eq=False)
class TaskTable:
    """A source whose tasks are all in memory.

    Args:
        name: What messages call it.
        tasks: The tasks of each split; a split may be absent.
        skipped: Rows that were left out, by reason.
        default_agents: Who is consulted unless the environment says; "none" where
            nobody is at hand. Any source may have this attribute.
        is_checked: Every gold answer is known to be one that can be read.
    """

    name: str
    tasks: Mapping[Split, Sequence[Task]] = field(repr=False)
    skipped: Mapping[str, int] = field(default_factory=dict)
    default_agents: Spec = field(default="none", repr=False)
    is_checked: bool = field(default=False, repr=False)

    def num_tasks(self, split: Split) -> int:
        """Return how many tasks the split has."""
        return len(self.tasks.get(split, ()))

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of the split, counting round and round.

        Raises:
            DataError: The split is empty.
        """
        if not self.num_tasks(split):
            sizes = [f"{name} {len(tasks)}" for name, tasks in self.tasks.items()]
            raise DataError(
                f"{self.name}: no row belongs to the {split!r} split (tasks held:"
                f" {', '.join(sizes) or 'none'}). Ask for another split or source; rows"
                " of a file of yours belong to both unless they have a 'split'."
            )
        return self.tasks[split][index % self.num_tasks(split)]


def build_source(spec: Spec | TaskSource, seed: int) -> TaskSource:
    """Build a task source from its spec.

    Args:
        spec: `toy:difficulty=2,seed=7`, `file:PATH`, `hf:OWNER/NAME`, `math500`; a
            source is returned as it is.
        seed: The toy world's, unless the spec gives its own.

    Raises:
        ConfigError: Unknown source or option. DataError: an unreadable file.
    """
    if isinstance(spec, str):
        name = spec.partition(",")[0].lower()
        if name in known_datasets():
            spec = f"hf:{spec}"
    return TASKS.build(spec, seed=seed)  # type: ignore[no-any-return]


def finite_tasks(source: TaskSource) -> Iterator[Task]:
    """Yield the training and the test tasks of a source; of an endless one, none."""
    splits: tuple[Split, ...] = get_args(Split)
    for split in splits:
        num_tasks = source.num_tasks(split) or 0
        for index in range(num_tasks):
            yield source.task(split, index)


def task_index(source: TaskSource, split: Split, position: int, seed: int) -> int:
    """Return the task at `position` of an endless reading.

    Each epoch of a finite source is shuffled anew; where a reading of an endless one
    starts, the seed says.
    """
    size = source.num_tasks(split)
    if not size:
        return (seed * _STRIDE + position) % _NUM_INDICES
    epoch, within = divmod(position, size)
    return int(_order(size, seed, epoch)[within])


# Every task asks for it; a run is in one epoch of each split, or between two.
@lru_cache(4)
def _order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of one epoch: int64[size], each index of a task once."""
    return keyed_rng([seed], Salt.TASK_ORDER, epoch).permutation(size)
