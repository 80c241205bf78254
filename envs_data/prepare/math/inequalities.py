"""Extrema under conditions, by inequalities between means and Cauchy-Schwarz."""

from fractions import Fraction

from envs_data.prepare.math.template import Problem, fraction, linear, surd, template


@template(
    5,
    {
        "smallest value": "by Cauchy and Schwarz, (x + y)(a/x + b/y) is at least (sqrt(a) + sqrt(b))^2 for positive numbers; an estimate gives a smallest value only where it becomes an equality"
    },
    a=range(1, 17),
    b=range(2, 25),
)
def least_sum(a: int, b: int) -> Problem | None:
    if a >= b:
        return None
    return Problem(
        f"For positive x and y with $\\frac{{{a}}}{{x}} + \\frac{{{b}}}{{y}} = 1$, what is the smallest value of $x + y$?",
        surd(a + b, 2, a * b),
        f"Multiply x + y by $\\frac{{{a}}}{{x}} + \\frac{{{b}}}{{y}}$, which is 1, and expand.",
        {
            surd(
                0, 4, a * b
            ): "two estimates by means were chained that become equalities for different x and y, so this value is not reached",
            str(
                2 * (a + b)
            ): "x and y were taken to be equal, but the condition is not symmetric",
        },
    )


@template(
    4,
    {
        "largest value": "by Cauchy and Schwarz, (ax + by + cz)^2 is at most (a^2 + b^2 + c^2)(x^2 + y^2 + z^2), with equality where the two vectors are parallel"
    },
    a=range(1, 8),
    b=range(1, 8),
    c=range(1, 8),
    squared=range(2, 30),
)
def on_a_sphere(a: int, b: int, c: int, squared: int) -> Problem | None:
    if not a < b < c:
        return None
    what = linear((a, "x"), (b, "y"), (c, "z"))
    return Problem(
        f"What is the largest value of ${what}$ for real numbers with $x^2 + y^2 + z^2 = {squared}$?",
        surd(0, 1, squared * (a * a + b * b + c * c)),
        f"Compare the vectors ({a}, {b}, {c}) and (x, y, z): when is their scalar product as large as their lengths allow?",
        {
            surd(
                0, a + b + c, 3 * squared, 3
            ): "x, y and z were taken to be equal, but the coefficients differ",
            surd(
                0, c, squared
            ): "everything was put on the largest coefficient; a little of the others gains more",
        },
    )


@template(
    4,
    {
        "greatest product": "for positive parts with a fixed sum the plain product is greatest when they are equal; for x^p y^q split x into p equal parts and y into q (means)"
    },
    p=range(1, 5),
    q=range(2, 6),
    total=range(3, 20),
)
def greatest_product(p: int, q: int, total: int) -> Problem | None:
    if p >= q:
        return None
    whole = p + q
    x, y = Fraction(p * total, whole), Fraction(q * total, whole)
    power = "x" if p == 1 else f"x^{p}"
    return Problem(
        f"Positive numbers x and y have the sum {total}. What is the greatest product ${power} y^{q}$ that they can have?",
        fraction(x**p * y**q),
        f"Write the sum {total} with {whole} summands: {p} times x/{p} and {q} times y/{q}.",
        {
            fraction(
                Fraction(total, 2) ** whole
            ): "x and y were taken to be equal, but their exponents differ",
            fraction(
                Fraction(total, whole) ** whole
            ): "the parts x/p and y/q were multiplied; their denominators have to be put back",
        },
    )
