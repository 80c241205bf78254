"""When two answers say the same, form by form.

What only algebra can decide is asked of a `Judge`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

from aipo_env.verifiers.math.forms import Form, read, spelled_out
from aipo_env.verifiers.math.text import number, same_numbers

FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
"""What an inequality becomes when its sides are exchanged."""
_WORDS = re.compile(
    r"""
    (?= .* (?: [^\W\d_]{4}                    # even
           |   [^\W\d_]{2,}[ ][^\W\d_]{2} )   # no such
    )
    [^\W\d_] (?: [^\W\d_] | [\s,'.-] )*
    """,
    re.VERBOSE,
)
"""Words, rather than a product of variables."""
_SPACE = re.compile(r"\s")
_ARTICLES = ("a", "an", "the")


class Judge(Protocol):
    """Decides what algebra must decide; all texts are clean."""

    def scalars(self, first: str, second: str, rename: bool) -> bool:
        """Return whether two expressions are equal.

        Args:
            rename: Up to the names of their variables.
        """

    def relations(self, first: Form, second: Form) -> bool:
        """Return whether two equations or inequalities say the same.

        A value says the same as an equation that gives it for its one other unknown.
        """

    def sets(self, first: Form, second: Form) -> bool | None:
        """Return whether two forms name the same set of real numbers.

        None where one of them names none.
        """


def same(gold: Form, answer: Form, judge: Judge, rename: bool = False) -> bool:
    """Return whether an answer says what the gold says.

    Args:
        rename: Names of variables do not matter.
    """
    if gold.text == answer.text:
        return bool(gold.text)
    rename = rename or (gold.is_family and answer.is_family)
    golds = values(gold)
    answers = values(answer)
    if len(golds) != 1 or len(answers) != 1:
        return _same_lists(gold, answer, golds, answers, judge, rename)
    gold_value = _collapsed(golds[0], answers[0], judge)
    answer_value = _collapsed(answers[0], golds[0], judge)
    return _same_values(gold_value, answer_value, judge, rename)


def _same_values(gold: Form, answer: Form, judge: Judge, rename: bool) -> bool:
    """Compare two forms that are no lists."""
    if gold.kind == "group" and answer.kind == "group":
        return _same_groups(gold, answer, judge, rename)
    texts = gold.text + answer.text
    kinds = {gold.kind, answer.kind}
    # A tuple of two may be an interval, and equal to the set named `\mathbb{R}`.
    if kinds == {"group", "scalar"} and "\\mathbb" not in texts:
        has_matrix = "\\begin" in texts
        return has_matrix and _same_vectors(gold, answer, judge)
    if gold.kind == "scalar" and answer.kind == "scalar":
        return same_scalars(gold.text, answer.text, judge, rename)
    first = _as_relation(gold, answer)
    second = _as_relation(answer, gold)
    both_relations = first.kind == "relation" and second.kind == "relation"
    if both_relations and _same_chains(first, second, judge):
        return True
    verdict = judge.sets(gold, answer)
    if verdict is not None:
        return verdict
    is_equation_for_value = first.kind == "relation" and second.kind == "scalar"
    if both_relations or is_equation_for_value:
        return judge.relations(first, second)
    return False


def values(form: Form) -> list[Form]:
    """Return the entries of a list or set, each sign of ± spelled out.

    Of anything else return itself alone, spelled out as well.
    """
    # {∅} is no other way to write ∅, as {5} is to write 5.
    holds_empty_set = form.kind == "set" and "\\emptyset" in form.text
    has_entries = form.kind in ("list", "set") and not holds_empty_set
    parts = form.parts if has_entries else (form,)
    return [value for part in parts for value in spelled_out(part)]


def same_scalars(first: str, second: str, judge: Judge, rename: bool) -> bool:
    """Compare two expressions: as text, as numbers, as words, and only then by algebra.

    Args:
        rename: Names of variables do not matter.
    """
    if first == second or not first or not second:
        return first == second
    are_equal = same_numbers(first, second)
    if are_equal is not None:
        return are_equal
    first_is_words = _WORDS.fullmatch(first) is not None
    second_is_words = _WORDS.fullmatch(second) is not None
    if first_is_words and second_is_words:
        return _plain_words(first) == _plain_words(second)
    # Words and an expression never say the same, whatever a parser makes of words.
    if first_is_words or second_is_words:
        return False
    return judge.scalars(first, second, rename)


def _plain_words(text: str) -> list[str]:
    """Return the words of an answer in small letters, without the article."""
    words = text.lower().split()
    return words[1:] if len(words) > 1 and words[0] in _ARTICLES else words


def _same_groups(gold: Form, answer: Form, judge: Judge, rename: bool) -> bool:
    """Compare tuples and intervals, whose order matters."""
    # Two entries may be an interval, whose brackets matter; more are a point.
    marks_agree = gold.marks == answer.marks or len(gold.parts) != 2
    return marks_agree and _all_same(gold.parts, answer.parts, judge, rename)


def _all_same(
    golds: Sequence[Form], answers: Sequence[Form], judge: Judge, rename: bool = False
) -> bool:
    """Compare two sequences entry by entry."""
    if len(golds) != len(answers):
        return False
    pairs = zip(golds, answers, strict=True)
    return all(same(gold, answer, judge, rename) for gold, answer in pairs)


def _same_lists(
    gold: Form,
    answer: Form,
    golds: list[Form],
    answers: list[Form],
    judge: Judge,
    rename: bool,
) -> bool:
    """Compare solution lists.

    They may be in any order, unless labels or the brackets of one side give the order.

    Args:
        rename: Names of variables do not matter.
    """
    if _is_tuple_against_list(gold, answer):
        return _same_as_tuple(gold, answers, judge, rename)
    if _is_tuple_against_list(answer, gold):
        return _same_as_tuple(answer, golds, judge, rename)
    condition_kinds = ("relation", "union", "without")
    has_conditions = any(form.kind in condition_kinds for form in golds + answers)
    if has_conditions:
        verdict = judge.sets(gold, answer)
        if verdict is not None:
            return verdict
    if len(answers) > len(golds):
        answers = _without_repetitions(answers)
    if len(golds) != len(answers):
        return False
    gold_labels = [form.label for form in golds]
    answer_labels = [form.label for form in answers]
    are_distinct = [_are_distinct(gold_labels), _are_distinct(answer_labels)]
    if all(are_distinct) and sorted(gold_labels) == sorted(answer_labels):
        by_label = dict(zip(answer_labels, answers, strict=True))
        matching = [by_label[label] for label in gold_labels]
        return _all_same(golds, matching, judge, rename)
    # `x = 1, y = 2` against `1, 2`: bare values are meant in the order of the names.
    has_bare_value = "" in gold_labels + answer_labels
    if any(are_distinct) and has_bare_value:
        return _all_same(golds, answers, judge, rename)
    return _same_in_any_order(golds, answers, judge, rename)


def _is_tuple_against_list(group: Form, entries: Form) -> bool:
    """Return whether one form is a tuple and the other a list without brackets."""
    if group.kind != "group" or entries.kind != "list":
        return False
    # A tuple with ± in it stands for several, and is a list itself.
    return len(values(group)) == 1


def _same_as_tuple(
    group: Form, entries: list[Form], judge: Judge, rename: bool
) -> bool:
    """Return whether entries without brackets are those of a tuple, in its order."""
    is_tuple = group.marks == ("(", ")")  # an interval is no list of its ends
    return is_tuple and _all_same(group.parts, entries, judge, rename)


def _without_repetitions(forms: list[Form]) -> list[Form]:
    """Return one form of each text: the last, in the place of the first."""
    by_text = {_SPACE.sub("", form.text): form for form in forms}
    return list(by_text.values())


def _are_distinct(labels: list[str]) -> bool:
    has_repetition = len(set(labels)) < len(labels)
    return len(labels) > 1 and not has_repetition


def _same_in_any_order(
    golds: list[Form], answers: list[Form], judge: Judge, rename: bool
) -> bool:
    """Return whether each of the golds is one of the answers, and each only once."""
    left = list(answers)
    for gold in golds:
        matches = (answer for answer in left if same(gold, answer, judge, rename))
        # Lazily: a comparison may take long, and the first match is enough.
        match = next(matches, None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_vectors(gold: Form, answer: Form, judge: Judge) -> bool:
    """Compare a tuple with a matrix of one row or column."""
    is_gold_tuple = gold.kind == "group"
    group = gold if is_gold_tuple else answer
    matrix = answer if is_gold_tuple else gold
    separator = "&" if "&" in matrix.text else r"\\"
    entries = separator.join(part.text for part in group.parts)
    vector = rf"\begin{{pmatrix}}{entries}\end{{pmatrix}}"
    return judge.scalars(vector, matrix.text, False)


def _as_relation(form: Form, other: Form) -> Form:
    """Return a labelled formula as its equation, if the other is an equation too.

    A form keeps only the value of `y = 2x + 1`; against `2x - y = -1` the label counts.
    """
    is_formula = form.kind == "scalar" and number(form.text) is None
    if is_formula and form.label and other.kind == "relation":
        sides = (Form("scalar", form.label), form)
        return Form("relation", form.text, sides, ("=",))
    return form


def _collapsed(form: Form, other: Form, judge: Judge) -> Form:
    """Return the value of a calculation like `17 mod 5 = 2`.

    Anything else, a calculation that is wrong, or one whose counterpart is no value, is
    returned as it is.
    """
    is_calculation = form.kind == "relation" and set(form.marks) == {"="}
    if not is_calculation or other.kind != "scalar":
        return form
    texts = [part.text for part in form.parts]
    for left, right in pairwise(texts):
        if not same_scalars(left, right, judge, False):
            return form
    return form.parts[-1]


def _same_chains(first: Form, second: Form, judge: Judge) -> bool:
    """Compare chains like `a < b <= c`, read from the left or from the right."""
    if _same_sides(first, second, judge):
        return True
    return _same_sides(first, _turned(second), judge)


def _same_sides(first: Form, second: Form, judge: Judge) -> bool:
    """Compare chains side by side."""
    if first.marks != second.marks:
        return False
    # Of two sides only the difference counts: `x - 1 = 0` is `x = 1`. Algebra sees it.
    is_chain = len(first.marks) > 1
    for left, right in zip(first.parts, second.parts, strict=True):
        if left.text == right.text:
            continue
        if not is_chain:
            return False
        if not same_scalars(left.text, right.text, judge, False):
            return False
    return True


def _turned(form: Form) -> Form:
    """Return a chain read from the right: `c > b` for `b < c`."""
    parts = tuple(reversed(form.parts))
    marks = tuple(FLIPPED.get(mark, mark) for mark in reversed(form.marks))
    return replace(form, parts=parts, marks=marks)


def equivalent(gold: str, answer: str, judge: Judge) -> bool:
    """Return whether a clean answer says what a clean gold says."""
    return same(read(gold), read(answer), judge)
