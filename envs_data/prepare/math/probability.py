"""Draws, conditions, waiting times and expected values."""

from fractions import Fraction
from math import comb

from envs_data.prepare.math.template import Problem, fraction, template


@template(
    2,
    {
        "without replacement": "every choice of k balls is equally likely; those with j of one kind are counted by a product of two binomial coefficients"
    },
    red=range(3, 9),
    blue=range(3, 9),
    k=range(2, 5),
    j=range(1, 4),
)
def urn(red: int, blue: int, k: int, j: int) -> Problem | None:
    if j >= k or red == blue:
        return None
    one_order = Fraction(1)
    for i in range(k):
        left = red - i if i < j else blue - (i - j)
        one_order *= Fraction(left, red + blue - i)
    share = Fraction(red, red + blue)
    return Problem(
        f"An urn holds {red} red and {blue} blue balls. {k} balls are drawn without replacement. How likely is it that exactly {j} of them {'is' if j == 1 else 'are'} red?",
        fraction(comb(k, j) * one_order),
        f"Count all choices of {k} from {red + blue} balls, then those with {j} of the {red} red ones.",
        {
            fraction(
                one_order
            ): "only one order of the colours was counted, but the red balls may come at any place",
            fraction(
                comb(k, j) * share**j * (1 - share) ** (k - j)
            ): "the balls were put back after each draw, but here they stay outside",
        },
    )


@template(
    3,
    {
        "given that": "the probability of A given that B is that of both divided by that of B; the probability of B is a sum over the ways in which it can happen (Bayes)"
    },
    share=range(10, 91, 5),
    p=range(1, 10),
    q=range(1, 10),
)
def machines(share: int, p: int, q: int) -> Problem | None:
    if p == q or share == 50:
        return None
    return Problem(
        f"Machine A makes {share} percent of all screws, machine B the others. Of the screws of A {p} percent are bent, of those of B {q} percent. How likely is it that a screw is from A, given that it is bent?",
        fraction(Fraction(share * p, share * p + (100 - share) * q)),
        "Of 10,000 screws, find how many are bent and from A, and how many are bent and from B.",
        {
            fraction(
                Fraction(p, p + q)
            ): "the machines were taken to make equally many screws",
            fraction(
                Fraction(share * p, 10_000)
            ): "this is the probability that a screw is from A and bent, not that it is from A given that it is bent",
        },
    )


@template(
    2,
    {
        "fair dice": "all pairs of faces are equally likely, so the probability is the number of pairs that fulfil the condition divided by the number of all"
    },
    a=(4, 6, 8, 10, 12),
    b=(6, 8, 10, 12, 20),
    least=range(6, 25),
)
def dice(a: int, b: int, least: int) -> Problem | None:
    if a >= b or least >= a + b - 1:
        return None
    sums = [x + y for x in range(1, a + 1) for y in range(1, b + 1)]
    return Problem(
        f"Two fair dice are thrown, one with {a} faces numbered 1 to {a}, one with {b} faces numbered 1 to {b}. How likely is a sum of at least {least}?",
        fraction(Fraction(sum(s >= least for s in sums), a * b)),
        f"For each face of the die with {a} faces, count the faces of the other that are large enough.",
        {
            fraction(
                Fraction(sum(s > least for s in sums), a * b)
            ): f"a sum of exactly {least} belongs to 'at least {least}'",
            fraction(
                Fraction(a + b - least + 1, a + b - 1)
            ): "the sums were taken to be equally likely, but some come from more pairs than others",
        },
    )


@template(
    4,
    {
        "in a row": "let E(i) be the expected number of further throws after i successes in a row; each throw leads to i + 1 or back to 0, which gives an equation for each i"
    },
    faces=range(3, 13),
    k=range(2, 5),
)
def run_of_faces(faces: int, k: int) -> Problem | None:
    return Problem(
        f"A fair die with {faces} faces, numbered 1 to {faces}, is thrown until {faces} has come {k} times in a row. What is the expected number of throws?",
        str((faces ** (k + 1) - faces) // (faces - 1)),
        f"Write an equation for the expected number of further throws after 0, 1, … of the {k} successes, starting from the last.",
        {
            str(
                faces**k
            ): f"this is one over the probability of {k} successes, but a run can begin at every throw and fail late",
            str(
                faces * k
            ): f"this is the expected number for {k} successes in all, not in a row",
        },
    )


@template(
    4,
    {
        "collector": "while m of n kinds are missing, each packet holds a new one with probability m/n, so that n/m packets are expected until then; expected numbers of the stages add"
    },
    n=range(4, 13),
    have=range(9),
)
def collection(n: int, have: int) -> Problem | None:
    if n - have < 3:
        return None
    missing = range(1, n - have + 1)
    return Problem(
        f"A collector has {have} of {n} different stamps. Each further packet holds one stamp, each of the {n} with the same probability. What is the expected number of packets until the collection is complete?",
        fraction(sum(Fraction(n, m) for m in missing)),
        f"Find the expected number of packets until the first stamp comes that is new, when {n - have} are missing.",
        {
            str(
                n * len(missing)
            ): f"{n} packets were counted for every stamp, but while several are missing, any of them will do",
            fraction(
                sum(Fraction(n, m) for m in missing[:-1])
            ): "one of the stages was left out",
        },
    )


@template(
    4,
    {
        "gambler": "who wins a round with probability p and else loses, reaches N before 0 from i with probability (1 - r^i)/(1 - r^N), where r = (1 - p)/p is not 1"
    },
    start=range(1, 6),
    goal=range(3, 8),
    a=range(1, 5),
    b=range(1, 5),
)
def gambler(start: int, goal: int, a: int, b: int) -> Problem | None:
    if start >= goal or a == b or Fraction(a, a + b).numerator != a:
        return None
    p = Fraction(a, a + b)
    ratio = (1 - p) / p
    return Problem(
        f"A gambler has {start} {'euro' if start == 1 else 'euros'}. In each round he wins a euro with probability ${fraction(p)}$ and else loses one. He stops at {goal} euros or when nothing is left. How likely is it that he reaches {goal} euros?",
        fraction((1 - ratio**start) / (1 - ratio**goal)),
        "Let h(i) be the probability with i euros; write the equation between h(i - 1), h(i) and h(i + 1).",
        {
            fraction(
                Fraction(start, goal)
            ): "this would be the answer for a fair game, but winning and losing are not equally likely",
            fraction(
                p ** (goal - start)
            ): "only winning all rounds was counted, but he may lose some in between",
        },
    )


@template(
    3,
    {
        "uniformly": "two times drawn uniformly and independently are a point of a square; a probability is the part of its area where the condition holds"
    },
    a=range(5, 31, 5),
    b=range(10, 41, 5),
)
def meeting(a: int, b: int) -> Problem | None:
    if a >= b:
        return None
    missed = Fraction((60 - a) ** 2 + (60 - b) ** 2, 2 * 60**2)
    return Problem(
        f"Ada and Bo each come to the station at a time that is drawn uniformly and independently from the same hour. Ada waits {a} minutes, Bo waits {b} minutes; nobody stays beyond that. How likely is it that they meet?",
        fraction(1 - missed),
        "Draw the square of both times of arrival, 60 by 60 minutes, and mark where they miss each other.",
        {
            fraction(
                Fraction(a + b, 60)
            ): "the strip in which they meet was taken as long all over as the square is high; its ends are cut off",
            fraction(
                1 - Fraction((60 - a) ** 2, 60**2)
            ): f"both were taken to wait {a} minutes",
        },
    )


@template(
    4,
    {
        "expected value": "for a quantity with values 1, 2, 3, … it is the sum over all t from 1 on of the probability that the quantity is at least t"
    },
    n=range(8, 31),
    k=range(2, 6),
)
def largest_drawn(n: int, k: int) -> Problem | None:
    return Problem(
        f"From the numbers 1 to {n}, {k} different ones are drawn at random. What is the expected value of the largest of them?",
        fraction(Fraction(k * (n + 1), k + 1)),
        f"Find the probability that all {k} numbers are at most t.",
        {
            fraction(
                Fraction(k * n, k + 1)
            ): f"this is the value for {k} points drawn from an interval, not for whole numbers",
            fraction(Fraction(n + 1, 2)): "this is the expected value of a single draw",
        },
    )
