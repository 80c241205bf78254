"""Times of day, which look like ratios, and dates: `3:45 pm`, `March 15, 2023`."""

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


_FIRST_HALF = ("jan", "feb", "mar", "apr", "may", "jun")
_SECOND_HALF = ("jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate((*_FIRST_HALF, *_SECOND_HALF), 1)}
"""By the first three letters of their names."""
# Capitals: "30 may be right" is no day.
_MONTH = (
    r"(?P<month> Jan(?:uary)? | Feb(?:ruary)? | Mar(?:ch)? | Apr(?:il)? | May"
    r" | June? | July? | Aug(?:ust)? | Sept?(?:ember)? | Oct(?:ober)?"
    r" | Nov(?:ember)? | Dec(?:ember)? ) \.?"
)
_DAY = r"(?P<day> [0-3]?[0-9] ) (?: st | nd | rd | th )?"
_YEAR = r"(?: ,? [ ] (?P<year> [12][0-9]{3} ) )?"
DATES = (
    re.compile(rf"(?: the[ ] )? {_DAY} [ ] (?: of[ ] )? {_MONTH} {_YEAR}", re.VERBOSE),
    re.compile(rf"{_MONTH} [ ] {_DAY} {_YEAR} (?![0-9])", re.VERBOSE),
)
"""`15 March 2023`, `March 15, 2023`; a day without its year is a date as well."""


def read_date(text: str) -> tuple[int, int, int] | None:
    """Return year, month and day of a text that is a date; year 0 if it names none."""
    for pattern in DATES:
        date = pattern.fullmatch(" ".join(text.split()).strip(" .$*"))
        if date:
            month = _MONTHS[date["month"][:3].lower()]
            return int(date["year"] or 0), month, int(date["day"])
    return None
