"""The report's figures: each a chart with a title and one sentence that says what it
means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aipo_env import CONSULT_KINDS
from aipo_learner.reporting.arms import Arm
from aipo_learner.reporting.charts import Series, line_chart, smoothed

_KIND_STYLE = 3
"""Line styles of consult kinds begin here, so that no kind looks like an arm."""


_SUCCESS = (
    (
        "success/unaided",
        "",
        "Success alone, in training",
        (
            "The share of training rollouts without agents that end right: what the"
            " policy can do by itself."
        ),
    ),
    (
        "success/aided",
        "",
        "Success with agents, in training",
        (
            "The share of rollouts that may consult and end right: how well the policy"
            " uses help."
        ),
    ),
    (
        "success/aided",
        "success/unaided",
        "Dependence gap, in training",
        (
            "Success with agents minus success alone: it closes as the policy comes to"
            " do without them."
        ),
    ),
)
"""Curves: a metric, another that is taken from it, the title, the caption."""
_AGENT_TOKENS = (
    (
        "agent_p_mean",
        "",
        "Probability of agents' tokens",
        (
            "The mean probability that the policy itself gives to what its agents"
            " wrote: learning raises it."
        ),
    ),
    (
        "agent_below_floor_share",
        "",
        "Agents' tokens below the floor",
        (
            "The share too unlikely for plain importance sampling to teach them: here"
            " the floor acts."
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart, its title, what it means in a sentence, and (name, style) of each
    line.
    """

    title: str
    caption: str
    svg: str
    legend: Sequence[tuple[str, int]] = ()


def figures(arms: Sequence[Arm]) -> dict[str, list[Figure]]:
    """Return the figures of each section of the page."""
    evaluated = sorted(
        {
            name
            for arm in arms
            for row in arm.rows
            for name in row
            if name.startswith("eval/")
        }
    )
    return {
        "ability": _ability_figures(arms),
        "learning": [
            *_curves(arms, _SUCCESS),
            *_by_metric(
                arms,
                {
                    name: name.removeprefix("eval/").replace("_at_", "@")
                    for name in evaluated
                },
                "Evaluation on schedule",
                "The policy alone on held-out tasks, the same every time; answers that"
                " a limit cut off are “truncated”.",
                share=True,
            ),
        ],
        "agent_tokens": _curves(arms, _AGENT_TOKENS),
        "consultation": _by_metric(
            arms,
            {f"consult_rate/{kind}": kind for kind in CONSULT_KINDS},
            "Consultations in training",
            "Answered consultations per rollout that may consult, by kind of agent.",
            share=False,
        ),
    }


def _ability_figures(arms: Sequence[Arm]) -> list[Figure]:
    """pass@k before and after."""
    after = [line for arm in arms if (line := arm.pass_at_k("after"))]
    before = [line for arm in arms if (line := arm.pass_at_k("before"))][:1]
    lines = [*before, *after]
    if not lines:
        return []
    figure = Figure(
        title="pass@k alone, on held-out tasks",
        caption=(
            "The chance that at least one of k answers is right: a curve that starts"
            " high needs no luck, one that rises late many tries. Bands are 95%"
            " bootstrap intervals over tasks."
        ),
        svg=line_chart(
            lines, label="pass@k over k", x_label="k (answers per task)", log2_x=True
        ),
        legend=[(line.name, line.style) for line in lines],
    )
    return [figure]


def _curves(
    arms: Sequence[Arm], curves: Sequence[tuple[str, str, str, str]]
) -> list[Figure]:
    """Return a figure for each curve, with a line for each arm that has it."""
    figures = []
    for metric, minus, title, caption in curves:
        lines = [line for arm in arms if (line := arm.curve(metric, minus=minus))]
        figures += _figure(lines, title, caption, share=True, x_label=_x_label(arms))
    return figures


def _by_metric(
    arms: Sequence[Arm],
    names: Mapping[str, str],
    title: str,
    caption: str,
    *,
    share: bool,
) -> list[Figure]:
    """Return a figure for each arm, with a line for each metric that it has, under its
    name.
    """
    figures = []
    for arm in arms:
        lines = []
        for number, (metric, name) in enumerate(names.items()):
            if line := arm.curve(metric):
                lines.append(replace(line, name=name, style=_KIND_STYLE + number))
        figures += _figure(
            lines, f"{title}: {arm.title}", caption, share=share, x_label=_x_label(arms)
        )
    return figures


def _figure(
    lines: Sequence[Series], title: str, caption: str, *, share: bool, x_label: str
) -> list[Figure]:
    """Return a figure of curves, smoothed over the values they are made from; none
    without lines.
    """
    if not lines:
        return []
    smooth = [smoothed(line) for line in lines]
    svg = line_chart(smooth, label=title, x_label=x_label, faint=lines, share=share)
    legend = [(line.name, line.style) for line in lines]
    return [Figure(title=title, caption=caption, svg=svg, legend=legend)]


def _x_label(arms: Sequence[Arm]) -> str:
    return "rollouts" if any(arm.rollouts_per_step != 1 for arm in arms) else "steps"
