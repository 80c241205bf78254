"""The arms of a comparison as the report reads them: anything missing or malformed is
None, never a guess.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aipo_env import CONSULT_OUTCOMES, DataError, check_place, shown
from aipo_learner.reporting.charts import Series
from aipo_learner.run.metrics import is_number, read_metrics

ARMS = {
    "aipo": ("AIPO", "consults agents and learns from what they wrote"),
    "masked": ("masked", "consults agents, but their tokens get no gradient"),
    "base": ("no agents", "the same reinforcement learning without agents"),
}
"""The arms of the demo by folder: title and description. Any other folder is an arm
under its own name.
"""

MAX_NAME_BYTES = 255
"""A folder's name is not longer."""
_K = re.compile(r"[1-9][0-9]{0,5}")
"""The k of a pass@k that may have been measured."""
BEFORE_STYLE = 6
"""Line style of what was measured before training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One run of the comparison: its part of `summary.json`, and its metrics, row by
    row.

    Args:
        style: Number of its line style.
        rollouts_per_step: Turns steps into rollouts; 1 where some arm's number of
            rollouts is unknown.
    """

    folder: Path
    style: int
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    rollouts_per_step: float = 1.0

    @property
    def title(self) -> str:
        """The name that readers see."""
        return ARMS.get(self.folder.name, (self.folder.name, ""))[0]

    @property
    def description(self) -> str:
        """What the arm does, in a few words; empty when it is not one of the demo's."""
        return ARMS.get(self.folder.name, ("", ""))[1]

    def number(self, *keys: str) -> float | None:
        """Return a finite number of the summary."""
        found = lookup(self.summary, *keys)
        return float(found) if is_number(found) else None

    def interval(self, *keys: str) -> tuple[float, float] | None:
        """Return an interval of the summary."""
        bounds = lookup(self.summary, *keys)
        if (
            isinstance(bounds, list)
            and len(bounds) == 2
            and all(is_number(bound) for bound in bounds)
        ):
            return float(bounds[0]), float(bounds[1])
        return None

    @property
    def gap(self) -> float | None:
        """The dependence gap: pass@1 with agents minus pass@1 without, after
        training.
        """
        aided, alone = (
            self.number("aided", "after", "pass@1"),
            self.number("unaided", "after", "pass@1"),
        )
        return None if aided is None or alone is None else aided - alone

    @property
    def largest_k(self) -> int | None:
        """The largest k of pass@k that was measured after training."""
        return max(measured_k(lookup(self.summary, "unaided", "after")), default=None)

    @property
    def bottlenecks(self) -> list[str]:
        """The kinds of help that tasks are known to need, as measured after
        training.
        """
        parts = lookup(self.summary, "unaided", "after", "by_bottleneck")
        return list(parts) if isinstance(parts, Mapping) else []

    @property
    def consults(self) -> Counter[str]:
        """Consultations of the whole training by what became of them, those that
        revealed a gold, and retries.
        """
        totals = Counter[str]()
        for name in (*CONSULT_OUTCOMES, "revealed", "retries"):
            found: list[Any] = [row.get(f"consults/{name}") for row in self.rows]
            totals[name] = int(sum(n for n in found if is_number(n)))
        return +totals

    def curve(self, name: str, *, minus: str = "") -> Series | None:
        """Return a metric over training, less another one if named."""
        needed = ["step", name, *([minus] if minus else [])]
        rows = [
            row for row in self.rows if all(is_number(row.get(key)) for key in needed)
        ]
        if not rows:
            return None
        xs = [(row["step"] + 1) * self.rollouts_per_step for row in rows]
        ys = [row[name] - (row[minus] if minus else 0) for row in rows]
        return Series(name=self.title, style=self.style, xs=xs, ys=ys)

    def pass_at_k(self, when: str) -> Series | None:
        """Return pass@k without agents over k, "before" or "after", with its intervals
        if every k has one.
        """
        measured = lookup(self.summary, "unaided", when)
        ks = measured_k(measured)
        if len(ks) < 2:
            return None
        bounds = [self.interval("unaided", when, "intervals", f"pass@{k}") for k in ks]
        known = [bound for bound in bounds if bound is not None]
        whole = known if len(known) == len(ks) else []
        return Series(
            name=f"{self.title}, after" if when == "after" else "before training",
            style=self.style if when == "after" else BEFORE_STYLE,
            xs=ks,
            ys=[float(measured[f"pass@{k}"]) for k in ks],
            low=[low for low, _ in whole],
            high=[high for _, high in whole],
        )


def read_arms(folder: Path, summary: Mapping[str, Any]) -> Iterator[Arm]:
    """Yield the arms that the summary or a sub-folder with metrics names, those of the
    demo first.

    A folder with metrics of its own is a single run, whose summary is the `scores.json`
    of `aipo eval`.
    """
    if (folder / "metrics.jsonl").is_file():
        after = {
            column: {"after": summary[column]}
            for column in ("unaided", "aided")
            if column in summary
        }
        yield Arm(
            folder=folder,
            style=0,
            summary=after,
            rows=read_metrics(check_place(folder / "metrics.jsonl")),
        )
        return
    parts = lookup(summary, "arms")
    parts = parts if isinstance(parts, Mapping) else {}
    found = {*parts, *(path.parent.name for path in folder.glob("*/metrics.jsonl"))}
    for name in found:
        check_name(name, folder)
    arms = [
        Arm(
            folder=folder / name,
            style=style % BEFORE_STYLE,
            summary=part if isinstance(part := parts.get(name), Mapping) else {},
            rows=read_metrics(check_place(folder / name / "metrics.jsonl")),
        )
        for style, name in enumerate([*ARMS, *sorted(found - {*ARMS})])
        if name in found
    ]
    are_known = all((arm.number("rollouts") or 0) > 0 for arm in arms if arm.rows)
    for arm in arms:
        total = arm.number("rollouts") if are_known and arm.rows else None
        yield replace(arm, rollouts_per_step=total / len(arm.rows)) if total else arm


def check_name(name: str, folder: Path) -> None:
    """Raise DataError unless a run's name is that of a folder within the one that is
    reported on, and no link.
    """
    is_inside = Path(name).name == name and "\\" not in name and name != ".."
    is_name = is_inside and len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES
    if not is_name or (folder / name).is_symlink():
        raise DataError(
            f"{folder}: its summary names the run {shown(name)}, which is no folder in"
            " it. Mend summary.json, or report on that run by itself."
        )


def lookup(tree: Any, *keys: str) -> Any:
    """Return what stands under nested keys, or None."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def measured_k(measured: Any) -> list[int]:
    """Return every k for which a block of the summary has a pass@k, in order."""
    if not isinstance(measured, Mapping):
        return []
    ks = [
        key.removeprefix("pass@")
        for key in measured
        if key.startswith("pass@") and is_number(measured[key])
    ]
    return sorted(int(k) for k in ks if _K.fullmatch(k))
