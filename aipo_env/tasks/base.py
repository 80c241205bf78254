"""What a task source is, the one in memory, and the order in which tasks are read."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from aipo_env.errors import ConfigError, DataError
from aipo_env.keys import Salt, keyed_rng
from aipo_env.records import Split, Task
from aipo_env.registry import TASKS, Spec
from aipo_env.tasks.datasets import same_problem
from aipo_env.tasks.spellings import near_dataset, source_spec

_STRIDE = 1_000_003
"""How far apart the readings of an endless source by neighbouring seeds start."""
MAX_READINGS = 10_000_000
"""Tasks of an epoch by weights, repeated ones counted: more takes too much memory."""
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
        weights: The shares of an epoch of training that tasks have by their `source`;
            empty: each task is read once.
    """

    name: str
    tasks: Mapping[Split, Sequence[Task]] = field(repr=False)
    skipped: Mapping[str, int] = field(default_factory=dict)
    default_agents: Spec = field(default="none", repr=False)
    is_checked: bool = field(default=False, repr=False)
    weights: Mapping[str, float] = field(default_factory=dict, repr=False)

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
                f" {', '.join(sizes) or 'none'}). Ask for another split or source; of a"
                " file, test=0.2 holds out a fifth of the rows, and test=1 all of them."
            )
        return self.tasks[split][index % self.num_tasks(split)]


def build_source(spec: Spec | TaskSource, seed: int) -> TaskSource:
    """Build a task source from its spec.

    Args:
        spec: `toy:difficulty=2,seed=7`, `file:PATH`, `hf:OWNER/NAME`, `math_500`,
            several with ` + ` between them; a source is returned as it is.
        seed: The toy world's, unless the spec gives its own.

    Raises:
        ConfigError: Unknown source or option. DataError: an unreadable file.
    """
    check_source_name(spec)
    return TASKS.build(source_spec(spec), seed=seed)  # type: ignore[no-any-return]


def check_source_name(spec: Any) -> None:
    """Raise ConfigError where a spec names no kind of source; a source is fine."""
    if not isinstance(spec, str | Mapping):
        return
    try:
        TASKS.find(source_spec(spec))
    except ConfigError as error:
        near = near_dataset(spec)
        if not near:
            raise
        raise ConfigError(
            f"{error} Among the known data sets is {near!r}; `aipo tasks` lists them."
        ) from error


def finite_tasks(source: TaskSource) -> Iterator[Task]:
    """Yield the training and the test tasks of a source; of an endless one, none."""
    splits: tuple[Split, ...] = get_args(Split)
    for split in splits:
        num_tasks = source.num_tasks(split) or 0
        for index in range(num_tasks):
            yield source.task(split, index)


def tasks_digest(source: TaskSource, split: Split) -> str:
    """Return a hash of the tasks of a split: a file may change under its name.

    Of kinds, problems, answers and options, in their order; the tests of code tasks,
    which may be large, are not in it. Empty for an endless source.
    """
    num_tasks = source.num_tasks(split)
    if num_tasks is None:
        return ""
    digest = hashlib.sha256()
    for index in range(num_tasks):
        task = source.task(split, index)
        parts = json.dumps([task.id, task.kind, task.prompt, task.answer, task.choices])
        digest.update(parts.encode())
    return digest.hexdigest()


def trained_on(
    training: TaskSource, evaluation: TaskSource, splits: Sequence[Split] = ("train",)
) -> list[Task]:
    """Return the test tasks of one source whose problems another one trains on.

    None where one of them is endless.

    Args:
        training: What is trained on.
        evaluation: What is measured.
        splits: Of the first one.
    """
    problems = {
        same_problem(training.task(split, index).prompt)
        for split in splits
        for index in range(training.num_tasks(split) or 0)
    }
    num_tasks = evaluation.num_tasks("test") or 0
    tasks = [evaluation.task("test", index) for index in range(num_tasks)]
    return [task for task in tasks if same_problem(task.prompt) in problems]


def task_index(source: TaskSource, split: Split, position: int, seed: int) -> int:
    """Return the task at `position` of an endless reading.

    Each epoch of a finite source is shuffled anew; where a reading of an endless one
    starts, the seed says. In an epoch of training each task is read once; of sources
    that have weights, as often as `weighted_epoch` says.
    """
    size = source.num_tasks(split)
    if not size:
        return (seed * _STRIDE + position) % _NUM_INDICES
    if split == "train" and isinstance(source, TaskTable) and source.weights:
        epoch, within = divmod(position, readings_per_epoch(source))
        readings = weighted_epoch(source, epoch)
        return int(readings[_order(len(readings), seed, epoch)[within]])
    epoch, within = divmod(position, size)
    return int(_order(size, seed, epoch)[within])


# Every task asks for it; a run is in one epoch of each split, or between two.
@lru_cache(4)
def _order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of one epoch: int64[size], each place once."""
    return keyed_rng([seed], Salt.TASK_ORDER, epoch).permutation(size)


def readings_per_epoch(source: TaskTable) -> int:
    """Return how many tasks an epoch of a source with weights reads, repeated ones too.

    Raises:
        ConfigError: An origin has no training task or no weight, or the epoch would be
            too long.
    """
    return sum(num_readings for _, num_readings in _origins(source))


# A run is in one epoch, or between two.
@lru_cache(4)
def weighted_epoch(source: TaskTable, epoch: int) -> NDArray[np.int64]:
    """Return which training tasks an epoch of a source with weights reads.

    The tasks of one origin have together the share that its weight gives. The origin
    with the most tasks for its weight is read once, so that every task is; the others
    are read round and round, and an epoch goes on where the one before it stopped.

    Returns:
        int64[readings], each an index of a task.

    Raises:
        ConfigError: As `readings_per_epoch`.
    """
    parts: list[NDArray[np.int64]] = []
    for indices, num_readings in _origins(source):
        places = epoch * num_readings + np.arange(num_readings)
        parts.append(indices[places % len(indices)])
    return np.concatenate(parts)


@lru_cache(4)
def _origins(source: TaskTable) -> list[tuple[NDArray[np.int64], int]]:
    """Return of each origin the indices of its tasks, and how many an epoch reads."""
    places: dict[str, list[int]] = {name: [] for name in source.weights}
    for index, task in enumerate(source.tasks["train"]):
        if task.source not in places:
            raise ConfigError(
                f"task: {task.id!r} is of {task.source!r}, which has no weight."
            )
        places[task.source].append(index)
    for name, indices in places.items():
        if not indices:
            raise ConfigError(
                f"task: {name!r} has a weight and no training task. Leave it out."
            )
    scale = max(len(indices) / source.weights[name] for name, indices in places.items())
    num_readings = scale * sum(source.weights.values())
    if num_readings > MAX_READINGS:
        raise ConfigError(
            f"task: by these weights an epoch would have {num_readings:.3g} tasks, more"
            f" than {MAX_READINGS:,}. Give weights that are nearer to the sizes, or"
            " limit the largest source."
        )
    return [
        (np.array(indices, np.int64), max(1, round(scale * source.weights[name])))
        for name, indices in places.items()
    ]
