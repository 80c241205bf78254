"""Mathematical text in one spelling, what of it is refused, and its plain numbers.

Plain numbers are those whose value is known without any algebra.

Texts are short, MAX_CHARS at most, and every pattern here is linear in them as it meets
them: no two blanks stand side by side, so that patterns may say `\\s*` one after
another.
"""

import json
import re
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

MAX_CHARS = 2000
"""A longer answer is refused."""
TABLES = json.loads(Path(__file__).with_name("tables.json").read_text(encoding="utf-8"))
MAX_NESTING = 30
"""Deeper brackets are refused: the parser of the algebra calls itself for each."""
_MAX_MATRIX_MARKS = 100
"""More separators of columns, or of rows, make a matrix that takes too long."""
_MAX_WRAPPINGS = 5
"""How many commands of style, one within the other, are taken off."""
_MAX_NUMBER_CHARS = 700
"""Room for a fraction of two numbers of 300 digits, each with its thousands apart."""
_SIGNIFICANT_DIGITS = 6
"""A decimal of so many significant digits may be rounded; a shorter one is exact."""
_PRECISION = 10**6
"""A rounded value may differ by one part in so many."""
_WHOLE_PRECISION = Fraction(1, 1000)
"""A rounded value may differ from a whole number by no more, however large it is."""

_BOMBS: dict[str, str] = TABLES["bombs"]
"""Patterns of what exhausts a computer, by the reason that is given for refusing it."""
_BOMB = re.compile("|".join(f"({pattern})" for pattern in _BOMBS.values()))
CONNECTIVES = frozenset(TABLES["connectives"].split())
"""Words that change what an answer says; other words beside a number are its unit."""

# An alternation takes the first branch that matches: "mm" must come before "m".
_UNITS = sorted(TABLES["units"].split(), key=len, reverse=True)
_ALTERNATIVES = {
    "FUNCTIONS": "|".join(TABLES["functions"].split()),
    "UNITS": "|".join(_UNITS),
    "LONG": "|".join(unit for unit in _UNITS if len(unit) > 1),
}
"""What the placeholders in the patterns of the tables stand for."""
_PLACEHOLDER = re.compile("|".join(_ALTERNATIVES))

_CHARACTERS = re.compile("|".join(map(re.escape, TABLES["characters"])))
_ROOT = re.compile(r"√\s?([0-9]+|[A-Za-z])")
_CJK_TAIL = re.compile(
    r"""
    (?<=[0-9}%)a-zA-Z]) \s*
    [\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]+    # kana, ideograms, Hangul: 5 個
    \s* [.,]? \s* $
    """,
    re.VERBOSE,
)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_BLANKS = re.compile(r"\s{2,}")
_ORNAMENTS = " *_"
"""Blanks and the marks of bold and italic type, which may stand around an answer."""
_QUOTED = re.compile(r"""["'“\u2018«](?P<inner>[^"'“”\u2018’«»]{1,200})["'”’»][.!]?""")
_WRAPPER = re.compile(rf"\\(?:{TABLES['wrappers']})\s*\{{([^{{}}]*)\}}")
_WORD_TAIL = re.compile(
    r"""
    (?P<number> [-+0-9.,%]*[0-9%] )
    (?: \s+ (?=[^\W\d_]{3})          # 5 apples: shorter words may be variables
    |       (?=[^\W\d_]{4}) )        # 5apples: even three letters may be a product
    (?P<words> [^\W\d_] (?: [^\W\d_] | [\s,'.-] )+ )
    """,
    re.VERBOSE,
)
_WORD = re.compile(r"[a-z]+")
_CHANGES = re.compile(r"\w*illions?|\w+fold|\w{2,}(?:th|ieth)s")
"""Words beside a number that multiply or divide it: quintillion, tenfold, ninths."""
_PART_LABEL = re.compile(r"(?:[,;]? and |[,; ]|^)?\(([a-h])\) ?")
_FRENCH = re.compile(
    r"(?P<opening>[][])(?P<inner>[^][()\n]{1,200}?[,;][^][()\n]{1,200})(?P<closing>[][])"
)
_FRENCH_END = re.compile(
    r"^\s*\]|(?:\\cup|\\cap|=|\\in|,)\s*\]|\[\s*(?:$|\\cup|\\cap|,)"
)
"""Where a bracket stands that is turned outwards."""
_BRACKET = re.compile(r"[({\[\])}]")

_DIGITS = r"""
    (?: [0-9]{1,300}                          # 1234567
    |   [0-9]{1,3} (?: ,[0-9]{3} ){1,100}     # 1,234,567
    |   [0-9]{1,3} (?: [ ][0-9]{3} ){1,100}   # 1 234 567
    |   [0-9]{1,2} (?: ,[0-9]{2} ){1,9} ,[0-9]{3}   # 12,34,567
    )
"""
"""A whole number, to stand in verbose patterns.

It has a bound because reading a number takes time quadratic in its digits.
"""
_THOUSANDS_MARK = re.compile("[, ]")
_PLAIN = re.compile(
    r"(?P<signs>[+-]*) \s*"
    rf"(?P<whole>{_DIGITS})?"
    r"(?: \. (?P<decimals>[0-9]{0,300}) )?",  # 12.5, .5, 12.
    re.VERBOSE,
)
_NUMBER_BEGINS = re.compile(r"[-+0-9.(\\{A-Z]")
"""The first character of every number; a capital is a digit, as in FF_{16}."""
_INNER_MARK = re.compile(r"[(){},]")
_REPEATING = re.compile(
    r"""
    (?P<sign>[+-]?)
    (?P<whole>[0-9]{0,300}) \. (?P<decimals>[0-9]{0,300})
    (?: \\overline\{ (?P<overlined>[0-9]{1,300}) \}    # 0.1\overline{6}
    |   \( (?P<bracketed>[0-9]{1,300}) \)              # 0.1(6)
    |   \\dot\{ (?P<dotted>[0-9]) \}                   # 0.1\dot{6}
    )
    (?: \.\.\. | \\[lc]?dots )?
    """,
    re.VERBOSE,
)
_FRACTION = re.compile(
    r"(?P<sign>[+-]?) \s*"
    rf"(?P<whole>{_DIGITS})? \s*"
    r"""
    (?: \\frac\{ (?P<above>[^{}]*) \}\{ (?P<below>[^{}]*) \}   # 2\frac{1}{2}
    |   (?<=[0-9][ ])                                          # 2 1/2
        (?P<above_slash>[0-9]{1,300}) / (?P<below_slash>[0-9]{1,300})
    )
    """,
    re.VERBOSE,
)
_SLASH = re.compile(
    r"""
    (?P<above> \(?[^/()]*\)? ) \s*
    (?: / | : | \\div )             # (-3)/4, 3:4, 3 \div 4
    \s* (?P<below> \(?[^/()]*\)? )
    """,
    re.VERBOSE,
)
_POWER = re.compile(
    r"""
    (?: (?P<factor> .*?[0-9.}] ) \s* (?: \\times | \\cdot | \* ) )?   # 3 \times
    \s* (?P<base> [0-9]{1,6} )
    \^\{? (?P<exponent> -?[0-9]{1,3} ) \}?                            # 10^{-4}
    """,
    re.VERBOSE | re.DOTALL,
)
_SCALES: dict[str, int] = TABLES["scales"]
"""Words that multiply the number before them, and by which power of ten."""
_NUMBER_WORDS: dict[str, int] = {
    word: value for value, word in enumerate(TABLES["number_words"].split())
} | {word: 10 * tens for tens, word in enumerate(TABLES["tens"].split(), 2)}
"""Whole numbers that are one word, up to ninety."""
_PARTS: dict[str, int] = TABLES["parts"]
"""Words for the parts of a whole, and how many it has."""
_POWERS_OF_THOUSAND = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_MAX_WORDS_CHARS = 120
"""A longer text is no number in words."""
_MAX_COUNTED_WORDS = 2
"""Of what a number in words counts."""
_WORD_GAP = re.compile(r"[ -]+(?:and )?")
_DIGIT = re.compile(r"[0-9\\]")
_SCALED = re.compile(
    rf"(?P<factor>[-+0-9.,]*[0-9])\s*(?P<scale>{'|'.join(_SCALES)})", re.IGNORECASE
)
_SCIENTIFIC = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?[eE][+-]?[0-9]{1,3}")
_NUMERAL = re.compile(
    r"""
    (?P<sign>-?)
    (?P<digits> [A-Z]{0,9}[0-9][0-9A-Z]{0,290} )
    _\{? (?P<base> [0-9]{1,2} ) \}?               # 101_2, 1F_{16}
    """,
    re.VERBOSE,
)
_LONG_DECIMAL = re.compile(r"[0-9][0-9,]*\.[0-9]+|\.[0-9]+")
_DIGIT_MARK = re.compile("[.,]")


def _rules(name: str) -> list[tuple[re.Pattern[str], str]]:
    """Return the rewriting rules of a table, in the order in which they are applied."""
    rules = []
    for pattern, replacement in TABLES[name]:
        filled = _PLACEHOLDER.sub(lambda word: _ALTERNATIVES[word[0]], pattern)
        rules.append((re.compile(filled), replacement))
    return rules


_SPELLING = _rules("spelling")
_NOTATION = _rules("notation")
_UNITS_BEHIND = _rules("units_behind")


@lru_cache(4096)
def clean(text: str) -> str:
    """Return an answer in one spelling.

    It is LaTeX without sizes, fonts, currency, units and ornaments.

    Args:
        text: MAX_CHARS long at most.
    """
    if not text.isascii():
        text = _ROOT.sub(r"\\sqrt{\1}", text)
        text = _CHARACTERS.sub(_ascii_character, text)
        # One character may have become ten; the bound holds for what the rules see.
        text = text[:MAX_CHARS]
        text = _CJK_TAIL.sub("", text)
    text = " ".join(text.split()).strip(_ORNAMENTS)
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        text = quoted["inner"].strip(_ORNAMENTS)
    text = _apply(_SPELLING, _in_order(text))
    text = _COMMAND.sub(_usual_command, text)
    for _ in range(_MAX_WRAPPINGS):
        # The pattern matches innermost wrappers only: each round takes off one layer.
        text, num_changes = _WRAPPER.subn(_unwrapped, text)
        if not num_changes:
            break
    text = _apply(_NOTATION, text)
    if "[" in text or "]" in text:
        text = _with_round_brackets(text)
    text = drop_units(text.lstrip(_ORNAMENTS).rstrip(_ORNAMENTS + ".,;:"))
    return text if _DIGIT.search(text) else number_in_words(text) or text


def number_in_words(text: str) -> str:
    """Return a number that is written in words in digits; "" for any other text.

    Nouns behind it are left off.

    >>> number_in_words("two hundred and forty-two")
    '242'
    >>> number_in_words("three quarters")
    '3/4'
    """
    if len(text) > _MAX_WORDS_CHARS:
        return ""
    words = _WORD_GAP.split(text.strip().lower())
    sign = "-" if words[0] in ("minus", "negative") else ""
    words = words[1:] if sign else words
    for size in range(len(words), 0, -1):
        value = _value_in_words(words[:size])
        if value is not None:
            is_counted = size < len(words) and _is_counted(words[0], words[size:])
            is_whole = size == len(words)
            return f"{sign}{value}" if is_whole or is_counted else ""
    return ""


def _is_counted(first: str, words: list[str]) -> bool:
    """Return whether words behind a number are what it counts: five apples."""
    numbers = {*_NUMBER_WORDS, *_PARTS, *_POWERS_OF_THOUSAND, "hundred"}
    is_short = len(words) <= _MAX_COUNTED_WORDS and min(map(len, words)) > 2
    is_article = first in ("a", "an")
    return is_short and not is_article and not {*numbers, *CONNECTIVES} & set(words)


def _value_in_words(words: list[str]) -> Fraction | None:
    """Return the value of a whole number, a fraction or a mixed number in words."""
    parts = _PARTS.get(words[-1]) if len(words) > 1 else None
    if parts is None:
        whole = _whole_in_words(words)
        return None if whole is None else Fraction(whole)
    above = _whole_in_words(words[:-1])
    if above is not None:
        return Fraction(above, parts)
    # Three and a half: the last word but one counts the parts.
    whole = _whole_in_words(words[:-2])
    above = _whole_in_words(words[-2:-1])
    if whole is None or above is None:
        return None
    return whole + Fraction(above, parts)


def _whole_in_words(words: list[str]) -> int | None:
    """Return the whole number of some words; None if they are none."""
    total = 0
    below_thousand: int | None = None
    for word in words:
        size = _POWERS_OF_THOUSAND.get(word)
        value = 1 if word in ("a", "an") else _NUMBER_WORDS.get(word)
        if size is not None and below_thousand is not None:
            total += below_thousand * size
            below_thousand = None
        elif word == "hundred" and below_thousand is not None:
            below_thousand *= 100
        elif value is not None and below_thousand is None:
            below_thousand = value
        elif value is not None and _fits_behind(below_thousand or 0, value):
            below_thousand = (below_thousand or 0) + value
        else:
            return None
    if below_thousand is None:
        return total or None
    return total + below_thousand


def _fits_behind(before: int, value: int) -> bool:
    """Return whether a word may follow others: forty-two, but not two forty."""
    ones = before % 100
    return ones == 0 or (ones >= 20 and ones % 10 == 0 and value < 10)


def _ascii_character(character: re.Match[str]) -> str:
    return str(TABLES["characters"][character[0]])


def _usual_command(command: re.Match[str]) -> str:
    synonyms: dict[str, str] = TABLES["synonyms"]
    return synonyms.get(command[1], command[0])


def _in_order(text: str) -> str:
    """Return the answers to several parts, `(a) 3, (b) 4`, as a tuple: `(3, 4)`.

    A list without brackets could be in any order.
    """
    if not text.startswith("(a)"):
        return text
    before, *rest = _PART_LABEL.split(text)
    labels, values = rest[::2], [value.strip(" ,;.") for value in rest[1::2]]
    is_whole = not before and len(labels) > 1 and all(values)
    if not is_whole or "".join(labels) != "abcdefgh"[: len(labels)]:
        return text
    return f"({', '.join(values)})"


def _with_round_brackets(text: str) -> str:
    """Return French intervals, `]0, 1[`, with the usual brackets: `(0, 1)`."""
    if not _FRENCH_END.search(text):
        return text
    return _FRENCH.sub(_as_interval, text)


def _as_interval(interval: re.Match[str]) -> str:
    opening = "[" if interval["opening"] == "[" else "("
    closing = "]" if interval["closing"] == "]" else ")"
    return f"{opening}{interval['inner']}{closing}"


def _unwrapped(wrapper: re.Match[str]) -> str:
    """Return what a command of style holds; a word is set apart from its neighbours."""
    content = wrapper[1]
    return content if len(content) < 2 else f" {content} "


def drop_units(text: str) -> str:
    """Drop what stands behind a number and does not change it.

    Degrees stay; the endings of ordinals, units and words of no consequence go.
    """
    text = _apply(_UNITS_BEHIND, text).strip()
    tail = _WORD_TAIL.fullmatch(text)
    if tail is None:
        return text
    words = _WORD.findall(tail["words"].lower())
    scale = ""
    if words[0] in _SCALES:
        scale = f" {words.pop(0)}"  # 5 million dollars
    is_changed = any(map(_CHANGES.fullmatch, words)) or CONNECTIVES & set(words)
    return text if is_changed else tail["number"] + scale


def screen(text: str) -> str:
    """Return why no algebra may see a clean text; empty when it may.

    Such a text is built to exhaust a computer.
    """
    if len(text) > MAX_CHARS:
        return f"more than {MAX_CHARS} characters"
    bomb = _BOMB.search(text)
    if bomb:
        # Each reason's pattern is one group: the group that matched tells the reason.
        return list(_BOMBS)[(bomb.lastindex or 1) - 1]
    if _nesting(text) > MAX_NESTING:
        return f"brackets nested deeper than {MAX_NESTING}"
    num_columns = text.count("&")
    num_rows = text.count("\\\\")
    if max(num_columns, num_rows) > _MAX_MATRIX_MARKS:
        return "a matrix that is too large"
    return ""


def _nesting(text: str) -> int:
    """Return how deep brackets are nested, whatever they are closed by."""
    depth = 0
    deepest = 0
    for bracket in _BRACKET.findall(text):
        depth += 1 if bracket in "({[" else -1
        deepest = max(deepest, depth)
    return deepest


def _apply(rules: list[tuple[re.Pattern[str], str]], text: str) -> str:
    """Rewrite a text rule by rule, and keep its blanks apart."""
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
        # The next pattern is linear only if no two blanks stand side by side.
        if "  " in text:
            text = _BLANKS.sub(" ", text)
    return text


@lru_cache(8192)
def number(text: str) -> Fraction | None:
    """Return the exact value of a plain number in clean text, or None when it is none.

    Integers, decimals, repeating decimals, fractions, mixed numbers, ratios, percents,
    degrees, thousands, powers, scientific notation and numerals with their base.
    """
    text = text.strip()
    plain = _PLAIN.fullmatch(text)
    if plain and (plain["whole"] or plain["decimals"]):
        return _plain_value(plain)
    if len(text) > _MAX_NUMBER_CHARS or not _NUMBER_BEGINS.match(text):
        return None
    if text.endswith("%"):
        return _read_percent(text)
    if text.endswith("^\\circ"):
        return _read_degrees(text)
    for reader in _NUMBER_READERS:
        value = reader(text)
        if value is not None:
            return value
    # One pair of brackets only: what holds more may be a tuple or a product.
    is_bracketed = text[0] + text[-1] in ("()", "{}")
    inner = text[1:-1]
    if is_bracketed and not _INNER_MARK.search(inner):
        return number(inner)
    if text.startswith(("-(", "-\\")):
        value = number(text[1:])
        return None if value is None else -value
    return None


def _plain_value(plain: re.Match[str]) -> Fraction:
    whole = _THOUSANDS_MARK.sub("", plain["whole"] or "0")
    decimals = plain["decimals"] or "0"
    value = Fraction(f"{whole}.{decimals}")
    is_negative = plain["signs"].count("-") % 2 == 1
    return -value if is_negative else value


def _read_percent(text: str) -> Fraction | None:
    """Read `5%`; a row of signs is no number, and must not be read sign by sign."""
    if text.endswith("%%"):
        return None
    value = number(text[:-1])
    return None if value is None else value / 100


def _read_degrees(text: str) -> Fraction | None:
    """Read `30^\\circ`; a row of signs is no number either."""
    bare = text.removesuffix("^\\circ").rstrip()
    return None if bare.endswith("^\\circ") else number(bare)


def _read_fraction(text: str) -> Fraction | None:
    """Read `\\frac{1}{2}`, `2\\frac{1}{2}`, `2 1/2`, `1/2`, `1:2` and `1 \\div 2`."""
    if "%" in text:
        return None
    fraction = _FRACTION.fullmatch(text)
    if fraction:
        is_slashed = fraction["above"] is None
        above = fraction["above_slash"] if is_slashed else fraction["above"]
        below = fraction["below_slash"] if is_slashed else fraction["below"]
        value = _quotient(above, below)
        if value is None:
            return None
        value += Fraction(_THOUSANDS_MARK.sub("", fraction["whole"] or "0"))
        return -value if fraction["sign"] == "-" else value
    # 1:2:3 is a ratio of three, which is no number.
    slash = _SLASH.fullmatch(text) if text.count(":") < 2 else None
    return _quotient(slash["above"], slash["below"]) if slash else None


def _quotient(above: str, below: str) -> Fraction | None:
    """Return the quotient of two numbers; None if one is none, or the divisor is 0."""
    if not above or not below:
        return None
    dividend = number(above)
    divisor = number(below)
    if dividend is None or not divisor:
        return None
    return dividend / divisor


def _read_repeating(text: str) -> Fraction | None:
    """Read `0.1\\overline{6}`, `0.1(6)` and `0.1\\dot{6}`."""
    decimal = _REPEATING.fullmatch(text)
    if decimal is None:
        return None
    cycle = decimal["overlined"] or decimal["bracketed"] or decimal["dotted"]
    # 0.666… is 6/9 and 0.0909… is 9/99: a cycle over as many nines as it has digits.
    tail = Fraction(int(cycle), 10 ** len(cycle) - 1)
    digits = int((decimal["whole"] + decimal["decimals"]) or "0")
    value: Fraction = (digits + tail) / 10 ** len(decimal["decimals"])
    return -value if decimal["sign"] == "-" else value


def _read_power(text: str) -> Fraction | None:
    """Read `1e5`, `2^{10}` and `3 \\times 10^{-4}`."""
    if _SCIENTIFIC.fullmatch(text):
        return Fraction(text)
    power = _POWER.fullmatch(text)
    if power is None:
        return None
    factor = number(power["factor"]) if power["factor"] else Fraction(1)
    base = Fraction(power["base"])
    if factor is None or base == 0:
        return None
    return Fraction(factor * base ** int(power["exponent"]))


def _read_scaled(text: str) -> Fraction | None:
    """Read `5 million`."""
    scaled = _SCALED.fullmatch(text)
    if scaled is None:
        return None
    factor = number(scaled["factor"])
    return None if factor is None else factor * 10 ** _SCALES[scaled["scale"].lower()]


def _read_numeral(text: str) -> Fraction | None:
    """Read `101_2` and `1F_{16}`."""
    numeral = _NUMERAL.fullmatch(text)
    if numeral is None:
        return None
    base = int(numeral["base"])
    # Python takes base 0 for "as the literal says"; of base 1 it knows nothing.
    if base < 2:
        return None
    try:
        return Fraction(int(numeral["sign"] + numeral["digits"], base))
    except ValueError:  # a digit that the base lacks, or a base above 36
        return None


_NUMBER_READERS = (
    _read_fraction,
    _read_repeating,
    _read_power,
    _read_numeral,
    _read_scaled,
)


def is_approximate(text: str) -> bool:
    """Return whether a text holds a decimal that may be rounded.

    It has at least six significant digits.
    """
    for decimal in _LONG_DECIMAL.findall(text):
        digits = _DIGIT_MARK.sub("", decimal).lstrip("0")
        if len(digits) >= _SIGNIFICANT_DIGITS:
            return True
    return False


def close(first: Fraction, second: Fraction, *, approximate: bool) -> bool:
    """Return whether two values agree: exactly, or nearly where one of them is rounded.

    Nearly is within 1e-6 of the larger, and never near enough to be another whole
    number.
    """
    larger = max(abs(first), abs(second))
    bound = larger / _PRECISION if approximate else Fraction(0)
    if first.denominator == 1 or second.denominator == 1:
        bound = min(bound, _WHOLE_PRECISION)
    return abs(first - second) <= bound


def same_numbers(first: str, second: str) -> bool | None:
    """Return whether two plain numbers agree; None where one of the texts is none.

    Two decimals of as many places are rounded alike and must be equal; of others the
    longer, rounded or cut off, is the shorter.
    """
    one = number(first)
    other = number(second)
    if one is None or other is None:
        return None
    is_rounded = is_approximate(first) or is_approximate(second)
    if not close(one, other, approximate=is_rounded):
        return False
    places = [_num_places(text) for text in (first, second) if is_approximate(text)]
    known = [count for count in places if count is not None]
    if one == other or not known:
        return True
    if len(known) == 2 and known[0] == known[1]:
        return False
    return abs(one - other) <= Fraction(1, 10 ** min(known))


def _num_places(text: str) -> int | None:
    """Return how many decimals a plain decimal has; None for anything else."""
    plain = _PLAIN.fullmatch(text.strip())
    if plain is None or plain["decimals"] is None:
        return None
    return len(plain["decimals"])
