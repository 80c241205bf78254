"""Calls as tags: the default for small and base models.

A call is `<knowledge>What is a torsor?</knowledge>`, a reply `<reply
from="knowledge">…</reply>`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from aipo_env.codecs.base import (
    AGENT_USES,
    Parsed,
    ToolSchema,
    alternation,
    marked_call,
    paired,
    parsed,
    wrapped,
)
from aipo_env.codecs.words import at_most, use_words
from aipo_env.records import CONSULT_KINDS, ConsultKind, Span

# <reply from="verify">, </reply>, <REPLY: a reader takes each for a reply, so that what
# follows the name does not matter.
_REPLY_MARK = re.compile(r"<(/?)(reply\b)", re.IGNORECASE)


class TagsCodec:
    """One tag per agent role or tool, the query in it; its closing ends the turn."""

    unavailable = "unavailable"
    denied = "no consultations left"

    def __init__(
        self,
        tools: Sequence[ToolSchema] = (),
        kinds: Sequence[ConsultKind] = CONSULT_KINDS,
    ) -> None:
        self.tools = tuple(tools)
        self.kinds = tuple(kinds)
        names = self._callable_names(self.kinds)
        # The groups that `paired` reads: a slash, if any, and the name.
        self._tag = re.compile(rf"<(/?)({alternation(names)})>")

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt on how to consult; empty without agents."""
        if not kinds:
            return ""
        listed = "\n".join(f"{self._form(kind)} {AGENT_USES[kind]}." for kind in kinds)
        return (
            f"When you are stuck you may consult an agent, at most {budget} times, by"
            f" ending your turn with one of:\n{listed}\nThe reply comes in your next"
            " turn. Use it, then go on."
        )

    def tool_instructions(self, budget: int | None) -> str:
        """Return the part of the prompt on the tools; empty without tools."""
        if not self.tools:
            return ""
        listed = "\n".join(
            f"{self._form(tool.name)} {use_words(tool)}." for tool in self.tools
        )
        return (
            f"You may call these tools{at_most(budget)} by ending your turn with one"
            f" of:\n{listed}\nThe result comes in your next turn."
        )

    def markup(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return every fixed string, for tokenizers that keep them whole."""
        call_marks = [
            mark
            for opening_and_closing in self.macros(kinds).values()
            for mark in opening_and_closing
        ]
        reply_marks = [f'<reply from="{kind}">' for kind in kinds]
        return (*call_marks, *reply_marks, "</reply>")

    def macros(self, kinds: Sequence[ConsultKind]) -> Mapping[str, tuple[str, str]]:
        """Return opening and closing tag by kind and tool."""
        names = self._callable_names(kinds)
        return {name: (f"<{name}>", f"</{name}>") for name in names}

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the closing tags."""
        return tuple(closing for _, closing in self.macros(kinds).values())

    def parse(self, text: str) -> Parsed:
        """Read the calls of one completion.

        A call is well formed when its tags match, nothing is nested in it and its query
        is not empty. One malformed call spoils the turn: nothing in it is executed.
        """
        # Lazily: `parsed` turns what the pairing raises into a malformed turn.
        calls = (
            marked_call(opening, text[opening.end() : closing.start()])
            for opening, closing in self._pairs(text)
        )
        num_forged = len(_REPLY_MARK.findall(text))
        return parsed(calls, num_forged)

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end, markup included; none if malformed."""
        # A malformed text must be found out first: the pairing would raise.
        if not self.parse(text).calls:
            return []
        return [
            (opening.start(), closing.end()) for opening, closing in self._pairs(text)
        ]

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply; marks of a reply inside are broken up: it cannot end itself.

        `</reply>` in a body becomes `< /reply>`.
        """
        harmless = _REPLY_MARK.sub(r"< \1\2", body.text)
        return wrapped(f'<reply from="{kind}">', harmless, "</reply>", body)

    def _callable_names(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the names that calls may have: these kinds, then the tools."""
        return (*kinds, *(tool.name for tool in self.tools))

    def _pairs(self, text: str) -> Iterator[tuple[re.Match[str], re.Match[str]]]:
        """Yield each opening tag of a text with its closing one; see `paired`."""
        return paired(self._tag.finditer(text))

    def _form(self, name: str) -> str:
        """Return what a call looks like, in the words of a prompt."""
        return f"<{name}>…</{name}>"
