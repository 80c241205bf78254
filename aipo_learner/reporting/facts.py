"""What a run was and what it cost, in a few lines for readers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aipo_env import check_place
from aipo_learner.reporting.arms import Arm
from aipo_learner.reporting.charts import short_number
from aipo_learner.reporting.run_files import lookup, setting_text
from aipo_learner.run.metrics_log import is_number

_SECONDS_PER_MINUTE = 60
_SECONDS_PER_HOUR = 3600
_TOY = "toy"
"""What is played where a run's settings name nothing."""

Fact = tuple[str, str]
"""A name and a value."""


def settings_facts(arm: Arm) -> list[Fact]:
    """Return the settings that matter of a run, without those that are not known."""
    settings = arm.settings
    if not settings:
        return []
    facts = [
        ("Policy", _text(settings, "policy")),
        ("Data", _data(arm)),
        ("Agents", _agents(arm)),
        ("Learning", _learning(arm)),
        ("A step", _batch(arm)),
        ("Learning rate", _rate(settings)),
        ("Temperature", "" if arm.is_stored else _text(settings, "temperature")),
        ("Steps", _steps(arm)),
        ("Seed", _text(settings, "seed")),
    ]
    return [(name, value) for name, value in facts if value]


def cost_facts(arm: Arm) -> list[Fact]:
    """Return what a run took, without what is not known."""
    numbers = (
        ("Rollouts", arm.num_rollouts),
        ("Tokens the policy wrote", arm.num_policy_tokens),
        ("Tokens of agents' answers", arm.num_agent_tokens),
    )
    facts = [(name, f"{number:,.0f}") for name, number in numbers if number is not None]
    if arm.seconds is not None:
        facts.append(("Sampling and updates", duration(arm.seconds)))
    return facts


def last_written(arm: Arm) -> str:
    """Return the day and the time of a run's last row of metrics, "" if unknown."""
    try:
        changed = check_place(arm.folder / "metrics.jsonl").stat().st_mtime
        return f"{datetime.fromtimestamp(changed, UTC):%Y-%m-%d %H:%M} UTC"
    except (OSError, OverflowError, ValueError):
        return ""


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> duration(90)
    '1.5 min'
    """
    if seconds < _SECONDS_PER_MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _SECONDS_PER_HOUR:
        return f"{seconds / _SECONDS_PER_MINUTE:.1f} min"
    return f"{seconds / _SECONDS_PER_HOUR:,.1f} h"


def _text(settings: Mapping[str, Any], *keys: str) -> str:
    """Return a setting in words, "" where it is not given."""
    value = lookup(settings, *keys)
    return "" if value is None or value == "" else setting_text(value)


def _data(arm: Arm) -> str:
    """Return what the run learned from."""
    for name, words in (("sft_episodes", "imitated"), ("episodes", "learned from")):
        stored = _text(arm.settings, "source", name)
        if stored:
            return f"{stored} ({words})"
    named = [_text(arm.settings, "environment", name) for name in ("id", "source")]
    return ", ".join(name for name in named if name) or _TOY


def _agents(arm: Arm) -> str:
    """Return who could be consulted."""
    is_aided = any("success/aided" in row for row in arm.rows)
    if arm.is_stored:
        return ""
    if not is_aided:
        return "none" if arm.rows else ""
    return _text(arm.settings, "environment", "agents") or "the environment's own"


def _learning(arm: Arm) -> str:
    """Return how the run learned."""
    if arm.is_imitation:
        return "imitation"
    base = _text(arm.settings, "objective", "base")
    rule = _text(arm.settings, "objective", "agent_rule")
    independence = _text(arm.settings, "independence")
    parts = [base]
    if rule:
        parts.append(f"agents' tokens {rule}")
    if independence:
        parts.append(independence)
    return ", ".join(part for part in parts if part)


def _batch(arm: Arm) -> str:
    """Return how many episodes a step has."""
    num_tasks = _text(arm.settings, "groups_per_step")
    size = _text(arm.settings, "group_size")
    if not num_tasks or not size:
        return ""
    what = "episodes" if arm.is_stored else "rollouts"
    return f"{num_tasks} tasks × {size} {what}"


def _rate(settings: Mapping[str, Any]) -> str:
    """Return the peak learning rate and what comes before and after it."""
    rate: Any = settings.get("lr")
    if not is_number(rate):
        return ""
    parts = [short_number(rate)]
    warmup = _text(settings, "warmup_steps")
    if warmup and warmup != "0":
        parts.append(f"after {warmup} steps of warm-up")
    return " ".join(parts)


def _steps(arm: Arm) -> str:
    """Return how many steps were made, and of how many."""
    wanted = _text(arm.settings, "num_steps")
    if not wanted:
        return f"{arm.num_steps:,}"
    return f"{arm.num_steps:,} of {wanted}"
