"""Where the numbers of a run go: metrics.jsonl, the loggers, the console.

Steps are counted from 1, here as in the names of a run's files and in its report: the
weights that step N made are those after N steps.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from aipo_env import DataError, bounded_lines, check_line, write_anew
from aipo_learner.run.loggers import Logger, log_to, open_loggers
from aipo_learner.run.progress import say
from aipo_learner.run.scores import SCORE, best_step
from aipo_learner.run.words import in_units, percent

_Form = Callable[[float], str]
_SHOWN: dict[str, tuple[str, _Form]] = {
    "reward": ("reward", "{:.2f}".format),
    "success/unaided": ("alone", "{:.2f}".format),
    "success/aided": ("aided", "{:.2f}".format),
    "loss": ("loss", "{:.3g}".format),
    "entropy": ("entropy", "{:.2f}".format),
    "agent_p_mean": ("p(agent)", "{:.2f}".format),
    "policy_tokens_per_episode": ("length", "{:.0f}".format),
    "truncated": ("truncated", percent),
    "lr": ("lr", "{:.2g}".format),
}
"""What the console says of a step, in which words and in which form."""
_OF_EPISODES = (
    "reward",
    "success/unaided",
    "success/aided",
    "policy_tokens_per_episode",
    "truncated",
)
"""Those which, of episodes from a file, say nothing of the policy."""
_SECONDS_PER_MINUTE = 60
BEFORE_FIRST_STEP = 0
"""Step of what was measured before the first one."""
MAX_STEP = 2**31
"""Steps are below it; a chart of more would be none."""
MAX_NUMBER = 1e15
"""Nothing that is measured is larger, so that sums and axes of such are finite."""


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number that a measurement can be."""
    # In Python, True and False are integers.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # NaN is within no bounds.
    return -MAX_NUMBER <= value <= MAX_NUMBER


class MetricsLog:
    """Writes the metrics of each step to `metrics.jsonl`, loggers and the console.

    Rows of steps after `num_made`, left by a run that was cut off, are dropped.
    `scores` has the score of every evaluation so far, by the number of steps that its
    weights had made.

    Args:
        folder: Of the run.
        console: Gets a line for each step.
        num_steps: Of the whole run.
        num_made: Steps that were made before: not 0 when a run is resumed.
        loggers: As in `TrainConfig.loggers`.
        settings: What the loggers are told of the run.
        writes: Whether anything is written: of several processes, one writes for all.
        is_stored: Whether episodes come from a file.
    """

    def __init__(
        self,
        folder: Path,
        console: Console,
        *,
        num_steps: int,
        num_made: int = 0,
        loggers: str = "",
        settings: Mapping[str, Any] | None = None,
        writes: bool = True,
        is_stored: bool = False,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self.num_steps = num_steps
        self.num_made = num_made
        self.console = console
        self.started = time.monotonic()
        rows = [row for row in read_metrics(self.path) if row["step"] <= num_made]
        self.scores: dict[int, float] = {}
        for row in rows:
            if is_number(row.get(SCORE)):
                self.scores[row["step"]] = row[SCORE]
        self.num_idle = num_trailing_idle(rows)
        """Idle steps since the last that was not."""
        self.had_gradient = any(row.get("rows") for row in rows)
        """Whether any step of the run had one."""
        self._shown = {
            name: form
            for name, form in _SHOWN.items()
            if not is_stored or name not in _OF_EPISODES
        }
        # Every rank knows the scores, by which it stops.
        if not writes:
            self.console = Console(quiet=True)
            self._loggers: dict[str, Logger] = {}
            self._file = Path(os.devnull).open("a", encoding="utf-8")  # noqa: SIM115
            return
        lines = [json.dumps(row) + "\n" for row in rows]
        write_anew(self.path, "".join(lines))
        self._loggers = open_loggers(loggers, folder, settings or {}, num_made)
        self._file = self.path.open("a", encoding="utf-8")

    def write(
        self,
        step: int,
        row: Mapping[str, float],
        why_idle: str = "",
        *,
        tokens_per_second: float | None = None,
    ) -> None:
        """Write the row of a step.

        Args:
            step: Its number, from 1.
            row: Its metrics; "rows" is how many rows its update learned from.
            why_idle: Why it was idle, if it was, for the console.
            tokens_per_second: How fast it was, for the console.
        """
        self._put(step, row)
        self.num_idle = self.num_idle + 1 if is_idle(row) else 0
        if row.get("rows"):
            self.had_gradient = True
        cells = [
            f"{label} {form(row[name])}"
            for name, (label, form) in self._shown.items()
            if name in row
        ]
        if tokens_per_second is not None:
            cells.append(f"{in_units(tokens_per_second)} tok/s")
        minutes = self._seconds_left(step) / _SECONDS_PER_MINUTE
        missing = "no gradient"
        if row.get("rows"):
            missing = "no gradient but of observation tokens"
        note = f"  {missing}: {why_idle}" if why_idle else ""
        self._print(step, f"{'  '.join(cells)}  {minutes:.1f} min left{note}")

    def write_evaluation(self, num_steps: int, row: Mapping[str, float]) -> None:
        """Write how the weights after `num_steps` steps did on held-out tasks.

        It becomes part of the last step's row.
        """
        self.scores[num_steps] = row[SCORE]
        self._put(num_steps, row)
        best = best_step(self.scores)
        self._print(
            num_steps,
            f"held-out tasks, alone: pass@1 {row[SCORE]:.3f}"
            f"  best {self.scores[best]:.3f} after step {best}",
        )

    def _seconds_left(self, step: int) -> float:
        """Return how long the rest of the run takes if its steps take as long."""
        num_made_here = step - self.num_made
        seconds_per_step = (time.monotonic() - self.started) / num_made_here
        return seconds_per_step * (self.num_steps - step)

    def _put(self, step: int, row: Mapping[str, float]) -> None:
        """Append a row to the file, and give it to the loggers."""
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        # At once: whoever follows the file sees the step, and a crash loses none.
        self._file.flush()
        log_to(self._loggers, row, step)

    def _print(self, num_steps: int, text: str) -> None:
        """Print a line about the run after `num_steps` steps."""
        run = self.path.parent.name
        say(self.console, f"{run}  step {num_steps}/{self.num_steps}  {text}")

    def close(self) -> None:
        """Close what is open."""
        self._file.close()
        for logger in self._loggers.values():
            # A logger that fails must not change how the run ends.
            with contextlib.suppress(Exception):
                logger.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file, one per step; none without the file.

    Lines of one step that follow each other become one row. A last line that a crash
    cut short is dropped.

    Raises:
        DataError: Another line is no row; the message names it.
    """
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(bounded_lines(file), 1):
            row = _metrics_row(line)
            if row is None:
                # Only a line that was not written to its end lacks a line feed.
                if not line.endswith(b"\n"):
                    break
                raise DataError(
                    f"{path}, line {number}: no row of metrics, which is a JSON object"
                    f" with a whole number 'step' from {BEFORE_FIRST_STEP} to"
                    f" {MAX_STEP - 1}. Delete the line."
                )
            # The evaluation after a step adds to its row.
            if rows and rows[-1]["step"] == row["step"]:
                rows[-1] |= row
            else:
                rows.append(row)
    return rows


def _metrics_row(line: bytes) -> dict[str, Any] | None:
    """Return the row that a line holds; None if it holds something else."""
    try:
        check_line(line)
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    step = row.get("step")
    # By type: True is an integer too.
    if type(step) is not int or not BEFORE_FIRST_STEP <= step < MAX_STEP:
        return None
    # A metric is one value; what holds others is none of ours, and may be nested
    # without end.
    return {
        name: value for name, value in row.items() if not isinstance(value, list | dict)
    }


def is_idle(metrics: Mapping[str, Any]) -> bool:
    """Return whether a step had no gradient, unless of observation tokens.

    Args:
        metrics: Of the step.
    """
    num_rows = metrics.get("rows") or 0
    num_only_observed = metrics.get("rows/only_observed") or 0
    return num_rows == num_only_observed


def num_trailing_idle(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many of the last steps in a metrics file were idle."""
    number = 0
    for row in reversed(rows):
        if not is_idle(row):
            break
        number += 1
    return number
