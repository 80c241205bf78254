"""Tasks from files of one's own, and from the files that ship with the package.

file:tasks.jsonl
file:gsm.parquet,prompt=question,answer=answer,limit=500
file:folder-with-train-and-test-files
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from aipo_env.errors import (
    ConfigError,
    DataError,
    check_whole,
    message_of,
    shown,
    suggest,
)
from aipo_env.records import Split, Task, json_fault
from aipo_env.shipped import data_folder
from aipo_env.tasks.base import TaskTable
from aipo_env.tasks.data_folder import files_by_split
from aipo_env.tasks.datasets import (
    ANSWER_COLUMNS,
    ID_DIGITS,
    PROMPT_COLUMNS,
    prompt_digest,
    same_problem,
    value_at,
    whole_if_exact,
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
_SHARE_DIGITS = 9
"""To so many decimals a number of rows is told from its rounding."""
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
        is_split_by_file: Whether it is its file's name that says what it is for.
    """

    task: Task
    split: Split | None
    where: str
    has_own_id: bool
    is_split_by_file: bool

    @cached_property
    def digest(self) -> bytes:
        """A hash of the problem, however it is set."""
        return prompt_digest(same_problem(self.task.prompt))


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
        limit: How many rows are read, from the first on; of each split, where rows or
            files say theirs; 0 for all.

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
    # What is said to be of a split is limited on its own: a folder may have all of one
    # split before the other.
    num_read: Counter[Split | None] = Counter()
    for file, split_of_file in files_by_split(path):
        for where, fields in read_rows(file):
            row = _read_row(fields, where, columns, split_of_file)
            if limit and num_read[row.split] >= limit:
                continue
            earlier = ids.get(row.task.id)
            if earlier and _counts_anew(row, earlier):
                # In files of their own, each split's ids may begin anew.
                task = replace(row.task, id=f"{row.split}-{row.task.id}")
                row = replace(row, task=task)
                earlier = ids.get(task.id)
            if earlier is None:
                ids[row.task.id] = row
                rows.append(row)
                num_read[row.split] += 1
            elif _is_repeated(row, earlier):
                num_repeated += 1
            if limit and num_read[None] == limit:
                return rows, num_repeated
    if not rows:
        raise DataError(
            f"{path}: there is no row in it. A row needs prompt and answer."
        )
    return rows, num_repeated


def _counts_anew(row: _Row, earlier: _Row) -> bool:
    """Return whether two rows have one id because their files count anew."""
    are_of_files = row.is_split_by_file and earlier.is_split_by_file
    return row.has_own_id and are_of_files and row.split != earlier.split


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
    # Rounded first: 0.07 * 100 is a little more than 7.
    num_held_out = math.ceil(round(test * len(rows), _SHARE_DIGITS))
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
        task = _task(task_fields, where)
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
        # What `_task` says names the place itself.
        is_placed = isinstance(error, ConfigError)
        message = str(error) if is_placed else f"{where}: {error}"
        raise DataError(message) from error
    is_by_file = split is None and split_of_file is not None
    return _Row(task, split or split_of_file, where, has_own_id, is_by_file)


def _task(fields: dict[str, Any], where: str) -> Task:
    """Make a task of its fields, all of which it has."""
    try:
        return Task(**fields)
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: {message_of(error)}.") from error


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
        # Blanks at either end, or more than one, make no other problem.
        one_blank = " ".join(str(fields["prompt"]).split())
        digest = prompt_digest(one_blank).hex()
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
    return str(whole_if_exact(value))


def _check_typo(column: str, where: str, columns: _Columns) -> None:
    """Raise DataError where a column looks like a field that was mistyped, or no name.

    Who says what the columns are has looked at them.
    """
    is_name = len(column) <= _MAX_NAME_CHARS
    if columns.is_given and is_name:
        return
    if not is_name or _near_field(column):
        raise DataError(
            f"{where}: there is no option {shown(column)}."
            f" {suggest(column, _TASK_FIELDS)} If it is a column of its own, say which"
            " the others are, and it is kept: prompt=COLUMN,answer=COLUMN."
        )


# Asked of every row, and of the same few names.
@lru_cache(1024)
def _near_field(column: str) -> bool:
    """Return whether a column is nearly called like a field."""
    near = get_close_matches(column, _TASK_FIELDS, n=1, cutoff=_TYPO)
    return bool(near) and near[0] != column
