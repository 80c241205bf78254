r"""Calls as an OpenAI assistant message with `tool_calls`; for policies behind a chat completion API.

A completion that is such a message, as JSON, asks for its calls; any other text is content, a final answer.

    {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function":
      {"name": "consult", "arguments": "{\"kind\": \"verify\", \"query\": \"2+2=4\"}"}}]}

A reply is a line `{"role": "tool", "name": "verify", "content": "right;"}`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aipo_env.codecs.base import Parsed, ToolSchema
from aipo_env.codecs.hermes import HermesCodec, as_call, function_schemas, parsed_calls, quoted
from aipo_env.records import Author, Call, ConsultKind, Message, Span

_OPENING = '{"role": "tool", "name": '
_FORGED = re.compile(r'"role"\s*:\s*"tool"', re.IGNORECASE)


class OpenAICodec(HermesCodec):
    """The functions of `HermesCodec`; `functions(kinds)` is to be given to the API as `tools`."""

    def functions(self, kinds: Sequence[ConsultKind]) -> list[dict[str, Any]]:
        """Return the function schemas of `consult` and the tools."""
        return function_schemas(self.tools, kinds)

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt that explains when to call; the API explains how."""
        return (
            f"When you are stuck you may call functions, at most {budget} times: "
            f"{', '.join(schema['function']['name'] for schema in self.functions(kinds))}. "
            "A turn without a call is your final answer."
        )

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return nothing: the API ends the turn."""
        return ()

    def parse(self, text: str) -> Parsed:
        """Read the calls of one completion; one malformed call spoils the turn."""
        message = _calling_message(text)
        calls = [_read(call, self.tools) for call in message["tool_calls"]] if message else []
        return parsed_calls(calls, len(_FORGED.findall(text)))

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion: such a message is a call as a whole."""
        return [(0, len(text))] if self.parse(text).calls else []

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply in a line of its own; its body is quoted."""
        opening = f'{_OPENING}{json.dumps(kind)}, "content": "'
        return (Span(opening, Author.ENV), quoted(body), Span('"}\n', Author.ENV))


def completion_text(message: Any) -> str:
    """Return the completion that an OpenAI response message is: its content, or all of it if it holds calls.

    Args:
        message: A dictionary, or an object with `model_dump`.
    """
    row = dict(message if isinstance(message, Mapping) else message.model_dump())
    if not row.get("tool_calls"):
        return str(row.get("content") or "")
    row = {"role": "assistant", "content": row.get("content"), "tool_calls": row["tool_calls"]}
    return json.dumps(row, ensure_ascii=False)


def openai_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return a transcript as OpenAI `messages`; calls are numbered, and a reply names the call it answers.

    A turn whose calls were malformed stays text, and so does what it was told.
    """
    rows: list[dict[str, Any]] = []
    num_calls = 0
    for message in messages:
        asked = _calling_message(rows[-1]["content"]) if rows and rows[-1]["role"] == "assistant" else None
        if not asked or not message.content.startswith(_OPENING):
            rows.append({"role": message.role, "content": message.content})
            continue
        ids = [f"call_{num_calls + number}" for number in range(len(asked["tool_calls"]))]
        num_calls += len(ids)
        calls = [
            {"id": call_id, "type": "function", "function": call["function"]}
            for call_id, call in zip(ids, asked["tool_calls"], strict=True)
        ]
        rows[-1] = {"role": "assistant", "content": asked.get("content"), "tool_calls": calls}
        replies = [json.loads(line)["content"] for line in message.content.split("\n")[:-1]]
        rows += [
            {"role": "tool", "tool_call_id": call_id, "content": reply}
            for call_id, reply in zip(ids, replies, strict=True)
        ]
    return rows


def _calling_message(text: str) -> dict[str, Any] | None:
    """Return the assistant message with calls that a text is; None if it is none."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    calls = row.get("tool_calls") if row.get("role") == "assistant" else None
    return row if isinstance(calls, list) and calls else None


def _read(call: Any, tools: Sequence[ToolSchema]) -> Call | str:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return 'each of tool_calls needs {"function": {"name": …, "arguments": "a JSON object as text"}}'
    try:
        arguments = json.loads(function["arguments"] or "{}")
        return as_call({"name": function.get("name"), "arguments": arguments}, tools)
    except (ValueError, RecursionError):
        return "'arguments' must be a JSON object, as text"
