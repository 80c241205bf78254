"""Tasks from datasets of the Hugging Face Hub, or from a folder that holds one."""

import fnmatch
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from aipo_env.errors import ConfigError, DataError, check_whole, suggest
from aipo_env.hub_access import hub_fault, is_hub_reachable, no_network
from aipo_env.records import Split, Task
from aipo_env.tasks.base import TaskTable
from aipo_env.tasks.datasets import Dataset, find_dataset, known_datasets
from aipo_env.tasks.rows import DATA_SUFFIXES, Unusable, need, read_rows

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
"""`2024-08-01`."""
_DAY_CHARS = 10
"""A date may go on with the time of the day."""
_NO_LAST_DAY = "~"
"""Comes behind every day in the order of texts."""
_HIDDEN = re.compile(r"(^|/)\.|dataset_infos")
"""Names of files without rows: `.gitattributes`, `dataset_infos.json`."""
_MAX_LISTED = 20
"""So many names of files stand in a message."""
_MAX_FAULT_CHARS = 200
_MAX_VALUE_CHARS = 40
"""So much of an error, and of a value, stands in a message."""
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
    """Read a dataset of the Hub, or a folder that holds one.

    As specs: `hf:math_500`, `hf:OWNER/NAME,prompt=question`,
    `hf:livecodebench,start=2024-08-01`.

    Args:
        name: A short name or id of `envs_data/datasets.json`, or any other
            "OWNER/NAME".
        split: The part to read; `config` the subset. By default the table's, and the
            test set of a training set beside it.
        revision: Branch or commit; "refs/convert/parquet" has parquet files of nearly
            every dataset.
        folder: Where the dataset's files are, as `hf download` leaves them; then
            nothing is downloaded.
        limit: How many tasks of each part to keep; 0 for all.
        prompt: The column of the problem, `answer` that of its answer, instead of the
            table's.
        start: The first day of a window by the dataset's dates, as in "2024-08-01";
            `end` is the last.

    Raises:
        ConfigError: An option does not fit the dataset, or a library is missing.
        DataError: The dataset cannot be had or read; the message says what to do.
    """
    known = find_dataset(name)
    if "/" not in name and known is None and not folder:
        raise ConfigError(
            f"hf: {name!r} is neither OWNER/NAME nor known."
            f" {suggest(name, known_datasets())}"
        )
    check_whole(f"hf:{name}: limit", limit)
    dataset = known or Dataset(id=name)
    for day in filter(None, (start, end)):
        is_day = _DAY.fullmatch(str(day)) is not None
        if not dataset.date or not is_day:
            raise ConfigError(
                f"hf:{name}: {day!r} is no day like 2024-08-01, or the dataset has no"
                " dates."
            )
    # The table says how many rows the default part has, and no other.
    is_part = bool(config or split or start or end or limit)
    changes: dict[str, Any] = {
        "role": _role(dataset, split),
        "rows": 0 if is_part else dataset.rows,
    }
    # What is not said is the table's.
    if config != "":
        changes["config"] = config
    if split != "":
        changes["split"] = split
    if prompt != "":
        changes["prompt"] = [prompt]
    if answer != "":
        changes["answer"] = [answer]
    dataset = replace(dataset, **changes)
    parts = [dataset]
    if split == "" and dataset.test_split:
        test_part = _test_part(dataset, is_part=is_part)
        # A folder may hold no more than somebody needed.
        if not folder or _holds(Path(folder).expanduser(), test_part):
            parts.append(test_part)
    window = (start, end or _NO_LAST_DAY)
    tasks: dict[Split, Sequence[Task]] = {}
    skipped: Counter[str] = Counter()
    for part in parts:
        if folder:
            paths = _in_folder(Path(folder).expanduser(), part)
        else:
            paths = _fetch(part, revision)
        tasks[part.role], left_out = _read(part, paths, window, limit)
        skipped += left_out
    return TaskTable(f"hf:{dataset.id}", tasks, skipped)


def _test_part(dataset: Dataset, *, is_part: bool) -> Dataset:
    """Return the test set of a training set."""
    rows = 0 if is_part else dataset.test_rows
    return replace(dataset, split=dataset.test_split, role="test", rows=rows)


def _role(dataset: Dataset, split: str) -> Split:
    """Return what the tasks of a dataset's part are for."""
    if split in ("", dataset.split):
        return dataset.role
    return "train" if split == "train" else "test"


def _read(
    dataset: Dataset, paths: Iterable[Path], window: tuple[str, str], limit: int
) -> tuple[list[Task], Counter[str]]:
    """Return the tasks, and by reason how many rows were left out."""
    tasks: list[Task] = []
    problems: set[str] = set()
    skipped: Counter[str] = Counter()
    # What a message names where there is no row at all.
    where = dataset.id
    row: dict[str, Any] = {}
    num_rows = 0
    for where, row in _rows(dataset, paths):
        num_rows += 1
        try:
            reason = _unwanted(dataset, row, window, problems)
            if reason:
                skipped[reason] += 1
                continue
            task = dataset.task(row)
        except (Unusable, DataError) as error:
            if dataset.role == "test":  # a benchmark is read whole or not at all
                raise _fault(where, error, row) from None
            is_plain = isinstance(error, Unusable)
            skipped[str(error) if is_plain else "no task"] += 1
            continue
        tasks.append(task)
        problems.add(dataset.problem(row))
        if len(tasks) == limit:
            break
    if not tasks:
        reason = f"no task in {num_rows} rows; left out: {dict(skipped)}"
        raise _fault(where, reason, row)
    if num_rows != dataset.rows > 0:
        _log.warning(
            "%s has %d rows, where %d were expected", dataset.id, num_rows, dataset.rows
        )
    counts = [f"; {count} left out: {reason}" for reason, count in skipped.items()]
    _log.info(
        "hf:%s: %d tasks to %s with%s",
        dataset.id,
        len(tasks),
        dataset.role,
        "".join(counts),
    )
    return tasks, skipped


def _rows(
    dataset: Dataset, paths: Iterable[Path]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of files, each with where it stands."""
    for path in paths:
        yield from read_rows(path, dataset.columns)


def _unwanted(
    dataset: Dataset, row: dict[str, Any], window: tuple[str, str], problems: set[str]
) -> str:
    """Return why a row was not asked for, or nothing."""
    if dataset.is_repeated and dataset.problem(row) in problems:
        return "repeated"
    for column, values in dataset.only.items():
        value = row.get(column)
        if value not in values:
            return f"{column} is {str(value)[:_MAX_VALUE_CHARS]}"
    if not dataset.date:
        return ""
    # Days of this form are in order as texts.
    first_day, last_day = window
    day = str(row.get(dataset.date))[:_DAY_CHARS]
    if first_day <= day <= last_day:
        return ""
    return f"{dataset.date} outside the window"


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
    names = sorted(name for name in names if not _HIDDEN.search(name))
    patterns = dataset.files.get(dataset.config, ())
    by_pattern = [fnmatch.filter(names, pattern) for pattern in patterns]
    if patterns and all(by_pattern):
        return list(chain.from_iterable(by_pattern))
    # Where one pattern finds files and another none, a guess would read a part.
    suffixes = () if any(by_pattern) else DATA_SUFFIXES
    for suffix in suffixes:
        chosen = _guess([name for name in names if name.endswith(suffix)], dataset)
        if chosen:
            return chosen
    raise DataError(
        f"{dataset.id}: no data files, or not all, of config={dataset.config!r} and"
        f" split={dataset.split!r} among {', '.join(names[:_MAX_LISTED]) or 'none'}."
        " Choose others, or revision=refs/convert/parquet."
    )


def _guess(names: list[str], dataset: Dataset) -> list[str]:
    """Return the files that by their names hold the dataset's config and split."""
    if dataset.config not in ("", "default"):
        names = [name for name in names if _says(name, dataset.config)]
    of_split = [name for name in names if _says(name, dataset.split)]
    if of_split:
        return of_split
    # Files that speak of no split hold all there is.
    return [name for name in names if not any(_says(name, word) for word in _SPLITS)]


def _says(name: str, word: str) -> bool:
    """Return whether a file's name has a word in it: `test` in `data/test-00000`."""
    pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
    return re.search(pattern, name, re.IGNORECASE) is not None


def _in_folder(folder: Path, dataset: Dataset) -> list[Path]:
    """Return the dataset's files in a folder, named there as on the Hub."""
    names = _names_in(folder)
    return [folder / name for name in choose_files(names, dataset)]


def _holds(folder: Path, dataset: Dataset) -> bool:
    """Return whether some file in a folder says by its name that it is of a split."""
    return any(_says(name, dataset.split) for name in _names_in(folder))


def _names_in(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in files]


def _cached(dataset: Dataset, revision: str) -> list[Path]:
    """Return the dataset's files as they were downloaded before; none if not whole."""
    hub = need("huggingface_hub")
    try:
        snapshot = hub.snapshot_download(
            dataset.id,
            repo_type="dataset",
            revision=revision or "main",
            local_files_only=True,
        )
        return _in_folder(Path(snapshot), dataset)
    # Names that are none on the Hub are told by another error than absent files.
    except (OSError, ValueError):
        return []


def _fetch(dataset: Dataset, revision: str) -> list[Path]:
    """Download the dataset's files, unless the Hub's cache holds them."""
    hub = need("huggingface_hub")
    errors = need("huggingface_hub.errors")
    api = hub.HfApi()
    folder = "Or give its files with folder=PATH."
    if not is_hub_reachable():
        cached = _cached(dataset, revision)
        if cached:
            return cached
        raise DataError(f"hf:{dataset.id} cannot be fetched: {no_network()} {folder}")
    where = {
        "repo_id": dataset.id,
        "repo_type": "dataset",
        "revision": revision or "main",
    }
    try:
        chosen = choose_files(api.list_repo_files(**where), dataset)
        return [Path(api.hf_hub_download(filename=name, **where)) for name in chosen]
    except (OSError, errors.HFValidationError, errors.HTTPError) as error:
        first_line = str(error).strip().partition("\n")[0]
        fault = hub_fault(error, f"datasets/{dataset.id}") or (
            f"{type(error).__name__}: {first_line[:_MAX_FAULT_CHARS]}. Check id and"
            " revision."
        )
        raise DataError(
            f"hf:{dataset.id} cannot be fetched: {fault} {folder}"
        ) from error
