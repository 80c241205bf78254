"""The report's figures: each a chart, a title, and a sentence on what it means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aipo_env import CONSULT_KINDS
from aipo_learner.reporting.arms import Arm
from aipo_learner.reporting.charts import Series, line_chart, smoothed

_KIND_STYLE = 3
"""Line styles of consult kinds begin here, so that no kind looks like an arm."""

_EVALUATED = "eval/"
"""What the names of metrics of the scheduled evaluation begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    """A metric over training, for every arm that has it.

    Args:
        metric: Its name in the rows.
        minus: Another metric, which is taken from it; "" for none.
    """

    metric: str
    minus: str = ""
    title: str
    caption: str


_SUCCESS = (
    _Curve(
        metric="success/unaided",
        title="Success alone, in training",
        caption=(
            "The share of training rollouts without agents that end right: what the"
            " policy can do by itself."
        ),
    ),
    _Curve(
        metric="success/aided",
        title="Success with agents, in training",
        caption=(
            "The share of rollouts that may consult and end right: how well the policy"
            " uses help."
        ),
    ),
    _Curve(
        metric="success/aided",
        minus="success/unaided",
        title="Dependence gap, in training",
        caption=(
            "Success with agents minus success alone: it closes as the policy comes to"
            " do without them."
        ),
    ),
)
_AGENT_TOKENS = (
    _Curve(
        metric="agent_p_mean",
        title="Probability of agents' tokens",
        caption=(
            "The mean probability that the policy itself gives to what its agents"
            " wrote: learning raises it."
        ),
    ),
    _Curve(
        metric="agent_below_floor_share",
        title="Agents' tokens below the floor",
        caption=(
            "The share too unlikely for plain importance sampling to teach them: here"
            " the floor acts."
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart as the page shows it.

    Args:
        title: Above it.
        caption: What it means, in a sentence.
        svg: The chart, as markup.
        legend: The name and the style of each line.
    """

    title: str
    caption: str
    svg: str
    legend: Sequence[tuple[str, int]] = ()


def figures(arms: Sequence[Arm]) -> dict[str, list[Figure]]:
    """Return the figures of each section of the page, none where nothing is known."""
    evaluations = _by_metric(
        arms,
        _evaluation_names(arms),
        "Evaluation on schedule",
        "The policy alone on held-out tasks, the same every time; answers that a limit"
        " cut off are “truncated”.",
        share=True,
    )
    consultations = _by_metric(
        arms,
        {f"consult_rate/{kind}": kind for kind in CONSULT_KINDS},
        "Consultations in training",
        "Answered consultations per rollout that may consult, by kind of agent.",
        share=False,
    )
    return {
        "ability": _ability_figures(arms),
        "learning": [*_curves(arms, _SUCCESS), *evaluations],
        "agent_tokens": _curves(arms, _AGENT_TOKENS),
        "consultation": consultations,
    }


def _evaluation_names(arms: Sequence[Arm]) -> dict[str, str]:
    """Return the metrics of the scheduled evaluation with the names of their lines."""
    metrics: set[str] = set()
    for arm in arms:
        for row in arm.rows:
            metrics.update(name for name in row if name.startswith(_EVALUATED))
    return {
        name: name.removeprefix(_EVALUATED).replace("_at_", "@")
        for name in sorted(metrics)
    }


def _ability_figures(arms: Sequence[Arm]) -> list[Figure]:
    """Return the figure of pass@k before and after training, if any was measured."""
    measured_before = [arm.pass_at_k("before") for arm in arms]
    measured_after = [arm.pass_at_k("after") for arm in arms]
    # All arms start from the same policy, so one line says what was before.
    before = [line for line in measured_before if line is not None][:1]
    after = [line for line in measured_after if line is not None]
    lines = [*before, *after]
    if not lines:
        return []
    svg = line_chart(
        lines, label="pass@k over k", x_label="k (answers per task)", log2_x=True
    )
    figure = Figure(
        title="pass@k alone, on held-out tasks",
        caption=(
            "The chance that at least one of k answers is right: a curve that starts"
            " high needs no luck, one that rises late many tries. Bands are 95%"
            " bootstrap intervals over tasks."
        ),
        svg=svg,
        legend=[(line.name, line.style) for line in lines],
    )
    return [figure]


def _curves(arms: Sequence[Arm], curves: Sequence[_Curve]) -> list[Figure]:
    """Return a figure for each curve, with a line for each arm that has it."""
    figures: list[Figure] = []
    x_label = _x_label(arms)
    for curve in curves:
        candidates = [arm.curve(curve.metric, minus=curve.minus) for arm in arms]
        lines = [line for line in candidates if line is not None]
        figures += _figure(
            lines, curve.title, curve.caption, share=True, x_label=x_label
        )
    return figures


def _by_metric(
    arms: Sequence[Arm],
    names: Mapping[str, str],
    title: str,
    caption: str,
    *,
    share: bool,
) -> list[Figure]:
    """Return a figure for each arm, with a line for each metric that it has.

    Args:
        names: What each metric is called in the legend.
    """
    figures: list[Figure] = []
    x_label = _x_label(arms)
    for arm in arms:
        lines: list[Series] = []
        # A metric has the same style in every figure, whether others are missing or
        # not.
        for style, (metric, name) in enumerate(names.items(), _KIND_STYLE):
            line = arm.curve(metric)
            if line is not None:
                lines.append(replace(line, name=name, style=style))
        figures += _figure(
            lines, f"{title}: {arm.title}", caption, share=share, x_label=x_label
        )
    return figures


def _figure(
    lines: Sequence[Series], title: str, caption: str, *, share: bool, x_label: str
) -> list[Figure]:
    """Return a figure of smoothed curves and the values they are made from, if any."""
    if not lines:
        return []
    smooth = [smoothed(line) for line in lines]
    svg = line_chart(smooth, label=title, x_label=x_label, faint=lines, share=share)
    legend = [(line.name, line.style) for line in lines]
    return [Figure(title=title, caption=caption, svg=svg, legend=legend)]


def _x_label(arms: Sequence[Arm]) -> str:
    """Return what the x axes of curves count."""
    if any(arm.rollouts_per_step != 1 for arm in arms):
        return "rollouts"
    return "steps"
