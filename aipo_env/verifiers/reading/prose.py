"""How far a formula reaches that stands in prose, whether its marks are LaTeX's or not.

A formula is operands with operators between them: "x = 2.5", "$3$ and $5$", "(1, 2]".
It ends before a word, and before a mark that no operand follows, so that in "42, not
41" and "42 - because" it is 42. All of it is linear in the text.
"""

import re
from typing import Literal

from aipo_env.verifiers.reading.words import vocabulary

MAX_GROUP_CHARS = 2000
"""A longer bracket is not read."""

FUNCTIONS = vocabulary("functions")
"""Words that are part of a formula and want an operand."""
_CONSTANTS = vocabulary("constants")
"""Words that are operands themselves."""
_FORMULA_WORDS = FUNCTIONS | _CONSTANTS
_SHORT_WORDS = vocabulary("short words")
"""Short words that are never a product of variables."""
_OPERATOR_COMMANDS = vocabulary("operator commands")
"""Commands that want an operand behind them."""

Part = Literal[
    "operator",
    "function",
    "separator",
    "number",
    "letter",
    "symbol",
    "latex",
    "fence",
    "group",
]
_WANTING = ("operator", "function", "separator")
"""Parts that want an operand behind them."""

_NUMBER = re.compile(
    r"""
    (?: [0-9]{1,3} (?: ,[0-9]{3} ){1,30} (?![0-9])     # 1,234,567
    |   [0-9]{1,3} (?: [ ][0-9]{3} ){1,30} (?![0-9])   # 1 234 567
    |   [0-9]{1,3} (?: \{,\}[0-9]{3} ){1,30}           # 1{,}234
    |   [0-9]{1,2} (?: ,[0-9]{2} ){1,6} ,[0-9]{3} (?![0-9,])   # 12,34,567
    |   [0-9]{1,2000}
    )
    (?: \. (?: [0-9]{1,2000} | (?=\([0-9]) ) )?        # 12.5, 0.(3)
  | \.[0-9]{1,2000}
    """,
    re.VERBOSE,
)
_SUFFIX = re.compile(
    r"""
      (?: st | nd | rd | th ) (?![A-Za-z])             # 5th
    | [eE][-+]?[0-9]{1,9} (?![0-9A-Za-z])              # 1e-5
    | [A-Za-z]{1,4} (?![A-Za-z])                       # 5cm, 2xy, 12pi
    """,
    re.VERBOSE,
)
"""Letters that stand directly behind a number and belong to it."""
_MIXED = re.compile(r"[0-9]{1,9}[ ]?/[ ]?[0-9]{1,9}(?![0-9])")
"""What may follow a number and a blank: the fraction of 2 1/2."""
_HALF_DAY = re.compile(r"[ap]\.?[ ]?m\.?(?![A-Za-z])", re.IGNORECASE)
"""What behind a time of day says which half of it is meant."""
_WORD = re.compile(r"[A-Za-z]{1,40}")
_COMMAND = re.compile(r"\\(?:[A-Za-z]{1,40}\*?|.)")
_BLANK_COMMAND = re.compile(r"\\(?:[,;:!> ]|q?quad(?![A-Za-z]))|~")
_SCRIPTS = re.compile(
    r"(?:[ ]?[_^][ ]?(?:\{[^{}]{0,60}\}|\\?[A-Za-z0-9])){1,2}(?=[ ({\\A-Za-z0-9])"
)
"""What belongs to the name of a function: `\\log_2`."""
_OPERATORS = frozenset("+-−*/^_=<>≤≥≦≧≠≈≡×÷·∙⋅±∓\u222a∩∈\u2216√")
_PRIMES = frozenset("'\u2032")
_POSTFIX = frozenset("%‰°²³¹⁰⁴⁵⁶⁷⁸⁹ⁿ₀₁₂₃₄₅₆₇₈₉")
_SYMBOLS = frozenset("π∞∅ℝℤℕℂαβγδθλμρσφω\u03a9\u2126½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞")
"""Characters that are operands."""
_MONEY = re.compile(
    r"""
    (?: \\?\$ | [€£¥₹] | \\(?: pounds | euro | yen )(?![a-z])
      | (?: Rs\.? | R\$ | US\$ | A\$ | C\$ | HK\$ | NT\$
        | (?: USD | EUR | GBP | INR | CHF | JPY | CNY ) (?=[ ]) ) )
    [ ]? (?=[0-9.])
    """,
    re.VERBOSE,
)
_DASHES = frozenset("–—")
_HTML_TAG = re.compile(r"</?[A-Za-z_ -]{1,30}>|<\||<$")
_JOINT_WORDS = (
    r"(?:(?:and|or|und|oder|et|ou|\u0438|\u0438\u043b\u0438|lub|hoặc|và)(?!\w)"
    r"|或者?|和|与|與|及び?|または|と|또는)"
)
"""What joins two values to one answer, in some languages."""
_JOINT = re.compile(_JOINT_WORDS)
_NEXT_JOINT = re.compile(rf"[ *]*{_JOINT_WORDS}?[ *]*")
_IN_WORD = re.compile(r"[A-Za-z]")
_NEXT_WORD = re.compile(r" ?[A-Za-z]")
_WORD_GOES_ON = re.compile(r"['’][A-Za-z]|-[A-Za-z]{3}|\.[egaE]\.")
"""What shows that letters are part of a word: `x-axis`, `i.e.`"""
_FACTORIAL_GOES_ON = re.compile(r"![ ]?[-+*/^=×·÷)<>][ ]?[=]?[ ]?[0-9A-Za-z(\\]")
"""A factorial that an operator follows: `5! = 120`."""
_FRENCH = re.compile(r"\][^][()\n]{1,80}[][]")
"""An interval as the French write it: `]0, 1[`."""
_TEXT_GROUP = re.compile(
    r"\\(?:text\w{0,6}|mathrm|mbox|operatorname)[ ]?\{[^{}]{0,200}\}"
)
_PROSE_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,40}")
_VOWEL = re.compile(r"[aeiouyAEIOUY]")
_CLOSED_BY = {"$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
_BRACKET = re.compile(r"\\[{}]|[][(){}]")
_HALF_FRENCH = re.compile(r"\[[^][()\n]{1,80}\[")
"""The same with its beginning: `[0, 1[`."""
_MODULUS = ("(mod", "(\\mod", "(\\text{mod")
_MAX_BARS_CHARS = 80
_MAX_NAME_CHARS = 3
"""Longer words are no product of variables: `abc`."""
_EQUATION = re.compile(r"\s?[=<>≤≥_^(]")
_LABEL = re.compile(r"\s*\\?[A-Za-z]\w{0,3}(?:_\{?\w{1,9}\}?)?\s*$")
_ENTRY_END = re.compile(r"\s*(?:[,;]|\b(?:and|or)\b)\s*(?:(?:and|or)\b)?")
_RELATION = re.compile(r"[=<>≤≥≠≈∈]|\\(?:le|ge|lt|gt|ne|in|approx)(?![a-z])|\\[lg]eq")


def formula_end(text: str, start: int, limit: int) -> int:
    """Return where the formula ends that begins at a place; that place if none does.

    Args:
        limit: What stands there and behind is not read.
    """
    end = _Formula(text, limit).end(start)
    return _without_checks(text, start, end)


class _Formula:
    """Reads a formula part by part.

    Args:
        text: The whole text.
        limit: What stands there and behind is not read.
    """

    def __init__(self, text: str, limit: int) -> None:
        self._text = text
        self._limit = limit
        self._before: Part | None = None
        self._is_spaced = False

    def end(self, at: int) -> int:
        """Return what follows the last operand of the formula that begins here."""
        end = at
        while at < self._limit:
            if self._text[at] == " ":
                self._is_spaced = True
                at += 1
                continue
            blank = self._match(_BLANK_COMMAND, at)
            if blank:
                at = blank.end()
                continue
            following, part = self._part(at)
            # What takes no character would be read for ever.
            if part is None or following <= at:
                break
            at = following
            if part not in _WANTING:
                end = at
            self._before = part
            self._is_spaced = False
        return end

    def _match(self, pattern: re.Pattern[str], at: int) -> re.Match[str] | None:
        return pattern.match(self._text, at, self._limit)

    def _char(self, at: int) -> str:
        return self._text[at : at + 1] if at < self._limit else ""

    def _part(self, at: int) -> tuple[int, Part | None]:
        """Return where a part of the formula ends, and what it is; None if none."""
        before = self._before
        is_behind_operand = before is not None and before not in _WANTING
        if is_behind_operand:
            following = self._postfix_end(at)
            if following > at:
                return following, before
        following = self._operator_end(at, is_behind_operand)
        if following > at:
            return following, "operator"
        joint = self._match(_JOINT, at)
        separator_end = joint.end() if joint else at + 1
        if is_behind_operand and (joint or self._text[at] in ",;"):
            goes_on = self._goes_on(separator_end)
            return (separator_end, "separator") if goes_on else (at, None)
        if joint and before == "separator":  # 1, 2, and 3
            return separator_end, "separator"
        if is_behind_operand and self._is_spaced and not self._may_follow(at):
            return at, None
        return self._operand(at)

    def _postfix_end(self, at: int) -> int:
        """Return where a mark behind an operand ends: a percent sign, a factorial."""
        mark = self._text[at]
        if mark in _PRIMES:
            # A quote that closes is no prime: '42'.
            is_prime = not self._is_spaced and self._before != "number"
            return at + 1 if is_prime else at
        if mark in _POSTFIX:
            return at + 1
        if self._text.startswith("\\%", at):
            return at + 2
        is_mark = mark == "!" and not self._is_spaced
        if not is_mark or self._text.startswith(("!=", "!!"), at):
            return at
        if self._match(_FACTORIAL_GOES_ON, at):
            return at + 1
        # In prose "42!" is 42, and so is "(42)!"; "n!" and "(n-1)!" are factorials.
        is_bracket = self._before == "group" and self._text[at - 1] != "}"
        is_variable = is_bracket and not self._text[at - 2].isdigit()
        return at + 1 if is_variable or self._before == "letter" else at

    def _operator_end(self, at: int, is_behind_operand: bool) -> int:
        """Return where an operator ends; its own place if there is none."""
        mark = self._text[at]
        if mark == "\\":
            command = self._match(_COMMAND, at)
            if command is None or command[0][1:] not in _OPERATOR_COMMANDS:
                return at
            scripts = self._match(_SCRIPTS, command.end())
            return scripts.end() if scripts else command.end()
        if mark == "<" and self._match(_HTML_TAG, at):
            return at
        if mark == "!" and self._text.startswith("!=", at):
            return at + 2
        if mark == "-" and self._text.startswith("--", at):
            return at  # a dash
        if mark in _OPERATORS:
            return at + 1
        if mark in _DASHES:
            # With a blank before it a dash parts clauses; without, it is a minus.
            is_minus = not self._is_spaced or not is_behind_operand
            return at + 1 if is_minus and self._char(at + 1).isalnum() else at
        if mark == ":" and is_behind_operand:
            return at + 1 if self._is_ratio(at) else at
        return at

    def _is_ratio(self, at: int) -> bool:
        """Return whether a colon stands in `2:3` or `2 : 3`, and not in `2: 3`."""
        is_spaced_behind = self._char(at + 1) == " "
        number_at = at + 2 if is_spaced_behind else at + 1
        is_even = is_spaced_behind == self._is_spaced
        return is_even and self._char(number_at).isdigit()

    def _goes_on(self, at: int) -> bool:
        """Return whether another entry of a list begins behind a separator."""
        joint = self._match(_NEXT_JOINT, at)
        at = joint.end() if joint else at
        if self._char(at) in ("-", "+", "−", "±"):
            at += 1
        mark = self._char(at)
        if not (mark.isalpha() and mark.isascii()):
            _, part = self._operand(at)
            return part is not None
        word = self._match(_WORD, at)
        if word is None or word[0].lower() in _FORMULA_WORDS:
            return word is not None
        if self._match(_WORD_GOES_ON, word.end()):
            return False
        is_equated = self._match(_EQUATION, word.end()) is not None
        if len(word[0]) == 1:
            return self._before == "letter" or is_equated
        is_name = word[0].isupper() and len(word[0]) <= _MAX_NAME_CHARS
        return is_name and is_equated

    def _may_follow(self, at: int) -> bool:
        """Return whether an operand may follow another one and a blank: `2 \\pi`."""
        mark = self._text[at]
        if mark.isdigit():
            return self._before == "number" and self._match(_MIXED, at) is not None
        if mark == "\\":
            return self._char(at + 1) not in ("(", "[")
        if mark == "(":
            return self._before == "letter" or self._text.startswith(_MODULUS, at)
        if mark.isalpha() and mark.isascii():
            word = self._match(_WORD, at)
            if word is None or word[0] in ("a", "A", "I") or self._match(_HALF_DAY, at):
                return False
            return len(word[0]) == 1 or word[0] in _FORMULA_WORDS
        return mark in _SYMBOLS or mark == "{"

    def _operand(self, at: int) -> tuple[int, Part | None]:
        """Return where an operand ends, and what it is; None if there is none."""
        mark = self._char(at)
        end = fence_end(self._text, at, self._limit) if mark in ("$", "\\") else at
        if end > at:
            return end, "fence"
        money = self._match(_MONEY, at)
        number = self._match(_NUMBER, money.end() if money else at)
        if number:
            suffix = None if money else self._match(_SUFFIX, number.end())
            return (suffix or number).end(), "number"
        if mark == "\\":
            return self._command(at)
        if mark in ("(", "{", "["):
            return self._group(at)
        if mark == "]":
            interval = self._match(_FRENCH, at)
            return (interval.end(), "group") if interval else (at, None)
        if mark == "|":
            return self._bars(at)
        if mark and mark in _SYMBOLS:
            return at + 1, "symbol"
        return self._name(at)

    def _name(self, at: int) -> tuple[int, Part | None]:
        """Read a variable, a function's name or a product of variables."""
        word = self._match(_WORD, at)
        if word is None or _IN_WORD.search(self._text, max(0, at - 1), at):
            return at, None
        name = word[0]
        end = word.end()
        if self._match(_WORD_GOES_ON, end):
            return at, None  # it's, x-axis
        if name.lower() in FUNCTIONS:
            return end, "function"
        if name in _CONSTANTS:
            return end, "symbol"
        if len(name) == 1:
            # "a" and "I" before a word are words.
            is_word = name in "aAI" and self._match(_NEXT_WORD, end)
            return (at, None) if is_word else (end, "letter")
        if name.lower() in _SHORT_WORDS or len(name) > _MAX_NAME_CHARS:
            return at, None
        is_in_formula = name.isupper() or self._match(_EQUATION, end)
        return (end, "letter") if is_in_formula else (at, None)

    def _command(self, at: int) -> tuple[int, Part | None]:
        """Read a command of LaTeX's with its arguments, or an environment."""
        command = self._match(_COMMAND, at)
        if command is None:
            return at, None
        if command[0] == "\\{":
            limit = min(self._limit, at + MAX_GROUP_CHARS)
            end = self._text.find("\\}", at, limit)
            return (end + 2, "group") if end >= 0 else (at, None)
        if not command[0][1:2].isalpha():
            return at, None
        if command[0] == "\\begin":
            end = self._text.rfind("\\end{", at, self._limit)
            close = self._text.find("}", end, self._limit) if end >= 0 else -1
            return (close + 1, "group") if close >= 0 else (at, None)
        end = command.end()
        opening = "{[" if command[0] == "\\sqrt" else "{"
        while self._char(end) and self._char(end) in opening:
            following = _matching(self._text, end, self._limit)
            if following == end:
                break
            end = following
        return end, "latex"

    def _group(self, at: int) -> tuple[int, Part | None]:
        """Read a bracket that is closed and holds no prose."""
        end = _matching(self._text, at, self._limit)
        if end == at:
            return at, None  # never closed
        inner = self._text[at + 1 : end - 1]
        if not inner.strip() or is_prose(inner):
            return at, None
        return end, "group"

    def _bars(self, at: int) -> tuple[int, Part | None]:
        """Read `|x|`."""
        limit = min(self._limit, at + _MAX_BARS_CHARS)
        end = self._text.find("|", at + 1, limit)
        if end < 0:
            return at, None
        inner = self._text[at + 1 : end]
        if not inner.strip() or inner[0] == " " or "\n" in inner:
            return at, None
        return (at, None) if is_prose(inner) else (end + 1, "group")


def _matching(text: str, at: int, limit: int) -> int:
    """Return what follows the bracket that closes one; its own place if none does.

    Brackets match by number, not by shape: `[0, 1)` is an interval.
    """
    interval = _HALF_FRENCH.match(text, at, limit)
    if interval:
        return interval.end()
    depth = 0
    for bracket in _BRACKET.finditer(text, at, min(limit, at + MAX_GROUP_CHARS)):
        depth += 1 if bracket[0][-1] in "([{" else -1
        if depth == 0:
            return bracket.end()
    return at


def is_prose(text: str) -> bool:
    """Return whether a text holds words that are no names of functions."""
    bare = _TEXT_GROUP.sub("", text)
    for word in _PROSE_WORD.findall(bare):
        is_name = word.lower() in FUNCTIONS or word in _CONSTANTS
        is_short = len(word) <= _MAX_NAME_CHARS
        is_product = is_short and (word.isupper() or not _VOWEL.search(word))
        is_joint = word in ("and", "or")
        if not (is_name or is_product or is_joint):
            return True
    return False


def fence_end(text: str, at: int, limit: int) -> int:
    """Return where `$…$`, `\\(…\\)` or `\\[…\\]` ends; its own place if there is none.

    A dollar sign before a sum of money opens no formula.
    """
    opening = "$$" if text.startswith("$$", at) else text[at]
    if text[at] == "\\":
        opening = text[at : at + 2]
    closing = _CLOSED_BY.get(opening)
    if closing is None:
        return at
    inner_at = at + len(opening)
    end = text.find(closing, inner_at + 1, limit)
    while end > 0 and opening == "$" and text[end - 1] == "\\":
        end = text.find(closing, end + 1, limit)
    if end < 0:
        return at
    inner = text[inner_at:end]
    if not inner.strip():
        return at
    if opening == "$" and (inner[0].isdigit() or inner[0] == "."):
        # "$5 and 3 more cost $7" are two sums; "$5 + x$" is a formula.
        behind = text[end + 1 : end + 2]
        is_money = is_prose(inner) or (inner[-1] == " " and behind.isdigit())
        if is_money:
            return at
    return end + len(closing)


def _without_checks(text: str, start: int, end: int) -> int:
    """Return where a list ends without what only confirms it: `42, and 6*7 = 42`."""
    if "=" not in text[start:end]:
        return end
    formula = _Formula(text, end)
    at = start
    while at < end:
        # Commas in brackets and formulas part no entries of this list.
        if text[at] in "({[$\\":
            following, _ = formula._operand(at)
            at = max(following, at + 1)
            continue
        separator = _ENTRY_END.match(text, at, end)
        if separator and at > start:
            first = text[start:at]
            is_value = not _RELATION.search(first) and not _LABEL.fullmatch(first)
            return at if is_value and "=" in text[separator.end() : end] else end
        at += 1
    return end
