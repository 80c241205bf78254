"""The command `aipo tasks`."""

from pathlib import Path
from typing import get_args

from tyro.conf import Positional

from aipo_env.errors import DataError
from aipo_env.flags import environment_named
from aipo_env.records import Split
from aipo_env.rollout.environment import Environment
from aipo_env.tasks.base import build_source
from aipo_env.tasks.contamination import (
    ContaminationIndex,
    all_tasks,
    check_contamination,
)
from aipo_env.tasks.contamination import held_out as held_out_index
from aipo_env.verifiers.golds import without_bad_golds
from aipo_env.viewer.render import escape_terminal


def tasks(
    source: Positional[str], held_out: tuple[str, ...] = (), hashes: Path | None = None
) -> None:
    """Count the tasks of a source, and find those that stand among held-out tasks too.

    Tasks that were left out are counted with the reason.

    Args:
        source: Where tasks come from: "hf:dapo_math_17k", "file:tasks.jsonl", or the id
            of an environment.
        held_out: Sources, or hash lists (FILE.json), whose test tasks must not be
            trained on.
        hashes: Write a hash list of the source's test tasks: hashes alone, no text.
    """
    environment = environment_named(source, Environment()).resolved()
    spec = "toy" if environment.source is None else environment.source
    usable = without_bad_golds(build_source(spec, 0))
    for split in get_args(Split):
        num_tasks = usable.num_tasks(split)
        count = "endless" if num_tasks is None else num_tasks
        print(f"{split:6} {count}")
    # Any source may have this attribute, and none must.
    skipped = getattr(usable, "skipped", {})
    for reason, num_rows in skipped.items():
        print(f"left out: {num_rows}, {reason}")
    if hashes:
        index = ContaminationIndex.from_tasks(all_tasks(usable, "test"))
        index.save(hashes)
        print(f"{hashes}: {len(index.hashes)} hashes of {index.num_tasks} tasks")
    if not held_out:
        return
    report = check_contamination(usable, map(held_out_index, held_out))
    for task_id, place in sorted(report.found.items()):
        print(escape_terminal(f"{task_id} stands in {place}"))
    counts = (
        f"{len(report.found)} of {report.num_train} training tasks stand among "
        f"{report.num_evaluation} held out"
    )
    if report.found:
        raise DataError(f"{counts}. `aipo train --held-out` leaves them out.")
    print(counts)
