"""Calls as JSON in `<tool_call>` tags: what Qwen and most chat models were trained to
write.

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
    read_json,
    wrapped,
)
from aipo_env.codecs.words import at_most
from aipo_env.records import CONSULT_KINDS, Call, ConsultKind, Span

_MARK = re.compile(r"<(/?)(tool_call)>")
_REPLY_MARK = re.compile(r"</?tool_response\b", re.IGNORECASE)
_HOW = (
    "To call one, end your turn with a JSON object of its name and arguments within"
    ' <tool_call></tool_call> tags:\n<tool_call>\n{"name": "<function>", "arguments":'
    ' {"<argument>": "<value>"}}\n</tool_call>'
)


class HermesCodec:
    """One function `consult(kind, query)` and the tools, called in JSON."""

    unavailable = "unavailable"
    denied = "no consultations left"

    def __init__(
        self,
        tools: Sequence[ToolSchema] = (),
        kinds: Sequence[ConsultKind] = CONSULT_KINDS,
    ) -> None:
        self.tools, self.kinds = tuple(tools), tuple(kinds)
        consult = ("consult",) if self.kinds else ()
        self._names = (*consult, *(tool.name for tool in self.tools))

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt that explains `consult`; empty without
        agents.
        """
        if not kinds:
            return ""
        return (
            f"# Agents\n\nYou may call functions when you are stuck, at most {budget}"
            " times. Their signatures stand within <tools></tools>"
            f" tags:\n{_listed([_consult(kinds)])}\n\n{_HOW}\nThe reply comes in your"
            " next turn. Use it, then go on."
        )

    def tool_instructions(self, budget: int | None) -> str:
        """Return the part of the prompt that gives the tools' schemas and the form of a
        call.
        """
        if not self.tools:
            return ""
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
        pairs = paired(_MARK.finditer(text) if self._names else ())
        calls = (
            self._read(text[opened.end() : closed.start()]) for opened, closed in pairs
        )
        return parsed(calls, len(_REPLY_MARK.findall(text)))

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion, markup included; none if it
        is malformed.
        """
        pairs = paired(_MARK.finditer(text)) if self.parse(text).calls else ()
        return [(opened.start(), closed.end()) for opened, closed in pairs]

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply; its body is quoted, every `<` escaped, so that it cannot end
        its own wrapper.
        """
        opening = f'<tool_response>\n{{"name": {json.dumps(kind)}, "content": "'
        return wrapped(opening, quoted(body.text), '"}\n</tool_response>', body)

    def functions(self, kinds: Sequence[ConsultKind]) -> list[dict[str, Any]]:
        """Return `consult` and the tools as OpenAI-style function schemas."""
        consult = (_consult(kinds),) if kinds else ()
        return [_function(tool) for tool in (*consult, *self.tools)]

    def _read(self, text: str) -> Call:
        """Read a call's JSON text."""
        try:
            return self.as_call(read_json(text))
        except (ValueError, RecursionError):
            raise Malformed(
                'a call must be one JSON object, {"name": …, "arguments": {…}}'
            ) from None

    def as_call(self, row: Any) -> Call:
        """Return the call that an object of "name" and "arguments" is.

        Raises:
            Malformed: It is none.
        """
        row = row if isinstance(row, dict) else {}
        name, arguments = row.get("name"), row.get("arguments")
        if name not in self._names:
            raise Malformed(f"'name' must be one of: {', '.join(self._names)}")
        if not isinstance(arguments, dict):
            raise Malformed("'arguments' must be a JSON object")
        if name != "consult":
            return Call(name, json.dumps(arguments, ensure_ascii=False))
        kind, query = arguments.get("kind"), arguments.get("query")
        if kind not in self.kinds:
            raise Malformed(f"'kind' must be one of: {', '.join(self.kinds)}")
        if not isinstance(query, str) or not query.strip():
            raise Malformed("'query' must be text that is not empty")
        return Call(kind, query.strip())


def _consult(kinds: Sequence[ConsultKind]) -> ToolSchema:
    uses = "; ".join(f"{kind}: {AGENT_USES[kind]}" for kind in kinds)
    kind = {"type": "string", "enum": list(kinds), "description": uses}
    parameters = {"kind": kind, "query": {"type": "string"}}
    return ToolSchema("consult", "Consult an agent.", parameters, tuple(parameters))


def _listed(tools: Sequence[ToolSchema]) -> str:
    signatures = "\n".join(json.dumps(_function(tool)) for tool in tools)
    return f"<tools>\n{signatures}\n</tools>"


def _function(tool: ToolSchema) -> dict[str, Any]:
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
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("<", "\\u003c")
