"""A task whose gold answer cannot be read is left out when tasks are loaded: no reply to it could be right."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from aipo_env.errors import DataError
from aipo_env.records import Task
from aipo_env.tasks.base import TaskSource, TaskTable
from aipo_env.verifiers.math_equiv import check_gold


def without_bad_golds(source: TaskSource) -> TaskSource:
    """Return a source without the mathematics tasks whose gold cannot be read; `skipped` counts them.

    Sources that do not hold their tasks in memory are returned as they are. Golds that are plain numbers cost
    microseconds, others some milliseconds each.

    Raises:
        DataError: No task of a split is left.
    """
    if not isinstance(source, TaskTable):
        return source
    everything = list(chain(*source.tasks.values()))
    golds = sorted({task.answer for task in everything if task.kind == "math"})
    with ThreadPoolExecutor(8) as threads:
        faults = dict(zip(golds, threads.map(check_gold, golds), strict=True))

    def fault(task: Task) -> str:
        return faults[task.answer] if task.kind == "math" else ""

    if not (bad := {task.id for task in everything if fault(task)}):
        return source
    kept = {
        split: [task for task in tasks if not fault(task)]
        for split, tasks in source.tasks.items()
    }
    for split, tasks in source.tasks.items():
        if tasks and not kept[split]:
            raise DataError(
                f"{source.name}: no {split!r} task has a gold answer that can be read, for example "
                f"{tasks[0].answer[:80]!r}: {fault(tasks[0])}. Mend the column that holds the answers, or name the "
                "verifier that reads them."
            )
    skipped = {**source.skipped, "gold answer that cannot be read": len(bad)}
    return TaskTable(source.name, kept, skipped, source.default_agents)
