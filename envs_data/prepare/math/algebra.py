"""Equations, inequalities, polynomials and complex numbers."""

from fractions import Fraction
from math import comb

from envs_data.prepare.math.template import (
    Problem,
    collected,
    fraction,
    is_square,
    linear,
    ordered,
    polynomial,
    surd,
    template,
)

SMALL = [n for n in range(-9, 10) if n]
INTERVALS = {
    "interval notation": "a round bracket leaves the end out and a square one takes it in; infinity has a round one, and parts are joined by a union sign",
}


@template(
    2,
    {
        "linear equations": "two of them in two unknowns are solved by elimination: multiply them so that an unknown has the same coefficient in both, and subtract"
    },
    a=SMALL,
    b=SMALL,
    c=SMALL,
    d=SMALL,
    e=SMALL,
    f=SMALL,
)
def linear_system(a: int, b: int, c: int, d: int, e: int, f: int) -> Problem | None:
    det = a * d - b * c
    if det == 0:
        return None
    x, y = Fraction(e * d - b * f, det), Fraction(a * f - e * c, det)
    if x == 0 or y == 0 or abs(x) == abs(y):
        return None
    first, second = linear((a, "x"), (b, "y")), linear((c, "x"), (d, "y"))
    return Problem(
        f"Which pair $(x, y)$ solves the linear equations ${first} = {e}$ and ${second} = {f}$?",
        ordered(x, y),
        f"Eliminate y: multiply the first equation by {d} and the second by {b}, then subtract.",
        {
            ordered(y, x): "x and y were exchanged at the end",
            ordered(-x, y): "a sign was lost when x was found",
        },
    )


@template(
    2,
    {
        "quadratic equation": "x^2 + bx + c = 0 has the solutions (-b ± sqrt(b^2 - 4c))/2"
    },
    p=SMALL,
    q=range(2, 40),
)
def quadratic_roots(p: int, q: int) -> Problem | None:
    if is_square(q) or p * p == q:
        return None
    equation = polynomial([1, -2 * p, p * p - q])

    def pair(middle: int, factor: int) -> str:
        return collected([surd(middle, -factor, q), surd(middle, factor, q)])

    return Problem(
        f"Find the set of real solutions of the quadratic equation ${equation} = 0$.",
        pair(p, 1),
        f"Complete the square: compare the left side with $(x {'-' if p > 0 else '+'} {abs(p)})^2$.",
        {
            pair(
                -p, 1
            ): "the sign of the linear coefficient was not turned around in the formula",
            pair(p, 2): "only the first summand was divided by 2, not the root",
        },
    )


@template(
    3,
    {
        "monic quadratic": "the roots of x^2 + bx + c add up to -b and multiply to c (Vieta), and every symmetric expression of them can be written with these two"
    },
    p=[n for n in range(-12, 13) if abs(n) > 1],
    q=SMALL,
)
def root_cubes(p: int, q: int) -> Problem | None:
    return Problem(
        f"The complex numbers r and s are the roots of the monic quadratic ${polynomial([1, -p, q])}$. What is $r^3 + s^3$?",
        str(p**3 - 3 * p * q),
        "Expand $(r + s)^3$ and see what stands there besides the two cubes.",
        {
            str(
                p**3
            ): "the cube of the sum was taken for the sum of the cubes; mixed terms are missing",
            str(p**3 + 3 * p * q): "the mixed terms were added instead of subtracted",
            str(
                -(p**3) + 3 * p * q
            ): "the sum of the roots is minus the linear coefficient; its sign was not turned around",
        },
    )


@template(2, INTERVALS, a=range(-9, 10), b=range(-9, 10))
def quadratic_inequality(a: int, b: int) -> Problem | None:
    if a >= b or a + b == 0:
        return None
    return Problem(
        f"For which real numbers x is the value of ${polynomial([1, -a - b, a * b])}$ not negative? Use interval notation.",
        f"(-\\infty, {a}] \\cup [{b}, \\infty)",
        "Factor the left side and look at the signs of both factors on each side of the zeros.",
        {
            f"[{a}, {b}]": "between the zeros the parabola lies below the axis, since it opens upwards",
            f"(-\\infty, {a}) \\cup ({b}, \\infty)": "at the zeros themselves the value is not negative either, so they belong to the set",
        },
    )


@template(3, INTERVALS, a=range(-6, 10), b=range(-6, 7), k=range(2, 6))
def rational_inequality(a: int, b: int, k: int) -> Problem | None:
    if a + b <= 0 or a == 0 or b == 0:
        return None
    end = fraction(Fraction(a + k * b, k - 1))
    top, bottom = linear((1, "x"), (a, "")), linear((1, "x"), (-b, ""))
    return Problem(
        f"For which real numbers x is the value of $\\frac{{{top}}}{{{bottom}}}$ at least {k}? Use interval notation.",
        f"({b}, {end}]",
        f"Bring {k} to the left and write one fraction over ${bottom}$ before you look at signs.",
        {
            f"(-\\infty, {end}]": "both sides were multiplied by the denominator as if it were positive everywhere",
            f"[{b}, {end}]": "at one end the denominator is zero, so this end is not in the set",
        },
    )


@template(
    3,
    {
        "polynomial division": "the remainder has a lower degree than the divisor, and at each zero of the divisor it has the value of the dividend"
    },
    n=range(5, 10),
    p=range(-2, 4),
    q=range(-2, 4),
)
def polynomial_remainder(n: int, p: int, q: int) -> Problem | None:
    if p >= q or p + q == 0 or p * q == 0:
        return None
    slope = (p**n - q**n) // (p - q)
    divisor = polynomial([1, -p - q, p * q])
    return Problem(
        f"Which remainder does the polynomial division of $x^{{{n}}}$ by ${divisor}$ leave?",
        polynomial([slope, p**n - slope * p]),
        f"Write the remainder as ax + b and put in the zeros of the divisor, {p} and {q}.",
        {
            str(
                p**n
            ): "only one zero of the divisor was used; a quadratic divisor leaves a linear remainder",
            polynomial(
                [slope, p**n + slope * p]
            ): "the slope is right, but a sign went wrong when the constant was found",
        },
    )


@template(
    3,
    {
        "coefficient": "that of x^k in a product is the sum, over all i, of the coefficient of x^i in one factor times that of x^(k-i) in the other; in (1 + cx)^n that of x^i is C(n, i) c^i"
    },
    a=range(1, 5),
    n=range(3, 8),
    b=range(1, 5),
    m=range(3, 8),
    k=range(2, 5),
)
def coefficient(a: int, n: int, b: int, m: int, k: int) -> Problem | None:
    def summed(sign: int) -> int:
        return sum(
            comb(n, i) * a**i * comb(m, k - i) * (sign * b) ** (k - i)
            for i in range(k + 1)
        )

    first, second = linear((1, ""), (a, "x")), linear((1, ""), (-b, "x"))
    return Problem(
        f"What is the coefficient of $x^{{{k}}}$ in $({first})^{{{n}}} ({second})^{{{m}}}$?",
        str(summed(-1)),
        f"For every i from 0 to {k}, take $x^i$ from the first power and $x^{{{k} - i}}$ from the second; add the products.",
        {
            str(
                summed(1)
            ): "the minus sign of the second factor was lost in its odd powers",
            str(
                comb(n, k) * a**k + comb(m, k) * (-b) ** k
            ): "only the two ends were added; the mixed products are missing",
        },
    )


@template(
    3,
    {
        "quadratic polynomial": "it is fixed by three values, and the second differences of its values at neighbouring integers are twice the leading coefficient"
    },
    a=SMALL,
    b=SMALL,
    c=SMALL,
)
def interpolation(a: int, b: int, c: int) -> Problem | None:
    values = [a * x * x + b * x + c for x in range(3)]
    if a == -b:
        return None
    return Problem(
        f"A quadratic polynomial f has $f(0) = {values[0]}$, $f(1) = {values[1]}$ and $f(2) = {values[2]}$. What is $f(x)$?",
        polynomial([a, b, c]),
        "Find the first differences of the three values, then the second difference.",
        {
            polynomial(
                [2 * a, b - a, c]
            ): "the second difference was taken for the leading coefficient, of which it is the double",
            polynomial(
                [a + b, c]
            ): "a straight line was laid through the first two points",
        },
    )


@template(
    2,
    {
        "absolute values": "|x - a| is the distance of x from a; to get rid of absolute values, look at each part of the line between the points where one of them is zero"
    },
    a=range(-9, 10),
    b=range(-9, 10),
    c=range(3, 30),
)
def absolute_values(a: int, b: int, c: int) -> Problem | None:
    if a >= b or c <= b - a or a * b == 0 or a + b == 0:
        return None
    low, high = Fraction(a + b - c, 2), Fraction(a + b + c, 2)
    first, second = linear((1, "x"), (-a, "")), linear((1, "x"), (-b, ""))
    return Problem(
        f"Find the set of all real x for which the absolute values add up: $|{first}| + |{second}| = {c}$.",
        collected(map(fraction, (low, high))),
        f"Between {a} and {b} the left side is constant; compare it with {c}, then look at x above {b} and at x below {a}.",
        {
            collected(
                [fraction(high)]
            ): f"only x above {b} was looked at; there is a case below {a}, too",
            collected(
                map(fraction, (-high, high))
            ): "the second solution was taken for minus the first, but the equation is symmetric about another point than 0",
        },
    )


@template(
    3,
    {
        "nested root": "the square of sqrt(a) + sqrt(b) is a + b + 2 sqrt(ab); so sqrt(s + sqrt(p)) is such a sum when a + b = s and 4ab = p"
    },
    m=range(2, 20),
    n=range(3, 30),
)
def nested_root(m: int, n: int) -> Problem | None:
    if m >= n or is_square(m) or is_square(n) or is_square(m * n):
        return None
    return Problem(
        f"The nested root $\\sqrt{{{m + n} + \\sqrt{{{4 * m * n}}}}}$ equals $\\sqrt{{a}} + \\sqrt{{b}}$ with integers $a < b$. Give the pair $(a, b)$.",
        ordered(m, n),
        "Square both sides and compare the rational parts and the roots.",
        {
            ordered(n, m): "the two numbers are right, but the smaller one comes first",
            ordered(
                m + n, 4 * m * n
            ): "a root of a sum was split into the roots of its summands",
        },
    )


@template(
    3,
    {
        "exponential equation": "a^(2x) is the square of a^x; with u = a^x such an equation becomes one in u, of whose solutions only positive ones belong to an x"
    },
    base=(2, 3, 5),
    i=range(-2, 4),
    j=range(-1, 6),
)
def exponential_equation(base: int, i: int, j: int) -> Problem | None:
    if i >= j or i + j < 0 or i == 0 or j == 0 or j - i > 4:
        return None
    total = Fraction(base) ** i + Fraction(base) ** j
    left = linear(
        (1, f"{base}^{{2x}}"), (-total, f" \\cdot {base}^x"), (base ** (i + j), "")
    )
    powers = (fraction(Fraction(base) ** n) for n in (i, j))
    return Problem(
        f"Find the set of real solutions of the exponential equation ${left} = 0$.",
        collected([str(i), str(j)]),
        f"Put u for ${base}^x$ and solve the quadratic equation in u.",
        {
            collected(
                powers
            ): f"these are the values of {base}^x; the exponents are still to be found",
            collected([str(j)]): "the quadratic equation in u has a second solution",
        },
    )


@template(
    3,
    {
        "symmetric": "a system that stays the same when x and y are exchanged is solved by x + y and xy, and with (x, y) it has the solution (y, x); x^2 + y^2 is (x + y)^2 - 2xy"
    },
    u=range(-8, 9),
    v=range(-8, 9),
)
def symmetric_system(u: int, v: int) -> Problem | None:
    if u >= v or u + v == 0 or u * v == 0:
        return None
    return Problem(
        f"Find the set of all pairs $(x, y)$ of real numbers that solve the symmetric system $x + y = {u + v}$, $x^2 + y^2 = {u * u + v * v}$.",
        collected([ordered(u, v), ordered(v, u)]),
        "Square the first equation to find the product xy.",
        {
            collected(
                [ordered(u, v)]
            ): "one solution is missing: the system is symmetric in x and y",
            collected(
                [ordered(-u, -v), ordered(-v, -u)]
            ): "the signs are wrong: put the pairs into the first equation",
        },
    )


@template(
    3,
    {
        "complex number": "i^2 = -1; powers are found by multiplying out, two factors at a time, or by squaring again and again"
    },
    a=[n for n in range(-5, 6) if n],
    b=[n for n in range(-5, 6) if n],
    n=(3, 4, 5),
)
def complex_power(a: int, b: int, n: int) -> Problem | None:
    if abs(a) == abs(b):
        return None
    real, imaginary = 1, 0
    for _ in range(n):
        real, imaginary = real * a - imaginary * b, real * b + imaginary * a
    return Problem(
        f"For the complex number $z = {linear((a, ''), (b, 'i'))}$, write the number $z^{{{n}}}$ in the form $p + qi$ with integers p and q.",
        linear((real, ""), (imaginary, "i")),
        "Find $z^2$ first, with $i^2 = -1$.",
        {
            linear(
                (a**n, ""), (b**n, "i")
            ): "the two parts were raised to the power each for itself",
            linear(
                (real, ""), (-imaginary, "i")
            ): "a sign of the imaginary part went wrong; check the powers of i",
        },
    )


@template(
    3,
    {
        "logarithms": "those of one base add to that of the product; they are there for positive numbers only, so every solution is to be checked"
    },
    b=(2, 3, 5),
    k=range(1, 5),
    a=range(1, 10),
)
def logarithms(b: int, k: int, a: int) -> Problem | None:
    inside = a * a + 4 * b**k
    if is_square(inside):
        return None
    return Problem(
        f"Two logarithms of base {b} add up to {k}: $\\log_{{{b}}} x + \\log_{{{b}}} (x - {a}) = {k}$. What is x?",
        surd(a, 1, inside, 2),
        f"Join the logarithms to that of $x(x - {a})$ and write the equation without them.",
        {
            fraction(
                Fraction(a + b**k, 2)
            ): "the sum of the logarithms is that of the product, not that of the sum",
            surd(
                a, -1, inside, 2
            ): "this solution of the quadratic equation is negative, and has no logarithm",
        },
    )
