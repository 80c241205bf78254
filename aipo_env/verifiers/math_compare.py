"""When two answers say the same, form by form. What only algebra can decide is asked of a `Judge`."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from aipo_env.verifiers.math_forms import Form, read, spelled_out
from aipo_env.verifiers.math_text import close, is_approximate, number

FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
_WORDS = re.compile(
    r"(?=.*(?:[^\W\d_]{4}|[^\W\d_]{2,} [^\W\d_]{2}))[^\W\d_](?:[^\W\d_]|[\s,'.-])*"
)


class Judge(Protocol):
    """Decides what algebra must decide; all texts are clean."""

    def scalars(self, first: str, second: str, rename: bool) -> bool:
        """Return whether two expressions are equal; `rename`: up to the names of their variables."""

    def relations(self, first: Form, second: Form) -> bool:
        """Return whether two equations or inequalities say the same, or a value solves an equation for its rest."""

    def sets(self, first: Form, second: Form) -> bool | None:
        """Return whether two forms name the same set of real numbers; None where one of them names none."""


def same(gold: Form, answer: Form, judge: Judge, rename: bool = False) -> bool:
    """Return whether an answer says what the gold says."""
    if gold.text == answer.text:
        return bool(gold.text)
    rename = rename or (gold.is_family and answer.is_family)
    golds, answers = values(gold), values(answer)
    if len(golds) != 1 or len(answers) != 1:
        return _same_lists(gold, answer, golds, answers, judge)
    gold, answer = (
        _collapsed(golds[0], answers[0], judge),
        _collapsed(answers[0], golds[0], judge),
    )
    if gold.kind == answer.kind == "group":
        marks_agree = gold.marks == answer.marks or len(gold.parts) != 2
        return marks_agree and _all_same(gold.parts, answer.parts, judge, rename)
    kinds = {gold.kind, answer.kind}
    if kinds == {"group", "scalar"} and "\\mathbb" not in gold.text + answer.text:
        return "\\begin" in gold.text + answer.text and _same_vectors(
            gold, answer, judge
        )
    if gold.kind == answer.kind == "scalar":
        return same_scalars(gold.text, answer.text, judge, rename)
    first, second = _as_relation(gold, answer), _as_relation(answer, gold)
    if first.kind == second.kind == "relation" and _same_chains(first, second, judge):
        return True
    if (verdict := judge.sets(gold, answer)) is not None:
        return verdict
    are_relations = first.kind == "relation" and second.kind in ("relation", "scalar")
    return are_relations and judge.relations(first, second)


def values(form: Form) -> list[Form]:
    """Return the entries of a list or set, each sign of ± spelled out; of anything else itself alone."""
    parts = form.parts if form.kind in ("list", "set") else (form,)
    return [value for part in parts for value in spelled_out(part)]


def same_scalars(first: str, second: str, judge: Judge, rename: bool) -> bool:
    """Compare two expressions: as text, as numbers, as words, and only then by algebra."""
    if first == second or not first or not second:
        return first == second
    numbers = number(first), number(second)
    if numbers[0] is not None and numbers[1] is not None:
        return close(
            numbers[0],
            numbers[1],
            approximate=is_approximate(first) or is_approximate(second),
        )
    words = _WORDS.fullmatch(first), _WORDS.fullmatch(second)
    if any(words):
        return all(words) and first.lower().split() == second.lower().split()
    return judge.scalars(first, second, rename)


def _all_same(
    golds: Sequence[Form], answers: Sequence[Form], judge: Judge, rename: bool = False
) -> bool:
    return len(golds) == len(answers) and all(
        same(*pair, judge, rename) for pair in zip(golds, answers, strict=True)
    )


def _same_lists(
    gold: Form, answer: Form, golds: list[Form], answers: list[Form], judge: Judge
) -> bool:
    """Compare solution lists: in any order, unless labels or the brackets of one side give the order."""
    for one, other, entries in ((gold, answer, answers), (answer, gold, golds)):
        if one.kind == "group" and other.kind == "list" and len(values(one)) == 1:
            return one.marks == ("(", ")") and _all_same(one.parts, entries, judge)
    has_conditions = any(
        form.kind in ("relation", "union", "without") for form in golds + answers
    )
    if has_conditions and (verdict := judge.sets(gold, answer)) is not None:
        return verdict
    if len(answers) > len(golds):
        answers = list(
            {re.sub(r"\s", "", form.text): form for form in answers}.values()
        )
    if len(golds) != len(answers):
        return False
    labels = [[form.label for form in forms] for forms in (golds, answers)]
    distinct = [len(set(names)) == len(names) > 1 for names in labels]
    if has_names := all(distinct) and sorted(labels[0]) == sorted(labels[1]):
        answers = [answers[labels[1].index(name)] for name in labels[0]]
    if has_names or (any(distinct) and not all(labels[0] + labels[1])):
        return _all_same(golds, answers, judge)
    left = list(answers)
    for form in golds:
        match = next((other for other in left if same(form, other, judge)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_vectors(gold: Form, answer: Form, judge: Judge) -> bool:
    """Compare a tuple with a matrix of one row or column."""
    group, matrix = (gold, answer) if gold.kind == "group" else (answer, gold)
    between = "&" if "&" in matrix.text else r"\\"
    column = (
        r"\begin{pmatrix}"
        + between.join(part.text for part in group.parts)
        + r"\end{pmatrix}"
    )
    return judge.scalars(column, matrix.text, False)


def _as_relation(form: Form, other: Form) -> Form:
    """Return a labelled formula as the equation it came from, if the other is an equation too."""
    if (
        form.kind == "scalar"
        and form.label
        and other.kind == "relation"
        and number(form.text) is None
    ):
        return Form("relation", form.text, (Form("scalar", form.label), form), ("=",))
    return form


def _collapsed(form: Form, other: Form, judge: Judge) -> Form:
    """Return the value of a calculation like `17 mod 5 = 2`, if it is right and the other side is a value."""
    if form.kind != "relation" or other.kind != "scalar" or set(form.marks) != {"="}:
        return form
    pairs = zip(form.parts, form.parts[1:], strict=False)
    is_right = all(same_scalars(one.text, two.text, judge, False) for one, two in pairs)
    return form.parts[-1] if is_right else form


def _same_chains(first: Form, second: Form, judge: Judge) -> bool:
    """Compare chains like `a < b <= c` side by side, read from the left or from the right."""
    for chain in (second, _turned(second)):
        if first.marks == chain.marks:
            sides = [
                (one.text, two.text)
                for one, two in zip(first.parts, chain.parts, strict=True)
            ]
            is_chain = len(first.marks) > 1  # of two sides, only the difference counts
            if all(
                one == two or (is_chain and same_scalars(one, two, judge, False))
                for one, two in sides
            ):
                return True
    return False


def _turned(form: Form) -> Form:
    marks = tuple(FLIPPED.get(mark, mark) for mark in form.marks[::-1])
    return replace(form, parts=form.parts[::-1], marks=marks)


def equivalent(gold: str, answer: str, judge: Judge) -> bool:
    """Return whether a clean answer says what a clean gold says."""
    return same(read(gold), read(answer), judge)
