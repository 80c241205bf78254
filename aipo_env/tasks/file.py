"""Tasks from a JSON-lines file."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from aipo_env.errors import ConfigError, DataError
from aipo_env.records import Split, Task
from aipo_env.registry import construct


@dataclass(frozen=True)
class FileSource:
    """Tasks from a JSON-lines file: `{"id", "prompt", "answer"}` and any field of `Task`, one per line.

    Both splits read the same file unless a row names its own in `"split"`.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).expanduser())
        self.num_tasks("train")

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
