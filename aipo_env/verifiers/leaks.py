"""The leak rule: whether an agent's reply gives the gold answer of its task away.

A reply does when the answer that it states is the gold in any form, or when a gold that nobody could guess stands in
it, in digits, in words, in another base or encoded; for a code task, when it holds a whole program. Not when the
policy said it first. What a reply says in riddles ("one less than ten thousand") is not found.

A gold with few candidates (`is_short`) is looked for only where a reply states its answer, and is for measuring: to
withhold a reply would tell the policy that it asked the right question.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache

from aipo_env.records import Task
from aipo_env.verifiers.choice import LETTERS, read_choice
from aipo_env.verifiers.math_extract import TAG, boxes, formulas, one_blank
from aipo_env.verifiers.math_grade import Undecided, without_algebra
from aipo_env.verifiers.math_text import MAX_CHARS, clean, number
from aipo_env.verifiers.numerals import (
    MAX_DIGITS,
    decoded,
    forms_of,
    number_words,
    numerals_of,
    plain_digits,
    spells_out,
    stands_backwards,
    values_in,
)
from aipo_env.verifiers.programs import may_hold_program
from aipo_env.verifiers.workers import shared_pool

LONG_ANSWER = 6
"""Characters, without blanks and sizes, from which a gold may be too long to be asked for one by one."""
LONG_SIGNS = 4
"""Digits, letters, operators and commands that it has then; what stands nowhere by chance."""
LONG_INTEGER, LONG_RATIO = 6, 4
"""Digits of a whole number, and of a fraction above and below its line together, that are too many to try."""
_FEW_WORDS = (
    "always never sometimes positive negative infinite infinity increasing decreasing constant convergent divergent "
    "converges diverges rational irrational parallel perpendicular clockwise counterclockwise isosceles scalene "
    "equilateral monday tuesday wednesday thursday friday saturday sunday january february march april may june july "
    "august september october november december"
)
FEW_WORDS = frozenset(_FEW_WORDS.split())
"""Answers by themselves that come from a handful."""
MAX_INLINE_CHARS = 2_000
"""Longer texts are looked through in a worker process."""
MAX_INLINE_GOLD = 32
MAX_STATEMENTS = 24
"""So many of a reply's statements are compared with the gold, the last ones."""
MAX_STATEMENT_CHARS = 200
MAX_BARE_CHARS = 60
"""A reply that is longer than the gold by more characters is more than an answer."""
MAX_OTHERS = 2
"""A policy that names the gold beside more numbers like it has listed candidates, and said nothing."""

_SIZES = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[,;! ]|[$\s]")
_SIGNS = re.compile(r"\\[a-zA-Z]+|\w|[-+*/^=<>!,]")
_STRUCTURE = ("\\left", "\\right", "\\text", "\\mathrm", "\\mathbf", "\\textbf")
_CUE = re.compile(
    r"(?i:\b(?:answer|result|solution|outcome)\b[^.\n:=]{0,30}?(?::|=|≈|\bis\b|\bare\b|\bequals\b|\bwould be\b"
    r"|\bshould be\b|\bcomes to\b|\*\*|\s(?=[-+$\\(\d]))"
    r"|\b(?:choose|pick|select|go with|option|choice)\b"
    r"|答案[是为:\uff1a]{0,2})[\s:=*_`\"']*"
)
"""What a reply states its answer after."""
_LOOSE_CUE = re.compile(
    r"(?i:=|≈|→|:|\b(?:is|are|be|get|gets|got|gives?|obtain|yields?|equals?|becomes?|to|as|have|with|write|find"
    r"|leaves?|makes?|reads?|simplifies to)\b)[\s:=*_`\"']*"
)
"""What may stand before any formula; only for golds that stand nowhere by chance."""
_SENTENCE_END = re.compile(r"(?:[.?;]|(?<![\d)}])!)(?=\s|$|[\"'*)])|\n")
_FILLER = re.compile(
    r"(?i)(?:(?:so|thus|hence|therefore|then|finally|and|well|ok|okay|now)\b[,:]?\s*)+"
)
_CLAUSE_END = re.compile(
    r"[,;:]\s|\s(?:because|since|so|which|and|but|when|where|for|if|as|by|after|then|in|with|here|there"
    r"|follows|is|remains|results)\b|\s[-–—(]"
)
_ASKED = re.compile(r"(?<![\w\\])[\d(\\][\w\\{}()^*/+\-×·÷=.! ]{2,120}[\w)}!]")
"""What may be a formula in a problem that does not mark it."""
MAX_ASKED = 6
_DENIED = re.compile(r"(?i)(?:\bnot|n't|\bnever|\bcannot be)\s*$")
_TOKEN = re.compile(r"[0-9a-f]+")
_BASE_MARK = re.compile(r"\b0[xbo]")
_SEPARATORS = re.compile(r"[,;]|\bor\b")
_EDGES = " \t\n*_`\"'$,;:."
Compare = Callable[[str, str], bool]


@dataclass(frozen=True)
class Gold:
    """What a reply must not give away, and what the policy knows of it."""

    answer: str
    kind: str = "math"
    prompt: str = ""
    choices: tuple[str, ...] = ()
    entry: str = ""

    @classmethod
    def of(cls, task: Task) -> "Gold":
        """Return the gold of a task."""
        return cls(
            answer=task.answer,
            kind="code" if task.tests else task.kind,
            prompt=task.prompt,
            choices=task.choices,
            entry=task.tests.entry if task.tests else "",
        )


def is_short(gold: Gold) -> bool:
    """Return whether a gold has so few candidates that withholding a reply would tell which it is."""
    if gold.kind == "code":
        return False
    return bool(gold.choices) or _has_few_candidates(gold.answer)


@lru_cache(4096)
def _has_few_candidates(answer: str) -> bool:
    if len(_SIZES.sub("", answer)) < LONG_ANSWER:
        return True
    value = _value(answer)
    if value is not None and value.denominator == 1:
        return len(str(value)) < LONG_INTEGER
    if value is not None:
        return len(f"{value.numerator}{value.denominator}") < LONG_RATIO
    words = re.findall(r"[a-z]+", re.sub(r"\\[a-zA-Z]+", " ", answer.casefold()))
    if len(words) == 1 and words[0] in FEW_WORDS:
        return True
    signs = [sign for sign in _SIGNS.findall(answer) if sign not in _STRUCTURE]
    is_word = "".join(signs).isalpha()
    return len(signs) < (LONG_ANSWER if is_word else LONG_SIGNS)


async def gives_away(gold: Gold, reply: str, said: str) -> bool:
    """Return whether a reply gives the gold away; yes, where that cannot be told in time.

    Args:
        said: The policy's own words that let a reply repeat the gold.
    """
    is_brief = len(reply) + len(said) + len(gold.prompt) <= MAX_INLINE_CHARS
    if is_brief and len(gold.answer) <= MAX_INLINE_GOLD:
        try:
            return leaks(gold, reply, said, _same_without_algebra, _unparsed)
        except Undecided:
            pass
        except Exception:
            return True
    texts = json.dumps([asdict(gold), reply, said])
    found = await asyncio.wrap_future(shared_pool(os.getpid()).submit("leaks", texts))
    return found.status != "answered" or bool(json.loads(found.text))


def leaks(
    gold: Gold,
    reply: str,
    said: str,
    same: Compare,
    holds_program: Callable[[str, str, str], bool],
) -> bool:
    """Return whether a reply gives the gold away.

    Args:
        same: Whether a statement is the gold of mathematics: `same(gold, statement)`.
        holds_program: Whether a text holds a whole program that nobody said before: `holds_program(text, entry, said)`.

    Raises:
        Undecided: One of these did.
    """
    text = one_blank(plain_digits(reply))
    if gold.kind == "code":
        return may_hold_program(reply) and holds_program(reply, gold.entry, said)
    if gold.choices:
        return _names_choice(gold, text, said)
    if not gold.answer.strip() or _was_said(gold, one_blank(plain_digits(said))):
        return False
    if _stands_in(gold, text) or _states(gold, text, same):
        return True
    return not is_short(gold) and _stands_in(gold, decoded(text))


# Programs


def _unparsed(text: str, entry: str, said: str) -> bool:
    """Tell nothing: a program is parsed in a worker process only."""
    raise Undecided


# Multiple choice


def _names_choice(gold: Gold, text: str, said: str) -> bool:
    """Return whether a reply settles on the gold's option, by its letter or by its text alone."""
    own = read_choice(said, gold.choices)[0]
    if own == gold.answer:
        return False
    if read_choice(text, gold.choices)[0] == gold.answer:
        return True
    for statement in _statements(text, _CUE):
        if read_choice(statement, gold.choices)[0] == gold.answer:
            return True
    options = dict(zip(LETTERS, map(_squashed, gold.choices), strict=False))
    squashed = _squashed(text)
    named = {
        letter
        for letter, option in options.items()
        if len(option) >= 4 and option in squashed
    }
    return named == {gold.answer}


def _squashed(text: str) -> str:
    return re.sub(r"\W", "", text.casefold())


# What stands in a text


@lru_cache(1024)
def _value(answer: str) -> Fraction | None:
    """Return the exact value of a plain number without its sign, or None."""
    if len(answer) > MAX_CHARS:
        return None
    value = number(clean(answer))
    is_writable = value is not None and abs(value.numerator) < 10**MAX_DIGITS
    return abs(value) if value is not None and is_writable else None


def _stands_in(gold: Gold, text: str) -> bool:
    """Return whether a gold that stands nowhere by chance stands in a text, in whatever form."""
    if is_short(gold) or _holds(gold.answer, gold.prompt):
        return False
    return _is_in(gold, text)


def _is_in(gold: Gold, text: str) -> bool:
    """Return whether a gold stands in a text, in whatever form."""
    value = _value(gold.answer)
    if value is None:
        return _holds(gold.answer, text)
    if value in values_in(text):
        return True
    if value.denominator == 1 and spells_out(text, str(value)):
        return True
    if stands_backwards(text, str(value)):
        return True
    words = number_words(text)
    if any(f" {form} " in words for form in forms_of(value)):
        return True
    tokens = set(_TOKEN.findall(_BASE_MARK.sub(" ", text.lower())))
    return not tokens.isdisjoint(numerals_of(value))


def _is_words(answer: str) -> bool:
    """Return whether an answer is made of words, and no formula, in which small and large letters differ."""
    letters = sum(map(str.isalpha, answer))
    return "\\" not in answer and letters >= 0.8 * len(answer) and letters > 3


@lru_cache(1024)
def _holds(answer: str, text: str) -> bool:
    """Return whether an answer stands in a text, however spaced, with no letter or digit beside it."""
    plain = _SIZES.sub("", answer).removesuffix(".")
    squeezed = _SIZES.sub("", text)
    if _is_words(plain):
        plain, squeezed, text = plain.casefold(), squeezed.casefold(), text.casefold()
        if plain[::-1] in squeezed and plain[::-1] != plain and len(plain) > 7:
            return True
    # Most texts do not hold it at all, and building the pattern costs more than the rest of a consultation.
    letters = re.sub(r"[\s$*_.\-–,']", "", plain)
    if not letters or letters not in re.sub(r"[\s$*_.\-–,']", "", squeezed):
        return False
    if len(plain) > MAX_STATEMENT_CHARS:
        return plain in squeezed
    gap = r"[\s$*_.\-]{0,3}" if plain.isalpha() else r"[\s$]{0,3}"
    spaced = gap.join(map(re.escape, plain))
    return re.search(rf"(?<![\w.]){spaced}(?!\w|\.\d|\s?\^)", text) is not None


# What a text states


def _states(gold: Gold, text: str, same: Compare) -> bool:
    """Return whether a statement of a text is the gold."""
    is_math = gold.kind == "math"
    compare = same if is_math else _same_text
    if is_math and is_short(gold):
        compare = _same_at_sight  # to measure, no algebra is needed
    found = list(_statements(text, _CUE))
    if is_math and not is_short(gold):
        found += _statements(text, _LOOSE_CUE)
        found += [content for _, _, content in formulas(text)[-MAX_STATEMENTS:]]
    if len(text) <= len(gold.answer) + MAX_BARE_CHARS:
        found.append(text)
    value = _value(gold.answer)
    words = forms_of(value) if value is not None else ()
    for statement in dict.fromkeys(map(_bared, found)):
        if not statement or len(statement) > max(MAX_STATEMENT_CHARS, len(gold.answer)):
            continue
        if len(statement) >= LONG_ANSWER and _holds(statement, gold.prompt):
            continue  # of the problem, and so no answer
        if number_words(statement).strip() in words:
            return True
        if not compare(gold.answer, statement):
            continue
        if not is_math or not _restates(gold, statement, same):
            return True
    return False


def _restates(gold: Gold, statement: str, same: Compare) -> bool:
    """Return whether a statement is no more than the problem says, which is equal to its answer where it is to be computed."""
    # The same signs in another order are the answer in another order.
    is_same = sorted(_SIGNS.findall(statement)) == sorted(_SIGNS.findall(gold.answer))
    if is_short(gold) or is_same or _same_at_sight(gold.answer, statement):
        return False
    asked = [content for _, _, content in formulas(gold.prompt)[:MAX_ASKED]]
    asked += _ASKED.findall(gold.prompt)[:MAX_ASKED]
    return any(same(part.strip(_EDGES), statement) for part in asked)


def _statements(text: str, cue: re.Pattern[str]) -> Iterator[str]:
    """Yield what stands in boxes and tags, and behind each cue: up to the sentence's end, and to the clause's."""
    if cue is _CUE:
        yield from (content for _, _, content in boxes(text)[-4:])
        yield from TAG.findall(text)[-4:]
    for found in list(cue.finditer(text))[-MAX_STATEMENTS:]:
        if _DENIED.search(text, max(0, found.start() - 20), found.end()):
            continue
        rest = text[found.end() : found.end() + MAX_STATEMENT_CHARS + MAX_BARE_CHARS]
        if re.match(r"(?i)not\b|never\b", rest):
            continue
        sentence = _SENTENCE_END.split(rest, maxsplit=1)[0]
        yield sentence
        clause = _CLAUSE_END.split(sentence, maxsplit=1)[0]
        if clause != sentence:
            yield clause


def _bared(statement: str) -> str:
    """Return a statement without what dresses it."""
    statement = statement.strip(_EDGES)
    filler = _FILLER.match(statement)
    return statement[filler.end() :].strip(_EDGES) if filler else statement


def _same_text(gold: str, statement: str) -> bool:
    return _squashed(gold) == _squashed(statement) != ""


def _same_without_algebra(gold: str, statement: str) -> bool:
    if not _may_be_same(gold, statement):
        return False
    if len(statement) > MAX_INLINE_GOLD:
        raise Undecided
    return without_algebra(gold, statement).status == "correct"


def _same_at_sight(gold: str, statement: str) -> bool:
    value = _value(gold)
    if value is not None:
        return _value(statement) == value
    try:
        return without_algebra(gold, statement).status == "correct"
    except Undecided:
        return False


def _may_be_same(gold: str, statement: str) -> bool:
    """Return whether there is anything to compare: prose is no formula, and a number is none without digits."""
    words = re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}", statement)
    known = set(re.findall(r"[a-zA-Z]{3,}", gold))
    return len([word for word in words if word not in known]) <= 2


# What the policy said


def _was_said(gold: Gold, said: str) -> bool:
    """Return whether the policy named the gold as its own, and not in a list of candidates."""
    value = _value(gold.answer)
    if value is None:
        return _holds(gold.answer, said) and not _is_listed(gold.answer, said)
    if not _is_in(gold, said):
        return False
    others = {
        other
        for other in values_in(said)
        if other != value and len(str(other)) >= len(str(value)) - 1
    }
    return len(others) <= MAX_OTHERS


def _is_listed(answer: str, said: str) -> bool:
    """Return whether an answer that is no number was said as one of several, wherever it was said."""
    named = [
        sentence
        for sentence in _SENTENCE_END.split(said)
        if sentence and _holds(answer, sentence)
    ]
    own = len(_SEPARATORS.findall(answer))
    return bool(named) and all(
        len(_SEPARATORS.findall(sentence)) - own >= MAX_OTHERS for sentence in named
    )
