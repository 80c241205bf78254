"""Leaves out tasks whose gold answer cannot be read: no reply could be right.

Golds of multiple choice become the letter of their option.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

from aipo_env.errors import DataError
from aipo_env.records import Split, Task
from aipo_env.tasks.base import TaskSource, TaskTable
from aipo_env.verifiers.choice_golds import first_number, gold_letter
from aipo_env.verifiers.math.verifier import check_gold

_log = logging.getLogger(__name__)

_NUM_NAMED = 5
"""So many of the tasks that are left out are named."""
_QUOTED_CHARS = 80
"""Only so much of a gold is quoted."""
_NUM_THREADS = 8
"""More than there are workers, so that none of them waits for a gold."""


def without_bad_golds(source: TaskSource) -> TaskSource:
    """Return a source whose mathematics and choice tasks have golds that can be read.

    Golds of choice tasks are letters then. `skipped` counts the tasks that are left
    out, and a warning names the first of them. Sources that do not hold their tasks in
    memory are returned as they are. Golds that are plain numbers cost microseconds,
    others some milliseconds each.

    Raises:
        DataError: No task of a split is left.
    """
    if not isinstance(source, TaskTable):
        return source
    everything = list(chain(*source.tasks.values()))
    faults = _faults_of_golds(everything)
    first = first_number(task for task in everything if task.kind == "choice")
    # By id: a task may stand in several splits; it is counted once.
    bad_tasks: dict[str, str] = {}
    readable: dict[Split, Sequence[Task]] = {}
    for split, tasks in source.tasks.items():
        kept: list[Task] = []
        reasons: list[str] = []
        for task in tasks:
            try:
                kept.append(_with_gold(task, faults, first))
            except ValueError as error:
                reasons.append(str(error))
                bad_tasks[task.id] = f"{task.id} ({_quoted(task)}: {error})"
        if tasks and not kept:
            raise DataError(
                f"{source.name}: no {split!r} task has a gold answer that can be read, "
                f"for example {_quoted(tasks[0])}: {reasons[0]}. Correct the "
                "column that holds the answers, or name the verifier that reads them."
            )
        readable[split] = kept
    is_same = all(
        list(tasks) == readable[split] for split, tasks in source.tasks.items()
    )
    if not bad_tasks and is_same:
        return source
    skipped = dict(source.skipped)
    if bad_tasks:
        named = list(bad_tasks.values())[:_NUM_NAMED]
        more = ", …" if len(bad_tasks) > len(named) else ""
        _log.warning(
            "%s: %d tasks are left out, for no reply could equal their gold answer:"
            " %s%s",
            source.name,
            len(bad_tasks),
            "; ".join(named),
            more,
        )
        skipped["gold answer that cannot be read"] = len(bad_tasks)
    return TaskTable(
        source.name,
        readable,
        skipped,
        source.default_agents,
        weights=source.weights,
    )


def _quoted(task: Task) -> str:
    """Return the gold of a task as messages show it."""
    return task.withheld or repr(task.answer[:_QUOTED_CHARS])


def _with_gold(task: Task, faults: dict[str, str], first: int | None) -> Task:
    """Return a task whose gold is in the verifier's form.

    Args:
        task: Of any kind.
        faults: Of golds of mathematics.
        first: The number of the first option, where golds are numbers.

    Raises:
        ValueError: Its gold cannot be read, and why.
    """
    if task.kind == "math" and faults[task.answer]:
        raise ValueError(faults[task.answer])
    if task.kind != "choice":
        return task
    letter = gold_letter(task.answer, task.choices, first)
    return task if letter == task.answer else replace(task, answer=letter)


def _faults_of_golds(tasks: list[Task]) -> dict[str, str]:
    """Return what is wrong with each gold answer of mathematics; "" if nothing is."""
    golds = sorted({task.answer for task in tasks if task.kind == "math"})
    # Each thread waits for a worker process, which does the reading.
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        reasons = threads.map(check_gold, golds)
        return dict(zip(golds, reasons, strict=True))
