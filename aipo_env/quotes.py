"""Which parts of a text stand word for word in another: what somebody quotes, and so did not write."""

from collections.abc import Iterator

MIN_QUOTE_CHARS = 24
"""Fewer characters in a row may be the same by chance."""
MAX_SOURCE_CHARS = 50_000
"""Only this much of the end of what may be quoted is looked at."""
_BLOCK = MIN_QUOTE_CHARS // 2
"""Any quotation holds a block of its source that begins at a multiple of this."""


def parts(text: str, source: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a text in order, each with whether it is a quotation; together they are the text.

    Linear in both texts.
    """
    end = 0
    for start, stop in _quotations(text, source[-MAX_SOURCE_CHARS:]):
        if start > end:
            yield text[end:start], False
        yield text[start:stop], True
        end = stop
    if end < len(text):
        yield text[end:], False


def _quotations(text: str, source: str) -> Iterator[tuple[int, int]]:
    """Yield where quotations begin and end, in order."""
    places = range(0, len(source) - _BLOCK + 1, _BLOCK)
    blocks = {source[place : place + _BLOCK]: place for place in places}
    at, free = 0, 0
    while at + _BLOCK <= len(text):
        place = blocks.get(text[at : at + _BLOCK])
        if place is None:
            at += 1
            continue
        start, stop = _extended(text, at, free, source, place)
        if stop - start < MIN_QUOTE_CHARS:
            at += 1
            continue
        yield start, stop
        at = free = stop


def _extended(
    text: str, at: int, free: int, source: str, place: int
) -> tuple[int, int]:
    """Return the bounds in a text of what agrees around a block; not before `free`."""
    before = 0
    while (
        at - before > free
        and place > before
        and text[at - before - 1] == source[place - before - 1]
    ):
        before += 1
    after = _BLOCK
    while (
        at + after < len(text)
        and place + after < len(source)
        and text[at + after] == source[place + after]
    ):
        after += 1
    return at - before, at + after
