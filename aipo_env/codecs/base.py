"""What a codec is: how calls and replies look in text.

Every codec scans in time linear in the text, which a policy wrote and may be hostile.
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

_TEXT_TYPES = ("string", ["string"], ["string", "null"], ["null", "string"])
"""The "type" of a JSON schema that takes text."""


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
        """The parameter that a query in plain text is for; empty if there is none.

        It is the only required parameter, or the only one at all, if it takes text.
        """
        candidates = self.required or tuple(self.parameters)
        if len(candidates) != 1:
            return ""
        [name] = candidates
        return name if _is_text(self.parameters.get(name)) else ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a completion asks for: calls in order, or what is malformed about it.

    With neither, the completion is an answer. `num_forged` counts marks of a reply that
    the policy wrote itself: its own words, never a reply.
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
        """Return the part of the prompt on how to consult; empty without agents."""

    def tool_instructions(self, budget: int | None) -> str:
        """Return the part of the prompt on the tools; empty without any.

        Tools are part of the task's world, and asking agents for help is not. `budget`
        is how many calls to them are answered in all; None names no limit.
        """

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the strings after which a sampler must stop."""

    def macros(self, kinds: Sequence[ConsultKind]) -> Mapping[str, tuple[str, str]]:
        """Return what opens and closes a call of each kind or tool.

        For tokenizers that keep these marks whole. Empty where a query has to be
        quoted: there a mark and plain text alone make no call.
        """

    def parse(self, text: str) -> Parsed:
        """Read one completion."""

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end, markup included; none if malformed."""

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply. No body can end its own wrapper.

        The wrapper's author is the environment; it has the body's `call_id`, and is no
        content.
        """


def parsed(calls: Iterable[Call], num_forged: int) -> Parsed:
    """Read calls to the end; the first that is malformed spoils them all.

    Args:
        calls: Best an iterator that reads as it goes: what it raises is taken here.
        num_forged: Marks of a reply in the completion.
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
    query = query.strip()
    if not query:
        raise Malformed(f"{mark[0]} holds no query")
    # The name alone in one codec, a slash before it in another: last in both.
    name = mark[mark.lastindex or 0]
    return Call(name, query)


def paired(
    tags: Iterable[re.Match[str]],
) -> Iterator[tuple[re.Match[str], re.Match[str]]]:
    """Yield each opening tag with its closing one.

    Args:
        tags: In the order of the text. The groups of each are a slash, empty in an
            opening tag, and the name.

    Raises:
        Malformed: A tag stands where it must not, or the last is not closed.
    """
    opening: re.Match[str] | None = None
    for tag in tags:
        slash, name = tag.groups()
        if opening is None:
            if slash:
                raise Malformed(f"</{name}> closes a call that was not opened")
            opening = tag
            continue
        open_name = opening[2]
        if not slash:
            # Calls are not nested, so that one open tag is all there is to remember.
            raise Malformed(
                f"<{name}> stands inside <{open_name}>; calls cannot be nested"
            )
        if name != open_name:
            raise Malformed(f"<{open_name}> is closed by </{name}>")
        yield opening, tag
        opening = None
    if opening is not None:
        raise Malformed(f"<{opening[2]}> is not closed")


def wrapped(opening: str, text: str, closing: str, body: Span) -> tuple[Span, ...]:
    """Return a reply between its marks.

    Args:
        text: How the body is written: escaped or broken up where it could end its
            wrapper.
    """
    inner = Span(text, body.author, body.agent_id, body.call_id, body.is_content)
    before = Span(opening, Author.ENV, call_id=body.call_id)
    after = Span(closing, Author.ENV, call_id=body.call_id)
    return before, inner, after


def alternation(names: Iterable[str]) -> str:
    """Return a pattern for any of these names; without any it matches nothing."""
    alternatives = "|".join(map(re.escape, names))
    # An empty pattern would match everywhere.
    return alternatives or r"(?!)"


def read_call_json(text: str) -> Any:
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
        # Thousands of brackets exhaust the stack: for the policy that is bad JSON.
        raise json.JSONDecodeError("Too deep", "", 0) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object without repeated names.

    Python keeps the last of two values, other readers the first: what a call means must
    not depend on who reads it.
    """
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a name stands twice in one JSON object")
    return row


def _refuse(number: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(f"{number:.30} is no JSON number; numbers must be finite")


def _finite(number: str) -> float:
    """Return a number with a fraction or an exponent; 1e999 would be infinite."""
    value = float(number)
    if not math.isfinite(value):
        _refuse(number)
    return value


def _is_text(schema: Any) -> bool:
    """Return whether a parameter takes text, or text and null, and nothing else."""
    if not isinstance(schema, Mapping):
        return False
    return schema.get("type") in _TEXT_TYPES
