"""The form of an answer (list, tuple, interval, set, …) read from clean text alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Literal

from aipo_env.verifiers.math.text import drop_units, number

Kind = Literal["scalar", "list", "set", "group", "union", "without", "relation"]
MAX_FORM_PARTS = 64
"""Longer lists are not read, and more choices of signs not spelled out."""
_MAX_DEPTH = 8
"""What stands deeper, as a list in a tuple in a set, is not taken apart."""

_SEPARATOR = re.compile(
    r"""
    \s*
    (?: [,;] \s* (?: (?:and|or)\b )?               # 1, 2 and 1, and 2
    |   (?<![A-Za-z\\]) (?:and|or) (?![A-Za-z])    # 1 and 2
    )
    \s*
    """,
    re.VERBOSE,
)
_COMMA = re.compile(r"\s*[,;]\s*")
_SEMICOLON = re.compile(r"\s*;\s*")
_COLON = re.compile(r"\s*:\s*")
_UNION = re.compile(r"\s*\\cup(?![A-Za-z])\s*")
_WITHOUT = re.compile(
    r"""
      \s* \\setminus (?![A-Za-z]) \s*             # A \setminus B
    | (?<=\\\}) \s* - \s* (?=\\\{)                # \{1,2\} - \{1\}
    | (?<=\\mathbb\{R\}) \s* - \s* (?=\\\{)       # \mathbb{R} - \{1\}
    """,
    re.VERBOSE,
)
_SIGN = re.compile(
    r"""
    \\ (?P<upper>[pm]) (?: (?<=p)m | (?<=m)p )    # \pm, \mp
    (?![A-Za-z])                                  # but not \pmod
    """,
    re.VERBOSE,
)
_RELATION = re.compile(
    r"""
    \s*
    ( \\ (?: le | ge | ne | in | equiv | approx | to | implies | iff ) (?![A-Za-z])
    | [=<>]
    )
    \s*
    """,
    re.VERBOSE,
)
_SUCH_THAT = re.compile(r"\s*(?:\\mid(?![A-Za-z])|[|:])\s*")
_BRACKET = re.compile(
    r"""
      \\(?:begin|end)\{\w+\*?\}                   # \begin{pmatrix}
    | \\(?:langle|lfloor|lceil)(?![A-Za-z])
    | \\(?:rangle|rfloor|rceil)(?![A-Za-z])
    | \\[{}]
    | [][(){}]
    """,
    re.VERBOSE,
)
_OPENING_BEGINS = "([{lb"
"""How brackets that open begin, but for a backslash: `\\lfloor`, `\\begin`, …"""
_OPENING = re.compile(r"\\\{|\\langle|[({[]")
_CLOSING = re.compile(r"(?:\\\}|\\rangle|[])}])$")

# Parts of the verbose pattern _LABEL: blanks and line breaks in them do not count.
_SCRIPT = r"""
    _ (?: \{ [^{}=\s]* (?: \{[^{}]*\} )? \}       # x_{10}, x_{\text{max}}
      |   \\?[A-Za-z]+ (?: \{[^{}]*\} )?          # x_n, x_\text{max}
      |   [0-9]+                                  # x_1
      )
"""
_NAME = rf"\\?[A-Za-z]+ (?:{_SCRIPT})? '*"
_POINT = r"[A-Z] (?: _ (?: \{\w+\} | [0-9a-z]+ ) )?"
# AB, |AB|, \angle ABC, \overline{A_1 B_1}
_SEGMENT = (
    r"\|? (?: \\ (?: angle | triangle | overline | widehat ) \s* )?"
    rf"\{{? {_POINT} (?:{_POINT})* \}}? \|?"
)
_LABEL = re.compile(
    "(?:"
    # x, a_{n+1}, f(n)
    rf"  {_NAME}"
    r" (?: \s* \( \s* [-+\w\s,\\]* \) )?"
    # AB, |AB|, \angle ABC, AB : CD
    rf"| {_SEGMENT} (?: \s* [:/] \s* {_SEGMENT} )*"
    # \frac{AB}{CD}
    rf"| \\frac \{{{_SEGMENT}\}} \{{{_SEGMENT}\}}"
    # (p, q), (x(t), y(t))
    rf"| \( \s* {_NAME} (?: \([a-z]\) )?"
    rf"  (?: \s* , \s* {_NAME} (?: \([a-z]\) )? )* \s* \)"
    # maximum value
    r" | [A-Za-z]{2,} (?: [ ][A-Za-z]+ )*"
    ")",
    re.VERBOSE,
)
_PRODUCT = re.compile(r"[a-z]{2,3}")
"""A product of variables, as in the equation `ab = 6`, rather than a name."""
_OF_FUNCTION = re.compile(
    r"\\(?:ln|log|exp|sin|cos|tan|cot|sec|csc|arc(?:sin|cos|tan)|sinh|cosh|tanh)"
    r"(?![A-Za-z])"
)
"""What a value begins with that looks like a label: `\\ln(2)`, beside `f(2)`."""
_WORD_LABEL = re.compile(
    r"""
    (?P<label> [A-Za-z]{4,} (?: [ ][A-Za-z]+ )* )
    \s* : \s*
    (?P<value> .+ )                               # maximum value: 5
    """,
    re.VERBOSE,
)
_POINT_NAME = re.compile(r"^[A-Z]\s*(?=\([^,\n]*,.*\)$)")
"""What names a point, as in `P(2, 3)`."""
_MEMBERSHIP = re.compile(
    r"""
      \(? \s* (?: for\s+ )? [a-zA-Z] \s* \\in \s* \\mathbb\{[ZN]\} \s* \)?
                                                  # for k \in \mathbb{Z}
    | [a-z][ ]is[ ]an[ ]integer
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Form:
    """One part of an answer.

    `marks` holds a group's brackets or a relation's operators; `label` what is before
    `=`. The names of the variables of a family, like `f(n) = 2n` or `x = 2k\\pi, k \\in
    \\mathbb{Z}`, do not matter.
    """

    kind: Kind
    text: str
    parts: "tuple[Form, ...]" = ()
    marks: tuple[str, ...] = ()
    label: str = ""
    is_family: bool = False


def _depths(text: str) -> tuple[list[int], bool]:
    """Return how deep in brackets each character stands, and if all brackets match.

    A bracket stands within itself. Brackets match by number, not by shape: `[0, 1)` is
    an interval.
    """
    depths: list[int] = []
    depth = 0
    is_matched = True
    for bracket in _BRACKET.finditer(text):
        depths += [depth] * (bracket.start() - len(depths))
        is_opening = bracket[0].lstrip("\\")[0] in _OPENING_BEGINS
        if is_opening:
            depth += 1
        if depth <= 0:
            is_matched = False  # a bracket closes what was not opened
        depths += [depth] * len(bracket[0])
        if not is_opening:
            depth -= 1
    depths += [depth] * (len(text) - len(depths))
    return depths, is_matched and depth == 0


def split_top(text: str, pattern: re.Pattern[str]) -> list[str]:
    """Split where the pattern matches outside every bracket.

    Longer lists than anybody needs are not split.

    Args:
        pattern: Matches no empty text. The text of its group, if it has one, is kept
            between the parts.
    """
    depths, _ = _depths(text)
    parts: list[str] = []
    start = 0
    for match in pattern.finditer(text):
        if depths[match.start()] == 0:
            parts.append(text[start : match.start()])
            parts.extend(match.groups())
            start = match.end()
    # With a group in the pattern there are two texts for each part.
    if len(parts) >= 2 * MAX_FORM_PARTS:
        return [text]
    parts.append(text[start:])
    return [part.strip() for part in parts]


def _split_list(text: str) -> list[str]:
    """Return the entries of a list; those that are empty are left out."""
    return [part for part in split_top(text, _SEPARATOR) if part]


def read(text: str, depth: int = 0) -> Form:
    """Return the form of a clean text."""
    text = text.strip().rstrip(".")
    if depth > _MAX_DEPTH or number(text) is not None:
        return Form("scalar", text)
    for reader in _READERS:
        form = reader(text, depth + 1)
        if form is not None:
            return form
    return _read_bracketed(_POINT_NAME.sub("", text), depth + 1)


def _read_all(texts: list[str], depth: int) -> tuple[Form, ...]:
    return tuple(read(text, depth) for text in texts)


# Each reader returns a form, or None where the text does not have it. It is given the
# depth at which parts of the text stand.


def _read_list(text: str, depth: int) -> Form | None:
    parts = _split_list(text)
    if len(parts) < 2:
        return None
    rows = split_top(text, _SEMICOLON)
    # As many rows as entries are a plain list: 1; 2; 3.
    if 1 < len(rows) < len(parts):
        tuples = [
            replace(row, kind="group", marks=("(", ")"))
            for row in _read_all(rows, depth)
        ]
        return Form("list", text, tuple(tuples))
    entries = [drop_units(part) for part in parts if not _MEMBERSHIP.fullmatch(part)]
    forms = _read_all(entries, depth)
    if len(forms) == 1:
        return replace(forms[0], is_family=True)
    return Form("list", text, forms, is_family=len(entries) < len(parts))


def _read_word_label(text: str, depth: int) -> Form | None:
    labelled = _WORD_LABEL.fullmatch(text)
    if labelled is None:
        return None
    return _labelled(read(labelled["value"], depth), labelled["label"])


def _read_relation(text: str, depth: int) -> Form | None:
    """Read a labelled value, as in `x = … = 5 ≈ 5.0` and `x ∈ S`, or a relation."""
    sides = split_top(text, _RELATION)
    if len(sides) == 1:
        return None
    terms = sides[::2]
    operators = sides[1::2]
    # What is only near the value before it says nothing more.
    while len(operators) > 1 and operators[-1] == "\\approx":
        operators.pop()
        terms.pop()
    first = terms[0]
    last = terms[-1]
    if operators == ["\\approx"]:  # x \approx 0.33 is a value, 1/3 \approx 0.33 is 1/3
        if _LABEL.fullmatch(first) and not _OF_FUNCTION.match(first):
            return _labelled(read(last, depth), first)
        return read(first, depth)
    if operators == ["\\in"] and first:
        return _labelled(read(last, depth), first)
    if set(operators) <= {"=", "\\approx"} and first and last:
        if is_label(first, last):
            return _labelled(read(last, depth), first)
        if len(terms) == 2 and is_label(last, first):  # 5 = x
            return _labelled(read(first, depth), last)
    scalars = tuple(Form("scalar", term) for term in terms)
    return Form("relation", text, scalars, tuple(operators))


def _read_union(text: str, depth: int) -> Form | None:
    parts = split_top(text, _UNION)
    if len(parts) == 1:
        return None
    return Form("union", text, _read_all(parts, depth))


def _read_difference(text: str, depth: int) -> Form | None:
    parts = split_top(text, _WITHOUT)
    if len(parts) != 2:
        return None
    return Form("without", text, _read_all(parts, depth))


def _read_ratio(text: str, depth: int) -> Form | None:
    """Read a ratio of three numbers or more as their shares of the first.

    One of two is a fraction, which the parser of the algebra reads.
    """
    parts = split_top(text, _COLON)
    if len(parts) < 3:
        return None
    quotients = [f"({part})/({parts[0]})" for part in parts]
    shares = _read_all(quotients, depth)
    return Form("group", text, shares, (":", ":"))


# The order matters: `x = 1, y = 2` is a list of relations, and no relation of lists.
_READERS = (
    _read_list,  # 1, 2 and 3
    _read_word_label,  # maximum value: 5
    _read_relation,  # x = 2, 1 < x < 2, x \in S
    _read_union,  # (0, 1) \cup (2, 3)
    _read_difference,  # \mathbb{R} \setminus \{1\}
    _read_ratio,  # 2 : 3 : 4
)


def is_label(text: str, value: str) -> bool:
    """Return whether `text = value` names a value, rather than states an equation.

    Names are `x`, `f(n)`, `|AB|`, `(p,q)` and their like.
    """
    if not _LABEL.fullmatch(text) or _PRODUCT.fullmatch(text):
        return False
    if "(" in text or len(text) > 2:
        return True
    # `x = x^2 - 2` states an equation for x.
    name = re.escape(text)
    occurrence = re.search(rf"(?<![A-Za-z\\_]){name}(?![A-Za-z_])", value)
    return occurrence is None


def _labelled(form: Form, label: str) -> Form:
    is_function = label.endswith(")") and label[0] != "("  # f(n)
    return replace(form, label=label, is_family=form.is_family or is_function)


def _read_bracketed(text: str, depth: int) -> Form:
    """Return a set, tuple or interval, or the scalar that is left."""
    opening = _OPENING.match(text)
    closing = _CLOSING.search(text)
    if opening and closing and opening.end() <= closing.start():
        inner = text[opening.end() : closing.start()].strip()
        # In `(a)(b)` the first bracket is not closed by the last.
        _, is_matched = _depths(inner)
        if is_matched:
            return _read_inner(text, inner, opening[0], closing[0], depth)
    return Form("scalar", text)


def _read_inner(text: str, inner: str, opening: str, closing: str, depth: int) -> Form:
    """Return the form of a text by what stands between its outer brackets."""
    if opening == "\\{":
        return _read_set(text, inner, depth)
    parts = split_top(inner, _COMMA)
    if len(parts) == 1 or opening == "{":
        is_redundant = opening in ("(", "{") and inner != ""  # (5), {5}
        return read(inner, depth) if is_redundant else Form("scalar", text)
    marks = opening.replace("\\langle", "("), closing.replace("\\rangle", ")")
    return Form("group", text, _read_all(parts, depth), marks)


def _read_set(text: str, inner: str, depth: int) -> Form:
    """Read `\\{1, 2\\}`, or `\\{x \\mid x > 2\\}` as its condition labelled `{`."""
    halves = split_top(inner, _SUCH_THAT)
    if len(halves) == 2:
        _, condition = halves
        return _labelled(read(condition, depth), "{")
    return Form("set", text, _read_all(_split_list(inner), depth))


def spelled_out(form: Form) -> Iterator[Form]:
    """Yield the values that `±` and `∓` stand for.

    Signs in different entries of a tuple are independent.
    """
    has_sign = _SIGN.search(form.text) is not None
    if has_sign and form.kind == "scalar":
        for plus_minus, minus_plus in (("+", "-"), ("-", "+")):
            text = _with_signs(form.text, plus_minus, minus_plus)
            yield _labelled(read(text.removeprefix("+")), form.label)
    elif has_sign and form.kind == "group":
        opening, closing = form.marks
        choices = [tuple(spelled_out(part)) for part in form.parts]
        # Many entries with a sign make more tuples than can be compared.
        for parts in islice(product(*choices), MAX_FORM_PARTS):
            text = opening + ",".join(part.text for part in parts) + closing
            yield replace(form, text=text, parts=parts)
    else:
        yield form


def _with_signs(text: str, plus_minus: str, minus_plus: str) -> str:
    """Return a text with one sign for every `±`, and another for every `∓`."""
    signs = {"p": plus_minus, "m": minus_plus}
    return _SIGN.sub(lambda sign: signs[sign["upper"]], text)
