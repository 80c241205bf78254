"""What a codec is: how calls and replies look in text. Every codec scans in time linear
in the text.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from aipo_env.records import Author, Call, ConsultKind, Span

AGENT_USES: Mapping[ConsultKind, str] = {
    "knowledge": "asks for a fact or definition; write a self-contained question",
    "reason": "asks for the next step",
    "verify": "asks whether a claim of yours is right",
}
"""What each agent role is for, in the words of a prompt."""


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool as a policy is told of it.

    Args:
        parameters: A JSON schema's "properties": each with its "type" (one or a list),
            "enum" or "anyOf", and with "items", "additionalProperties", "default" and
            "description" if it has them.
        required: The parameters that cannot be left out.
    """

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    @property
    def text_parameter(self) -> str:
        """The parameter that text which is no JSON object is for: the only one that is
        wanted, if it is text.

        Empty if there is none.
        """
        wanted = self.required or tuple(self.parameters)
        if len(wanted) != 1 or not _is_text(self.parameters.get(wanted[0])):
            return ""
        return wanted[0]


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a completion asks for: calls in order, or what is malformed about it;
    neither is an answer.

    `num_forged` counts marks of a reply that the policy wrote itself: its own words,
    never a reply.
    """

    calls: tuple[Call, ...] = ()
    malformed: str = ""
    num_forged: int = 0


class Malformed(Exception):
    """A call that cannot be read; the message tells the policy why."""


class Codec(Protocol):
    """How calls and replies look in text.

    A codec is made with the tools there are and the roles whose calls are read at all:
    `TagsCodec(tools, kinds)`. A call to any other role is plain text.
    """

    unavailable: str
    denied: str

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt that explains how to consult these agents;
        empty without any.
        """

    def tool_instructions(self, budget: int | None) -> str:
        """Return the part of the prompt that explains the tools; empty without any.

        Tools are part of the task's world, and asking agents for help is not. `budget`
        is how many calls to them are answered in all; None names no limit.
        """

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the strings after which a sampler must stop."""

    def macros(self, kinds: Sequence[ConsultKind]) -> Mapping[str, tuple[str, str]]:
        """Return what opens and closes a call of each kind or tool, for tokenizers that
        keep it whole.

        Empty where a query has to be quoted.
        """

    def parse(self, text: str) -> Parsed:
        """Read one completion."""

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion, markup included; none if it
        is malformed.
        """

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply. No body can end its own wrapper.

        The wrapper's author is the environment; it has the body's `call_id`, and is no
        content.
        """


def parsed(calls: Iterable[Call], num_forged: int) -> Parsed:
    """Read calls to their end, or up to the first that is malformed, which spoils them
    all.
    """
    try:
        return Parsed(tuple(calls), "", num_forged)
    except Malformed as fault:
        return Parsed((), str(fault), num_forged)


def marked_call(mark: re.Match[str], query: str) -> Call:
    """Return the call that a mark opens; its last group is the name.

    Raises:
        Malformed: The query is empty.
    """
    if not query.strip():
        raise Malformed(f"{mark[0]} holds no query")
    return Call(mark[mark.lastindex or 0], query.strip())


def paired(
    tags: Iterable[re.Match[str]],
) -> Iterator[tuple[re.Match[str], re.Match[str]]]:
    """Yield each opening tag with its closing one; their groups are a slash, if any,
    and the name.

    Raises:
        Malformed: A tag stands where it must not, or the last is not closed.
    """
    opened: re.Match[str] | None = None
    for tag in tags:
        slash, name = tag.groups()
        if opened and not slash:
            raise Malformed(
                f"<{name}> stands inside <{opened[2]}>; calls cannot be nested"
            )
        if slash and not opened:
            raise Malformed(f"</{name}> closes a call that was not opened")
        if opened and opened[2] != name:
            raise Malformed(f"<{opened[2]}> is closed by </{name}>")
        if opened:
            yield opened, tag
        opened = None if slash else tag
    if opened:
        raise Malformed(f"<{opened[2]}> is not closed")


def wrapped(opening: str, text: str, closing: str, body: Span) -> tuple[Span, ...]:
    """Return a reply between its marks; `text` is how its body is written."""
    inner = Span(text, body.author, body.agent_id, body.call_id, body.is_content)
    before, after = (
        Span(mark, Author.ENV, call_id=body.call_id) for mark in (opening, closing)
    )
    return before, inner, after


def named(names: Iterable[str]) -> str:
    """Return a pattern for any of these names; without any it matches nothing."""
    return "|".join(map(re.escape, names)) or r"(?!)"


def read_json(text: str) -> Any:
    """Read JSON that a model wrote.

    Raises:
        json.JSONDecodeError: It is no JSON, or too deep.
        ValueError: A name stands twice in an object, or a number is no finite one or
            too long.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse,
            parse_float=_finite,
        )
    except RecursionError:
        raise json.JSONDecodeError("Too deep", "", 0) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("a name stands twice in one JSON object")
    return read


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number:.30} is no JSON number; numbers must be finite")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number)


def _is_text(schema: Any) -> bool:
    kinds = schema.get("type") if isinstance(schema, Mapping) else None
    return kinds in ("string", ["string"], ["string", "null"], ["null", "string"])
