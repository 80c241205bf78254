"""Python's types as JSON schemas, and a model's JSON as values of these types.

A schema is how a parameter is described to a policy. There an Enum is a choice of texts
or whole numbers, one for each member.
"""

import enum
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

JSON_TYPES: Mapping[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
    type(None): "null",
}
VALID_HINTS = (
    "str, int, float, bool, list, dict, list[X], dict[str, X], a Literal of texts,"
    " whole numbers, booleans and None, an Enum, or a union of these"
)
"""What a parameter may be typed as."""

MAX_FOREIGN_CHARS = 300
"""Longer descriptions of parameters of somebody else's server are cut."""
_TYPE_NAMES = frozenset(JSON_TYPES.values())
_NULL_SCHEMA = {"type": "null"}
_UNION_ORIGINS = (typing.Union, types.UnionType)
"""What `Union[X, Y]` and `X | Y` are made of, which differ up to Python 3.13."""


class NoJson(TypeError):
    """A type that JSON has no values of."""


def hint_schema(hint: Any) -> dict[str, Any]:
    """Return the JSON schema of a type.

    Args:
        hint: The type, as it stands in an annotation.

    Raises:
        NoJson: JSON has no values of it.
    """
    hint = _plain(hint)
    origin = typing.get_origin(hint)
    parameters = typing.get_args(hint)
    if hint is Any:
        return {}
    if origin is typing.Literal:
        return _enum_schema(_literal_values(hint))
    if origin in _UNION_ORIGINS:
        return _union_schema([hint_schema(choice) for choice in parameters])
    if _is_enum(hint):
        return _enum_schema(list(_members(hint)))
    if origin is list and parameters:
        return {"type": "array", "items": hint_schema(parameters[0])}
    if origin is dict and parameters:
        return _dict_schema(*parameters)
    # `list` alone, and `typing.List`, whose origin is list and which has no parameters.
    bare = origin or hint
    if isinstance(bare, type) and bare in JSON_TYPES:
        return {"type": JSON_TYPES[bare]}
    raise NoJson(f"{hint!r} has no JSON form")


def as_hinted(value: Any, hint: Any) -> Any:
    """Return a JSON value as a function takes it: members of an Enum as members.

    Args:
        value: One that fits the schema of `hint`.
        hint: The type, as it stands in an annotation.
    """
    hint = _plain(hint)
    origin = typing.get_origin(hint)
    parameters = typing.get_args(hint)
    if _is_enum(hint):
        return _members(hint)[value]
    if origin in _UNION_ORIGINS:
        # There is at least one, since the value fits the union.
        choices = [choice for choice in parameters if fits(value, hint_schema(choice))]
        return as_hinted(value, choices[0])
    if origin is list and parameters:
        item_hint = parameters[0]
        return [as_hinted(item, item_hint) for item in value]
    if origin is dict and parameters:
        item_hint = parameters[1]
        return {name: as_hinted(item, item_hint) for name, item in value.items()}
    return value


def as_json(value: Any) -> Any:
    """Return the JSON form of a default.

    Raises:
        ValueError, TypeError: It has none.
    """
    plain: Any = value
    if isinstance(value, enum.Enum):
        plain = _member_name(type(value), value)
    # There and back, so that a tuple becomes the list that a schema shows. NaN is no
    # JSON, though Python would write it.
    return json.loads(json.dumps(plain, allow_nan=False))


def fits(value: Any, schema: Any) -> bool:
    """Return whether a JSON value is as a schema has it.

    Only the words of schemas that this file writes are checked. What else a schema of
    somebody else says holds nothing back.
    """
    if not isinstance(schema, Mapping):
        return True
    if "anyOf" in schema:
        return any(fits(value, choice) for choice in schema["anyOf"])
    if "enum" in schema and not _is_one_of(value, schema["enum"]):
        return False
    kinds = _kinds(schema)
    kind = JSON_TYPES.get(type(value), "")
    # 3 is a number too, though 3.0 is no integer here.
    is_whole_number = kind == "integer" and "number" in kinds
    if kinds and kind not in kinds and not is_whole_number:
        return False
    if isinstance(value, list):
        return all(fits(item, schema.get("items")) for item in value)
    if isinstance(value, dict):
        item_schema = schema.get("additionalProperties")
        return all(fits(item, item_schema) for item in value.values())
    return True


def foreign_schema(schema: Any, depth: int = 2) -> dict[str, Any]:
    """Return the part of somebody else's schema that is checked and shown to a policy.

    Args:
        schema: Whatever a server sent; not to be trusted in anything.
        depth: Levels of it that are looked at, so that it may be as deep as it likes.
    """
    if not isinstance(schema, Mapping) or not depth:
        return {}
    part: dict[str, Any] = {}
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(names, list) and names and _are_type_names(names):
        part["type"] = kinds
    if _are_scalars(schema.get("enum")):
        part["enum"] = list(schema["enum"])
    for name in ("items", "additionalProperties"):
        inner = foreign_schema(schema.get(name), depth - 1)
        if inner:
            part[name] = inner
    choices = schema.get("anyOf")
    if isinstance(choices, list) and choices:
        inner_choices = [foreign_schema(choice, depth - 1) for choice in choices]
        part.update(_union_schema(inner_choices))
    description = schema.get("description")
    if isinstance(description, str):
        one_line = " ".join(description.split())
        part["description"] = one_line[:MAX_FOREIGN_CHARS]
    if "default" in schema and _are_scalars([schema["default"]]):
        part["default"] = schema["default"]
    return part


def _are_type_names(names: Sequence[Any]) -> bool:
    # With one unknown name the whole is left out, so that no value is refused by it.
    return all(name in _TYPE_NAMES for name in names)


def _are_scalars(values: Any) -> bool:
    """Return whether this is a list of texts, numbers, booleans or null, not empty."""
    if not isinstance(values, list) or not values:
        return False
    kinds = (str, int, float, bool, type(None))
    return all(type(value) in kinds for value in values)


def _is_one_of(value: Any, choices: Sequence[Any]) -> bool:
    """Return whether a JSON value is among others; to Python, true is 1."""
    is_bool = isinstance(value, bool)
    for choice in choices:
        if value == choice and isinstance(choice, bool) == is_bool:
            return True
    return False


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def _plain(hint: Any) -> Any:
    """Return a type without its notes, and None as the type that it stands for."""
    if typing.get_origin(hint) is typing.Annotated:
        return _plain(typing.get_args(hint)[0])
    if hint is None:
        return type(None)
    return hint


def _literal_values(hint: Any) -> list[Any]:
    values = list(typing.get_args(hint))
    for value in values:
        if type(value) not in (str, int, bool, type(None)):
            raise NoJson(f"{value!r} in a Literal has no JSON form")
    return values


def _members(kind: type[enum.Enum]) -> dict[Any, enum.Enum]:
    """Return an Enum's members by what a policy writes."""
    return {_member_name(kind, member): member for member in kind}


def _member_name(kind: type[enum.Enum], member: enum.Enum) -> Any:
    """Return what a policy writes for a member of an Enum: its value, or its name.

    The value, if all members have texts or whole numbers for theirs.
    """
    are_plain = all(type(each.value) in (str, int) for each in kind)
    return member.value if are_plain else member.name


def _enum_schema(values: Sequence[Any]) -> dict[str, Any]:
    if not values:
        raise NoJson("an Enum without members")
    names = [JSON_TYPES[type(value)] for value in values]
    kinds = _distinct(names)
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": list(values)}


def _distinct(names: Sequence[str]) -> list[str]:
    """Return each name once, in the order in which they first stand."""
    return list(dict.fromkeys(names))


def _union_schema(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a union, with its bare types side by side where all are."""
    if {} in choices:
        return {}  # one choice takes anything, so all of them do
    others = [choice for choice in choices if choice != _NULL_SCHEMA]
    is_optional = len(others) < len(choices)
    if len(others) == 1 and "anyOf" not in others[0]:
        return _or_null(others[0])
    if others and all(choice.keys() == {"type"} for choice in others):
        kinds: list[str] = []
        for choice in choices:
            kinds += _kinds(choice)
        return {"type": _distinct(kinds)}
    if is_optional:
        others.append(dict(_NULL_SCHEMA))
    return {"anyOf": others}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [*_kinds(schema), "null"]
    nullable = {**schema, "type": _distinct(kinds)}
    if "enum" in schema and None not in schema["enum"]:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    """Return the types that a schema names; none if it names none."""
    kinds = schema.get("type", ())
    if isinstance(kinds, str):
        return [kinds]
    return list(kinds)


def _dict_schema(key: Any, value: Any) -> dict[str, Any]:
    if _plain(key) is not str:
        raise NoJson(f"the names in a JSON object are str, not {key!r}")
    return {"type": "object", "additionalProperties": hint_schema(value)}
