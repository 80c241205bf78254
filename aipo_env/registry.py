"""Spec strings: how a component is named in a configuration, a command line or a registered environment.

`"scripted"`, `"scripted:wrong=0.2,slow=0.1"` and `{"type": "scripted", "wrong": 0.2}` are the same spec;
all of them have a JSON form.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aipo_env.errors import ConfigError, suggest

Spec = str | Mapping[str, Any]
T = TypeVar("T")


def parse_spec(spec: Spec, what: str) -> tuple[str, dict[str, Any]]:
    """Return a spec's type and options; values of the string form are read as JSON where they can be.

    Raises:
        ConfigError: The spec is neither form; the message says what was expected.
    """
    if isinstance(spec, Mapping):
        options = dict(spec)
        kind = options.pop("type", None)
        if not isinstance(kind, str):
            raise ConfigError(
                f"{what}: the spec {dict(spec)!r} needs a 'type', for example {{'type': 'toy'}}."
            )
        return kind, options
    if not isinstance(spec, str):
        raise ConfigError(f"{what}: {spec!r} is no spec; write 'name:option=value' or {{'type': 'name'}}.")
    kind, _, rest = spec.partition(":")
    options = {}
    for item in filter(None, rest.split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(
                f"{what}: {item!r} in {spec!r} is no option; write {kind}:name=value,name=value."
            )
        options[name.strip()] = _value(value)
    return kind, options


def construct(make: Callable[..., T], options: Mapping[str, Any], what: str) -> T:
    """Call `make` with options from a spec.

    Raises:
        ConfigError: An option is unknown (the message suggests the nearest) or has a value of the wrong type.
    """
    parameters = inspect.signature(make).parameters
    for name in options:
        if name not in parameters:
            raise ConfigError(f"{what}: there is no option {name!r}. {suggest(name, parameters)}")
    try:
        return make(**options)
    except TypeError as error:
        raise ConfigError(f"{what}: {error}. Options given: {dict(options)!r}.") from error


def choose(table: Mapping[str, T], name: str, what: str) -> T:
    """Return the entry of a table, or raise ConfigError that suggests the nearest."""
    if name not in table:
        raise ConfigError(f"{what}: there is no {name!r}. {suggest(name, table)}")
    return table[name]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
