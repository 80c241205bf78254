"""Rows of finished arms on disk: appended as they come, and checked when they are read.

A row that does not fit is named with its file and line, and never averaged.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo_env import DataError
from experiments.arms import Arm, Table

RESULTS = Path(__file__).parent / "results"
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "table": str,
    "world": str,
    "method": str,
    "seed": int,
    "config_hash": str,
    "versions": dict,
    "machine": str,
    "seconds": (int, float),
    "rollouts": int,
    "agent_tokens": int,
    "alone": dict,
    "aided": dict,
}
"""What every row has, and of which type; some rows have more."""
_COUNTS = ("num_samples", "num_correct")
"""What stands in "alone" and "aided": samples of each task, and how many were right."""


@dataclass(frozen=True)
class Row:
    """A row and where it stands.

    Args:
        values: As they were written.
        place: File and line, for messages.
    """

    values: dict[str, Any]
    place: str

    @property
    def key(self) -> tuple[str, str, int]:
        """The key of its arm."""
        values = self.values
        return values["world"], values["method"], values["seed"]


@dataclass(frozen=True)
class Results:
    """The rows of a table.

    Args:
        rows: Those of its arms as they are configured now, by key.
        faults: What is wrong with all other lines, in sentences.
    """

    rows: dict[tuple[str, str, int], Row]
    faults: list[str]


def read_results(table: Table, folder: Path = RESULTS) -> Results:
    """Return the rows of a table, and what is wrong with the others.

    A line is left out that is no row, that is of another table or of no arm of this
    one, that was made with other settings (a foreign hash), or whose arm has a row
    already; of two rows of one arm, both are.

    Raises:
        DataError: The file cannot be read.
    """
    path = folder / f"{table.name}.jsonl"
    rows: dict[tuple[str, str, int], Row] = {}
    faults: list[str] = []
    hashes: dict[tuple[str, str, int], str] = {}
    doubled: set[tuple[str, str, int]] = set()
    for row, fault in _lines(path):
        if row is None:
            faults.append(fault)
            continue
        fault = _fault(row, table, hashes)
        if not fault and row.key in rows:
            doubled.add(row.key)
            fault = f"the arm of {rows[row.key].place} again; delete one of the lines"
        if fault:
            faults.append(f"{row.place}: {fault}.")
            continue
        rows[row.key] = row
    for key in doubled:
        del rows[key]
    return Results(rows, faults)


def append_row(row: dict[str, Any], folder: Path = RESULTS) -> None:
    """Append a row to the file of its table, and wait until the disk has it.

    Raises:
        OSError: It cannot be written; the file is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{row['table']}.jsonl"
    line = json.dumps(row) + "\n"
    with path.open("ab") as file:
        size = file.tell()
        try:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            # A full disk may have taken half of it.
            os.truncate(path, size)
            raise


def _lines(path: Path) -> Iterable[tuple[Row | None, str]]:
    """Yield each line as a row, or what is wrong with it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}.") from error
    for number, line in enumerate(lines, 1):
        place = f"{path.name}:{number}"
        try:
            values = json.loads(line)
        except ValueError as error:
            yield None, f"{place}: no JSON ({error}): a line that was cut off?"
            continue
        fault = _form_fault(values)
        if fault:
            yield None, f"{place}: {fault}."
        else:
            yield Row(values, place), ""


def _form_fault(values: Any) -> str:
    """Return why a line is no row; "" if it is one."""
    if not isinstance(values, dict):
        return "no object"
    for name, kind in _FIELDS.items():
        if not isinstance(values.get(name), kind) or isinstance(values[name], bool):
            return f"{name!r} is missing or of another type"
    for column in ("alone", "aided"):
        for name in _COUNTS:
            if name not in values[column]:
                return f"{column!r} lacks {name!r}"
        numbers = values[column]["num_correct"]
        most = values[column]["num_samples"]
        if not numbers or not all(0 <= number <= most for number in numbers):
            return f"{column!r} has numbers that are no counts of {most} samples"
    return ""


def _fault(row: Row, table: Table, hashes: dict[tuple[str, str, int], str]) -> str:
    """Return why a row is none of a table's arms; "" if it is one.

    Args:
        hashes: Of the arms so far, which is filled.
    """
    if row.values["table"] != table.name:
        return f"it is of the table {row.values['table']!r}"
    world, method, seed = row.key
    is_known = world in table.worlds and method in ("start", *table.methods)
    if not is_known or seed not in table.seeds:
        return f"the table has no arm {method!r} in {world!r} with seed {seed}"
    if row.key not in hashes:
        arm = Arm(table=table, world=world, method=method, seed=seed)
        hashes[row.key] = arm.config_hash()
    if row.values["config_hash"] != hashes[row.key]:
        return (
            f"{method} in {world}, seed {seed}, was made with other settings"
            f" ({row.values['config_hash']}, now {hashes[row.key]}); it is run again"
        )
    return ""
