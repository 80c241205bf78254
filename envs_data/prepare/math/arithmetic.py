"""Fractions, percentages, rates, and how numbers are written."""

from fractions import Fraction
from math import gcd

from envs_data.prepare.math.template import (
    Problem,
    decimal,
    fraction,
    ordered,
    template,
)

LOWEST_TERMS = {
    "lowest terms": "a fraction is in lowest terms when numerator and denominator have no common divisor above 1",
}


@template(
    1,
    {
        **LOWEST_TERMS,
        "common denominator": "fractions can be added once they have the same denominator; then the numerators add and the denominator stays",
    },
    a=range(1, 12),
    b=range(3, 13),
    c=range(1, 12),
    d=range(3, 13),
)
def fraction_sum(a: int, b: int, c: int, d: int) -> Problem | None:
    if gcd(a, b) > 1 or gcd(c, d) > 1 or a >= b or c >= d or b >= d:
        return None
    return Problem(
        f"A soup takes $\\frac{{{a}}}{{{b}}}$ of a litre of stock and $\\frac{{{c}}}{{{d}}}$ of a litre of milk. How many litres is that together? Give a fraction in lowest terms.",
        fraction(Fraction(a, b) + Fraction(c, d)),
        f"Write both amounts with the least common multiple of {b} and {d} as denominator.",
        {
            fraction(
                Fraction(a + c, b + d)
            ): "numerators and denominators were added each for themselves; a common denominator comes first",
            fraction(
                Fraction(a + c, b * d)
            ): "the numerators were added before they were brought to the common denominator",
        },
    )


@template(
    1,
    {
        "percent": "a rise by p percent multiplies by 1 + p/100, a fall by p percent by 1 - p/100; changes one after the other multiply"
    },
    price=range(200, 2001, 100),
    rise=range(5, 41, 5),
    fall=range(5, 41, 5),
)
def percents(price: int, rise: int, fall: int) -> Problem | None:
    after = Fraction(price * (100 + rise) * (100 - fall), 10_000)
    return Problem(
        f"A bicycle costs {price} euros. Its price rises by {rise} percent in spring, and in autumn the new price falls by {fall} percent. What does it cost then, in euros?",
        decimal(after),
        f"Find the price in spring, {price} times 1 + {rise}/100, before you look at autumn.",
        {
            decimal(
                Fraction(price * (100 + rise - fall), 100)
            ): "the percentages were added, but the second is of another price than the first",
            decimal(
                Fraction(price * (100 - fall), 100)
            ): "the fall was taken from the old price, and the rise left out",
        },
    )


@template(
    2,
    {
        "pumps": "rates of work that goes on at the same time add: who needs t hours alone does 1/t of the work in an hour, and what undoes work has a negative rate"
    },
    a=range(2, 9),
    b=range(3, 13),
    c=range(6, 25),
)
def tank(a: int, b: int, c: int) -> Problem | None:
    filling = Fraction(1, a) + Fraction(1, b)
    rate = filling - Fraction(1, c)
    if a >= b or rate <= 0:
        return None
    return Problem(
        f"Two pumps fill a tank, one alone in {a} hours, the other alone in {b} hours. An open drain empties the full tank in {c} hours. The tank is empty, both pumps run and the drain is open. After how many hours is the tank full?",
        fraction(1 / rate),
        f"Say what part of the tank is filled in one hour: 1/{a} and 1/{b} come in, 1/{c} goes out.",
        {
            fraction(
                1 / filling
            ): "the drain was left out; its rate has to be subtracted",
            fraction(
                1 / (filling + Fraction(1, c))
            ): "the rate of the drain was added, though it empties the tank",
            fraction(
                Fraction(a + b, 2)
            ): "the times were averaged, but it is the rates that add",
        },
    )


@template(
    1,
    {"mean speed": "the whole distance divided by the whole time"},
    v=range(10, 31),
    w=range(10, 31),
)
def ride(v: int, w: int) -> Problem | None:
    if v <= w:
        return None
    return Problem(
        f"A rider goes to a lake at {v} km/h and comes back on the same road at {w} km/h. What is the mean speed of the whole ride, in km/h?",
        fraction(Fraction(2 * v * w, v + w)),
        f"Call the distance to the lake d; the ride takes d/{v} + d/{w} hours.",
        {
            fraction(
                Fraction(v + w, 2)
            ): "the speeds were averaged, though the slow part of the ride takes longer"
        },
    )


@template(
    2,
    {
        "mixed": "when solutions are mixed, their volumes add and so do the amounts of what is dissolved; the concentrations do not"
    },
    m=range(2, 31),
    p=range(40, 91, 5),
    q=range(5, 31, 5),
    r=range(10, 81, 5),
)
def mixture(m: int, p: int, q: int, r: int) -> Problem | None:
    if not q < r < p:
        return None
    return Problem(
        f"How many litres of a brine with {p} percent salt must be mixed with {m} litres of one with {q} percent salt, so that the result has {r} percent?",
        fraction(Fraction(m * (r - q), p - r)),
        f"With x litres added there are {m} + x litres; write the salt in them in two ways, one of them {r}/100 of the volume.",
        {
            fraction(
                Fraction(m * (r - q), p)
            ): "what is added was counted as salt only, but it makes the volume larger, too",
            fraction(
                Fraction(m * r, p)
            ): "the salt that was there at the beginning was left out",
        },
    )


@template(
    2,
    {
        **LOWEST_TERMS,
        "period": "a decimal 0.(P) whose period P has k digits is P/(10^k - 1); digits before the period are shifted away by a power of ten",
    },
    first=range(1, 10),
    period=range(10, 99),
)
def repeating_decimal(first: int, period: int) -> Problem | None:
    if period % 11 == 0:
        return None
    digits = 100 * first + period

    def parts(value: Fraction) -> str:
        return ordered(value.numerator, value.denominator)

    return Problem(
        f"The decimal $0.{first}\\overline{{{period}}}$, where the bar stands over the period, is the fraction $\\frac{{p}}{{q}}$ in lowest terms. Give the pair $(p, q)$.",
        parts(Fraction(digits - first, 990)),
        "Multiply the number by 10 and by 1000, and subtract, so that the periods cancel.",
        {
            parts(
                Fraction(digits, 999)
            ): "all three digits were taken for the period, but the first of them stands before it",
            parts(Fraction(digits, 1000)): "the decimal was cut after three digits",
            parts(
                Fraction(digits, 990)
            ): "the digit before the period was not subtracted",
        },
    )


@template(
    2,
    {
        "hands of a clock": "in a minute the minute hand turns by 6 degrees and the hour hand by half a degree"
    },
    hour=range(1, 12),
    minute=range(5, 60),
)
def clock(hour: int, minute: int) -> Problem | None:
    def angle(hour_hand: Fraction) -> Fraction:
        between = abs(hour_hand - 6 * minute)
        return min(between, 360 - between)

    return Problem(
        f"What is the smaller angle between the hands of a clock at {hour}:{minute:02}? Give it in degrees.",
        decimal(angle(30 * hour + Fraction(minute, 2))),
        f"Say how far each hand has turned since 12: the minute hand in {minute} minutes, the hour hand in {hour} hours and {minute} minutes.",
        {
            decimal(
                angle(Fraction(30 * hour))
            ): f"the hour hand was left at {hour}, but it moves on during the hour"
        },
    )


@template(
    2,
    {
        "base": "in base b a numeral's digits, from the right, count ones, b's, b^2's and so on; each digit is below b"
    },
    n=range(150, 1000),
    b=range(3, 10),
)
def numeral(n: int, b: int) -> Problem | None:
    digits = ""
    rest = n
    while rest:
        digits = str(rest % b) + digits
        rest //= b
    return Problem(
        f"Write the decimal number {n} in base {b}, with the base as an index: $\\ldots_{{{b}}}$.",
        f"{digits}_{{{b}}}",
        f"Divide by {b} again and again and keep the remainders: the first is the last digit.",
        {
            f"{digits[::-1].lstrip('0')}_{{{b}}}": "the remainders stand in the order in which they came, but the first is the last digit"
        },
    )
