"""What a setting may be stands in the type of its field; `check_settings` compares."""

import dataclasses
import math
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from aipo_env import ConfigError, Registry, suggest


@dataclass(frozen=True)
class Bounds:
    """A number from `low` to `high`, both included.

    Args:
        text: What it must be, in words.
        low: The least valid value.
        high: The greatest; by default the greatest finite number.
    """

    text: str
    low: float = 0
    high: float = sys.float_info.max


@dataclass(frozen=True)
class OneOf:
    """One of some names."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class NameOrSpec:
    """A short name of a component, or the spec "module:attr" of one."""

    registry: Registry

    @property
    def names(self) -> list[str]:
        """The short names that are ours."""
        return self.registry.own


Count = Annotated[int, Bounds("a whole number, 1 or more", 1)]
OptionalCount = Annotated[
    int | None, Bounds("a whole number, 1 or more, or left out", 1)
]
Natural = Annotated[int, Bounds("a whole number, 0 or more")]
Share = Annotated[float, Bounds("a number from 0 to 1", 0, 1)]
NotNegative = Annotated[float, Bounds("a finite number, 0 or more")]
# Bounds are included, and this is the least number above 0.
_ABOVE_0 = math.ulp(0.0)
Positive = Annotated[float, Bounds("a finite number above 0", _ABOVE_0)]
OptionalPositive = Annotated[
    float | None, Bounds("a finite number above 0, or left out", _ABOVE_0)
]
# Of AdamW: 1 would never forget what came first.
Beta = Annotated[
    float, Bounds("a number from 0 to less than 1", 0, math.nextafter(1, 0))
]
# An infinite limit is none.
Limit = Annotated[float, Bounds("a number above 0", _ABOVE_0, math.inf)]


def check_settings(settings: Any, place: str) -> None:
    """Check the fields of a dataclass whose types have rules.

    None passes where it is the default.

    Args:
        settings: An instance of the dataclass, whose annotations are no strings.
        place: What stands before the field's name in the message.

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
            if isinstance(rule, NameOrSpec):
                _check_named(f"{place}{item.name}", value, rule.registry)
            if isinstance(rule, Bounds):
                # Of Annotated[int, …], the origin is int.
                is_whole = kind.__origin__ in (int, int | None)
                if not _is_within(value, rule, is_whole=is_whole):
                    raise ConfigError(
                        f"{place}{item.name}={value!r} must be {rule.text}."
                    )


def _check_named(field: str, value: Any, registry: Registry) -> None:
    """Raise ConfigError unless a text names a component; nothing is imported.

    So far that can be told by the text: what it names is looked at where it is used.
    """
    if not isinstance(value, str) or not registry.is_named(value):
        raise ConfigError(
            f"{field}={value!r}. {suggest(str(value), registry.names())} One of your"
            ' own is written "module:attribute", of a module that can be imported.'
        )


def _is_within(value: Any, bounds: Bounds, *, is_whole: bool) -> bool:
    """Return whether a value is a number of the kind, within its bounds."""
    # By type: True and False are integers too, and no setting's number.
    is_integer = type(value) is int
    is_fraction = isinstance(value, float) and not is_whole
    if not is_integer and not is_fraction:
        return False
    # NaN is within no bounds.
    return bounds.low <= value <= bounds.high
