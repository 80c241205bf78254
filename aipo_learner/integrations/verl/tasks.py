"""An environment's tasks as the dataset that verl reads."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset

from aipo_env import (
    ConfigError,
    DataError,
    Environment,
    EnvironmentSpec,
    Scenario,
    Split,
    build_scenario,
    without_contaminated,
)
from aipo_learner.integrations.verl.arguments import MODE

_FILES: dict[Split, str] = {"train": "train.parquet", "test": "test.parquet"}
_TASK_NAME = ("split", "index", "task_id")
"""What the `extra_info` of a row says of its task."""


class TaskRows(Protocol):
    """A dataset as verl has it: rows by their numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Mapping[str, Any]: ...


def write_tasks(
    environment: EnvironmentSpec,
    folder: str | Path,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    held_out: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Write `train.parquet` and `test.parquet`: a row for each task of an environment.

    A row has what verl asks for: the prompt of deployment, by whose length verl may
    leave tasks out, and the agent loop's name. What is played says its `extra_info`:
    `split`, `index` and `task_id`, of the environment, the seed and the held-out tasks
    that the run must name again.

    Args:
        environment: What is played.
        folder: Where the files are put; it is made.
        num_train: How many tasks; None: all of a source that has an end.
        num_test: As `num_train`, of those that are validated.
        seed: Of the run, of which tasks that are made depend, as those of toys.
        held_out: Of the run: training tasks that stand among these are left out, and
            those behind them are counted without them.

    Returns:
        The paths of both files.

    Raises:
        ConfigError: A number is missing, or larger than there are tasks.
        ConfigError, DataError: As `without_contaminated`.
    """
    played = Environment.of(environment)
    scenario = build_scenario(played, seed=seed)
    source = without_contaminated(scenario.source, held_out)
    scenario = replace(scenario, source=source)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    numbers: dict[Split, int | None] = {"train": num_train, "test": num_test}
    paths = []
    for split, file in _FILES.items():
        rows = [
            _task_row(scenario, split, index) | {"data_source": played.name}
            for index in range(_num_tasks(scenario, split, numbers[split]))
        ]
        Dataset.from_list(rows).to_parquet(out / file)
        paths.append(out / file)
    train, test = paths
    return train, test


def task_name(row: Mapping[str, Any]) -> tuple[Split, int, str]:
    """Return the split, the index and the id of the task that a row names.

    Args:
        row: As verl reads it from a file of `write_tasks`.

    Raises:
        DataError: It names none.
    """
    said = row.get("extra_info") or {}
    if not set(_TASK_NAME) <= said.keys():
        raise DataError(
            f"the dataset has a row whose extra_info is {said}: it names no task by its"
            " split, index and task_id. write_tasks makes rows that do."
        )
    split, index, task_id = (said[name] for name in _TASK_NAME)
    return split, int(index), task_id


def check_splits(train: TaskRows, validation: TaskRows) -> None:
    """Check that nothing is trained on that is to be validated, or the other way round.

    The agent loop knows by a row's split alone which of both it plays for.

    Args:
        train: verl's dataset of `data.train_files`.
        validation: That of `data.val_files`.

    Raises:
        DataError: A row names no task.
        ConfigError: A row is of the other split.
    """
    expected: tuple[tuple[str, TaskRows, Split], ...] = (
        ("data.train_files", train, "train"),
        ("data.val_files", validation, "test"),
    )
    for setting, rows, split in expected:
        for number in range(len(rows)):
            found, _, task_id = task_name(rows[number])
            if found != split:
                raise ConfigError(
                    f"{setting}: row {number}, task {task_id!r}, is of the split"
                    f" {found!r}, and rows there must be of {split!r}. Set it to the"
                    f" {_FILES[split]} of write_tasks."
                )


def _num_tasks(scenario: Scenario, split: Split, wanted: int | None) -> int:
    available = scenario.source.num_tasks(split)
    if wanted is None:
        wanted = available
    if wanted is None:
        raise ConfigError(
            f"num_{split}: the tasks of the split {split!r} have no end. Say how many."
        )
    if wanted < 1 or (available is not None and wanted > available):
        limit = "" if available is None else f", and at most its {available} tasks"
        raise ConfigError(
            f"num_{split}={wanted}: a file has 1 task or more of the split"
            f" {split!r}{limit}."
        )
    return wanted


def _task_row(scenario: Scenario, split: Split, index: int) -> dict[str, object]:
    task = scenario.source.task(split, index)
    messages = scenario.session(task, aided=False).open()
    return {
        "prompt": [
            {"role": message.role, "content": message.content} for message in messages
        ],
        "agent_name": MODE,
        # The truth stays with the environment's verifier.
        "reward_model": {"style": "rule", "ground_truth": ""},
        "extra_info": {"split": split, "index": index, "task_id": task.id},
    }
