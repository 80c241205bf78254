"""Who wrote which tokens, where the tokens are those of somebody else's library."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from aipo_env.errors import AipoError
from aipo_env.records import Author

AGENT = Author.AGENT.name.lower()
"""What an agent is called as the author of a span."""


def agents_tokens(
    token_ids: list[int],
    spans: Sequence[Mapping[str, Any]],
    decode: Callable[[list[int]], str],
) -> list[bool]:
    """Return which tokens of a message an agent wrote: bodies of replies, no wrapper.

    A token that is also in part of a wrapper is not among them.

    Args:
        token_ids: Of the message, with what a chat template puts around it.
        spans: Of the message, as `Span.told` has them.
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
    text = decode(token_ids)
    place = text.find(stripped)
    if place < 0:
        raise AipoError(f"the tokens of a message are not its text: {content!r}")
    shift = place - content.index(stripped)

    @cache
    def read(num_tokens: int) -> tuple[int, int]:
        """Return how many characters the first tokens write and how many they begin."""
        beginning = decode(token_ids[:num_tokens])
        num_written = len(beginning)
        # A character may have several tokens. What is read of some of them is another
        # character, or several.
        while not text.startswith(beginning[:num_written]):
            num_written -= 1
        is_cut = num_written < len(beginning)
        return num_written, num_written + is_cut

    def written(num_tokens: int) -> int:
        return read(num_tokens)[0]

    def begun(num_tokens: int) -> int:
        return read(num_tokens)[1]

    # Edges are found by halves: to read every beginning takes the square of the length.
    counts = range(len(token_ids) + 1)
    for first, last in bodies:
        # What was stripped of a body has no tokens.
        begin = max(first + shift, place)
        end = min(last + shift, place + len(stripped))
        since = bisect_left(counts, begin, key=written)
        until = bisect_right(counts, end, key=begun) - 1
        for number in range(since, until):
            mask[number] = True
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
