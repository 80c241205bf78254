"""What a tool's parameters may be, how each codec tells of them, and how a model's
arguments are read.
"""

import asyncio
import enum
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo_env import AgentRequest, ConfigError, Tool, ToolSchema
from aipo_env.codecs.hermes import HermesCodec
from aipo_env.codecs.macro import MacroCodec
from aipo_env.codecs.openai_calls import OpenAICodec
from aipo_env.codecs.tags import TagsCodec
from aipo_env.tools.arguments import read_arguments
from aipo_env.tools.hints import foreign_schema


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Shape(enum.Enum):
    ROUND = (1, 2)
    FLAT = (3, 4)


def search(query: str, limit: int = 5, mode: Literal["fast", "slow"] = "fast") -> str:
    """Search the shelf,
    all of it.

    Every shelf is searched.

    Args:
        query: What to look for.
        limit: Most that
            is found.
    """
    return f"{query!r} {limit} {mode}"


def paint(
    colour: Colour,
    shape: Shape,
    at: list[int],
    weights: dict[str, float],
    size: Optional[int] = None,  # noqa: UP045
    label: str | int = "a",
) -> str:
    """Paint.

    :param colour: in which
    :param at: where
    """
    return f"{colour} {shape} {at} {weights} {size} {label!r}"


def pick(mode: Literal["fast", 1, True, None], *, when: float = math.inf) -> str:
    """Pick a mode.

    Parameters
    ----------
    mode : text
        How.
    """
    return f"{mode!r} {when}"


def noted(count: Annotated[int, "how many"], colours: list[Colour] | None) -> str:
    """Count."""
    return f"{count} {colours}"


def call(function: Callable[..., Any], query: str) -> str:
    request = AgentRequest(kind="t", query=query)
    return asyncio.run(Tool(function).reply(request)).text


def test_the_schema_of_a_function():
    assert Tool(search).schema == ToolSchema(
        "search",
        "Search the shelf, all of it.",
        {
            "query": {"type": "string", "description": "What to look for."},
            "limit": {
                "type": "integer",
                "default": 5,
                "description": "Most that is found.",
            },
            "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
        },
        ("query",),
    )
    painted = Tool(paint).schema
    assert painted.parameters == {
        "colour": {
            "type": "string",
            "enum": ["red", "blue"],
            "description": "in which",
        },
        "shape": {"type": "string", "enum": ["ROUND", "FLAT"]},
        "at": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "where",
        },
        "weights": {"type": "object", "additionalProperties": {"type": "number"}},
        "size": {"type": ["integer", "null"], "default": None},
        "label": {"type": ["string", "integer"], "default": "a"},
    }
    assert painted.required == ("colour", "shape", "at", "weights")
    assert Tool(pick).schema.parameters == {
        "mode": {
            "type": ["string", "integer", "boolean", "null"],
            "enum": ["fast", 1, True, None],
            "description": "How.",
        },
        "when": {"type": "number"},  # an infinite default has no JSON form
    }
    assert Tool(noted).schema.parameters == {
        "count": {"type": "integer", "description": "how many"},
        "colours": {
            "type": ["array", "null"],
            "items": {"type": "string", "enum": ["red", "blue"]},
        },
    }


SEARCH = (
    "Search the shelf, all of it; write the query, or a JSON object with query: string"
    " (What to look for), limit: integer (Most that is found), optional, 5 if left out,"
    ' mode: one of "fast", "slow", optional, "fast" if left out.'
)
PAINT = (
    'Paint; write a JSON object with colour: one of "red", "blue" (in which), shape:'
    ' one of "ROUND", "FLAT", at: array of integer (where), weights: object of number,'
    ' size: integer, optional, label: string or integer, optional, "a" if left out.'
)


def test_how_the_codecs_of_marks_tell_of_parameters():
    schemas = [Tool(search).schema, Tool(paint).schema]
    tags, macro = TagsCodec(schemas), MacroCodec(schemas)
    assert tags.tool_instructions(4).splitlines() == [
        (
            "You may call these tools, at most 4 times in all, by ending your turn with"
            " one of:"
        ),
        f"<search>…</search> {SEARCH}",
        f"<paint>…</paint> {PAINT}",
        "The result comes in your next turn.",
    ]
    assert macro.tool_instructions(None).splitlines() == [
        "You may call these tools by ending your turn with one of:",
        f"<|search|>… {SEARCH}",
        f"<|paint|>… {PAINT}",
        "The result comes in your next turn.",
    ]


def test_how_a_single_text_and_no_argument_are_told():
    def shout(text: str) -> str:
        """Upper case."""
        return text

    def ask(question: str) -> str:
        """Ask.

        Args:
            question: a whole one
        """
        return question

    def turn(way: Literal["left", "right"]) -> str:
        """Turn."""
        return way

    def now() -> str:
        """The time."""
        return "noon"

    codec = TagsCodec([Tool(each).schema for each in (shout, ask, turn, now)])
    assert codec.tool_instructions(None).splitlines()[1:-1] == [
        "<shout>…</shout> Upper case.",
        "<ask>…</ask> Ask; write the question (a whole one).",
        '<turn>…</turn> Turn; write one of "left", "right".',
        "<now>…</now> The time; write {}.",
    ]
    assert call(turn, "left") == "left"
    assert (
        call(turn, "up")
        == 'error: ValueError: way must be one of "left", "right", got "up"'
    )
    assert call(now, "{}") == "noon"


@pytest.mark.parametrize("codec", [HermesCodec, OpenAICodec])
def test_how_the_codecs_of_json_tell_of_parameters(codec):
    schema = Tool(paint).schema
    [told] = codec([schema]).functions(())
    assert told["function"]["parameters"] == {
        "type": "object",
        "properties": schema.parameters,
        "required": ["colour", "shape", "at", "weights"],
    }
    json.dumps(told, allow_nan=False)
    if codec is HermesCodec:
        assert json.dumps(told) in codec([schema]).tool_instructions(None)


PAINTED = '"shape": "FLAT", "at": [1], "weights": {"a": 1}'


@pytest.mark.parametrize(
    ("function", "query", "reply"),
    [
        (search, "torsors", "'torsors' 5 fast"),
        (search, '{"query": "x", "limit": 2, "mode": "slow"}', "'x' 2 slow"),
        (search, '{"of": "another kind"}', '\'{"of": "another kind"}\' 5 fast'),
        (search, "[1]", "'[1]' 5 fast"),
        (search, "NaN", "'NaN' 5 fast"),
        (search, "7" * 5000, f"'{'7' * 5000}' 5 fast"),
        (
            search,
            '{"query": "x", "mode": "slo"}',
            'error: ValueError: mode must be one of "fast", "slow", got "slo"',
        ),
        (
            search,
            '{"query": "x", "mdoe": "slow"}',
            (
                "error: ValueError: there is no argument 'mdoe'. Valid: limit, mode,"
                " query. Did you mean 'mode'?"
            ),
        ),
        (
            search,
            '{"limit": 2}',
            (
                "error: ValueError: the argument 'query' is missing; the arguments must"
                " be a JSON object with query, limit, mode"
            ),
        ),
        (
            search,
            '{"query": "x", "limit": 1e400}',
            (
                "error: ValueError: the arguments must be a JSON object with query,"
                " limit, mode: 1e400 is no JSON number; numbers must be finite"
            ),
        ),
        (
            search,
            '{"query": "x", "query": "y"}',
            (
                "error: ValueError: the arguments must be a JSON object with query,"
                " limit, mode: a name stands twice in one JSON object"
            ),
        ),
        (
            paint,
            f'{{"colour": "red", {PAINTED}}}',
            "Colour.RED Shape.FLAT [1] {'a': 1} None 'a'",
        ),
        (
            paint,
            f'{{"colour": "blue", {PAINTED}, "size": null, "label": 7}}',
            "Colour.BLUE Shape.FLAT [1] {'a': 1} None 7",
        ),
        (
            paint,
            f'{{"colour": "RED", {PAINTED}}}',
            'error: ValueError: colour must be one of "red", "blue", got "RED"',
        ),
        (
            paint,
            f'{{"colour": "red", {PAINTED}, "label": true}}',
            "error: ValueError: label must be of type string or integer, got true",
        ),
        (
            paint,
            '{"at": [1, true]}',
            "error: ValueError: at must be of type array of integer, got an array of 2",
        ),
        (
            paint,
            '{"weights": {"a": "b"}}',
            (
                "error: ValueError: weights must be of type object of number, got an"
                " object of 1"
            ),
        ),
        (
            paint,
            '{"weights": NaN}',
            (
                "error: ValueError: the arguments must be a JSON object with colour,"
                " shape, at, weights, size, label: NaN is no JSON number; numbers must"
                " be finite"
            ),
        ),
        (
            paint,
            f'{{"at": {"[" * 400}{"]" * 400}}}',
            "error: ValueError: at must be of type array of integer, got an array of 1",
        ),
        (pick, '{"mode": 1}', "1 inf"),
        (pick, '{"mode": true, "when": 2}', "True 2"),
        (pick, '{"mode": null}', "None inf"),
        (
            pick,
            '{"mode": 1.0}',
            'error: ValueError: mode must be one of "fast", 1, true, null, got 1.0',
        ),
        (
            noted,
            '{"count": 1, "colours": ["red"]}',
            "1 [<Colour.RED: 'red'>]",
        ),
        (noted, '{"count": 1, "colours": null}', "1 None"),
    ],
)
def test_arguments_are_checked_and_given_as_they_are_typed(
    function: Callable[..., Any], query: str, reply: str
):
    assert call(function, query) == reply


def of_bytes(a: list[bytes]) -> str:
    """A."""
    return str(a)


def of_tuple(a: tuple[int, int]) -> str:
    """A."""
    return str(a)


def of_number_names(a: dict[int, str]) -> str:
    """A."""
    return str(a)


def of_literal_bytes(a: Literal[b"x"]) -> str:
    """A."""
    return str(a)


def of_either(a: int | complex) -> str:
    """A."""
    return str(a)


@pytest.mark.parametrize(
    "function", [of_bytes, of_tuple, of_number_names, of_literal_bytes, of_either]
)
def test_types_that_json_has_not_are_named(function: Callable[..., Any]):
    message = (
        f"tool '{function.__name__}': parameter 'a' must be typed as one of str,"
        " .*Literal.*Enum"
    )
    with pytest.raises(ConfigError, match=message):
        Tool(function)


@pytest.mark.parametrize(
    "docstring",
    ["Args:", ":param", ":param a", "Args:\n    a\n  b: c", "---\n---", "Returns\n---"],
)
def test_odd_docstrings_do_no_harm(docstring: str):
    def odd(a: int) -> int:
        return a

    odd.__doc__ = docstring
    assert Tool(odd).schema.description
    assert list(Tool(odd).schema.parameters) == ["a"]


SCHEMA = ToolSchema(
    "t",
    "T.",
    {
        "text": {"type": "string"},
        "limit": {"type": ["integer", "null"]},
        "at": {"type": "array", "items": {"type": "number"}},
        "any": {"anyOf": [{"enum": ["a"]}, {"type": "object"}]},
    },
    ("text",),
)
NAMES = st.sampled_from(["text", "limit", "at", "any", "none"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
WRITTEN = st.one_of(
    st.text(),
    st.dictionaries(NAMES, VALUES).map(json.dumps),
    st.text(st.sampled_from('{}[]",:0naNIe1 \\u"tfl\ud800')),
)


@given(WRITTEN)
def test_any_text_is_read_or_refused_in_words(query: str):
    fault = ""
    try:
        read = read_arguments(query, SCHEMA)
    except ValueError as error:
        fault, read = str(error), {"text": "refused"}
    assert len(fault) < 500
    assert isinstance(read["text"], str)
    assert read.keys() <= SCHEMA.parameters.keys()
    assert type(read.get("limit")) in (int, type(None))
    for number in read.get("at", []):
        assert type(number) in (int, float)
        assert math.isfinite(number)


@pytest.mark.parametrize(
    "query",
    [
        '{"at": ' + "[" * 99_000,
        '{"any": ' + '{"a":' * 19_000,
        '{"limit": ' + "9" * 99_000 + "}",
        "{" + ", ".join(f'"n{n}": 1' for n in range(9_000)) + ', "text": ""}',
        '{"' + "x" * 99_000 + '": 1, "text": ""}',
    ],
    ids=["deep array", "deep object", "huge number", "many names", "long name"],
)
def test_hostile_arguments_are_refused_in_words(query: str):
    wants_two = replace(SCHEMA, required=("text", "limit"))
    with pytest.raises(ValueError, match=".") as refused:
        read_arguments(query, wants_two)
    assert len(str(refused.value)) < 500


def test_a_foreign_schema_is_kept_as_far_as_it_is_understood():
    assert foreign_schema({"type": "integer", "title": "A", "minimum": 3}) == {
        "type": "integer"
    }
    optional = {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}
    assert foreign_schema(optional) == {"type": ["integer", "null"], "default": None}
    odd = {"type": "date", "enum": [[]], "anyOf": 3, "description": 4, "default": {}}
    for nothing in (odd, "x", None, {"type": {}}, {"$ref": "#"}):
        assert foreign_schema(nothing) == {}
    deep: dict = {}
    for _ in range(5000):
        deep = {"type": "array", "items": deep}
    assert foreign_schema(deep) == {"type": "array", "items": {"type": "array"}}
    assert foreign_schema({"description": "a\n b" + "c" * 999})["description"] == (
        "a b" + "c" * 297
    )
