"""The text of single tokens, for the viewer."""

from collections.abc import Callable
from pathlib import Path

from transformers import AutoTokenizer

from aipo_env import DataError

_WORD_START = "▁"
"""SentencePiece's mark for the blank before a word: U+2581, and no underscore."""


def token_decoder(policy: Path) -> Callable[[int], str]:
    """Return a function that gives the text of one token id of a policy's tokenizer.

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

    def decode(token_id: int) -> str:
        text = str(tokenizer.decode([token_id]))
        token = str(tokenizer.convert_ids_to_tokens(token_id))
        # SentencePiece writes the blank before a word as a mark of its own, and drops
        # it where the word is decoded alone.
        has_lost_blank = token.startswith(_WORD_START) and not text.startswith(" ")
        return f" {text}" if has_lost_blank else text

    return decode
