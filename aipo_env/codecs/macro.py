"""Calls by one opening mark: for small policies, one macro token per agent.

A call is `<|verify|>2+2=4` and the end of the turn; a further mark begins a further
call. A reply is `<|reply|>right;<|/reply|>`.
"""

import re
from collections.abc import Mapping, Sequence

from aipo_env.codecs.base import (
    Parsed,
    ToolSchema,
    alternation,
    marked_call,
    parsed,
    wrapped,
)
from aipo_env.codecs.tags import TagsCodec
from aipo_env.records import CONSULT_KINDS, ConsultKind, Span

# <|reply|>, <|/reply|>, and the same in capitals: a reader takes both for a reply.
_REPLY_MARK = re.compile(r"<\|/?reply\|>", re.IGNORECASE)


class MacroCodec(TagsCodec):
    """One mark per agent role or tool; all behind it is the query."""

    def __init__(
        self,
        tools: Sequence[ToolSchema] = (),
        kinds: Sequence[ConsultKind] = CONSULT_KINDS,
    ) -> None:
        super().__init__(tools, kinds)
        names = self._callable_names(self.kinds)
        # A call counts only as it is spelled here: <|verify|>.
        self._mark = re.compile(rf"<\|({alternation(names)})\|>")
        # In a reply everything that looks like a mark is broken up, in capitals or
        # closing too: <|REPLY|>, <|/verify|>. All but the "<" is captured and kept.
        marks = alternation(("reply", *names))
        self._any_mark = re.compile(rf"<(\|/?(?:{marks})\|>)", re.IGNORECASE)

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return nothing: a call ends with its turn."""
        return ()

    def macros(self, kinds: Sequence[ConsultKind]) -> Mapping[str, tuple[str, str]]:
        """Return the mark by kind and tool; nothing closes a call."""
        return {name: (f"<|{name}|>", "") for name in self._callable_names(kinds)}

    def parse(self, text: str) -> Parsed:
        """Read the calls of one completion; one without a query spoils the turn."""
        # Lazily: the first call without a query is reported, the others not looked at.
        calls = (
            marked_call(mark, text[mark.end() : end]) for mark, end in self._marks(text)
        )
        num_forged = len(_REPLY_MARK.findall(text))
        return parsed(calls, num_forged)

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end, marks included; none if malformed."""
        if not self.parse(text).calls:
            return []
        return [(mark.start(), end) for mark, end in self._marks(text)]

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply; marks inside are broken up: it can neither end itself nor call.

        `<|verify|>` in a body becomes `< |verify|>`.
        """
        harmless = self._any_mark.sub(r"< \1", body.text)
        return wrapped("<|reply|>", harmless, "<|/reply|>", body)

    def _form(self, name: str) -> str:
        """Return what a call looks like, in the words of a prompt."""
        return f"<|{name}|>…"

    def _marks(self, text: str) -> list[tuple[re.Match[str], int]]:
        """Return the marks, each with where its query ends."""
        marks = list(self._mark.finditer(text))
        # A query reaches up to the next mark, and the last one to the end of the turn.
        starts = [mark.start() for mark in marks]
        ends = [*starts[1:], len(text)]
        # Without a mark there is one end more than there are marks, and no pair.
        return list(zip(marks, ends, strict=False))
