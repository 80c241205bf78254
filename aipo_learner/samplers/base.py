"""What a sampler is, and the voice that all of ours give an episode."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from transformers import PreTrainedModel

from aipo_env import Completion, Message, Piece, Voices
from aipo_learner.samplers.chat_format import ChatFormat


class Sampler(Voices, Protocol):
    """Gives each episode the policy's voice. Every draw derives from the key and the
    turn.
    """

    @property
    def temperature(self) -> float:
        """Temperature of the draws; log-probabilities are reported at it too."""

    @property
    def shares_weights(self) -> bool:
        """Whether what is sampled from is the learner's own model."""

    @property
    def samples_during_update(self) -> bool:
        """Whether it can go on with the weights it has while the learner changes its
        own.
        """

    def take_weights(self) -> None:
        """Take the weights that the learner's model has now; nothing to do where they
        are shared.
        """

    def beside(self) -> "Sampler":
        """Return a sampler of the same weights whose voices wait for none of this
        one's, nor they for them.
        """

    def memory_advice(self, num_episodes: int) -> str:
        """Say how to sample `num_episodes` at once with less memory."""

    def close(self) -> None:
        """Free what the sampler holds. May be called twice."""


def end_ids(model: PreTrainedModel, chat: ChatFormat) -> set[int]:
    """Return the tokens that end a turn: the chat format's, and those of the model's
    generation settings.
    """
    named = getattr(model.generation_config, "eos_token_id", None)
    if named is None:
        return chat.end_ids()
    if isinstance(named, list):
        return chat.end_ids() | set(named)
    return chat.end_ids() | {named}


@dataclass(eq=False)
class ChatVoice:
    """What every sampler's voice is: `key`, `token_ids` so far, `num_turns` that the
    policy wrote.
    """

    chat: ChatFormat
    end_ids: set[int]
    key: tuple[int, ...]
    token_ids: list[int] = field(default_factory=list)
    num_turns: int = 0
    ended: bool = False

    def open(self, messages: Sequence[Message]) -> list[Piece]:
        """Start with a prompt."""
        return self._extend(self.chat.prompt(messages))

    def append(self, message: Message) -> list[Piece]:
        """Add a message after the policy's turn."""
        return self._extend(self.chat.suffix(message, ended=self.ended))

    def take(
        self, token_ids: Sequence[int], logprobs: Sequence[float], *, is_cut: bool
    ) -> Completion:
        """Close a turn and return it as a completion; the end token is sampled but is
        not text.
        """
        self.num_turns += 1
        self.token_ids += token_ids
        self.ended = token_ids[-1] in self.end_ids
        written = token_ids[:-1] if self.ended else token_ids
        return Completion(
            text=str(
                self.chat.tokenizer.decode(list(written), skip_special_tokens=False)
            ),
            token_ids=tuple(token_ids),
            logprobs=tuple(logprobs),
            finish_reason="length" if is_cut else "stop",
        )

    def _extend(self, pieces: list[Piece]) -> list[Piece]:
        for token_ids, _ in pieces:
            self.token_ids += token_ids
        return pieces
