"""A tokenizer that needs no download: bytes, an end of turn, macro tokens.

    id 0 to 255   the bytes of UTF-8
    id 256        end of turn; it also closes a call that a macro token opened
    id 257 …      macro tokens: `<knowledge>`, `<reason>`, `<verify>`, in the order of
                  `CONSULT_KINDS`, then tools

A consultation therefore takes a macro token, the query's bytes and an end of turn. The
tags may as well be spelled byte by byte: the text is the same.
"""

from collections.abc import Mapping, Sequence

from aipo_env.codecs.tags import TagsCodec
from aipo_env.records import CONSULT_KINDS
from aipo_env.tokenizers.base import Tokenizer, added_macros

NUM_BYTES = 256
"""The values of a byte; each is its own token id."""


class ByteTokenizer(Tokenizer):
    """Byte-level tokenizer; lossless on every Python string, lone surrogates included.

    Args:
        macros: What opens and closes a call, by kind and tool, as `Codec.macros` gives
            it; the tags if None.
    """

    def __init__(self, macros: Mapping[str, tuple[str, str]] | None = None) -> None:
        marks = TagsCodec().macros(CONSULT_KINDS) if macros is None else macros
        end_id = NUM_BYTES
        first_macro_id = end_id + 1
        num_tokens = first_macro_id + len(marks)
        super().__init__(num_tokens, end_id, added_macros(marks, first_macro_id))

    def encode(self, text: str) -> list[int]:
        """Return the bytes of a text: `encode("2+é") == [50, 43, 195, 169]`."""
        # Python strings may hold half a surrogate pair, which UTF-8 has no bytes for.
        return list(text.encode("utf-8", "surrogatepass"))

    def _bytes(self, token_ids: Sequence[int]) -> bytes:
        return bytes(token_ids)
