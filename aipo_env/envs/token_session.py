"""A session for a policy outside: it reads and writes token ids, bytes unless another tokenizer is given."""

from collections.abc import Sequence

from aipo_env.envs.byte_tokenizer import ByteTokenizer
from aipo_env.envs.tokenizer import Tokenizer
from aipo_env.records import Author, Completion, FinishReason, Message, Span
from aipo_env.session import Session, run_sync


class TokenSession:
    """Runs a `Session` turn by turn and owns the running list of token ids, with the author of each."""

    def __init__(self, session: Session, tokenizer: Tokenizer | None = None) -> None:
        self.session = session
        self.tokenizer = tokenizer or ByteTokenizer()
        self.token_ids: list[int] = []
        self.authors: list[int] = []

    def open(self) -> tuple[Message, ...]:
        """Return the prompt. The session may be over at once: the prompt may fill the context."""
        messages = self.session.open()
        for message in messages:
            self._show(message)
        self._end_if_exhausted()
        return messages

    def say(self, text: str) -> Message | None:
        """Take a turn in text, cut where the token limit falls; return what came back, None at the end."""
        return run_sync(self.say_async(text))

    async def say_async(self, text: str) -> Message | None:
        """Do what `say` does, in an event loop."""
        limit = self.session.dialogue.token_limit()
        token_ids = self.tokenizer.encode(text)
        if len(token_ids) > limit:
            return await self.write_async(token_ids[:limit], is_cut=True)
        return await self.take(Completion(text, tuple(token_ids)))

    async def write_async(
        self, token_ids: Sequence[int], *, is_cut: bool = False
    ) -> Message | None:
        """Take a turn in tokens; `is_cut` when the token limit ended it. Returns as `say` does."""
        reason: FinishReason = "length" if is_cut else "stop"
        return await self.take(
            Completion(self.tokenizer.decode(token_ids), tuple(token_ids), (), reason)
        )

    async def take(self, completion: Completion) -> Message | None:
        """Take a turn as it was sampled; its `token_ids` are of this tokenizer. Returns as `say` does."""
        self.token_ids += completion.token_ids
        self.authors += [Author.POLICY] * len(completion.token_ids)
        message = await self.session.advance(completion)
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
        self.authors += [span.author] * len(token_ids)

    def _end_if_exhausted(self) -> None:
        if reason := self.session.dialogue.exhausted():
            self.session.abort(reason)
