"""Tasks from files of one's own, and from the files that ship with the package.

file:tasks.jsonl
file:gsm.parquet,prompt=question,answer=answer,limit=500
file:folder-with-train-and-test-files
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from aipo_env.errors import (
    ConfigError,
    DataError,
    check_whole,
    shown,
    suggest,
)
from aipo_env.records import Split, Task, json_fault
from aipo_env.registry import construct
from aipo_env.shipped import data_folder
from aipo_env.tasks.base import TaskTable
from aipo_env.tasks.data_folder import files_by_split
from aipo_env.tasks.datasets import (
    ANSWER_COLUMNS,
    ID_DIGITS,
    PROMPT_COLUMNS,
    prompt_digest,
    value_at,
)
from aipo_env.tasks.rows import read_rows

MIN_TO_SPLIT = 10
"""A file of fewer rows holds none of them out unless it is told to."""
HELD_OUT_SHARE = 0.1
"""The share of rows that are held out where neither file nor user says which."""
_TASK_FIELDS = tuple(Task.__dataclass_fields__)
_SPELLINGS = {"license": "licence"}
"""Columns that are fields of a task under another spelling."""
_MAX_LISTED = 20
"""So many columns stand in a message."""
_MAX_NAME_CHARS = 200
"""What is longer is no column's name."""
_TYPO = 0.82
"""How alike a column and a field are from which one is the other, mistyped."""


@dataclass(frozen=True)
class _Columns:
    """Where the fields of a task stand in a row.

    Each is the path of a column, as in `Dataset`; empty where nobody has said.
    """

    prompt: str = ""
    answer: str = ""
    id: str = ""
    split: str = ""

    @property
    def is_given(self) -> bool:
        """Whether somebody has said what the file looks like."""
        return bool(self.prompt or self.answer or self.id or self.split)


@dataclass(frozen=True)
class _Row:
    """A task as a file has it.

    Args:
        task: The task.
        split: What the row, or the name of its file, says that it is for.
        where: Its place, for messages.
        has_own_id: Whether the row names itself.
    """

    task: Task
    split: Split | None
    where: str
    has_own_id: bool

    @cached_property
    def digest(self) -> bytes:
        """A hash of the problem."""
        return prompt_digest(self.task.prompt)


class FileSource(TaskTable):
    """Tasks from a file, or from all files of a folder.

    A row needs a problem and its answer, and may have any other field of `Task`; what
    other columns hold stands in the task's `meta`. Numbers are written out.

    Which rows are held out, as the split "test", is said by a column `split` or by the
    names of a folder's files. Where nothing says so, it is a tenth of the rows, those
    whose problems have the smallest hashes, so that neither the order nor a further
    row changes much; of fewer than 10 rows it is none.

    Args:
        path: A .jsonl, .json, .csv or .parquet file, or a folder of them.
        prompt: The column of the problem; by default `prompt`, or the first of
            `PROMPT_COLUMNS` that the row has. Paths as "reward_model.ground_truth" and
            "messages.0.content" lead into objects and lists.
        answer: The column of the answer; by default `answer`, or the first of
            `ANSWER_COLUMNS`.
        id: The column that names each row; by default `id`, or a hash of the problem.
        split: The column that says "train" or "test"; by default `split`.
        test: The share of rows that is held out instead of a tenth, from 0 to 1.
        limit: How many rows are read, from the first on; 0 for all.

    Raises:
        ConfigError: An option is out of range.
        DataError: The file cannot be read, or a row is no task; the message names file,
            row and field.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        prompt: str = "",
        answer: str = "",
        id: str = "",
        split: str = "",
        test: float | None = None,
        limit: int = 0,
    ) -> None:
        name = f"file:{path}"
        check_whole(f"{name}: limit", limit)
        _check_share(f"{name}: test", test)
        columns = _Columns(*map(str, (prompt, answer, id, split)))
        rows, num_repeated = _read(Path(path).expanduser(), columns, limit)
        are_told = any(row.split is not None for row in rows)
        if are_told and test is not None:
            raise ConfigError(
                f"{name}: test={test} beside rows that say themselves what is held out."
                " Leave test out."
            )
        if not are_told:
            rows = _split(rows, test)
        tasks: dict[Split, list[Task]] = {"train": [], "test": []}
        for row in rows:
            # What is not marked as held out may be learnt from.
            tasks[row.split or "train"].append(row.task)
        skipped = {"repeated": num_repeated} if num_repeated else {}
        super().__init__(str(path), tasks, skipped)


def shipped(name: str) -> TaskTable:
    """Return the tasks in `envs_data/<name>`: "toy", "math", "code", "science"."""
    table = FileSource(data_folder(name) / "tasks.jsonl")
    has_notes = any("notes" in task.meta for task in table.tasks["train"])
    agents = "notes" if has_notes else "none"
    # The tests read every gold that ships: nobody has to wait for that again.
    return TaskTable(table.name, table.tasks, table.skipped, agents, is_checked=True)


def _check_share(what: str, share: Any) -> None:
    """Raise ConfigError unless a value is a share, or None."""
    if share is None:
        return
    is_number = isinstance(share, int | float) and not isinstance(share, bool)
    if not is_number or not 0 <= share <= 1:
        raise ConfigError(
            f"{what}={shown(share)} must be a share of the rows, from 0 to 1."
        )


def _read(path: Path, columns: _Columns, limit: int) -> tuple[list[_Row], int]:
    """Return the rows of a file or folder, and how many stood there before."""
    rows: list[_Row] = []
    ids: dict[str, _Row] = {}
    num_repeated = 0
    for file, split_of_file in files_by_split(path):
        for where, fields in read_rows(file):
            row = _read_row(fields, where, columns, split_of_file)
            earlier = ids.get(row.task.id)
            if earlier is None:
                ids[row.task.id] = row
                rows.append(row)
            elif _is_repeated(row, earlier):
                num_repeated += 1
            if limit and len(rows) == limit:
                return rows, num_repeated
    if not rows:
        raise DataError(
            f"{path}: there is no row in it. A row needs prompt and answer."
        )
    return rows, num_repeated


def _is_repeated(row: _Row, earlier: _Row) -> bool:
    """Return that a row says again what an earlier one of its id does.

    Raises:
        DataError: It says something else.
    """
    if row.has_own_id:
        raise DataError(
            f"{row.where}: the id {shown(row.task.id)} stands in an earlier row. Give"
            " each its own."
        )
    if row.task.answer != earlier.task.answer or row.split != earlier.split:
        raise DataError(
            f"{row.where}: its problem stands in {earlier.where} too, with another"
            " answer or split. Delete one of them, or give each an id."
        )
    return True


def _split(rows: Sequence[_Row], test: float | None) -> list[_Row]:
    """Return rows with the split that each belongs to.

    Rows of one problem stay together, so that there may be some more for the test.
    """
    if test is None:
        test = HELD_OUT_SHARE if len(rows) >= MIN_TO_SPLIT else 0.0
    num_held_out = math.ceil(test * len(rows))
    by_hash = sorted(row.digest for row in rows)
    held_out = set(by_hash[:num_held_out])
    return [
        replace(row, split="test" if row.digest in held_out else "train")
        for row in rows
    ]


def _read_row(
    fields: Mapping[str, Any],
    where: str,
    columns: _Columns,
    split_of_file: Split | None,
) -> _Row:
    """Make a task of a row; raise DataError that names file, row and field."""
    # A parquet file has every column in every row: an empty one is not there.
    row = {name: value for name, value in fields.items() if value is not None}
    split = _take_split(row, where, columns.split)
    task_fields, has_own_id = _task_fields(row, where, columns)
    try:
        task = construct(Task, task_fields, where)
        # A parquet file may hold dates and bytes, of which no episode could be written.
        fault = json_fault(task.meta)
        if fault:
            raise DataError(f"field 'meta' {fault}. Write texts and numbers.")
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
    return _Row(task, split or split_of_file, where, has_own_id)


def _take_split(row: dict[str, Any], where: str, column: str) -> Split | None:
    """Take out of a row what it says that it is for."""
    name = column or "split"
    value = value_at(row, name)
    row.pop(name, None)
    if value is None and column:
        raise _no_column(where, "split", column, row)
    if value not in (None, "train", "test"):
        raise DataError(
            f'{where}: field {name!r} is {shown(value)}; use "train", "test" or leave'
            " it out."
        )
    split: Split | None = value
    return split


def _task_fields(
    row: dict[str, Any], where: str, columns: _Columns
) -> tuple[dict[str, Any], bool]:
    """Return the fields of a row's task, and whether the row names itself."""
    rest = dict(row)
    fields: dict[str, Any] = {}
    prompt = _take(rest, where, "prompt", columns.prompt, PROMPT_COLUMNS)
    fields["prompt"] = _as_text(_said(prompt, where))
    # The tests of a code task are its answer.
    if columns.answer or "tests" not in rest:
        answer = _take(rest, where, "answer", columns.answer, ANSWER_COLUMNS)
    else:
        answer = rest.pop("answer", "")
    fields["answer"] = _as_text(answer)
    own_id = value_at(rest, columns.id or "id")
    if own_id is None and columns.id:
        raise _no_column(where, "id", columns.id, rest)
    rest.pop(columns.id or "id", None)
    if own_id is None:
        digest = prompt_digest(str(fields["prompt"])).hex()
        fields["id"] = digest[:ID_DIGITS]
    else:
        fields["id"] = _as_text(own_id)
    meta: dict[str, Any] = {}
    for column, value in rest.items():
        name = _SPELLINGS.get(column, column)
        if name in _TASK_FIELDS and name not in fields:
            fields[name] = value
            continue
        _check_typo(column, where, columns)
        # One that holds nothing JSON knows, as a picture, is of no use to a verifier.
        if not json_fault(value):
            meta[column] = value
    own_meta = fields.get("meta", {})
    # One that is no object is named when the task is made.
    if isinstance(own_meta, Mapping):
        fields["meta"] = {**meta, **own_meta}
    return fields, own_id is not None


def _take(
    row: dict[str, Any],
    where: str,
    field: str,
    column: str,
    usual: Sequence[str],
) -> Any:
    """Take what a field holds out of a row.

    Args:
        field: The field of the task.
        column: The path of its column, if somebody has said it.
        usual: Where it is looked for otherwise, after a column of its own name.

    Raises:
        DataError: The row has no such column, or nothing in it.
    """
    paths = (column,) if column else (field, *usual)
    for path in paths:
        value = value_at(row, path)
        if value is None:
            continue
        # Of a path that leads into a column, the column stays: it holds more.
        row.pop(path, None)
        return value
    raise _no_column(where, field, column, row)


def _no_column(
    where: str, field: str, column: str, row: Mapping[str, Any]
) -> DataError:
    """Return the error for a row without what a field is to be read from."""
    names = [shown(name) for name in list(row)[:_MAX_LISTED]]
    listed = ", ".join(names) or "none"
    if column:
        near = get_close_matches(column, map(str, row), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return DataError(
            f"{where}: nothing stands in column {column!r}, which {field}= names."
            f" Columns: {listed}.{hint}"
        )
    return DataError(
        f"{where}: field {field!r} is missing. A row needs prompt and answer; where its"
        f" columns are called otherwise, add prompt=COLUMN,answer=COLUMN. Columns:"
        f" {listed}."
    )


def _said(prompt: Any, where: str) -> Any:
    """Return the problem of a prompt in chat form; any other as it is.

    Raises:
        DataError: It has several messages, of which none may be dropped unseen.
    """
    is_chat = isinstance(prompt, list) and all(
        isinstance(message, Mapping) for message in prompt
    )
    if not is_chat or not prompt:
        return prompt
    if len(prompt) > 1:
        raise DataError(
            f"{where}: the prompt has {len(prompt)} messages, and a task has one. Name"
            " the problem's, as in prompt=prompt.1.content, and give a system message"
            " with --system-prompt."
        )
    return prompt[0].get("content")


def _as_text(value: Any) -> Any:
    """Return a number as text; anything else as it is, for `Task` to judge."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return value
    # A column of whole numbers with gaps is read as floats.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _check_typo(column: str, where: str, columns: _Columns) -> None:
    """Raise DataError where a column looks like a field that was mistyped, or no name.

    Who says what the columns are has looked at them.
    """
    is_name = len(column) <= _MAX_NAME_CHARS
    if columns.is_given and is_name:
        return
    short = column[:_MAX_NAME_CHARS]
    near = get_close_matches(short, _TASK_FIELDS, n=1, cutoff=_TYPO)
    is_typo = bool(near) and near[0] != column
    if is_typo or not is_name:
        raise DataError(
            f"{where}: there is no option {shown(column)}."
            f" {suggest(column, _TASK_FIELDS)}"
        )
