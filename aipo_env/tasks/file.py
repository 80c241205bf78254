"""Tasks from a file of one's own, and from the files that ship with the package."""

from pathlib import Path
from typing import Any

from aipo_env.errors import ConfigError, DataError, shown
from aipo_env.records import Split, Task, json_fault
from aipo_env.registry import construct
from aipo_env.shipped import data_folder
from aipo_env.tasks.base import TaskTable
from aipo_env.tasks.rows import read_rows


class FileSource(TaskTable):
    """Tasks from a file: `id`, `prompt`, `answer` and any field of `Task` per row.

    The file is .jsonl, .json, .csv or .parquet. Both splits read all of it unless a row
    names its own in `split`.

    Raises:
        DataError: The file cannot be read, or a row is no task; the message names file,
            row and field.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path).expanduser()
        tasks: dict[Split, list[Task]] = {"train": [], "test": []}
        ids: set[str] = set()
        for where, row in read_rows(path):
            split, task = _read_task(row, where)
            if task.id in ids:
                raise DataError(
                    f"{where}: the id {shown(task.id)} stands in an earlier row. Give"
                    " each its own."
                )
            ids.add(task.id)
            splits = tuple(tasks) if split is None else (split,)
            for name in splits:
                tasks[name].append(task)
        super().__init__(str(path), tasks)


def shipped(name: str) -> TaskTable:
    """Return the tasks in `envs_data/<name>`: "toy", "math", "code", "science"."""
    table = FileSource(data_folder(name) / "tasks.jsonl")
    has_notes = any("notes" in task.meta for task in table.tasks["train"])
    agents = "notes" if has_notes else "none"
    # The tests read every gold that ships: nobody has to wait for that again.
    return TaskTable(table.name, table.tasks, table.skipped, agents, is_checked=True)


def _read_task(row: dict[str, Any], where: str) -> tuple[Split | None, Task]:
    """Make a task of a row; raise DataError that names file, row and field."""
    # A parquet file has every column in every row: an empty one is not there.
    row = {name: value for name, value in row.items() if value is not None}
    split = row.pop("split", None)
    if split not in (None, "train", "test"):
        raise DataError(
            f'{where}: field \'split\' is {shown(split)}; use "train", "test" or leave'
            " it out."
        )
    for field in ("id", "prompt", "answer"):
        if field not in row:
            raise DataError(
                f"{where}: field {field!r} is missing. A row needs id, prompt and"
                " answer."
            )
    try:
        task = construct(Task, row, where)
        # A parquet file may hold dates and bytes, of which no episode could be written.
        fault = json_fault(task.meta)
        if fault:
            raise DataError(f"field 'meta' {fault}. Write texts and numbers.")
        return split, task
    except (ConfigError, DataError) as error:
        meta = row.get("meta")
        if isinstance(meta, dict) and meta.get("no_republish"):
            raise DataError(
                f"{where}: no task; its text forbids republication and is not shown."
            ) from None
        # What `construct` says names the place itself.
        is_placed = isinstance(error, ConfigError)
        message = str(error) if is_placed else f"{where}: {error}"
        raise DataError(message) from error
