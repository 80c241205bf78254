"""What a sampler is, and the voice that all of ours give an episode."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from transformers import PreTrainedModel

from aipo_env import Completion, Message, Piece, PolicyError, Voices
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.settings.token_filter import TokenFilter


class WaveVoices(Voices, Protocol):
    """What a wave is played with: a sampler, or the voices of another engine."""

    @property
    def num_sampled(self) -> int:
        """Tokens that were drawn so far, of turns that go on too where that is known.

        Read while it samples, to show that it does.
        """

    def beside(self) -> "WaveVoices":
        """Return what gives voices of the same weights, neither waiting for the other.

        Agents that are the policy itself speak with them.
        """


class Sampler(WaveVoices, Protocol):
    """Gives each episode the policy's voice.

    Every draw derives from the voice's key and the number of the turn.
    """

    @property
    def temperature(self) -> float:
        """Temperature of the draws; log-probabilities are reported at it too."""

    token_filter: TokenFilter
    """Which tokens may be drawn: every one, unless an evaluation sets another filter.

    Log-probabilities are reported as if every one could.
    """

    @property
    def shares_weights(self) -> bool:
        """Whether what is sampled from is the learner's own model."""

    @property
    def samples_during_update(self) -> bool:
        """Whether it can go on with its weights while the learner changes its own."""

    def take_weights(self) -> None:
        """Take the learner's weights as they are now; no work where they are shared."""

    def beside(self) -> "Sampler":
        """Return a sampler of the same weights, neither of which waits for the other.

        That is: no voice of one waits for a voice of the other.
        """

    def memory_advice(self, num_episodes: int) -> str:
        """Say how to sample `num_episodes` at once with less memory."""

    def close(self) -> None:
        """Free what the sampler holds. May be called twice."""


def cannot_sample(model: PreTrainedModel, reason: str) -> PolicyError:
    """Return the error that transformers cannot sample from a model, and what can."""
    return PolicyError(
        f"the transformers sampler cannot run {model.config.model_type}: {reason}."
        " Sample with vLLM: --sampler vllm."
    )


def end_ids(model: PreTrainedModel, chat: ChatFormat) -> set[int]:
    """Return the tokens that end a turn.

    They are the chat format's, and those that the model's generation settings name:
    one, several, or none.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    if configured is None:
        return chat.end_ids()
    if isinstance(configured, list):
        return chat.end_ids() | set(configured)
    return chat.end_ids() | {configured}


@dataclass(eq=False)
class ChatVoice:
    """What every sampler's voice is.

    Args:
        chat: How messages become tokens.
        end_ids: Tokens that end a turn.
        key: Names the episode; with the turn's number, all that draws depend on.
        token_ids: The conversation so far.
        num_turns: Turns that the policy wrote.
        ended: Whether the last of them ended with an end token.
        roles: Of all messages so far.
    """

    chat: ChatFormat
    end_ids: set[int]
    key: tuple[int, ...]
    token_ids: list[int] = field(default_factory=list)
    num_turns: int = 0
    ended: bool = False
    roles: list[str] = field(default_factory=list)

    def open(self, messages: Sequence[Message]) -> list[Piece]:
        """Start with a prompt."""
        self.roles = [message.role for message in messages]
        return self._extend(self.chat.prompt(messages))

    def append(self, message: Message) -> list[Piece]:
        """Add a message after the policy's turn."""
        pieces = self.chat.suffix(
            message,
            ended=self.ended,
            end_id=self.token_ids[-1] if self.ended else None,
            earlier=self.roles,
        )
        self.roles += ["assistant", message.role]
        return self._extend(pieces)

    def take(
        self, token_ids: Sequence[int], logprobs: Sequence[float], *, is_cut: bool
    ) -> Completion:
        """Close a turn and return it as a completion.

        Args:
            token_ids: What the turn wrote, at least one.
            logprobs: Of these tokens, in nats.
            is_cut: Whether the limit of tokens ended it.
        """
        self.num_turns += 1
        self.token_ids += token_ids
        self.ended = token_ids[-1] in self.end_ids
        # The end token was sampled and is trained on, but it is no text.
        text_ids = token_ids[:-1] if self.ended else token_ids
        text = self.chat.tokenizer.decode(list(text_ids), skip_special_tokens=False)
        return Completion(
            text=str(text),
            token_ids=tuple(token_ids),
            logprobs=tuple(logprobs),
            finish_reason="length" if is_cut else "stop",
        )

    def _extend(self, pieces: list[Piece]) -> list[Piece]:
        for token_ids, _ in pieces:
            self.token_ids += token_ids
        return pieces
