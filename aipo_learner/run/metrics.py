"""Where the numbers of a run go: metrics.jsonl, the loggers, the console."""

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from aipo_env import (
    DataError,
    bounded_lines,
    check_line,
    escape_terminal,
    write_anew,
)
from aipo_learner.policy.distributed import rank
from aipo_learner.run.loggers import Logger, log_to, open_loggers
from aipo_learner.run.scores import SCORE, best_step

_SHOWN = {
    "success/unaided": "alone",
    "success/aided": "aided",
    "agent_p_mean": "p(agent)",
    "agent_below_floor_share": "below floor",
}
"""What the console says of a step, and in which words."""


MAX_STEP = 2**31
MAX_NUMBER = 1e15
"""Nothing that is measured is larger; sums of such numbers, and axes for them, are
finite.
"""


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number that a measurement can be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -MAX_NUMBER <= value <= MAX_NUMBER


class MetricsLog:
    """Writes one row per step to `metrics.jsonl` and to the loggers, and a line to the
    console.

    Rows of steps from `first_step` on, left by a run that was cut off, are dropped.
    `scores` has the score of every evaluation so far, by the number of steps that its
    weights had made.

    Args:
        folder: Of the run.
        loggers: As in `TrainConfig.loggers`.
        settings: What the loggers are told of the run.
    """

    def __init__(
        self,
        folder: Path,
        console: Console,
        *,
        num_steps: int,
        first_step: int = 0,
        loggers: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self.num_steps = num_steps
        self.first_step = first_step
        self.console = console
        self.started = time.monotonic()
        kept = [row for row in read_metrics(self.path) if row["step"] < first_step]
        self.scores = {
            row["step"] + 1: row[SCORE] for row in kept if is_number(row.get(SCORE))
        }
        self.num_idle = num_trailing_idle(kept)
        """Steps without a gradient since the last that had one."""
        self.had_gradient = any(row.get("rows") for row in kept)
        """Whether any step of the run had one."""
        if rank():  # rank 0 writes for all
            self.console = Console(quiet=True)
            self._loggers: dict[str, Logger] = {}
            self._file = Path(os.devnull).open("a", encoding="utf-8")  # noqa: SIM115
            return
        write_anew(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._loggers = open_loggers(loggers, folder, settings or {}, first_step)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, step: int, row: Mapping[str, float], why_idle: str = "") -> None:
        """Write the row of a step, and on the console why it had no gradient, if it had
        none.
        """
        self._put(step, row)
        if row.get("rows"):
            self.num_idle = 0
            self.had_gradient = True
        else:
            self.num_idle += 1
        per_step = (time.monotonic() - self.started) / (step + 1 - self.first_step)
        left = per_step * (self.num_steps - step - 1)
        shown = dict(_SHOWN)
        if any(name.startswith("reward_part/") for name in row):
            # Success alone hides what a reward with partial credit says.
            shown["reward"] = "reward"
        cells = "  ".join(
            f"{label} {row[name]:.2f}" for name, label in shown.items() if name in row
        )
        note = f"  no gradient: {why_idle}" if why_idle else ""
        self._print(step + 1, f"{cells}  {left / 60:.1f} min left{note}")

    def write_evaluation(self, num_steps: int, row: Mapping[str, float]) -> None:
        """Write how the weights after `num_steps` steps did on held-out tasks, as part
        of the last step's row.
        """
        self.scores[num_steps] = row[SCORE]
        self._put(num_steps - 1, row)
        best = best_step(self.scores)
        shown = (
            f"pass@1 {row[SCORE]:.3f}  best {self.scores[best]:.3f} after step {best}"
        )
        self._print(num_steps, f"held-out tasks, alone: {shown}")

    def _put(self, step: int, row: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        log_to(self._loggers, row, step)

    def _print(self, num_steps: int, text: str) -> None:
        run = self.path.parent.name
        self.console.print(
            # It may tell what agents and verifiers said.
            escape_terminal(f"{run}  step {num_steps}/{self.num_steps}  {text}"),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        """Close what is open."""
        self._file.close()
        for logger in self._loggers.values():
            with contextlib.suppress(Exception):  # must not change how the run ends
                logger.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file, one per step; a last line cut short by a crash
    is dropped.

    Raises:
        DataError: Another line is no row; the message names it.
    """
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(bounded_lines(file), 1):
            row = _metrics_row(line)
            if row is None and not line.endswith(b"\n"):
                break
            if row is None:
                raise DataError(
                    f"{path}, line {number}: no row of metrics, which is a JSON object"
                    f" with a whole number 'step' from -1 to {MAX_STEP - 1}. Delete the"
                    " line."
                )
            if rows and rows[-1]["step"] == row["step"]:
                rows[-1] |= row
            else:
                rows.append(row)
    return rows


def _metrics_row(line: bytes) -> dict[str, Any] | None:
    """Return the row that a line is, or None."""
    try:
        check_line(line)
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) else None
    # What was measured before the first step stands at -1.
    if type(step) is not int or not -1 <= step < MAX_STEP:
        return None
    # A metric is one value; what holds others is none of ours, and may be nested
    # without end.
    return {
        name: value for name, value in row.items() if not isinstance(value, list | dict)
    }


def num_trailing_idle(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many of the last steps in a metrics file had no gradient."""
    number = 0
    for row in reversed(rows):
        if row.get("rows"):
            break
        number += 1
    return number
