"""Mathematical text in one spelling, what in it is refused, and the numbers it states without any algebra.

Texts are short, MAX_CHARS at most, and every pattern here is linear in them as it meets them: no two blanks
stand side by side, so that patterns may say `\\s*` one after another.
"""

import json
import re
from fractions import Fraction
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path

MAX_CHARS = 2000
"""A longer answer is refused."""
TABLES = json.loads(
    Path(__file__).with_name("math_tables.json").read_text(encoding="utf-8")
)
MAX_DEPTH = 30
_BOMBS: dict[str, str] = TABLES["bombs"]
_BOMB = re.compile("|".join(f"({pattern})" for pattern in _BOMBS.values()))
_CONNECTIVES = frozenset(TABLES["connectives"].split())
"""Words that change what an answer says; any other word beside a number is its unit."""
_UNITS = sorted(TABLES["units"].split(), key=len, reverse=True)
_ALTERNATIVES = {
    "FUNCTIONS": "|".join(TABLES["functions"].split()),
    "UNITS": "|".join(_UNITS),
    "LONG": "|".join(unit for unit in _UNITS if len(unit) > 1),
}
_CHARACTERS = re.compile("|".join(map(re.escape, TABLES["characters"])))
_ROOT = re.compile(r"√\s?([0-9]+|[A-Za-z])")
_CJK_TAIL = re.compile(
    r"(?<=[0-9}%)a-zA-Z])\s*[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]+\s*[.,]?\s*$"
)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_BLANKS = re.compile(r"\s{2,}")
_ORNAMENTS = " *_"
"""Blanks and the marks of bold and italic type, which may stand around an answer."""
_WRAPPER = re.compile(rf"\\(?:{TABLES['wrappers']})\s*\{{([^{{}}]*)\}}")
_WORD_TAIL = re.compile(
    r"([-+0-9.,%]*[0-9%])(?:\s+(?=[^\W\d_]{3})|(?=[^\W\d_]{4}))([^\W\d_](?:[^\W\d_]|[\s,'.-])+)"
)


def _rules(name: str) -> list[tuple[re.Pattern[str], str]]:
    """Return the rewriting rules of a table, in the order in which they are applied."""
    fill = partial(
        re.sub, "|".join(_ALTERNATIVES), lambda word: _ALTERNATIVES[word.group()]
    )
    return [(re.compile(fill(rule)), new) for rule, new in TABLES[name]]


_SPELLING, _NOTATION, _UNITS_BEHIND = map(
    _rules, ("spelling", "notation", "units_behind")
)

_DIGITS = (
    r"(?:[0-9]{1,300}|[0-9]{1,3}(?:,[0-9]{3}){1,100}|[0-9]{1,3}(?: [0-9]{3}){1,100})"
)
_PLAIN = re.compile(rf"([+-]*)\s*({_DIGITS})?(?:\.([0-9]{{0,300}}))?")
_REPEATING = re.compile(
    r"([+-]?)([0-9]{0,300})\.([0-9]{0,300})(?:\\overline\{([0-9]{1,300})\}|\(([0-9]{1,300})\)|\\dot\{([0-9])\})(?:\.\.\.|\\[lc]?dots)?"
)
_FRACTION = re.compile(
    rf"([+-]?)\s*({_DIGITS})?\s*(?:\\frac\{{([^{{}}]*)\}}\{{([^{{}}]*)\}}|(?<=[0-9] )([0-9]{{1,300}})/([0-9]{{1,300}}))"
)
_SLASH = re.compile(r"(\(?[^/()]*\)?)\s*(?:/|:|\\div)\s*(\(?[^/()]*\)?)")
_POWER = re.compile(
    r"(?:(.*?[0-9.}])\s*(?:\\times|\\cdot|\*))?\s*([0-9]{1,6})\^\{?(-?[0-9]{1,3})\}?",
    re.S,
)
_SCIENTIFIC = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?[eE][+-]?[0-9]{1,3}")
_BASE = re.compile(r"(-?)([A-Z]{0,9}[0-9][0-9A-Z]{0,290})_\{?([0-9]{1,2})\}?")
_LONG_DECIMAL = re.compile(r"[0-9][0-9,]*\.[0-9]+|\.[0-9]+")


@lru_cache(4096)
def clean(text: str) -> str:
    """Return an answer in one spelling: LaTeX without sizes, fonts, currency, units and ornaments.

    Args:
        text: MAX_CHARS long at most.
    """
    if not text.isascii():
        text = _ROOT.sub(r"\\sqrt{\1}", text)
        text = _CHARACTERS.sub(
            lambda found: str(TABLES["characters"][found.group()]), text
        )[:MAX_CHARS]
        text = _CJK_TAIL.sub("", text)
    text = " ".join(text.split()).strip(_ORNAMENTS)
    text = _apply(_SPELLING, text)
    text = _COMMAND.sub(
        lambda found: str(TABLES["synonyms"].get(found[1], found[0])), text
    )
    for _ in range(5):
        text, changed = _WRAPPER.subn(
            lambda found: found[1] if len(found[1]) < 2 else f" {found[1]} ", text
        )
        if not changed:
            break
    text = _apply(_NOTATION, text)
    return drop_units(text.lstrip(_ORNAMENTS).rstrip(_ORNAMENTS + ".,;:"))


def drop_units(text: str) -> str:
    """Drop what stands behind a number: degrees stay, ordinals, units and words of no consequence go."""
    text = _apply(_UNITS_BEHIND, text).strip()
    tail = _WORD_TAIL.fullmatch(text)
    return (
        tail[1]
        if tail and not _CONNECTIVES & set(re.findall(r"[a-z]+", tail[2].lower()))
        else text
    )


def screen(text: str) -> str:
    """Return why no algebra may see a clean text: it is built to exhaust a computer. Empty when it may be looked at."""
    if len(text) > MAX_CHARS:
        return f"more than {MAX_CHARS} characters"
    if found := _BOMB.search(text):
        return list(_BOMBS)[(found.lastindex or 1) - 1]
    depths = accumulate(
        1 if mark in "({[" else -1 for mark in re.findall(r"[({\[\])}]", text)
    )
    if max(depths, default=0) > MAX_DEPTH:
        return f"brackets nested deeper than {MAX_DEPTH}"
    return (
        "a matrix that is too large"
        if text.count("&") > 100 or text.count("\\\\") > 100
        else ""
    )


def _apply(rules: list[tuple[re.Pattern[str], str]], text: str) -> str:
    """Rewrite a text rule by rule, and keep its blanks apart."""
    for pattern, new in rules:
        text = pattern.sub(new, text)
        if "  " in text:
            text = _BLANKS.sub(" ", text)
    return text


@lru_cache(8192)
def number(text: str) -> Fraction | None:
    """Return the exact value of a plain number in clean text, or None when it is none.

    Integers, decimals, repeating decimals, fractions, mixed numbers, ratios, percents, degrees, thousands,
    powers, scientific notation and numerals with their base.
    """
    text = text.strip()
    if (plain := _PLAIN.fullmatch(text)) and (plain[2] or plain[3]):
        sign = -1 if plain[1].count("-") % 2 else 1
        return sign * Fraction(
            re.sub("[, ]", "", plain[2] or "0") + "." + (plain[3] or "0")
        )
    if not text or len(text) > 700 or not re.match(r"[-+0-9.(\\{A-Z]", text):
        return None
    if text[-1] == "%":
        value = None if text[-2:] == "%%" else number(text[:-1])
        return None if value is None else value / 100
    if text.endswith("^\\circ"):
        bare = text.removesuffix("^\\circ").rstrip()
        return None if bare.endswith("^\\circ") else number(bare)
    for reader in (_read_fraction, _read_repeating, _read_power, _read_base):
        if (value := reader(text)) is not None:
            return value
    if text[0] + text[-1] in ("()", "{}") and not re.search(r"[(){},]", text[1:-1]):
        return number(text[1:-1])
    is_negative = text[0] == "-" and text[1:2] in ("(", "\\")
    return -value if is_negative and (value := number(text[1:])) is not None else None


def _read_fraction(text: str) -> Fraction | None:
    whole, parts, sign = None, None, 1
    if found := _FRACTION.fullmatch(text):
        sign, whole = -1 if found[1] == "-" else 1, found[2]
        parts = (found[3], found[4]) if found[3] is not None else (found[5], found[6])
    elif text.count(":") < 2 and (found := _SLASH.fullmatch(text)):
        parts = found[1], found[2]
    if not parts or not parts[0] or not parts[1] or "%" in text:
        return None
    above, below = number(parts[0]), number(parts[1])
    if above is None or not below:
        return None
    return sign * (above / below + Fraction(re.sub("[, ]", "", whole or "0")))


def _read_repeating(text: str) -> Fraction | None:
    if not (found := _REPEATING.fullmatch(text)):
        return None
    cycle = found[4] or found[5] or found[6]
    digits = int((found[2] + found[3]) or "0") + Fraction(
        int(cycle), 10 ** len(cycle) - 1
    )
    value = Fraction(digits, 10 ** len(found[3]))
    return -value if found[1] == "-" else value


def _read_power(text: str) -> Fraction | None:
    if found := _SCIENTIFIC.fullmatch(text):
        return Fraction(found[0])
    found = _POWER.fullmatch(text)
    factor = number(found[1]) if found and found[1] else Fraction(1)
    if not found or factor is None or int(found[2]) == 0:
        return None
    return Fraction(factor * Fraction(found[2]) ** int(found[3]))


def _read_base(text: str) -> Fraction | None:
    found = _BASE.fullmatch(text)
    try:
        return (
            Fraction(int(found[1] + found[2], int(found[3])))
            if found and int(found[3]) > 1
            else None
        )
    except ValueError:
        return None


def is_approximate(text: str) -> bool:
    """Return whether a text holds a decimal of at least six significant digits, which may be rounded."""
    return any(
        len(re.sub("[.,]", "", found).lstrip("0")) >= 6
        for found in _LONG_DECIMAL.findall(text)
    )


def close(first: Fraction, second: Fraction, *, approximate: bool) -> bool:
    """Return whether two values agree: exactly, or within 1e-6 of the larger where one of them is rounded."""
    bound = max(abs(first), abs(second)) / 10**6 if approximate else 0
    return abs(first - second) <= bound
