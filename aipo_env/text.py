"""What may be done to any text before others read it."""

import html
import re
import unicodedata

_JSON_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
"""One such as `\\u003c`."""
_NO_REFERENCE = re.compile(r"&#[xX]?[0-9a-fA-F]{9,}")
"""Longer than any reference to a character: to read its number may be refused."""
_INVISIBLE = re.compile(
    r"""
      \u00ad           # the soft hyphen
    | \u180e           # the Mongolian vowel separator
    | [\u200b-\u200f]  # zero-width blanks and joiners, marks of direction
    | [\u202a-\u202e]  # embedded and overridden directions
    | [\u2060-\u2064]  # the word joiner, invisible operators
    | \ufeff           # the zero-width no-break space, or byte order mark
    """,
    re.VERBOSE,
)


class _CompatibleForms(dict[int, str]):
    """The plain form of each character, "" of one that cannot be seen.

    Character by character, for to normalise a text whole takes time that is quadratic
    in its combining marks.
    """

    def __missing__(self, code: int) -> str:
        self[code] = _INVISIBLE.sub("", unicodedata.normalize("NFKC", chr(code)))
        return self[code]


_COMPATIBLE = _CompatibleForms()


def encodable(text: str) -> str:
    """Return a text without halves of surrogate pairs, each replaced by "?".

    JSON can carry them, but no tokenizer and no server takes them.
    """
    return text.encode("utf-8", "replace").decode()


def loosened(text: str) -> str:
    """Return a text as a reader takes it who is not particular.

    Escapes of JSON and HTML are undone; full-width and other compatible forms become
    plain ones, and what cannot be seen is left out.

    >>> loosened("\\uff1cre\\u200bply \\\\u003creply &lt;reply")
    '<reply <reply <reply'
    """
    text = _JSON_ESCAPE.sub(_unescape, text)
    # HTML after JSON, and compatible forms last: each may have hidden behind the one
    # before it.
    text = html.unescape(_NO_REFERENCE.sub("", text))
    return text.translate(_COMPATIBLE)


def _unescape(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))
