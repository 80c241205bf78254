"""Calls as JSON in `<tool_call>` tags: what Qwen and most chat models were trained to write.

    <tool_call>
    {"name": "consult", "arguments": {"kind": "verify", "query": "2+2=4"}}
    </tool_call>

A tool is called by its own name. A reply is JSON in `<tool_response>`. A call counts wherever it stands, in a
`<think>` part too: the turn ends at its closing tag, and a policy may well consult while it thinks.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aipo_env.codecs.base import AGENT_USES, Parsed, ToolSchema
from aipo_env.records import CONSULT_KINDS, Author, Call, ConsultKind, Span

_MARK = re.compile(r"<(/?)tool_call>")
_REPLY_MARK = re.compile(r"</?tool_response\b", re.IGNORECASE)


class HermesCodec:
    """One function `consult(kind, query)` and the tools, called in JSON."""

    unavailable = "unavailable"
    denied = "no consultations left"

    def __init__(self, tools: Sequence[ToolSchema] = ()) -> None:
        self.tools = tuple(tools)

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt that gives the functions' schemas and the form of a call."""
        listed = "\n".join(json.dumps(schema) for schema in function_schemas(self.tools, kinds))
        return (
            f"# Tools\n\nYou may call functions when you are stuck, at most {budget} times. Their signatures "
            f"stand within <tools></tools> tags:\n<tools>\n{listed}\n</tools>\n\nTo call one, end your turn "
            "with a JSON object of its name and arguments within <tool_call></tool_call> tags:\n<tool_call>\n"
            '{"name": "<function>", "arguments": {"<argument>": "<value>"}}\n</tool_call>\n'
            "The reply comes in your next turn. Use it, then go on."
        )

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the closing tag."""
        return ("</tool_call>",)

    def macros(self, kinds: Sequence[ConsultKind]) -> Mapping[str, tuple[str, str]]:
        """Return nothing: a query has to be quoted."""
        return {}

    def parse(self, text: str) -> Parsed:
        """Read the calls of one completion; one malformed call spoils the turn."""
        num_forged = len(_REPLY_MARK.findall(text))
        pairs, fault = _pairs(text)
        if fault:
            return Parsed((), fault, num_forged)
        calls = [read_call(text[opened.end() : closed.start()], self.tools) for opened, closed in pairs]
        return parsed_calls(calls, num_forged)

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion, markup included; none if it is malformed."""
        pairs = _pairs(text)[0] if self.parse(text).calls else []
        return [(opened.start(), closed.end()) for opened, closed in pairs]

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply; its body is quoted, every `<` escaped, so that it cannot end its own wrapper."""
        opening = f'<tool_response>\n{{"name": {json.dumps(kind)}, "content": "'
        return (Span(opening, Author.ENV), quoted(body), Span('"}\n</tool_response>', Author.ENV))


def function_schemas(tools: Sequence[ToolSchema], kinds: Sequence[ConsultKind]) -> list[dict[str, Any]]:
    """Return `consult` and the tools as OpenAI-style function schemas."""
    uses = "; ".join(f"{kind}: {AGENT_USES[kind]}" for kind in kinds)
    kind = {"type": "string", "enum": list(kinds), "description": uses}
    consult = ToolSchema("consult", "Consult an agent.", {"kind": kind, "query": {"type": "string"}})
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": {
                    "type": "object",
                    "properties": dict(tool.parameters),
                    "required": list(tool.parameters),
                },
            },
        }
        for tool in ([consult] if kinds else []) + list(tools)
    ]


def read_call(text: str, tools: Sequence[ToolSchema]) -> Call | str:
    """Read a call's JSON text; return the call, or what is wrong with it."""
    try:
        return as_call(json.loads(text), tools)
    except (ValueError, RecursionError):
        return 'a call must be one JSON object, {"name": …, "arguments": {…}}'


def as_call(row: Any, tools: Sequence[ToolSchema]) -> Call | str:
    """Return the call that an object of "name" and "arguments" is, or what is wrong with it."""
    row = row if isinstance(row, dict) else {}
    name, arguments = row.get("name"), row.get("arguments")
    names = ["consult", *(tool.name for tool in tools)]
    if name not in names:
        return f"'name' must be one of: {', '.join(names)}"
    if not isinstance(arguments, dict):
        return "'arguments' must be a JSON object"
    if name != "consult":
        return Call(name, json.dumps(arguments, ensure_ascii=False))
    kind, query = arguments.get("kind"), arguments.get("query")
    if kind not in CONSULT_KINDS:
        return f"'kind' must be one of: {', '.join(CONSULT_KINDS)}"
    if not isinstance(query, str) or not query.strip():
        return "'query' must be text that is not empty"
    return Call(kind, query.strip())


def parsed_calls(calls: Sequence[Call | str], num_forged: int) -> Parsed:
    """Return the calls, or the first fault among them."""
    fault = next((call for call in calls if isinstance(call, str)), "")
    good = () if fault else tuple(call for call in calls if isinstance(call, Call))
    return Parsed(good, fault, num_forged)


def quoted(body: Span) -> Span:
    """Return a reply's body as the inside of a JSON string without `<`."""
    text = json.dumps(body.text, ensure_ascii=False)[1:-1].replace("<", "\\u003c")
    return Span(text, body.author, body.agent_id, body.call_id, body.is_content)


def _pairs(text: str) -> tuple[list[tuple[re.Match[str], re.Match[str]]], str]:
    """Return opening and closing tags in pairs, or what is wrong with their order."""
    marks = list(_MARK.finditer(text))
    for number, mark in enumerate(marks):
        if number % 2 and not mark.group(1):
            return [], "<tool_call> stands inside <tool_call>; calls cannot be nested"
        if not number % 2 and mark.group(1):
            return [], "</tool_call> closes a call that was not opened"
    if len(marks) % 2:
        return [], "<tool_call> is not closed"
    return list(zip(marks[::2], marks[1::2], strict=True)), ""
