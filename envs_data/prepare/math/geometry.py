"""Triangles, circles, solids and coordinates."""

from fractions import Fraction
from math import gcd

from envs_data.prepare.math.template import (
    Problem,
    fraction,
    linear,
    ordered,
    shifted_square,
    surd,
    template,
)

SMALL = [n for n in range(-9, 10) if n]


@template(
    3,
    {
        "triangle with the sides": "Heron: with half the perimeter s, the area is the root of s(s - a)(s - b)(s - c)"
    },
    a=range(4, 14),
    b=range(4, 14),
    c=range(4, 14),
)
def triangle_area(a: int, b: int, c: int) -> Problem | None:
    if not a < b < c < a + b or a * a + b * b == c * c:
        return None
    product = (a + b + c) * (-a + b + c) * (a - b + c) * (a + b - c)
    whole = a + b + c
    not_halved = whole * (whole - a) * (whole - b) * (whole - c)
    return Problem(
        f"What is the area of a triangle with the sides {a}, {b} and {c}?",
        surd(0, 1, product, 4),
        f"Find half the perimeter of the triangle, and how much longer it is than each of the sides {a}, {b} and {c}.",
        {
            fraction(
                Fraction(a * b, 2)
            ): f"the angle between the sides {a} and {b} was taken for a right one",
            surd(
                0, 1, not_halved
            ): "the whole perimeter was put in where Heron's formula has half of it",
        },
    )


@template(
    3,
    {
        "diameter": "the centre of the circle is the middle of a diameter, and the radius is half its length; a circle of radius r about (h, k) is (x - h)^2 + (y - k)^2 = r^2"
    },
    x=range(-6, 7),
    y=range(-6, 7),
    dx=range(1, 6),
    dy=range(1, 6),
)
def circle(x: int, y: int, dx: int, dy: int) -> Problem | None:
    def equation(centre_x: int, centre_y: int, squared: int) -> str:
        left = f"{shifted_square('x', centre_x)} + {shifted_square('y', centre_y)}"
        return f"{left} = {squared}"

    if x == 0 or y == 0:
        return None
    return Problem(
        f"The points ({x - dx}, {y - dy}) and ({x + dx}, {y + dy}) are the ends of a diameter of a circle. Give an equation of the circle in x and y.",
        equation(x, y, dx**2 + dy**2),
        "Find the middle of the two points, then its distance from one of them.",
        {
            equation(
                x, y, 4 * (dx**2 + dy**2)
            ): "the length of the diameter was taken for the radius",
            equation(
                -x, -y, dx**2 + dy**2
            ): "the signs of the centre were turned around",
        },
    )


@template(
    3,
    {
        "sector": "when it is rolled up to a cone, its radius becomes the slant height and its arc the circumference of the base; a cone has the volume of a third of base times height"
    },
    radius=range(3, 13),
    angle=(90, 120, 180, 216, 240, 270, 288),
)
def cone(radius: int, angle: int) -> Problem | None:
    base = Fraction(radius * angle, 360)

    def volume(height_squared: Fraction) -> str:
        # r^2 sqrt(n/d) / 3 = r^2 sqrt(n d) / (3 d)
        n, d = height_squared.numerator, height_squared.denominator
        factor = base**2 / (3 * d)
        return surd(0, factor.numerator, n * d, factor.denominator) + "\\pi"

    return Problem(
        f"A sector of a circle has the radius {radius} and an angle of {angle} degrees. It is rolled up to a cone without overlap. What is the volume of the cone?",
        volume(radius**2 - base**2),
        f"The arc of the sector becomes the circle at the base: find its radius from {angle}/360 of a whole circle.",
        {
            volume(
                Fraction(radius**2)
            ): "the radius of the sector was taken for the height of the cone, but it is the slant height",
        },
    )


@template(
    2,
    {
        "vertices": "a polygon with the vertices (x1, y1), (x2, y2), … in order has the area of half the sum of x1 y2 - x2 y1 over its sides (shoelace formula)"
    },
    a=range(1, 8),
    b=range(1, 8),
    c=range(1, 8),
    d=range(1, 8),
    e=range(1, 8),
    f=range(1, 8),
    g=range(1, 8),
    h=range(1, 8),
)
def quadrilateral(
    a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int
) -> Problem | None:
    points = [(a, b), (-c, d), (-e, -f), (g, -h)]
    crosses = []
    for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
        crosses.append(x1 * y2 - x2 * y1)
    # The origin is inside: then no two sides cross.
    if min(crosses) <= 0:
        return None
    box = (max(a, g) + max(c, e)) * (max(b, d) + max(f, h))
    return Problem(
        f"What is the area of the quadrilateral with the vertices {', '.join(map(str, points))}, in this order?",
        fraction(Fraction(sum(crosses), 2)),
        "Go around the quadrilateral and add $x_1 y_2 - x_2 y_1$ for each side.",
        {
            str(sum(crosses)): "the sum over the sides was not halved",
            str(box): "this is the area of the rectangle around it",
        },
    )


@template(
    3,
    {
        "angle between": "with sides a and b and an angle between them, the third side c obeys c^2 = a^2 + b^2 - 2ab cos of the angle; cos 60° = 1/2, cos 120° = -1/2"
    },
    a=range(3, 16),
    b=range(3, 16),
    angle=(60, 120),
)
def third_side(a: int, b: int, angle: int) -> Problem | None:
    if a >= b:
        return None
    mixed = a * b if angle == 120 else -a * b
    return Problem(
        f"Two sides of a triangle are {a} and {b} long, and the angle between them is {angle} degrees. How long is the third side?",
        surd(0, 1, a * a + b * b + mixed),
        f"Write the law of cosines for the side opposite the angle of {angle} degrees.",
        {
            surd(
                0, 1, a * a + b * b
            ): "the angle was taken for a right one; the term with the cosine is missing",
            surd(
                0, 1, a * a + b * b - mixed
            ): f"the sign of the cosine of {angle} degrees is the other one",
        },
    )


@template(
    4,
    {
        "shortest path": "a path that touches a line and returns to the same side is as long as its image with one end reflected in the line, and no path between two points is shorter than the straight one"
    },
    p=range(1, 10),
    d=range(3, 16),
    q=range(1, 10),
)
def shore(p: int, d: int, q: int) -> Problem | None:
    if p == q:
        return None
    return Problem(
        f"How long is the shortest path from (0, {p}) to ({d}, {q}) that touches the x-axis on its way?",
        surd(0, 1, d * d + (p + q) ** 2),
        f"Reflect the point ({d}, {q}) in the x-axis.",
        {
            surd(
                0, 1, d * d + (p - q) ** 2
            ): "this is the distance of the two points; a path of this length does not touch the axis",
            linear(
                (p, ""), (1, surd(0, 1, d * d + q * q))
            ): "the path goes straight down to the axis first, and on from (0, 0), which is not the shortest",
        },
    )


@template(
    4,
    {
        "touch": "circles that touch from outside have centres as far apart as the sum of the radii; two such circles on a line touch it at points 2 sqrt(rs) apart"
    },
    a=range(1, 13),
    b=range(2, 16),
)
def small_circle(a: int, b: int) -> Problem | None:
    if a >= b or gcd(a, b) > 1:
        return None
    return Problem(
        f"Circles of radius {a} and {b} stand on a line and touch each other from outside. A small circle between them touches both circles and the line. What is its radius?",
        surd(a * b * (a + b), -2 * a * b, a * b, (a - b) ** 2),
        "Let r be the radius; write the distance of the two points on the line in two ways, once as a sum over the small circle.",
        {
            fraction(
                Fraction(a * b, a + b)
            ): "the reciprocals of the radii were added, but it is the reciprocals of their roots that add",
            surd(
                a * b * (a + b), 2 * a * b, a * b, (a - b) ** 2
            ): "this solution belongs to a circle that is not between the other two",
        },
    )


@template(
    2,
    {
        "rotated": "a quarter turn about the origin, counterclockwise, moves (x, y) to (-y, x); about another point, shift that point to the origin first and back afterwards"
    },
    x=SMALL,
    y=SMALL,
    a=SMALL,
    b=SMALL,
)
def quarter_turn(x: int, y: int, a: int, b: int) -> Problem | None:
    if x == a or y == b:
        return None
    return Problem(
        f"The point ({x}, {y}) is rotated counterclockwise by 90 degrees about ({a}, {b}). Where does it come to lie?",
        ordered(a - (y - b), b + (x - a)),
        f"Write the vector from ({a}, {b}) to ({x}, {y}) and turn it.",
        {
            ordered(
                -y, x
            ): f"the point was rotated about the origin, not about ({a}, {b})",
            ordered(a + (y - b), b - (x - a)): "the point was rotated clockwise",
            ordered(
                -(y - b), x - a
            ): f"after the turn the point was not shifted back by ({a}, {b})",
        },
    )


@template(
    3,
    {
        "plane": "a point (x, y, z) has the distance |ax + by + cz - d| / sqrt(a^2 + b^2 + c^2) from ax + by + cz = d"
    },
    a=[n for n in range(-4, 5) if n],
    b=[n for n in range(-4, 5) if n],
    c=[n for n in range(-4, 5) if n],
    d=range(-9, 10),
    x=range(-5, 6),
    y=range(-5, 6),
    z=range(-5, 6),
)
def plane_distance(
    a: int, b: int, c: int, d: int, x: int, y: int, z: int
) -> Problem | None:
    excess = abs(a * x + b * y + c * z - d)
    squared = a * a + b * b + c * c
    if excess == 0 or 0 in (x, y, z) or d == 0:
        return None
    plane = linear((a, "x"), (b, "y"), (c, "z"))
    return Problem(
        f"What is the distance of the point ({x}, {y}, {z}) from the plane ${plane} = {d}$?",
        surd(0, excess, squared, squared),
        f"Put the point into ${plane}$ and see by how much the value differs from {d}.",
        {
            str(excess): "the value was not divided by the length of the normal vector",
            fraction(
                Fraction(excess, squared)
            ): "the value was divided by the square of the length of the normal vector",
        },
    )
