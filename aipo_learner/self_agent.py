"""The policy's voice for `agents="self"`: its sampler answers in conversations of their own."""

import asyncio
from collections.abc import Sequence
from functools import cache, partial

from aipo_env import OWN_POLICY, Completion, Message
from aipo_learner.samplers.base import Conversation, Sampler
from aipo_learner.samplers.hf_sampler import HFSampler


def lend_voice(sampler: Sampler) -> None:
    """Let agents of the running task, and of those it starts, speak with a sampler's weights."""

    @cache
    def voice() -> Sampler:
        if not isinstance(sampler, HFSampler):
            return sampler
        # It waits for every open conversation, and an episode's waits for its agent.
        settings = {"temperature": sampler.temperature, "max_rows": sampler.max_rows}
        return HFSampler(sampler.model, sampler.tokenizer, **settings)  # type: ignore[arg-type]

    async def speak(
        keys: Sequence[tuple[int, ...]],
        asked: Sequence[Sequence[Message]],
        max_tokens: int,
    ) -> Sequence[Completion]:
        # The number tells its draws from those of the episode.
        conversations = [voice().conversation((*key, 13)) for key in keys]
        try:
            return await asyncio.gather(
                *map(partial(_say, max_tokens), conversations, asked)
            )
        finally:  # what is cancelled before it begins does not close itself
            for conversation in conversations:
                conversation.close()

    OWN_POLICY.set(speak)


async def _say(
    max_tokens: int, conversation: Conversation, messages: Sequence[Message]
) -> Completion:
    """Have the policy write one turn. Others wait in the sampler until the conversation is closed."""
    try:
        conversation.open(messages)
        return await conversation.complete((), max_tokens)
    finally:
        conversation.close()
