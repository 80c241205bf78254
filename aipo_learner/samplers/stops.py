"""When a turn ends: at an end token, or when a stop string has been written."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase

_TAIL_TOKENS = 32
"""At least so many of the last tokens are searched."""
_BYTES_PER_CHAR = 4
"""A token is at least a byte, and a character of UTF-8 at most four."""


class StopFinder:
    """Finds ends of turns, and decodes little for it.

    Most tokens do not hold the last character of any stop string, so that nothing can
    end with them; only after the others is the end of the turn's text searched.

    Args:
        tokenizer: The policy's.
        extra_end_ids: Tokens that end a turn beside the tokenizer's own.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, extra_end_ids: Iterable[int] = ()
    ) -> None:
        self.tokenizer = tokenizer
        self.end_ids = {int(tokenizer.eos_token_id), *extra_end_ids}
        # A cache for each finder: one around the method would keep all finders alive.
        self._text_of = cache(self._decode_one)

    def is_end(self, token_ids: list[int], stop: tuple[str, ...]) -> bool:
        """Return whether the last token ends the turn.

        Args:
            token_ids: All that the turn has written, at least one.
            stop: The stop strings, none of them empty.
        """
        if token_ids[-1] in self.end_ids:
            return True
        last_text = self._text_of(token_ids[-1])
        if not any(string[-1] in last_text for string in stop):
            return False
        longest = max(map(len, stop))
        num_tokens = max(_TAIL_TOKENS, _BYTES_PER_CHAR * longest)
        tail = self._decode(token_ids[-num_tokens:])
        num_before = len(tail) - len(last_text)
        return any(_ends_after(string, tail, num_before) for string in stop)

    def _decode_one(self, token_id: int) -> str:
        return self._decode([token_id])

    def _decode(self, token_ids: list[int]) -> str:
        # The text exactly as it was written: a stop string may be a special token, and
        # cleaning up would take blanks away that are part of one.
        options: dict[str, Any] = {
            "skip_special_tokens": False,
            "clean_up_tokenization_spaces": False,
        }
        return str(self.tokenizer.decode(token_ids, **options))


def _ends_after(string: str, text: str, num_before: int) -> bool:
    """Return whether a string stands in a text, ending after so many characters.

    One that ended before was seen when it ended. A token may go on behind the string,
    as one of ">\\n" does, so that it need not be the end of the text.
    """
    first_start = max(0, num_before - len(string) + 1)
    return string in text[first_start:]
