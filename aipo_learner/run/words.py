"""How numbers are said to people."""

_BYTE_UNITS = ("bytes", "kB", "MB", "GB")
_LARGEST_BYTE_UNIT = "TB"
_BYTES_PER_UNIT = 1000
"""From one unit of bytes to the next, as disks are sold."""
_ONE_DIGIT = 10
"""Below it a number has a digit behind the point."""
_AGES = ((86_400, "d"), (3600, "h"), (60, "min"))
"""Seconds of each unit of time, the largest first."""


def in_units(number: float) -> str:
    """Return a number with three digits at most.

    >>> [in_units(number) for number in (7, 950, 4123, 41_230, 1_234_567)]
    ['7', '950', '4.1k', '41k', '1.2M']
    """
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{_with_two_digits(number / unit)}{letter}"
    return f"{number:.0f}"


def percent(share: float) -> str:
    """Return a share of 1 in percent.

    >>> percent(0.123)
    '12 %'
    """
    return f"{100 * share:.0f} %"


def bytes_text(number: float) -> str:
    """Return a number of bytes.

    >>> [bytes_text(number) for number in (0, 999, 1_400_000, 91.4e9)]
    ['0 bytes', '999 bytes', '1.4 MB', '91 GB']
    """
    for unit in _BYTE_UNITS:
        if number < _BYTES_PER_UNIT:
            digits = f"{number:.0f}" if unit == "bytes" else _with_two_digits(number)
            return f"{digits} {unit}"
        number /= _BYTES_PER_UNIT
    return f"{_with_two_digits(number)} {_LARGEST_BYTE_UNIT}"


def age_text(seconds: float) -> str:
    """Return how long ago something was.

    >>> [age_text(seconds) for seconds in (5, 90, 7200, 400_000)]
    ['5 s', '2 min', '2 h', '5 d']
    """
    for unit_s, name in _AGES:
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} s"


def _with_two_digits(number: float) -> str:
    """Return a number with a digit behind the point only where it is small."""
    return f"{number:.1f}" if number < _ONE_DIGIT else f"{number:.0f}"
