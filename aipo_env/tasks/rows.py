"""The rows of a data file: parquet, JSON lines, JSON or CSV."""

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from aipo_env.errors import ConfigError, DataError, error_text, message_of, shown
from aipo_env.files import bounded_lines, check_line, read_rest

DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
"""What names of data files end in; of the same data in several, the first is read."""
_BATCH_ROWS = 1024
"""Rows of a parquet file that are in memory at a time."""


class Unusable(Exception):
    """A row that makes no task. The message is the reason, without text of the row."""


def need(module: str, install: str = '"aipo-rl[data]"') -> Any:
    """Import an optional library.

    Raises:
        ConfigError: It is not installed; the message says how to.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ConfigError(
            f"{name} is needed and not installed: pip install {install}."
        ) from error


def read_json(text: str | bytes) -> Any:
    """Read strict JSON.

    Raises:
        ValueError: It is none, holds NaN or an infinity, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_line(line: bytes) -> Any:
    """Read a line of strict JSON.

    Raises:
        ValueError: As `read_json`, or it is longer than anything that is read.
    """
    check_line(line)
    return read_json(line)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def read_rows(
    path: Path, columns: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a file, each with where it stands: "tasks.jsonl, line 3".

    Args:
        path: Of a kind in `DATA_SUFFIXES`; with another ending it is taken for JSON
            lines.
        columns: All that is needed of a parquet file, if it has them.

    Raises:
        DataError: The file is missing or damaged; the message names it and the row.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file. Give a file of tasks: {', '.join(DATA_SUFFIXES)}."
        )
    is_of_rows = path.suffix in (".parquet", ".csv")
    word = "row" if is_of_rows else "line"
    readers = {".parquet": _parquet, ".csv": _csv}
    read = readers.get(path.suffix, _json)
    number = 0
    try:
        for number, row in enumerate(read(path, columns), 1):
            where = f"{path}, {word} {number}"
            if row is None:  # an empty line
                continue
            if not isinstance(row, dict):
                raise DataError(
                    f"{where}: a row must be an object, got {type(row).__name__}."
                )
            yield where, row
    except (ConfigError, DataError):
        raise
    except Exception as error:  # pyarrow has errors of many kinds for one fault
        kind = path.suffix[1:] if is_of_rows else "JSON"
        is_plain = isinstance(error, OSError | ValueError | csv.Error)
        reason = message_of(error) if is_plain else error_text(error)
        raise DataError(
            f"{path}, {word} {number + 1}: not {kind} ({reason}). Mend or delete it."
        ) from error


def _json(path: Path, columns: Collection[str]) -> Iterator[Any]:
    """One object per line, or one list of them; None stands for an empty line."""
    with path.open("rb") as file:
        for line in bounded_lines(file):
            is_list = path.suffix == ".json" and line.lstrip().startswith(b"[")
            if is_list:
                yield from read_json(line + _rest_of_list(file))
            elif line.strip():
                yield read_line(line)
            else:
                yield None


def _rest_of_list(file: BinaryIO) -> bytes:
    try:
        return read_rest(file)
    except ValueError as error:
        raise ValueError(f"a list of {error}; write a row a line, as .jsonl") from None


def _csv(path: Path, columns: Collection[str]) -> Iterator[Any]:
    """Yield an object per row, of the cells by the names in the header."""
    with path.open("rb") as file:
        rows = csv.DictReader(_texts(file), strict=True)
        header = rows.fieldnames or ()
        for name, count in Counter(header).items():
            if count > 1:
                raise ValueError(f"two columns of its header are called {shown(name)}")
        for row in rows:
            if None in row:  # where the reader puts cells that no column has
                raise ValueError(f"it has more cells than the header's {len(header)}")
            # A cell cannot be left out, so that an empty one is none.
            yield {name: cell or None for name, cell in row.items()}


def _texts(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a file of text, none of them too long."""
    encoding = "utf-8-sig"
    for line in bounded_lines(file):
        check_line(line)
        yield line.decode(encoding)
        encoding = "utf-8"  # the mark of the encoding stands once


def _parquet(path: Path, columns: Collection[str]) -> Iterator[Any]:
    """Yield an object per row; of the columns alone, if there are all of them."""
    parquet = need("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        has_all = set(columns) <= set(file.schema_arrow.names)
        selection = list(columns) if columns and has_all else None  # None: every one
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=selection):
            yield from batch.to_pylist()
