"""How several sources are written as one text."""

import re
from typing import Any

from aipo_env.errors import ConfigError, shown

_PLUS = " + "
"""Stands between the sources of a mixture; a name may hold a `+` without blanks."""
_WEIGHT = re.compile(r"(?P<weight>[^*\s]+)\s*\*\s*(?P<spec>.+)", re.DOTALL)
"""`0.7*gsm8k`."""


def mixture_spec(text: str) -> dict[str, Any] | None:
    """Return the spec of the mixture in "0.7*A + 0.3*B"; None if there is one source.

    Raises:
        ConfigError: A weight is no number, or not every source has one.
    """
    parts = [part.strip() for part in text.split(_PLUS)]
    if len(parts) == 1:
        return None
    weights: dict[str, float | None] = {}
    for part in parts:
        spec, weight = _weighted(part)
        if spec in weights:
            raise ConfigError(f"task: {spec!r} stands twice in {shown(text)}.")
        weights[spec] = weight
    are_given = [weight is not None for weight in weights.values()]
    if any(are_given) and not all(are_given):
        raise ConfigError(
            f"task: some sources in {shown(text)} have a weight and some have none."
            " Give each one, as in '0.7*gsm8k + 0.3*file:mine.jsonl', or none."
        )
    sources = weights if all(are_given) else list(weights)
    return {"type": "mix", "sources": sources}


def _weighted(part: str) -> tuple[str, float | None]:
    """Return the source and the weight in "0.7*gsm8k"."""
    match = _WEIGHT.fullmatch(part)
    # A file may be called "a*b".
    if match is None or ":" in match["weight"]:
        return part, None
    try:
        return match["spec"], float(match["weight"])
    except ValueError:
        raise ConfigError(
            f"task: {match['weight']!r} in {shown(part)} is no weight; write a number,"
            " as in 0.7*gsm8k."
        ) from None
