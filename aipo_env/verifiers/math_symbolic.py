"""The algebra behind the verifier, by math-verify's LaTeX parser and sympy. Runs in a worker process only.

Two expressions are equal when they agree at several points to so many digits that expressions of their size
cannot agree by accident; whatever is rational is compared exactly.
"""

import random
import re
from functools import lru_cache
from itertools import permutations
from typing import Any

import sympy
from antlr4 import PredictionMode, Token  # type: ignore[import-untyped]
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy

from aipo_env.verifiers.math_compare import Pieces, equivalent, is_infinite, values
from aipo_env.verifiers.math_forms import Form, read
from aipo_env.verifiers.math_text import is_approximate, number

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
_GREEK = re.compile(r"\\(?:pi|alpha|beta|gamma|theta|lambda|mu|rho|sigma|phi|varphi|omega)|[a-zA-Z]")
_SCRIPTED = re.compile(r"(\\[a-zA-Z]+|[a-zA-Z])(_(?:\{[^{}]*\}|\w))?(?=(\s*\^)?)")
_SETS = {"\\emptyset": sympy.S.EmptySet, "\\mathbb{R}": sympy.S.Reals, "\\mathbb{Z}": sympy.S.Integers}


_RELATIONS = {"<": sympy.Lt, ">": sympy.Gt, "\\le": sympy.Le, "\\ge": sympy.Ge, "\\ne": sympy.Ne}
_TURNED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
_DISCRETE = (
    sympy.floor,
    sympy.ceiling,
    sympy.factorial,
    sympy.binomial,
    sympy.sin,
    sympy.cos,
    sympy.Mod,
    sympy.Pow,
)


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
    if is_infinite(text):
        return -sympy.oo if text[0] == "-" else sympy.oo
    if text in _SETS:
        return _SETS[text]
    latex = _DECIMAL.sub(_exact, text).replace(":", "/").replace("\\mathrm{i}", "i").replace("'", "_{prime}")
    latex = _SCRIPTED.sub(_renamed_symbol, _ARGUMENT.sub(r"\1(\2)", latex.removeprefix("+")))
    if _TRIGONOMETRIC.search(latex):
        latex = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", latex)
    try:
        parsed = _parse_expression(latex.replace("^\\circ", ""))
        if hasattr(parsed, "free_symbols") and "\\sum" not in text and "\\prod" not in text:
            parsed = parsed.subs({symbol: sympy.I for symbol in parsed.free_symbols if symbol.name == "i"})
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
    """Parse one expression in ANTLR's fast mode, which takes a tenth of the time."""
    converter = _Latex2Sympy(None, is_real=None, config=_CONFIG)
    parser = converter.create_parser(latex)
    parser._interp.predictionMode = PredictionMode.SLL
    tree = parser.expr()
    if parser.getCurrentToken().type != Token.EOF:
        raise ValueError("text after the expression")
    return converter.convert_expr(tree)


def _exact(found: re.Match[str]) -> str:
    return f"\\frac{{{found[1]}{found[2]}}}{{1{'0' * len(found[2])}}}"


class Algebra:
    """The judge that knows algebra."""

    def scalars(self, first: str, second: str, rename: bool) -> bool:
        """Return whether two expressions are equal."""
        one, other = parse(first), parse(second)
        digits = 6 if is_approximate(first) or is_approximate(second) else 0
        degrees = ["\\circ" in text for text in (first, second)]
        if any(degrees) and not all(degrees) and "\\pi" in first + second:
            one, other = (
                part * sympy.pi / 180 if is_degree else part
                for part, is_degree in zip((one, other), degrees, strict=True)
            )
        return equal(one, other, digits) or (rename and _renamed(one, other, digits))

    def relations(self, first: Form, second: Form) -> bool:
        """Return whether two relations have the same solutions, or a value is an equation solved for one unknown."""
        if len(first.parts) != 2 or (second.kind == "relation" and len(second.parts) != 2):
            return False
        one = _difference(first)
        if second.kind == "scalar":
            return first.marks == ("=",) and _solves(one, parse(second.text))
        other, mark = _difference(second), second.marks[0]
        if first.marks[0] not in (mark, _TURNED.get(mark)):
            return False
        if mark in ("=", "\\ne"):
            return _proportional(one, other, (1, -1)) or _proportional(
                _numerator(one), _numerator(other), (1, -1)
            )
        if _proportional(one, other, (1,) if first.marks[0] == mark else (-1,)):
            return True
        return one.free_symbols == other.free_symbols and self.sets(first, second)

    def sets(self, first: Pieces | Form, second: Pieces | Form) -> bool:
        """Return whether two unions of intervals, or the solutions of inequalities, are the same set."""
        return _same_sets(*(_solutions(a) if isinstance(a, Form) else _union(a) for a in (first, second)))


def equal(one: Any, other: Any, digits: int = 0) -> bool:
    """Return whether two sympy objects are equal; to `digits` digits only, if positive."""
    if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
        return one.shape == other.shape and all(map(equal, one.flat(), other.flat()))
    if not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        return bool(one == other)
    if one.has(sympy.nan, sympy.zoo, sympy.oo) or other.has(sympy.nan, sympy.zoo, sympy.oo):
        return one == other and not one.has(sympy.nan, sympy.zoo)
    if one == other or (one.is_Rational and other.is_Rational and not digits):
        return bool(one == other)
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    precision = digits or min(MIN_DIGITS + 2 * int(_height(one) + _height(other)), MAX_DIGITS)
    if not symbols:
        return _holds(one, other, [{}], precision)
    points = [
        {symbol: sign * sympy.Rational(_RANDOM.randrange(20_000, 400_000), 99_991) for symbol in symbols}
        for sign in (1, 1, 1, -1, -1)
    ]
    if _holds(one, other, points, precision):
        return True
    points = [{symbol: sympy.Integer(_RANDOM.randrange(5, 60)) for symbol in symbols} for _ in range(6)]
    is_discrete = all(symbol.name in _INTEGERS for symbol in symbols) and (one - other).has(*_DISCRETE)
    return is_discrete and _holds(one, other, points, precision)


def _holds(one: Any, other: Any, points: list[dict[Any, Any]], precision: int) -> bool:
    """Return whether two expressions agree at every point where both are defined, and at two at least."""
    num_agreed = 0
    for point in points:
        agreed = _agree_at(one, other, point, precision)
        if agreed is False:
            return False
        num_agreed += agreed is True
    return num_agreed >= min(2, len(points))


def _agree_at(one: Any, other: Any, point: dict[Any, Any], precision: int) -> bool | None:
    """Return whether two expressions agree at a point; None where one of them is not real or not defined."""
    first, second = (part.evalf(precision + 10, subs=point) for part in (one, other))
    if point and not (first.is_number and second.is_number):
        first, second = (part.subs(point).doit().evalf(precision + 10) for part in (one, other))
    if not (first.is_number and second.is_number and first.is_finite and second.is_finite):
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
    own, foreign = (sorted(a.free_symbols - b.free_symbols, key=str) for a, b in ((one, other), (other, one)))
    if len(own) != len(foreign) or not 1 <= len(own) <= 3:
        return False
    choices = (dict(zip(foreign, names, strict=True)) for names in permutations(own))
    return any(equal(one, other.subs(choice, simultaneous=True), digits) for choice in choices)


def _difference(form: Form) -> Any:
    left, right = (parse(part.text) for part in form.parts)
    return left - right


def _numerator(expression: Any) -> Any:
    return sympy.fraction(sympy.together(expression))[0]


def _proportional(one: Any, other: Any, signs: tuple[int, ...]) -> bool:
    """Return whether `one` is a constant times `other`, the constant having one of the signs."""
    if one.free_symbols != other.free_symbols or not one.free_symbols:
        return False
    point = {
        symbol: sympy.Rational(_RANDOM.randrange(20_000, 400_000), 99_991) for symbol in one.free_symbols
    }
    factor = (one / other).subs(point).doit()
    return bool(factor.is_real and sympy.sign(factor) in signs) and equal(one, factor * other)


def _solves(equation: Any, value: Any) -> bool:
    """Return whether a value is what an equation, linear in some unknown that the value lacks, gives for it."""
    unknowns = equation.free_symbols - value.free_symbols
    if len(unknowns) != 1 or not value.free_symbols or value.free_symbols | unknowns != equation.free_symbols:
        return False
    polynomial = sympy.Poly(equation, unknowns.pop())
    return polynomial.degree() == 1 and equal(-polynomial.all_coeffs()[1] / polynomial.all_coeffs()[0], value)


def _solutions(form: Form) -> Any:
    """Return the real solutions of a chain of inequalities in one unknown."""
    whole, terms = sympy.S.Reals, [parse(part.text) for part in form.parts]
    for left, mark, right in zip(terms, form.marks, terms[1:], strict=False):
        (unknown,) = (left - right).free_symbols
        real = sympy.Symbol("x", real=True)
        whole &= _RELATIONS[mark](left.subs(unknown, real), right.subs(unknown, real)).as_set()
    return whole


def _union(pieces: Pieces) -> Any:
    """Return the sympy set of intervals, less those that are marked as taken away."""
    whole, gone = sympy.S.EmptySet, sympy.S.EmptySet
    for opening, low, high, closing in pieces:
        ends = parse(low), parse(high)
        if opening == "-":
            gone += sympy.FiniteSet(*ends) if ends[0] == ends[1] else sympy.Interval(*ends)
        else:
            whole += sympy.Interval(*ends, opening == "(", closing == ")")
    return whole - gone


def _same_sets(one: Any, other: Any) -> bool:
    return bool(one == other or one.symmetric_difference(other) == sympy.S.EmptySet)


def decide(gold: str, answer: str) -> str:
    """Return "correct" or "wrong" for two clean answers, "bad gold" when the gold itself cannot be read."""
    try:
        return "correct" if equivalent(gold, answer, Algebra()) else "wrong"
    except Unreadable:
        return "wrong" if not unreadable(gold) else "bad gold"
    except MemoryError:
        return "memory"
    except Exception:  # sympy gives up in many ways; what it cannot compare is not shown to be right
        return "wrong"


def unreadable(gold: str) -> str:
    """Return why a clean gold cannot be read; empty when it can."""
    for form in _leaves(read(gold)):
        if re.search(r"[^\W\d_]{4}", form.text) and "\\" not in form.text:
            continue
        try:
            parse(form.text)
        except Unreadable as error:
            return str(error)
    return ""


def _leaves(form: Form) -> list[Form]:
    return [leaf for part in form.parts for leaf in _leaves(part)] if form.parts else values(form)
