"""A text without its dress: one script for digits, no markup, powers where they stand.

What the leak rule reads has passed through `plain` first, so that a number or a name
cannot hide behind a typeface. All of it is linear in the text.
"""

import html
import re
import unicodedata

_TAG_NAMES = (
    "a|abbr|b|big|blockquote|br|center|code|del|details|div|em|font|h[1-6]|hr|i|ins|kbd"
    "|li|mark|ol|p|pre|q|s|samp|small|span|strong|summary|table|tbody|td|th|thead|tr|tt"
    "|u|ul|var|wbr"
)
_TAG = re.compile(rf"(?i)</?(?:{_TAG_NAMES})(?:\s[^<>]{{0,200}})?/?>")
"""`<b>`, `</span>`, `<br/>`; not `<answer>`, and not `x <y`."""
_BREAKING_TAG = re.compile(r"(?i)</?(?:blockquote|br|div|h[1-6]|hr|li|ol|p|pre|t|ul)")
"""What of these begins a new line."""
_SCRIPT_TAG = re.compile(r"(?i)<(su[pb])>([^<>]{1,40})</su[pb]>")
"""`10<sup>6</sup>`."""
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]\w{1,20});")
"""`&#51;`, `&nbsp;`; a column of a matrix, `&3`, is none."""

_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱᵃᵇᶜᵈᵉᵏᵐᵗˣʸᶻ"
_RAISED_PLAIN = "0123456789+-=()niabcdekmtxyz"
_LOWERED = "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑᵢⱼₖₘₙₓ"
_LOWERED_PLAIN = "0123456789+-=()aeijkmnx"
_SCRIPTS = re.compile(
    rf"""
    (?<=[\w)}}\]|]) (?<![{_RAISED}{_LOWERED}])
    (?: [{_RAISED}]++ | [{_LOWERED}]++ )
    (?![\u2044/])
    """,
    re.VERBOSE,
)
"""Raised or lowered signs behind one of normal size: `x³`, `a₁`; not those of `¹/₃`."""
_PLAIN_OF = str.maketrans(_RAISED + _LOWERED, _RAISED_PLAIN + _LOWERED_PLAIN)
_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
"""Between a whole number and the fraction behind it, `12¾`."""
_DIGIT = re.compile(r"\d")
_INVISIBLE = ("Cf", "Me")
"""Categories of marks that show nothing, or enclose the sign before them."""
_VARIANT = re.compile("[\ufe00-\ufe0f]")
"""What asks for another picture of the sign before it."""


def plain(text: str) -> str:
    """Return a text without markup, with ASCII digits, and with powers as `^{…}`.

    Args:
        text: Anything; what is not dressed stays as it is.
    """
    if "&" in text:
        text = _ENTITY.sub(_of_entity, text)
    if "<" in text:
        text = _SCRIPT_TAG.sub(_of_script_tag, text)
        text = _TAG.sub(_of_tag, text)
    if text.isascii():
        return text
    # Before normalisation, which writes `10⁶` as `106`.
    text = _SCRIPTS.sub(_of_scripts, text)
    text = _VULGAR.sub(" ", text)
    text = unicodedata.normalize("NFKC", _VARIANT.sub("", text))
    if text.isascii():
        return text
    visible = [mark for mark in text if unicodedata.category(mark) not in _INVISIBLE]
    return _DIGIT.sub(_of_digit, "".join(visible))


def plain_length(text: str) -> int:
    """Return how many characters a text has at most once it is normalised.

    One character may stand for eighteen.
    """
    if text.isascii():
        return len(text)
    normalised = unicodedata.normalize("NFKC", text)
    return max(len(text), len(normalised))


def _of_entity(entity: re.Match[str]) -> str:
    return html.unescape(entity[0])


def _of_digit(digit: re.Match[str]) -> str:
    """Return the ASCII digit of one of another script."""
    return str(int(digit[0]))


def _of_script_tag(tag: re.Match[str]) -> str:
    mark = "^" if tag[1].lower() == "sup" else "_"
    return f"{mark}{{{tag[2]}}}"


def _of_tag(tag: re.Match[str]) -> str:
    return "\n" if _BREAKING_TAG.match(tag[0]) else ""


def _of_scripts(run: re.Match[str]) -> str:
    is_raised = run[0][0] in _RAISED
    mark = "^" if is_raised else "_"
    signs = run[0].translate(_PLAIN_OF)
    return f"{mark}{{{signs}}}"


# Words


_LATIN_OF = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u0501\u051b"
    "\u051d\u04bb\u043a\u043c\u0442\u0410\u0412\u0415\u041a\u041c\u041d\u041e"
    "\u0420\u0421\u0422\u0423\u0425\u0406\u0405\u0408\u03bf\u03b1\u03bd\u03c1"
    "\u03c5\u03b9\u03c4\u03ba\u03c7\u0391\u0392\u0395\u0396\u0397\u0399\u039a"
    "\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
    "aeopcyxsijdqwhkmtABEKMHOPCTYXISJoavpuitkxABEZHIKMNOPTYX",
)
"""Letters of other scripts as the Latin letters that they look like."""
# Letters that no normalisation takes apart.
_LETTERS = str.maketrans(
    {
        "æ": "ae",
        "œ": "oe",
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "\u0131": "i",
    }
)
# How names are written where a keyboard lacks the letter.
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})


def folded(text: str) -> tuple[str, ...]:
    """Return a plain text in small letters without accents, in each way to write it so.

    `Schrödinger` is both `schrodinger` and `schroedinger`.
    """
    text = text.replace("\u2019", "'")
    if text.isascii():
        return (text.lower(),)
    text = text.translate(_LATIN_OF).casefold()
    spellings = (text, text.translate(_UMLAUTS))
    # Mostly both are one.
    return tuple(dict.fromkeys(map(_without_accents, spellings)))


def _without_accents(text: str) -> str:
    parts = unicodedata.normalize("NFD", text.translate(_LETTERS))
    return "".join(mark for mark in parts if not unicodedata.combining(mark))
