"""The algebra behind the verifier, by math-verify's LaTeX parser and sympy.

It runs in a worker process only.

Two expressions are equal when they agree at several points to so many digits that
expressions of their size cannot agree by accident; whatever is rational is compared
exactly.
"""

import random
import re
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from itertools import permutations
from typing import Any

import sympy
from antlr4 import PredictionMode, Token  # type: ignore[import-untyped]
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
from sympy.core.function import AppliedUndef

from aipo_env.verifiers.math.compare import FLIPPED, equivalent, values
from aipo_env.verifiers.math.forms import Form, read
from aipo_env.verifiers.math.grade import (
    Grade,
    Undecided,
    gold_fault,
    in_one_logarithm,
    in_one_unit,
    without_algebra,
)
from aipo_env.verifiers.math.text import clean, close, is_approximate, number

MIN_PRECISION = 40
"""To so many digits, at least, expressions are compared."""
MAX_PRECISION = 6000
"""To no more digits, whatever the size of the expressions: the time is limited."""
_GUARD_DIGITS = 10
"""So many more are computed: the last ones are rounded."""
_ROUNDED_DIGITS = 6
"""To so many digits, as in `text.close`, decimals may be rounded."""
_DIGITS_PER_BIT = 0.302
"""The decimal logarithm of 2, rounded up."""
_FREE_DIGITS = 0.5
"""Taken off each number, so that ones and signs count for nearly nothing."""
_DIGITS_PER_FACTOR = 4
"""Factors of a factorial are below 10**4; `text.screen` refuses larger ones."""
_QUOTED_CHARS = 80
"""Only so much of a text is quoted in a message."""

_CONFIG = ConversionConfig(lowercase_symbols=False)
_INTEGERS = frozenset("klmnNijp")
"""Letters that stand for integers when an identity holds for no other numbers."""
_RANDOM = random.Random()
"""Nobody can prepare an answer for the points at which it will be compared."""
_SIGNS_OF_POINTS = (1, 1, 1, -1, -1)
"""Points at which expressions are compared: logarithms need positive ones."""
_POINT_NUMERATORS = (20_000, 400_000)
_POINT_DENOMINATOR = 99_991
"""A prime: points are fractions between 0.2 and 4 that hardly ever can be reduced."""
_NUM_INTEGER_POINTS = 6
_INTEGER_POINTS = (5, 60)
"""Small enough for factorials."""
_FAR_POINTS = (10**6, 10**7)
"""Further than the period of a function that agrees with another one near 0 only."""
_MIN_AGREEMENTS = 2
"""At so many points, or at the only one, expressions must be defined and agree."""
_MAX_RENAMED = 3
"""More variables could be exchanged in too many ways."""

_DECIMAL = re.compile(r"([0-9]*)\.([0-9]+)")
_ARGUMENT = re.compile(
    r"""
    ( \\ (?: sin | cos | tan | cot | sec | csc | ln | log ) (?: \^\{\w+\} )? )
    \s+
    ( \\?[a-zA-Z]+ | [0-9]+ )
    (?= \s* \\ (?: cdot | times ) )              # \sin x \cdot 2
    """,
    re.VERBOSE,
)
"""The parser takes all of a product for the argument of a function."""
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_DEGREES = re.compile(r"([0-9]+|\\frac\{[0-9]+\}\{[0-9]+\})\s*\^\\circ")
_VARIABLE = re.compile(
    r"""
      \\ (?: pi | alpha | beta | gamma | theta | lambda
         | mu | rho | sigma | phi | varphi | omega )
    | [a-zA-Z]
    """,
    re.VERBOSE,
)
_SCRIPTED = re.compile(
    r"""
    ( \\[a-zA-Z]+ | [a-zA-Z] )
    ( _ (?: \{[^{}]*\} | \w ) )?                  # x_1, \alpha_{10}
    (?= ( \s* \^ )? )                             # x_1^2
    """,
    re.VERBOSE,
)
_SCRIPT_MARK = re.compile(r"[\\{}\s]")
_INFINITE = re.compile(r"[-+]?\s*(?:\\infty|oo|inf(?:inity)?)")
_WORD = re.compile(r"[^\W\d_]{4}")

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
_PERIODIC = (sympy.floor, sympy.ceiling, sympy.Mod)
_DISCRETE = (*_STEPPED, sympy.sin, sympy.cos, sympy.Pow)
"""Functions of which identities may hold for integers only, as `cos(n pi) = (-1)^n`."""


class Unreadable(Exception):
    """An expression that the parser cannot read."""


@lru_cache(2048)
def parse(text: str) -> Any:
    """Return the sympy object of a clean expression.

    Raises:
        Unreadable: It is no mathematics that the parser knows.
    """
    value = number(text)
    if value is not None:
        return sympy.Rational(value.numerator, value.denominator)
    if _INFINITE.fullmatch(text):
        return -sympy.oo if text.startswith("-") else sympy.oo
    if text in _SETS:
        return _SETS[text]
    latex = _for_parser(text)
    try:
        expression = _parse_expression(latex)
        # In a sum or product `i` is most often the index.
        has_index = "\\sum" in text or "\\prod" in text
        if hasattr(expression, "free_symbols") and not has_index:
            units = [unit for unit in expression.free_symbols if unit.name == "i"]
            expression = expression.subs(dict.fromkeys(units, sympy.I))
        return expression.doit()
    except Exception as error:  # the parser raises whatever it likes
        raise Unreadable(text[:_QUOTED_CHARS]) from error


def _for_parser(text: str) -> str:
    """Spell a clean expression as the parser reads it, and in its fast mode."""
    # A decimal would become a floating-point number.
    latex = _DECIMAL.sub(_as_fraction, text)
    latex = latex.replace(":", "/")
    latex = latex.replace("\\mathrm{i}", "i")
    latex = latex.replace("'", "_{prime}")
    latex = _ARGUMENT.sub(r"\1(\2)", latex.removeprefix("+"))
    latex = _SCRIPTED.sub(_renamed_symbol, latex)
    if _TRIGONOMETRIC.search(latex):
        latex = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", latex)
    # What is left are bare angles, whose unit is compared by `Algebra.scalars`.
    return latex.replace("^\\circ", "")


def _as_fraction(decimal: re.Match[str]) -> str:
    whole, decimals = decimal.groups()
    return f"\\frac{{{whole}{decimals}}}{{{10 ** len(decimals)}}}"


def _renamed_symbol(match: re.Match[str]) -> str:
    """Spell a symbol with a subscript or a power so that the fast mode reads it."""
    symbol, subscript, power = match.groups()
    if not _VARIABLE.fullmatch(symbol):
        return match[0]
    if subscript:
        name = _SCRIPT_MARK.sub("", symbol + subscript)
        symbol = f"\\mathrm{{{name}}}"
    return f"{{{symbol}}}" if power else symbol


def _parse_expression(latex: str) -> Any:
    """Parse one expression, in ANTLR's fast mode where that can read it.

    The fast mode takes a tenth of the time and cannot read integrals.

    This is the one place that uses private names of other libraries: `latex2sympy`, the
    public function, reads sets and relations as well and knows only the slow mode, and
    ANTLR's runtime for Python has no public name for choosing it.
    """
    converter = _Latex2Sympy(None, is_real=None, config=_CONFIG)
    parser = converter.create_parser(latex)
    is_slow = "\\int" in latex
    mode = PredictionMode.LL if is_slow else PredictionMode.SLL
    parser._interp.predictionMode = mode
    tree = parser.expr()
    # The rule `expr` is content with the beginning of a text.
    if parser.getCurrentToken().type != Token.EOF:
        raise ValueError("text after the expression")
    return converter.convert_expr(tree)


class Algebra:
    """The judge that knows algebra."""

    def scalars(self, first: str, second: str, rename: bool) -> bool:
        """Return whether two expressions are equal.

        Args:
            rename: Up to the names of their variables.
        """
        left = parse(first)
        right = parse(second)
        is_rounded = is_approximate(first) or is_approximate(second)
        digits = _ROUNDED_DIGITS if is_rounded else 0
        units = [
            _DEGREE if "\\circ" in text else sympy.S.One for text in (first, second)
        ]
        # Degrees against radians, which only pi tells from a bare number of degrees.
        if units[0] != units[1] and "\\pi" in first + second:
            left = left * units[0]
            right = right * units[1]
        if equal(left, right, digits):
            return True
        return rename and _renamed(left, right, digits)

    def relations(self, first: Form, second: Form) -> bool:
        """Return whether two relations have the same solutions.

        Or whether a value is what an equation gives for its one other unknown.
        """
        if len(first.parts) != 2:
            return False
        if second.kind == "relation" and len(second.parts) != 2:
            return False
        terms = [parse(part.text) for part in first.parts + second.parts]
        left = terms[0] - terms[1]
        mark = first.marks[0]
        if second.kind == "scalar":
            return mark == "=" and _solves(left, parse(second.text))
        right = terms[2] - terms[3]
        other_mark = second.marks[0]
        if mark in ("=", "\\ne"):
            # `x = 1/y` and `xy = 1` differ by a factor that is no constant.
            pairs = ((left, right), (_numerator(left), _numerator(right)))
            return other_mark == mark and any(
                _proportional(*pair, (1, -1)) for pair in pairs
            )
        if other_mark not in (mark, FLIPPED.get(mark)):
            return False
        sign = 1 if other_mark == mark else -1
        return _proportional(left, right, (sign,))

    def sets(self, first: Form, second: Form) -> bool | None:
        """Return whether two forms name the same set of real numbers.

        None where one of them names none.
        """
        with suppress(Unreadable):
            left = _as_set(first)
            right = _as_set(second)
            if left is not None and right is not None:
                return bool(
                    left == right
                    or left.symmetric_difference(right) == sympy.S.EmptySet
                )
        return None


def equal(left: Any, right: Any, digits: int = 0) -> bool:
    """Return whether two sympy objects are equal.

    Args:
        digits: If positive, they need agree to so many digits only.
    """
    if isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase):
        if left.shape != right.shape:
            return False
        pairs = zip(left.flat(), right.flat(), strict=True)
        return all(equal(first, second, digits) for first, second in pairs)
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return bool(left == right)
    infinite = (sympy.nan, sympy.zoo, sympy.oo)
    if left.has(*infinite) or right.has(*infinite):
        # What is not defined equals nothing; oo and -oo are values.
        return left == right and not left.has(sympy.nan, sympy.zoo)
    # A whole number is not a rounded one, though decimals stand beside it in a matrix.
    are_whole = left.is_Integer and right.is_Integer
    if left == right or are_whole:
        return bool(left == right)
    if left.is_Rational and right.is_Rational:
        # By `text.close`, as outside of a matrix: 0.333333 is just within its bound.
        return close(_fraction(left), _fraction(right), approximate=bool(digits))
    return _agree(left, right, digits)


def _fraction(rational: Any) -> Fraction:
    return Fraction(rational.p, rational.q)


def _agree(left: Any, right: Any, digits: int) -> bool:
    """Return whether two expressions agree at points that are drawn for them."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    height = int(_height(left) + _height(right))
    precision = digits or min(MIN_PRECISION + 2 * height, MAX_PRECISION)
    if not symbols:
        return _holds(left, right, [{}], precision)
    points = [_point(symbols, sign) for sign in _SIGNS_OF_POINTS]
    if _holds(left, right, points, precision):
        return True
    integer_points = [_integer_point(symbols) for _ in range(_NUM_INTEGER_POINTS)]
    if any(symbol.name not in _INTEGERS for symbol in symbols):
        return False
    if not (left - right).has(*_DISCRETE):
        return False
    if not _holds(left, right, integer_points, precision):
        return False
    # n mod 61 is n below 61: what repeats or has steps is compared far away as well.
    if not (left - right).has(*_PERIODIC):
        return True
    far_points = [_integer_point(symbols, _FAR_POINTS) for _ in range(_MIN_AGREEMENTS)]
    return _holds(left, right, far_points, precision)


def _point(symbols: Iterable[Any], sign: int = 1) -> dict[Any, Any]:
    """Return a rational value for each symbol."""
    return {
        symbol: sympy.Rational(
            sign * _RANDOM.randrange(*_POINT_NUMERATORS), _POINT_DENOMINATOR
        )
        for symbol in symbols
    }


def _integer_point(
    symbols: Iterable[Any], bounds: tuple[int, int] = _INTEGER_POINTS
) -> dict[Any, Any]:
    return {symbol: sympy.Integer(_RANDOM.randrange(*bounds)) for symbol in symbols}


def _holds(left: Any, right: Any, points: list[dict[Any, Any]], precision: int) -> bool:
    """Return whether two expressions agree at every point where both are defined.

    They must be at two at least, or at the only one.
    """
    num_agreements = 0
    for point in points:
        agree = _agree_at(left, right, point, precision)
        if agree is False:
            return False
        if agree:
            num_agreements += 1
    return num_agreements >= min(_MIN_AGREEMENTS, len(points))


def _agree_at(
    left: Any, right: Any, point: dict[Any, Any], precision: int
) -> bool | None:
    """Return whether two expressions agree at a point.

    None where one of them is not defined, or not real.
    """
    digits = precision + _GUARD_DIGITS
    first = left.evalf(digits, subs=point)
    second = right.evalf(digits, subs=point)
    # evalf puts no values into what it cannot compute, such as a sum up to n.
    if point and not (first.is_number and second.is_number):
        first = left.subs(point).doit().evalf(digits)
        second = right.subs(point).doit().evalf(digits)
    if not (first.is_number and second.is_number):
        return None
    if not (first.is_finite and second.is_finite):
        return None
    # Roots and logarithms of negative numbers have several values: an identity of real
    # numbers need not hold for those that sympy chooses.
    is_negative = bool(point) and min(point.values()) < 0
    if is_negative and not (first.is_real and second.is_real):
        return None
    larger = max(abs(first), abs(second))
    bound = larger * sympy.Float(10) ** -precision
    return bool(abs(first - second) <= bound)


def _height(expression: Any) -> float:
    """Return about how many digits the numbers in an expression can make."""
    total = 0.0
    for part in sympy.preorder_traversal(expression):
        if part.is_Rational:
            numerator = abs(part.p)
            num_bits = numerator.bit_length() + part.q.bit_length()
            total += num_bits * _DIGITS_PER_BIT - _FREE_DIGITS
        elif part.is_Pow and part.exp.is_Integer:
            exponent = abs(int(part.exp))
            total += exponent * (1 + _height(part.base))
        elif isinstance(part, sympy.factorial) and part.args[0].is_Integer:
            total += int(part.args[0]) * _DIGITS_PER_FACTOR
    return max(total, 0.0)


def _renamed(left: Any, right: Any, digits: int) -> bool:
    """Compare two expressions up to the names of variables that they do not share."""
    own = sorted(left.free_symbols - right.free_symbols, key=str)
    foreign = sorted(right.free_symbols - left.free_symbols, key=str)
    if len(own) != len(foreign):
        return False
    if not 1 <= len(own) <= _MAX_RENAMED:
        return False
    for names in permutations(own):
        choice = dict(zip(foreign, names, strict=True))
        if equal(left, right.subs(choice, simultaneous=True), digits):
            return True
    return False


def _numerator(expression: Any) -> Any:
    numerator, _ = sympy.fraction(sympy.together(expression))
    return numerator


def _proportional(left: Any, right: Any, signs: tuple[int, ...]) -> bool:
    """Return whether one expression is a constant times the other.

    Args:
        signs: Those that the constant may have.
    """
    if left.free_symbols != right.free_symbols or not left.free_symbols:
        return False
    # If there is such a constant, any point gives it.
    point = _point(left.free_symbols)
    factor = (left / right).subs(point).doit()
    if not factor.is_real or sympy.sign(factor) not in signs:
        return False
    return equal(left, factor * right)


def _solves(equation: Any, value: Any) -> bool:
    """Return whether a value is what an equation gives for its one other unknown.

    The equation, `equation = 0`, must be linear in the unknown. `x + 1` solves
    `y - x - 1 = 0` for y.
    """
    unknowns = equation.free_symbols - value.free_symbols
    if len(unknowns) != 1:
        return False
    if not value.free_symbols or value.free_symbols - equation.free_symbols:
        return False
    polynomial = sympy.Poly(equation, unknowns.pop())
    if polynomial.degree() != 1:
        return False
    slope, constant = polynomial.all_coeffs()
    return equal(-constant / slope, value)


def _as_set(form: Form) -> Any:
    """Return the set of real numbers that a form names, or None."""
    if form.kind == "relation":  # 1 < x < 2
        return _solutions(form)
    if form.kind == "scalar":  # x = 2, \mathbb{R}
        is_value = form.label not in ("", "{")
        if is_value:
            return sympy.FiniteSet(parse(form.text))
        return _SETS.get(form.text)
    if form.kind == "group":  # [0, 1)
        return _interval(form)
    if form.kind == "set":  # \{1, 2\}
        members = [parse(part.text) for part in form.parts]
        return sympy.FiniteSet(*members)
    sets = [_as_set(part) for part in form.parts]
    if any(part is None for part in sets):
        return None
    if form.kind == "without":  # \mathbb{R} \setminus \{1\}
        return sets[0] - sets[1]
    # Conditions are joined, as in `x < 1 or x > 2`, but "not equal" takes away from the
    # others, as in `x > 0, x \ne 1`.
    cuts = [
        solutions
        for solutions, part in zip(sets, form.parts, strict=True)
        if part.marks == ("\\ne",)
    ]
    others = [solutions for solutions in sets if solutions not in cuts]
    whole = sympy.Union(*others) if others else sympy.S.Reals
    return sympy.Intersection(whole, *cuts)


def _interval(form: Form) -> Any:
    """Return the interval that a pair in brackets names; None for longer tuples."""
    if len(form.parts) != 2:
        return None
    start, end = [parse(part.text) for part in form.parts]
    opening, closing = form.marks
    return sympy.Interval(start, end, opening == "(", closing == ")")


def _solutions(form: Form) -> Any:
    """Return the real solutions of a chain of inequalities in one unknown, or None."""
    terms = [parse(part.text) for part in form.parts]
    unknowns: set[Any] = set()
    for term in terms:
        # An unknown may be a function, as in `f(x) > 2`.
        unknowns |= term.atoms(AppliedUndef) or term.free_symbols
    are_inequalities = set(form.marks) <= _RELATIONS.keys()
    if not are_inequalities or len(unknowns) != 1:
        return None
    # sympy solves inequalities for real symbols only.
    unknown = unknowns.pop()
    real = sympy.Symbol("x", real=True)
    terms = [term.subs(unknown, real) for term in terms]
    solutions = sympy.S.Reals
    for left, mark, right in zip(terms, form.marks, terms[1:], strict=False):
        solutions &= _RELATIONS[mark](left, right).as_set()
    return solutions


def grade(gold: str, answer: str) -> Grade:
    """Return what an answer is, by all there is.

    It is "error" when the gold itself cannot be read.
    """
    try:
        return without_algebra(gold, answer)
    except Undecided:
        gold, answer, _ = in_one_unit(gold, answer)
        return _by_algebra(*in_one_logarithm(clean(gold), clean(answer)))


def _by_algebra(gold: str, answer: str) -> Grade:
    try:
        is_same = equivalent(gold, answer, Algebra())
    except Unreadable:
        # Which of the two was it? A gold that cannot be read is no fault of the answer.
        if _why_unreadable(gold):
            reason = f"the gold {gold[:_QUOTED_CHARS]!r} cannot be read"
            return Grade("error", "algebra", reason)
        reason = "the answer cannot be read as mathematics"
        return Grade("no_answer", "algebra", reason)
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
        # Words are compared as they are and need no parser.
        if _WORD.search(form.text) and "\\" not in form.text:
            continue
        try:
            parse(form.text)
        except Unreadable as error:
            return str(error)
    return ""


def _leaves(form: Form) -> list[Form]:
    """Return the forms without parts that a form is made of."""
    if not form.parts:
        return values(form)
    return [leaf for part in form.parts for leaf in _leaves(part)]
