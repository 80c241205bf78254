"""What answers for `agents="self"`: the policy's sampler, in voices of their own."""

from collections.abc import Sequence
from functools import cache

from aipo_env import OWN_POLICY, Completion, Key, Message, Salt, Voice, all_of
from aipo_learner.samplers.base import WaveVoices


def lend_voice(sampler: WaveVoices) -> None:
    """Let agents of the running task, and of those it starts, write with the policy.

    That is: with the weights that `sampler` has. `OWN_POLICY`, a context variable, has
    the function by which they do.
    """

    @cache
    def agents_sampler() -> WaveVoices:
        # Made once, when an agent first asks. It is another than the episodes': their
        # voices wait for each other, and one of them waits for the agent.
        return sampler.beside()

    async def speak(
        keys: Sequence[Key], asked: Sequence[Sequence[Message]], max_tokens: int
    ) -> Sequence[Completion]:
        # The salt tells its draws from those of the episode.
        salted = [(*key, int(Salt.OWN_POLICY)) for key in keys]
        # All voices before the first turn: what is decoded together then depends on
        # what was asked, and not on which of them came first.
        voices = [agents_sampler().voice(key) for key in salted]
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
    """Have the policy write one turn, and close its voice, for which others wait."""
    try:
        voice.open(messages)
        return await voice.complete((), max_tokens)
    finally:
        voice.close()
