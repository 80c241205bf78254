"""A function as a tool: how a policy is told of it, and what it is called with."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Optional, get_args, get_origin

from aipo_env.codecs.base import ToolSchema
from aipo_env.errors import ConfigError
from aipo_env.tools.arguments import check_name, read_arguments
from aipo_env.tools.docstrings import read_docstring
from aipo_env.tools.hints import (
    VALID_HINTS,
    NoJson,
    as_hinted,
    as_json,
    hint_schema,
)


@dataclass(frozen=True)
class ToolForm:
    """How a policy is told of a function, and the types of its parameters."""

    schema: ToolSchema
    hints: Mapping[str, Any]

    def arguments(self, query: str) -> dict[str, Any]:
        """Return the arguments that a query holds, as the function takes them.

        Raises:
            ValueError: The query does not hold them; the message is for the policy.
        """
        values = read_arguments(query, self.schema)
        arguments = {}
        for name, value in values.items():
            arguments[name] = as_hinted(value, self.hints[name])
        return arguments


def read_tool_form(
    function: Callable[..., Any],
    name: str,
    docstring: str | None,
    who: str,
    *,
    is_bound_later: bool = False,
) -> ToolForm:
    """Return how a policy is told of a function.

    Args:
        function: Its signature gives the parameters.
        name: What the policy calls it by.
        docstring: What it is for; None if there is none.
        who: Names the function in messages.
        is_bound_later: Whether its first parameter is the instance that it is called
            on.

    Raises:
        ConfigError: It has no docstring, a name that is no plain one or an agent's
            role, or a parameter that has no type that JSON has or cannot be given by
            name.
    """
    check_name(name, who)
    if not docstring or not docstring.strip():
        raise ConfigError(
            f"{who}: it has no docstring, which tells what it is for. Write one."
        )
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception as error:  # an annotation may be any expression
        raise ConfigError(f"{who}: its types cannot be read: {error!r}.") from error
    parameters = list(signature.parameters.values())
    if is_bound_later:
        # The instance is no argument of the policy's, whatever the parameter is called.
        if not parameters or not _is_by_place(parameters[0]):
            raise ConfigError(
                f"{who}: it takes no 'self'. Add it, or use @staticmethod."
            )
        parameters = parameters[1:]
    summary, descriptions = read_docstring(docstring)
    properties = {}
    required = []
    hints = {}
    for parameter in parameters:
        description = descriptions.get(parameter.name, "")
        properties[parameter.name] = _property(parameter, description, who)
        hints[parameter.name] = _hint(parameter)
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    schema = ToolSchema(name, summary, properties, tuple(required))
    return ToolForm(schema, hints)


def _is_by_place(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (
        parameter.POSITIONAL_ONLY,
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.VAR_POSITIONAL,
    )


def _hint(parameter: inspect.Parameter) -> Any:
    """Return a parameter's type; one that is None if left out may be None."""
    hint = parameter.annotation
    if parameter.default is None:
        # Not "hint | None": an annotation may be a text, for which "|" is not defined.
        return Optional[hint]  # noqa: UP045
    return hint


def _property(
    parameter: inspect.Parameter, description: str, who: str
) -> dict[str, Any]:
    """Return the JSON schema of a parameter.

    Args:
        parameter: The parameter.
        description: What the docstring says of it; empty: nothing.
        who: Names the function in messages.

    Raises:
        ConfigError: JSON has no values of its type, or it cannot be given by name.
    """
    by_name = (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    try:
        if parameter.kind not in by_name:
            raise NoJson("it is given by place")
        if parameter.annotation is parameter.empty:
            raise NoJson("it has no type")
        schema = hint_schema(_hint(parameter))
    except NoJson as fault:
        raise ConfigError(
            f"{who}: parameter {parameter.name!r} must be typed as one of"
            f" {VALID_HINTS}, and be given by name: no '*' and no '/'; {fault}."
        ) from None
    if parameter.default is not parameter.empty:
        # A default that has no JSON form is not told, and holds all the same.
        with suppress(ValueError, TypeError, RecursionError):
            schema["default"] = as_json(parameter.default)
    note = description or _note(parameter.annotation)
    if note:
        schema["description"] = note
    return schema


def _note(hint: Any) -> str:
    """Return the text in `Annotated[int, "text"]`; empty if there is none."""
    if get_origin(hint) is not Annotated:
        return ""
    for note in get_args(hint)[1:]:
        if isinstance(note, str):
            return note
    return ""
