"""Tasks from datasets of the Hugging Face Hub, or from a folder that holds one."""

import fnmatch
import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from aipo_env.errors import ConfigError, DataError, check_whole, suggest
from aipo_env.records import Split, Task
from aipo_env.tasks.base import TaskTable
from aipo_env.tasks.datasets import Dataset, known_datasets
from aipo_env.tasks.rows import SUFFIXES, Unusable, need, read_rows

_SPLITS = ("train", "test", "validation", "valid", "val", "dev")
_log = logging.getLogger("aipo_env")


def hub_source(
    name: str,
    *,
    split: str = "",
    config: str = "",
    revision: str = "",
    folder: str = "",
    limit: int = 0,
    prompt: str = "",
    answer: str = "",
    start: str = "",
    end: str = "",
) -> TaskTable:
    """Read a dataset: `hf:math_500`, `hf:OWNER/NAME,prompt=question`,
    `hf:livecodebench,start=2024-08-01`.

    Args:
        name: A short name or id of `envs_data/datasets.json`, or any other
            "OWNER/NAME".
        split: The part to read; `config` the subset. By default the table's.
        revision: Branch or commit; "refs/convert/parquet" has parquet files of nearly
            every dataset.
        folder: Where the dataset's files are, as `hf download` leaves them; then
            nothing is downloaded.
        limit: How many tasks to keep; 0 for all.
        prompt: The column of the problem, `answer` that of its answer, instead of the
            table's.
        start: The first day of a window by the dataset's dates, as in "2024-08-01";
            `end` is the last.

    Raises:
        ConfigError: An option does not fit the dataset, or a library is missing.
        DataError: The dataset cannot be had or read; the message says what to do.
    """
    known = known_datasets()
    if "/" not in name and name.lower() not in known and not folder:
        raise ConfigError(
            f"hf: {name!r} is neither OWNER/NAME nor known. {suggest(name, known)}"
        )
    check_whole(f"hf:{name}: limit", limit)
    dataset = known.get(name.lower()) or Dataset(id=name)
    for day in filter(None, (start, end)):
        if not dataset.date or not re.fullmatch(r"\d{4}-\d\d-\d\d", str(day)):
            raise ConfigError(
                f"hf:{name}: {day!r} is no day like 2024-08-01, or the dataset has no"
                " dates."
            )
    role: Split = (
        dataset.role
        if split in ("", dataset.split)
        else "train"
        if split == "train"
        else "test"
    )
    num_rows = 0 if config or split or start or end or limit else dataset.rows
    options: Any = {
        "config": config,
        "split": split,
        "prompt": [prompt],
        "answer": [answer],
    }
    given = {key: value for key, value in options.items() if value not in ("", [""])}
    dataset = replace(dataset, role=role, rows=num_rows, **given)
    paths = (
        _in_folder(Path(folder).expanduser(), dataset)
        if folder
        else _fetch(dataset, revision)
    )
    return _read(dataset, paths, (start, end or "~"), limit)


def _read(
    dataset: Dataset, paths: Iterable[Path], window: tuple[str, str], limit: int
) -> TaskTable:
    """Return the tasks, and by reason how many rows were left out."""
    tasks: list[Task] = []
    seen: set[str] = set()
    skipped: Counter[str] = Counter()
    where, row, num_rows = dataset.id, dict[str, Any](), 0
    for where, row in (
        found for path in paths for found in read_rows(path, dataset.columns)
    ):
        num_rows += 1
        try:
            if reason := _unwanted(dataset, row, window, seen):
                skipped[reason] += 1
                continue
            task = dataset.task(row)
        except (Unusable, DataError) as error:
            if dataset.role == "test":  # a benchmark is read whole or not at all
                raise _fault(where, error, row) from None
            skipped[str(error) if isinstance(error, Unusable) else "no task"] += 1
            continue
        tasks.append(task)
        seen.add(dataset.problem(row))
        if len(tasks) == limit:
            break
    if not tasks:
        raise _fault(
            where, f"no task in {num_rows} rows; left out: {dict(skipped)}", row
        )
    if num_rows != dataset.rows > 0:
        _log.warning(
            "%s has %d rows, where %d were expected", dataset.id, num_rows, dataset.rows
        )
    counts = "".join(
        f"; {count} left out: {reason}" for reason, count in skipped.items()
    )
    _log.info(
        "hf:%s: %d tasks to %s with%s", dataset.id, len(tasks), dataset.role, counts
    )
    return TaskTable(f"hf:{dataset.id}", {dataset.role: tasks}, skipped)


def _unwanted(
    dataset: Dataset, row: dict[str, Any], window: tuple[str, str], seen: set[str]
) -> str:
    """Return why a row was not asked for, or nothing."""
    if dataset.is_repeated and dataset.problem(row) in seen:
        return "repeated"
    for column, values in dataset.only.items():
        if row.get(column) not in values:
            return f"{column} is {str(row.get(column))[:40]}"
    inside = (
        not dataset.date or window[0] <= str(row.get(dataset.date))[:10] <= window[1]
    )
    return "" if inside else f"{dataset.date} outside the window"


def _fault(where: str, reason: object, row: dict[str, Any]) -> DataError:
    """Return an error that names the columns and shows nothing of what is in them."""
    columns = ", ".join(map(str, row))
    return DataError(
        f"{where}: {reason}. Columns: {columns}; name others with prompt=, answer=."
    )


def choose_files(names: Iterable[str], dataset: Dataset) -> list[str]:
    """Return the files that hold the dataset's config and split.

    Raises:
        DataError: There is none, or a part of what makes up the config is missing.
    """
    names = sorted(
        name for name in names if not re.search(r"(^|/)\.|dataset_infos", name)
    )
    patterns = dataset.files.get(dataset.config, ())
    listed = [fnmatch.filter(names, pattern) for pattern in patterns]
    if patterns and all(listed):
        return list(chain.from_iterable(listed))
    for suffix in () if any(listed) else SUFFIXES:
        data = [name for name in names if name.endswith(suffix)]
        if dataset.config not in ("", "default"):
            data = [name for name in data if _says(name, dataset.config)]
        of_split = [name for name in data if _says(name, dataset.split)]
        if chosen := of_split or [
            name for name in data if not any(_says(name, word) for word in _SPLITS)
        ]:
            return chosen
    raise DataError(
        f"{dataset.id}: no data files, or not all, of config={dataset.config!r} and"
        f" split={dataset.split!r} among {', '.join(names[:20]) or 'none'}. Choose"
        " others, or revision=refs/convert/parquet."
    )


def _says(name: str, word: str) -> bool:
    return (
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", name, re.IGNORECASE) is not None
    )


def _in_folder(folder: Path, dataset: Dataset) -> list[Path]:
    names = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    )
    return [folder / name for name in choose_files(names, dataset)]


def _fetch(dataset: Dataset, revision: str) -> list[Path]:
    """Download the dataset's files, unless the Hub's cache holds them."""
    hub, errors = need("huggingface_hub"), need("huggingface_hub.errors")
    api, where = (
        hub.HfApi(),
        {"repo_id": dataset.id, "repo_type": "dataset", "revision": revision or "main"},
    )
    try:
        chosen = choose_files(api.list_repo_files(**where), dataset)
        return [Path(api.hf_hub_download(filename=name, **where)) for name in chosen]
    except (OSError, errors.HFValidationError, errors.HTTPError) as error:
        fault = (
            f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        )
        raise DataError(
            f"hf:{dataset.id} cannot be fetched ({fault}). Check id, revision and"
            " network; accept its terms on its page and log in with `hf auth login` or"
            " HF_TOKEN if it is gated; or give its files with folder=PATH."
        ) from error
