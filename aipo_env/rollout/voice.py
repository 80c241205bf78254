"""The policy's side of one episode: it reads what is shown and writes the next turn.

The voice is the policy's, in one conversation: it turns text into token ids once, when
it is shown, and never tokenises again what the policy wrote. Tokenizers around a text
function, the samplers of a learner, a person and a script are all voices.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from aipo_env.errors import PolicyLost
from aipo_env.keys import Key
from aipo_env.records import Author, Completion, FinishReason, Message, Span
from aipo_env.threads import check_cancelled
from aipo_env.tokenizers.base import Piece, Tokenizer
from aipo_env.tokenizers.bytes import ByteTokenizer

TextPolicy = Callable[
    [Sequence[Message], tuple[str, ...], int], Awaitable[str | Completion]
]
"""Says a turn.

Takes the messages so far, the strings after which a turn ends and the most tokens that
the turn may have; returns its text, or a `Completion` whose token ids are those of the
tokenizer.
"""


class PolicyFault(Exception):
    """The policy failed, and not what runs it: the episode ends with `policy_error`."""


class Voice(Protocol):
    """The policy in one episode."""

    def open(self, messages: Sequence[Message]) -> list[Piece]:
        """Take the prompt; return the token ids of each of its spans of text."""

    def append(self, message: Message) -> list[Piece]:
        """Take what came back after a turn; return the token ids it becomes."""

    async def complete(self, stop: Sequence[str], max_tokens: int) -> Completion:
        """Write a turn of at most `max_tokens` tokens, ended after a string of `stop`.

        Raises:
            PolicyFault: The policy failed at it, which ends this episode and no other.
        """

    def close(self) -> None:
        """Free what the voice holds. May be called twice."""


@runtime_checkable
class Voices(Protocol):
    """Gives each episode its voice: what a sampler is to whoever plays episodes."""

    def voice(self, key: Key) -> Voice:
        """Return the voice of the episode with that key, from which its draws derive.

        From now on the other voices may wait for it: it completes turns, or is closed.
        """


class TextVoice:
    """A voice over a tokenizer of environments.

    Each message is closed by the tokenizer's end of turn.

    Args:
        tokenizer: Bytes unless another is given.
        policy: Says each turn. Without one the turns come from outside, by `said` and
            `written`.
    """

    def __init__(
        self, tokenizer: Tokenizer | None = None, policy: TextPolicy | None = None
    ) -> None:
        self.tokenizer = tokenizer or ByteTokenizer()
        self._policy = policy
        self._messages: list[Message] = []
        # Whether the policy wrote its end of turn; no turn is open before the first.
        self._is_ended = True

    def open(self, messages: Sequence[Message]) -> list[Piece]:
        """Take the prompt."""
        pieces: list[Piece] = []
        for message in messages:
            self._messages.append(message)
            pieces += self.tokenizer.pieces(message)
        return pieces

    def append(self, message: Message) -> list[Piece]:
        """Take what came back.

        The policy's turn is closed first if it did not end itself: a stop string or a
        limit may have ended it.
        """
        self._messages.append(message)
        pieces = self.tokenizer.pieces(message)
        if self._is_ended:
            return pieces
        closing: Piece = ([self.tokenizer.end_id], Span("", Author.TEMPLATE))
        return [closing, *pieces]

    async def complete(self, stop: Sequence[str], max_tokens: int) -> Completion:
        """Have the policy say the next turn; whatever it raises is a `PolicyFault`.

        Raises:
            PolicyFault: The policy failed.
            PolicyLost: It says itself that it can never answer again.
            RuntimeError: There is none.
        """
        if self._policy is None:
            raise RuntimeError("this voice has no policy: its turns come from outside")
        try:
            turn = await self._policy(tuple(self._messages), tuple(stop), max_tokens)
            # A policy may have swallowed that this very task was cancelled.
            check_cancelled()
            return self._completion_of(turn, max_tokens)
        except PolicyLost:
            # No other episode would fare better.
            raise
        # A policy may be anybody's program.
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            # Cancelled from outside: no fault of the policy's.
            check_cancelled()
            raise PolicyFault(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Do nothing."""

    def said(self, text: str, max_tokens: int) -> Completion:
        """Return a turn that is known by its text, cut at `max_tokens` tokens."""
        token_ids = self.tokenizer.encode(text)
        if len(token_ids) > max_tokens:
            return self.written(token_ids[:max_tokens], is_cut=True)
        # Its text as it was said: a tokenizer need not give it back exactly.
        return self._remembered(Completion(text, tuple(token_ids)))

    def written(self, token_ids: Sequence[int], *, is_cut: bool = False) -> Completion:
        """Return a turn that is known by its tokens.

        Args:
            token_ids: The policy's own, an end of turn included if it wrote one.
            is_cut: A limit ended the turn.
        """
        reason: FinishReason = "length" if is_cut else "stop"
        text = self.tokenizer.decode(token_ids)
        return self._remembered(Completion(text, tuple(token_ids), (), reason))

    def _completion_of(self, turn: object, max_tokens: int) -> Completion:
        """Return what a policy returned as a completion.

        Raises:
            TypeError: It is neither text nor a completion.
            ValueError: Its token ids are another tokenizer's.
        """
        if isinstance(turn, str):
            return self.said(turn, max_tokens)
        if not isinstance(turn, Completion):
            kind = type(turn).__name__
            raise TypeError(f"the policy must return text or a Completion, got {kind}")
        if not turn.token_ids and turn.finish_reason == "stop":
            return self.said(turn.text, max_tokens)
        token_ids = turn.token_ids or tuple(self.tokenizer.encode(turn.text))
        # For what it raises: ids that are not in the vocabulary.
        self.tokenizer.decode(token_ids)
        return self._remembered(replace(turn, token_ids=token_ids))

    def _remembered(self, completion: Completion) -> Completion:
        """Return a turn that is kept, for the policy to see and to be closed."""
        span = Span(completion.text, Author.POLICY)
        self._messages.append(Message("assistant", (span,)))
        last = completion.token_ids[-1:]
        self._is_ended = last == (self.tokenizer.end_id,)
        return completion


class TextVoices:
    """Gives every episode a `TextVoice` of one policy."""

    def __init__(self, policy: TextPolicy, tokenizer: Tokenizer | None = None) -> None:
        self._policy = policy
        self._tokenizer = tokenizer or ByteTokenizer()

    def voice(self, key: Key) -> TextVoice:
        """Return a voice; the key is the policy's own business."""
        return TextVoice(self._tokenizer, self._policy)
