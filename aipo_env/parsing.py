"""Reading what a policy wrote: the consult markup and nothing else. Every scan is linear in the text.

A codec is a `Codec`; `TagsCodec`, the default for small and base models, writes a call as
`<knowledge>What is a torsor?</knowledge>` and a reply as `<reply from="knowledge">…</reply>`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aipo_env.records import CONSULT_KINDS, Author, Call, ConsultKind, Span, check_kind

_TAG = re.compile(rf"<(/?)({'|'.join(CONSULT_KINDS)})>")
_REPLY_MARK = re.compile(r"<(/?)(reply\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a completion asks for: calls in order, or what is malformed about it; neither is an answer.

    `num_forged` counts marks of a reply that the policy wrote itself: its own words, never a reply.
    """

    calls: tuple[Call, ...] = ()
    malformed: str = ""
    num_forged: int = 0


class Codec(Protocol):
    """How calls and replies look in text."""

    unavailable: str
    denied: str

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt that explains how to consult."""

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the strings after which a sampler must stop."""

    def parse(self, text: str) -> Parsed:
        """Read one completion."""

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion, markup included."""

    def render_reply(self, kind: ConsultKind, body: Span) -> tuple[Span, ...]:
        """Wrap a reply; the wrapper's author is the environment."""


class TagsCodec:
    """Calls as tags. One tag per agent role, the query between them, the turn ends at the closing tag."""

    unavailable = "unavailable"
    denied = "no consultations left"

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt that explains how to consult."""
        uses = {
            "knowledge": "asks for a fact or definition; write a self-contained question",
            "reason": "asks for the next step",
            "verify": "asks whether a claim of yours is right",
        }
        listed = "\n".join(f"<{kind}>…</{kind}> {uses[kind]}." for kind in kinds)
        return (
            f"When you are stuck you may consult an agent, at most {budget} times, by ending your turn with "
            f"one of:\n{listed}\nThe reply comes in your next turn. Use it, then go on."
        )

    def markup(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return every fixed string of the codec, for tokenizers that keep them whole."""
        tags = [f"<{slash}{kind}>" for kind in kinds for slash in ("", "/")]
        return (*tags, *(f'<reply from="{kind}">' for kind in kinds), "</reply>")

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the closing tags."""
        return tuple(f"</{kind}>" for kind in kinds)

    def parse(self, text: str) -> Parsed:
        """Read the calls of one completion.

        A call is well formed when its tags match, nothing is nested in it and its query is not empty. One
        malformed call spoils the turn: nothing in it is executed.
        """
        num_forged = len(_REPLY_MARK.findall(text))
        calls: list[Call] = []
        opened: re.Match[str] | None = None
        for tag in _TAG.finditer(text):
            closing, kind = tag.group(1) == "/", tag.group(2)
            if not closing and opened is not None:
                return Parsed(
                    (),
                    f"<{kind}> stands inside <{opened.group(2)}>; calls cannot be nested",
                    num_forged,
                )
            if not closing:
                opened = tag
                continue
            if opened is None:
                return Parsed((), f"</{kind}> closes a call that was not opened", num_forged)
            if opened.group(2) != kind:
                return Parsed((), f"<{opened.group(2)}> is closed by </{kind}>", num_forged)
            query = text[opened.end() : tag.start()].strip()
            if not query:
                return Parsed((), f"<{kind}> holds no query", num_forged)
            calls.append(Call(check_kind(kind), query))
            opened = None
        if opened is not None:
            return Parsed((), f"<{opened.group(2)}> is not closed", num_forged)
        return Parsed(tuple(calls), "", num_forged)

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion, markup included; none if it is malformed."""
        if not self.parse(text).calls:
            return []
        tags = list(_TAG.finditer(text))
        return [(opened.start(), closed.end()) for opened, closed in zip(tags[::2], tags[1::2], strict=True)]

    def render_reply(self, kind: ConsultKind, body: Span) -> tuple[Span, ...]:
        """Wrap a reply; marks of a reply inside it are broken up, so that it cannot end its own wrapper."""
        safe = _REPLY_MARK.sub(r"< \1\2", body.text)
        inner = Span(safe, body.author, body.agent_id, body.call_id, body.is_content)
        return (Span(f'<reply from="{kind}">', Author.ENV), inner, Span("</reply>", Author.ENV))
