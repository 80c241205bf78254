"""The list of runs below a folder: the work of `aipo runs`."""

from collections.abc import Sequence
from pathlib import Path

from aipo_env import AipoError, DataError
from aipo_learner.run.found import FoundRun, age_s, found_run, num_bytes, runs_below
from aipo_learner.run.scores import best_step
from aipo_learner.run.words import age_text, bytes_text

_HEADERS = ("run", "state", "step", "best", "reward", "size", "age")
_NOTHING = "–"
"""Stands where there is nothing to say."""
_UNREADABLE = "unreadable"
"""State of a folder whose files are not those of a run."""
_GAP = "  "


def list_runs(folder: Path) -> list[str]:
    """Return a line for each run in a folder and below it, those of today last.

    Raises:
        DataError: There is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise DataError(f"runs: there is no folder {folder}. Name that of your runs.")
    found = sorted(runs_below(folder), key=age_s, reverse=True)
    if not found:
        raise DataError(f"runs: there is no run in {folder} or below it.")
    return _aligned([_HEADERS, *map(_cells, found)])


def _cells(folder: Path) -> tuple[str, ...]:
    """Return what is said of a run, in the order of the headers."""
    size = bytes_text(num_bytes(folder))
    age = age_text(age_s(folder))
    try:
        run = found_run(folder)
    # It may be somebody else's, or half deleted.
    except (AipoError, OSError, ValueError):
        return (str(folder), _UNREADABLE, *[_NOTHING] * 3, size, age)
    return (str(folder), run.state, _step(run), _best(run), _reward(run), size, age)


def _step(run: FoundRun) -> str:
    """Return how many steps were made, of how many."""
    return f"{run.last_step}/{run.num_steps or _NOTHING}"


def _best(run: FoundRun) -> str:
    """Return the best score of an evaluation, and the step it is of."""
    scores = run.scores
    if not scores:
        return _NOTHING
    best = best_step(scores)
    return f"{scores[best]:.3f} at {best}"


def _reward(run: FoundRun) -> str:
    """Return the mean reward of the last step."""
    reward = run.last_reward
    return _NOTHING if reward is None else f"{reward:.2f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
