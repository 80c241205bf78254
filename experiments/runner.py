"""Runs the arms of tables that have no row yet, one per core, and keeps their rows.

    python -m experiments.runner                    # all tables: `make evidence`
    python -m experiments.runner rules --seeds 1    # the first seed of one table

Whatever ends it, what is finished is kept, and runs go on from their checkpoints.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from experiments.arms import Arm, Table, find_table, table_names
from experiments.results import RESULTS, append_row, read_results

RUNS = Path("runs/evidence")
"""Where runs are made; what is there is gone on with."""
_LOG_TAIL = 3
"""Lines of a failed arm's log that are told."""


class Runner:
    """Runs arms in processes of their own.

    Args:
        num_workers: Arms at once.
        results: Folder of the rows.
        runs: Folder of the runs.
    """

    def __init__(self, num_workers: int, results: Path, runs: Path) -> None:
        self._num_workers = num_workers
        self._results = results
        self._runs = runs
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._num_done = 0

    def run(self, arms: Sequence[Arm]) -> list[str]:
        """Run arms; return what went wrong, a sentence for each that did."""
        with ThreadPoolExecutor(self._num_workers) as pool:
            jobs = [pool.submit(self._run_one, arm, len(arms)) for arm in arms]
            try:
                faults = [job.result() for job in jobs]
            # Ctrl-C too: no arm outlives the command, and none begins after it.
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._end_all()
                raise
        return [fault for fault in faults if fault]

    def _run_one(self, arm: Arm, num_arms: int) -> str:
        """Run an arm and keep its row; return what went wrong, or ""."""
        out = self._runs / arm.table.name / arm.world / f"{arm.method}-{arm.seed}"
        out = out / arm.config_hash()
        out.mkdir(parents=True, exist_ok=True)
        kept = out / "row.json"
        # An arm that was finished when its row could not be written.
        if not kept.is_file():
            fault = self._make(arm, out)
            if fault:
                return fault
        row = json.loads(kept.read_text(encoding="utf-8"))
        with self._lock:
            append_row(row, self._results)
            self._num_done += 1
            print(f"[{self._num_done}/{num_arms}] {arm}: {_told(row)}", flush=True)
        return ""

    def _make(self, arm: Arm, out: Path) -> str:
        words = (arm.table.name, arm.world, arm.method, str(arm.seed))
        command = [sys.executable, "-m", "experiments.arm", *words, "--out", str(out)]
        log = out / "log.txt"
        # One thread each: arms are what runs side by side.
        settings = {**os.environ, "OMP_NUM_THREADS": "1"}
        with log.open("ab") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=settings
            )
            with self._lock:
                self._processes.add(process)
            status = process.wait()
        with self._lock:
            self._processes.discard(process)
        if status == 0:
            return ""
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = " | ".join(line for line in lines[-_LOG_TAIL:] if line.strip())
        return f"{arm}: ended with status {status} ({tail}). Its log: {log}"

    def _end_all(self) -> None:
        with self._lock:
            for process in self._processes:
                process.terminate()


def _told(row: dict[str, Any]) -> str:
    """Return what the console says of a row."""
    shares = {
        column: sum(row[column]["num_correct"])
        / (row[column]["num_samples"] * len(row[column]["num_correct"]))
        for column in ("alone", "aided")
    }
    return (
        f"alone {shares['alone']:.3f}, aided {shares['aided']:.3f}"
        f" ({row['seconds']:.0f} s)"
    )


def missing_arms(table: Table, num_seeds: int | None, results: Path) -> list[Arm]:
    """Return the arms of a table that have no row; what is wrong with rows is said."""
    found = read_results(table, results)
    for fault in found.faults:
        print(fault, file=sys.stderr)
    seeds = table.seeds if num_seeds is None else table.seeds[:num_seeds]
    return [arm for arm in table.arms(seeds) if arm.key not in found.rows]


def main(table_name: str | None = None) -> None:
    """Run what the command line names; exit with 1 if an arm failed.

    Args:
        table_name: The only table; None: those that are named, or all.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    if table_name is None:
        parser.add_argument("tables", nargs="*", help="names; all if none is given")
    parser.add_argument("--seeds", type=int, help="only so many of each table's")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=RUNS)
    options = parser.parse_args()
    named = [table_name] if table_name else options.tables or table_names()
    tables = [find_table(name) for name in named]
    start = time.monotonic()
    runner = Runner(options.workers, options.results, options.runs)
    faults: list[str] = []
    for table in tables:
        arms = missing_arms(table, options.seeds, options.results)
        print(f"{table.name}: {len(arms)} arms to run. Load: {os.getloadavg()[0]:.1f}")
        faults += runner.run(arms)
    print(f"{time.monotonic() - start:.0f} s")
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
