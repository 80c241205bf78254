"""Tools in the words of a prompt, for codecs that show no JSON schema."""

import json
from collections.abc import Mapping
from typing import Any

from aipo_env.codecs.base import ToolSchema


def at_most(budget: int | None) -> str:
    """Return how often tools may be called, in the words of a prompt."""
    if budget is None:
        return ""
    return f", at most {budget} times in all,"


def type_words(schema: Mapping[str, Any]) -> str:
    """Return what a value may be, in words: `integer`, `one of "fast", "slow"`."""
    if "enum" in schema:
        choices = schema["enum"]
        values = ", ".join(json_text(value) for value in choices)
        return f"one of {values}" if len(choices) > 1 else values
    if "anyOf" in schema:
        return " or ".join(type_words(choice) for choice in schema["anyOf"])
    kinds = schema.get("type", "any value")
    if isinstance(kinds, str):
        kinds = [kinds]
    inner = schema.get("items") or schema.get("additionalProperties")
    return " or ".join(_kind_words(kind, inner) for kind in kinds)


def _kind_words(kind: Any, inner: Any) -> str:
    """Return one kind of value in words; `inner` is the schema of what it holds."""
    if inner and kind in ("array", "object"):
        return f"{kind} of {type_words(inner)}"
    return str(kind)


def json_text(value: Any) -> str:
    """Return a value's JSON text, as it is shown to a policy."""
    return json.dumps(value, ensure_ascii=False)


def use_words(tool: ToolSchema) -> str:
    """Return what a tool is for and how to write its arguments, in words."""
    description = tool.description.rstrip(".")
    text = tool.text_parameter
    if text and len(tool.parameters) == 1:
        how = _text_words(text, tool.parameters[text])
        return f"{description}; {how}" if how else description
    if not tool.parameters:
        return f"{description}; write {{}}"
    listed = ", ".join(
        _parameter_words(tool, name, schema) for name, schema in tool.parameters.items()
    )
    if text:
        return f"{description}; write the {text}, or a JSON object with {listed}"
    return f"{description}; write a JSON object with {listed}"


def _text_words(name: str, schema: Mapping[str, Any]) -> str:
    """Return how the only argument is written; empty if that it is text says all."""
    note = _note(schema)
    if "enum" in schema:
        return f"write {type_words(schema)}{note}"
    return f"write the {name}{note}" if note else ""


def _parameter_words(tool: ToolSchema, name: str, schema: Mapping[str, Any]) -> str:
    """Return a parameter in words: `depth: integer, optional, 3 if left out`."""
    note = _note(schema)
    kind = type_words(schema)
    if name in tool.required:
        return f"{name}: {kind}{note}"
    default = schema.get("default")
    if default is None:
        # To write null is to leave it out.
        kind = kind.removesuffix(" or null").removesuffix(", null")
        return f"{name}: {kind}{note}, optional"
    return f"{name}: {kind}{note}, optional, {json_text(default)} if left out"


def _note(schema: Mapping[str, Any]) -> str:
    """Return a parameter's description in brackets; empty if it has none."""
    description = schema.get("description", "").rstrip(".")
    return f" ({description})" if description else ""
