"""Counting: choices, arrangements, paths, and colourings up to symmetry."""

from fractions import Fraction
from math import comb, factorial, lcm

from envs_data.prepare.math.number_theory import totient
from envs_data.prepare.math.template import Problem, fraction, template

BURNSIDE = {
    "rotation": "the number of colourings that differ even after the rotations is the mean, over all rotations of the group, of how many colourings each leaves as they are (Burnside's lemma)",
}


@template(
    2,
    {
        "committee": "a group without order is counted by a binomial coefficient; 'at least' is a sum over the exact numbers, each counted by a product of two of them"
    },
    women=range(4, 9),
    men=range(4, 9),
    size=range(3, 6),
    least=range(1, 4),
)
def committee(women: int, men: int, size: int, least: int) -> Problem | None:
    if least >= size or women == men:
        return None
    counts = [comb(women, j) * comb(men, size - j) for j in range(size + 1)]
    return Problem(
        f"From {women} women and {men} men a committee of {size} people is chosen, at least {least} of them women. In how many ways?",
        str(sum(counts[least:])),
        f"Count the committees with exactly {least} women first, then those with one more.",
        {
            str(
                counts[least]
            ): f"committees with more than {least} women were left out",
            str(
                comb(women, least) * comb(women + men - least, size - least)
            ): f"{least} women were chosen first and the rest from all who remained, which counts committees with more women several times",
        },
    )


@template(
    2,
    {
        "arrangements": "n letters of which some are equal have n! divided by the factorials of how often each letter occurs"
    },
    word=(
        "COCOON",
        "TATTOO",
        "SEESAW",
        "PAPAYA",
        "TEEPEE",
        "ONION",
        "PEPPER",
        "ROCOCO",
        "CICADA",
        "KAYAK",
    ),
    place=range(5),
)
def anagrams(word: str, place: int) -> Problem | None:
    def count(letters: str) -> int:
        ways = factorial(len(letters))
        for letter in set(letters):
            ways //= factorial(letters.count(letter))
        return ways

    first = word[place]
    rest = word.replace(first, "", 1)
    return Problem(
        f"How many different arrangements of the letters of {word} do not begin with {first}?",
        str(count(word) - count(rest)),
        f"Count all arrangements of the {len(word)} letters, then those with {first} in front.",
        {
            str(
                count(word)
            ): f"arrangements that begin with {first} were not taken out",
            str(
                factorial(len(word)) - factorial(len(rest))
            ): "equal letters were counted as if they differed",
        },
    )


@template(
    3,
    {
        "lattice path": "with steps to the right and up there are C(a + b, a) from one point to another a to the right and b above it; through a point in between, the numbers of both parts multiply"
    },
    a=range(4, 8),
    b=range(4, 8),
    c=range(1, 7),
    d=range(1, 7),
)
def detour(a: int, b: int, c: int, d: int) -> Problem | None:
    if c >= a or d >= b:
        return None
    everything = comb(a + b, a)
    through = comb(c + d, c) * comb(a + b - c - d, a - c)
    return Problem(
        f"A lattice path leads from (0, 0) to ({a}, {b}) by steps of length 1 to the right or up. How many such paths do not pass ({c}, {d})?",
        str(everything - through),
        f"Count the paths that do pass ({c}, {d}): those that lead there, times those that go on from there.",
        {
            str(through): f"these are the paths that do pass ({c}, {d})",
            str(
                everything - comb(c + d, c)
            ): f"only the paths up to ({c}, {d}) were counted, not the ways to go on from there",
        },
    )


@template(
    3,
    {
        "indistinguishable": "n such things are shared among k people in C(n + k - 1, k - 1) ways; who is to have at least m gets these beforehand"
    },
    n=range(12, 26),
    k=range(3, 6),
    m=range(1, 4),
)
def shares(n: int, k: int, m: int) -> Problem | None:
    rest = n - k * m
    if rest < 3:
        return None
    return Problem(
        f"In how many ways can {n} indistinguishable marbles be shared among {k} children so that each child gets at least {m}?",
        str(comb(rest + k - 1, k - 1)),
        f"Give each child {m} of the marbles first and count what can become of the others.",
        {
            str(comb(n + k - 1, k - 1)): f"shares below {m} were counted, too",
            str(
                k**rest
            ): "the marbles were counted as if each were different from the others",
        },
    )


def derangements(n: int) -> int:
    """Return how many permutations of n things leave none in its place."""
    return sum((-1) ** i * factorial(n) // factorial(i) for i in range(n + 1))


@template(
    4,
    {
        "permutation": "the permutations of n things that leave none in its place number n! (1 - 1/1! + 1/2! - … ± 1/n!)"
    },
    n=range(5, 10),
    k=range(1, 5),
)
def own_places(n: int, k: int) -> Problem | None:
    if n - k < 3:
        return None
    return Problem(
        f"How many permutations of {n} different cards leave exactly {k} of the cards in place? (A permutation may leave any of them there.)",
        str(comb(n, k) * derangements(n - k)),
        f"Choose the {k} cards that stay; none of the other {n - k} may stay.",
        {
            str(
                comb(n, k) * factorial(n - k)
            ): f"the other {n - k} cards were put anywhere, so that more than {k} may stay",
            str(derangements(n - k)): f"which {k} cards stay was not chosen",
        },
    )


@template(
    4,
    {
        "onto": "functions from n elements onto k elements are counted by inclusion and exclusion: k^n - C(k,1)(k-1)^n + C(k,2)(k-2)^n - …"
    },
    n=range(4, 9),
    k=range(3, 6),
)
def onto(n: int, k: int) -> Problem | None:
    if n <= k:
        return None
    return Problem(
        f"How many functions map a set of {n} elements onto a set of {k} elements, so that each of the {k} is a value?",
        str(sum((-1) ** i * comb(k, i) * (k - i) ** n for i in range(k + 1))),
        f"Start with all ${k}^{{{n}}}$ functions and subtract those that miss a given element.",
        {
            str(k**n): "functions that miss an element were counted, too",
            str(
                k**n - k * (k - 1) ** n
            ): "functions that miss two elements were subtracted twice and have to be added again",
        },
    )


@template(5, BURNSIDE, n=range(4, 11), k=range(2, 5))
def necklaces(n: int, k: int) -> Problem | None:
    if k**n > 5000:
        return None
    fixed = [totient(d) * k ** (n // d) for d in range(1, n + 1) if n % d == 0]
    return Problem(
        f"A ring of {n} beads is made of beads of {k} colours; not every colour has to occur. Two rings are the same if a rotation turns one into the other; they are not turned over. How many different rings are there?",
        str(sum(fixed) // n),
        f"For each of the {n} rotations, count the cycles into which it parts the beads: beads of one cycle need the same colour.",
        {
            str(k**n): "rings that a rotation turns into each other were all counted",
            fraction(
                Fraction(k**n, n)
            ): f"the number of colourings was divided by {n}, but colourings with a symmetry have fewer than {n} positions",
        },
    )


@template(5, BURNSIDE, n=range(2, 5), k=range(2, 10))
def board_colourings(n: int, k: int) -> Problem | None:
    squares = n * n
    if k**squares > 70_000:
        return None
    half, quarter = -(-squares // 2), -(-squares // 4)
    fixed = k**squares + k**half + 2 * k**quarter
    return Problem(
        f"Each of the {squares} squares of a {n} by {n} board gets one of {k} colours. Two boards are the same if a rotation turns one into the other; they are not turned over. How many different boards are there?",
        str(fixed // 4),
        "For each of the four rotations, count the cycles into which it parts the squares: squares of one cycle need the same colour.",
        {
            fraction(
                Fraction(k**squares, 4)
            ): "the number of colourings was divided by 4, but colourings with a symmetry have fewer than 4 positions",
            fraction(
                Fraction(k**squares + k**half, 2)
            ): "only the half turn was looked at, not the two quarter turns",
        },
    )


@template(
    3,
    {
        "divisible by none": "inclusion and exclusion: from all, subtract the multiples of each, add those of every two, subtract those of all three; numbers divisible by two numbers are the multiples of their least common multiple"
    },
    n=range(200, 1001, 10),
    a=range(2, 8),
    b=range(4, 12),
    c=range(6, 16),
)
def sieve(n: int, a: int, b: int, c: int) -> Problem | None:
    if a >= b or b >= c or b % a == 0 or c % a == 0 or c % b == 0:
        return None
    singles = n // a + n // b + n // c
    doubles = n // lcm(a, b) + n // lcm(a, c) + n // lcm(b, c)
    triples = n // lcm(a, b, c)
    return Problem(
        f"How many integers from 1 to {n} are divisible by none of {a}, {b} and {c}?",
        str(n - singles + doubles - triples),
        f"Count the multiples of {a}, of {b} and of {c} up to {n}, then those of every two of them.",
        {
            str(
                n - singles
            ): "numbers that are divisible by two of the three were subtracted twice",
            str(
                n - singles + doubles
            ): "numbers that are divisible by all three were added back once too often",
        },
    )


@template(
    4,
    {
        "differ by at least": "if the smallest chosen number stays, the next is lowered by d - 1, the one after by 2(d - 1) and so on, choices with differences of at least d become choices of any different numbers"
    },
    n=range(12, 26),
    k=range(3, 6),
    d=range(2, 5),
)
def spaced_choices(n: int, k: int, d: int) -> Problem | None:
    if n - (k - 1) * d < k:
        return None
    return Problem(
        f"In how many ways can {k} of the integers from 1 to {n} be chosen so that any two of them differ by at least {d}?",
        str(comb(n - (k - 1) * (d - 1), k)),
        f"Order the chosen numbers and take {d - 1} off the second, {2 * (d - 1)} off the third, and so on: which numbers can then occur?",
        {
            str(comb(n, k)): "the condition on the differences was left out",
            str(
                comb(n - (k - 1) * d, k)
            ): f"between neighbours {d} numbers were left out, but {d - 1} are enough",
        },
    )


@template(
    3,
    {
        "strip": "tilings are counted by their last tile: what is before it is a shorter strip, so the numbers obey a recursion"
    },
    n=range(5, 10),
    p=range(1, 4),
    q=range(1, 5),
)
def strip(n: int, p: int, q: int) -> Problem | None:
    def tilings(second: int) -> int:
        before, now = p, second
        for _ in range(n - 2):
            before, now = now, p * now + q * before
        return now

    return Problem(
        f"A strip of {n} squares is covered by tiles of one square, of which there are {p} colours, and tiles of two squares, of which there are {q} colours. In how many ways? (Every colour may occur any number of times; the strip has a left and a right end.)",
        str(tilings(p * p + q)),
        "Let a(n) be the number for n squares, find a(1) and a(2), and ask which tile is the last one.",
        {
            str(
                tilings(p * p)
            ): "a strip of two squares can be covered by one tile, too; the recursion started with too few",
            str(p**n): "only tiles of one square were used",
        },
    )
