"""What may be done to any text before others read it."""

import html
import re
import unicodedata

_JSON_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def encodable(text: str) -> str:
    """Return a text without halves of surrogate pairs, which JSON can carry and no
    tokenizer or server takes.
    """
    return text.encode("utf-8", "replace").decode()


def loosened(text: str) -> str:
    """Return a text as a reader takes it who is not particular: escapes undone,
    look-alikes replaced.

    Of JSON and HTML escapes; full-width and other compatible forms are plain ones, and
    what cannot be seen is left out.

    >>> loosened("\\uff1cre\\u200bply \\\\u003creply &lt;reply")
    '<reply <reply <reply'
    """
    text = _JSON_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
    text = unicodedata.normalize("NFKC", html.unescape(text))
    return _INVISIBLE.sub("", text)
