"""A session in synchronous clothes, for a policy outside that reads and writes bytes."""

from collections.abc import Sequence

from aipo_env.envs.byte_tokenizer import ByteTokenizer
from aipo_env.records import Author, Completion, Message, Span
from aipo_env.session import Session, run_sync


class ByteSession:
    """Runs a `Session` turn by turn and owns the running list of token ids."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.tokenizer = ByteTokenizer()
        self.token_ids: list[int] = []

    def open(self) -> tuple[Message, ...]:
        """Return the prompt. The session may be over at once: the prompt may fill the context."""
        messages = self.session.open()
        for message in messages:
            self._show(message)
        self._end_if_exhausted()
        return messages

    def say(self, text: str) -> Message | None:
        """Take a turn in text, cut where the token limit falls; return what came back, None at the end."""
        limit = self.session.dialogue.token_limit()
        token_ids = self.tokenizer.encode(text)
        if len(token_ids) > limit:
            return self.write(token_ids[:limit], is_cut=True)
        return self._advance(Completion(text, tuple(token_ids)))

    def write(self, token_ids: Sequence[int], *, is_cut: bool = False) -> Message | None:
        """Take a turn in tokens; `is_cut` when the token limit ended it. Returns as `say` does."""
        text = self.tokenizer.decode(token_ids)
        return self._advance(Completion(text, tuple(token_ids), finish_reason="length" if is_cut else "stop"))

    def _advance(self, completion: Completion) -> Message | None:
        self.token_ids += completion.token_ids
        message = run_sync(self.session.advance(completion))
        if message is not None:
            if self.token_ids[-1:] != [self.tokenizer.end_id]:
                self._record([self.tokenizer.end_id], Span("", Author.TEMPLATE))
            self._show(message)
            self._end_if_exhausted()
        return message

    def _show(self, message: Message) -> None:
        for token_ids, span in self.tokenizer.pieces(message):
            self._record(token_ids, span)

    def _record(self, token_ids: list[int], span: Span) -> None:
        self.session.record(token_ids, span)
        self.token_ids += token_ids

    def _end_if_exhausted(self) -> None:
        if reason := self.session.dialogue.exhausted():
            self.session.abort(reason)
