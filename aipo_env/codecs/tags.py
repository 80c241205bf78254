"""Calls as tags: the default for small and base models.

A call is `<knowledge>What is a torsor?</knowledge>`, a reply `<reply
from="knowledge">…</reply>`.
"""

import re
from collections.abc import Mapping, Sequence

from aipo_env.codecs.base import (
    AGENT_USES,
    Parsed,
    ToolSchema,
    marked_call,
    named,
    paired,
    parsed,
    wrapped,
)
from aipo_env.codecs.words import at_most, use_words
from aipo_env.records import CONSULT_KINDS, ConsultKind, Span

_REPLY_MARK = re.compile(r"<(/?)(reply\b)", re.IGNORECASE)


class TagsCodec:
    """One tag per agent role or tool, the query between them; the turn ends at the
    closing tag.
    """

    unavailable = "unavailable"
    denied = "no consultations left"

    def __init__(
        self,
        tools: Sequence[ToolSchema] = (),
        kinds: Sequence[ConsultKind] = CONSULT_KINDS,
    ) -> None:
        self.tools, self.kinds = tuple(tools), tuple(kinds)
        names = (*self.kinds, *(tool.name for tool in self.tools))
        self._tag = re.compile(rf"<(/?)({named(names)})>")

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt that explains how to consult; empty without
        agents.
        """
        if not kinds:
            return ""
        listed = "\n".join(f"{self._form(kind)} {AGENT_USES[kind]}." for kind in kinds)
        return (
            f"When you are stuck you may consult an agent, at most {budget} times, by"
            f" ending your turn with one of:\n{listed}\nThe reply comes in your next"
            " turn. Use it, then go on."
        )

    def tool_instructions(self, budget: int | None) -> str:
        """Return the part of the prompt that explains the tools; empty without
        tools.
        """
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
        """Return every fixed string of the codec, for tokenizers that keep them
        whole.
        """
        tags = [tag for macro in self.macros(kinds).values() for tag in macro]
        return (*tags, *(f'<reply from="{kind}">' for kind in kinds), "</reply>")

    def macros(self, kinds: Sequence[ConsultKind]) -> Mapping[str, tuple[str, str]]:
        """Return opening and closing tag by kind and tool."""
        names = (*kinds, *(tool.name for tool in self.tools))
        return {name: (f"<{name}>", f"</{name}>") for name in names}

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the closing tags."""
        return tuple(closing for _, closing in self.macros(kinds).values())

    def parse(self, text: str) -> Parsed:
        """Read the calls of one completion.

        A call is well formed when its tags match, nothing is nested in it and its query
        is not empty. One malformed call spoils the turn: nothing in it is executed.
        """
        pairs = paired(self._tag.finditer(text))
        calls = (
            marked_call(opened, text[opened.end() : closed.start()])
            for opened, closed in pairs
        )
        return parsed(calls, len(_REPLY_MARK.findall(text)))

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion, markup included; none if it
        is malformed.
        """
        pairs = paired(self._tag.finditer(text)) if self.parse(text).calls else ()
        return [(opened.start(), closed.end()) for opened, closed in pairs]

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply; marks of a reply inside it are broken up, so that it cannot end
        its own wrapper.
        """
        return wrapped(
            f'<reply from="{kind}">',
            _REPLY_MARK.sub(r"< \1\2", body.text),
            "</reply>",
            body,
        )

    def _form(self, name: str) -> str:
        """Return what a call looks like, in the words of a prompt."""
        return f"<{name}>…</{name}>"
