"""The report of a comparison: `summary.json` and each arm's metrics and episodes, as one self-contained page."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aipo_env import CONSULT_KINDS, CheckpointError, DataError, Episode, episodes_section, html_templates
from aipo_env import read_episodes
from aipo_learner.charts import Change, Series, change_chart, line_chart, smoothed
from aipo_learner.checkpoint import latest_policy
from aipo_learner.coefficients import read_coefficients
from aipo_learner.metrics import read_metrics

ARMS = {
    "aipo": ("AIPO", "consults agents and learns from what they wrote"),
    "masked": ("masked", "consults agents; their tokens get no gradient"),
    "base": ("no agents", "the same reinforcement learning without agents"),
}
"""The arms of the demo by folder: title and description. Any other folder is an arm under its own name."""

FILES_PER_END = 3
"""Episode files shown from the beginning of a run, and from its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One run of the comparison: its part of the summary, and its metrics row by row."""

    folder: Path
    style: int
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()

    @property
    def title(self) -> str:
        """The name that readers see."""
        return ARMS.get(self.folder.name, (self.folder.name, ""))[0]

    @property
    def description(self) -> str:
        """What the arm does, in a few words."""
        return ARMS.get(self.folder.name, ("", ""))[1]

    def number(self, *keys: str) -> float | None:
        """Return a number of the summary, or None where it is missing or is none."""
        return _number(self.summary, *keys)

    def interval(self, *keys: str) -> tuple[float, float] | None:
        """Return an interval of the summary, or None."""
        found = _get(self.summary, *keys)
        if isinstance(found, Sequence) and len(found) == 2 and all(map(_is_number, found)):
            return float(found[0]), float(found[1])
        return None

    def gap(self) -> float | None:
        """Return pass@1 with agents minus pass@1 without, after training."""
        aided, alone = self.number("aided", "after", "pass@1"), self.number("unaided", "after", "pass@1")
        return None if aided is None or alone is None else aided - alone

    def curve(self, name: str, minus: str = "") -> Series | None:
        """Return a metric over rollouts (over steps where their number is unknown), less another if named."""
        rows = [row for row in self.rows if all(_is_number(row.get(key)) for key in (name, minus) if key)]
        if not rows:
            return None
        total, steps = self.number("rollouts"), len(self.rows)
        scale = total / steps if total else 1.0
        ys = [row[name] - (row[minus] if minus else 0) for row in rows]
        xs = [(row["step"] + 1) * scale for row in rows]
        return Series(name=self.title, style=self.style, xs=xs, ys=ys)

    def pass_at_k(self, when: str) -> Series | None:
        """Return pass@k without agents over k, with its intervals when every k has one."""
        keys = _pass_keys(_get(self.summary, "unaided", when))
        if len(keys) < 2:
            return None
        bounds = [self.interval("unaided", when, "intervals", key) for key in keys]
        known = [bound for bound in bounds if bound]
        whole = known if len(known) == len(keys) else []
        return Series(
            name=f"{self.title}, after" if when == "after" else "before training",
            style=self.style if when == "after" else 5,
            xs=[int(key.removeprefix("pass@")) for key in keys],
            ys=[float(self.summary["unaided"][when][key]) for key in keys],
            low=[bound[0] for bound in whole],
            high=[bound[1] for bound in whole],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart with its title, what it means in a sentence, and (name, style) of each line."""

    title: str
    caption: str
    svg: str
    legend: Sequence[tuple[str, int]] = ()


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from `folder/summary.json` and the arms' folders; return its path.

    Each arm may have `metrics.jsonl` and `episodes/*.jsonl`. Whatever is missing is left out.

    Raises:
        DataError: `summary.json` is missing or cannot be read, or an episode file is corrupt.
        ConfigError: jinja2 is not installed.
    """
    summary = _read_summary(folder / "summary.json")
    arms = list(_arms(folder, summary))
    templates = html_templates(Path(__file__).parent / "templates")
    page = templates.get_template("report.html.j2").render(
        title="AIPO: what the policy can do alone",
        arms=arms,
        headline=_headline(arms),
        sections=[(name, intro, figures) for name, intro, figures in _sections(arms) if figures],
        episodes=_episodes(arms),
        evaluation=_get(summary, "arms", "aipo", "unaided", "after") or {},
        seed=summary.get("seed"),
        versions=_get(summary, "versions") or {},
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
