"""The arguments of a tool, as a model wrote them."""

import json
import re
from collections.abc import Mapping
from typing import Any

from aipo_env.errors import ConfigError
from aipo_env.records import CONSULT_KINDS

JSON_TYPES = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
}
_TAKEN = (*CONSULT_KINDS, "consult", "reply")
"""Names that mean something else in a codec."""
MAX_ARGUMENT_CHARS = 100_000
"""Longer arguments are refused unread."""


def check_name(name: str) -> None:
    """Raise ConfigError unless a tool may have this name."""
    if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in _TAKEN:
        raise ConfigError(f"tool {name!r}: use a plain name that is no agent's role.")


def read_arguments(
    query: str, parameters: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Read a tool's arguments: a JSON object, or the text itself where one text is wanted.

    Raises:
        ValueError: They are too long, not as the parameters have it, or not of their types.
    """
    kinds = {name: schema["type"] for name, schema in parameters.items()}
    if len(query) > MAX_ARGUMENT_CHARS:
        raise ValueError(
            f"arguments of {len(query)} characters; at most {MAX_ARGUMENT_CHARS}"
        )
    try:
        given = json.loads(query) if query else {}
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not given.keys() <= kinds.keys():
        if list(kinds.values()) != ["string"]:
            raise ValueError(
                f"the arguments must be a JSON object with {', '.join(kinds) or 'nothing'}"
            )
        given = {next(iter(kinds)): query}
    for name, value in given.items():
        if not _fits(value, kinds[name]):
            raise ValueError(
                f"{name} must be of type {kinds[name]}, got {value!r:.100}"
            )
    return given


def _fits(value: object, kind: str) -> bool:
    found = JSON_TYPES.get(type(value), "null")
    # A server's schema may be of any form; the server checks it.
    return (
        kind not in JSON_TYPES.values()
        or found == kind
        or (found, kind) == ("integer", "number")
    )
