"""Python's types as a JSON schema: how a parameter is told to a policy, and what a
model's JSON becomes.
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
VALID = (
    "str, int, float, bool, list, dict, list[X], dict[str, X], a Literal of texts,"
    " whole numbers, booleans and None, an Enum, or a union of these"
)
"""What a parameter may be typed as."""

MAX_FOREIGN_CHARS = 300
"""Longer descriptions of parameters of somebody else's server are cut."""
_KNOWN = frozenset(JSON_TYPES.values())


class NoJson(TypeError):
    """A type that JSON has no values of."""


def hint_schema(hint: Any) -> dict[str, Any]:
    """Return the JSON schema of a type.

    Raises:
        NoJson: JSON has no values of it.
    """
    hint = _plain(hint)
    origin = typing.get_origin(hint)
    if hint is Any:
        return {}
    if origin is typing.Literal:
        return _enum_schema(_literal_values(hint))
    if origin in (typing.Union, types.UnionType):
        return _union_schema([hint_schema(choice) for choice in typing.get_args(hint)])
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum_schema(list(_members(hint)))
    inner = typing.get_args(hint)
    if origin is list and inner:
        return {"type": "array", "items": hint_schema(inner[0])}
    if origin is dict and inner:
        return _dict_schema(*inner)
    bare = origin or hint
    if isinstance(bare, type) and bare in JSON_TYPES:
        return {"type": JSON_TYPES[bare]}
    raise NoJson(f"{hint!r} has no JSON form")


def as_hinted(value: Any, hint: Any) -> Any:
    """Return a value that fits a type's schema as the function takes it: members of an
    Enum as members.
    """
    hint = _plain(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _members(hint)[value]
    if origin in (typing.Union, types.UnionType):
        fitting = [choice for choice in inner if fits(value, hint_schema(choice))]
        return as_hinted(value, fitting[0])
    if origin is list and inner:
        return [as_hinted(item, inner[0]) for item in value]
    if origin is dict and inner:
        return {name: as_hinted(item, inner[1]) for name, item in value.items()}
    return value


def as_json(value: Any) -> Any:
    """Return the JSON form of a default.

    Raises:
        ValueError, TypeError: It has none.
    """
    told: Any = value
    if isinstance(value, enum.Enum):
        told = _told(type(value), value)
    return json.loads(json.dumps(told, allow_nan=False))


def fits(value: Any, schema: Any) -> bool:
    """Return whether a JSON value is as a schema has it; what a schema of another form
    says is not checked.
    """
    if not isinstance(schema, Mapping):
        return True
    if "anyOf" in schema:
        return any(fits(value, choice) for choice in schema["anyOf"])
    if "enum" in schema and not any(_equal(value, known) for known in schema["enum"]):
        return False
    kinds = _kinds(schema)
    found = JSON_TYPES.get(type(value), "")
    is_whole_number = found == "integer" and "number" in kinds
    if kinds and found not in kinds and not is_whole_number:
        return False
    if isinstance(value, list):
        return all(fits(item, schema.get("items")) for item in value)
    if isinstance(value, dict):
        inner = schema.get("additionalProperties")
        return all(fits(item, inner) for item in value.values())
    return True


def foreign_schema(schema: Any, depth: int = 2) -> dict[str, Any]:
    """Return what is checked and told of a schema that somebody else wrote: whatever it
    is, nothing deeper.
    """
    if not isinstance(schema, Mapping) or not depth:
        return {}
    kept: dict[str, Any] = {}
    kinds = schema.get("type")
    named = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(named, list) and named and all(kind in _KNOWN for kind in named):
        kept["type"] = kinds
    if _are_scalars(schema.get("enum")):
        kept["enum"] = list(schema["enum"])
    for name in ("items", "additionalProperties"):
        inner = foreign_schema(schema.get(name), depth - 1)
        if inner:
            kept[name] = inner
    choices = schema.get("anyOf")
    if isinstance(choices, list) and choices:
        told = [foreign_schema(choice, depth - 1) for choice in choices]
        kept |= _union_schema(told)
    if isinstance(schema.get("description"), str):
        kept["description"] = " ".join(schema["description"].split())[
            :MAX_FOREIGN_CHARS
        ]
    if "default" in schema and _are_scalars([schema["default"]]):
        kept["default"] = schema["default"]
    return kept


def _are_scalars(values: Any) -> bool:
    """Return whether values are a list of texts, numbers, booleans and null, with at
    least one.
    """
    kinds = (str, int, float, bool, type(None))
    is_list = isinstance(values, list) and bool(values)
    return is_list and all(type(value) in kinds for value in values)


def _equal(value: Any, known: Any) -> bool:
    """Return whether two JSON values are one; to Python, true is 1."""
    return bool(value == known) and isinstance(value, bool) == isinstance(known, bool)


def _plain(hint: Any) -> Any:
    """Return a type without its notes, and None as the type that it stands for."""
    if typing.get_origin(hint) is typing.Annotated:
        return _plain(typing.get_args(hint)[0])
    return type(None) if hint is None else hint


def _literal_values(hint: Any) -> list[Any]:
    values = list(typing.get_args(hint))
    for value in values:
        if type(value) not in (str, int, bool, type(None)):
            raise NoJson(f"{value!r} in a Literal has no JSON form")
    return values


def _members(kind: type[enum.Enum]) -> dict[Any, enum.Enum]:
    """Return an Enum's members by what a policy writes."""
    return {_told(kind, member): member for member in kind}


def _told(kind: type[enum.Enum], member: enum.Enum) -> Any:
    """Return what a member is told as: its value where all are texts or whole numbers,
    else its name.
    """
    are_plain = all(type(each.value) in (str, int) for each in kind)
    return member.value if are_plain else member.name


def _enum_schema(values: Sequence[Any]) -> dict[str, Any]:
    if not values:
        raise NoJson("an Enum without members")
    return {"type": _one_or_all(map(type, values)), "enum": list(values)}


def _one_or_all(kinds: typing.Iterable[type]) -> str | list[str]:
    """Return the names of types, a single one as it is."""
    names = list(dict.fromkeys(JSON_TYPES[kind] for kind in kinds))
    return names[0] if len(names) == 1 else names


def _union_schema(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a union: types side by side where they are bare, else
    "anyOf".
    """
    null = {"type": "null"}
    if {} in choices:
        return {}
    others = [choice for choice in choices if choice != null]
    is_optional = len(others) < len(choices)
    if len(others) == 1 and "anyOf" not in others[0]:
        return _or_null(others[0])
    if others and all(choice.keys() == {"type"} for choice in others):
        kinds = [kind for choice in choices for kind in _kinds(choice)]
        return {"type": list(dict.fromkeys(kinds))}
    return {"anyOf": [*others, null] if is_optional else others}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [*_kinds(schema), "null"]
    nullable = {**schema, "type": list(dict.fromkeys(kinds))}
    if "enum" in schema and None not in schema["enum"]:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    """Return the types that a schema names; none if it names none."""
    kinds = schema.get("type", ())
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _dict_schema(*inner: Any) -> dict[str, Any]:
    key, value = inner
    if _plain(key) is not str:
        raise NoJson(f"the names in a JSON object are str, not {key!r}")
    return {"type": "object", "additionalProperties": hint_schema(value)}
