"""What stands in a text in an encoding that a model may write and read.

Base 64, bytes in hexadecimal, in binary and in decimal, escapes of addresses and of
programs, and letters moved by thirteen. All of it is linear in the text.
"""

import base64
import codecs
import re

_BASE_64 = re.compile(r"[A-Za-z0-9+/]{8,400}={0,2}")
"""`MTQyODU3`."""
_ESCAPED = re.compile(r"(?:(?:%|\\x|\\u00)[0-9a-fA-F]{2}){3,400}")
"""`%33%36%32`, `\x33\x36\x32`."""
_HEX_BYTES = re.compile(
    r"(?:0x)?[0-9a-fA-F]{2}(?:[ ,:]{0,2}(?:0x)?[0-9a-fA-F]{2}){3,400}"
)
"""`33 36 32 38`."""
_BINARY_BYTES = re.compile(r"[01]{8}(?:[ ,]{0,2}[01]{8}){3,400}")
_CODES = re.compile(r"[0-9]{2,3}(?:[ ,;]{1,2}[0-9]{2,3}){3,400}")
"""`51 54 50 56`."""
_PAIR = re.compile(r"[0-9a-fA-F]{2}(?![xX])")
_MOVED = re.compile(r"(?i)\brot[- ]?13|\bcaesar")


def decoded(text: str) -> str:
    """Return what stands encoded in a text, decoded, each find on a line of its own."""
    found = [_of_base_64(block[0]) for block in _BASE_64.finditer(text)]
    for block in _ESCAPED.finditer(text):
        found.append(_of_bytes(re.findall(r"[0-9a-fA-F]{2}(?![0-9a-fA-F])", block[0])))
    for block in _HEX_BYTES.finditer(text):
        found.append(_of_bytes(_PAIR.findall(block[0])))
    for block in _BINARY_BYTES.finditer(text):
        codes = re.findall(r"[01]{8}", block[0])
        found.append(_of_codes([int(code, 2) for code in codes]))
    for block in _CODES.finditer(text):
        codes = re.findall(r"[0-9]+", block[0])
        found.append(_of_codes([int(code) for code in codes]))
    if _MOVED.search(text):
        found.append(codecs.decode(text, "rot13"))
    return "\n".join(filter(None, found))


def _of_base_64(block: str) -> str:
    bare = block.rstrip("=")
    try:
        raw = base64.b64decode(bare + "=" * (-len(bare) % 4))
    except ValueError:
        return ""
    return raw.decode("ascii") if raw.isascii() else ""


def _of_bytes(pairs: list[str]) -> str:
    return _of_codes([int(pair, 16) for pair in pairs])


def _of_codes(codes: list[int]) -> str:
    """Return what codes of printable signs spell; nothing if one of them is none."""
    are_printable = all(32 <= code < 127 for code in codes)
    return "".join(map(chr, codes)) if are_printable else ""
