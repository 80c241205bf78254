"""The report's figures: each a chart, a title, and a sentence on what it means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aipo_env import CONSULT_KINDS
from aipo_learner.reporting.arms import TOKENS_PER_SECOND, Arm, measured_arms
from aipo_learner.reporting.charts import (
    Series,
    line_chart,
    share_text,
    short_number,
    smoothed,
)

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
        share: It is a share, shown in per cent; else any number, on an axis that fits.
    """

    metric: str
    minus: str = ""
    title: str
    caption: str
    share: bool = True


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
_STANDARD = (
    _Curve(
        metric="reward",
        title="Reward",
        caption="The mean over the rollouts of a step that have one.",
        share=False,
    ),
    _Curve(
        metric="loss",
        title="Loss",
        caption=(
            "What an update descends. It is new with each batch, and need not fall"
            " where rewards rise."
        ),
        share=False,
    ),
    _Curve(
        metric="entropy",
        title="Entropy",
        caption=(
            "Mean per token the policy wrote, in nats: near 0 it always says the same,"
            " and finds nothing new."
        ),
        share=False,
    ),
    _Curve(
        metric="grad_norm",
        title="Gradient norm",
        caption="Before it is scaled down: peaks are steps that would tear the policy.",
        share=False,
    ),
    _Curve(
        metric="kl_sampler",
        title="Learner against sampler",
        caption=(
            "KL divergence in nats per token at the same weights: what grows here is no"
            " learning but a difference between two engines."
        ),
        share=False,
    ),
    _Curve(
        metric="kl_ref",
        title="Policy against reference",
        caption="KL divergence in nats per token: how far it went from where it began.",
        share=False,
    ),
    _Curve(
        metric="clip_fraction",
        title="Clipped tokens",
        caption="Share of the policy's tokens whose ratio left the clipping range.",
    ),
    _Curve(
        metric="effective_sample_size",
        title="Effective sample size",
        caption=(
            "Share of the sampled tokens that the weights of importance sampling leave:"
            " 100% where learner and sampler agree."
        ),
    ),
    _Curve(
        metric="policy_tokens_per_episode",
        title="Length",
        caption="The policy's tokens per episode.",
        share=False,
    ),
    _Curve(
        metric="truncated",
        title="Truncated",
        caption=(
            "Share of the rollouts that a limit cut off. Where it is high, the limits"
            " decide the reward."
        ),
    ),
    _Curve(
        metric="lr",
        title="Learning rate",
        caption="Of the step's updates.",
        share=False,
    ),
    _Curve(
        metric="seconds/rollouts",
        title="Seconds for rollouts",
        caption="What the step waited for its rollouts, agents and verifiers included.",
        share=False,
    ),
    _Curve(
        metric="seconds/update",
        title="Seconds for the update",
        caption="Rows, gradients and the optimiser's step.",
        share=False,
    ),
    _Curve(
        metric=TOKENS_PER_SECOND,
        title="Tokens per second",
        caption="Tokens the policy wrote in a step, over all seconds of the step.",
        share=False,
    ),
)
"""What is looked at in any training run, where it was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart as the page shows it.

    Args:
        title: Above it.
        caption: What it means, in a sentence.
        svg: The chart, as markup.
        legend: The name and the style of each line.
        head: Of the chart's numbers, in a table: its columns.
        numbers: Its rows: the name of a line and a cell for each column.
    """

    title: str
    caption: str
    svg: str
    legend: Sequence[tuple[str, int]] = ()
    head: Sequence[str] = ()
    numbers: Sequence[Sequence[str]] = ()


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
    # What stored episodes tell of success and consultations is not the policy's.
    sampled = [arm for arm in arms if not arm.is_stored]
    measured = measured_arms(arms)
    consultations = _by_metric(
        sampled,
        {f"consult_rate/{kind}": kind for kind in CONSULT_KINDS},
        "Consultations in training",
        "Answered consultations per rollout that may consult, by kind of agent.",
        share=False,
    )
    return {
        "ability": _ability_figures([*arms, *measured]),
        "learning": [*_curves(sampled, _SUCCESS), *evaluations],
        "standard": _curves(arms, _STANDARD),
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
        head=["k = 1", "largest k"],
        numbers=[
            [line.name, share_text(line.ys[0]), share_text(line.ys[-1])]
            for line in lines
        ],
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
            lines,
            curve.title,
            curve.caption,
            share=curve.share,
            fitted=not curve.share,
            x_label=x_label,
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
    lines: Sequence[Series],
    title: str,
    caption: str,
    *,
    share: bool,
    fitted: bool = False,
    x_label: str,
) -> list[Figure]:
    """Return a figure of smoothed curves and the values they are made from, if any."""
    if not lines:
        return []
    svg = line_chart(
        [smoothed(line) for line in lines],
        label=title,
        x_label=x_label,
        faint=lines,
        share=share,
        fitted=fitted,
    )
    number = share_text if share else short_number
    numbers: list[list[str]] = []
    for line in lines:
        values = (line.ys[0], line.ys[-1], min(line.ys), max(line.ys))
        numbers.append([line.name, *(number(value) for value in values)])
    figure = Figure(
        title=title,
        caption=caption,
        svg=svg,
        legend=[(line.name, line.style) for line in lines],
        head=["first", "last", "lowest", "highest"],
        numbers=numbers,
    )
    return [figure]


def _x_label(arms: Sequence[Arm]) -> str:
    """Return what the x axes of curves count."""
    if any(arm.rollouts_per_step != 1 for arm in arms):
        return "rollouts"
    return "steps"
