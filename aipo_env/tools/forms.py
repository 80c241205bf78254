"""A function as a tool: how a policy is told of it, and how it is called with what a
model wrote.
"""

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
    VALID,
    NoJson,
    as_hinted,
    as_json,
    hint_schema,
)


@dataclass(frozen=True)
class Form:
    """How a policy is told of a function, and the types of its parameters."""

    schema: ToolSchema
    hints: Mapping[str, Any]

    def arguments(self, query: str) -> dict[str, Any]:
        """Return the arguments that a query holds, as the function takes them.

        Raises:
            ValueError: The query does not hold them; the message is for the policy.
        """
        read = read_arguments(query, self.schema)
        return {
            name: as_hinted(value, self.hints[name]) for name, value in read.items()
        }


def read_form(
    function: Callable[..., Any],
    name: str,
    docstring: str | None,
    who: str,
    *,
    is_bound_later: bool = False,
) -> Form:
    """Return how a function is told to a policy.

    Args:
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
    if is_bound_later and not (parameters and _is_by_place(parameters[0])):
        raise ConfigError(f"{who}: it takes no 'self'. Add it, or use @staticmethod.")
    told = parameters[1:] if is_bound_later else parameters
    summary, described = read_docstring(docstring)
    properties = {
        each.name: _property(each, described.get(each.name, ""), who) for each in told
    }
    required = tuple(each.name for each in told if each.default is each.empty)
    return Form(
        ToolSchema(name, summary, properties, required),
        {each.name: _hint(each) for each in told},
    )


def _is_by_place(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (
        parameter.POSITIONAL_ONLY,
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.VAR_POSITIONAL,
    )


def _hint(parameter: inspect.Parameter) -> Any:
    """Return a parameter's type; one that is None if left out may be None."""
    hint = parameter.annotation
    return hint if parameter.default is not None else Optional[hint]  # noqa: UP045


def _property(parameter: inspect.Parameter, described: str, who: str) -> dict[str, Any]:
    """Return the JSON schema of a parameter.

    Raises:
        ConfigError: JSON has no values of its type, or it cannot be given by name.
    """
    by_name = (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    try:
        if parameter.kind not in by_name:
            raise NoJson("it is given by place")
        if parameter.annotation is parameter.empty:
            raise NoJson("it has no type")
        told = hint_schema(_hint(parameter))
    except NoJson as fault:
        raise ConfigError(
            f"{who}: parameter {parameter.name!r} must be typed as one of {VALID}, and"
            f" be given by name: no '*' and no '/'; {fault}."
        ) from None
    if parameter.default is not parameter.empty:
        # A default that has no JSON form is not told, and holds all the same.
        with suppress(ValueError, TypeError, RecursionError):
            told["default"] = as_json(parameter.default)
    note = described or _note(parameter.annotation)
    if note:
        told["description"] = note
    return told


def _note(hint: Any) -> str:
    """Return the text in `Annotated[int, "text"]`."""
    notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((note for note in notes if isinstance(note, str)), "")
