"""What the value of a setting may be stands in the type of its field; `check_settings`
compares the two.
"""

import dataclasses
import math
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from aipo_env import ConfigError, suggest


@dataclass(frozen=True)
class Bounds:
    """A number from `low` to `high`, finite unless said otherwise, which `text` puts
    into words.
    """

    text: str
    low: float = 0
    high: float = sys.float_info.max


@dataclass(frozen=True)
class OneOf:
    """One of some names."""

    names: tuple[str, ...]


Count = Annotated[int, Bounds("a whole number, 1 or more", 1)]
Natural = Annotated[int, Bounds("a whole number, 0 or more")]
Share = Annotated[float, Bounds("a number from 0 to 1", 0, 1)]
OptionalShare = Annotated[
    float | None, Bounds("a number from 0 to 1, or left out", 0, 1)
]
NotNegative = Annotated[float, Bounds("a finite number, 0 or more")]
Positive = Annotated[float, Bounds("a finite number above 0", math.ulp(0.0))]
Limit = Annotated[float, Bounds("a number above 0", math.ulp(0.0), math.inf)]


def check_settings(settings: Any, place: str) -> None:
    """Check the fields of a dataclass whose types have rules; None passes where it is
    the default.

    Raises:
        ConfigError: It names the field, after `place`, its value and the valid ones.
    """
    for item in dataclasses.fields(settings):
        kind: Any = item.type
        value = getattr(settings, item.name)
        if value is None and item.default is None:
            continue
        for rule in getattr(kind, "__metadata__", ()):
            if isinstance(rule, OneOf) and value not in rule.names:
                raise ConfigError(
                    f"{place}{item.name}={value!r}. {suggest(str(value), rule.names)}"
                )
            if isinstance(rule, Bounds) and not _is_within(
                value, rule, is_whole=kind.__origin__ is int
            ):
                raise ConfigError(f"{place}{item.name}={value!r} must be {rule.text}.")


def _is_within(value: Any, bounds: Bounds, *, is_whole: bool) -> bool:
    is_number = type(value) is int or (isinstance(value, float) and not is_whole)
    return is_number and bounds.low <= value <= bounds.high
