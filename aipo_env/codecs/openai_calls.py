r"""Calls as an OpenAI assistant message with `tool_calls`; for policies behind a chat
completion API.

A completion that is such a message, as JSON, asks for its calls; any other text is
content, a final answer.

    {"role": "assistant", "content": null, "tool_calls": [
      {"id": "c1", "type": "function", "function":
       {"name": "consult",
        "arguments": "{\"kind\": \"verify\", \"query\": \"2+2=4\"}"}}]}

A reply is a line `{"role": "tool", "name": "verify", "content": "right;"}`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from aipo_env.codecs.base import Malformed, Parsed, parsed, read_json, wrapped
from aipo_env.codecs.hermes import HermesCodec, quoted
from aipo_env.codecs.words import at_most
from aipo_env.records import Call, ConsultKind, Message, Span

_OPENING = '{"role": "tool", "name": '
_LAST = "A turn without a call is your final answer."
_FORGED = re.compile(r'"role"\s*:\s*"tool"', re.IGNORECASE)


class OpenAICodec(HermesCodec):
    """The functions of `HermesCodec`; `functions(kinds)` is to be given to the API as
    `tools`.
    """

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt that explains when to consult; the API explains
        how.
        """
        if not kinds:
            return ""
        return (
            f"When you are stuck you may call functions, at most {budget} times:"
            f" consult. {_LAST}"
        )

    def tool_instructions(self, budget: int | None) -> str:
        """Return the part of the prompt that names the tools; the API explains them."""
        if not self.tools:
            return ""
        names = ", ".join(tool.name for tool in self.tools)
        limit = at_most(budget).rstrip(",")
        return f"You may call these functions{limit}: {names}. {_LAST}"

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return nothing: the API ends the turn."""
        return ()

    def parse(self, text: str) -> Parsed:
        """Read the calls of one completion; one malformed call spoils the turn."""
        message = (_calling_message(text) if self._names else None) or {
            "tool_calls": ()
        }
        return parsed(
            map(self._read_call, message["tool_calls"]), len(_FORGED.findall(text))
        )

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion: such a message is a call as
        a whole.
        """
        return [(0, len(text))] if self.parse(text).calls else []

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply in a line of its own; its body is quoted."""
        return wrapped(
            f'{_OPENING}{json.dumps(kind)}, "content": "',
            quoted(body.text),
            '"}\n',
            body,
        )

    def _read_call(self, call: Any) -> Call:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(
            function.get("arguments"), str
        ):
            raise Malformed(
                'each of tool_calls needs {"function": {"name": …, "arguments": "a JSON'
                ' object as text"}}'
            )
        try:
            return self.as_call(
                {**function, "arguments": read_json(function["arguments"] or "{}")}
            )
        except (ValueError, RecursionError):
            raise Malformed("'arguments' must be a JSON object, as text") from None


def completion_text(message: Any) -> str:
    """Return the completion that an OpenAI response message is: its content, or all of
    it if it holds calls.

    Args:
        message: A dictionary, or an object with `model_dump`.
    """
    row = dict(message if isinstance(message, Mapping) else message.model_dump())
    if not row.get("tool_calls"):
        return str(row.get("content") or "")
    row = {
        "role": "assistant",
        "content": row.get("content"),
        "tool_calls": row["tool_calls"],
    }
    return json.dumps(row, ensure_ascii=False)


def openai_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return a transcript as OpenAI `messages`; calls are numbered, and a reply names
    the call it answers.

    A turn whose calls were malformed stays text, and so does what it was told.
    """
    rows: list[dict[str, Any]] = []
    ids = (f"call_{number}" for number in count())
    for message in messages:
        asked = (
            _calling_message(rows[-1]["content"])
            if rows and rows[-1]["role"] == "assistant"
            else None
        )
        if not asked or not message.content.startswith(_OPENING):
            rows.append({"role": message.role, "content": message.content})
            continue
        functions = [call["function"] for call in asked["tool_calls"]]
        calls = [
            {"id": next(ids), "type": "function", "function": function}
            for function in functions
        ]
        rows[-1] = {
            "role": "assistant",
            "content": asked.get("content"),
            "tool_calls": calls,
        }
        for call, line in zip(calls, message.content.split("\n")[:-1], strict=True):
            rows.append(
                {
                    "role": "tool",
                    "tool_call_id": call["id"],
                    "content": json.loads(line)["content"],
                }
            )
    return rows


def _calling_message(text: str) -> dict[str, Any] | None:
    """Return the assistant message with calls that a text is; None if it is none."""
    try:
        row = json.loads(text) if text.lstrip().startswith("{") else {}
    except (ValueError, RecursionError):
        return None
    calls = row.get("tool_calls") if row.get("role") == "assistant" else None
    return row if isinstance(calls, list) and calls else None
