"""Tools in the words of a prompt, for codecs that show no JSON schema."""

import json
from collections.abc import Mapping
from typing import Any

from aipo_env.codecs.base import ToolSchema


def at_most(budget: int | None) -> str:
    """Return how often tools may be called, in the words of a prompt."""
    return "" if budget is None else f", at most {budget} times in all,"


def type_words(schema: Mapping[str, Any]) -> str:
    """Return what a value may be, in the words of a prompt: `integer`, `one of "fast",
    "slow"`.
    """
    if "enum" in schema:
        values = ", ".join(json_text(value) for value in schema["enum"])
        return f"one of {values}" if len(schema["enum"]) > 1 else values
    if "anyOf" in schema:
        return " or ".join(type_words(choice) for choice in schema["anyOf"])
    kinds = schema.get("type", "any value")
    inner = schema.get("items") or schema.get("additionalProperties")
    words = [
        (
            f"{kind} of {type_words(inner)}"
            if inner and kind in ("array", "object")
            else str(kind)
        )
        for kind in ([kinds] if isinstance(kinds, str) else kinds)
    ]
    return " or ".join(words)


def json_text(value: Any) -> str:
    """Return a value's JSON text, as it is shown to a policy."""
    return json.dumps(value, ensure_ascii=False)


def use_words(tool: ToolSchema) -> str:
    """Return what a tool is for, and how its arguments are written, in the words of a
    prompt.
    """
    description = tool.description.rstrip(".")
    listed = ", ".join(
        _parameter_words(tool, name, schema) for name, schema in tool.parameters.items()
    )
    text = tool.text_parameter
    if text and len(tool.parameters) == 1:
        wanted = _text_words(text, tool.parameters[text])
        return f"{description}; {wanted}" if wanted else description
    if text:
        return f"{description}; write the {text}, or a JSON object with {listed}"
    if not tool.parameters:
        return f"{description}; write {{}}"
    return f"{description}; write a JSON object with {listed}"


def _text_words(name: str, schema: Mapping[str, Any]) -> str:
    """Return how the only argument is written, if there is more to say than that it is
    text.
    """
    described = schema.get("description", "").rstrip(".")
    note = f" ({described})" if described else ""
    if "enum" in schema:
        return f"write {type_words(schema)}{note}"
    return f"write the {name}{note}" if note else ""


def _parameter_words(tool: ToolSchema, name: str, schema: Mapping[str, Any]) -> str:
    is_required = name in tool.required
    default = schema.get("default")
    told = type_words(schema)
    if not is_required and default is None:
        # To write null is to leave it out.
        told = told.removesuffix(" or null").removesuffix(", null")
    described = schema.get("description", "").rstrip(".")
    note = f" ({described})" if described else ""
    if is_required:
        return f"{name}: {told}{note}"
    left_out = "" if default is None else f", {json_text(default)} if left out"
    return f"{name}: {told}{note}, optional{left_out}"
