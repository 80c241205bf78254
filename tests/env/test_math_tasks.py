"""The mathematics that ships: every problem is solved here in another way than the one
that made its answer, by enumeration, simulation or algebra.

`solve_NAME` is the reference solution of the template NAME, from the same parameters.
"""

import itertools
import math
import random
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import gymnasium as gym
import pytest
import sympy
from sympy.abc import k as K
from sympy.abc import x as X
from sympy.abc import y as Y

from aipo_env import AgentRequest, Task, TurnEnv, build_scenario, run_sync
from aipo_env.agents.notes import NotesAgent
from aipo_env.tasks.file import FileSource
from aipo_env.verifiers.leaks.check import gives_away
from aipo_env.verifiers.leaks.gold import Gold
from aipo_env.verifiers.math.verifier import MathVerifier, check_gold
from envs_data.prepare import math_tasks
from envs_data.prepare.math.template import Template

SOURCE = FileSource(math_tasks.FOLDER / "tasks.jsonl")
TASKS = [*SOURCE.tasks["train"], *SOURCE.tasks["test"]]
TEMPLATES = {
    template.name: template
    for topic in math_tasks.TOPICS
    for template in math_tasks.templates(topic)
}


# How references write what they find


def tex(value: Any) -> str:
    text = str(sympy.latex(value, ln_notation=True))
    return text.replace("\\\\", " \\\\ ")  # as rows of a matrix are written by hand


def members(values: Iterable[Any]) -> str:
    return "\\{" + ", ".join(map(str, values)) + "\\}"


def pair(*entries: Any) -> str:
    return "(" + ", ".join(map(tex, map(sympy.sympify, entries))) + ")"


def roots(expression: Any, variable: sympy.Symbol = X) -> list[Any]:
    return sorted(sympy.solve(expression, variable), key=lambda value: value.evalf())


# Arithmetic


def solve_fraction_sum(a: int, b: int, c: int, d: int) -> str:
    return f"{a * d + b * c}/{b * d}"


def solve_percents(price: int, rise: int, fall: int) -> str:
    in_spring = price + Fraction(price * rise, 100)
    return str(in_spring - in_spring * fall / 100)


def solve_tank(a: int, b: int, c: int) -> str:
    # In a * b * c hours each pump fills, and the drain empties, whole tanks.
    return f"{a * b * c}/{b * c + a * c - a * b}"


def solve_ride(v: int, w: int) -> str:
    distance = v * w  # w hours there, v hours back
    return str(Fraction(2 * distance, v + w))


def solve_mixture(m: int, p: int, q: int, r: int) -> str:
    return tex(sympy.solve(p * X + q * m - r * (X + m), X)[0])


def solve_repeating_decimal(first: int, period: int) -> str:
    limit = Fraction(first, 10) + Fraction(period, 1000) / (1 - Fraction(1, 100))
    return str((limit.numerator, limit.denominator))


def solve_clock(hour: int, minute: int) -> str:
    # Counted from the hour, hand by hand, in half degrees.
    small, large = hour * 60, 0
    for _ in range(minute):
        small, large = small + 1, large + 12
    between = abs(small - large) % 720
    return str(Fraction(min(between, 720 - between), 2))


def solve_numeral(n: int, b: int) -> str:
    digits = next(
        digits
        for length in range(1, 9)
        for digits in itertools.product("0123456789"[:b], repeat=length)
        if digits[0] != "0" and int("".join(digits), b) == n
    )
    return f"{''.join(digits)}_{b}"


# Algebra


def solve_linear_system(a: int, b: int, c: int, d: int, e: int, f: int) -> str:
    found = sympy.solve([a * X + b * Y - e, c * X + d * Y - f], [X, Y])
    return pair(found[X], found[Y])


def solve_quadratic_roots(p: int, q: int) -> str:
    return members(map(tex, roots(X**2 - 2 * p * X + p * p - q)))


def solve_root_cubes(p: int, q: int) -> str:
    # s(n) = r^n + s^n obeys the recursion of the polynomial.
    sums = [2, p]
    while len(sums) < 4:
        sums.append(p * sums[-1] - q * sums[-2])
    return str(sums[3])


def solve_quadratic_inequality(a: int, b: int) -> str:
    condition = X**2 - (a + b) * X + a * b >= 0
    return tex(sympy.solveset(condition, X, sympy.Reals))


def solve_rational_inequality(a: int, b: int, k: int) -> str:
    condition = (X + a) / (X - b) >= k
    return tex(sympy.solveset(condition, X, sympy.Reals))


def solve_polynomial_remainder(n: int, p: int, q: int) -> str:
    return tex(sympy.rem(X**n, sympy.expand((X - p) * (X - q)), X))


def solve_coefficient(a: int, n: int, b: int, m: int, k: int) -> str:
    product = [1]
    for factor in [a] * n + [-b] * m:
        product = [
            low + factor * high
            for low, high in zip([*product, 0], [0, *product], strict=True)
        ]
    return str(product[k])


def solve_interpolation(a: int, b: int, c: int) -> str:
    points = [(x, a * x**2 + b * x + c) for x in range(3)]
    return tex(sympy.expand(sympy.interpolate(points, X)))


def solve_absolute_values(a: int, b: int, c: int) -> str:
    # Solutions are whole or half: all of them are tried.
    halves = [Fraction(x, 2) for x in range(-200, 201)]
    return members(x for x in halves if abs(x - a) + abs(x - b) == c)


def solve_nested_root(m: int, n: int) -> str:
    total, product = m + n, 4 * m * n
    found = [
        (a, total - a)
        for a in range(1, total)
        if 2 * a < total and 4 * a * (total - a) == product
    ]
    return str(found[0])


def solve_exponential_equation(base: int, i: int, j: int) -> str:
    total = Fraction(base) ** i + Fraction(base) ** j

    def is_solution(x: int) -> bool:
        power = Fraction(base) ** x
        return power**2 - total * power + base ** (i + j) == 0

    return members(filter(is_solution, range(-12, 13)))


def solve_symmetric_system(u: int, v: int) -> str:
    total, squares = u + v, u * u + v * v
    found = sympy.solve([X + Y - total, X**2 + Y**2 - squares], [X, Y])
    return members(itertools.starmap(pair, found))


def solve_complex_power(a: int, b: int, n: int) -> str:
    return tex(sympy.expand((a + b * sympy.I) ** n))


def solve_logarithms(b: int, k: int, a: int) -> str:
    return tex(max(roots(X * (X - a) - b**k)))


# Inequalities


def solve_least_sum(a: int, b: int) -> str:
    # With y from the condition, the sum is a function of x beyond a.
    total = X + b * X / (X - a)
    return tex(sympy.simplify(total.subs(X, max(roots(sympy.diff(total, X))))))


def solve_on_a_sphere(a: int, b: int, c: int, squared: int) -> str:
    # At the maximum (x, y, z) is t (a, b, c); put into the condition and the value.
    t = sympy.sqrt(sympy.Rational(squared, a * a + b * b + c * c))
    value = a * (a * t) + b * (b * t) + c * (c * t)
    rng = random.Random(0)
    for _ in range(200):
        point = [rng.gauss(0, 1) for _ in range(3)]
        scale = math.sqrt(squared) / math.hypot(*point)
        dot = sum(x * y for x, y in zip(point, (a, b, c), strict=True))
        assert dot * scale <= float(value) + 1e-9
    return tex(value)


def solve_greatest_product(p: int, q: int, total: int) -> str:
    product = X**p * (total - X) ** q
    zeros = roots(sympy.diff(product, X))
    return tex(max(product.subs(X, zero) for zero in zeros if 0 < zero < total))


# Number theory


def solve_divisor_count(twos: int, threes: int, fives: int, sevens: int) -> str:
    n = 2**twos * 3**threes * 5**fives * 7**sevens
    return str(sum(n % d == 0 for d in range(1, n + 1)))


def solve_gcd_and_lcm(g: int, m: int) -> str:
    multiples = range(g, g * m + 1, g)
    return str(
        sum(
            math.gcd(a, b) == g and math.lcm(a, b) == g * m
            for a in multiples
            if g * m % a == 0
            for b in multiples
        )
    )


def solve_factorial_zeros(n: int, b: int) -> str:
    zeros, rest = 0, math.factorial(n)
    while rest % b == 0:
        zeros, rest = zeros + 1, rest // b
    return str(zeros)


def solve_power_tower(m: int, a: int, b: int, c: int, d: int) -> str:
    return str(pow(a, b ** (c**d), m))


def solve_three_remainders(moduli: tuple[int, ...], a: int, b: int, c: int) -> str:
    wanted = [a, b, c]
    return str(next(n for n in itertools.count(1) if [n % m for m in moduli] == wanted))


def solve_payments(a: int, b: int, n: int) -> str:
    ways = [1] + [0] * n
    for coin in (a, b):
        for amount in range(coin, n + 1):
            ways[amount] += ways[amount - coin]
    return str(ways[n])


def solve_unpayable(a: int, b: int) -> str:
    payable = {
        a * x + b * y for x in range(b + 1) for y in range(a + 1)
    }  # all that can be, up to ab
    return str(sum(n not in payable for n in range(1, a * b)))


def solve_digit_sum(a: int, k: int) -> str:
    return str(sum(int(digit) for n in range(a * 10**k) for digit in str(n)))


def solve_coprime_sum(n: int) -> str:
    return str(sum(m for m in range(n) if math.gcd(m, n) == 1))


def solve_congruence(a: int, b: int, m: int) -> str:
    (found,) = (x for x in range(m) if (a * x - b) % m == 0)
    return str(found)


def solve_roots_of_one(n: int) -> str:
    return str(sum(x * x % n == 1 for x in range(n)))


def solve_square_difference(n: int) -> str:
    return members((x, y) for x in range(n) for y in range(1, x) if x * x - y * y == n)


def solve_carries(m: int, n: int, p: int) -> str:
    count, rest = 0, math.comb(m + n, n)
    while rest % p == 0:
        count, rest = count + 1, rest // p
    return str(count)


# Combinatorics


def solve_committee(women: int, men: int, size: int, least: int) -> str:
    people = range(women + men)
    chosen = itertools.combinations(people, size)
    return str(sum(sum(p < women for p in group) >= least for group in chosen))


def solve_anagrams(word: str, place: int) -> str:
    arrangements = set(itertools.permutations(word))
    return str(sum(letters[0] != word[place] for letters in arrangements))


def solve_detour(a: int, b: int, c: int, d: int) -> str:
    @lru_cache
    def paths(x: int, y: int) -> int:
        if min(x, y) < 0 or (x, y) == (c, d):
            return 0
        return 1 if x == y == 0 else paths(x - 1, y) + paths(x, y - 1)

    return str(paths(a, b))


def solve_shares(n: int, k: int, m: int) -> str:
    parts = itertools.product(range(m, n + 1), repeat=k - 1)
    return str(sum(n - sum(part) >= m for part in parts))


def solve_own_places(n: int, k: int) -> str:
    # By the number that stay: a(n, k) from the cycles of the new card.
    counts: dict[int, int] = {0: 1}
    for size in range(n):
        grown: dict[int, int] = {}
        for stay, ways in counts.items():
            # Alone, or behind one of the others, which stays or does not.
            for new, factor in (
                (stay + 1, 1),
                (stay - 1, stay),
                (stay, size - stay),
            ):
                if factor:
                    grown[new] = grown.get(new, 0) + ways * factor
        counts = grown
    return str(counts[k])


def solve_onto(n: int, k: int) -> str:
    # By the number of values reached after each element.
    counts = [1] + [0] * k
    for _ in range(n):
        counts = [0] + [
            counts[j] * j + counts[j - 1] * (k - j + 1) for j in range(1, k + 1)
        ]
    return str(counts[k])


def solve_necklaces(n: int, k: int) -> str:
    rings = itertools.product(range(k), repeat=n)
    return str(sum(all(r <= r[i:] + r[:i] for i in range(1, n)) for r in rings))


def solve_board_colourings(n: int, k: int) -> str:
    turned = [(n - 1 - i % n) * n + i // n for i in range(n * n)]

    def is_first(board: tuple[int, ...]) -> bool:
        other = board
        for _ in range(3):
            other = tuple(other[i] for i in turned)
            if other < board:
                return False
        return True

    return str(sum(map(is_first, itertools.product(range(k), repeat=n * n))))


def solve_sieve(n: int, a: int, b: int, c: int) -> str:
    return str(sum(m % a > 0 and m % b > 0 and m % c > 0 for m in range(1, n + 1)))


def solve_spaced_choices(n: int, k: int, d: int) -> str:
    chosen = itertools.combinations(range(n), k)
    return str(
        sum(all(y - x >= d for x, y in itertools.pairwise(group)) for group in chosen)
    )


def solve_strip(n: int, p: int, q: int) -> str:
    # By the number of tiles of two squares.
    return str(
        sum(
            math.comb(n - pairs, pairs) * p ** (n - 2 * pairs) * q**pairs
            for pairs in range(n // 2 + 1)
        )
    )


# Probability


def solve_urn(red: int, blue: int, k: int, j: int) -> str:
    draws = list(itertools.combinations(range(red + blue), k))
    wanted = sum(sum(ball < red for ball in draw) == j for draw in draws)
    return str(Fraction(wanted, len(draws)))


def solve_machines(share: int, p: int, q: int) -> str:
    from_a = Fraction(share, 100) * Fraction(p, 100)
    from_b = (1 - Fraction(share, 100)) * Fraction(q, 100)
    return str(from_a / (from_a + from_b))


def solve_dice(a: int, b: int, least: int) -> str:
    # For each face of the one, how many faces of the other are large enough.
    enough = sum(max(0, min(b, b - (least - face) + 1)) for face in range(1, a + 1))
    return f"{enough}/{a * b}"


def solve_run_of_faces(faces: int, k: int) -> str:
    # E(i) = u + v E(0), from E(k) = 0 back to E(0).
    u, v = Fraction(0), Fraction(0)
    for _ in range(k):
        u, v = 1 + u / faces, 1 - Fraction(1, faces) + v / faces
    return str(u / (1 - v))


def solve_collection(n: int, have: int) -> str:
    # E(m) = 1 + m/n E(m) + (n - m)/n E(m + 1)
    expected = Fraction(0)
    for m in reversed(range(have, n)):
        expected = (1 + Fraction(n - m, n) * expected) / (1 - Fraction(m, n))
    return str(expected)


def solve_gambler(start: int, goal: int, a: int, b: int) -> str:
    win = sympy.Rational(a, a + b)
    size = goal - 1
    system, right = sympy.eye(size), sympy.zeros(size, 1)
    for i in range(size):
        if i > 0:
            system[i, i - 1] = win - 1
        if i + 1 < size:
            system[i, i + 1] = -win
    right[size - 1] = win
    return tex(system.LUsolve(right)[start - 1])


def solve_meeting(a: int, b: int) -> str:
    # They meet when -b <= x - y <= a: the overlap of y in each x, integrated.
    late = sympy.integrate(60 - X - a, (X, 0, 60 - a))
    early = sympy.integrate(X - b, (X, b, 60))
    return tex(1 - sympy.Rational(late + early, 3600))


def solve_largest_drawn(n: int, k: int) -> str:
    total = sum(top * math.comb(top - 1, k - 1) for top in range(k, n + 1))
    return str(Fraction(total, math.comb(n, k)))


# Geometry


def solve_triangle_area(a: int, b: int, c: int) -> str:
    # The corners are (0, 0), (c, 0) and (x, y).
    x = sympy.Rational(b * b + c * c - a * a, 2 * c)
    return tex(sympy.sqrt(b * b - x**2) * c / 2)


def solve_circle(x: int, y: int, dx: int, dy: int) -> str:
    # From any point of a circle the ends of a diameter are seen at a right angle.
    across = (X - x + dx) * (X - x - dx)
    return f"{tex(sympy.expand(across + (Y - y + dy) * (Y - y - dy)))} = 0"


def solve_cone(radius: int, angle: int) -> str:
    base = sympy.Rational(radius * angle, 360)
    height = sympy.sqrt(radius**2 - base**2)
    # The cross section at distance x from the apex, integrated.
    section = sympy.pi * (X * base / height) ** 2
    return tex(sympy.simplify(sympy.integrate(section, (X, 0, height))))


def solve_quadrilateral(
    a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int
) -> str:
    # Pick: interior lattice points and half of those on the border, less 1.
    corners = [(a, b), (-c, d), (-e, -f), (g, -h)]
    sides = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    border = sum(math.gcd(x2 - x1, y2 - y1) for (x1, y1), (x2, y2) in sides)

    def is_inside(x: int, y: int) -> bool:
        # Not convex perhaps, but every point of it is seen from the origin.
        for (x1, y1), (x2, y2) in sides:
            is_in_wedge = x1 * y - x * y1 >= 0 and x * y2 - x2 * y >= 0
            if is_in_wedge:
                return (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1) > 0
        raise AssertionError((x, y))

    inside = sum(is_inside(x, y) for x in range(-9, 10) for y in range(-9, 10))
    return str(inside + Fraction(border, 2) - 1)


def solve_third_side(a: int, b: int, angle: int) -> str:
    radians = sympy.rad(angle)
    corner = (b * sympy.cos(radians), b * sympy.sin(radians))
    return tex(sympy.sqrt((corner[0] - a) ** 2 + corner[1] ** 2))


def solve_shore(p: int, d: int, q: int) -> str:
    # The point on the axis where both parts of the path have the same slope.
    x = Fraction(d * p, p + q)
    first, second = x**2 + p * p, (d - x) ** 2 + q * q
    for near in (x - Fraction(1, 50), x + Fraction(1, 50)):
        longer = math.sqrt(near**2 + p * p) + math.sqrt((d - near) ** 2 + q * q)
        assert longer > math.sqrt(first) + math.sqrt(second)
    return f"\\sqrt{{{first}}} + \\sqrt{{{second}}}"


def solve_small_circle(a: int, b: int) -> str:
    # The circles touch the line at 0 and at 2 sqrt(ab), the small one in between.
    touches = 2 * sympy.sqrt(a * b) / (1 + sympy.sqrt(sympy.Rational(b, a)))
    radius = touches**2 / (4 * a)
    left = touches**2 + (a - radius) ** 2 - (a + radius) ** 2
    right = (2 * sympy.sqrt(a * b) - touches) ** 2 - 4 * b * radius
    assert sympy.simplify(left) == sympy.simplify(right) == 0
    return tex(radius)


def solve_quarter_turn(x: int, y: int, a: int, b: int) -> str:
    centre = complex(a, b)
    turned = centre + 1j * (complex(x, y) - centre)
    return f"({turned.real:.0f}, {turned.imag:.0f})"


def solve_plane_distance(a: int, b: int, c: int, d: int, x: int, y: int, z: int) -> str:
    plane = sympy.Plane(sympy.Point3D(0, 0, sympy.Rational(d, c)), (a, b, c))
    return tex(plane.distance(sympy.Point3D(x, y, z)))


# Sequences


def solve_multiples(d: int, low: int, high: int) -> str:
    return str(sum(n for n in range(low, high + 1) if n % d == 0))


def solve_telescope(a: int, d: int, n: int) -> str:
    terms = [a + i * d for i in range(n + 1)]
    return str(sum(Fraction(1, u * v) for u, v in itertools.pairwise(terms)))


def solve_weighted_series(a: int, b: int) -> str:
    partial = sum(i * Fraction(a, b) ** i for i in range(1, 700))
    return str(partial.limit_denominator(10_000))


def solve_closed_form(p: int, q: int, first: int, second: int) -> str:
    terms = [first + second, first * p + second * q]
    for _ in range(6):
        terms.append((p + q) * terms[-1] - p * q * terms[-2])
    # Fitted to late terms.
    matrix = sympy.Matrix([[p**6, q**6], [p**7, q**7]])
    one, other = matrix.LUsolve(sympy.Matrix(terms[6:8]))
    return f"({one}) \\cdot {p}^n + ({other}) \\cdot {q}^n"


def solve_returning(x: int, y: int, n: int) -> str:
    before, now = Fraction(x), Fraction(y)
    for _ in range(n - 2):
        before, now = now, (1 + now) / before
    return str(now)


def solve_functional(a: int, c: int, n: int) -> str:
    @lru_cache
    def value(m: int) -> int:
        half = m // 2
        return a if m == 1 else value(half) + value(m - half) + c * half * (m - half)

    return str(value(n))


def solve_root_parts(n: int) -> str:
    return str(sum(math.isqrt(i) for i in range(1, n + 1)))


def solve_board(low: int, count: int) -> str:
    numbers = list(range(low, low + count))
    rng = random.Random(0)
    while len(numbers) > 1:
        rng.shuffle(numbers)
        x, y = numbers.pop(), numbers.pop()
        numbers.append(x * y + x + y)
    return str(numbers[0])


# Calculus


def solve_tangent(p: int, q: int, r: int, a: int) -> str:
    # The tangent is what the square of x - a leaves.
    cubic = X**3 + p * X**2 + q * X + r
    return f"y = {tex(sympy.rem(cubic, sympy.expand((X - a) ** 2), X))}"


def solve_by_parts(k: int) -> str:
    return tex(sympy.integrate(X * sympy.exp(k * X), (X, 0, 1)))


def solve_enclosed(a: int, left: int, right: int) -> str:
    line = a * (left + right) * X - a * left * right
    low, high = roots(line - a * X**2)
    return tex(sympy.integrate(line - a * X**2, (X, low, high)))


def solve_cosines(a: int, b: int) -> str:
    return tex(sympy.limit((sympy.cos(a * X) - sympy.cos(b * X)) / X**2, X, 0))


def solve_box(a: int, b: int) -> str:
    volume = X * (a - 2 * X) * (b - 2 * X)
    return tex(min(roots(sympy.diff(volume, X))))


def solve_antiderivative(p: int, q: int, r: int, a: int, value: int) -> str:
    found = sympy.integrate(3 * p * X**2 + 2 * q * X + r, X)
    return tex(found + value - found.subs(X, a))


def solve_product_rule(a: int, b: int, c: int) -> str:
    return tex(sympy.diff((a * X + b) * sympy.exp(c * X), X))


def solve_revolution(k: int, p: int, end: int) -> str:
    return tex(sympy.integrate(sympy.pi * (k * X**p) ** 2, (X, 0, end)))


def solve_log_integral(a: int, b: int, c: int) -> str:
    return tex(sympy.integrate(1 / (X * (X + c)), (X, a, b)))


# Linear algebra


def solve_inverse(a: int, b: int, c: int, d: int) -> str:
    return tex(sympy.Matrix([[a, b], [c, d]]).inv())


def solve_constant_matrix(n: int, a: int, b: int) -> str:
    return tex(sympy.Matrix(n, n, lambda i, j: a if i == j else b).det())


def solve_triangular_power(a: int, b: int, c: int, n: int) -> str:
    return tex(sympy.Matrix([[a, b], [0, c]]) ** n)


def solve_eigenvalues(a: int, b: int, d: int) -> str:
    return members(map(tex, sympy.Matrix([[a, b], [b, d]]).eigenvals()))


def solve_projection(v: tuple[int, ...], w: tuple[int, ...]) -> str:
    # The multiple of w that is nearest to v.
    squares = sum((x - X * y) ** 2 for x, y in zip(v, w, strict=True))
    factor = sympy.solve(sympy.diff(squares, X), X)[0]
    return pair(*(factor * y for y in w))


def solve_singular(u: int, v: int, a: int) -> str:
    matrix = sympy.Matrix([[K, a], [-u * v // a, K - u - v]])
    return members(roots(matrix.det(), K))


def solve_tetrahedron(
    p: tuple[int, ...], q: tuple[int, ...], r: tuple[int, ...]
) -> str:
    # Cayley and Menger: from the squares of the six distances.
    corners = [(0, 0, 0), p, q, r]
    distances = sympy.ones(5, 5)
    distances[0, 0] = 0
    for i, j in itertools.product(range(4), repeat=2):
        distances[i + 1, j + 1] = sum(
            (x - y) ** 2 for x, y in zip(corners[i], corners[j], strict=True)
        )
    return tex(sympy.sqrt(distances.det() / 288))


# What is asserted of them


NUMBERS = [0, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 2, 3))]
"""Of the problems of each template."""


def numbered(number: int) -> list[Task]:
    """The tasks with one number, in the order of the templates."""
    return [task for task in TASKS if task.id.endswith(f"-{number}")]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_task_is_solved_by_its_reference_in_the_environment(number: int):
    split = "test" if number % 2 else "train"
    env = gym.make("AIPO-Math-Turn-v0", split=split, disable_env_checker=True)
    num_solved = 0
    for name, template in TEMPLATES.items():
        task_id = f"math-{name.replace('_', '-')}-{number}"
        index = [task.id for task in SOURCE.tasks[split]].index(task_id)
        parameters, _ = math_tasks.problems(template)[number]
        solve: Callable[..., str] = globals()[f"solve_{name}"]
        answer = solve(**parameters)
        _, info = env.reset(seed=0, options={"index": index})
        assert info["task_id"] == task_id
        _, reward, terminated, _, _ = env.step(f"\\boxed{{{answer}}}")
        assert (reward, terminated) == (1, True), (task_id, answer)
        num_solved += 1
    assert num_solved == len(numbered(number)) == 90


def test_there_are_three_hundred_problems_of_sixty_templates_and_more():
    assert len(TEMPLATES) == 90
    assert len(TASKS) == 360
    assert {task.meta["level"] for task in TASKS} == {1, 2, 3, 4, 5}
    assert {task.meta["topic"] for task in TASKS} == {
        "arithmetic",
        "algebra",
        "inequalities",
        "number theory",
        "combinatorics",
        "probability",
        "geometry",
        "sequences",
        "calculus",
        "linear algebra",
    }


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_no_two_problems_of_a_template_share_parameters_or_answer(template: Template):
    drawn = math_tasks.problems(template)
    assert len({str(parameters) for parameters, _ in drawn}) == 4
    assert len({problem.answer for _, problem in drawn}) == 4


def test_every_gold_can_be_read():
    assert {
        task.id: fault for task in TASKS if (fault := check_gold(task.answer))
    } == {}


@pytest.mark.parametrize("number", NUMBERS)
def test_no_formula_of_a_problem_is_its_answer(number: int):
    verifier = MathVerifier()
    accepted = []
    for task in numbered(number):
        for formula in re.findall(r"\$([^$]+)\$", task.prompt):
            verdict = run_sync(verifier.grade(task.answer, formula))
            if verdict.correct:
                accepted.append((task.id, formula))
    assert accepted == []


@pytest.mark.parametrize("number", NUMBERS)
def test_typical_wrong_results_are_wrong_and_their_mistake_is_told(number: int):
    agent = NotesAgent(SOURCE)
    for task in numbered(number):
        assert task.meta["mistakes"], task.id
        for result, reason in task.meta["mistakes"].items():
            request = AgentRequest(
                kind="verify", problem=task.prompt, query=f"So I get ${result}$."
            )
            said = run_sync(agent.reply(request)).text
            assert said == f"wrong at {result}; {reason}", task.id
        right = AgentRequest(
            kind="verify", problem=task.prompt, query=f"So I get ${task.answer}$."
        )
        assert "wrong" not in run_sync(agent.reply(right)).text, task.id


def test_what_agents_say_is_a_clause_or_a_sentence():
    for task in TASKS:
        assert task.meta["hint"][0].isupper(), task.id
        assert task.meta["hint"][-1] in ".?", task.id
        for reason in task.meta["mistakes"].values():
            assert reason[-1] not in ".;", reason


def test_a_term_that_is_noted_stands_in_every_problem():
    scenario = build_scenario("AIPO-Math-v0")
    assert scenario.source.default_agents == "notes"
    for task in TASKS:
        terms = [term.casefold() for term in task.meta["notes"]]
        assert any(term in task.prompt.casefold() for term in terms), task.id


def test_a_term_means_the_same_wherever_it_is_noted():
    meanings: dict[str, set[str]] = {}
    for task in TASKS:
        for term, fact in task.meta["notes"].items():
            meanings.setdefault(term.casefold(), set()).add(fact)
    assert {term: facts for term, facts in meanings.items() if len(facts) > 1} == {}


def replies(task: Task) -> list[str]:
    """All that agents may say of a task."""
    facts = [f"{term}: {fact}" for term, fact in task.meta["notes"].items()]
    mistakes = [
        f"wrong at {result}; {reason}"
        for result, reason in task.meta["mistakes"].items()
    ]
    return [*facts, task.meta["hint"], *mistakes]


@pytest.mark.parametrize("number", NUMBERS)
def test_nothing_that_agents_say_gives_an_answer_away(number: int):
    given_away = [
        (task.id, reply)
        for task in numbered(number)
        for reply in replies(task)
        if run_sync(gives_away(Gold.of(task), reply, ""))
    ]
    assert given_away == []


@pytest.mark.parametrize(
    ("task_id", "answer"),
    [
        ("fraction-sum-0", "\\frac{17}{18}"),
        ("clock-0", "74.5"),
        ("numeral-0", "2011_{7}"),
        ("quadratic-inequality-0", "(-\\infty, 4] \\cup [5, \\infty)"),
        ("symmetric-system-0", "\\{(3, 5), (5, 3)\\}"),
        ("least-sum-0", "23 + 2\\sqrt{42}"),
        ("cone-0", "\\frac{4116}{125}\\pi"),
        ("by-parts-0", "\\frac{3e^{4} + 1}{16}"),
        ("tangent-0", "y = 139x + 534"),
    ],
)
def test_golds_worked_by_hand(task_id: str, answer: str):
    assert [task.answer for task in TASKS if task.id == f"math-{task_id}"] == [answer]


def test_the_first_problem_is_consulted_on_and_solved():
    env = TurnEnv(source="shipped:math", observation="delta")
    observation, _ = env.reset(seed=0, options={"index": 0})
    assert "A soup takes" in observation
    observation, *_ = env.step("<knowledge>common denominator</knowledge>")
    assert "then the numerators add and the denominator stays" in observation
    observation, *_ = env.step("<reason>What now?</reason>")
    assert "the least common multiple of 6 and 9" in observation
    observation, *_ = env.step("<verify>It is 1/6 + 7/9, so 8/15.</verify>")
    assert "wrong at \\frac{8}{15}; numerators and denominators were" in observation
    _, reward, *_ = env.step("\\boxed{17/18}")
    assert reward == 1
