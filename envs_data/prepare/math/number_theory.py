"""Divisors, congruences, digits and Diophantine equations."""

from math import gcd, prod

from envs_data.prepare.math.template import (
    Problem,
    collected,
    ordered,
    template,
)

COINS = {
    "coins": "if ax + by = n has a solution in integers, the others come from it by adding b to x and taking a from y, or the reverse; with a and b coprime, just half of the numbers from 0 to ab - a - b have no solution without negative parts",
}


def factored(n: int) -> dict[int, int]:
    """Return the exponents of a number's primes."""
    exponents: dict[int, int] = {}
    prime = 2
    while n > 1:
        if n % prime:
            prime += 1
            continue
        exponents[prime] = exponents.get(prime, 0) + 1
        n //= prime
    return exponents


def totient(n: int) -> int:
    """Return how many numbers from 1 to n are coprime to n."""
    for prime in factored(n):
        n = n // prime * (prime - 1)
    return n


@template(
    2,
    {
        "divisors": "a number with the prime factorisation p^a q^b … has (a + 1)(b + 1)… of them, 1 and itself included"
    },
    twos=range(1, 6),
    threes=range(1, 4),
    fives=range(1, 3),
    sevens=range(2),
)
def divisor_count(twos: int, threes: int, fives: int, sevens: int) -> Problem | None:
    n = 2**twos * 3**threes * 5**fives * 7**sevens
    exponents = [e for e in (twos, threes, fives, sevens) if e]
    count = prod(e + 1 for e in exponents)
    return Problem(
        f"How many positive divisors has {n}?",
        str(count),
        f"Write {n} as a product of powers of primes, none of them above 7.",
        {
            str(
                prod(exponents)
            ): "the exponents themselves were multiplied, but each can also be 0 in a divisor",
            str(count - 2): "1 and the number itself are divisors, too",
        },
    )


@template(
    3,
    {
        "least common multiple": "for each prime, the exponent in the greatest common divisor is the smaller of the two and in the least common multiple the larger"
    },
    g=range(2, 13),
    m=(8, 27, 16, 12, 45, 20, 60, 90, 84, 420, 630, 660),
)
def gcd_and_lcm(g: int, m: int) -> Problem | None:
    num_primes = len(factored(m))
    return Problem(
        f"How many ordered pairs (a, b) of positive integers have the greatest common divisor {g} and the least common multiple {g * m}?",
        str(2**num_primes),
        f"Divide both numbers by {g}: then they are coprime, and their product is {m}.",
        {
            str(
                prod(e + 1 for e in factored(m).values())
            ): f"every divisor of {m} was taken for the one number, but then the two need not be coprime",
            str(
                2 ** (num_primes - 1)
            ): "the pairs are ordered: (a, b) and (b, a) count as two",
        },
    )


@template(
    3,
    {
        "factorial": "the exponent of a prime p in n! is the sum of the integer parts of n/p, n/p^2, n/p^3, … (Legendre)"
    },
    n=range(30, 200),
    b=(6, 10, 12, 14, 15, 20, 21),
)
def factorial_zeros(n: int, b: int) -> Problem | None:
    def exponent(prime: int) -> int:
        total, rest = 0, n
        while rest:
            rest //= prime
            total += rest
        return total

    primes = factored(b)
    zeros = min(exponent(p) // e for p, e in primes.items())
    return Problem(
        f"The factorial {n}! is written in base {b}. How many zeros stand at its end?",
        str(zeros),
        f"A zero at the end is a factor {b}; find how often each prime of {b} divides {n}!.",
        {
            str(
                n // max(primes)
            ): "only multiples of the prime were counted; those of its square bring a further factor",
            str(
                n // b
            ): f"multiples of {b} were counted, but a factor {b} also comes together from several numbers",
        },
    )


@template(
    5,
    {
        "power tower": "it is evaluated from the top; if the base is coprime to m, its powers modulo m depend only on the exponent modulo phi(m) (Euler)"
    },
    m=(13, 17, 19, 23, 29, 31, 35, 39, 49, 77),
    a=range(2, 12),
    b=range(2, 10),
    c=range(2, 6),
    d=range(2, 5),
)
def power_tower(m: int, a: int, b: int, c: int, d: int) -> Problem | None:
    def cycle(base: int, modulus: int) -> tuple[int, int]:
        """Return from which exponent on powers repeat, and after how many."""
        seen: dict[int, int] = {}
        power, exponent = 1 % modulus, 0
        while power not in seen:
            seen[power] = exponent
            power, exponent = power * base % modulus, exponent + 1
        return seen[power], exponent - seen[power]

    if gcd(a, m) > 1:
        return None
    # The powers of a number that is coprime to the modulus repeat from the first on.
    _, length = cycle(a, m)
    start, inner = cycle(b, length)
    exponent = c**d
    if exponent >= start:
        exponent = start + (exponent - start) % inner
    remainder = pow(a, pow(b, exponent, length), m)
    return Problem(
        f"Which remainder does the power tower ${a}^{{{b}^{{{c}^{{{d}}}}}}}$ leave on division by {m}?",
        str(remainder),
        f"Powers of {a} modulo {m} repeat; find after how many, and what the exponent ${b}^{{{c}^{{{d}}}}}$ leaves modulo that number.",
        {
            str(
                pow(a, b * c * d, m)
            ): "the exponents were multiplied as in ((a^b)^c)^d; the tower is evaluated from the top",
            str(
                pow(a, pow(b, c**d, m), m)
            ): f"the exponent was reduced modulo {m}, but it repeats with another period",
        },
    )


def joined(remainders: tuple[int, ...], moduli: tuple[int, ...]) -> int:
    """Return the least number from 0 with these remainders, for coprime moduli."""
    whole = prod(moduli)
    parts = []
    for remainder, modulus in zip(remainders, moduli, strict=True):
        others = whole // modulus
        parts.append(remainder * others * pow(others, -1, modulus))
    return sum(parts) % whole


@template(
    3,
    {
        "remainders": "for pairwise coprime moduli each choice of remainders belongs to exactly one number below the product of the moduli (Chinese remainder theorem)"
    },
    moduli=((3, 5, 7), (4, 7, 9), (5, 7, 8), (5, 8, 9), (7, 9, 11), (4, 5, 11)),
    a=range(1, 11),
    b=range(1, 11),
    c=range(1, 11),
)
def three_remainders(
    moduli: tuple[int, int, int], a: int, b: int, c: int
) -> Problem | None:
    k, m, n = moduli
    if a >= k or b >= m or c >= n or a == b == c:
        return None
    return Problem(
        f"What is the least positive integer that leaves the remainders {a}, {b} and {c} on division by {k}, {m} and {n}?",
        str(joined((a, b, c), moduli)),
        f"List numbers with the remainder {c} on division by {n} until one also leaves {b} on division by {m}; from there go on in steps of {n * m}.",
        {
            str(
                joined((b, c), (m, n))
            ): f"the condition on the division by {k} was left out",
            str(
                joined((a, b), (k, m))
            ): f"the condition on the division by {n} was left out",
        },
    )


@template(3, COINS, a=range(3, 14), b=range(4, 20), n=range(150, 400))
def payments(a: int, b: int, n: int) -> Problem | None:
    if a >= b or gcd(a, b) > 1:
        return None
    # The least number of coins of `b` that leaves a multiple of `a`; then every a-th.
    least = n * pow(b, -1, a) % a
    count = (n // b - least) // a + 1
    return Problem(
        f"In how many ways can {n} cents be paid with coins of {a} and of {b} cents, if only their numbers count?",
        str(count),
        f"Find the least number of coins of {b} cents for which the rest is a multiple of {a}.",
        {
            str(
                n // b + 1
            ): f"every number of coins of {b} cents was counted, but the rest has to be a multiple of {a}",
            str(
                count + 1
            ): "one way too many: the last one would need a negative number of coins",
        },
    )


@template(4, COINS, a=range(4, 20), b=range(5, 30))
def unpayable(a: int, b: int) -> Problem | None:
    if a >= b or gcd(a, b) > 1:
        return None
    return Problem(
        f"There are coins of {a} and of {b} cents only. How many positive whole amounts of cents cannot be paid exactly?",
        str((a - 1) * (b - 1) // 2),
        f"Show that of n and {a * b - a - b} - n exactly one can be paid.",
        {
            str(
                a * b - a - b
            ): "this is the largest amount that cannot be paid, not how many there are",
            str(
                (a - 1) * (b - 1)
            ): "half of the amounts below the last one that fails can be paid",
        },
    )


@template(
    3,
    {
        "sum of all digits": "among the numbers from 0 to 10^k - 1, written with k digits, each digit stands equally often in each place"
    },
    a=range(2, 10),
    k=range(2, 5),
)
def digit_sum(a: int, k: int) -> Problem | None:
    tails = a * k * 45 * 10 ** (k - 1)
    heads = 10**k * a * (a - 1) // 2
    return Problem(
        f"What is the sum of all digits of all integers from 1 to {a * 10**k - 1}?",
        str(tails + heads),
        f"Write every number with {k + 1} digits, from 0 on; count how often each digit stands in the last place, and how often in the first.",
        {
            str(tails): "the digits in the first place were left out",
            str(
                tails * 2 // a + heads
            ): "the last places were counted for too few leading digits",
        },
    )


@template(
    4,
    {
        "coprime": "with k also n - k is coprime to n; there are phi(n) such numbers below n, n times the product of (1 - 1/p) over its primes"
    },
    n=range(20, 200),
)
def coprime_sum(n: int) -> Problem | None:
    if len(factored(n)) < 2:
        return None
    return Problem(
        f"What is the sum of all positive integers below {n} that are coprime to {n}?",
        str(n * totient(n) // 2),
        f"Pair each such number k with {n} - k.",
        {
            str(totient(n)): "the numbers were counted, not added",
            str(
                n * totient(n)
            ): "every pair was counted twice, once from each of its numbers",
        },
    )


@template(
    3,
    {
        "congruence": "if a is coprime to m, there is one inverse of a modulo m, which Euclid's algorithm finds; ax ≡ b has the solution b times that inverse"
    },
    a=range(4, 60),
    b=range(2, 60),
    m=range(40, 120),
)
def congruence(a: int, b: int, m: int) -> Problem | None:
    if gcd(a, m) > 1 or b >= m or b % a == 0:
        return None
    inverse = pow(a, -1, m)
    return Problem(
        f"Which integer x from 0 to {m - 1} solves the congruence ${a}x \\equiv {b} \\pmod{{{m}}}$?",
        str(inverse * b % m),
        f"Use Euclid's algorithm for {m} and {a} to find what {a} has to be multiplied by to leave 1.",
        {
            str(inverse): f"this number makes {a}x leave 1, not {b}",
            str(
                -inverse * b % m
            ): "a sign went wrong on the way back through Euclid's algorithm",
        },
    )


@template(
    4,
    {
        "modulo": "an equation modulo n is solved modulo each prime power of n, and the numbers of solutions multiply; x^2 ≡ 1 has two for a power of an odd prime, and for a power of 2 one (2), two (4) or four (from 8 on)"
    },
    n=(33, 35, 40, 56, 60, 63, 105, 120, 165, 168, 280, 420, 840, 1155, 1260),
)
def roots_of_one(n: int) -> Problem | None:
    primes = factored(n)
    num_odd = len([p for p in primes if p > 2])
    for_two = {0: 1, 1: 1, 2: 2}.get(primes.get(2, 0), 4)
    return Problem(
        f"How many of the integers x from 0 to {n - 1} fulfil $x^2 \\equiv 1$ modulo {n}?",
        str(2**num_odd * for_two),
        f"Write {n} as a product of powers of primes and solve the equation for each of them.",
        {
            "2": f"besides 1 and {n - 1} there are others, since {n} is no power of a prime",
        },
    )


@template(
    4,
    {
        "difference of squares": "x^2 - y^2 is (x - y)(x + y), and the two factors are both even or both odd"
    },
    n=[n for n in range(21, 250) if n % 4 != 2],
)
def square_difference(n: int) -> Problem | None:
    pairs = []
    for small in range(1, n):
        large = n // small
        if small < large and small * large == n and (small + large) % 2 == 0:
            pairs.append(((large + small) // 2, (large - small) // 2))
    if len(pairs) < 2:
        return None
    return Problem(
        f"Find the set of all pairs $(x, y)$ of positive integers for which the difference of squares $x^2 - y^2$ is {n}.",
        collected(ordered(*pair) for pair in pairs),
        f"Write {n} as a product of two factors, both even or both odd, in every possible way.",
        {
            ordered(
                *pairs[0]
            ): f"there are other ways to write {n} as a product of two such factors",
            collected(
                ordered(x + y, x - y) for x, y in pairs
            ): "these are the factors x + y and x - y; x and y are still to be found",
        },
    )


@template(
    4,
    {
        "binomial coefficient": "the exponent of a prime p in C(m + n, n) is the number of carries when m and n are added in base p (Kummer)"
    },
    m=range(20, 300),
    n=range(20, 300),
    p=(2, 3, 5, 7),
)
def carries(m: int, n: int, p: int) -> Problem | None:
    count, carry, first, second = 0, 0, m, n
    while first or second or carry:
        carry = int(first % p + second % p + carry >= p)
        count += carry
        first, second = first // p, second // p
    if count < 2 or m <= n:
        return None
    without = sum(m // p**i % p + n // p**i % p >= p for i in range(12))
    return Problem(
        f"What is the largest k for which ${p}^k$ divides the binomial coefficient $\\binom{{{m + n}}}{{{n}}}$?",
        str(count),
        f"Write {m} and {n} in base {p} and add them.",
        {
            str(
                without
            ): "a carry can make a place overflow that would not by itself; it was not passed on",
            str(
                (m + n) // p - m // p - n // p
            ): f"only the multiples of {p} were counted, not those of its powers",
        },
    )
