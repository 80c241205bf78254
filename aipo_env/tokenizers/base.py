"""What a token environment asks of a tokenizer, and what all of them share: turns,
macro tokens, pieces.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from aipo_env.records import Author, Message, Span

Piece = tuple[list[int], Span]
"""Token ids and the span of text, with its author, that they stand for."""


class Tokenizer(ABC):
    """Text to token ids and back, with an end of turn and macro tokens.

    Args:
        num_tokens: Size of the vocabulary.
        end_id: The end of turn, and the padding before the first token.
        macros: By kind or tool, the macro token and what opens and closes its call in
            text.
    """

    def __init__(
        self,
        num_tokens: int,
        end_id: int,
        macros: Mapping[str, tuple[int, tuple[str, str]]],
    ) -> None:
        self.num_tokens, self.end_id = num_tokens, end_id
        self.macro_ids: Mapping[str, int] = {
            kind: token_id for kind, (token_id, _) in macros.items()
        }
        self._marks = {
            token_id: [mark.encode() for mark in marks]
            for token_id, marks in macros.values()
        }

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; never the end of turn nor a macro token, whatever
        the text looks like.
        """

    @abstractmethod
    def _bytes(self, token_ids: Sequence[int]) -> bytes:
        """Return the text, in UTF-8, of ids among which are no end of turn and no macro
        token.
        """

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are no UTF-8 become U+FFFD.

        A macro token reads as its opening mark. An end of turn reads as the closing
        mark of a call that such a token opened and nothing closed yet, and as nothing
        otherwise.

        Raises:
            ValueError: An id is not in the vocabulary.
        """
        data, plain, closing, start = bytearray(), list[int](), b"", 0
        for token_id in token_ids:
            if not 0 <= token_id < self.num_tokens:
                raise ValueError(
                    f"token id {token_id} is not in 0 to {self.num_tokens - 1}"
                )
            if token_id != self.end_id and token_id not in self._marks:
                plain.append(token_id)
                continue
            data += self._bytes(plain)
            plain.clear()
            if token_id == self.end_id:
                data += closing if data.find(closing, start) < 0 else b""
                closing = b""
            else:
                opening, closing = self._marks[token_id]
                data += opening
                start = len(data)
        data += self._bytes(plain)
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace")

    def pieces(self, message: Message) -> list[Piece]:
        """Return a message that the policy is shown: its spans, then an end of turn."""
        spans = [(self.encode(span.text), span) for span in message.spans if span.text]
        return [*spans, ([self.end_id], Span("", Author.TEMPLATE))]


def added_macros(
    macros: Mapping[str, tuple[str, str]], first: int
) -> dict[str, tuple[int, tuple[str, str]]]:
    """Number macro tokens that are added behind a vocabulary, from `first` on."""
    return {
        kind: (first + number, marks)
        for number, (kind, marks) in enumerate(macros.items())
    }
