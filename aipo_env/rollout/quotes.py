"""Which parts of a text stand word for word in others: quotations.

Who quotes something did not write it. A quotation is found as it stands, and also where
it was set anew: with other blanks and line breaks, behind `>` or `|`, in bold, in a
number with or without commas.
"""

from collections.abc import Iterator

MIN_QUOTE_CHARS = 32
"""Fewer characters in a row may be the same by chance."""
MAX_SOURCE_CHARS = 20_000
"""Only this much of the end of each text that may be quoted is looked at."""
_SETTING = " \t\n\r\v\f\u00a0>|*_`~,"
"""Characters that whoever quotes may put in or leave out."""
_WITHOUT_SETTING = str.maketrans("", "", _SETTING)
_QUOTED = b"\1"
"""The mark of a character that is part of a quotation."""


class Quotable:
    """Texts that may be quoted; made once, and then asked about any number of texts.

    Every piece of `MIN_QUOTE_CHARS` characters of these texts is kept in a set. A text
    quotes them wherever it has one of the pieces, so whatever is longer is found too,
    as pieces that overlap.

    Args:
        sources: The texts that may be quoted.
    """

    def __init__(self, *sources: str) -> None:
        self._pieces: set[str] = set()
        self._bare_pieces: set[str] = set()
        for source in sources:
            end = source[-MAX_SOURCE_CHARS:]
            self._pieces.update(_pieces(end))
            self._bare_pieces.update(_pieces(_bare(end)))

    def parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """Yield the parts of a text in order, each with whether it is a quotation.

        Together they are the text. Takes time linear in the text.
        """
        marks = self._marks(text)
        start = 0
        for end in range(1, len(text) + 1):
            if end == len(text) or marks[end] != marks[start]:
                yield text[start:end], bool(marks[start])
                start = end

    def _marks(self, text: str) -> bytearray:
        """Return a mark for each character that is part of a quotation."""
        marks = bytearray(len(text))
        for start, piece in enumerate(_pieces(text)):
            if piece in self._pieces:
                marks[start : start + MIN_QUOTE_CHARS] = _QUOTED * MIN_QUOTE_CHARS
        bare_pieces = enumerate(_pieces(_bare(text)))
        bare_starts = [at for at, piece in bare_pieces if piece in self._bare_pieces]
        if bare_starts:
            _mark_bare(marks, text, bare_starts)
        return marks


def _mark_bare(marks: bytearray, text: str, bare_starts: list[int]) -> None:
    """Mark the pieces that begin at these places of the text without its setting.

    What was left out between two characters of a piece is part of the quotation.
    """
    # Where each character of the bare text stands in the text.
    places = [place for place, char in enumerate(text) if char not in _SETTING]
    end = 0
    for bare_start in bare_starts:
        # Pieces overlap, and setting may make them as long as the text: what one has
        # marked is not marked again, or the time would not be linear.
        start = max(end, places[bare_start])
        end = places[bare_start + MIN_QUOTE_CHARS - 1] + 1
        marks[start:end] = _QUOTED * (end - start)


def _bare(text: str) -> str:
    """Return a text without its setting."""
    return text.translate(_WITHOUT_SETTING)


def _pieces(text: str) -> Iterator[str]:
    """Yield all `MIN_QUOTE_CHARS` characters in a row."""
    size = MIN_QUOTE_CHARS
    return (text[start : start + size] for start in range(len(text) - size + 1))
