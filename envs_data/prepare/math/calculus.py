"""Limits, derivatives, integrals and extrema of functions."""

from fractions import Fraction

from envs_data.prepare.math.template import (
    Problem,
    fraction,
    is_square,
    linear,
    polynomial,
    surd,
    template,
)

SMALL = [n for n in range(-6, 7) if n]
AREA = {
    "area under the graph": "for a function without negative values it is the definite integral, the difference of an antiderivative at the ends",
}
DERIVATIVE = {
    "derivative": "that of x^n is n x^(n-1), that of e^(cx) is c e^(cx), that of a product uv is u'v + uv'; a function is known from it up to a constant",
}


@template(
    3,
    {
        "tangent": "that of the graph of f at x = a has the slope f'(a) and passes (a, f(a))"
    },
    p=SMALL,
    q=SMALL,
    r=SMALL,
    a=SMALL,
)
def tangent(p: int, q: int, r: int, a: int) -> Problem | None:
    value = a**3 + p * a * a + q * a + r
    slope = 3 * a * a + 2 * p * a + q
    if slope == 0 or value in (0, slope * a):
        return None
    return Problem(
        f"Give the equation of the tangent to the graph of $f(x) = {polynomial([1, p, q, r])}$ at $x = {a}$, in the form $y = mx + c$.",
        f"y = {polynomial([slope, value - slope * a])}",
        f"Find $f({a})$ and the value of the derivative at {a}.",
        {
            f"y = {polynomial([slope, value])}": f"the line has the right slope but passes (0, f({a})), not ({a}, f({a}))",
            f"y = {polynomial([slope, 0])}": "the line has the right slope but was laid through the origin",
        },
    )


@template(
    3,
    {
        **AREA,
        "integration by parts": "the integral of u v' is uv minus the integral of u' v",
    },
    k=range(2, 10),
)
def by_parts(k: int) -> Problem | None:
    return Problem(
        f"What is the area under the graph of $y = x e^{{{k}x}}$ from $x = 0$ to $x = 1$?",
        f"\\frac{{{linear((k - 1, f'e^{{{k}}}'), (1, ''))}}}{{{k * k}}}",
        f"Integrate by parts, with x as the factor that is differentiated and $e^{{{k}x}}$ as the one that is integrated.",
        {
            f"\\frac{{e^{{{k}}}}}{{{2 * k}}}": "the integrals of the two factors were multiplied; that is no rule",
            f"\\frac{{{linear((k - 1, f'e^{{{k}}}'))}}}{{{k * k}}}": "the value of the antiderivative at 0 is not zero",
        },
    )


@template(
    3,
    {
        "enclosed": "the area between two graphs that meet at two points is the integral of the upper minus the lower function from one point to the other"
    },
    a=range(1, 5),
    left=range(-5, 4),
    right=range(-2, 7),
)
def enclosed(a: int, left: int, right: int) -> Problem | None:
    if left >= right or left * right == 0 or left + right == 0:
        return None
    width = right - left
    line = polynomial([a * (left + right), -a * left * right])
    return Problem(
        f"What is the area that is enclosed by the graphs of $y = {linear((a, 'x^2'))}$ and $y = {line}$?",
        fraction(Fraction(a * width**3, 6)),
        "Find the two values of x at which the graphs meet.",
        {
            fraction(
                Fraction(a * (right**3 - left**3), 3)
            ): "this is the area under the parabola; it has to be taken from that under the line",
            fraction(
                Fraction(a * width**3, 2)
            ): "an antiderivative of x^2 was taken without the factor 1/3",
        },
    )


@template(
    3,
    {"limit": "near 0, cos t is 1 - t^2/2 up to terms of the fourth order"},
    a=range(1, 10),
    b=range(2, 12),
)
def cosines(a: int, b: int) -> Problem | None:
    if a >= b:
        return None
    first = "\\cos x" if a == 1 else f"\\cos {a}x"
    return Problem(
        f"What is the limit of $\\frac{{{first} - \\cos {b}x}}{{x^2}}$ as x tends to 0?",
        fraction(Fraction(b * b - a * a, 2)),
        "Replace each cosine by the first two terms of its series.",
        {
            "0": "the numerator tends to 0, but so does the denominator",
            str(
                b * b - a * a
            ): "the series of the cosine has a factor 1/2 before the square",
            fraction(
                Fraction(a * a - b * b, 2)
            ): f"a sign went wrong: close to 0, the cosine of {b}x is the smaller one",
        },
    )


@template(
    4,
    {
        "largest volume": "at an extremum inside its range a differentiable function has the derivative 0; solutions outside the range do not count"
    },
    a=range(3, 16),
    b=range(4, 25),
)
def box(a: int, b: int) -> Problem | None:
    inside = a * a - a * b + b * b
    if a >= b or is_square(inside):
        return None
    return Problem(
        f"From each corner of a sheet of {a} by {b} a square is cut off, and the rest is folded up to an open box. Which side of the squares gives the largest volume?",
        surd(a + b, -1, inside, 6),
        f"Write the volume as a function of the side x of the squares; it is x times ({a} - 2x) times ({b} - 2x).",
        {
            surd(
                a + b, 1, inside, 6
            ): "squares of this size do not fit on the sheet; the other zero of the derivative counts",
            fraction(
                Fraction(a, 6)
            ): "this would be right for a square sheet, but the sides differ",
        },
    )


@template(2, DERIVATIVE, p=SMALL, q=SMALL, r=SMALL, a=SMALL, value=range(-9, 10))
def antiderivative(p: int, q: int, r: int, a: int, value: int) -> Problem | None:
    constant = value - (p * a**3 + q * a**2 + r * a)
    if constant in (0, value) or value == 0:
        return None
    return Problem(
        f"A function f has the derivative $f'(x) = {polynomial([3 * p, 2 * q, r])}$, and $f({a}) = {value}$. What is $f(x)$?",
        polynomial([p, q, r, constant]),
        f"Find any function with this derivative, then shift it so that its value at {a} is {value}.",
        {
            polynomial([p, q, r, 0]): f"the constant is missing: test f({a})",
            polynomial(
                [p, q, r, value]
            ): f"the value at {a} was taken for the constant, which is the value at 0",
        },
    )


@template(3, DERIVATIVE, a=range(2, 10), b=SMALL, c=range(2, 8))
def product_rule(a: int, b: int, c: int) -> Problem | None:
    factor = linear((a, "x"), (b, ""))
    if a + b * c == 0:
        return None
    return Problem(
        f"What is the derivative of $({factor}) e^{{{c}x}}$ with respect to x?",
        f"({polynomial([a * c, a + b * c])}) e^{{{c}x}}",
        f"Differentiate ${factor}$ and $e^{{{c}x}}$ each for itself first.",
        {
            f"{a * c} e^{{{c}x}}": "the derivatives of the two factors were multiplied; that is no rule",
            f"({polynomial([a, a + b])}) e^{{{c}x}}": f"the inner derivative, the factor {c}, was left out",
            f"({polynomial([a * c, b * c])}) e^{{{c}x}}": "only the exponential was differentiated; a summand is missing",
        },
    )


@template(
    4,
    {
        "solid of revolution": "when the graph of f turns about the x-axis, the volume is pi times the integral of the square of f"
    },
    k=range(1, 6),
    p=range(1, 5),
    end=range(1, 5),
)
def revolution(k: int, p: int, end: int) -> Problem | None:
    square = 2 * p + 1
    power = "x" if p == 1 else f"x^{p}"

    def volume(value: Fraction) -> str:
        return linear((value, "\\pi"))

    return Problem(
        f"The region below $y = {linear((k, power))}$ and above the x-axis, from $x = 0$ to $x = {end}$, turns about the x-axis. What is the volume of this solid of revolution?",
        volume(Fraction(k * k * end**square, square)),
        "The cross section at x is a disc; write its area with the radius y.",
        {
            volume(
                Fraction(k * end ** (p + 1), p + 1)
            ): "the function was integrated without being squared",
            volume(
                Fraction(k * end**square, square)
            ): f"the factor {k} has to be squared, too",
        },
    )


@template(
    4,
    {
        **AREA,
        "partial fractions": "1/(x(x + c)) is 1/c times the difference of 1/x and 1/(x + c)",
    },
    a=range(1, 6),
    b=range(2, 10),
    c=range(2, 8),
)
def log_integral(a: int, b: int, c: int) -> Problem | None:
    if a >= b:
        return None

    def logarithm(argument: Fraction, divisor: int) -> str:
        factor = f"\\frac{{1}}{{{divisor}}} " if divisor > 1 else ""
        return f"{factor}\\ln({fraction(argument)})"

    inside = Fraction(b * (a + c), a * (b + c))
    return Problem(
        f"What is the area under the graph of $y = \\frac{{1}}{{x(x + {c})}}$ from $x = {a}$ to $x = {b}$?",
        logarithm(inside, c),
        f"Split the function into two fractions, with the denominators x and x + {c}.",
        {
            logarithm(
                inside, 1
            ): f"the difference of the two fractions is {c} times the function; a factor is missing",
            logarithm(
                Fraction(b * (b + c), a * (a + c)), c
            ): "the two fractions were added, but one is to be subtracted",
        },
    )
