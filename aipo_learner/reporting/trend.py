"""Did a run learn? The answer in sentences, each with the numbers that it rests on."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aipo_learner.run.metrics_log import BEFORE_FIRST_STEP, is_number
from aipo_learner.run.scores import SCORE

_WINDOW_SHARE = 5
"""The first and the last fifth of the steps are compared."""
_LEAST_WINDOW = 3
"""Of so many steps at least, each."""
_LEAST_STEPS = 2 * _LEAST_WINDOW
"""Fewer steps say nothing."""
_STANDARD_ERRORS = 3
"""A difference of less than so many standard errors may be the scatter of steps."""

ROSE, FELL, UNCLEAR = "rose", "fell", "unclear"
"""What a metric may have done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The means of a metric over the first and the last steps, and what it did.

    Args:
        first: Mean over the first `num_steps` steps that have it.
        last: Mean over the last.
        num_steps: Steps of each mean.
        change: ROSE, FELL or UNCLEAR.
    """

    first: float
    last: float
    num_steps: int
    change: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """The answer to whether a run learned.

    Args:
        word: In a word or two.
        sentences: What it rests on.
    """

    word: str
    sentences: list[str] = field(default_factory=list)


def trend(rows: Sequence[Mapping[str, Any]], name: str) -> Trend | None:
    """Return what a metric did over training; None where too few steps have it.

    It rose or fell if the means differ by three standard errors: those of the scatter
    of steps, which have other tasks and draws each.
    """
    values = [float(row[name]) for row in rows if is_number(row.get(name))]
    if len(values) < _LEAST_STEPS:
        return None
    size = max(_LEAST_WINDOW, len(values) // _WINDOW_SHARE)
    early, late = values[:size], values[-size:]
    variance = statistics.variance(early) + statistics.variance(late)
    error = math.sqrt(variance / size)
    first, last = statistics.fmean(early), statistics.fmean(late)
    change = UNCLEAR
    if abs(last - first) > _STANDARD_ERRORS * error:
        change = ROSE if last > first else FELL
    return Trend(first=first, last=last, num_steps=size, change=change)


_SUCCESSES = {
    "success/unaided": "success alone",
    "success/aided": "success with agents",
}
"""What of the rollouts tells best, and its words."""


def conclusion(
    rows: Sequence[Mapping[str, Any]], *, is_stored: bool, is_imitation: bool
) -> Conclusion:
    """Return whether a run learned.

    Args:
        rows: Its metrics, one row per step.
        is_stored: It learned from stored episodes, whose success is not its own.
        is_imitation: It imitated them.
    """
    steps = [row for row in rows if row.get("step") != BEFORE_FIRST_STEP]
    if not steps:
        return Conclusion(word="Not yet", sentences=["No step was made."])
    held_out = _held_out(rows)
    sentences = [held_out.sentence] if held_out else []
    numbers = [row["rows"] for row in steps if is_number(row.get("rows"))]
    # Of a step that does not say how many rows it had, nothing is known.
    if len(numbers) == len(steps) and not any(numbers):
        idle = "No step had a gradient, so the policy is what it was."
        return Conclusion(word="No", sentences=[idle, *sentences])
    if is_stored:
        return _of_stored(steps, sentences, held_out, is_imitation=is_imitation)
    trends = {name: trend(steps, name) for name in _SUCCESSES}
    for name, words in _SUCCESSES.items():
        found = trends[name]
        if found is not None:
            sentences.append(_sentence(words, found, _percent))
    reward = trend(steps, "reward")
    if reward is not None:
        sentences.append(_sentence("the mean reward", reward, _two_decimals))
    unaided, aided = trends.values()
    if unaided is not None or reward is not None or aided is not None:
        word = _word(unaided, aided, reward, held_out.change if held_out else 0.0)
        return Conclusion(word=word, sentences=sentences)
    few = f"{len(steps)} steps are too few to tell learning from scatter."
    if len(steps) == 1:
        few = "One step is too few to tell learning from scatter."
    return Conclusion(word="Too early to say", sentences=[*sentences, few])


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """What the scheduled evaluation came to: its last score less its first."""

    change: float
    sentence: str


def _held_out(rows: Sequence[Mapping[str, Any]]) -> _HeldOut | None:
    """Return what the scheduled evaluation says; None without one."""
    scores: dict[int, float] = {}
    for row in rows:
        if is_number(row.get(SCORE)):
            scores[row["step"]] = row[SCORE]
    if not scores:
        return None
    first, last = min(scores), max(scores)
    best = max(scores, key=lambda step: (scores[step], -step))
    if first == last:
        text = f"pass@1 alone was {_percent(scores[first])} {_when(first)}"
        return _HeldOut(0.0, f"On held-out tasks, {text}, the only evaluation.")
    text = (
        f"pass@1 alone was {_percent(scores[first])} {_when(first)} and"
        f" {_percent(scores[last])} {_when(last)}"
    )
    if best not in (first, last):
        text += f"; the highest, {_percent(scores[best])}, {_when(best)}"
    return _HeldOut(scores[last] - scores[first], f"On held-out tasks, {text}.")


def _when(step: int) -> str:
    """Return at what time of the run weights were measured."""
    if step == BEFORE_FIRST_STEP:
        return "before training"
    return f"after step {step:,}"


def _of_stored(
    steps: Sequence[Mapping[str, Any]],
    sentences: list[str],
    held_out: _HeldOut | None,
    *,
    is_imitation: bool,
) -> Conclusion:
    """Return the answer of a run that learned from stored episodes."""
    note = "It learned from stored episodes: their success and reward are not its own."
    sentences = [*sentences, note]
    loss = trend(steps, "loss") if is_imitation else None
    if loss is not None:
        sentences.append(_sentence("the loss", loss, _three_digits))
    if is_imitation and loss is not None:
        words = {
            FELL: "It imitates them better",
            ROSE: "It imitates them worse",
            UNCLEAR: "Not visibly",
        }
        return Conclusion(word=words[loss.change], sentences=sentences)
    if held_out is not None and held_out.change:
        word = (
            "Held-out success rose" if held_out.change > 0 else "Held-out success fell"
        )
        return Conclusion(word=word, sentences=sentences)
    return Conclusion(word="Not measured", sentences=sentences)


def _word(
    unaided: Trend | None,
    aided: Trend | None,
    reward: Trend | None,
    held_out_change: float,
) -> str:
    """Return the answer in a word or two.

    Success alone decides where it was measured, then success with agents, then reward.

    Args:
        held_out_change: By how much success on held-out tasks differs at the end.
    """
    found = unaided or aided or reward
    assert found is not None
    is_aided_only = unaided is None and aided is not None
    if found.change == ROSE and held_out_change < 0:
        return "On its training tasks only"
    if found.change == ROSE:
        return "With agents, yes" if is_aided_only else "Yes"
    if found.change == FELL:
        return "No, it got worse"
    if held_out_change > 0:
        return "Perhaps"
    if aided is not None and aided.change == ROSE:
        return "With agents only"
    return "Not visibly"


def _sentence(words: str, found: Trend, number: Any) -> str:
    """Return what a metric did, in a sentence with its numbers."""
    first, last = number(found.first), number(found.last)
    windows = f"means of the first and the last {found.num_steps:,} steps"
    if found.change == UNCLEAR and first == last:
        return f"In training, {words} stayed at {first} ({windows})."
    if found.change == UNCLEAR:
        return (
            f"In training, {words} went from {first} to {last} ({windows}), which may"
            " be scatter."
        )
    return f"In training, {words} {found.change} from {first} to {last} ({windows})."


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _two_decimals(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _three_digits(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
