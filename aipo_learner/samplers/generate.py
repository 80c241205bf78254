"""Any engine that speaks token ids as the policy's voice: the seam for other trainers.

Chat templates, who wrote which token and where a turn ends are ours; an engine gets
token ids and says how they go on.
"""

import inspect
import math
import operator
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from aipo_env import Completion, Key, PolicyError
from aipo_learner.samplers.base import ChatVoice
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.stops import StopFinder

Generate = Callable[
    [list[int], tuple[str, ...], int, Key],
    Awaitable[tuple[Sequence[int], Sequence[float] | None]],
]
"""Writes a turn: `async generate(token_ids, stop, max_tokens, key) -> (ids, logprobs)`.

Takes the conversation so far; the strings after which the turn ends; the most tokens
that it may have; and the key of the turn, from which draws derive: the episode's key
with the number of the turn behind it. Returns what was drawn, the token that ended the
turn included, and the log-probability of each, in nats, at the temperature of the draws
and over the whole vocabulary. None in the place of these: the engine does not know
them, and the loss weighs its draws as if they were the learner's.
"""
_MAX_LOGPROB = 1e-3
"""Above 0 by no more than what rounding can add to it; it is taken for 0."""
_SHOWN_IDS = 8
"""So many of an engine's end tokens are shown in a message."""


@dataclass(eq=False, kw_only=True)
class GenerateVoice(ChatVoice):
    """A voice of `GenerateVoices`."""

    voices: "GenerateVoices"

    async def complete(self, stop: Sequence[str], max_tokens: int) -> Completion:
        """Have the engine write the turn, and check what it returns.

        Raises:
            PolicyError: It cannot be a turn of this policy.
        """
        stop_strings = tuple(stop)
        turn_key = (*self.key, self.num_turns)
        # A copy: the conversation is the voice's own.
        conversation = list(self.token_ids)
        asked: Any = self.voices.generate(
            conversation, stop_strings, max_tokens, turn_key
        )
        if not inspect.isawaitable(asked):
            kind = type(asked).__name__
            raise PolicyError(
                f"generate returned {kind} and nothing to wait for. Write it as `async"
                " def generate(token_ids, stop, max_tokens, key)`; what blocks goes"
                " through asyncio.to_thread."
            )
        token_ids, logprobs = _checked(await asked, self.voices.vocab_size)
        num_written = self._turn_length(token_ids, stop_strings, max_tokens)
        written = token_ids[:num_written]
        is_cut = not self.voices.stops.is_end(written, stop_strings)
        if is_cut and num_written < max_tokens:
            raise PolicyError(self._unended(num_written, max_tokens, stop_strings))
        self.voices.num_sampled += num_written
        return self.take(written, logprobs[:num_written], is_cut=is_cut)

    def close(self) -> None:
        """Do nothing: a turn that is waited for is the engine's."""

    def _turn_length(
        self, token_ids: list[int], stop: tuple[str, ...], max_tokens: int
    ) -> int:
        """Return how many tokens are the turn's.

        An engine may know no stop strings, or write in blocks: what it drew behind the
        end of the turn, or over the limit, was never asked for.
        """
        written: list[int] = []
        for token_id in token_ids[:max_tokens]:
            written.append(token_id)
            if self.voices.stops.is_end(written, stop):
                break
        return len(written)

    def _unended(self, number: int, max_tokens: int, stop: tuple[str, ...]) -> str:
        """Say that a turn is over for no reason that is known here."""
        end_ids = sorted(self.end_ids)
        shown_ids = ", ".join(map(str, end_ids[:_SHOWN_IDS]))
        return (
            f"generate returned {number} tokens of at most {max_tokens}, without one"
            f" that ends a turn ({shown_ids}) or a stop string ({list(stop)}). It must"
            " return the token that ended the turn, and write on to max_tokens"
            " otherwise: let the engine keep its end token, name further ones in"
            " end_ids, or give it room for more tokens than the rules'"
            " max_context_tokens."
        )


class GenerateVoices:
    """Gives each episode a voice that a function writes the turns of.

    Messages become tokens by the tokenizer's chat template, each with its author; what
    the engine wrote is never tokenised again. A turn ends at an end token or behind a
    stop string, whether the engine looks for them or not: what it drew behind is left
    off.

    Args:
        tokenizer: The policy's, with a chat template.
        generate: Writes a turn; see `Generate`. What it raises ends the run; a
            `PolicyFault` ends the episode alone.
        end_ids: Tokens that end a turn beside those of the tokenizer and its template,
            such as a model's generation settings name.
        vocab_size: Of the model, which may draw tokens that the tokenizer has no text
            for; by default the tokenizer's.

    Raises:
        PolicyError: An end token is not in the vocabulary.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        generate: Generate,
        *,
        end_ids: Iterable[int] = (),
        vocab_size: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.generate = generate
        self.chat = ChatFormat(tokenizer)
        # The numbers of added tokens may leave gaps.
        largest_id = max(tokenizer.get_vocab().values())
        self.vocab_size = max(vocab_size, largest_id + 1)
        further = _token_ids(list(end_ids), "end_ids", self.vocab_size)
        self.stops = StopFinder(tokenizer, {*self.chat.end_ids(), *further})
        self.num_sampled = 0
        """Tokens of the turns that have ended."""

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a turn, for an engine to stop at."""
        return frozenset(self.stops.end_ids)

    def voice(self, key: Key) -> GenerateVoice:
        """Return the voice of an episode; no other waits for it."""
        return GenerateVoice(self.chat, self.stops.end_ids, key, voices=self)

    def beside(self) -> "GenerateVoices":
        """Return itself: none of its voices waits for another."""
        return self


def _checked(returned: Any, vocab_size: int) -> tuple[list[int], list[float]]:
    """Return token ids and log-probabilities that an engine returned.

    There is no log-probability if it knows none.

    Raises:
        PolicyError: They are no turn's, or do not belong together.
    """
    try:
        ids, numbers = returned
    except (TypeError, ValueError) as error:
        kind = type(returned).__name__
        raise PolicyError(
            f"generate returned {kind}: it must return a pair, the token ids and their"
            " log-probabilities, or None in the place of these if the engine does not"
            " know them."
        ) from error
    token_ids = _token_ids(ids, "generate: token ids", vocab_size)
    if not token_ids:
        raise PolicyError(
            "generate returned no token. A turn has at least one, the token that ends"
            " it: let the engine keep that."
        )
    if numbers is None:
        return token_ids, []
    logprobs = _logprobs(numbers)
    if len(logprobs) != len(token_ids):
        raise PolicyError(
            f"generate returned {len(token_ids)} token ids and {len(logprobs)}"
            " log-probabilities: there must be one for each token, the token that ends"
            " the turn included."
        )
    return token_ids, logprobs


def _token_ids(values: Any, what: str, vocab_size: int) -> list[int]:
    """Return ids as integers; arrays and tensors of one dimension will do.

    Raises:
        PolicyError: One is no integer, or not in the vocabulary.
    """
    try:
        token_ids = [operator.index(value) for value in values]
    except TypeError as error:
        raise PolicyError(f"{what} must be integers: {error}.") from error
    for place, token_id in enumerate(token_ids):
        if not 0 <= token_id < vocab_size:
            raise PolicyError(
                f"{what}[{place}]={token_id} is not in the vocabulary of"
                f" {vocab_size} tokens. Is the engine's tokenizer the policy's?"
            )
    return token_ids


def _logprobs(values: Any) -> list[float]:
    """Return log-probabilities as numbers.

    Raises:
        PolicyError: One can be no log-probability of a token that was drawn.
    """
    try:
        logprobs = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise PolicyError(
            f"generate: log-probabilities must be numbers, one for each token: {error}."
        ) from error
    for place, logprob in enumerate(logprobs):
        if not math.isfinite(logprob) or logprob > _MAX_LOGPROB:
            raise PolicyError(
                f"generate: log-probability [{place}] is {logprob}: that of a token"
                " that was drawn is finite and at most 0. An engine that does not know"
                " them returns None in the place of all."
            )
    return [min(logprob, 0.0) for logprob in logprobs]
