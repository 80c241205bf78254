"""Task sources: where problems come from. `toy` is generated and endless; `file:` reads JSON lines."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from aipo_env.errors import ConfigError, DataError
from aipo_env.records import Task
from aipo_env.registry import Spec, choose, construct, parse_spec
from aipo_env.toy.world import Split, World


class TaskSource(Protocol):
    """A supply of tasks by split and index. Equal arguments give equal tasks."""

    def num_tasks(self, split: Split) -> int | None:
        """Return how many tasks a split has; None when it is endless."""

    def task(self, split: Split, index: int) -> Task:
        """Return one task."""


@dataclass(frozen=True)
class ToySource:
    """The toy world as a task source."""

    world: World

    def num_tasks(self, split: Split) -> int | None:
        """Endless."""
        return None

    def task(self, split: Split, index: int) -> Task:
        """Return problem `index`; kinds of bottleneck take turns."""
        problem = self.world.problem(split, index)
        return Task(
            id=f"toy-{self.world.seed}-{split}-{index}",
            prompt=problem.text,
            answer=problem.answer,
            meta={
                "bottleneck": self.world.kinds[index % len(self.world.kinds)],
                "difficulty": self.world.difficulty,
            },
            source="toy",
            licence="Apache-2.0",
        )


@dataclass(frozen=True)
class FileSource:
    """Tasks from a JSON-lines file: `{"id", "prompt", "answer"}` and any field of `Task`, one per line.

    Both splits read the same file unless a row names its own in `"split"`.
    """

    path: Path

    def num_tasks(self, split: Split) -> int:
        """Return how many rows the split has."""
        return len(self._tasks[split])

    def task(self, split: Split, index: int) -> Task:
        """Return row `index` of the split, counting round and round."""
        tasks = self._tasks[split]
        if not tasks:
            raise DataError(
                f"{self.path}: no row belongs to the {split!r} split. Add rows, or drop their 'split'."
            )
        return tasks[index % len(tasks)]

    @cached_property
    def _tasks(self) -> dict[Split, list[Task]]:
        if not self.path.is_file():
            raise DataError(
                f"{self.path}: no such file. Give a .jsonl file with id, prompt and answer per line."
            )
        tasks: dict[Split, list[Task]] = {"train": [], "test": []}
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), 1):
            if not line.strip():
                continue
            split, task = _read_row(line, f"{self.path}, line {number}")
            for name in tasks if split is None else (split,):
                tasks[name].append(task)
        return tasks


def _read_row(line: bytes, where: str) -> tuple[Split | None, Task]:
    """Read one row; raise DataError that names file, line and field."""
    try:
        row = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}). Mend or delete the line.") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be an object, got {type(row).__name__}.")
    for field in ("id", "prompt", "answer"):
        if field not in row:
            raise DataError(f"{where}: field {field!r} is missing. A row needs id, prompt and answer.")
    split = row.pop("split", None)
    if split not in (None, "train", "test"):
        raise DataError(f'{where}: field \'split\' is {split!r}; use "train", "test" or leave it out.')
    try:
        return split, construct(Task, row, where)
    except ConfigError as error:
        raise DataError(str(error)) from error
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def build_source(spec: Spec, seed: int) -> TaskSource:
    """Build a task source from its spec: `toy`, `toy:difficulty=2,seed=7`, `file:PATH`.

    `seed` is the toy world's unless the spec gives its own.

    Raises:
        ConfigError: Unknown source or option. DataError: an unreadable file.
    """
    if isinstance(spec, str) and spec.startswith("file:"):
        spec = {"type": "file", "path": spec.removeprefix("file:")}
    kind, options = parse_spec(spec, "task source")
    return choose(_SOURCES, kind, "task source")(options, seed)


def _toy(options: Mapping[str, Any], seed: int) -> TaskSource:
    return ToySource(construct(World, {"seed": seed, **options}, "toy world"))


def _file(options: Mapping[str, Any], seed: int) -> TaskSource:
    return construct(_open_file, options, "file source")


def _open_file(path: str) -> TaskSource:
    source = FileSource(Path(path).expanduser())
    source.num_tasks("train")
    return source


_SOURCES: dict[str, Callable[[Mapping[str, Any], int], TaskSource]] = {"toy": _toy, "file": _file}


def task_index(source: TaskSource, split: Split, position: int, seed: int) -> int:
    """Return the task at `position` of an endless reading; each epoch of a finite source is shuffled anew."""
    size = source.num_tasks(split)
    if not size:
        return position
    epoch, within = divmod(position, size)
    return int(np.random.default_rng([seed, 6, epoch]).permutation(size)[within])
