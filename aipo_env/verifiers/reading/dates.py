"""Dates as they are written: `15 March 2023`, `March 15, 2023`."""

import re

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
