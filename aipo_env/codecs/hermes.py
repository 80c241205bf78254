"""Calls as JSON in `<tool_call>` tags, as Qwen and most chat models write them.

    <tool_call>
    {"name": "consult", "arguments": {"kind": "verify", "query": "2+2=4"}}
    </tool_call>

A tool is called by its own name. A reply is JSON in `<tool_response>`. A call counts
wherever it stands, in a `<think>` part too: the turn ends at its closing tag, and a
policy may well consult while it thinks.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aipo_env.codecs.base import (
    AGENT_USES,
    Malformed,
    Parsed,
    ToolSchema,
    paired,
    parsed,
    read_call_json,
    wrapped,
)
from aipo_env.codecs.words import at_most
from aipo_env.records import CONSULT_KINDS, Call, ConsultKind, Span

# The groups that `paired` reads: a slash, if any, and the name.
_MARK = re.compile(r"<(/?)(tool_call)>")
# <tool_response>, </TOOL_RESPONSE, <tool_response id=…
_REPLY_MARK = re.compile(r"</?tool_response\b", re.IGNORECASE)
_HOW = (
    "To call one, end your turn with a JSON object of its name and arguments within"
    ' <tool_call></tool_call> tags:\n<tool_call>\n{"name": "<function>", "arguments":'
    ' {"<argument>": "<value>"}}\n</tool_call>'
)
_CONSULT_NAME = "consult"
"""The function by which agents are asked."""


class HermesCodec:
    """One function `consult(kind, query)` and the tools, called in JSON."""

    unavailable = "unavailable"
    denied = "no consultations left"

    def __init__(
        self,
        tools: Sequence[ToolSchema] = (),
        kinds: Sequence[ConsultKind] = CONSULT_KINDS,
    ) -> None:
        self.tools = tuple(tools)
        self.kinds = tuple(kinds)
        consult = (_CONSULT_NAME,) if self.kinds else ()
        self._names = (*consult, *(tool.name for tool in self.tools))

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt on `consult`; empty without agents."""
        if not kinds:
            return ""
        signatures = _listed([_consult(kinds)])
        return (
            f"# Agents\n\nYou may call functions when you are stuck, at most {budget}"
            " times. Their signatures stand within <tools></tools>"
            f" tags:\n{signatures}\n\n{_HOW}\nThe reply comes in your"
            " next turn. Use it, then go on."
        )

    def tool_instructions(self, budget: int | None) -> str:
        """Return the part of the prompt on the tools: their schemas, how to call."""
        if not self.tools:
            return ""
        # The words end with a comma for a sentence that goes on; this one ends.
        limit = at_most(budget).rstrip(",")
        return (
            f"# Tools\n\nYou may call these functions{limit}. Their signatures stand"
            f" within <tools></tools> tags:\n{_listed(self.tools)}\n\n{_HOW}\nThe"
            " result comes in your next turn."
        )

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the closing tag, if there is anything to call."""
        return ("</tool_call>",) if kinds or self.tools else ()

    def macros(self, kinds: Sequence[ConsultKind]) -> Mapping[str, tuple[str, str]]:
        """Return nothing: a query has to be quoted."""
        return {}

    def parse(self, text: str) -> Parsed:
        """Read the calls of one completion; one malformed call spoils the turn."""
        # With nothing to call, the marks are plain text.
        marks = _MARK.finditer(text) if self._names else ()
        # Lazily: `parsed` turns what pairing and reading raise into a malformed turn.
        calls = (
            self._read(text[opening.end() : closing.start()])
            for opening, closing in paired(marks)
        )
        num_forged = len(_REPLY_MARK.findall(text))
        return parsed(calls, num_forged)

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end, markup included; none if malformed."""
        # A malformed text must be found out first: `paired` would raise.
        if not self.parse(text).calls:
            return []
        pairs = paired(_MARK.finditer(text))
        return [(opening.start(), closing.end()) for opening, closing in pairs]

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply, whose body is quoted without `<`: it cannot end itself."""
        opening = f'<tool_response>\n{{"name": {json.dumps(kind)}, "content": "'
        return wrapped(opening, quoted(body.text), '"}\n</tool_response>', body)

    def functions(self, kinds: Sequence[ConsultKind]) -> list[dict[str, Any]]:
        """Return `consult` and the tools as OpenAI-style function schemas."""
        consult = (_consult(kinds),) if kinds else ()
        schemas = (*consult, *self.tools)
        return [_function(schema) for schema in schemas]

    def _read(self, text: str) -> Call:
        """Read a call's JSON text."""
        try:
            row = read_call_json(text)
            return self.as_call(row)
        except (ValueError, RecursionError):
            raise Malformed(
                'a call must be one JSON object, {"name": …, "arguments": {…}}'
            ) from None

    def as_call(self, row: Any) -> Call:
        """Return the call that an object of "name" and "arguments" is.

        Raises:
            Malformed: It is none.
        """
        if not isinstance(row, dict):
            row = {}
        name = row.get("name")
        arguments = row.get("arguments")
        if name not in self._names:
            raise Malformed(f"'name' must be one of: {', '.join(self._names)}")
        if not isinstance(arguments, dict):
            raise Malformed("'arguments' must be a JSON object")
        if name != _CONSULT_NAME:
            # A tool reads its arguments itself, and tells what is wrong with them.
            return Call(name, json.dumps(arguments, ensure_ascii=False))
        kind = arguments.get("kind")
        query = arguments.get("query")
        if kind not in self.kinds:
            raise Malformed(f"'kind' must be one of: {', '.join(self.kinds)}")
        if not isinstance(query, str) or not query.strip():
            raise Malformed("'query' must be text that is not empty")
        return Call(kind, query.strip())


def _consult(kinds: Sequence[ConsultKind]) -> ToolSchema:
    """Return `consult`, by which these roles are asked, as a tool."""
    uses = "; ".join(f"{kind}: {AGENT_USES[kind]}" for kind in kinds)
    kind = {"type": "string", "enum": list(kinds), "description": uses}
    parameters = {"kind": kind, "query": {"type": "string"}}
    required = tuple(parameters)
    return ToolSchema(_CONSULT_NAME, "Consult an agent.", parameters, required)


def _listed(tools: Sequence[ToolSchema]) -> str:
    """Return signatures one a line, in the tags that these models know."""
    signatures = "\n".join(json.dumps(_function(tool)) for tool in tools)
    return f"<tools>\n{signatures}\n</tools>"


def _function(tool: ToolSchema) -> dict[str, Any]:
    """Return a tool as an OpenAI-style function schema."""
    parameters = {
        "type": "object",
        "properties": dict(tool.parameters),
        "required": list(tool.required),
    }
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
    }
    return {"type": "function", "function": function}


def quoted(text: str) -> str:
    """Return a text as the inside of a JSON string without `<`."""
    inside = json.dumps(text, ensure_ascii=False)[1:-1]
    # JSON may write any character by its number: the meaning stays, a tag cannot form.
    return inside.replace("<", "\\u003c")
