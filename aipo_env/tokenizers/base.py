"""What a token environment asks of a tokenizer, and what all of them share.

They share turns, macro tokens and pieces. A macro token stands for the mark that opens
a call, whole.
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
        self.num_tokens = num_tokens
        self.end_id = end_id
        self.macro_ids: Mapping[str, int] = {
            kind: token_id for kind, (token_id, _) in macros.items()
        }
        self._marks = {
            token_id: (opening.encode(), closing.encode())
            for token_id, (opening, closing) in macros.values()
        }
        """By macro token, what opens and closes its call, in UTF-8."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text.

        Never the end of turn nor a macro token, whatever the text looks like: nobody
        may end a turn or call by what is shown to the policy.
        """

    @abstractmethod
    def _bytes(self, token_ids: Sequence[int]) -> bytes:
        """Return the text, in UTF-8, of ids that are no end of turn and no macro."""

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are no UTF-8 become U+FFFD.

        A macro token reads as its opening mark. An end of turn reads as the closing
        mark of a call that such a token opened and nothing closed yet, and as nothing
        otherwise.

        Raises:
            ValueError: An id is not in the vocabulary.
        """
        data = bytearray()
        # Tokens that are decoded together: a character may be spread over several.
        plain: list[int] = []
        # What would close the call that a macro token opened, and where its query
        # began.
        closing = b""
        query_start = 0
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
                # The policy may have spelled the closing mark as well. `find`, because
                # a slice for each of many ends of turn would copy the text each time.
                is_closed = data.find(closing, query_start) >= 0
                if not is_closed:
                    data += closing
                closing = b""
            else:
                opening, closing = self._marks[token_id]
                data += opening
                query_start = len(data)
        data += self._bytes(plain)
        # Half a surrogate pair, which Python strings may hold, comes back as it was.
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "replace")

    def pieces(self, message: Message) -> list[Piece]:
        """Return a message that the policy is shown: its spans, then an end of turn."""
        spans = [(self.encode(span.text), span) for span in message.spans if span.text]
        closing: Piece = ([self.end_id], Span("", Author.TEMPLATE))
        return [*spans, closing]


def added_macros(
    macros: Mapping[str, tuple[str, str]], first: int
) -> dict[str, tuple[int, tuple[str, str]]]:
    """Number macro tokens that are added behind a vocabulary, from `first` on."""
    numbered = enumerate(macros.items(), first)
    return {kind: (token_id, marks) for token_id, (kind, marks) in numbered}
