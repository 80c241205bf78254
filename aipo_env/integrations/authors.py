"""Who wrote which tokens, where the tokens are those of somebody else's library."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aipo_env.errors import AipoError
from aipo_env.records import Author, Message

AGENT = Author.AGENT.name.lower()
"""What an agent is called as the author of a span."""


def written_spans(message: Message) -> list[dict[str, Any]]:
    """Return the spans of a message in a JSON-able form."""
    return [
        {
            "text": span.text,
            "author": Author(span.author).name.lower(),
            "is_content": span.is_content,
        }
        for span in message.spans
    ]


def agents_tokens(
    token_ids: list[int],
    spans: Sequence[Mapping[str, Any]],
    decode: Callable[[list[int]], str],
) -> list[bool]:
    """Return which tokens of a message an agent wrote: bodies of replies, no wrapper.

    A token that is also in part of a wrapper is not among them.

    Args:
        token_ids: Of the message, with what a chat template puts around it.
        spans: Of the message, as `written_spans` has them.
        decode: Turns token ids into text, special tokens included.

    Raises:
        AipoError: The text of the message does not stand in that of its tokens.
    """
    mask = [False] * len(token_ids)
    bodies = _bodies(spans)
    if not bodies or not token_ids:
        return mask
    content = "".join(span["text"] for span in spans)
    # Templates may strip a text.
    stripped = content.strip()
    place = decode(token_ids).find(stripped)
    if place < 0:
        raise AipoError(f"the tokens of a message are not its text: {content!r}")
    shift = place - content.index(stripped)
    begin = 0
    for number in range(len(token_ids)):
        # Of all up to it: a character may have several tokens, and only the first of
        # them makes the text longer.
        end = len(decode(token_ids[: number + 1]))
        if end == begin and number:
            mask[number] = mask[number - 1]
            continue
        mask[number] = any(
            first + shift <= begin and end <= last + shift for first, last in bodies
        )
        begin = end
    return mask


def _bodies(spans: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Return where in a message agents' words begin and end, in characters."""
    bodies = []
    begin = 0
    for span in spans:
        end = begin + len(span["text"])
        if span["author"] == AGENT and span["is_content"]:
            bodies.append((begin, end))
        begin = end
    return bodies
