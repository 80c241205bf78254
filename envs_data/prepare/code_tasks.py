"""Write `envs_data/code/tasks.jsonl`: small programming problems with hidden tests.

python -m envs_data.prepare.code_tasks && python -m envs_data.prepare.manifest

Reference solutions make the tests. Every family has four problems, two for each split,
that share its words and differ in what is asked.
"""

import contextlib
import io
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "code"
NUM_PUBLIC, NUM_HIDDEN = 2, 6
"""Tests of a problem: those in its text, and those that the policy never sees."""
NUM_PROBLEMS = 4
"""Of each family."""

_Test = dict[str, Any]
"""A test as a row of the task file has it."""


@dataclass(frozen=True)
class Family:
    """Problems of one subject.

    Args:
        name: In the ids of its tasks.
        entry: The function that is asked for; empty: a program that reads standard
            input.
        asks: Problem texts, each with its reference solution.
        draw: Draws the input of one test: the arguments of the function, or the text of
            standard input.
        edges: Inputs that every problem is tested on, two at least.
        notes: What the terms of the problem mean.
        hint: A first step.
        compare: How outputs are compared; empty: they must be equal.
    """

    name: str
    entry: str
    asks: tuple[tuple[str, str], ...]
    draw: Callable[[random.Random], Any]
    edges: tuple[Any, ...]
    notes: dict[str, str]
    hint: str
    compare: dict[str, Any] = field(default_factory=dict)


def integers(rng: random.Random, low: int, high: int, most: int = 6) -> list[int]:
    """Draw one to `most` integers from `low` to `high`."""
    number = rng.randint(1, most)
    return [rng.randint(low, high) for _ in range(number)]


def lines(*rows: Any) -> str:
    """Write rows as lines: of a list, its members with blanks between."""
    text = ""
    for row in rows:
        members = row if isinstance(row, list | tuple) else [row]
        text += " ".join(str(member) for member in members) + "\n"
    return text


def word(rng: random.Random, letters: str, most: int) -> str:
    """Draw a word of one to `most` letters."""
    length = rng.randint(1, most)
    return "".join(rng.choice(letters) for _ in range(length))


def digital_root(base: int) -> tuple[str, str]:
    return (
        f"The first line holds a count n, the second n positive integers in decimal. Print the sum of their digital "
        f"roots in base {base}, in decimal.",
        f"""input()
def root(n):
    while n >= {base}:
        total = 0
        while n:
            total += n % {base}
            n //= {base}
        n = total
    return n
print(sum(root(int(token)) for token in input().split()))
""",
    )


def collatz(asked: str, update: str, start: str) -> tuple[str, str]:
    return (
        f"Given an integer n from 1 to 100000, return {asked} of the Collatz sequence that starts at n and ends at "
        "its first 1.",
        f"""def collatz(n):
    found = {start}
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        {update}
    return found
""",
    )


def runs(asked: str, returned: str) -> tuple[str, str]:
    return (
        f"Given a text of lower-case letters, return {asked}.",
        f"""from itertools import groupby
def code(text):
    runs = [(letter, len(list(group))) for letter, group in groupby(text)]
    return {returned}
""",
    )


def caesar(shift: int) -> tuple[str, str]:
    direction = f"{shift} places forward" if shift > 0 else f"{-shift} places back"
    return (
        f"The input is one line of text. Print it enciphered with the Caesar cipher that moves letters {direction}. "
        "Capitals stay capitals; all that is no English letter stays as it is.",
        f"""def move(letter):
    for first in "aA":
        place = ord(letter) - ord(first)
        if 0 <= place < 26:
            return chr(ord(first) + (place + {shift}) % 26)
    return letter
print("".join(map(move, input())))
""",
    )


def harshad(base: int) -> tuple[str, str]:
    return (
        f"The input is one line with two integers a and b, 1 <= a <= b <= 20000, in decimal. Print how many Harshad "
        f"numbers of base {base} lie between them, both ends included.",
        f"""def digits(n):
    total = 0
    while n:
        total += n % {base}
        n //= {base}
    return total
a, b = map(int, input().split())
print(sum(n % digits(n) == 0 for n in range(a, b + 1)))
""",
    )


def brackets(kinds: str) -> tuple[str, str]:
    pairs = " and ".join(kinds[place : place + 2] for place in range(0, len(kinds), 2))
    return (
        f"Given a text, return the nesting depth of its brackets {pairs} if they are balanced, else -1. All other "
        "characters, other brackets included, do not count. Without any bracket the depth is 0.",
        f"""def depth(text):
    closes = dict(zip({kinds[1::2]!r}, {kinds[::2]!r}))
    stack, deepest = [], 0
    for letter in text:
        if letter in closes.values():
            stack.append(letter)
            deepest = max(deepest, len(stack))
        elif letter in closes and (not stack or stack.pop() != closes[letter]):
            return -1
    return -1 if stack else deepest
""",
    )


def zeckendorf(asked: str, returned: str) -> tuple[str, str]:
    return (
        f"Given an integer n from 1 to 10**12, return {asked} its Zeckendorf representation.",
        f"""def zeckendorf(n):
    numbers = [1, 2]
    while numbers[-1] <= n:
        numbers.append(numbers[-1] + numbers[-2])
    terms = []
    for number in reversed(numbers):
        if number <= n:
            terms.append(number)
            n -= number
    return {returned}
""",
    )


def gray(asked: str, printed: str) -> tuple[str, str]:
    return (
        f"The input has a count n on the first line and n integers from 0 to 1000000 on the second. {asked}",
        f"""input()
numbers = [int(token) for token in input().split()]
def decode(code):
    n = 0
    while code:
        n ^= code
        code >>= 1
    return n
print({printed})
""",
    )


def josephus(step: int) -> tuple[str, str]:
    return (
        f"In the Josephus problem with n people, numbered from 1, every {step}th is removed; counting starts at person "
        "1. Return the number of the survivor, for n from 1 to 5000.",
        f"""def survivor(n):
    place = 0
    for size in range(2, n + 1):
        place = (place + {step}) % size
    return place + 1
""",
    )


def luhn(asked: str, printed: str) -> tuple[str, str]:
    return (
        f"Every line of the input is a number of 2 to 19 digits, possibly with leading zeros. {asked}",
        f"""import sys
def total(digits):
    found = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        found += value - 9 if value > 9 else value
    return found
numbers = sys.stdin.read().split()
{printed}
""",
    )


def intervals(asked: str, returned: str) -> tuple[str, str]:
    return (
        f"Given a non-empty list of closed intervals [start, end] of integers with start <= end, return {asked}. Intervals that touch in a "
        "point are merged.",
        f"""def merge(intervals):
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return {returned}
""",
    )


def hamming(asked: str, printed: str) -> tuple[str, str]:
    return (
        f"Every line of the input holds two words of the same length. Print {asked} of the Hamming distances of the lines.",
        f"""import sys
pairs = [line.split() for line in sys.stdin if line.strip()]
found = [sum(x != y for x, y in zip(a, b)) for a, b in pairs]
print({printed})
""",
    )


def roman(asked: str, returned: str, given: str) -> tuple[str, str]:
    return (
        f"Given {given}, return {asked}.",
        f"""PARTS = [(1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
         (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
def write(n):
    text = ""
    for value, letters in PARTS:
        text += letters * (n // value)
        n %= value
    return text
def roman(numbers):
    return {returned}
""",
    )


def totient(asked: str, returned: str) -> tuple[str, str]:
    return (
        f"Given an integer n from 1 to 2000, return {asked}. The letter phi stands for Euler's totient function.",
        f"""from math import gcd
def phi(n):
    found, rest, prime = n, n, 2
    while prime * prime <= rest:
        if rest % prime == 0:
            found -= found // prime
            while rest % prime == 0:
                rest //= prime
        prime += 1
    return found - found // rest if rest > 1 else found
def totient(n):
    return {returned}
""",
    )


def spiral(asked: str, reading: str) -> tuple[str, str]:
    return (
        f"The first line holds the numbers of rows and columns of a matrix of integers, then follow its rows. Print its entries in one line, separated by spaces, in {asked}.",
        f"""rows, columns = map(int, input().split())
matrix = [input().split() for _ in range(rows)]
out = []
{reading}
print(*out)
""",
    )


def aliquot(asked: str, printed: str) -> tuple[str, str]:
    return (
        f"The first line holds a count n, the second n integers from 1 to 20000. {asked}",
        f"""input()
def divisors(n):
    small = [d for d in range(1, int(n ** 0.5) + 1) if n % d == 0]
    return sum(set(small) | {{n // d for d in small}}) - n
numbers = [int(token) for token in input().split()]
{printed}
""",
    )


def moving(window: int) -> tuple[str, str]:
    return (
        f"Given a list of numbers, return the list of its moving averages with window {window}: one for every window "
        f"that lies within the list, and an empty list when there is none.",
        f"""def averages(numbers):
    return [sum(numbers[i:i + {window}]) / {window} for i in range(len(numbers) - {window} + 1)]
""",
    )


def means(asked: str, printed: str) -> tuple[str, str]:
    return (
        f"Every line of the input holds positive numbers. For each line print the {asked} of its numbers. A relative "
        "error of one millionth is allowed.",
        f"""import sys
for line in sys.stdin:
    x = [float(token) for token in line.split()]
    if x:
        print({printed})
""",
    )


def counted(rng: random.Random, low: int, high: int) -> str:
    """Draw integers, with their count on the line before."""
    numbers = integers(rng, low, high, 8)
    return lines(len(numbers), numbers)


def draw_numbers(rng: random.Random) -> str:
    """Draw numbers of which about half pass the Luhn check."""
    numbers: list[str] = []
    for _ in range(rng.randint(2, 9)):
        digits = word(rng, "0123456789", 17)
        # Before a check digit is appended, the last digit is the first to be doubled;
        # the sum of the digits of 2d is 2d, or 2d - 9.
        doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[::-2])
        single = sum(int(digit) for digit in digits[-2::-2])
        check = -(doubled + single) % 10
        passes = rng.random() < 0.5
        last_digit = str(check) if passes else rng.choice("0123456789")
        numbers.append(digits + last_digit)
    return lines(*numbers)


def draw_spans(rng: random.Random) -> list[Any]:
    """Draw the argument of a function of intervals."""
    starts = integers(rng, -50, 50, 8)
    return [[[start, start + rng.randint(0, 20)] for start in starts]]


def draw_words(rng: random.Random) -> str:
    """Draw lines of two words of the same length."""
    pairs: list[list[str]] = []
    for _ in range(rng.randint(1, 6)):
        first = word(rng, "abc", 12)
        pairs.append([first, "".join(rng.choice("abc") for _ in first)])
    return lines(*pairs)


def draw_matrix(rng: random.Random) -> str:
    """Draw a matrix, with its numbers of rows and columns on the line before."""
    num_rows = rng.randint(1, 5)
    num_columns = rng.randint(1, 5)
    rows: list[list[int]] = []
    for _ in range(num_rows):
        rows.append([rng.randint(-9, 99) for _ in range(num_columns)])
    return lines([num_rows, num_columns], *rows)


SPIRAL = """top, bottom, left, right = 0, rows - 1, 0, columns - 1
while top <= bottom and left <= right:
    out += matrix[top][left:right + 1]
    out += [matrix[row][right] for row in range(top + 1, bottom + 1)]
    if top < bottom and left < right:
        out += reversed(matrix[bottom][left:right])
        out += [matrix[row][left] for row in range(bottom - 1, top, -1)]
    top, bottom, left, right = top + 1, bottom - 1, left + 1, right - 1"""
TURN = "matrix = [list(column) for column in zip(*matrix)]\nrows, columns = columns, rows\n"

FAMILIES = (
    Family(
        "digital-root",
        "",
        tuple(digital_root(base) for base in (10, 7, 16, 9)),
        lambda rng: counted(rng, 1, 10**9),
        (lines(1, [1]), lines(3, [9, 10, 99])),
        {
            "digital root": "the one-digit number that is left when the digits of a number are summed again and again; in base b the digits are those of base b"
        },
        "Write a loop that replaces a number by the sum of its digits in the base until one digit is left.",
    ),
    Family(
        "collatz",
        "collatz",
        (
            collatz("the number of steps", "found += 1", "0"),
            collatz("the largest number", "found = max(found, n)", "n"),
            collatz(
                "the number of odd members (the first and the last included)",
                "found += n % 2",
                "n % 2",
            ),
            collatz("the sum of all members", "found += n", "n"),
        ),
        lambda rng: [rng.randint(2, 100_000)],
        ([1], [27]),
        {
            "Collatz sequence": "from n the next member is n / 2 when n is even and 3n + 1 when it is odd; a step is one such move"
        },
        "Write the loop that moves n until it is 1, then decide what is kept in it.",
    ),
    Family(
        "runs",
        "code",
        (
            runs(
                "its run-length encoding, every run as its letter and then its length",
                "''.join(f'{a}{n}' for a, n in runs)",
            ),
            runs(
                "its run-length encoding, every run as its length and then its letter",
                "''.join(f'{n}{a}' for a, n in runs)",
            ),
            runs(
                "the length of its longest run, 0 for the empty text",
                "max((n for _, n in runs), default=0)",
            ),
            runs(
                "its run-length encoding as a list of lists [letter, length], runs of length 1 left out",
                "[[a, n] for a, n in runs if n > 1]",
            ),
        ),
        lambda rng: [
            "".join(
                rng.choice("abz") * rng.choice((1, 1, 2, 3, 11))
                for _ in range(rng.randint(1, 8))
            )
        ],
        ([""], ["aaaaaaaaaaaa"]),
        {
            "run": "a longest stretch of equal neighbouring letters",
            "run-length encoding": "a text written as its runs, each as the letter and how often it stands there",
        },
        "Walk through the text and start a new run whenever the letter changes.",
    ),
    Family(
        "caesar",
        "",
        tuple(caesar(shift) for shift in (3, 13, -5, 20)),
        lambda rng: lines(word(rng, "abcxyzABCXYZ ,.!7", 30) + "q"),
        (lines("xyz XYZ"), lines("1 + 1 = 2")),
        {
            "Caesar cipher": "every letter is replaced by the one that stands a fixed number of places further in the alphabet, which is taken as a circle"
        },
        "Turn a letter into its place from 0 to 25; the remainder modulo 26 closes the circle.",
    ),
    Family(
        "harshad",
        "",
        tuple(harshad(base) for base in (10, 2, 8, 12)),
        lambda rng: lines(sorted((rng.randint(1, 20_000), rng.randint(1, 20_000)))),
        (lines([1, 1]), lines([11, 11])),
        {
            "Harshad number": "a positive integer that its digit sum divides; in base b the digits are those of base b"
        },
        "Write a function for the digit sum in the base, then test divisibility for every number of the range.",
    ),
    Family(
        "brackets",
        "depth",
        tuple(brackets(kinds) for kinds in ("()", "()[]", "()[]{}", "[]<>")),
        lambda rng: [
            rng.choice(("([a]){}", "<[()]>", "", "(())[]", "[<>]"))
            + word(rng, "()[]{}<>", 4) * rng.randint(0, 1)
        ],
        (["a"], ["((()))[[]]{<>}"], ["([)]"], ["]["]),
        {
            "balanced": "every bracket is closed by one of its own kind, and pairs do not cross",
            "nesting depth": "the largest number of brackets that are open at once",
        },
        "Keep the open brackets on a stack; a closing one must fit the top.",
    ),
    Family(
        "zeckendorf",
        "zeckendorf",
        (
            zeckendorf("the terms, largest first, of", "terms"),
            zeckendorf("the number of terms of", "len(terms)"),
            zeckendorf("the smallest term of", "terms[-1]"),
            zeckendorf("the terms, smallest first, of", "terms[::-1]"),
        ),
        lambda rng: [rng.randint(1, 10 ** rng.randint(1, 12))],
        ([1], [100], [10**12]),
        {
            "Zeckendorf representation": "the only way to write a positive integer as a sum of distinct Fibonacci numbers (1, 2, 3, 5, 8, …) no two of which are neighbours in that sequence"
        },
        "Take the largest Fibonacci number that fits, subtract it, and go on with the rest.",
    ),
    Family(
        "gray",
        "",
        (
            gray(
                "Print their Gray codes as decimal numbers.",
                "*(n ^ n >> 1 for n in numbers)",
            ),
            gray(
                "They are Gray codes. Print the numbers they stand for.",
                "*map(decode, numbers)",
            ),
            gray(
                "Print the Gray codes in binary, each without leading zeros (0 as 0).",
                "*(format(n ^ n >> 1, 'b') for n in numbers)",
            ),
            gray(
                "Print how many ones their Gray codes have in binary, one number for each.",
                "*(bin(n ^ n >> 1).count('1') for n in numbers)",
            ),
        ),
        lambda rng: counted(rng, 0, 1_000_000),
        (lines(1, [0]), lines(4, [1, 2, 3, 4])),
        {
            "Gray code": "here the reflected binary code: the code of n is n xor (n shifted right by one), so that neighbours differ in one bit"
        },
        "Bitwise xor of a number with itself shifted right by one gives the code; to undo it, xor all right shifts.",
    ),
    Family(
        "josephus",
        "survivor",
        tuple(josephus(step) for step in (4, 5, 7, 10)),
        lambda rng: [rng.randint(2, 5000)],
        ([1], [2]),
        {
            "Josephus problem": "people stand in a circle; counting round, every k-th of those still there is removed until one, the survivor, is left"
        },
        "With places numbered from 0, the survivor of n people follows from that of n - 1 by adding the step modulo n.",
    ),
    Family(
        "luhn",
        "",
        (
            luhn(
                "Print for each, on a line of its own, valid or invalid by the Luhn check.",
                "for n in numbers:\n    print('invalid' if total(n) % 10 else 'valid')",
            ),
            luhn(
                "Print for each, on a line of its own, the digit that must be appended for it to pass the Luhn check.",
                "for n in numbers:\n    print(-total(n + '0') % 10)",
            ),
            luhn(
                "Print how many pass the Luhn check.",
                "print(sum(total(n) % 10 == 0 for n in numbers))",
            ),
            luhn(
                "Print for each, on a line of its own, its Luhn sum.",
                "for n in numbers:\n    print(total(n))",
            ),
        ),
        draw_numbers,
        (lines("00", "18"), lines("59", "79927398713")),
        {
            "Luhn check": "a number passes when its Luhn sum is divisible by 10",
            "Luhn sum": "from the right, every second digit is doubled (9 is subtracted when that exceeds 9), and all digits are added",
        },
        "Go through the digits from the right and double every second one.",
    ),
    Family(
        "intervals",
        "merge",
        (
            intervals("the merged intervals, sorted", "merged"),
            intervals(
                "the total length of the merged intervals",
                "sum(end - start for start, end in merged)",
            ),
            intervals("the number of merged intervals", "len(merged)"),
            intervals(
                "the largest gap between neighbouring merged intervals, 0 if there is only one",
                "max((b[0] - a[1] for a, b in zip(merged, merged[1:])), default=0)",
            ),
        ),
        draw_spans,
        ([[[1, 1]]], [[[1, 4], [4, 5], [7, 9]]]),
        {
            "merged intervals": "the fewest intervals that cover the same points: those that overlap or touch are joined",
            "gap": "the distance from the end of one interval to the start of the next",
        },
        "Sort the intervals by their start; then each either reaches into the last merged one or begins a new one.",
    ),
    Family(
        "hamming",
        "",
        (
            hamming("the sum", "sum(found)"),
            hamming("the largest", "max(found)"),
            hamming("the smallest", "min(found)"),
            hamming("the number of distinct values", "len(set(found))"),
        ),
        draw_words,
        (lines(["a", "a"]), lines(["abc", "cab"], ["a", "b"])),
        {
            "Hamming distance": "the number of places at which two words of the same length differ"
        },
        "Compare the two words of a line place by place.",
    ),
    Family(
        "roman",
        "roman",
        (
            roman(
                "the list of their Roman numerals",
                "[write(n) for n in numbers]",
                "a list of integers from 1 to 3999",
            ),
            roman(
                "their Roman numerals in alphabetical order",
                "sorted(write(n) for n in numbers)",
                "a list of integers from 1 to 3999",
            ),
            roman(
                "how many letters their Roman numerals have in all",
                "sum(len(write(n)) for n in numbers)",
                "a list of integers from 1 to 3999",
            ),
            roman(
                "the one with the longest Roman numeral, the first of them if there are several",
                "max(numbers, key=lambda n: len(write(n)))",
                "a non-empty list of integers from 1 to 3999",
            ),
        ),
        lambda rng: [integers(rng, 1, 3999)],
        ([[1]], [[4, 9, 14, 49, 1994, 3888]]),
        {
            "Roman numeral": "the letters I, V, X, L, C, D, M stand for 1, 5, 10, 50, 100, 500, 1000, written from large to small; 4, 9, 40, 90, 400 and 900 are IV, IX, XL, XC, CD and CM"
        },
        "List the thirteen values with their letters from 1000 down and take each as often as it fits.",
    ),
    Family(
        "totient",
        "totient",
        (
            totient("phi(n)", "phi(n)"),
            totient(
                "phi(1) + phi(2) + ... + phi(n)", "sum(phi(k) for k in range(1, n + 1))"
            ),
            totient(
                "how many k from 1 to n have a phi(k) that divides k",
                "sum(k % phi(k) == 0 for k in range(1, n + 1))",
            ),
            totient(
                "how often phi must be applied to n until 1 is reached",
                "0 if n == 1 else 1 + totient(phi(n))",
            ),
        ),
        lambda rng: [rng.randint(2, 2000)],
        ([1], [2], [36]),
        {
            "Euler's totient function": "phi(n) counts the integers from 1 to n that have no divisor above 1 in common with n",
            "phi": "Euler's totient function",
        },
        "Factor n: phi(n) is n times (1 - 1/p) over its distinct primes p.",
    ),
    Family(
        "spiral",
        "",
        (
            spiral("spiral order, clockwise from the top left", SPIRAL),
            spiral(
                "spiral order, anticlockwise from the top left (first down)",
                TURN + SPIRAL,
            ),
            spiral(
                "snake order: the first row from left to right, the second from right to left, and so on",
                "for number, row in enumerate(matrix):\n    out += row[::-1] if number % 2 else row",
            ),
            spiral(
                "column order: the first column from top to bottom, then the second, and so on",
                "for column in zip(*matrix):\n    out += column",
            ),
        ),
        draw_matrix,
        (
            lines([1, 1], [5]),
            lines([3, 3], [1, 2, 3], [4, 5, 6], [7, 8, 9]),
            lines([2, 1], [4], [6]),
        ),
        {
            "spiral order": "along the border of the matrix once round, then along the border of what is left, until nothing is left",
            "snake order": "row by row, every second row backwards",
        },
        "Read the matrix as lists of rows; keep the bounds of what has not been printed yet.",
    ),
    Family(
        "aliquot",
        "",
        (
            aliquot(
                "Print for each, on a line of its own, whether it is perfect, abundant or deficient.",
                "for n in numbers:\n    s = divisors(n)\n    print('perfect' if s == n else 'abundant' if s > n else 'deficient')",
            ),
            aliquot(
                "Print the sum of their aliquot sums.",
                "print(sum(map(divisors, numbers)))",
            ),
            aliquot(
                "Print for each, on a line of its own, its abundance.",
                "for n in numbers:\n    print(divisors(n) - n)",
            ),
            aliquot(
                "Print how many of them are abundant.",
                "print(sum(divisors(n) > n for n in numbers))",
            ),
        ),
        lambda rng: counted(rng, 1, 20_000),
        (lines(1, [1]), lines(5, [6, 12, 28, 97, 496])),
        {
            "aliquot sum": "the sum of the divisors of n that are smaller than n",
            "abundance": "the aliquot sum of n minus n",
            "perfect": "a number that equals its aliquot sum",
            "abundant": "a number below its aliquot sum",
            "deficient": "a number above its aliquot sum",
        },
        "Find divisors in pairs d and n // d up to the square root of n.",
    ),
    Family(
        "moving-average",
        "averages",
        tuple(moving(window) for window in (2, 3, 4, 5)),
        lambda rng: [
            [round(rng.uniform(-100, 100), 2) for _ in range(rng.randint(5, 9))]
        ],
        ([[1, 2, 3, 4, 5, 6]], [[1.5]]),
        {
            "moving average": "the mean of every stretch of neighbouring numbers of a fixed length, the window"
        },
        "A list of n numbers has n - w + 1 stretches of length w.",
        {"mode": "json_float", "rtol": 1e-9, "atol": 1e-9},
    ),
    Family(
        "means",
        "",
        (
            means("harmonic mean", "len(x) / sum(1 / v for v in x)"),
            means("quadratic mean", "(sum(v * v for v in x) / len(x)) ** 0.5"),
            means(
                "geometric mean",
                "__import__('math').exp(sum(__import__('math').log(v) for v in x) / len(x))",
            ),
            means(
                "population variance",
                "sum((v - sum(x) / len(x)) ** 2 for v in x) / len(x)",
            ),
        ),
        lambda rng: lines(
            *(
                [round(rng.uniform(0.5, 50), 2) for _ in range(rng.randint(2, 6))]
                for _ in range(3)
            )
        ),
        (lines([1, 2, 4]), lines([2.5, 7.5], [3, 9, 27])),
        {
            "harmonic mean": "the count divided by the sum of the reciprocals",
            "quadratic mean": "the root of the mean of the squares",
            "geometric mean": "the n-th root of the product of n numbers",
            "population variance": "the mean of the squared differences from the mean",
        },
        "Read all lines first; each is a list of numbers of its own.",
        {"mode": "float_tokens_by_line", "rtol": 1e-6, "atol": 1e-9},
    ),
)


def answer(family: Family, source: str, given: Any) -> Any:
    """Return what the reference solution makes of one input.

    It is our own program, so it runs in this process.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    if family.entry:
        exec(source, namespace)
        return namespace[family.entry](*given)
    printed = io.StringIO()
    stdin = sys.stdin
    sys.stdin = io.StringIO(given)
    try:
        with contextlib.redirect_stdout(printed):
            exec(source, namespace)
    finally:
        sys.stdin = stdin
    return printed.getvalue()


def problem(family: Family, number: int) -> dict[str, Any]:
    """Return one row of the task file."""
    text, source = family.asks[number]
    inputs = _inputs(family, number)
    answers = [answer(family, source, given) for given in inputs]
    if family.entry:
        form = f"Write a Python function {family.entry} of one argument."
        tests = _function_tests(inputs, answers)
        examples = [_function_example(family.entry, test) for test in tests]
    else:
        form = (
            "Write a Python program that reads standard input and prints to standard"
            " output."
        )
        tests = _program_tests(inputs, answers)
        examples = [_program_example(test) for test in tests]
    public_examples = "\n\n".join(examples[:NUM_PUBLIC])
    prompt = (
        f"{text}\n\n{form} Give it whole in one ```python block.\n\n{public_examples}"
    )
    return {
        "id": f"code-{family.name}-{number}",
        "prompt": prompt,
        "answer": "",
        "kind": "code",
        "tests": {
            "kind": "function" if family.entry else "stdin",
            "public": tests[:NUM_PUBLIC],
            "hidden": tests[NUM_PUBLIC:],
            "entry": family.entry,
            "compare": family.compare,
        },
        "meta": {"notes": family.notes, "hint": family.hint},
        "source": "aipo-code",
        "licence": "Apache-2.0",
        "split": "test" if number % 2 else "train",
    }


def _inputs(family: Family, number: int) -> list[Any]:
    """Return the inputs of a problem's tests, public ones first, none twice."""
    rng = random.Random(f"{family.name}-{number}")
    inputs = [*family.edges]
    while len(inputs) < NUM_PUBLIC + NUM_HIDDEN:
        drawn = family.draw(rng)
        if drawn not in inputs:
            inputs.append(drawn)
    # What was drawn last comes first and is public, beside the second edge; the first
    # edge is hidden, and so are the others.
    first_edge, second_edge, *others, last = inputs
    return [last, second_edge, first_edge, *others]


def _function_tests(inputs: Sequence[Any], answers: Sequence[Any]) -> list[_Test]:
    """Return the tests of a function."""
    return [
        {"args": given, "expected": expected}
        for given, expected in zip(inputs, answers, strict=True)
    ]


def _function_example(entry: str, test: _Test) -> str:
    """Return a test of a function as the problem's text shows it."""
    [argument] = test["args"]
    expected = json.dumps(test["expected"])
    return f"{entry}({json.dumps(argument)}) returns {expected}"


def _program_tests(inputs: Sequence[str], answers: Sequence[str]) -> list[_Test]:
    """Return the tests of a program."""
    return [
        {"input": given, "output": output}
        for given, output in zip(inputs, answers, strict=True)
    ]


def _program_example(test: _Test) -> str:
    """Return a test of a program as the problem's text shows it."""
    return f"Input:\n{test['input']}Output:\n{test['output'].rstrip()}"


def reference(task_id: str) -> str:
    """Return the reference solution of a task."""
    name, _, number = task_id.removeprefix("code-").rpartition("-")
    family = next(family for family in FAMILIES if family.name == name)
    _, source = family.asks[int(number)]
    return source


def rows() -> list[dict[str, Any]]:
    """Return all rows, subject by subject in turn."""
    rows: list[dict[str, Any]] = []
    for number in range(NUM_PROBLEMS):
        for family in FAMILIES:
            rows.append(problem(family, number))
    return rows


def main() -> None:
    """Write the file."""
    FOLDER.mkdir(exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
    (FOLDER / "tasks.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
