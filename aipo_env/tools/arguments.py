"""The arguments of a tool, as a model wrote them."""

import json
import re
from typing import Any

from aipo_env.codecs.base import ToolSchema, read_json
from aipo_env.codecs.words import json_text, type_words
from aipo_env.errors import ConfigError, suggest
from aipo_env.records import CONSULT_KINDS
from aipo_env.tools.hints import fits

_TAKEN = (*CONSULT_KINDS, "consult", "reply")
"""Names that mean something else in a codec."""
MAX_ARGUMENT_CHARS = 100_000
"""Longer arguments are refused unread."""
MAX_SHOWN_CHARS = 60
"""More of what a model wrote is not repeated to it."""


def check_name(name: str, who: str = "") -> None:
    """Raise ConfigError unless a tool may have this name; `who` names it in the
    message.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in _TAKEN:
        who = who or f"tool {name!r}"
        raise ConfigError(f"{who}: use a plain name that is no agent's role.")


def read_arguments(query: str, schema: ToolSchema) -> dict[str, Any]:
    """Read a tool's arguments: a JSON object, or the text itself where one text is
    wanted.

    Raises:
        ValueError: They are too long, not as the schema has them, or not of its types;
            the message is for the policy.
    """
    if len(query) > MAX_ARGUMENT_CHARS:
        raise ValueError(
            f"arguments of {len(query)} characters; at most {MAX_ARGUMENT_CHARS}"
        )
    given = _given(query, schema)
    for name, value in given.items():
        _check(name, value, schema)
    missing = [name for name in schema.required if name not in given]
    if missing:
        raise ValueError(f"the argument {missing[0]!r} is missing; {_wanted(schema)}")
    return given


def _given(query: str, schema: ToolSchema) -> dict[str, Any]:
    """Return what a query holds by name, unchecked."""
    fault = ""
    try:
        read = read_json(query) if query.strip() else {}
    except json.JSONDecodeError:
        read = None
    except ValueError as error:
        read, fault = None, f": {error}"
    text = schema.text_parameter
    is_meant_as_object = isinstance(read, dict) and (
        not read or not text or not read.keys().isdisjoint(schema.parameters)
    )
    if isinstance(read, dict) and is_meant_as_object:
        return read
    if text and not (fault and query.lstrip().startswith("{")):
        return {text: query}
    raise ValueError(f"{_wanted(schema)}{fault}")


def _check(name: str, value: Any, schema: ToolSchema) -> None:
    if name not in schema.parameters:
        shown = name[:MAX_SHOWN_CHARS]
        told = suggest(shown, schema.parameters) if schema.parameters else ""
        raise ValueError(f"there is no argument {shown!r}. {told}".rstrip(". "))
    wanted = schema.parameters[name]
    if not fits(value, wanted):
        of_type = "of type " if wanted.keys().isdisjoint(("enum", "anyOf")) else ""
        told = f"{of_type}{type_words(wanted)}"
        raise ValueError(f"{name} must be {told}, got {_shown(value)}")


def _wanted(schema: ToolSchema) -> str:
    names = ", ".join(schema.parameters) or "nothing in it"
    return f"the arguments must be a JSON object with {names}"


def _shown(value: Any) -> str:
    """Return a value as a message repeats it: nested ones in a word, for they may be as
    deep as can be read.
    """
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    return json_text(value)[:MAX_SHOWN_CHARS]
