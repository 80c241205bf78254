"""What stands in a text in an encoding that a model may write and read.

Base 64, bytes in hexadecimal, in binary and in decimal, escapes of addresses and of
programs, and letters moved by thirteen. All of it is linear in the text.
"""

import base64
import codecs
import re
from collections.abc import Iterator

# A run has an upper bound, so that each search is linear; and a lower one, since what
# is short is likely to be a number or a word as it stands.
_BASE_64 = re.compile(r"[A-Za-z0-9+/]{8,400}={0,2}")
"""`MTQyODU3`."""
_ESCAPED = re.compile(r"(?:(?:%|\\x|\\u00)[0-9a-fA-F]{2}){3,400}")
r"""`%33%36%32`, `\x33\x36\x32`."""
_HEX_BYTES = re.compile(
    r"""
    (?:0x)? [0-9a-fA-F]{2}
    (?: [ ,:]{0,2} (?:0x)? [0-9a-fA-F]{2} ){3,400}
    """,
    re.VERBOSE,
)
"""`33 36 32 38`, `0x33, 0x36, 0x32, 0x38`, `33363238`."""
_BINARY_BYTES = re.compile(r"[01]{8}(?:[ ,]{0,2}[01]{8}){3,400}")
"""`00110011 00110110 00110010 00111000`."""
_CODES = re.compile(r"[0-9]{2,3}(?:[ ,;]{1,2}[0-9]{2,3}){3,400}")
"""`51 54 50 56`."""
_ESCAPED_PAIR = re.compile(r"[0-9a-fA-F]{2}(?![0-9a-fA-F])")
r"""The last two digits of `%33` and of `\u0033`."""
_HEX_PAIR = re.compile(r"[0-9a-fA-F]{2}(?![xX])")
"""Two digits; the `30` of `0x30`, and not the `0` of its mark with one before it."""
_EIGHT_BITS = re.compile(r"[01]{8}")
_DIGITS = re.compile(r"[0-9]+")
_MOVED = re.compile(r"(?i)\brot[- ]?13|\bcaesar")
"""What a text says that moves letters: `ROT13`."""
_FIRST_PRINTABLE = 32
_FIRST_BEHIND = 127
"""The codes of ASCII's printable signs begin and end here."""
_BASE_64_BLOCK = 4
"""Signs of base 64 that stand for three bytes; the last block is filled up with `=`."""


def decoded(text: str) -> str:
    """Return what stands encoded in a text, decoded, each find on a line of its own."""
    return "\n".join(filter(None, _finds(text)))


def _finds(text: str) -> Iterator[str]:
    """Yield what each run of signs spells in an encoding; nothing where it is none."""
    for run in _BASE_64.finditer(text):
        yield _of_base_64(run[0])
    for run in _ESCAPED.finditer(text):
        yield _of_numerals(_ESCAPED_PAIR.findall(run[0]), 16)
    for run in _HEX_BYTES.finditer(text):
        yield _of_numerals(_HEX_PAIR.findall(run[0]), 16)
    for run in _BINARY_BYTES.finditer(text):
        yield _of_numerals(_EIGHT_BITS.findall(run[0]), 2)
    for run in _CODES.finditer(text):
        yield _of_numerals(_DIGITS.findall(run[0]), 10)
    # Any text can be moved: only one that says so is.
    if _MOVED.search(text):
        yield codecs.decode(text, "rot13")


def _of_base_64(run: str) -> str:
    bare = run.rstrip("=")
    # A model may forget the signs at the end; Python refuses a text without them.
    padding = "=" * (-len(bare) % _BASE_64_BLOCK)
    try:
        raw = base64.b64decode(bare + padding)
    except ValueError:
        return ""
    return raw.decode("ascii") if raw.isascii() else ""


def _of_numerals(numerals: list[str], base: int) -> str:
    """Return what codes of printable signs spell; nothing if one of them is none."""
    codes = [int(numeral, base) for numeral in numerals]
    if all(_FIRST_PRINTABLE <= code < _FIRST_BEHIND for code in codes):
        return "".join(map(chr, codes))
    return ""
