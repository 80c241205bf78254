"""What a run's folder says of the run, read without torch and without changing it."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aipo_env import check_place, read_whole
from aipo_learner.run.metrics_log import is_number, read_metrics
from aipo_learner.run.places import STEP_PREFIX, is_locked, step_of, whole_checkpoints
from aipo_learner.run.scores import SCORE, best_step
from aipo_learner.settings.arguments import read_object

_RUNNING = "running"
_DONE = "done"
_FAILED = "failed"
_STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """A run, as its folder has it.

    Args:
        folder: The run's.
        step: Of its newest checkpoint that is whole; 0 without any.
        num_steps: That it is to make; None if its settings do not say.
        rows: Its metrics, a row for each step that was made.
        is_running: Whether a process trains in it.
        failed_step: Whose batch was kept because it failed; 0 if there is none.
    """

    folder: Path
    step: int
    num_steps: int | None
    rows: Sequence[Mapping[str, Any]]
    is_running: bool
    failed_step: int

    @property
    def last_step(self) -> int:
        """The last step that was made, saved or not."""
        return max([self.step, *(row["step"] for row in self.rows)])

    @property
    def state(self) -> str:
        """What goes on in it, or why nothing does, as far as can be known."""
        if self.is_running:
            return _RUNNING
        if self.num_steps is not None and self.step >= self.num_steps:
            return _DONE
        # Of a step that was made later, no batch is kept.
        if self.failed_step > self.last_step:
            return _FAILED
        return _STOPPED

    @property
    def scores(self) -> dict[int, float]:
        """The scores of all evaluations, by step."""
        return scores_of(self.rows)

    @property
    def last_reward(self) -> float | None:
        """The mean reward of the last step that has one."""
        rewards = [row["reward"] for row in self.rows if is_number(row.get("reward"))]
        return rewards[-1] if rewards else None


def scores_of(rows: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Return the scores of the evaluations in rows of metrics, by step."""
    return {row["step"]: row[SCORE] for row in rows if is_number(row.get(SCORE))}


def found_run(folder: Path) -> FoundRun:
    """Read what a run's folder says.

    Raises:
        DataError: Its settings or metrics are a link or a pipe, or no such.
        OSError, ValueError: They cannot be read.
    """
    text = read_whole(check_place(folder / "config.json")).decode("utf-8")
    num_steps = read_object(text).get("num_steps")
    steps = map(step_of, whole_checkpoints(folder / "checkpoints"))
    return FoundRun(
        folder=folder,
        step=max(steps, default=0),
        num_steps=num_steps if type(num_steps) is int else None,
        rows=read_metrics(check_place(folder / "metrics.jsonl")),
        is_running=is_locked(folder),
        failed_step=_failed_step(folder / "failed"),
    )


def _failed_step(folder: Path) -> int:
    """Return the last step whose batch is kept in a folder; 0 if none is."""
    numbers = [
        path.stem.removeprefix(STEP_PREFIX) for path in folder.glob(f"{STEP_PREFIX}*")
    ]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def what_is_there(run: FoundRun) -> str:
    """Return in a sentence how far a run is and where its weights are.

    >>> what_is_there(FoundRun(folder=Path("runs/a"), step=9, num_steps=9, rows=[],
    ...                        is_running=False, failed_step=0))
    'runs/a has made 9 of 9 steps. Policy: runs/a/checkpoints/step-000009/policy'
    """
    checkpoint = run.folder / "checkpoints" / f"{STEP_PREFIX}{run.step:06d}"
    made = f"{run.folder} has made {run.step} of {run.num_steps} steps"
    said = f"{made}. Policy: {checkpoint / 'policy'}"
    scores = run.scores
    if not scores:
        return said
    best = best_step(scores)
    return (
        f"{said}. Best: {run.folder / 'best'}, of step {best}, pass@1"
        f" {scores[best]:.3f}"
    )


def runs_below(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs in a folder and below it, itself included.

    No link is followed, and nothing is looked for within a run.
    """
    for name, folders, _ in os.walk(folder):
        path = Path(name)
        # A model's folder has a config.json too, but no checkpoints.
        if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
            folders.clear()
            yield path
        folders.sort()


def num_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder and below it; links count nothing."""
    total = 0
    for name, _, files in os.walk(folder):
        for file in files:
            path = Path(name, file)
            # A run that goes on may delete it just now.
            try:
                total += 0 if path.is_symlink() else path.stat().st_size
            except OSError:
                continue
    return total


def age_s(folder: Path) -> float:
    """Return the seconds since a run last wrote a step, or began."""
    for name in ("metrics.jsonl", "config.json"):
        try:
            return max(0.0, time.time() - (folder / name).stat().st_mtime)
        except OSError:
            continue
    return 0.0
