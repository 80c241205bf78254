"""The policy's voice for `agents="self"`: its sampler answers in voices of their
own.
"""

from collections.abc import Sequence
from functools import cache

from aipo_env import OWN_POLICY, Completion, Key, Message, Salt, Voice, all_of
from aipo_learner.samplers.base import Sampler


def lend_voice(sampler: Sampler) -> None:
    """Let agents of the running task, and of those it starts, speak with a sampler's
    weights.
    """

    @cache
    def second() -> Sampler:
        """Make it once, when an agent first asks."""
        return sampler.beside()

    async def speak(
        keys: Sequence[Key], asked: Sequence[Sequence[Message]], max_tokens: int
    ) -> Sequence[Completion]:
        # The salt tells its draws from those of the episode.
        voices = [second().voice((*key, int(Salt.OWN_POLICY))) for key in keys]
        try:
            return await all_of(
                _say(voice, messages, max_tokens)
                for voice, messages in zip(voices, asked, strict=True)
            )
        finally:  # what is cancelled before it begins does not close itself
            for voice in voices:
                voice.close()

    OWN_POLICY.set(speak)


async def _say(
    voice: Voice, messages: Sequence[Message], max_tokens: int
) -> Completion:
    """Have the policy write one turn. Others wait in the sampler until the voice is
    closed.
    """
    try:
        voice.open(messages)
        return await voice.complete((), max_tokens)
    finally:
        voice.close()
