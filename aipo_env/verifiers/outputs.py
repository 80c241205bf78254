"""Whether what a program printed or returned is what a test expects.

Everything that comes from a program is data to be compared: nothing of it is run, and
what is compared is Python's own.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

from aipo_env.records import COMPARE_MODES, CodeTests, VerdictStatus
from aipo_env.sandboxes.base import RunResult
from aipo_env.sandboxes.values import encode

DEFAULT_RTOL = 1e-6
DEFAULT_ATOL = 1e-9
"""How far numbers may be apart in modes with "float", unless the tests say."""
LIVECODEBENCH = "livecodebench"
"""The mode that compares as that benchmark does."""
MAX_RATIO_CHARS = 1000
"""Hexadecimal digits of a fraction's parts: those of a float have fewer, and a common
divisor of long ones takes long to find.
"""
_MAX_SHORT_BYTES = 2**16
"""Results are read at once whose form is no longer."""
Near = Callable[[float, float], bool]
_DECIMAL = re.compile(rb"[+-]?[\d.]+(?:[eE][+-]?\d+)?")
"""A number among the tokens of an output; to Python `nan` and `1_0` are some, too."""


def mode_of(tests: CodeTests) -> str:
    """Return how the outputs of tests are compared: one of `COMPARE_MODES`."""
    return str(tests.compare.get("mode", COMPARE_MODES[tests.kind][0]))


def outcome(
    result: RunResult, tests: CodeTests, test: Any
) -> tuple[VerdictStatus, str]:
    """Return what a run says about the program, and why."""
    if result.status != "ok":
        return result.status, result.reason
    if tests.kind == "function" and not result.stdout:
        return "runtime_error", f"the program ended before {tests.entry} returned"
    try:
        # What was printed comes from the program: it may be no JSON, or nested deeply.
        is_same = _is_same(result.stdout, tests, test)
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError):
        return "wrong", "the result is no plain value"
    if is_same:
        return "correct", ""
    return "wrong", "another result than expected"


def _is_same(output: bytes, tests: CodeTests, test: Any) -> bool:
    """Compare an output with what a test expects, in the mode of the tests."""
    near = _nearness(tests)
    if tests.kind == "stdin":
        if mode_of(tests) == LIVECODEBENCH:
            return same_lines(output, test["output"])
        return _same_tokens(output, test["output"].encode(), near)
    expected = test["expected"]
    if _has_too_many(output, expected):
        return False
    form = json.loads(output)
    if mode_of(tests) == LIVECODEBENCH:
        return same_value(form, expected)
    return _alike(form, encode(expected), near)


def _has_too_many(output: bytes, expected: Any) -> bool:
    """Return whether the form of a result has more parts than any that is the same.

    To read millions of them holds up all other threads for seconds.
    """
    if len(output) <= _MAX_SHORT_BYTES:
        return False
    # Each part has one comma behind it, and may be of two: [key, value], or the parts
    # of a complex number.
    return output.count(b",") > 2 * _num_parts(expected)


def _num_parts(value: Any) -> int:
    """Return how many values there are in one, itself included, and commas in texts."""
    if isinstance(value, str):
        return 1 + value.count(",")
    if isinstance(value, Mapping):
        return 1 + sum(map(_num_parts, value)) + sum(map(_num_parts, value.values()))
    if isinstance(value, list | tuple):
        return 1 + sum(map(_num_parts, value))
    return 1


def same_lines(output: bytes, expected: str) -> bool:
    """Compare an output as LiveCodeBench does.

    Both are stripped and split into lines, and each line is stripped. Two lines are the
    same if they are equal as texts, or if all their tokens are decimal numbers, and
    equal as such.
    """
    # What is no UTF-8 equals nothing that a test expects.
    text = output.decode("utf-8", "surrogateescape").strip()
    expected = expected.strip()
    # Counted first: millions of lines, or tokens, take a gigabyte to hold.
    if text.count("\n") != expected.count("\n"):
        return False
    pairs = zip(text.split("\n"), expected.split("\n"), strict=True)
    return all(_same_line(left.strip(), right.strip()) for left, right in pairs)


def _same_line(line: str, expected: str) -> bool:
    """Return whether two stripped lines are equal, as texts or as decimal numbers.

    Raises:
        ArithmeticError: A token is no number.
    """
    if line == expected:
        return True
    expected_tokens = expected.split()
    num_tokens = len(expected_tokens)
    tokens = line.split(None, num_tokens)
    if len(tokens) != num_tokens:
        return False
    pairs = zip(tokens, expected_tokens, strict=True)
    return all(Decimal(left) == Decimal(right) for left, right in pairs)


def same_value(form: Any, expected: Any, is_whole: bool = True) -> bool:
    """Compare a result as LiveCodeBench does: by `==`, a tuple counting as a list.

    Args:
        form: The result in the form of `values.pack`.
        expected: A JSON value. Nothing deeper than this is looked at.
        is_whole: Whether it is the whole result; a tuple within is no list.
    """
    if isinstance(expected, list | tuple):
        if is_whole and _has_tag(form, "tuple"):
            form = form["tuple"]
        if not isinstance(form, list) or len(form) != len(expected):
            return False
        pairs = zip(form, expected, strict=True)
        return all(same_value(left, right, False) for left, right in pairs)
    if isinstance(expected, Mapping):
        # The keys of JSON are texts. A key of another form is never equal to one.
        if not _has_tag(form, "dict") or len(form["dict"]) != len(expected):
            return False
        found = {key: item for key, item in form["dict"] if isinstance(key, str)}
        return found.keys() == expected.keys() and all(
            same_value(found[key], item, False) for key, item in expected.items()
        )
    if expected is None or isinstance(expected, str):
        return type(form) is type(expected) and bool(form == expected)
    return bool(_value_of_number(form) == expected)


def _has_tag(form: Any, tag: str) -> bool:
    return isinstance(form, dict) and form.keys() == {tag}


def _value_of_number(form: Any) -> Any:
    """Return the number or truth value of a form of `pack`; None for all else."""
    if isinstance(form, bool | int | float):
        return form
    if _has_tag(form, "int"):
        return int(form["int"], 16)
    if _has_tag(form, "float"):
        return float(form["float"])
    if _has_tag(form, "complex"):
        real, imaginary = form["complex"]
        return complex(float(real), float(imaginary))
    if _has_tag(form, "ratio") and max(map(len, form["ratio"])) <= MAX_RATIO_CHARS:
        numerator, denominator = form["ratio"]
        return Fraction(int(numerator, 16), int(denominator, 16))
    return None


def _nearness(tests: CodeTests) -> Near | None:
    """Return how numbers are compared; None where everything is compared exactly."""
    if "float" not in mode_of(tests):
        return None
    rtol = tests.compare.get("rtol", DEFAULT_RTOL)
    atol = tests.compare.get("atol", DEFAULT_ATOL)
    return partial(math.isclose, rel_tol=rtol, abs_tol=atol)


def _same_tokens(output: bytes, expected: bytes, near: Near | None) -> bool:
    """Compare the tokens of each line; line ends and blanks at the end do not count."""
    output = output.rstrip()
    expected = expected.rstrip()
    if output.count(b"\n") != expected.count(b"\n"):
        return False
    pairs = zip(output.split(b"\n"), expected.split(b"\n"), strict=True)
    for line, expected_line in pairs:
        expected_tokens = expected_line.split()
        # One more tells that there are more.
        tokens = line.split(None, len(expected_tokens))
        if not _alike(tokens, expected_tokens, near):
            return False
    return True


def _alike(actual: Any, expected: Any, near: Near | None) -> bool:
    """Compare tokens, or plain data in the form of `encode`; numbers by `near`."""
    if near is None:
        return bool(actual == expected)
    if isinstance(actual, list) and isinstance(expected, list):
        if len(actual) != len(expected):
            return False
        pairs = zip(actual, expected, strict=True)
        return all(_alike(left, right, near) for left, right in pairs)
    if _is_encoded_dict(actual) and _is_encoded_dict(expected):
        return _alike(actual["dict"], expected["dict"], near)
    first = _number(actual)
    second = _number(expected)
    if first is None or second is None:
        return bool(actual == expected)
    # As floats, neighbouring large integers are equal.
    if isinstance(first, int) and isinstance(second, int):
        return first == second
    return near(first, second)


def _is_encoded_dict(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"dict"}


def _number(value: Any) -> float | None:
    """Return the number of a token or an encoded value, if it is one; int stays int."""
    try:
        if isinstance(value, bytes):
            return _number_of_token(value)
        if "float" in value:
            return float(value["float"])
        return int(value["int"], 16)
    except (TypeError, ValueError, KeyError):
        return None


def _number_of_token(token: bytes) -> float | None:
    """Return the number that a token stands for, if it does.

    Raises:
        ValueError: It looks like one and is none, as `1.2.3`.
    """
    if not _DECIMAL.fullmatch(token):
        return None
    is_whole = not token.strip(b"+-0123456789")
    return int(token) if is_whole else float(token)
