"""How values that are no plain numbers and texts are given on the command line."""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from tyro.constructors import PrimitiveConstructorSpec

from aipo_env import Spec, read_spec


def read_object(text: str) -> dict[str, Any]:
    """Read a JSON object from the command line or a file.

    Args:
        text: JSON.

    Raises:
        ValueError: It is none, or is nested too deeply.
    """
    try:
        value = json.loads(text)
    # Python's reader calls itself for each level.
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(
            f"a JSON object is needed, this is one of type {type(value).__name__}"
        )
    return value


def _one_argument(
    read: Callable[[str], Any], metavar: str
) -> PrimitiveConstructorSpec[Any]:
    """Describe to tyro a value that is one argument, read by `read`.

    Without it, tyro would make flags of the keys that an object has by default.
    """

    def from_arguments(arguments: list[str]) -> Any:
        [argument] = arguments
        return read(argument)

    def is_value(value: Any) -> bool:
        return isinstance(value, str | Mapping)

    def to_arguments(value: Any) -> list[str]:
        return [value if isinstance(value, str) else json.dumps(value)]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=from_arguments,
        is_instance=is_value,
        str_from_instance=to_arguments,
    )


SpecField = Annotated[Spec, _one_argument(read_spec, "SPEC")]
"""A component, as `read_spec` reads it."""
JsonField = Annotated[dict[str, Any], _one_argument(read_object, "JSON")]
"""An object of names and values, as JSON."""
