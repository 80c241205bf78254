"""When a turn ends: at an end token, or when a stop string has been written."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase


class StopFinder:
    """Finds ends of turns without decoding every token: most tokens hold no last
    character of a stop string.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, extra_end_ids: Iterable[int] = ()
    ) -> None:
        self.tokenizer = tokenizer
        self.end_ids = {int(tokenizer.eos_token_id), *extra_end_ids}
        self._text_of = cache(self._decode_one)

    def is_end(self, token_ids: list[int], stop: tuple[str, ...]) -> bool:
        """Return whether the last token ends the turn."""
        if token_ids[-1] in self.end_ids:
            return True
        last = self._text_of(token_ids[-1])
        if not any(string[-1] in last for string in stop):
            return False
        tail = self._decode(token_ids[-32:])
        before = len(tail) - len(last)
        return any(
            tail.find(string, max(0, before - len(string) + 1)) >= 0 for string in stop
        )

    def _decode_one(self, token_id: int) -> str:
        return self._decode([token_id])

    def _decode(self, token_ids: list[int]) -> str:
        options: dict[str, Any] = {
            "skip_special_tokens": False,
            "clean_up_tokenization_spaces": False,
        }
        return str(self.tokenizer.decode(token_ids, **options))
