"""The command `aipo tasks`."""

from pathlib import Path
from typing import get_args

from tyro.conf import Positional

from aipo_env.errors import DataError
from aipo_env.event_loop import run_sync
from aipo_env.flags import environment_named
from aipo_env.records import Split, Verdict
from aipo_env.rollout.environment import Environment
from aipo_env.sandboxes.self_test import open_sandbox
from aipo_env.tasks.base import TaskSource, build_source, finite_tasks
from aipo_env.tasks.contamination import (
    ContaminationIndex,
    all_tasks,
    check_contamination,
)
from aipo_env.tasks.contamination import held_out as held_out_index
from aipo_env.tasks.datasets import known_datasets
from aipo_env.verifiers.golds import without_bad_golds
from aipo_env.verifiers.solutions import solution_verdicts
from aipo_env.verifiers.unit_tests import CodeVerifier
from aipo_env.viewer.render import escape_terminal


def tasks(
    source: Positional[str] = "",
    held_out: tuple[str, ...] = (),
    hashes: Path | None = None,
    solutions: bool = False,
    sandbox: str = "auto",
) -> None:
    """Count the tasks of a source, and find those that stand among held-out tasks too.

    Tasks that were left out are counted with the reason. Without a source, list the
    data sets that are known by a name.

    Args:
        source: Where tasks come from: "gsm8k", "file:tasks.jsonl,prompt=question", two
            with " + " between them, or the id of an environment.
        held_out: Sources, or hash lists (FILE.json), whose test tasks must not be
            trained on.
        hashes: Write a hash list of the source's test tasks: hashes alone, no text.
        solutions: Run the solutions that code tasks carry, each on all of its tests,
            and name those that fail.
        sandbox: Where they are run, as in `aipo verify`.
    """
    if not source:
        _list_known()
        return
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
    if solutions:
        _check_solutions(usable, sandbox)
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


def _list_known() -> None:
    """Print the names of known data sets, what each is for, and where it comes from."""
    print("name            for    tasks  data set")
    known = {dataset.id: dataset for dataset in known_datasets().values()}
    for dataset in known.values():
        if not dataset.names:
            continue
        uses = "both" if dataset.test_split else dataset.role
        size = str(dataset.rows or "")
        print(f"{dataset.short_name:15} {uses:5} {size:>6}  {dataset.id}")
    print()
    print("One is a source by its name, in any case: aipo tasks gsm8k; any other data")
    print("set of the hub as hf:OWNER/NAME,prompt=COLUMN,answer=COLUMN, and a file of")
    print("your own as file:tasks.jsonl,prompt=COLUMN,answer=COLUMN.")


def _check_solutions(source: TaskSource, sandbox: str) -> None:
    """Run the solutions of code tasks, and name those that fail.

    Raises:
        DataError: One does, or there is none.
    """
    verdicts = run_sync(_solution_verdicts(source, sandbox))
    failed = {
        name: verdict for name, verdict in verdicts.items() if not verdict.correct
    }
    for name, verdict in failed.items():
        where = f"{verdict.stage}: " if verdict.stage else ""
        fault = f"{name}: {verdict.status}, {where}{verdict.reason}"
        print(escape_terminal(fault))
    if not verdicts:
        raise DataError("no code task has a 'solution' among its tests to be run.")
    if failed:
        raise DataError(
            f"{len(failed)} of {len(verdicts)} solutions fail on the tests of their own"
            " tasks. Mend the tests, raise the limits, or leave these tasks out."
        )
    print(f"solutions that pass: {len(verdicts)}")


async def _solution_verdicts(source: TaskSource, sandbox: str) -> dict[str, Verdict]:
    verifier = CodeVerifier(await open_sandbox(sandbox))
    return await solution_verdicts(verifier, finite_tasks(source))
