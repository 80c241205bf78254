"""A name or term, and whether a text says it, in another order or in more words.

What the problem says itself need not be said again: where it asks for a treaty,
"Westphalia" is the whole of "Treaty of Westphalia".
"""

import re
from functools import lru_cache
from itertools import pairwise

from aipo_env.verifiers.plain_text import folded

_SMALL_WORDS = (
    "a an the of in at on to by for from with and or de del di da la le les los el du "
    "des von van der den zu s is"
)
_SMALL = frozenset(_SMALL_WORDS.split())
"""Words that a phrase may have, lack or change."""
_MARK = re.compile(r"[^\W\d_]+|\d+|[.?!;](?=\s|$)|\n")
_ENDS = frozenset(".?!;\n")
MAX_WORDS = 12
"""A longer phrase is looked for as it is written only."""
MAX_TOKENS = 5_000
MAX_BETWEEN = 2
"""Words that may stand between two of a phrase, where they are rare or a name's."""
RARE_LETTERS = 8
"""A word of so many letters seldom stands beside another of the phrase by chance."""
NAME_LETTERS = 5
"""Letters of a name's word that says the rest where the problem does."""
STEM_PERCENT, STEM_LETTERS = 80, 5
"""Share of the longer word, and letters, that two forms of a word begin with."""


def is_said(phrase: str, text: str, prompt: str) -> bool:
    """Return whether a plain text says a phrase, with what the problem says of it.

    Args:
        phrase: Words, at most `MAX_WORDS` of them that are not small.
        text: What may say it.
        prompt: The problem, whose words need not be repeated.
    """
    if not any(mark.isalpha() for mark in phrase):
        return False
    known = frozenset(_words(prompt))
    wanted = tuple(word for word in _words_of(phrase) if word.casefold() not in known)
    if not wanted or len(wanted) > MAX_WORDS:
        return False
    is_whole = len(wanted) == len(_words_of(phrase))
    are_names = tuple(word[0].isupper() for word in wanted)
    says_all = is_whole or len(wanted) > 1
    if not says_all and (not are_names[0] or len(wanted[0]) < NAME_LETTERS):
        return False
    return any(
        _stands_in(way.split(), tokens, are_names)
        for way in folded(" ".join(wanted))
        for tokens in _tokens(text)
    )


def surname(phrase: str) -> str:
    """Return the last word of a person's name, folded; empty where a phrase is none."""
    words = phrase.split()
    are_capital = all(word[:1].isupper() and word.isalpha() for word in words)
    if not 2 <= len(words) <= 3 or not are_capital or len(words[-1]) < NAME_LETTERS:
        return ""
    return folded(words[-1])[0]


@lru_cache(1024)
def _words_of(phrase: str) -> tuple[str, ...]:
    """Return the words of a phrase that count."""
    words = re.findall(r"[^\W\d_]+|\d+", phrase)
    return tuple(word for word in words if word.casefold() not in _SMALL)


@lru_cache(256)
def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W\d_]+|\d+", text.casefold()))


@lru_cache(64)
def _tokens(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the words of a text that count, and its full stops, in each spelling."""
    return tuple(tuple(_counted(way)) for way in folded(text))


def _counted(text: str) -> list[str]:
    found = _MARK.findall(text)[:MAX_TOKENS]
    counted: list[str] = []
    for mark, before in zip(found, ["", *found], strict=False):
        if mark not in _ENDS:
            if mark not in _SMALL:
                counted.append(mark)
        elif mark != "." or len(before) > 2:  # no end: "R. Franklin"
            counted.append(".")
    return counted


def _stands_in(
    words: list[str], tokens: tuple[str, ...], are_names: tuple[bool, ...]
) -> bool:
    """Return whether tokens say words: in order or, of two or of a name, in another."""
    if len(words) == 1:
        return words[0] in tokens
    is_name = all(are_names)
    places = [
        [at for at, token in enumerate(tokens) if _is_form(token, word, is_name)]
        for word in words
    ]
    if is_name and len(words) == 2 and _has_initial(words, tokens):
        return True
    if not all(places):
        return False
    is_rare = any(are_names) or any(len(word) >= RARE_LETTERS for word in words)
    between = MAX_BETWEEN if is_rare else 0
    if _follow(places, tokens, between):
        return True
    if not is_name:
        return len(words) == 2 and _follow(places[::-1], tokens, 0)
    turns = (places[at:] + places[:at] for at in range(1, len(places)))
    return any(_follow(turn, tokens, between) for turn in turns)


def _follow(places: list[list[int]], tokens: tuple[str, ...], between: int) -> bool:
    """Return whether the words at some places follow each other, in one sentence."""
    reached = set(places[0])
    for following in places[1:]:
        reached = {
            at
            for at in following
            if any(
                at - back in reached and "." not in tokens[at - back : at]
                for back in range(1, between + 2)
            )
        }
    return bool(reached)


def _has_initial(words: list[str], tokens: tuple[str, ...]) -> bool:
    """Return whether tokens say the last of two names behind the other's initial."""
    return any(
        first == words[0][0] and last == words[1] for first, last in pairwise(tokens)
    )


def _is_form(token: str, word: str, is_name: bool) -> bool:
    """Return whether a token is a word, or another form of it."""
    if token == word:
        return True
    longer = max(len(token), len(word))
    stem = max(STEM_LETTERS, -(-longer * STEM_PERCENT // 100))
    return not is_name and token[:stem] == word[:stem] and len(token) >= stem
