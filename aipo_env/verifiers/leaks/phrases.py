"""A name or term, and whether a text says it, in another order or in more words.

What the problem says itself need not be said again: where it asks for a treaty,
"Westphalia" is the whole of "Treaty of Westphalia".
"""

import re
from functools import lru_cache
from itertools import pairwise

from aipo_env.verifiers.leaks.plain_text import folded

_SMALL_WORDS = (
    "a an the of in at on to by for from with and or de del di da la le les los el du "
    "des von van der den zu s is"
)
_SMALL = frozenset(_SMALL_WORDS.split())
"""Words that a phrase may have, lack or change."""
_WORD = re.compile(r"[^\W\d_]+|\d+")
"""Letters that stand together, or digits."""
_MARK = re.compile(
    r"""
      [^\W\d_]+         # a word: Westphalia
    | \d+               # a number: 1648
    | [.?!;] (?=\s|$)   # what may end a sentence: "peace. Then"; not "3.5"
    | \n                # a line break ends one, too: in a list nothing else does
    """,
    re.VERBOSE,
)
_ENDS = frozenset(".?!;\n")
_END = "."
"""What stands among the tokens of a text for the end of each sentence."""
MAX_PHRASE_WORDS = 12
"""A longer phrase is looked for as it is written only."""
MAX_TOKENS = 5_000
"""Words and ends of sentences that are read of a text."""
MAX_BETWEEN = 2
"""Words that may stand between two of a phrase, where they are rare or a name's."""
RARE_LETTERS = 8
"""A word of so many letters seldom stands beside another of the phrase by chance."""
NAME_LETTERS = 5
"""Letters of a name's word that says the rest where the problem does."""
STEM_PERCENT = 80
"""Share of the longer word that two forms of a word begin with."""
STEM_LETTERS = 5
"""Letters that two forms of a word begin with at least."""
_MIN_NAMES = 2
_MAX_NAMES = 3
"""Words of a person's whole name: `Rosalind Franklin`, `Johann Sebastian Bach`."""
_INITIAL_LETTERS = 2
"""Letters of an initial or short form, whose dot ends no sentence: `R.`, `St.`."""


def is_said(phrase: str, text: str, prompt: str) -> bool:
    """Return whether a plain text says a phrase, with what the problem says of it.

    Args:
        phrase: Words, at most `MAX_PHRASE_WORDS` of them that are not small.
        text: What may say it.
        prompt: The problem, whose words need not be repeated.
    """
    if not any(mark.isalpha() for mark in phrase):
        return False
    prompt_words = frozenset(_words(prompt))
    phrase_words = _words_of(phrase)
    words = tuple(word for word in phrase_words if word.casefold() not in prompt_words)
    if not words or len(words) > MAX_PHRASE_WORDS:
        return False
    are_names = tuple(word[0].isupper() for word in words)
    is_whole = len(words) == len(phrase_words)
    if not is_whole and len(words) == 1:
        # One word says the rest only where it is rare enough: a long word of a name.
        is_telling = are_names[0] and len(words[0]) >= NAME_LETTERS
        if not is_telling:
            return False
    for spelling in folded(" ".join(words)):
        for tokens in _tokens(text):
            if _stands_in(spelling.split(), tokens, are_names):
                return True
    return False


def surname(phrase: str) -> str:
    """Return the last word of a person's name, folded; empty where a phrase is none."""
    words = phrase.split()
    if not _MIN_NAMES <= len(words) <= _MAX_NAMES:
        return ""
    for word in words:
        is_capital = word[:1].isupper() and word.isalpha()
        if not is_capital:
            return ""
    last_word = words[-1]
    if len(last_word) < NAME_LETTERS:
        return ""
    return folded(last_word)[0]


# The same problem and gold are asked about at each reply of an episode: what was read
# of a text is remembered.


@lru_cache(1024)
def _words_of(phrase: str) -> tuple[str, ...]:
    """Return the words of a phrase that count."""
    words = _WORD.findall(phrase)
    return tuple(word for word in words if word.casefold() not in _SMALL)


@lru_cache(256)
def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


@lru_cache(64)
def _tokens(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the words of a text that count, and its full stops, in each spelling."""
    return tuple(tuple(_counted(spelling)) for spelling in folded(text))


def _counted(text: str) -> list[str]:
    """Return the words of a text that count, and `_END` for each end of a sentence."""
    marks = _MARK.findall(text)[:MAX_TOKENS]
    counted: list[str] = []
    before = ""
    for mark in marks:
        if mark not in _ENDS:
            if mark not in _SMALL:
                counted.append(mark)
        elif mark != "." or len(before) > _INITIAL_LETTERS:
            # Not behind an initial: "R. Franklin" is one name in one sentence.
            counted.append(_END)
        before = mark
    return counted


def _stands_in(
    words: list[str], tokens: tuple[str, ...], are_names: tuple[bool, ...]
) -> bool:
    """Return whether tokens say words: in order or, of two or of a name, in another."""
    if len(words) == 1:
        return words[0] in tokens
    is_name = all(are_names)
    if is_name and len(words) == 2 and _has_initial(words, tokens):
        return True
    places = [_places_of(word, tokens, is_name) for word in words]
    if not all(places):
        return False
    # Common words stand near each other by chance, so nothing may part them.
    is_rare = any(are_names) or any(len(word) >= RARE_LETTERS for word in words)
    between = MAX_BETWEEN if is_rare else 0
    if _follow(places, tokens, between):
        return True
    if is_name:
        return _follow_turned(places, tokens, between)
    return len(words) == 2 and _follow(places[::-1], tokens, 0)


def _places_of(word: str, tokens: tuple[str, ...], is_name: bool) -> list[int]:
    """Return the places among tokens at which a form of a word stands."""
    return [at for at, token in enumerate(tokens) if _is_form(token, word, is_name)]


def _follow_turned(
    places: list[list[int]], tokens: tuple[str, ...], between: int
) -> bool:
    """Return whether words follow each other, the last first: `Curie, Marie`."""
    for first in range(1, len(places)):
        turned = places[first:] + places[:first]
        if _follow(turned, tokens, between):
            return True
    return False


def _follow(places: list[list[int]], tokens: tuple[str, ...], between: int) -> bool:
    """Return whether the words at some places follow each other, in one sentence."""
    # Where the words so far may end. Each word looks back a few places only, so this is
    # linear in the tokens, however often the words stand there.
    reached = set(places[0])
    for following in places[1:]:
        reached = {at for at in following if _is_behind(at, reached, tokens, between)}
    return bool(reached)


def _is_behind(
    at: int, reached: set[int], tokens: tuple[str, ...], between: int
) -> bool:
    """Return whether a place is behind one of others, with few words between them."""
    for num_back in range(1, between + 2):
        before = at - num_back
        if before in reached and _END not in tokens[before:at]:
            return True
    return False


def _has_initial(words: list[str], tokens: tuple[str, ...]) -> bool:
    """Return whether tokens say the last of two names behind the other's initial."""
    initial = words[0][0]
    last_name = words[1]
    return (initial, last_name) in pairwise(tokens)


def _is_form(token: str, word: str, is_name: bool) -> bool:
    """Return whether a token is a word, or another form of it."""
    if token == word:
        return True
    if is_name:
        return False
    longer = max(len(token), len(word))
    share = -(-longer * STEM_PERCENT // 100)  # rounded up
    num_letters = max(STEM_LETTERS, share)
    if len(token) < num_letters:
        return False
    return token[:num_letters] == word[:num_letters]
