"""The arms of a comparison; what is missing or malformed is None, never a guess.

A run's folder may be somebody else's, so neither its names nor its numbers are trusted.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aipo_env import CONSULT_OUTCOMES, DataError, check_place, shown
from aipo_learner.reporting.charts import Series
from aipo_learner.reporting.run_files import (
    Evaluation,
    lookup,
    read_evaluations,
    read_settings,
)
from aipo_learner.run.metrics_log import BEFORE_FIRST_STEP, is_number, read_metrics

ARMS = {
    "aipo": ("AIPO", "consults agents and learns from what they wrote"),
    "masked": ("masked", "consults agents, but their tokens get no gradient"),
    "base": ("no agents", "the same reinforcement learning without agents"),
}
"""The arms of the demo by folder: title and description. Any other folder is an arm
under its own name.
"""

TOKENS_PER_SECOND = "policy_tokens_per_second"
"""Of the rows of an arm: the tokens that its policy wrote in a step, over the seconds
of the whole step.
"""
_STORED = ("episodes", "sft_episodes")
"""Settings of a run's source that name files of episodes to learn from."""
_MAX_ROLLOUTS = 10**9
"""A step has fewer: settings that say more are none of ours."""
MAX_NAME_BYTES = 255
"""Longest name that common file systems take for a folder."""
PASS_AT = "pass@"
"""What the name of a pass@k in a summary begins with."""
_MEASURED_K = re.compile(r"[1-9][0-9]{0,5}")
"""The k of a pass@k that may have been measured; `int` is slow with endless digits."""
MIN_POINTS_OF_A_LINE = 2
"""Fewer points make no line."""
BEFORE_STYLE = 6
"""Line style of what was measured before training; arms have those below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One run of the comparison.

    Args:
        folder: Of the run; its name is the arm's.
        style: Number of its line style.
        summary: Its part of `summary.json`.
        rows: Its metrics, one row per step.
        rollouts_per_step: Turns steps into rollouts; 1 where some arm's number of
            rollouts is unknown.
        name: What readers call it; "" for the folder's name.
        settings: Those that it was started with, as far as they can be read.
        evaluations: What `aipo eval` measured of it.
        remarks: What of its folder was left out, in sentences.
    """

    folder: Path
    style: int
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    rollouts_per_step: float = 1.0
    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Evaluation] = ()
    remarks: Sequence[str] = ()

    @property
    def title(self) -> str:
        """The name that readers see."""
        if self.name:
            return self.name
        # "." and ".." have names of their own.
        name = self.folder.name.strip(".") and self.folder.name
        name = name or self.folder.resolve().name
        title, _ = ARMS.get(name, (name, ""))
        return title

    @property
    def is_imitation(self) -> bool:
        """Whether it imitated stored episodes."""
        return bool(lookup(self.settings, "source", "sft_episodes"))

    @property
    def is_stored(self) -> bool:
        """Whether it learned from stored episodes, and sampled none."""
        return _is_stored(self.settings)

    @property
    def num_steps(self) -> int:
        """Steps that it made."""
        return sum(row["step"] != BEFORE_FIRST_STEP for row in self.rows)

    @property
    def num_rollouts(self) -> float | None:
        """Rollouts that it sampled in training, if they are known."""
        measured = self.number("rollouts")
        if measured is not None or self.is_stored:
            return measured
        numbers = [rollouts_of(row, self.settings) for row in self.rows]
        known = [number for number in numbers if number is not None]
        return sum(known) if known else None

    @property
    def seconds(self) -> float | None:
        """Seconds that sampling and updates took, if they are known."""
        measured = self.number("seconds")
        if measured is not None:
            return measured
        seconds = [seconds_of(row) for row in self.rows]
        known = [number for number in seconds if number is not None]
        return sum(known) if known else None

    @property
    def num_policy_tokens(self) -> float | None:
        """Tokens that its policy wrote in training, if they are known."""
        if self.is_stored:
            return None
        numbers = [policy_tokens_of(row, self.settings) for row in self.rows]
        known = [number for number in numbers if number is not None]
        return sum(known) if known else None

    @property
    def num_agent_tokens(self) -> float | None:
        """Tokens of its agents' answers, where they were counted."""
        total = 0.0
        for row in self.rows:
            # A mean over the answered ones.
            length: Any = row.get("reply_tokens")
            number: Any = row.get("consults/answered")
            if is_number(length) and is_number(number):
                total += length * number
        return total or None

    @property
    def description(self) -> str:
        """What the arm does, in a few words; empty when it is not one of the demo's."""
        _, description = ARMS.get(self.folder.name, ("", ""))
        return description

    def number(self, *keys: str) -> float | None:
        """Return a finite number of the summary."""
        value = lookup(self.summary, *keys)
        if not is_number(value):
            return None
        return float(value)

    def interval(self, *keys: str) -> tuple[float, float] | None:
        """Return an interval of the summary."""
        bounds = lookup(self.summary, *keys)
        is_pair = isinstance(bounds, list) and len(bounds) == 2
        if not is_pair or not all(is_number(bound) for bound in bounds):
            return None
        low, high = bounds
        return float(low), float(high)

    @property
    def gap(self) -> float | None:
        """The dependence gap after training: pass@1 with agents minus that without."""
        aided = self.number("aided", "after", "pass@1")
        unaided = self.number("unaided", "after", "pass@1")
        if aided is None or unaided is None:
            return None
        return aided - unaided

    @property
    def largest_k(self) -> int | None:
        """The largest k of pass@k that was measured after training."""
        measured = lookup(self.summary, "unaided", "after")
        return max(measured_k(measured), default=None)

    @property
    def bottlenecks(self) -> list[str]:
        """The kinds of help that tasks need, as far as measured after training."""
        parts = lookup(self.summary, "unaided", "after", "by_bottleneck")
        if not isinstance(parts, Mapping):
            return []
        return list(parts)

    @property
    def consults(self) -> Counter[str]:
        """Consultations of the whole training, by what became of them.

        Beside the outcomes, "revealed" counts replies that stated a gold answer,
        "retries" attempts that were made again. What never happened is left out.
        """
        totals = Counter[str]()
        for name in (*CONSULT_OUTCOMES, "revealed", "retries"):
            values: list[Any] = [row.get(f"consults/{name}") for row in self.rows]
            totals[name] = int(sum(value for value in values if is_number(value)))
        # A unary plus drops the zeros, which would be empty columns in the table.
        return +totals

    def curve(self, name: str, *, minus: str = "") -> Series | None:
        """Return a metric over training, less another one if named; None without rows.

        A row that lacks either of them has no point.
        """
        needed = ["step", name]
        if minus:
            needed.append(minus)
        xs: list[float] = []
        ys: list[float] = []
        for row in self.rows:
            if not all(is_number(row.get(key)) for key in needed):
                continue
            xs.append(row["step"] * self.rollouts_per_step)
            subtrahend = row[minus] if minus else 0
            ys.append(row[name] - subtrahend)
        if not xs:
            return None
        return Series(name=self.title, style=self.style, xs=xs, ys=ys)

    def pass_at_k(self, when: str) -> Series | None:
        """Return pass@k without agents over k, "before" or "after" training.

        It has a band of intervals if every k has one. None with fewer than two k.
        """
        measured = lookup(self.summary, "unaided", when)
        ks = measured_k(measured)
        if len(ks) < MIN_POINTS_OF_A_LINE:
            return None
        low: list[float] = []
        high: list[float] = []
        for k in ks:
            bounds = self.interval("unaided", when, "intervals", f"{PASS_AT}{k}")
            if bounds is not None:
                low.append(bounds[0])
                high.append(bounds[1])
        # A band over some of the points would belong to no line.
        if len(low) < len(ks):
            low = []
            high = []
        is_after = when == "after"
        # An evaluation is named by its task set.
        after_name = self.name or f"{self.title}, after"
        return Series(
            name=after_name if is_after else "before training",
            style=self.style if is_after else BEFORE_STYLE,
            xs=ks,
            ys=[float(measured[f"{PASS_AT}{k}"]) for k in ks],
            low=low,
            high=high,
        )


def measured_arms(arms: Sequence[Arm]) -> list[Arm]:
    """Return what `aipo eval` measured of runs, each as an arm measured after training.

    Its name is the task set's, behind the run's where there are several runs.
    """
    found: list[Arm] = []
    for arm in arms:
        for evaluation in arm.evaluations:
            name = evaluation.name
            if len(arms) > 1:
                name = f"{arm.title}: {name}"
            summary = {
                column: {"after": evaluation.scores[column]}
                for column in ("unaided", "aided")
                if column in evaluation.scores
            }
            style = (arms[0].style + len(found)) % BEFORE_STYLE
            found.append(
                Arm(folder=arm.folder, style=style, name=name, summary=summary)
            )
    return found


def read_arms(folder: Path, summary: Mapping[str, Any]) -> Iterator[Arm]:
    """Yield the arms that the summary or a sub-folder with metrics names.

    Those of the demo come first. A folder with metrics of its own is a single run.

    Raises:
        DataError: A name is that of no folder within, or a file of metrics is corrupt.
    """
    if (folder / "metrics.jsonl").is_file():
        yield _arm(folder, style=0)
        return
    parts = lookup(summary, "arms")
    if not isinstance(parts, Mapping):
        parts = {}
    names = set(parts)
    for path in folder.glob("*/metrics.jsonl"):
        names.add(path.parent.name)
    for name in sorted(names):
        check_arm_name(name, folder)
    arms: list[Arm] = []
    # The demo's arms keep their styles where one is missing, so that pages compare.
    other_names = sorted(names - set(ARMS))
    for position, name in enumerate([*ARMS, *other_names]):
        if name not in names:
            continue
        part = parts.get(name)
        arm = _arm(folder / name, style=position % BEFORE_STYLE)
        arms.append(replace(arm, summary=part if isinstance(part, Mapping) else {}))
    yield from _over_rollouts(arms)


def _arm(folder: Path, *, style: int) -> Arm:
    """Return the arm of a run's folder."""
    rows = read_metrics(check_place(folder / "metrics.jsonl"))
    settings, remarks = read_settings(folder)
    evaluations, more_remarks = read_evaluations(folder)
    return Arm(
        folder=folder,
        style=style,
        rows=[_with_speed(row, settings) for row in rows],
        settings=settings,
        evaluations=evaluations,
        remarks=[*remarks, *more_remarks],
    )


def _with_speed(row: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of metrics with the policy's tokens per second, if known."""
    number = policy_tokens_of(row, settings)
    seconds = seconds_of(row)
    if number is None or not seconds or _is_stored(settings):
        return row
    return {**row, TOKENS_PER_SECOND: number / seconds}


def _is_stored(settings: Mapping[str, Any]) -> bool:
    """Return whether a run with such settings learns from stored episodes."""
    return any(lookup(settings, "source", name) for name in _STORED)


def rollouts_of(row: Mapping[str, Any], settings: Mapping[str, Any]) -> float | None:
    """Return how many rollouts a step sampled; None if that is unknown."""
    num_groups: Any = settings.get("groups_per_step")
    group_size: Any = settings.get("group_size")
    if row["step"] == BEFORE_FIRST_STEP:
        return None
    for number in (num_groups, group_size):
        if not is_number(number) or not 0 < number < _MAX_ROLLOUTS:
            return None
    num_refilled: Any = row.get("groups/refilled", 0)
    if not is_number(num_refilled):
        num_refilled = 0
    return float((num_groups + num_refilled) * group_size)


def policy_tokens_of(
    row: Mapping[str, Any], settings: Mapping[str, Any]
) -> float | None:
    """Return how many tokens the policy wrote in a step; None if that is unknown."""
    num_rollouts = rollouts_of(row, settings)
    length: Any = row.get("policy_tokens_per_episode")
    if num_rollouts is None or not is_number(length):
        return None
    return num_rollouts * length


def seconds_of(row: Mapping[str, Any]) -> float | None:
    """Return how long sampling and update of a step took; None if that is unknown."""
    parts: list[Any] = [row.get("seconds/rollouts"), row.get("seconds/update")]
    known = [part for part in parts if is_number(part) and part >= 0]
    return sum(known) if known else None


def _over_rollouts(arms: Sequence[Arm]) -> Iterator[Arm]:
    """Yield the arms with their rollouts per step, if known of all that have metrics.

    Curves of one chart have one axis: where one arm counts steps, all do.
    """
    trained = [arm for arm in arms if arm.rows]
    numbers = [arm.number("rollouts") for arm in trained]
    are_known = all(number is not None and number > 0 for number in numbers)
    for arm in arms:
        num_rollouts = arm.number("rollouts")
        if not are_known or not arm.rows or num_rollouts is None:
            yield arm
        else:
            yield replace(arm, rollouts_per_step=num_rollouts / len(arm.rows))


def check_arm_name(name: str, folder: Path) -> None:
    """Raise DataError unless a run's name is that of a folder in `folder`, and no link.

    The name comes from a file that may be somebody else's, and is joined to a path.
    """
    is_inside = Path(name).name == name and "\\" not in name and name != ".."
    # Half a surrogate pair, which JSON may hold, is no UTF-8.
    num_bytes = len(name.encode("utf-8", "replace"))
    is_name = is_inside and num_bytes <= MAX_NAME_BYTES
    # Not before the name is checked: the file system raises for one that is too long.
    if not is_name or (folder / name).is_symlink():
        raise DataError(
            f"{folder}: its summary names the run {shown(name)}, which is no folder in"
            " it. Mend summary.json, or report on that run by itself."
        )


def measured_k(measured: Any) -> list[int]:
    """Return every k for which a block of the summary has a pass@k, in order."""
    if not isinstance(measured, Mapping):
        return []
    ks: list[int] = []
    for key, value in measured.items():
        if not key.startswith(PASS_AT) or not is_number(value):
            continue
        k = key.removeprefix(PASS_AT)
        if _MEASURED_K.fullmatch(k):
            ks.append(int(k))
    return sorted(ks)
