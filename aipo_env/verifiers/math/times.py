"""Times of day, which look like ratios: `3:45` and `3:45 pm`."""

import re

_CLOCK = re.compile(
    r"""
    (?P<hour> [0-9]{1,2} )
    (?: : (?P<minute> [0-5][0-9] ) (?: : (?P<second> [0-5][0-9] ) )? )?
    \s* (?P<half> [ap] \.? \s? m \.? | o'clock )?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_HOURS = 24
_HALF = 12


def is_clock(text: str) -> bool:
    """Return whether a clean text looks like a time of day."""
    return _read(text) is not None


def same_time(first: str, second: str) -> bool:
    """Return whether two times of day are one; without "am" and "pm" either will do."""
    one = _read(first)
    other = _read(second)
    if one is None or other is None:
        return False
    return not set(one).isdisjoint(other)


def _read(text: str) -> tuple[int, ...] | None:
    """Return the seconds since midnight that a text may mean; None if it is no time."""
    clock = _CLOCK.fullmatch(text.strip())
    if clock is None or not (clock["minute"] or clock["half"]):
        return None
    hour = int(clock["hour"])
    half = (clock["half"] or "")[:1].lower()
    if hour > _HOURS or (half in ("a", "p") and not 1 <= hour <= _HALF):
        return None
    seconds = 60 * int(clock["minute"] or 0) + int(clock["second"] or 0)
    hours: tuple[int, ...]
    if half in ("a", "p"):
        hours = (hour % _HALF + (_HALF if half == "p" else 0),)
    elif hour <= _HALF:
        hours = (hour % _HALF, hour % _HALF + _HALF)
    else:
        hours = (hour % _HOURS,)
    return tuple(3600 * hour + seconds for hour in hours)
