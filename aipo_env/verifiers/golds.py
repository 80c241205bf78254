"""Leaves out tasks whose gold answer cannot be read: no reply could be right."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from aipo_env.errors import DataError
from aipo_env.records import Task
from aipo_env.tasks.base import TaskSource, TaskTable
from aipo_env.verifiers.math.verifier import check_gold

_NUM_THREADS = 8
"""More than there are workers, so that none of them waits for a gold."""


def without_bad_golds(source: TaskSource) -> TaskSource:
    """Return a source without the mathematics tasks whose gold cannot be read.

    `skipped` counts them. Sources that do not hold their tasks in memory are returned
    as they are. Golds that are plain numbers cost microseconds, others some
    milliseconds each.

    Raises:
        DataError: No task of a split is left.
    """
    if not isinstance(source, TaskTable):
        return source
    everything = list(chain(*source.tasks.values()))
    faults = _faults_of_golds(everything)

    def fault(task: Task) -> str:
        return faults[task.answer] if task.kind == "math" else ""

    bad_ids = {task.id for task in everything if fault(task)}
    if not bad_ids:
        return source
    readable = {
        split: [task for task in tasks if not fault(task)]
        for split, tasks in source.tasks.items()
    }
    for split, tasks in source.tasks.items():
        if tasks and not readable[split]:
            example = tasks[0]
            raise DataError(
                f"{source.name}: no {split!r} task has a gold answer that can be read, "
                f"for example {example.answer[:80]!r}: {fault(example)}. Correct the "
                "column that holds the answers, or name the verifier that reads them."
            )
    # A task may stand in several splits; it is counted once.
    skipped = {**source.skipped, "gold answer that cannot be read": len(bad_ids)}
    return TaskTable(source.name, readable, skipped, source.default_agents)


def _faults_of_golds(tasks: list[Task]) -> dict[str, str]:
    """Return what is wrong with each gold answer of mathematics; "" if nothing is."""
    golds = sorted({task.answer for task in tasks if task.kind == "math"})
    # Each thread waits for a worker process, which does the reading.
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        reasons = threads.map(check_gold, golds)
        return dict(zip(golds, reasons, strict=True))
