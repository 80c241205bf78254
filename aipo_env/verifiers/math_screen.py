"""What is refused before any algebra sees it: expressions built to exhaust a computer, told by their text."""

import re

from aipo_env.verifiers.math_text import MAX_CHARS, TABLES

MAX_DEPTH = 30
_BOMBS: dict[str, str] = TABLES["bombs"]
_BOMB = re.compile("|".join(f"({pattern})" for pattern in _BOMBS.values()))


def screen(text: str) -> str:
    """Return why a clean text is refused; empty when it may be looked at."""
    if len(text) > MAX_CHARS:
        return f"more than {MAX_CHARS} characters"
    if found := _BOMB.search(text):
        return list(_BOMBS)[(found.lastindex or 1) - 1]
    depth = deepest = 0
    for mark in re.findall(r"[({\[\])}]", text):
        depth += 1 if mark in "({[" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        return f"brackets nested deeper than {MAX_DEPTH}"
    return "a matrix that is too large" if text.count("&") > 100 or text.count("\\\\") > 100 else ""
