"""Sums, recursions, functional equations and invariants."""

from fractions import Fraction
from math import isqrt, prod

from envs_data.prepare.math.template import Problem, fraction, linear, template


@template(
    1,
    {
        "multiples": "they are equally far apart, so their sum is how many there are times the mean of the first and the last"
    },
    d=range(3, 20),
    low=range(20, 120),
    high=range(200, 600),
)
def multiples(d: int, low: int, high: int) -> Problem | None:
    first, last = -(-low // d) * d, high // d * d
    count = (last - first) // d + 1
    return Problem(
        f"What is the sum of all multiples of {d} from {low} to {high}?",
        str(count * (first + last) // 2),
        f"Find the first and the last multiple of {d} in this range, and count how many there are.",
        {
            fraction(
                Fraction((count - 1) * (first + last), 2)
            ): "one too few were counted: both ends belong to the range",
            str(
                count * (first + last)
            ): "the sum of first and last was not halved to get the mean",
        },
    )


@template(
    3,
    {
        "arithmetic sequence": "its neighbouring terms differ by a constant d; with neighbours u and v, 1/(uv) is (1/u - 1/v)/d, so that in a sum nearly all cancels"
    },
    a=range(1, 8),
    d=range(2, 8),
    n=range(10, 60),
)
def telescope(a: int, d: int, n: int) -> Problem | None:
    last = a + n * d
    terms = [
        f"\\frac{{1}}{{{a + k * d} \\cdot {a + (k + 1) * d}}}" for k in (0, 1, n - 1)
    ]
    return Problem(
        f"What is the value of ${terms[0]} + {terms[1]} + \\dots + {terms[2]}$? The factors below are neighbours in an arithmetic sequence.",
        fraction(Fraction(n, a * last)),
        f"Write each summand as a difference of two fractions, divided by {d}.",
        {
            fraction(
                Fraction(1, a) - Fraction(1, last)
            ): f"the difference of the two fractions is {d} times the summand; this factor was left out",
            fraction(Fraction(n - 1, a * (last - d))): "the last summand was left out",
        },
    )


@template(
    4,
    {
        "infinite series": "for |r| < 1, 1 + r + r^2 + … is 1/(1 - r); a series minus r times itself is often a simpler one"
    },
    a=range(1, 8),
    b=range(2, 12),
)
def weighted_series(a: int, b: int) -> Problem | None:
    r = Fraction(a, b)
    if a >= b or r.numerator != a:
        return None
    terms = [f"\\frac{{{k * a**k}}}{{{b**k}}}" for k in (1, 2, 3)]
    return Problem(
        f"What is the sum of the infinite series ${' + '.join(terms)} + \\dots$, whose k-th term is k times the k-th power of ${fraction(r)}$?",
        fraction(r / (1 - r) ** 2),
        f"Subtract ${fraction(r)}$ times the series from the series.",
        {
            fraction(
                r / (1 - r)
            ): "this is the sum of the powers alone, without the factors k",
            fraction(
                1 / (1 - r) ** 2
            ): "the series begins with k = 1, so that one power more is in each term",
        },
    )


@template(
    4,
    {
        "recursion": "if a(n+1) = s a(n) - t a(n-1) and x^2 = sx - t has two solutions p and q, then a(n) = A p^n + B q^n, with A and B from the first two terms"
    },
    p=range(2, 8),
    q=range(1, 7),
    first=range(-4, 5),
    second=range(-4, 5),
)
def closed_form(p: int, q: int, first: int, second: int) -> Problem | None:
    def formula(one: int, other: int) -> str:
        powers = [f"{p}^n", f"{q}^n" if q > 1 else ""]
        parts = []
        for factor, power in zip((one, other), powers, strict=True):
            dot = " \\cdot " if abs(factor) != 1 and power else ""
            parts.append((factor, dot + power))
        return linear(*parts)

    if p <= q or first * second == 0 or first == second:
        return None
    terms = [first + second, first * p + second * q]
    rule = linear((p + q, "a_n"), (-p * q, "a_{n-1}"))
    return Problem(
        f"A sequence begins with $a_0 = {terms[0]}$ and $a_1 = {terms[1]}$ and obeys the recursion $a_{{n+1}} = {rule}$. Give a formula for $a_n$ in n.",
        formula(first, second),
        f"Solve $x^2 = {p + q}x - {p * q}$.",
        {
            formula(second, first): "the two coefficients were exchanged; test n = 1",
            formula(
                first, -second
            ): "a sign went wrong when the coefficients were found; test n = 0",
        },
    )


@template(
    4,
    {
        "sequence": "one that is given by a recursion repeats from where as many neighbouring terms come again as the recursion looks back"
    },
    x=range(1, 10),
    y=range(1, 10),
    n=range(200, 3000),
)
def returning(x: int, y: int, n: int) -> Problem | None:
    terms = [Fraction(x), Fraction(y)]
    while len(terms) < 8:
        terms.append((1 + terms[-1]) / terms[-2])
    # The period is 5, and who asks for one of the first two terms gives it away.
    if n % 5 in (1, 2):
        return None
    return Problem(
        f"A sequence begins with $x_1 = {x}$ and $x_2 = {y}$, and each further term is $x_{{n+1}} = \\frac{{1 + x_n}}{{x_{{n-1}}}}$. What is $x_{{{n}}}$?",
        fraction(terms[(n - 1) % 5]),
        "Compute terms until the first two come again.",
        {
            fraction(
                terms[n % 5]
            ): "the count is off by one: the sequence begins with the index 1",
            fraction(
                terms[(n - 1) % 6]
            ): "the period was counted wrongly: it ends before the first term comes again",
        },
    )


@template(
    5,
    {
        "functional equation": "put in simple values, as n = 1; on the positive integers this gives the step from f(m) to f(m + 1), and all values are a sum of such steps"
    },
    a=range(1, 10),
    c=range(1, 8),
    n=range(10, 60),
)
def functional(a: int, c: int, n: int) -> Problem | None:
    pairs = c * n * (n - 1) // 2
    return Problem(
        f"For all positive integers m and n, f obeys the functional equation $f(m + n) = f(m) + f(n) + {linear((c, 'mn'))}$, and $f(1) = {a}$. What is $f({n})$?",
        str(a * n + pairs),
        "Put n = 1 into the equation: by how much does f grow from m to m + 1?",
        {
            str(a * n): "the term with mn was left out",
            str(
                a * n + c * n * (n + 1) // 2
            ): f"one step too many was added: from 1 to {n} there are {n - 1}",
        },
    )


@template(
    4,
    {
        "integer part": "the integer part of a number is the largest integer not above it; the integer part of sqrt(k) is m for the 2m + 1 integers k from m^2 to (m + 1)^2 - 1"
    },
    n=range(50, 600),
)
def root_parts(n: int) -> Problem | None:
    top = isqrt(n)
    rest = top * (n - top**2 + 1)
    return Problem(
        f"For each integer k from 1 to {n}, take the integer part of the square root of k. What is the sum of these numbers?",
        str(sum(m * (2 * m + 1) for m in range(1, top)) + rest),
        "For which k is the integer part equal to m, and how many of these are there?",
        {
            str(
                sum(m * 2 * m for m in range(1, top)) + rest
            ): "each value m occurs once more than 2m times, both ends included",
            str(
                sum(m * (2 * m + 1) for m in range(1, top + 1))
            ): f"the last block was counted whole, but it is cut off at {n}",
        },
    )


@template(
    5,
    {
        "board": "look for an invariant, a quantity that no move changes: xy + x + y is (x + 1)(y + 1) - 1"
    },
    low=range(1, 6),
    count=range(5, 9),
)
def board(low: int, count: int) -> Problem | None:
    numbers = range(low, low + count)
    return Problem(
        f"On a board stand the numbers {', '.join(map(str, numbers))}. In a move, two of them, x and y, are wiped out and $xy + x + y$ is written instead. After {count - 1} moves one number is left. Which?",
        str(prod(k + 1 for k in numbers) - 1),
        "Add 1 to the new number and factor it.",
        {
            str(
                prod(k + 1 for k in numbers)
            ): "this is the invariant itself; the number on the board is 1 less",
            str(prod(numbers)): "the numbers were multiplied without the terms x + y",
        },
    )
