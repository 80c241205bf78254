"""The form of an answer (list, tuple, interval, set, relation, …) read from clean text alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Literal

from aipo_env.verifiers.math_text import drop_units, number

Kind = Literal["scalar", "list", "set", "group", "union", "without", "relation"]
MAX_PARTS = 64
"""Longer lists are not read, and more choices of signs not spelled out."""

_SEPARATOR = re.compile(
    r"\s*(?:[,;]\s*(?:(?:and|or)\b)?|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*"
)
_SEMICOLON = re.compile(r"\s*;\s*")
_RATIO = re.compile(r"\s*:\s*")
_UNION = re.compile(r"\s*\\cup(?![A-Za-z])\s*")
_WITHOUT = re.compile(
    r"\s*\\setminus(?![A-Za-z])\s*|(?<=\\\})\s*-\s*(?=\\\{)|(?<=\\mathbb\{R\})\s*-\s*(?=\\\{)"
)
_SIGN = re.compile(r"\\([pm])(?:(?<=p)m|(?<=m)p)(?![A-Za-z])")
_RELATION = re.compile(
    r"\s*(\\(?:le|ge|ne|in|equiv|approx|to|implies|iff)(?![A-Za-z])|[=<>])\s*"
)
_SUCH_THAT = re.compile(r"\s*(?:\\mid(?![A-Za-z])|[|:])\s*")
_BRACKET = re.compile(
    r"\\(?:begin|end)\{\w+\*?\}|\\(?:langle|lfloor|lceil)(?![A-Za-z])|\\(?:rangle|rfloor|rceil)(?![A-Za-z])|\\[{}]|[][(){}]"
)
_SCRIPT = r"_(?:\{[^{}=\s]*(?:\{[^{}]*\})?\}|\\?[A-Za-z]+(?:\{[^{}]*\})?|[0-9]+)"
"""A subscript, as in `x_1`, `x_{10}`, `x_{\\text{max}}`."""
_NAME = rf"\\?[A-Za-z]+(?:{_SCRIPT})?'*"
_POINT = r"[A-Z](?:_(?:\{\w+\}|[0-9a-z]+))?"
_SEGMENT = (
    rf"\|?(?:\\(?:angle|triangle|overline|widehat)\s*)?\{{?{_POINT}(?:{_POINT})*\}}?\|?"
)
_LABEL = re.compile(
    rf"(?:{_NAME}(?:\s*\(\s*[-+\w\s,\\]*\))?|{_SEGMENT}(?:\s*[:/]\s*{_SEGMENT})*|\\frac\{{{_SEGMENT}\}}\{{{_SEGMENT}\}}"
    rf"|\(\s*{_NAME}(?:\([a-z]\))?(?:\s*,\s*{_NAME}(?:\([a-z]\))?)*\s*\)|[A-Za-z]{{2,}}(?: [A-Za-z]+)*)"
)
_WORD_LABEL = re.compile(r"([A-Za-z]{4,}(?: [A-Za-z]+)*)\s*:\s*(.+)")
_MEMBERSHIP = re.compile(
    r"\(?\s*(?:for\s+)?[a-zA-Z]\s*\\in\s*\\mathbb\{[ZN]\}\s*\)?|[a-z] is an integer"
)


@dataclass(frozen=True)
class Form:
    """One part of an answer.

    `marks` holds a group's brackets or a relation's operators; `label` what is before `=`. The names of the
    variables of a family, like `f(n) = 2n` or `x = 2k\\pi, k \\in \\mathbb{Z}`, do not matter.
    """

    kind: Kind
    text: str
    parts: "tuple[Form, ...]" = ()
    marks: tuple[str, ...] = ()
    label: str = ""
    is_family: bool = False


def _depths(text: str) -> tuple[list[int], bool]:
    """Return how deep in brackets each character stands (a bracket stands within itself), and if all match."""
    depths, depth, matched = list[int](), 0, True
    for bracket in _BRACKET.finditer(text):
        depths += [depth] * (bracket.start() - len(depths))
        is_open = bracket.group().lstrip("\\")[0] in "([{lb"
        depth += is_open
        matched &= depth > 0
        depths += [depth] * len(bracket.group())
        depth -= not is_open
    return depths + [depth] * (len(text) - len(depths)), matched and depth == 0


def split_top(text: str, pattern: re.Pattern[str]) -> list[str]:
    """Split where the pattern matches outside every bracket; the text of its group, if it has one, is kept.

    Longer lists than anybody needs are not split.
    """
    depths, parts, start = _depths(text)[0], list[str](), 0
    for found in pattern.finditer(text):
        if depths[found.start()] == 0 and found.end() > found.start():
            parts += [text[start : found.start()], *found.groups()]
            start = found.end()
    return (
        [part.strip() for part in [*parts, text[start:]]]
        if len(parts) < 2 * MAX_PARTS
        else [text]
    )


def read(text: str, depth: int = 0) -> Form:
    """Return the form of a clean text."""
    text = text.strip().rstrip(".")
    if depth > 8 or number(text) is not None:
        return Form("scalar", text)
    if len(parts := [part for part in split_top(text, _SEPARATOR) if part]) > 1:
        groups = [read(group, depth + 1) for group in split_top(text, _SEMICOLON)]
        if 1 < len(groups) < len(parts):  # x=1, y=2; x=3, y=4
            return Form(
                "list",
                text,
                tuple(replace(form, kind="group", marks=("(", ")")) for form in groups),
            )
        forms = [
            read(drop_units(part), depth + 1)
            for part in parts
            if not _MEMBERSHIP.fullmatch(part)
        ]
        return (
            replace(forms[0], is_family=True)
            if len(forms) == 1
            else Form("list", text, tuple(forms))
        )
    if word := _WORD_LABEL.fullmatch(text):
        return _labelled(read(word[2], depth + 1), word[1])
    if len(sides := split_top(text, _RELATION)) > 1:
        return _read_relation(text, sides, depth)
    if len(parts := split_top(text, _UNION)) > 1:
        return Form("union", text, tuple(read(part, depth + 1) for part in parts))
    if len(parts := split_top(text, _WITHOUT)) == 2:
        return Form("without", text, tuple(read(part, depth + 1) for part in parts))
    if len(parts := split_top(text, _RATIO)) > 2:
        shares = (read(f"({part})/({parts[0]})", depth + 1) for part in parts)
        return Form("group", text, tuple(shares), (":", ":"))
    return _read_bracketed(re.sub(r"^[A-Z]\s*(?=\(.*,.*\)$)", "", text), depth)


def _read_relation(text: str, sides: list[str], depth: int) -> Form:
    """Return a labelled value for `x = … = 5 ≈ 5.0` and `x ∈ S`, else a relation."""
    operators, terms = sides[1::2], sides[::2]
    while len(operators) > 1 and operators[-1] == "\\approx":
        operators, terms = operators[:-1], terms[:-1]
    if operators == ["\\approx"]:
        named = _LABEL.fullmatch(terms[0])
        return (
            _labelled(read(terms[1], depth + 1), terms[0])
            if named
            else read(terms[0], depth + 1)
        )
    if operators == ["\\in"] and terms[0]:
        return _labelled(read(terms[1], depth + 1), terms[0])
    if set(operators) <= {"=", "\\approx"} and terms[0] and terms[-1]:
        if is_label(terms[0], terms[-1]):
            return _labelled(read(terms[-1], depth + 1), terms[0])
        if len(terms) == 2 and is_label(terms[1], terms[0]):
            return _labelled(read(terms[0], depth + 1), terms[1])
    return Form(
        "relation",
        text,
        tuple(Form("scalar", term) for term in terms),
        tuple(operators),
    )


def is_label(text: str, value: str) -> bool:
    """Return whether `text = value` names a value (`x`, `f(n)`, `|AB|`, `(p,q)`), rather than states an equation."""
    if not _LABEL.fullmatch(text) or re.fullmatch(r"[a-z]{2,3}", text):
        return False
    name = re.escape(text)
    return (
        re.search(rf"(?<![A-Za-z\\_]){name}(?![A-Za-z_])", value) is None
        or "(" in text
        or len(text) > 2
    )


def _labelled(form: Form, label: str) -> Form:
    return replace(
        form,
        label=label,
        is_family=form.is_family or (label.endswith(")") and label[0] != "("),
    )


def _read_bracketed(text: str, depth: int) -> Form:
    """Return a set, tuple or interval, or the scalar that is left."""
    opened, closed = (
        re.match(r"\\\{|\\langle|[({[]", text),
        re.search(r"(?:\\\}|\\rangle|[])}])$", text),
    )
    if opened and closed and opened.end() <= closed.start():
        inner = text[opened.end() : closed.start()].strip()
        if _depths(inner)[1]:
            return _read_inner(text, inner, opened.group(), closed.group(), depth)
    return Form("scalar", text)


def _read_inner(text: str, inner: str, mark: str, closing: str, depth: int) -> Form:
    if mark == "\\{":
        if len(parts := split_top(inner, _SUCH_THAT)) == 2:
            return _labelled(read(parts[1], depth + 1), "{")
        parts = [part for part in split_top(inner, _SEPARATOR) if part]
        return Form("set", text, tuple(read(part, depth + 1) for part in parts))
    parts = split_top(inner, re.compile(r"\s*[,;]\s*"))
    if len(parts) == 1 or mark == "{":
        return (
            read(inner, depth + 1) if mark in "({" and inner else Form("scalar", text)
        )
    marks = mark.replace("\\langle", "("), closing.replace("\\rangle", ")")
    return Form("group", text, tuple(read(part, depth + 1) for part in parts), marks)


def spelled_out(form: Form) -> Iterator[Form]:
    """Yield the values that `±` and `∓` stand for; signs in different entries of a tuple are independent."""
    has_sign = _SIGN.search(form.text)
    if has_sign and form.kind == "scalar":
        for signs in ({"p": "+", "m": "-"}, {"p": "-", "m": "+"}):
            text = _SIGN.sub(lambda found, signs=signs: signs[found[1]], form.text)  # type: ignore[misc]
            yield _labelled(read(text.removeprefix("+")), form.label)
    elif has_sign and form.kind == "group":
        for parts in islice(
            product(*(tuple(spelled_out(part)) for part in form.parts)), MAX_PARTS
        ):
            text = form.marks[0] + ",".join(part.text for part in parts) + form.marks[1]
            yield replace(form, text=text, parts=parts)
    else:
        yield form
