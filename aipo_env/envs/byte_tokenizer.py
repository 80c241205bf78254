"""A tokenizer that needs no download: bytes, an end of turn, and one macro token per consult kind.

    id 0 to 255   the bytes of UTF-8
    id 256        end of turn; it also closes a call that a macro token opened
    id 257 …      macro tokens: `<knowledge>`, `<reason>`, `<verify>`, in the order of `CONSULT_KINDS`

A consultation therefore takes a macro token, the query's bytes and an end of turn. The tags may as well be
spelled byte by byte: the text is the same.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from aipo_env.codecs.tags import TagsCodec
from aipo_env.records import CONSULT_KINDS, Author, ConsultKind, Message, Span

Piece = tuple[list[int], Span]
"""Token ids and the span of text, with its author, that they stand for."""

_TAGS = {
    257 + number: [tag.encode() for tag in TagsCodec().markup((kind,))[:2]]
    for number, kind in enumerate(CONSULT_KINDS)
}
"""Opening and closing tag by macro token."""


class ByteTokenizer:
    """Byte-level tokenizer; lossless on every Python string, lone surrogates included."""

    end_id = 256
    """End of turn, and the padding before the first token."""
    macro_ids: Mapping[ConsultKind, int] = MappingProxyType(dict(zip(CONSULT_KINDS, _TAGS, strict=True)))
    """The macro token of each consult kind."""
    num_tokens = 257 + len(CONSULT_KINDS)
    """Size of the vocabulary."""

    def encode(self, text: str) -> list[int]:
        """Return the bytes of a text, no macro tokens: `encode("2+é") == [50, 43, 195, 169]`."""
        return list(text.encode("utf-8", "surrogatepass"))

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are no UTF-8 become U+FFFD.

        A macro token reads as its opening tag. An end of turn reads as the closing tag of a call that such a
        token opened and nothing closed yet, and as nothing otherwise.

        Raises:
            ValueError: An id is not in the vocabulary.
        """
        data, closing, start = bytearray(), b"", 0
        for token_id in token_ids:
            if 0 <= token_id < self.end_id:
                data.append(token_id)
            elif token_id in _TAGS:
                opening, closing = _TAGS[token_id]
                data += opening
                start = len(data)
            elif token_id == self.end_id:
                data += closing if data.find(closing, start) < 0 else b""
                closing = b""
            else:
                raise ValueError(f"token id {token_id} is not in 0 to {self.num_tokens - 1}")
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace")

    def pieces(self, message: Message) -> list[Piece]:
        """Return a message that the policy is shown: its spans, then an end of turn."""
        spans = [(self.encode(span.text), span) for span in message.spans if span.text]
        return [*spans, ([self.end_id], Span("", Author.TEMPLATE))]
