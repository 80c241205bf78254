"""Plain values as JSON: what crosses the wall of a sandbox, in either direction.

Also read by the bare interpreter behind the wall; needs nothing but the standard
library. Whoever reads a form trusts nothing in it: a program may write what it likes.
"""

import builtins
import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

_NATIVE_INT_BITS = 63
"""Integers of so many bits are JSON's own numbers; larger ones no reader need take."""


def encode(value: object) -> object:
    """Return a JSON form that keeps the exact type of a plain value.

    Integers become `{"int": "0x2a"}`, floats `{"float": "1.5"}`, dictionaries with text
    keys `{"dict": [[key, value], …]}` in order of their keys, tuples lists; None, truth
    values and texts stay.

    Raises:
        TypeError: The value, or one within, is of another type; subclasses are other
            types.
    """
    # No isinstance: a subclass may have an __eq__ or a __repr__ of the program's.
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if type(value) is int:
        # Hexadecimal takes time linear in the digits, decimal does not.
        return {"int": hex(value)}
    if type(value) is float:
        equal_zeros = value + 0.0  # -0.0 and 0.0 are one value
        return {"float": repr(equal_zeros)}
    if type(value) is list or type(value) is tuple:
        return [encode(item) for item in value]
    if type(value) is dict and all(type(key) is str for key in value):
        # Pairs, since a JSON object could be taken for one of the forms above.
        names = sorted(value)
        return {"dict": [[name, encode(value[name])] for name in names]}
    raise TypeError(f"a result of type {kind.__name__} has no JSON form")


def pack(value: object) -> object:
    """Return a JSON form from which `unpack` makes an equal value of Python's own.

    Subclasses become what they are built on, a `Counter` a dictionary; numbers of NumPy
    Python's; types are those of `builtins`. What is no plain value becomes one that
    equals nothing.
    """
    if value is None or isinstance(value, bool):
        return value
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value)
    kind = type(value)
    if kind.__module__ == "numpy":
        return _pack_numpy(value)
    if isinstance(value, type):
        name = str(value.__name__)
        if vars(builtins).get(name) is value:
            return {"type": name}
    return {"other": kind.__name__}


def unpack(form: Any) -> Any:
    """Return the value of a form of `pack`, or of `{"json": text}` with such a form.

    For a process that may be held up: sets and dictionaries of chosen keys take long.

    Raises:
        ValueError, TypeError, KeyError, ArithmeticError: It is no such form.
    """
    if isinstance(form, list):
        return [unpack(item) for item in form]
    if not isinstance(form, dict):
        return form
    ((tag, content),) = form.items()
    return _READERS[tag](content)


def _pack_int(value: Any) -> object:
    # The functions of the types themselves: a subclass may have others.
    number = int.__index__(value)
    if number.bit_length() <= _NATIVE_INT_BITS:
        return number
    return {"int": hex(number)}


def _pack_float(value: Any) -> object:
    number = float.__float__(value)
    if number - number == 0:
        return number
    return {"float": repr(number)}  # infinite, or none


def _pack_decimal(value: Decimal) -> object:
    if not value.is_finite():
        return {"float": str(value).lstrip("s")}
    return _pack_ratio(Fraction(value))


def _pack_ratio(value: Fraction) -> object:
    # A whole one of any size is an integer; others are equal to floats at most.
    if value.denominator == 1:
        return _pack_int(value.numerator)
    return {"ratio": [hex(value.numerator), hex(value.denominator)]}


def _pack_list(values: Any) -> list[object]:
    return [pack(item) for item in values]


def _pack_dict(value: Any) -> object:
    pairs = [[pack(key), pack(item)] for key, item in dict.items(value)]
    return {"dict": pairs}


def _pack_numpy(value: Any) -> object:
    """Return the form of a scalar, or of an array of one element, which compares.

    An array of more is no truth value when it is compared.
    """
    if getattr(value, "size", 0) != 1:
        return {"other": "ndarray"}
    plain = value.tolist()
    if type(plain).__module__ == "numpy":  # longdouble, which Python has not
        return {"other": type(value).__name__}
    return pack(plain)


def _builtin_type(name: str) -> type:
    value = vars(builtins)[name]
    # Not all names there are of types: `exec` is one.
    if not isinstance(value, type):
        raise TypeError(f"{name} is no type")
    return value


_WRITERS: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (str, str.__str__),
    (int, _pack_int),
    (float, _pack_float),
    (list, _pack_list),
    (tuple, lambda value: {"tuple": _pack_list(value)}),
    (dict, _pack_dict),
    (set, lambda value: {"set": _pack_list(value)}),
    (frozenset, lambda value: {"frozenset": _pack_list(value)}),
    (complex, lambda value: {"complex": [repr(value.real), repr(value.imag)]}),
    (Fraction, _pack_ratio),
    (Decimal, _pack_decimal),
    (bytes, lambda value: {"bytes": value.hex()}),
    (bytearray, lambda value: {"bytes": value.hex()}),
)
"""How values of a type, or of one built on it, are written."""

_READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "complex": lambda parts: complex(float(parts[0]), float(parts[1])),
    "ratio": lambda parts: Fraction(int(parts[0], 16), int(parts[1], 16)),
    "bytes": bytes.fromhex,
    "tuple": lambda items: tuple(unpack(items)),
    "set": lambda items: set(unpack(items)),
    "frozenset": lambda items: frozenset(unpack(items)),
    "dict": lambda pairs: {unpack(key): unpack(value) for key, value in pairs},
    "type": _builtin_type,
    "json": lambda text: unpack(json.loads(text)),
    "other": lambda name: object(),
}
"""How they are read; an `object` equals nothing but itself."""
