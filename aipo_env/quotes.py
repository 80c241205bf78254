"""Which parts of a text stand word for word in another: what somebody quotes, and so did not write."""

from collections.abc import Iterator

MIN_QUOTE_CHARS = 32
"""Fewer characters in a row may be the same by chance."""
MAX_SOURCE_CHARS = 20_000
"""Only this much of the end of what may be quoted is looked at."""


def parts(text: str, source: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a text in order, each with whether it is a quotation; together they are the text.

    Linear in both texts.
    """
    is_quoted = _quoted(text, source[-MAX_SOURCE_CHARS:])
    start = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or is_quoted[end] != is_quoted[start]:
            yield text[start:end], bool(is_quoted[start])
            start = end


def _quoted(text: str, source: str) -> bytearray:
    """Return for each character whether it is part of a quotation."""
    marks = bytearray(len(text))
    size = MIN_QUOTE_CHARS
    if len(text) < size or len(source) < size:
        return marks
    pieces = {source[at : at + size] for at in range(len(source) - size + 1)}
    for at in range(len(text) - size + 1):
        if text[at : at + size] in pieces:
            marks[at : at + size] = b"\1" * size
    return marks
