"""The texts of an episode's tokens, for the viewer.

A character may be spread over several tokens: byte-level vocabularies cut it between
its bytes in UTF-8, others spell a rare one byte by byte. It is shown whole, at the
token that completes it.
"""

import codecs
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from aipo_env import DataError, TokenTexts

_WORD_START = "▁"
"""SentencePiece's mark for a blank before a word: U+2581, and no underscore."""
_REPLACEMENT = "\ufffd"
"""What stands in a text where bytes are no character."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A token of one byte in vocabularies that fall back to bytes."""
_NUM_BYTES = 256
_VISIBLE_BYTES = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))
"""Bytes that byte-level vocabularies write as the character of that number."""


def token_decoder(policy: Path) -> TokenTexts:
    """Return what gives the texts of tokens of a policy's tokenizer.

    Each call is given the ids of tokens that follow each other. Its time is linear in
    their number.

    Raises:
        DataError: There is no such folder. Nothing is looked for elsewhere.
    """
    if not policy.is_dir():
        raise DataError(f"{policy}: no such folder, so its tokens cannot be read.")
    # The second is said and not left out: transformers would else ask whoever sits at
    # the terminal whether to run the folder's code.
    tokenizer = AutoTokenizer.from_pretrained(
        str(policy), local_files_only=True, trust_remote_code=False
    )

    @cache
    def content(token_id: int) -> bytes:
        return _token_bytes(tokenizer, token_id)

    def texts(token_ids: Sequence[int]) -> list[str | None]:
        return texts_of_bytes([content(token_id) for token_id in token_ids])

    return texts


def texts_of_bytes(contents: Sequence[bytes]) -> list[str | None]:
    """Return the text of each token in a row from their bytes.

    A character belongs to the token that completes it. None stands for a token that
    completes none, and holds a part of one; U+FFFD for what is no character.

    >>> texts_of_bytes([b"a", "中".encode()[:1], "中".encode()[1:]])
    ['a', None, '中']
    """
    # It keeps what of a character has come so far.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts: list[str | None] = []
    for content in contents:
        text = decoder.decode(content)
        is_part = content and not text
        texts.append(None if is_part else text)
    rest = decoder.decode(b"", final=True)
    if rest:
        # The last character was never completed.
        texts[-1] = (texts[-1] or "") + rest
    return texts


def _token_bytes(tokenizer: Any, token_id: int) -> bytes:
    """Return what a token adds to the text, in UTF-8; it may be a part of a character.

    Nothing, where the tokenizer has no token of that number.
    """
    try:
        token = tokenizer.convert_ids_to_tokens(token_id)
        text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    # Which number is too large for it, only the tokenizer knows.
    except (IndexError, KeyError, OverflowError, TypeError, ValueError):
        return b""
    if not isinstance(token, str):
        return b""
    # Only where its text alone is not whole do its bytes say more.
    content = _raw_bytes(token) if _REPLACEMENT in text else None
    # What was read into the token is what the tokenizer reads in it.
    if content is not None and content.decode("utf-8", "replace") == text:
        return content
    if token.startswith(_WORD_START):
        # SentencePiece drops blanks where a word is decoded alone.
        num_blanks = len(token) - len(token.lstrip(_WORD_START))
        text = " " * num_blanks + text.lstrip(" ")
    # Half a surrogate pair, which a vocabulary in JSON may hold, is no UTF-8.
    return text.encode("utf-8", "replace")


def _raw_bytes(token: str) -> bytes | None:
    """Return the bytes that a token of a vocabulary is written for, if it is for such.

    Either `<0xE4>`, one byte, or in the alphabet of byte-level vocabularies.
    """
    match = _BYTE.fullmatch(token)
    if match:
        return bytes([int(match[1], 16)])
    alphabet = _byte_alphabet()
    if not all(char in alphabet for char in token):
        return None
    return bytes(alphabet[char] for char in token)


@cache
def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of byte-level vocabularies stands for.

    Visible bytes stand for themselves; the others, in order, are the characters from
    256 on.
    """
    visible = {byte for part in _VISIBLE_BYTES for byte in part}
    alphabet = {chr(byte): byte for byte in visible}
    others = [byte for byte in range(_NUM_BYTES) if byte not in visible]
    for position, byte in enumerate(others):
        alphabet[chr(_NUM_BYTES + position)] = byte
    return alphabet
