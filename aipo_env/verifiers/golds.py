"""A task whose gold answer cannot be read is left out when tasks are loaded: no reply to it could be right."""

from concurrent.futures import ThreadPoolExecutor

from aipo_env.errors import DataError
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
    golds = sorted({task.answer for tasks in source.tasks.values() for task in tasks if task.kind == "math"})
    with ThreadPoolExecutor(8) as threads:
        faults = {
            gold: fault for gold, fault in zip(golds, threads.map(check_gold, golds), strict=True) if fault
        }
    if not faults:
        return source
    kept = {
        split: [task for task in tasks if task.kind != "math" or task.answer not in faults]
        for split, tasks in source.tasks.items()
    }
    bad = {
        task.id
        for tasks in source.tasks.values()
        for task in tasks
        if task.kind == "math" and task.answer in faults
    }
    for split, tasks in source.tasks.items():
        if tasks and not kept[split]:
            gold, fault = next(iter(faults.items()))
            raise DataError(
                f"{source.name}: no {split!r} task has a gold answer that can be read, for example {gold[:80]!r}: "
                f"{fault}. Mend the column that holds the answers, or name the verifier that reads them."
            )
    skipped = {**source.skipped, "gold answer that cannot be read": len(bad)}
    return TaskTable(source.name, kept, skipped)
