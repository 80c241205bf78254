"""What a codec is: how calls and replies look in text. Every codec scans in time linear in the text."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aipo_env.records import Author, Call, ConsultKind, Span

AGENT_USES: Mapping[ConsultKind, str] = {
    "knowledge": "asks for a fact or definition; write a self-contained question",
    "reason": "asks for the next step",
    "verify": "asks whether a claim of yours is right",
}
"""What each agent role is for, in the words of a prompt."""


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool as a policy is told of it; `parameters` is a JSON schema's "properties"."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a completion asks for: calls in order, or what is malformed about it; neither is an answer.

    `num_forged` counts marks of a reply that the policy wrote itself: its own words, never a reply.
    """

    calls: tuple[Call, ...] = ()
    malformed: str = ""
    num_forged: int = 0


class Malformed(Exception):
    """A call that cannot be read; the message tells the policy why."""


class Codec(Protocol):
    """How calls and replies look in text. A codec is made with the tools there are: `TagsCodec(tools)`."""

    unavailable: str
    denied: str

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt that explains how to consult these agents and the tools."""

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the strings after which a sampler must stop."""

    def macros(self, kinds: Sequence[ConsultKind]) -> Mapping[str, tuple[str, str]]:
        """Return what opens and closes a call of each kind or tool, for tokenizers that keep it whole.

        Empty where a query has to be quoted.
        """

    def parse(self, text: str) -> Parsed:
        """Read one completion."""

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion, markup included; none if it is malformed."""

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply; the wrapper's author is the environment. No body can end its own wrapper."""


def parsed(calls: Iterable[Call], num_forged: int) -> Parsed:
    """Read calls to their end, or up to the first that is malformed, which spoils them all."""
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
    """Yield each opening tag with its closing one; their groups are a slash, if any, and the name.

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
    return Span(opening, Author.ENV), inner, Span(closing, Author.ENV)
