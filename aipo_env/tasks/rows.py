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

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
"""What names of data files end in; where several hold the same data, the first is
preferred.
"""


class Unusable(Exception):
    """A row that makes no task; the message is the reason and holds none of the row's
    text.
    """


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
        path: Of a kind in `SUFFIXES`; with another ending it is taken for JSON lines.
        columns: All that is needed of a parquet file, if it has them.

    Raises:
        DataError: The file is missing or damaged; the message names it and the row.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file. Give a file of tasks: {', '.join(SUFFIXES)}."
        )
    word, number = "row" if path.suffix in (".parquet", ".csv") else "line", 0
    read = {".parquet": _parquet, ".csv": _csv}.get(path.suffix, _json)
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
        kind = "JSON" if word == "line" else path.suffix[1:]
        is_plain = isinstance(error, OSError | ValueError | csv.Error)
        reason = message_of(error) if is_plain else error_text(error)
        raise DataError(
            f"{path}, {word} {number + 1}: not {kind} ({reason}). Mend or delete it."
        ) from error


def _json(path: Path, columns: Collection[str]) -> Iterator[Any]:
    """One object per line, or one list of them; None stands for an empty line."""
    with path.open("rb") as file:
        for line in bounded_lines(file):
            if path.suffix == ".json" and line.lstrip().startswith(b"["):
                yield from read_json(line + _rest_of_list(file))
            else:
                yield read_line(line) if line.strip() else None


def _rest_of_list(file: BinaryIO) -> bytes:
    try:
        return read_rest(file)
    except ValueError as error:
        raise ValueError(f"a list of {error}; write a row a line, as .jsonl") from None


def _csv(path: Path, columns: Collection[str]) -> Iterator[Any]:
    with path.open("rb") as file:
        rows = csv.DictReader(_texts(file), strict=True)
        header = rows.fieldnames or ()
        for name, count in Counter(header).items():
            if count > 1:
                raise ValueError(f"two columns of its header are called {shown(name)}")
        for row in rows:
            if None in row:  # where the reader puts cells that no column has
                raise ValueError(f"it has more cells than the header's {len(header)}")
            yield row


def _texts(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a file of text, none of them too long."""
    encoding = "utf-8-sig"
    for line in bounded_lines(file):
        check_line(line)
        yield line.decode(encoding)
        encoding = "utf-8"  # the mark of the encoding stands once


def _parquet(path: Path, columns: Collection[str]) -> Iterator[Any]:
    with need("pyarrow.parquet").ParquetFile(path) as file:
        has_all = set(columns) <= set(file.schema_arrow.names)
        wanted = list(columns) if columns and has_all else None
        for batch in file.iter_batches(batch_size=1024, columns=wanted):
            yield from batch.to_pylist()
