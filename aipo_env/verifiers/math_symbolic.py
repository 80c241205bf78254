"""The algebra behind the verifier, by math-verify's LaTeX parser and sympy. Runs in a worker process only.

Two expressions are equal when they agree at several points to so many digits that expressions of their size
cannot agree by accident; whatever is rational is compared exactly.
"""

import random
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from itertools import permutations, takewhile
from typing import Any

import sympy
from antlr4 import PredictionMode, Token  # type: ignore[import-untyped]
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
from sympy.core.function import AppliedUndef

from aipo_env.verifiers.math_compare import FLIPPED, equivalent, values
from aipo_env.verifiers.math_forms import Form, read
from aipo_env.verifiers.math_grade import (
    Grade,
    Undecided,
    gold_fault,
    without_algebra,
)
from aipo_env.verifiers.math_text import clean, is_approximate, number

MIN_DIGITS, MAX_DIGITS = 40, 6000
_CONFIG = ConversionConfig(lowercase_symbols=False)
_INTEGERS = frozenset("klmnNijp")
"""Letters that stand for integers when an identity holds for no other numbers."""
_RANDOM = random.Random()
"""Nobody can prepare an answer for the points at which it will be compared."""
_DECIMAL = re.compile(r"([0-9]*)\.([0-9]+)")
_ARGUMENT = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc|ln|log)(?:\^\{\w+\})?)\s+(\\?[a-zA-Z]+|[0-9]+)(?=\s*\\(?:cdot|times))"
)
"""The parser takes all of a product for the argument of a function."""
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_DEGREES = re.compile(r"([0-9]+|\\frac\{[0-9]+\}\{[0-9]+\})\s*\^\\circ")
_GREEK = re.compile(
    r"\\(?:pi|alpha|beta|gamma|theta|lambda|mu|rho|sigma|phi|varphi|omega)|[a-zA-Z]"
)
_SCRIPTED = re.compile(r"(\\[a-zA-Z]+|[a-zA-Z])(_(?:\{[^{}]*\}|\w))?(?=(\s*\^)?)")
_INFINITE = re.compile(r"[-+]?\s*(?:\\infty|oo|inf(?:inity)?)")
_DEGREE = sympy.pi / 180
_SETS = {
    "\\emptyset": sympy.S.EmptySet,
    "\\mathbb{R}": sympy.S.Reals,
    "\\mathbb{Z}": sympy.S.Integers,
}


_RELATIONS = {
    "<": sympy.Lt,
    ">": sympy.Gt,
    "\\le": sympy.Le,
    "\\ge": sympy.Ge,
    "\\ne": sympy.Ne,
}
_STEPPED = (sympy.floor, sympy.ceiling, sympy.factorial, sympy.binomial, sympy.Mod)
_DISCRETE = (*_STEPPED, sympy.sin, sympy.cos, sympy.Pow)


class Unreadable(Exception):
    """An expression that the parser cannot read."""


@lru_cache(2048)
def parse(text: str) -> Any:
    """Return the sympy object of a clean expression.

    Raises:
        Unreadable: It is no mathematics that the parser knows.
    """
    if (value := number(text)) is not None:
        return sympy.Rational(value.numerator, value.denominator)
    if _INFINITE.fullmatch(text):
        return -sympy.oo if text[0] == "-" else sympy.oo
    if text in _SETS:
        return _SETS[text]
    latex = _DECIMAL.sub(
        lambda found: f"\\frac{{{found[1]}{found[2]}}}{{{10 ** len(found[2])}}}", text
    )
    latex = latex.replace(":", "/").replace("\\mathrm{i}", "i").replace("'", "_{prime}")
    latex = _SCRIPTED.sub(
        _renamed_symbol, _ARGUMENT.sub(r"\1(\2)", latex.removeprefix("+"))
    )
    if _TRIGONOMETRIC.search(latex):
        latex = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", latex)
    try:
        parsed = _parse_expression(latex.replace("^\\circ", ""))
        if (
            hasattr(parsed, "free_symbols")
            and "\\sum" not in text
            and "\\prod" not in text
        ):
            parsed = parsed.subs(
                {
                    symbol: sympy.I
                    for symbol in parsed.free_symbols
                    if symbol.name == "i"
                }
            )
        return parsed.doit()
    except Exception as error:  # the parser raises whatever it likes
        raise Unreadable(text[:80]) from error


def _renamed_symbol(found: re.Match[str]) -> str:
    """Spell a symbol with a subscript or a power so that the fast mode reads it."""
    symbol, subscript, power = found.groups()
    if not _GREEK.fullmatch(symbol):
        return found.group()
    if subscript:
        symbol = "\\mathrm{" + re.sub(r"[\\{}\s]", "", symbol + subscript) + "}"
    return f"{{{symbol}}}" if power else symbol


def _parse_expression(latex: str) -> Any:
    """Parse one expression in ANTLR's fast mode, which takes a tenth of the time and cannot read integrals."""
    converter = _Latex2Sympy(None, is_real=None, config=_CONFIG)
    parser = converter.create_parser(latex)
    parser._interp.predictionMode = (
        PredictionMode.LL if "\\int" in latex else PredictionMode.SLL
    )
    tree = parser.expr()
    if parser.getCurrentToken().type != Token.EOF:
        raise ValueError("text after the expression")
    return converter.convert_expr(tree)


class Algebra:
    """The judge that knows algebra."""

    def scalars(self, first: str, second: str, rename: bool) -> bool:
        """Return whether two expressions are equal."""
        one, other = parse(first), parse(second)
        digits = 6 if is_approximate(first) or is_approximate(second) else 0
        degrees = [int("\\circ" in text) for text in (first, second)]
        if degrees[0] != degrees[1] and "\\pi" in first + second:
            one, other = one * _DEGREE ** degrees[0], other * _DEGREE ** degrees[1]
        return equal(one, other, digits) or (rename and _renamed(one, other, digits))

    def relations(self, first: Form, second: Form) -> bool:
        """Return whether two relations have the same solutions, or a value is an equation solved for one unknown."""
        if len(first.parts) != 2 or (
            second.kind == "relation" and len(second.parts) != 2
        ):
            return False
        terms = [parse(part.text) for part in first.parts + second.parts]
        one, mark = terms[0] - terms[1], first.marks[0]
        if second.kind == "scalar":
            return mark == "=" and _solves(one, parse(second.text))
        other, turned = terms[2] - terms[3], second.marks[0]
        if mark in ("=", "\\ne"):
            pairs = (one, other), (_numerator(one), _numerator(other))
            return mark == turned and any(
                _proportional(*pair, (1, -1)) for pair in pairs
            )
        sign = 1 if turned == mark else -1
        return turned in (mark, FLIPPED.get(mark)) and _proportional(
            one, other, (sign,)
        )

    def sets(self, first: Form, second: Form) -> bool | None:
        """Return whether two forms name the same set of real numbers; None where one of them names none."""
        with suppress(Unreadable):
            one, other = _as_set(first), _as_set(second)
            if one is not None and other is not None:
                return bool(
                    one == other or one.symmetric_difference(other) == sympy.S.EmptySet
                )
        return None


def equal(one: Any, other: Any, digits: int = 0) -> bool:
    """Return whether two sympy objects are equal; to `digits` digits only, if positive."""
    if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
        return one.shape == other.shape and all(map(equal, one.flat(), other.flat()))
    if not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        return bool(one == other)
    if one.has(sympy.nan, sympy.zoo, sympy.oo) or other.has(
        sympy.nan, sympy.zoo, sympy.oo
    ):
        return one == other and not one.has(sympy.nan, sympy.zoo)
    if one == other or (one.is_Rational and other.is_Rational and not digits):
        return bool(one == other)
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    precision = digits or min(
        MIN_DIGITS + 2 * int(_height(one) + _height(other)), MAX_DIGITS
    )
    if not symbols:
        return _holds(one, other, [{}], precision)
    if _holds(
        one, other, [_point(symbols, sign) for sign in (1, 1, 1, -1, -1)], precision
    ):
        return True
    points = [
        {symbol: sympy.Integer(_RANDOM.randrange(5, 60)) for symbol in symbols}
        for _ in range(6)
    ]
    is_discrete = all(symbol.name in _INTEGERS for symbol in symbols) and (
        one - other
    ).has(*_DISCRETE)
    return is_discrete and _holds(one, other, points, precision)


def _point(symbols: Iterable[Any], sign: int = 1) -> dict[Any, Any]:
    return {
        symbol: sympy.Rational(sign * _RANDOM.randrange(20_000, 400_000), 99_991)
        for symbol in symbols
    }


def _holds(one: Any, other: Any, points: list[dict[Any, Any]], precision: int) -> bool:
    """Return whether two expressions agree at every point where both are defined, and at two at least."""
    found = (_agree_at(one, other, point, precision) for point in points)
    agreed = list(takewhile(lambda agree: agree is not False, found))
    return len(agreed) == len(points) and agreed.count(True) >= min(2, len(points))


def _agree_at(
    one: Any, other: Any, point: dict[Any, Any], precision: int
) -> bool | None:
    """Return whether two expressions agree at a point; None where one of them is not real or not defined."""
    first, second = (part.evalf(precision + 10, subs=point) for part in (one, other))
    if point and not (first.is_number and second.is_number):
        first, second = (
            part.subs(point).doit().evalf(precision + 10) for part in (one, other)
        )
    if not (
        first.is_number and second.is_number and first.is_finite and second.is_finite
    ):
        return None
    if point and min(point.values()) < 0 and not (first.is_real and second.is_real):
        return None
    scale = max(abs(first), abs(second))
    return bool(abs(first - second) <= scale * sympy.Float(10) ** -precision)


def _height(expression: Any) -> float:
    """Return about how many digits the numbers in an expression can make."""
    total = 0.0
    for part in sympy.preorder_traversal(expression):
        if part.is_Rational:
            total += (abs(part.p).bit_length() + part.q.bit_length()) * 0.302 - 0.5
        elif part.is_Pow and part.exp.is_Integer:
            total += abs(int(part.exp)) * (1 + _height(part.base))
        elif isinstance(part, sympy.factorial) and part.args[0].is_Integer:
            total += int(part.args[0]) * 4
    return max(total, 0.0)


def _renamed(one: Any, other: Any, digits: int) -> bool:
    """Compare two expressions up to the names of the variables that they do not share."""
    own, foreign = (
        sorted(a.free_symbols - b.free_symbols, key=str)
        for a, b in ((one, other), (other, one))
    )
    if len(own) != len(foreign) or not 1 <= len(own) <= 3:
        return False
    choices = (dict(zip(foreign, names, strict=True)) for names in permutations(own))
    return any(
        equal(one, other.subs(choice, simultaneous=True), digits) for choice in choices
    )


def _numerator(expression: Any) -> Any:
    return sympy.fraction(sympy.together(expression))[0]


def _proportional(one: Any, other: Any, signs: tuple[int, ...]) -> bool:
    """Return whether `one` is a constant times `other`, the constant having one of the signs."""
    if one.free_symbols != other.free_symbols or not one.free_symbols:
        return False
    factor = (one / other).subs(_point(one.free_symbols)).doit()
    return bool(factor.is_real and sympy.sign(factor) in signs) and equal(
        one, factor * other
    )


def _solves(equation: Any, value: Any) -> bool:
    """Return whether a value is what an equation, linear in the one unknown that the value lacks, gives for it."""
    unknowns = equation.free_symbols - value.free_symbols
    if (
        len(unknowns) != 1
        or not value.free_symbols
        or value.free_symbols - equation.free_symbols
    ):
        return False
    polynomial = sympy.Poly(equation, unknowns.pop())
    return polynomial.degree() == 1 and equal(
        -polynomial.all_coeffs()[1] / polynomial.all_coeffs()[0], value
    )


def _as_set(form: Form) -> Any:
    """Return the set of real numbers that a form names, or None."""
    if form.kind == "relation":
        return _solutions(form)
    if form.kind == "scalar":
        is_value = form.label and form.label != "{"
        return sympy.FiniteSet(parse(form.text)) if is_value else _SETS.get(form.text)
    if form.kind == "group":
        if len(form.parts) != 2:
            return None
        ends, (opening, closing) = [parse(part.text) for part in form.parts], form.marks
        return sympy.Interval(*ends, opening == "(", closing == ")")
    if form.kind == "set":
        return sympy.FiniteSet(*(parse(part.text) for part in form.parts))
    sets = [_as_set(part) for part in form.parts]
    if any(part is None for part in sets):
        return None
    if form.kind == "without":
        return sets[0] - sets[1]
    # Of several conditions, "not equal" takes away from the others.
    cuts = [
        found
        for found, part in zip(sets, form.parts, strict=True)
        if part.marks == ("\\ne",)
    ]
    kept = [found for found in sets if found not in cuts] or [sympy.S.Reals]
    return sympy.Intersection(sympy.Union(*kept), *cuts)


def _solutions(form: Form) -> Any:
    """Return the real solutions of a chain of inequalities in one unknown, or None when there are no such."""
    whole, terms = sympy.S.Reals, [parse(part.text) for part in form.parts]
    (*unknowns,) = set().union(
        *(term.atoms(AppliedUndef) or term.free_symbols for term in terms)
    )
    if not set(form.marks) <= _RELATIONS.keys() or len(unknowns) != 1:
        return None
    real = sympy.Symbol("x", real=True)
    terms = [term.subs(unknowns[0], real) for term in terms]
    for left, mark, right in zip(terms, form.marks, terms[1:], strict=False):
        whole &= _RELATIONS[mark](left, right).as_set()
    return whole


def grade(gold: str, answer: str) -> Grade:
    """Return what an answer is, by all there is; "error" when the gold itself cannot be read."""
    try:
        return without_algebra(gold, answer)
    except Undecided:
        return _by_algebra(clean(gold), clean(answer))


def _by_algebra(gold: str, answer: str) -> Grade:
    try:
        is_same = equivalent(gold, answer, Algebra())
    except Unreadable:
        if _why_unreadable(gold):
            reason = f"the gold {gold[:80]!r} cannot be read"
            return Grade("error", "algebra", reason)
        is_same = False
    except MemoryError:
        return Grade("memory", "algebra", "the comparison exhausted its process")
    except Exception:
        # sympy gives up in many ways; what it cannot compare is not shown to be right
        is_same = False
    return Grade("correct" if is_same else "wrong", "algebra")


def unreadable(gold: str) -> str:
    """Return why a gold cannot be used; empty when it can."""
    try:
        fault = gold_fault(gold)
        if fault is not None:
            return fault
        reason = _why_unreadable(clean(gold))
    except Exception as error:
        reason = type(error).__name__
    return f"it cannot be read: {reason}" if reason else ""


def _why_unreadable(gold: str) -> str:
    """Return what of a clean gold cannot be read; empty when all can."""
    for form in _leaves(read(gold)):
        if re.search(r"[^\W\d_]{4}", form.text) and "\\" not in form.text:
            continue
        try:
            parse(form.text)
        except Unreadable as error:
            return str(error)
    return ""


def _leaves(form: Form) -> list[Form]:
    return (
        [leaf for part in form.parts for leaf in _leaves(part)]
        if form.parts
        else values(form)
    )
