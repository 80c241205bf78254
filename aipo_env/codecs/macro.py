"""Calls by one opening mark, ended by the end of the turn: for small policies and one
macro token per agent.

A call is `<|verify|>2+2=4` and the end of the turn; a further mark begins a further
call. A reply is `<|reply|>right;<|/reply|>`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from aipo_env.codecs.base import Parsed, ToolSchema, marked_call, named, parsed, wrapped
from aipo_env.codecs.tags import TagsCodec
from aipo_env.records import CONSULT_KINDS, ConsultKind, Span

_REPLY_MARK = re.compile(r"<\|/?reply\|>", re.IGNORECASE)


class MacroCodec(TagsCodec):
    """One mark per agent role or tool; all behind it is the query."""

    def __init__(
        self,
        tools: Sequence[ToolSchema] = (),
        kinds: Sequence[ConsultKind] = CONSULT_KINDS,
    ) -> None:
        super().__init__(tools, kinds)
        names = (*self.kinds, *(tool.name for tool in self.tools))
        self._mark = re.compile(rf"<\|({named(names)})\|>")
        marks = named(("reply", *names))
        self._any_mark = re.compile(rf"<(\|/?(?:{marks})\|>)", re.IGNORECASE)

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return nothing: a call ends with its turn."""
        return ()

    def macros(self, kinds: Sequence[ConsultKind]) -> Mapping[str, tuple[str, str]]:
        """Return the mark by kind and tool; nothing closes a call."""
        return {
            name: (f"<|{name}|>", "")
            for name in (*kinds, *(tool.name for tool in self.tools))
        }

    def parse(self, text: str) -> Parsed:
        """Read the calls of one completion; one without a query spoils the turn."""
        calls = (
            marked_call(mark, text[mark.end() : end]) for mark, end in self._marks(text)
        )
        return parsed(calls, len(_REPLY_MARK.findall(text)))

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion, marks included; none if it
        is malformed.
        """
        marks = self._marks(text) if self.parse(text).calls else ()
        return [(mark.start(), end) for mark, end in marks]

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply; marks inside it are broken up, so that it can neither end its
        wrapper nor call.
        """
        return wrapped(
            "<|reply|>", self._any_mark.sub(r"< \1", body.text), "<|/reply|>", body
        )

    def _form(self, name: str) -> str:
        """Return what a call looks like, in the words of a prompt."""
        return f"<|{name}|>…"

    def _marks(self, text: str) -> Iterator[tuple[re.Match[str], int]]:
        """Return the marks, each with where its query ends."""
        marks = list(self._mark.finditer(text))
        return zip(
            marks, [*(mark.start() for mark in marks[1:]), len(text)], strict=False
        )
