"""Formulas that are spoken or written for a program, as they are written in LaTeX.

"x squared minus five x plus six" is `x ^2 - 5 x + 6`, `[[3, -1], [4, 2]]` a matrix.
"""

import re
from math import comb

_SMALL_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen twenty"
)
_NUMBER_WORDS = {
    word: str(number) for number, word in enumerate(_SMALL_NUMBERS.split())
}
_SPOKEN = {
    "plus": "+",
    "minus": "-",
    "negative": "-",
    "times": "*",
    "multiplied by": "*",
    "over": "/",
    "divided by": "/",
    "squared": "^2",
    "cubed": "^3",
    "equals": "=",
    "equal to": "=",
    "root": "\\sqrt",
    "square root of": "\\sqrt",
    "the square root of": "\\sqrt",
    "root of": "\\sqrt",
    "sqrt of": "\\sqrt",
    "to the power of": "^",
    "to the power": "^",
    "to the": "^",
    "greater than or equal to": "\\ge",
    "less than or equal to": "\\le",
    "greater than": ">",
    "less than": "<",
    "at least": "\\ge",
    "at most": "\\le",
    "sine of": "\\sin",
    "cosine of": "\\cos",
    "sine": "\\sin",
    "cosine": "\\cos",
    "open bracket": "(",
    "close bracket": ")",
    "infinity": "\\infty",
}
"""What signs are called."""
_WORDS = {**_NUMBER_WORDS, **_SPOKEN}
# The longest first: "to the power of" begins with "to the".
_LONGEST_FIRST = sorted(_WORDS, key=len, reverse=True)
_SPOKEN_WORD = re.compile(rf"\b(?:{'|'.join(_LONGEST_FIRST)})\b")
_OPERATOR = re.compile(
    r"\b(?:plus|minus|times|over|squared|cubed|root|than|at least|at most)\b"
)
"""Without one of these words a text speaks no formula: "the" and "one" are in all."""
_ROOT_OF = re.compile(r"\\sqrt\s{0,2}(\d{1,9}|[a-z])\b")
"""`\\sqrt 2`, which is to be `\\sqrt{2}`."""
_BOUNDS = re.compile(
    r"""
    \b ([a-z]) \s? (?:is\s)? (> | \\ge) \s? ([-−]?[\d.]{1,12})
    \s? (?:and|but) \s (?:is\s)? (< | \\le) \s? ([-−]?[\d.]{1,12})
    """,
    re.VERBOSE,
)
"""`x > -3 and \\le 7`, where the same left side is meant."""
_TURNED = {">": "<", "\\ge": "\\le"}
"""A lower bound's sign with its sides exchanged."""
_ROWS = re.compile(
    r"""
    \[\s?\[
    ( [^\[\]]{1,200}                                     # the first row
      (?: \] \s? [,;]? \s? \[ [^\[\]]{1,200} ){0,9} )   # and up to nine more
    \]\s?\]
    """,
    re.VERBOSE,
)
"""`[[3, -1], [4, 2]]`."""
_BETWEEN_ROWS = re.compile(r"\]\s?[,;]?\s?\[")
_COEFFICIENT = re.compile(r"(?<![\w/.])(\d{1,6})/(\d{1,6}) (?=[a-z](?![a-z]))")
"""`2/3` in `2/3 x`."""
_UNION = re.compile(r"(?<=[)\]]) ?U ?(?=[(\[])")
"""The `U` of `(1, 2) U (3, 4)`."""
_ARGUMENT = re.compile(r"\\?\b(sin|cos|tan|ln|log|exp) (\d{0,3}[a-z]) ?(?=/)")
"""`\\cos 4t` in `\\cos 4t / e^{3t}`."""
MAX_CHOSEN = 1_000
"""A larger binomial coefficient is left as it stands: it is nobody's answer."""
_BINOMIAL = re.compile(
    r"""
      \\[dt]?binom \s? \{ \s? (\d{1,4}) \s? \} \s? \{ \s? (\d{1,4}) \s? \}
    | \b[Cc] \( \s? (\d{1,4}) \s? , \s? (\d{1,4}) \s? \)
    | \b(\d{1,4}) \s choose \s (\d{1,4}) \b
    | (?<![\d.])(\d{1,4}) \s? C \s? _? \{? (\d{1,4}) \b \}?
    """,
    re.VERBOSE,
)
"""`\\binom{8}{4}`, `C(8, 4)`, `8 choose 4`, `8C4`."""


def as_formulas(text: str) -> str:
    """Return a text with its formulas in LaTeX; itself, where it has none."""
    if _OPERATOR.search(text):
        text = _SPOKEN_WORD.sub(lambda word: _WORDS[word[0]], text)
        text = _ROOT_OF.sub(r"\\sqrt{\1}", text)
        text = _BOUNDS.sub(_as_chain, text)
    if "[[" in text or "[ [" in text:
        text = _ROWS.sub(_as_matrix, text)
    text = _COEFFICIENT.sub(r"\\frac{\1}{\2} ", text)
    text = _UNION.sub(r" \\cup ", text)
    text = _ARGUMENT.sub(r"\\\1(\2)", text)
    return _BINOMIAL.sub(_chosen, text)


def _as_chain(bounds: re.Match[str]) -> str:
    """Return `-3 < x \\le 7` for bounds of one name."""
    name, lower, least, upper, most = bounds.groups()
    return f"{least} {_TURNED[lower]} {name} {upper} {most}"


def _as_matrix(rows: re.Match[str]) -> str:
    lines = _BETWEEN_ROWS.sub(r" \\\\ ", rows[1])
    cells = lines.replace(",", " & ")
    return f"\\begin{{pmatrix}} {cells} \\end{{pmatrix}}"


def _chosen(binomial: re.Match[str]) -> str:
    """Return the value of a binomial coefficient that is not too large."""
    # The groups of the other spellings are empty.
    above, below = [int(part) for part in binomial.groups() if part is not None]
    if above > MAX_CHOSEN:
        return binomial[0]
    return str(comb(above, below))
