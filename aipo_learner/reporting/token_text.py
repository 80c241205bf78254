"""The text of single tokens, for the viewer."""

from collections.abc import Callable
from pathlib import Path

from transformers import AutoTokenizer

from aipo_env import DataError


def token_decoder(policy: Path) -> Callable[[int], str]:
    """Return a function that gives the text of one token id of a policy's tokenizer.

    Raises:
        DataError: There is no such folder. Nothing is looked for elsewhere.
    """
    if not policy.is_dir():
        raise DataError(f"{policy}: no such folder, so its tokens cannot be read.")
    # Said and not left out: transformers would else ask whoever sits at the terminal.
    tokenizer = AutoTokenizer.from_pretrained(
        str(policy), local_files_only=True, trust_remote_code=False
    )

    def decode(token_id: int) -> str:
        text = str(tokenizer.decode([token_id]))
        # SentencePiece drops the blank before a word that is decoded alone.
        starts_word = str(tokenizer.convert_ids_to_tokens(token_id)).startswith("▁")
        return f" {text}" if starts_word and not text.startswith(" ") else text

    return decode
