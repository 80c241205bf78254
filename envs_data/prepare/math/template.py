"""What a template of problems is, and how answers are written in LaTeX."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, isqrt
from typing import Any

Number = int | Fraction


@dataclass(frozen=True)
class Problem:
    """One problem with its answer and what agents may say of it.

    Args:
        text: What is asked.
        answer: The gold.
        hint: The next step, for the Reasoning Agent.
        mistakes: For the Verify Agent: wrong results, and the first wrong step that
            leads to each, as a clause.
    """

    text: str
    answer: str
    hint: str
    mistakes: dict[str, str]


@dataclass(frozen=True)
class Template:
    """Problems that differ in their parameters.

    Args:
        name: In the ids of its tasks.
        level: From 1, school arithmetic, to 5, olympiads.
        notes: Facts that are needed, by a term; one of the terms stands in each text.
        domains: The values that each parameter may have.
        ask: Makes a problem of parameters; None where they make no good one.
    """

    name: str
    level: int
    notes: dict[str, str]
    domains: dict[str, Sequence[Any]]
    ask: Callable[..., Problem | None]


def template(
    level: int, notes: dict[str, str], **domains: Sequence[Any]
) -> Callable[[Callable[..., Problem | None]], Template]:
    """Return a decorator that makes a template of its `ask`, named as the function."""

    def named(ask: Callable[..., Problem | None]) -> Template:
        return Template(ask.__name__, level, notes, domains, ask)

    return named


def fraction(value: Number) -> str:
    """Write a rational number: "-\\frac{7}{3}", "4"."""
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def decimal(value: Number) -> str:
    """Write a number that has at most four decimals."""
    assert Fraction(value) * 10**4 % 1 == 0, value
    return f"{float(value):.4f}".rstrip("0").rstrip(".")


def surd(whole: int, factor: int, radicand: int, divisor: int = 1) -> str:
    """Write (whole + factor * sqrt(radicand)) / divisor in lowest terms."""
    for root in range(isqrt(radicand), 1, -1):
        if radicand % root**2 == 0:
            factor, radicand = factor * root, radicand // root**2
            break
    if radicand == 1:
        return fraction(Fraction(whole + factor, divisor))
    common = gcd(whole, factor, divisor)
    whole, factor, divisor = whole // common, factor // common, divisor // common
    top = linear((whole, ""), (factor, f"\\sqrt{{{radicand}}}"))
    if divisor == 1:
        return top
    return f"\\frac{{{top}}}{{{divisor}}}"


def linear(*terms: tuple[Number, str]) -> str:
    """Write a sum of multiples: `linear((2, "x"), (-1, "y"))` is "2x - y"."""
    text = ""
    for factor, what in terms:
        if factor == 0:
            continue
        size = fraction(factor if factor > 0 else -factor)
        term = what if size == "1" and what else size + what
        if text:
            text += f" - {term}" if factor < 0 else f" + {term}"
        else:
            text = f"-{term}" if factor < 0 else term
    return text or "0"


def polynomial(coefficients: Sequence[Number], variable: str = "x") -> str:
    """Write a polynomial, its highest coefficient first."""
    powers = [
        "" if n == 0 else variable if n == 1 else f"{variable}^{{{n}}}"
        for n in range(len(coefficients) - 1, -1, -1)
    ]
    return linear(*zip(coefficients, powers, strict=True))


def shifted_square(variable: str, centre: int) -> str:
    """Write (variable - centre)^2."""
    if centre == 0:
        return f"{variable}^2"
    return f"({linear((1, variable), (-centre, ''))})^2"


def ordered(*entries: Number) -> str:
    """Write a tuple of rational numbers."""
    return f"({', '.join(map(fraction, entries))})"


def collected(members: Iterable[str]) -> str:
    """Write a set."""
    return f"\\{{{', '.join(members)}\\}}"


def matrix(rows: Iterable[Iterable[Number]]) -> str:
    """Write a matrix of rational numbers."""
    lines = " \\\\ ".join(" & ".join(map(fraction, row)) for row in rows)
    return f"\\begin{{pmatrix}} {lines} \\end{{pmatrix}}"


def is_square(number: int) -> bool:
    """Return whether a number is the square of an integer."""
    return number >= 0 and isqrt(number) ** 2 == number
