"""Words that decide what a sentence says, and patterns that several readers use."""

import json
import re
from pathlib import Path

_TABLES: dict[str, str] = json.loads(
    Path(__file__).with_name("tables.json").read_text(encoding="utf-8")
)


def vocabulary(name: str) -> frozenset[str]:
    """Return the words of a table."""
    return frozenset(_TABLES[name].split())


ABBREVIATION = re.compile(
    r"\b(?:i\.e|e\.g|eq|no|approx|vs|cf|etc|fig|p\.m|a\.m|rs|resp|dr|mr|mrs|st)\Z",
    re.IGNORECASE,
)
"""What a full stop belongs to that ends no sentence."""
_MAX_ABBREVIATION_CHARS = 8
SENTENCE_END = re.compile(
    r"""
    (?<! [\s.!?\u3002\uff01\uff1f] ) [.!?\u3002\uff01\uff1f]{1,9}
    ["'”’)\]*]{0,6}
    (?= \s | $ | [<\u4e00-\u9fff] )
    """,
    re.VERBOSE,
)


def sentence_end(text: str, at: int, limit: int) -> int:
    """Return where the sentence ends that goes on at a place, or else its line.

    Args:
        limit: What stands there and behind is not read.
    """
    line_end = text.find("\n", at, limit)
    limit = limit if line_end < 0 else line_end
    for end in SENTENCE_END.finditer(text, at, limit):
        word_at = max(at, end.start() - _MAX_ABBREVIATION_CHARS)
        if not ABBREVIATION.search(text, word_at, end.start()):
            return end.start()
    return limit


def skip(pattern: re.Pattern[str], text: str, at: int, limit: int) -> int:
    """Return the first place from which a pattern does not match any more.

    Args:
        pattern: Matches no empty text.
        limit: What stands there and behind is not read.
    """
    match = pattern.match(text, at, limit)
    while match:
        at = match.end()
        match = pattern.match(text, at, limit)
    return at
