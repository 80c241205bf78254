"""The arguments of a tool, as a model wrote them."""

import json
import re
from typing import Any

from aipo_env.codecs.base import ToolSchema, read_call_json
from aipo_env.codecs.words import json_text, type_words
from aipo_env.errors import ConfigError, suggest
from aipo_env.records import CONSULT_KINDS
from aipo_env.tools.hints import fits

_TAKEN = (*CONSULT_KINDS, "consult", "reply")
"""Names that mean something else in a codec."""
MAX_ARGUMENT_CHARS = 100_000
"""Longer arguments are refused unread."""
MAX_REPEATED_CHARS = 60
"""More of what a model wrote is not repeated to it."""


def check_name(name: str, who: str = "") -> None:
    """Raise ConfigError unless a tool may have this name; `who` names it there."""
    # fullmatch, since "$" would let a final line break pass.
    if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in _TAKEN:
        who = who or f"tool {name!r}"
        raise ConfigError(f"{who}: use a plain name that is no agent's role.")


def read_arguments(query: str, schema: ToolSchema) -> dict[str, Any]:
    """Return a tool's arguments by name, checked.

    Args:
        query: A JSON object, or the text itself where the tool takes one text.
        schema: The tool's.

    Raises:
        ValueError: They are too long, not as the schema has them, or not of its types;
            the message is for the policy.
    """
    if len(query) > MAX_ARGUMENT_CHARS:
        raise ValueError(
            f"arguments of {len(query)} characters; at most {MAX_ARGUMENT_CHARS}"
        )
    arguments = _parse(query, schema)
    for name, value in arguments.items():
        _check(name, value, schema)
    missing = [name for name in schema.required if name not in arguments]
    if missing:
        raise ValueError(
            f"the argument {missing[0]!r} is missing; {_expectation(schema)}"
        )
    return arguments


def _parse(query: str, schema: ToolSchema) -> dict[str, Any]:
    """Return what a query holds by name, unchecked."""
    fault = ""
    value: Any = None
    try:
        value = read_call_json(query) if query.strip() else {}
    except json.JSONDecodeError:
        # No JSON at all: most likely the text that the tool takes.
        pass
    except ValueError as error:
        # JSON, but one that is not read, such as an object with a name twice.
        fault = f": {error}"
    text_name = schema.text_parameter
    if isinstance(value, dict):
        # An object with none of the tool's names may be the very text it takes, such
        # as a JSON document to be checked.
        has_names = not value.keys().isdisjoint(schema.parameters)
        if not value or not text_name or has_names:
            return value
    is_broken_object = bool(fault) and query.lstrip().startswith("{")
    if text_name and not is_broken_object:
        return {text_name: query}
    raise ValueError(f"{_expectation(schema)}{fault}")


def _check(name: str, value: Any, schema: ToolSchema) -> None:
    """Raise ValueError unless there is such a parameter and the value fits it."""
    if name not in schema.parameters:
        shown = name[:MAX_REPEATED_CHARS]
        hint = ""
        if schema.parameters:
            hint = suggest(shown, schema.parameters)
        raise ValueError(f"there is no argument {shown!r}. {hint}".rstrip(". "))
    parameter = schema.parameters[name]
    if not fits(value, parameter):
        words = type_words(parameter)
        # A choice is told by its members: "must be one of 1, 2" needs no more words.
        if "enum" not in parameter and "anyOf" not in parameter:
            words = f"of type {words}"
        raise ValueError(f"{name} must be {words}, got {_excerpt(value)}")


def _expectation(schema: ToolSchema) -> str:
    names = ", ".join(schema.parameters) or "nothing in it"
    return f"the arguments must be a JSON object with {names}"


def _excerpt(value: Any) -> str:
    """Return what a message repeats of a value: of a nested one only its length."""
    # It may be nested as deep as can be read, which is deeper than can be written.
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    return json_text(value)[:MAX_REPEATED_CHARS]
