"""Matrices, determinants, eigenvalues and vectors."""

from fractions import Fraction

from envs_data.prepare.math.template import (
    Number,
    Problem,
    collected,
    fraction,
    matrix,
    ordered,
    surd,
    template,
)

SMALL = [n for n in range(-5, 6) if n]


@template(
    2,
    {
        "inverse matrix": "that of a 2 by 2 matrix with the rows (a, b) and (c, d) has the rows (d, -b) and (-c, a), divided by ad - bc"
    },
    a=SMALL,
    b=SMALL,
    c=SMALL,
    d=SMALL,
)
def inverse(a: int, b: int, c: int, d: int) -> Problem | None:
    det = a * d - b * c
    if det in (-1, 0, 1):
        return None

    def divided(*entries: int) -> str:
        p, q, r, s = (Fraction(entry, det) for entry in entries)
        return matrix([[p, q], [r, s]])

    return Problem(
        f"What is the inverse matrix of ${matrix([[a, b], [c, d]])}$?",
        divided(d, -b, -c, a),
        f"Compute the determinant: multiply {a} by {d}, and {b} by {c}.",
        {
            matrix([[d, -b], [-c, a]]): "it was not divided by the determinant",
            divided(
                a, -b, -c, d
            ): "the entries on the diagonal have to change their places",
        },
    )


@template(
    4,
    {
        "determinant": "it does not change when a multiple of a row is added to another one, or a column to another; that of a triangular matrix is the product of its diagonal"
    },
    n=range(4, 9),
    a=range(2, 9),
    b=range(1, 7),
)
def constant_matrix(n: int, a: int, b: int) -> Problem | None:
    if a == b:
        return None
    return Problem(
        f"A matrix of {n} rows and {n} columns has {a} at every place of the diagonal and {b} at every other place. What is its determinant?",
        str((a - b) ** (n - 1) * (a + (n - 1) * b)),
        "Add all other rows to the first one.",
        {
            str(a**n - b**n): "the formula for 2 by 2 was carried over; it is no rule",
            str(
                (a - b) ** n
            ): "after the rows were subtracted, one row was left out, which has another value on the diagonal",
        },
    )


@template(
    3,
    {
        "power of a matrix": "powers of a triangular matrix are triangular, with the powers of its entries on the diagonal; the others follow by multiplying a few times and looking for a rule"
    },
    a=range(2, 6),
    b=SMALL,
    c=range(-3, 4),
    n=range(4, 8),
)
def triangular_power(a: int, b: int, c: int, n: int) -> Problem | None:
    if a == c or c == 0:
        return None
    corner = b * (a**n - c**n) // (a - c)
    return Problem(
        f"Find this power of a matrix: $M^{n}$ with $M = {matrix([[a, b], [0, c]])}$.",
        matrix([[a**n, corner], [0, c**n]]),
        "Compute $M^2$ and $M^3$ and see how the upper right entry comes about.",
        {
            matrix(
                [[a**n, b**n], [0, c**n]]
            ): "the entries were raised to the power each for itself",
            matrix(
                [[a**n, n * b], [0, c**n]]
            ): f"the upper right entry was multiplied by {n}, which is right with ones on the diagonal only",
        },
    )


@template(
    3,
    {
        "eigenvalues": "they are the zeros of the characteristic polynomial, x^2 - (trace) x + (determinant) for a 2 by 2 matrix"
    },
    a=range(-5, 8),
    b=SMALL,
    d=range(-5, 8),
)
def eigenvalues(a: int, b: int, d: int) -> Problem | None:
    inside = (a - d) ** 2 + 4 * b * b
    if a == d:
        return None
    return Problem(
        f"Find the set of eigenvalues of ${matrix([[a, b], [b, d]])}$.",
        collected([surd(a + d, -1, inside, 2), surd(a + d, 1, inside, 2)]),
        "Find the trace and the determinant, and from them the characteristic polynomial.",
        {
            collected(
                map(str, (a, d))
            ): "the entries of the diagonal are the eigenvalues of triangular matrices only",
            collected(
                [surd(-a - d, -1, inside, 2), surd(-a - d, 1, inside, 2)]
            ): "the sign of the trace was turned around",
        },
    )


@template(
    3,
    {
        "orthogonal projection": "that of v onto the line along w is w times (v · w)/(w · w)"
    },
    v=[(x, y, z) for x in SMALL for y in SMALL for z in SMALL if x != z],
    w=[(x, y, z) for x in range(1, 4) for y in (-2, -1, 1, 2) for z in range(4)],
)
def projection(v: tuple[int, ...], w: tuple[int, ...]) -> Problem | None:
    dot = sum(x * y for x, y in zip(v, w, strict=True))
    length, other = sum(x * x for x in w), sum(x * x for x in v)
    if dot == 0 or length == 1:
        return None

    def scaled(factor: Fraction, vector: tuple[int, ...]) -> str:
        entries: list[Number] = [factor * x for x in vector]
        return ordered(*entries)

    return Problem(
        f"What is the orthogonal projection of the vector ${ordered(*v)}$ onto the line along ${ordered(*w)}$?",
        scaled(Fraction(dot, length), w),
        f"Compute the scalar product of the two vectors, and that of ${ordered(*w)}$ with itself.",
        {
            scaled(
                Fraction(dot, other), v
            ): "the roles are exchanged: this is along the vector that was to be projected",
            scaled(Fraction(dot), w): "it was not divided by the square of the length",
        },
    )


@template(
    3,
    {
        "singular": "a square matrix is singular, without an inverse, exactly if its determinant is 0"
    },
    u=SMALL,
    v=SMALL,
    a=range(1, 7),
)
def singular(u: int, v: int, a: int) -> Problem | None:
    if u >= v or u + v == 0 or u * v % a:
        return None
    # k(k - u - v) + uv = (k - u)(k - v)
    b, shift = -u * v // a, -u - v
    entry = f"k + {shift}" if shift > 0 else f"k - {-shift}"
    rows = f"k & {a} \\\\ {b} & {entry}"
    return Problem(
        f"Find the set of all k for which the matrix $\\begin{{pmatrix}} {rows} \\end{{pmatrix}}$ is singular.",
        collected(map(str, (u, v))),
        "Write the determinant as a polynomial in k.",
        {
            collected(
                map(str, (-v, -u))
            ): "the signs of the zeros are wrong; put one into the matrix",
            collected(
                map(str, sorted((0, -shift)))
            ): "the product of the other two entries was left out of the determinant",
        },
    )


@template(
    3,
    {
        "tetrahedron": "three edges from one corner span a sixth of the volume of the box that they span, which is the absolute value of their determinant"
    },
    p=[(x, y, z) for x in range(1, 5) for y in range(-3, 4) for z in range(-2, 3)],
    q=[(x, y, z) for x in range(-2, 3) for y in range(1, 6) for z in range(-3, 4)],
    r=[(x, y, z) for x in range(-3, 4) for y in range(-2, 3) for z in range(1, 6)],
)
def tetrahedron(
    p: tuple[int, ...], q: tuple[int, ...], r: tuple[int, ...]
) -> Problem | None:
    det = (
        p[0] * (q[1] * r[2] - q[2] * r[1])
        - p[1] * (q[0] * r[2] - q[2] * r[0])
        + p[2] * (q[0] * r[1] - q[1] * r[0])
    )
    if det == 0:
        return None
    return Problem(
        f"What is the volume of the tetrahedron with the corners (0, 0, 0), {p}, {q} and {r}?",
        fraction(Fraction(abs(det), 6)),
        "Put the three corners other than (0, 0, 0) into a matrix as its rows.",
        {
            str(abs(det)): "this is the volume of the box that the three edges span",
            fraction(
                Fraction(abs(det), 3)
            ): "a pyramid with this base is half as large: the base is a triangle, not a parallelogram",
        },
    )
