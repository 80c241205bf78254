"""The report's figures: each a chart with a title and one sentence that says what it means."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from aipo_env import CONSULT_KINDS
from aipo_learner.reporting.arms import Arm, lookup
from aipo_learner.reporting.charts import Change, Series, change_chart, line_chart, smoothed

_KIND_STYLE = 3
"""Line styles of consult kinds begin here, so that no kind looks like an arm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart, its title, what it means in a sentence, and (name, style) of each line."""

    title: str
    caption: str
    svg: str
    legend: Sequence[tuple[str, int]] = ()


def learning_figures(arms: Sequence[Arm]) -> list[Figure]:
    """Success over training, alone and with agents, and the gap between the two."""
    return [
        *_curves(
            arms,
            lambda arm: arm.curve("success/unaided"),
            "Success alone, in training",
            "The share of training rollouts without agents that end right: what the policy can do by itself.",
        ),
        *_curves(
            arms,
            lambda arm: arm.curve("success/aided"),
            "Success with agents, in training",
            "The share of rollouts that may consult and end right: how well the policy uses help.",
        ),
        *_curves(
            arms,
            lambda arm: arm.curve("success/aided", minus="success/unaided"),
            "Dependence gap, in training",
            "Success with agents minus success alone: it closes as the policy comes to do without them.",
        ),
    ]


def ability_figures(arms: Sequence[Arm]) -> list[Figure]:
    """pass@k before and after, and pass@1 by the kind of help a task needs."""
    after = [line for arm in arms if (line := arm.pass_at_k("after"))]
    before = [line for arm in arms if (line := arm.pass_at_k("before"))][:1]
    figures = []
    if lines := [*before, *after]:
        figures.append(
            Figure(
                title="pass@k alone, on held-out tasks",
                caption="The chance that at least one of k answers is right: a curve that starts high needs "
                "no luck, one that rises late many tries. Bands are 95% bootstrap intervals over tasks.",
                svg=line_chart(lines, label="pass@k over k", x_label="k (answers per task)", log2_x=True),
                legend=[(line.name, line.style) for line in lines],
            )
        )
    measured = [lookup(arm.summary, "unaided", "after", "by_bottleneck") for arm in arms]
    kinds = [kind for part in measured if isinstance(part, Mapping) for kind in part]
    groups = [(kind, _changes(arms, kind)) for kind in dict.fromkeys(kinds)]
    if groups := [(heading, changes) for heading, changes in groups if changes]:
        figures.append(
            Figure(
                title="pass@1 alone, by the help a task needs",
                caption="From before training (ring) to after (dot), by what the policy lacks at first: a "
                "fact, a decomposition, or the correction of a belief.",
                svg=change_chart(groups, label="pass@1 before and after by kind of help"),
            )
        )
    return figures


def consultation_figures(arms: Sequence[Arm]) -> list[Figure]:
    """Consultations per kind over training, one figure per arm."""
    figures = []
    for arm in arms:
        lines = []
        for number, kind in enumerate(CONSULT_KINDS):
            if line := arm.curve(f"consult_rate/{kind}"):
                lines.append(replace(line, name=kind, style=_KIND_STYLE + number))
        figures += _figure(
            lines,
            f"Consultations in training: {arm.title}",
            "Answered consultations per rollout that may consult, by kind of agent.",
            share=False,
            x_label=_x_label(arms),
        )
    return figures


def agent_token_figures(arms: Sequence[Arm]) -> list[Figure]:
    """What becomes of the agents' tokens under the policy."""
    return [
        *_curves(
            arms,
            lambda arm: arm.curve("agent_p_mean"),
            "Probability of agents' tokens",
            "The mean probability that the policy itself gives to what its agents wrote: learning raises it.",
        ),
        *_curves(
            arms,
            lambda arm: arm.curve("agent_below_floor_share"),
            "Agents' tokens below the floor",
            "The share too unlikely for plain importance sampling to teach them: here the floor acts.",
        ),
    ]


def _changes(arms: Sequence[Arm], kind: str) -> list[Change]:
    changes = []
    for arm in arms:
        keys = ("by_bottleneck", kind, "pass@1")
        after = arm.number("unaided", "after", *keys)
        if after is not None:
            before = arm.number("unaided", "before", *keys)
            changes.append(Change(name=arm.title, style=arm.style, before=before, after=after))
    return changes


def _curves(
    arms: Sequence[Arm], curve: Callable[[Arm], Series | None], title: str, caption: str
) -> list[Figure]:
    lines = [line for arm in arms if (line := curve(arm))]
    return _figure(lines, title, caption, share=True, x_label=_x_label(arms))


def _figure(lines: Sequence[Series], title: str, caption: str, *, share: bool, x_label: str) -> list[Figure]:
    """Return a figure of curves, smoothed over the values they are made from; none without lines."""
    if not lines:
        return []
    smooth = [smoothed(line) for line in lines]
    svg = line_chart(smooth, label=title, x_label=x_label, faint=lines, share=share)
    legend = [(line.name, line.style) for line in lines]
    return [Figure(title=title, caption=caption, svg=svg, legend=legend)]


def _x_label(arms: Sequence[Arm]) -> str:
    return "rollouts" if any(arm.rollouts_per_step != 1 for arm in arms) else "steps"
