"""Telemetry: what a step's episodes say, and where numbers go."""

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from aipo_env import (
    CONSULT_KINDS,
    DataError,
    Episode,
    bounded_lines,
    check_line,
    consult_outcome,
    escape_terminal,
)
from aipo_learner.learn.idle import num_trailing_idle
from aipo_learner.policy.distributed import rank
from aipo_learner.run.loggers import log_to, open_loggers
from aipo_learner.settings.schedule import SCORE, best_step
from aipo_learner.settings.train import TrainConfig

_SHOWN = {
    "success/unaided": "alone",
    "success/aided": "aided",
    "agent_p_mean": "p(agent)",
    "agent_below_floor_share": "below floor",
}
"""What the console says of a step, and in which words."""


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Return rates over the episodes of a step; a rate over nothing is left out.

    `consult_rate/KIND` is answered consultations per aided episode, `consult_rate/difficulty_N` all that were
    asked for, by the difficulty of the task; `success/BOTTLENECK/…` splits success by
    the help a task is known to need; `success/consulted` and `success/not_consulted` are over aided episodes.
    `reward_part/NAME` is the mean of an addend of the reward, `tool_calls` calls of tools per episode.
    `consults/OUTCOME` counts consultations by what became of them, `consults/retries` attempts made again, and
    `consults/revealed` replies that stated a gold answer with few candidates; `success/revealed` and
    `success/not_revealed` are over aided episodes with such a reply and without.
    """
    aided = [episode for episode in episodes if episode.aided]
    alone = [episode for episode in episodes if not episode.aided]
    consulted = {
        id(e): any(c.is_agents and c.status == "answered" for c in e.consults)
        for e in aided
    }
    calls = [consult for episode in aided for consult in episode.consults]
    consults = [consult for consult in calls if consult.is_agents]
    parts: dict[str, list[float]] = {
        "success/aided": [e.correct for e in aided],
        "success/unaided": [e.correct for e in alone],
        "success/consulted": [e.correct for e in aided if consulted[id(e)]],
        "success/not_consulted": [e.correct for e in aided if not consulted[id(e)]],
        "success/revealed": [e.correct for e in aided if e.is_revealed],
        "success/not_revealed": [e.correct for e in aided if not e.is_revealed],
        "reward": [e.reward for e in episodes if e.reward is not None],
        "policy_tokens_per_episode": [
            int(e.tokens.policy_mask.sum()) for e in episodes
        ],
        "turns": [len(e.turns) for e in episodes],
        "forged_marks": [e.num_forged for e in episodes],
        "invalid_turns": [e.num_invalid for e in episodes],
        "failed_episodes": [e.reward is None for e in episodes],
        "truncated": [e.stop_reason.is_truncated for e in episodes],
        "consult_seconds": [c.seconds for c in consults],
        "reply_tokens": [c.tokens for c in consults if c.status == "answered"],
    }
    if any(not consult.is_agents for e in episodes for consult in e.consults):
        parts["tool_calls"] = [
            sum(not consult.is_agents for consult in e.consults) for e in episodes
        ]
    names = {name for e in episodes for name in e.reward_parts} - {"verdict"}
    for name in sorted(names):
        parts[f"reward_part/{name}"] = [
            e.reward_parts.get(name, 0.0) for e in episodes if e.reward is not None
        ]
    for status in ("answered", "failed", "leaked", "denied"):
        parts[f"consult_status/{status}"] = [c.status == status for c in consults]
    for difficulty in {e.task.meta.get("difficulty") for e in aided} - {None}:
        parts[f"consult_rate/difficulty_{difficulty}"] = [
            sum(consult.is_agents for consult in e.consults)
            for e in aided
            if e.task.meta.get("difficulty") == difficulty
        ]
    for kind in CONSULT_KINDS:
        parts[f"consult_rate/{kind}"] = [
            sum(c.kind == kind and c.status == "answered" for c in e.consults)
            for e in aided
        ]
        for name, some in (("aided", aided), ("unaided", alone)):
            mine = [e.correct for e in some if e.task.meta.get("bottleneck") == kind]
            parts[f"success/{kind}/{name}"] = [float(x) for x in mine]
    outcomes = Counter(f"consults/{consult_outcome(consult)}" for consult in consults)
    outcomes["consults/revealed"] = sum(consult.reveals for consult in consults)
    outcomes["consults/retries"] = sum(consult.retries for consult in consults)
    return {
        name: sum(values) / len(values) for name, values in parts.items() if values
    } | outcomes


class MetricsLog:
    """Writes one row per step to `metrics.jsonl` and to the loggers, and a line to the console.

    Rows of steps from `first_step` on, left by a run that was cut off, are dropped. `scores` has the score of
    every evaluation so far, by the number of steps that its weights had made.
    """

    def __init__(self, config: TrainConfig, first_step: int, console: Console) -> None:
        self.path, self.num_steps = config.out / "metrics.jsonl", config.num_steps
        self.console, self.started, self.first_step = (
            console,
            time.monotonic(),
            first_step,
        )
        kept = [row for row in read_metrics(self.path) if row["step"] < first_step]
        self.scores = {row["step"] + 1: row[SCORE] for row in kept if SCORE in row}
        self.num_idle = num_trailing_idle(kept)
        """Steps without a gradient since the last that had one."""
        self.had_gradient = any(row.get("rows") for row in kept)
        """Whether any step of the run had one."""
        if rank():  # rank 0 writes for all
            self.console, self._loggers = Console(quiet=True), {}
            self._file = Path(os.devnull).open("a", encoding="utf-8")  # noqa: SIM115
            return
        scratch = self.path.with_suffix(".writing")
        scratch.write_text(
            "".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8"
        )
        scratch.replace(self.path)
        self._loggers = open_loggers(
            config.loggers, config.out, config.to_dict(), first_step
        )
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, step: int, row: Mapping[str, float], why_idle: str = "") -> None:
        """Write the row of a step, and on the console why it had no gradient, if it had none."""
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
        """Write how the weights after `num_steps` steps did on held-out tasks, as part of the last step's row."""
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
    """Return the rows of a metrics file, one per step; a last line cut short by a crash is dropped.

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
                    f"{path}, line {number}: no row of metrics, which is a JSON object with a whole number 'step'. "
                    "Delete the line."
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
    is_row = isinstance(row, dict) and type(row.get("step")) is int
    return row if is_row else None
