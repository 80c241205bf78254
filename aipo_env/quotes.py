"""Which parts of a text stand word for word in others: what somebody quotes, and so did
not write.

A quotation is found as it stands, and also where it was set anew: with other blanks and
line breaks, behind `>` or `|`, in bold, in a number with or without commas.
"""

from collections.abc import Iterator

MIN_QUOTE_CHARS = 32
"""Fewer characters in a row may be the same by chance."""
MAX_SOURCE_CHARS = 20_000
"""Only this much of the end of each text that may be quoted is looked at."""
_SETTING = " \t\n\r\v\f\u00a0>|*_`~,"
"""Characters that whoever quotes may put in or leave out."""
_UNSET = str.maketrans("", "", _SETTING)


class Quotable:
    """Texts that may be quoted; made once, and then asked about any number of texts."""

    def __init__(self, *sources: str) -> None:
        ends = [source[-MAX_SOURCE_CHARS:] for source in sources]
        bare = [end.translate(_UNSET) for end in ends]
        self._pieces = {piece for text in ends for piece in _pieces(text)}
        self._bare_pieces = {piece for text in bare for piece in _pieces(text)}

    def parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """Yield the parts of a text in order, each with whether it is a quotation;
        together they are the text.

        Linear in the text.
        """
        is_quoted = self._marks(text)
        start = 0
        for end in range(1, len(text) + 1):
            if end == len(text) or is_quoted[end] != is_quoted[start]:
                yield text[start:end], bool(is_quoted[start])
                start = end

    def _marks(self, text: str) -> bytearray:
        """Return for each character whether it is part of a quotation."""
        marks = bytearray(len(text))
        for at, piece in enumerate(_pieces(text)):
            if piece in self._pieces:
                marks[at : at + MIN_QUOTE_CHARS] = b"\1" * MIN_QUOTE_CHARS
        bare = text.translate(_UNSET)
        found = [
            at for at, piece in enumerate(_pieces(bare)) if piece in self._bare_pieces
        ]
        if found:
            self._mark_bare(marks, text, found)
        return marks

    def _mark_bare(self, marks: bytearray, text: str, found: list[int]) -> None:
        """Mark quotations by where they begin in the text without its setting; what
        stands between is part of them.
        """
        places = [at for at, char in enumerate(text) if char not in _SETTING]
        done = 0
        for at in found:
            start = max(done, places[at])
            done = places[at + MIN_QUOTE_CHARS - 1] + 1
            marks[start:done] = b"\1" * (done - start)


def parts(text: str, source: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a text as `Quotable(source).parts` does."""
    yield from Quotable(source).parts(text)


def _pieces(text: str) -> Iterator[str]:
    """Yield all `MIN_QUOTE_CHARS` characters in a row."""
    size = MIN_QUOTE_CHARS
    return (text[at : at + size] for at in range(len(text) - size + 1))
