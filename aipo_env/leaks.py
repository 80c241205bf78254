"""The leak rule: whether an agent's reply gives the gold answer of its task away."""

import re

from aipo_env.verifiers.math_equiv import compare, last_boxed, normalise

_BLANKS = re.compile(r"[\s$]+")
MAX_BARE_ANSWER = 60
"""A reply that is longer than the answer by more characters is more than an answer."""
LONG_ANSWER = 6
"""Normalised characters from which an answer is looked for anywhere in a reply."""


def is_long(gold: str) -> bool:
    """Return whether an answer is long enough to be recognised anywhere in a text."""
    return len(normalise(gold)) >= LONG_ANSWER


def leaks(reply: str, gold: str, said: str) -> bool:
    """Return whether a reply gives the gold answer away.

    It does when the answer it gives (box, "answer is", or all it says) equals the gold, or when a gold of at
    least six normalised characters stands in it as a whole token sequence; not when the policy said it first.
    """
    plain = normalise(gold)
    if not plain or _holds(plain, said):
        return False
    if plain.isdecimal() and not any(map(str.isnumeric, reply)):
        return False  # no notation of a number does without: the usual case, and spares most of the work
    bare = reply.strip(" \t\r\n;")
    given = (
        last_boxed(reply),
        bare if len(bare) <= MAX_BARE_ANSWER + len(gold) else "",
    )
    if any(compare(text, gold)[0] for text in given if text):
        return True
    stated = r"(?i:answer\s*(?:is|equals|:|=))[\s:=*_`$\"'(\[]*"
    return _holds(plain, reply, stated) or (
        len(plain) >= LONG_ANSWER and _holds(plain, reply)
    )


def _holds(answer: str, text: str, before: str = "") -> bool:
    """Return whether a normalised answer stands in a text, however spaced, with no letter or digit beside it."""
    # Most texts do not hold it at all, and building the pattern costs more than the rest of a consultation.
    if _BLANKS.sub("", answer) not in _BLANKS.sub("", text):
        return False
    spaced = r"[\s$]*".join(map(re.escape, answer))
    return re.search(rf"{before}(?<![\w.]){spaced}(?!\w|\.\d)", text) is not None
