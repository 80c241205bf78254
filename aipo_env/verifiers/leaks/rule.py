"""The leak rule: whether an agent's reply gives the gold answer of its task away.

A reply does when the answer that it states is the gold in any form, or when a gold that
nobody could guess stands in it, in digits, in words, in another base or encoded; for a
code task, when it holds a whole program. Not when the policy said it first
(`candidates.py`). Riddles ("one less than a million") are not found.

A gold with few candidates (`is_short`) is looked for only where a reply states its
answer, and is for measuring: to withhold a reply would tell the policy that it asked
the right question.
"""

import re
from collections.abc import Callable

from aipo_env.verifiers.choice import read_choice
from aipo_env.verifiers.choice_options import LETTERS
from aipo_env.verifiers.extract import formulas, one_blank
from aipo_env.verifiers.leaks.candidates import names_number, names_text
from aipo_env.verifiers.leaks.encodings import decoded
from aipo_env.verifiers.leaks.gold import (
    LONG_ANSWER,
    SIZES,
    Gold,
    is_short,
    is_words,
    signs_of,
    value_of,
)
from aipo_env.verifiers.leaks.numerals import forms_of, number_words
from aipo_env.verifiers.leaks.plain_text import plain
from aipo_env.verifiers.leaks.programs import may_hold_program
from aipo_env.verifiers.leaks.standing import holds, stands_in
from aipo_env.verifiers.leaks.statements import (
    CUE,
    EDGES,
    MAX_STATEMENT_CHARS,
    VARIABLE,
    bared,
    statements,
    statements_of,
)
from aipo_env.verifiers.math.grade import Undecided, without_algebra

MAX_ASKED = 6
"""So many formulas of a problem are compared with a statement, of either kind."""
_MIN_OPTION_CHARS = 4
"""A shorter option of a multiple choice stands in any text."""
_MAX_STRANGE_WORDS = 2
"""Words in a formula that the gold lacks; with more it is prose."""

_CONSTANTS = frozenset("eiCP")
"""Letters that may stand in a number: of `e^{i\\pi}`, `C(8,4)`."""
_SETS = ("\\in", "\\cup", "\\{", "\\infty")
_ASKED = re.compile(r"(?<![\w\\])[\d(\\][\w\\{}()^*/+\-×·÷=.! ]{2,120}[\w)}!]")
"""What may be a formula in a problem that does not mark it."""
_NO_WORD = re.compile(r"\W")
_DIGIT = re.compile(r"\d")
_FORMULA_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")
_LONG_WORD = re.compile(r"[a-zA-Z]{3,}")

Compare = Callable[[str, str], bool]
"""Tells whether a statement is a gold: `same(gold, statement)`."""


def leaks(
    gold: Gold,
    reply: str,
    said: str,
    same: Compare,
    holds_program: Callable[[str, str, str], bool],
) -> bool:
    """Return whether a reply gives the gold away.

    Args:
        gold: What must not be given away.
        reply: The agent's words.
        said: The policy's own words that let a reply repeat the gold.
        same: Whether a statement is the gold of mathematics: `same(gold, statement)`.
        holds_program: Whether a text holds a whole program that nobody said before:
            `holds_program(text, entry, said)`.

    Raises:
        Undecided: One of these did.
    """
    if gold.kind == "code":
        return may_hold_program(reply) and holds_program(reply, gold.entry, said)
    text = one_blank(plain(reply))
    if gold.choices:
        return _names_choice(gold, text, said)
    if not gold.answer.strip():
        return False
    if not _reveals(gold, text, same):
        return False
    return not _was_said(gold, one_blank(plain(said)))


def _reveals(gold: Gold, text: str, same: Compare) -> bool:
    """Return whether a gold stands in a text, plain or encoded, or is stated by it."""
    if stands_in(gold, text) or _states(gold, text, same):
        return True
    # Some encoding of any text holds a short gold.
    return not is_short(gold) and stands_in(gold, decoded(text))


# Multiple choice


def _names_choice(gold: Gold, text: str, said: str) -> bool:
    """Return whether a reply settles on the gold's option, by letter or by text."""
    own_letter, _ = read_choice(said, gold.choices)
    if own_letter == gold.answer:
        return False
    for statement in (text, *statements(text, CUE)):
        letter, _ = read_choice(statement, gold.choices)
        if letter == gold.answer:
            return True
    return _options_in(text, gold.choices) == {gold.answer}


def _options_in(text: str, choices: tuple[str, ...]) -> set[str]:
    """Return the letters of the options whose text stands in a text."""
    squashed = _squashed(text)
    letters: set[str] = set()
    for letter, choice in zip(LETTERS, choices, strict=False):
        option = _squashed(choice)
        if len(option) >= _MIN_OPTION_CHARS and option in squashed:
            letters.add(letter)
    return letters


def _squashed(text: str) -> str:
    """Return the letters and digits of a text, all small."""
    return _NO_WORD.sub("", text.casefold())


# What a text states


def _states(gold: Gold, text: str, same: Compare) -> bool:
    """Return whether a statement of a text is the gold."""
    value = value_of(gold.answer)
    forms = forms_of(value) if value is not None else ()
    max_chars = max(MAX_STATEMENT_CHARS, len(gold.answer))
    for statement in dict.fromkeys(map(bared, statements_of(gold, text))):
        if not statement or len(statement) > max_chars:
            continue
        if len(statement) >= LONG_ANSWER and holds(statement, gold.prompt):
            continue  # of the problem, and so no answer
        if number_words(statement).strip() in forms:
            return True
        if _is_gold(gold, statement, same):
            return True
    return False


def _is_gold(gold: Gold, statement: str, same: Compare) -> bool:
    """Return whether a statement equals the gold, and is not what the problem says."""
    if gold.kind != "math":
        return _same_text(gold.answer, statement)
    if not _may_be_same(gold.answer, statement):
        return False
    # A short gold is looked for to measure, and for that no algebra is needed.
    compare = _same_at_sight if is_short(gold) else same
    if not compare(gold.answer, statement):
        return False
    return not _restates(gold, statement, same)


def _restates(gold: Gold, statement: str, same: Compare) -> bool:
    """Return whether a statement is no more than the problem says.

    What is to be computed is equal to its answer.
    """
    if is_short(gold):
        return False
    # The same signs in another order are the answer in another order.
    if signs_of(statement) == signs_of(gold.answer):
        return False
    if _same_at_sight(gold.answer, statement):
        return False
    marked = [content for _, _, content in formulas(gold.prompt)[:MAX_ASKED]]
    unmarked = _ASKED.findall(gold.prompt)[:MAX_ASKED]
    return any(same(part.strip(EDGES), statement) for part in marked + unmarked)


# Whether a statement is the gold


def _same_text(gold: str, statement: str) -> bool:
    squashed = _squashed(gold)
    return squashed != "" and squashed == _squashed(statement)


def _same_at_sight(gold: str, statement: str) -> bool:
    value = value_of(gold)
    if value is not None:
        return value_of(statement) == value
    try:
        return without_algebra(gold, statement).status == "correct"
    except Undecided:
        return False


def _may_be_same(gold: str, statement: str) -> bool:
    """Return whether there is anything to compare.

    Prose is no formula, a number has digits, and a formula its variables.
    """
    gold_words = set(_LONG_WORD.findall(gold))
    words = _FORMULA_WORD.findall(statement)
    strange_words = [word for word in words if word not in gold_words]
    if len(strange_words) > _MAX_STRANGE_WORDS:
        return False
    if value_of(gold) is not None:
        has_digits = _DIGIT.search(statement) is not None
        return has_digits and not _variables(statement)
    if is_words(gold):
        return True
    is_list = gold[:1] in "([" and "," in gold
    if is_list or any(mark in gold for mark in _SETS):
        # A part of a set is not the set.
        return len(signs_of(statement)) >= len(signs_of(gold)) / 2
    if "=" in gold:
        gold_variables = set(VARIABLE.findall(gold))
        strange = gold_variables ^ set(VARIABLE.findall(statement))
        return len(strange) <= 1
    return _variables(gold) == _variables(statement)


def _variables(text: str) -> set[str]:
    """Return the variables of a formula, in an equation those behind its last sign."""
    value = text.rpartition("=")[2]
    return set(VARIABLE.findall(value)) - _CONSTANTS


# What the policy said


def _was_said(gold: Gold, said: str) -> bool:
    """Return whether the policy named the gold as its own, not as a candidate."""
    if not said:
        return False
    value = value_of(gold.answer)
    if value is not None:
        return names_number(said, value, forms_of(value))
    is_text = is_words(SIZES.sub("", gold.answer))
    return names_text(said, gold.answer, is_text)
