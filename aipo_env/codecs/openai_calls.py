r"""Calls as an OpenAI assistant message with `tool_calls`.

For policies behind a chat completion API. A completion that is such a message, as JSON,
asks for its calls; any other text is content, a final answer.

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

from aipo_env.codecs.base import Malformed, Parsed, parsed, read_call_json, wrapped
from aipo_env.codecs.hermes import HermesCodec, quoted
from aipo_env.codecs.words import at_most
from aipo_env.records import Call, ConsultKind, Message, Span

_OPENING = '{"role": "tool", "name": '
_LAST = "A turn without a call is your final answer."
# A line of a reply that the policy wrote itself: {"role": "tool", "name": …
_FORGED = re.compile(r'"role"\s*:\s*"tool"', re.IGNORECASE)


class OpenAICodec(HermesCodec):
    """The functions of `HermesCodec`; give `functions(kinds)` to the API as `tools`."""

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt on when to consult; the API explains how."""
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
        # The words end with a comma for a sentence that goes on; this one ends.
        limit = at_most(budget).rstrip(",")
        return f"You may call these functions{limit}: {names}. {_LAST}"

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return nothing: the API ends the turn."""
        return ()

    def parse(self, text: str) -> Parsed:
        """Read the calls of one completion; one malformed call spoils the turn."""
        message = _calling_message(text) if self._names else None
        rows = message["tool_calls"] if message else ()
        num_forged = len(_FORGED.findall(text))
        # Lazily: `parsed` turns what the reading raises into a malformed turn.
        return parsed(map(self._read_call, rows), num_forged)

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end: such a message is a call as a whole."""
        return [(0, len(text))] if self.parse(text).calls else []

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply in a line of its own; its body is quoted."""
        opening = f'{_OPENING}{json.dumps(kind)}, "content": "'
        return wrapped(opening, quoted(body.text), '"}\n', body)

    def _read_call(self, call: Any) -> Call:
        """Read one of a message's `tool_calls`."""
        function = call.get("function") if isinstance(call, dict) else None
        text = function.get("arguments") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(text, str):
            raise Malformed(
                'each of tool_calls needs {"function": {"name": …, "arguments": "a JSON'
                ' object as text"}}'
            )
        try:
            # Some models leave the text empty where a function takes nothing.
            arguments = read_call_json(text or "{}")
            return self.as_call({**function, "arguments": arguments})
        except (ValueError, RecursionError):
            raise Malformed("'arguments' must be a JSON object, as text") from None


def completion_text(message: Any) -> str:
    """Return the completion that an OpenAI response message is.

    It is the message's content, or all of the message if that holds calls.

    Args:
        message: A dictionary, or an object with `model_dump`.
    """
    is_mapping = isinstance(message, Mapping)
    fields = dict(message if is_mapping else message.model_dump())
    if not fields.get("tool_calls"):
        return str(fields.get("content") or "")
    # What else an API puts into its messages is no part of the turn.
    row = {
        "role": "assistant",
        "content": fields.get("content"),
        "tool_calls": fields["tool_calls"],
    }
    return json.dumps(row, ensure_ascii=False)


def openai_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return a transcript as OpenAI `messages`.

    Calls are numbered, and a reply names the call it answers. A turn whose calls were
    malformed stays text, and so does what it was told.
    """
    rows: list[dict[str, Any]] = []
    ids = (f"call_{number}" for number in count())
    for message in messages:
        turn = rows[-1] if rows and rows[-1]["role"] == "assistant" else None
        asking = _calling_message(turn["content"]) if turn else None
        if not asking or not message.content.startswith(_OPENING):
            rows.append({"role": message.role, "content": message.content})
            continue
        # Only now that replies follow it is the turn before known to have been calls.
        calls = [
            {"id": next(ids), "type": "function", "function": call["function"]}
            for call in asking["tool_calls"]
        ]
        rows[-1] = {
            "role": "assistant",
            "content": asking.get("content"),
            "tool_calls": calls,
        }
        # Every reply is a line that ends with a newline, in the order of the calls.
        lines = message.content.split("\n")[:-1]
        for call, line in zip(calls, lines, strict=True):
            content = json.loads(line)["content"]
            rows.append(
                {"role": "tool", "tool_call_id": call["id"], "content": content}
            )
    return rows


def _calling_message(text: str) -> dict[str, Any] | None:
    """Return the assistant message with calls that a text is; None if it is none."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if row.get("role") != "assistant":
        return None
    calls = row.get("tool_calls")
    return row if isinstance(calls, list) and calls else None
