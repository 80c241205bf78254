"""Rollouts: policy, agents and verifier through whole episodes, many at a time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aipo_env import Episode, Session, StopReason, Task, Verdict, Verifier
from aipo_learner.samplers.base import Conversation, Sampler
from aipo_learner.self_agent import lend_voice


async def run_episodes(sessions: Sequence[Session], sampler: Sampler) -> list[Episode]:
    """Run all sessions to their ends; episodes come in the order of the sessions."""
    lend_voice(sampler)
    conversations = [sampler.conversation(session.key) for session in sessions]
    return await asyncio.gather(*map(_run_episode, sessions, conversations))


@dataclass(frozen=True)
class _AfterLeaving:
    """Verifies once the conversation is closed: nobody waits in the sampler for a verdict."""

    verifier: Verifier
    conversation: Conversation

    async def verify(self, task: Task, answer: str) -> Verdict:
        self.conversation.close()
        return await self.verifier.verify(task, answer)


async def _run_episode(session: Session, conversation: Conversation) -> Episode:
    """Run one session to its end."""
    dialogue = session.dialogue
    session.verifier = _AfterLeaving(session.verifier, conversation)
    try:
        pieces = conversation.open(session.open())
        while True:
            if sum(len(token_ids) for token_ids, _ in pieces) > dialogue.context_left():
                session.abort(StopReason.CONTEXT_OVERFLOW)
                break
            for token_ids, span in pieces:
                session.record(token_ids, span)
            if reason := dialogue.exhausted():
                session.abort(reason)
                break
            completion = await conversation.complete(
                dialogue.stop_strings(), dialogue.token_limit()
            )
            message = await session.advance(completion)
            if message is None:
                break
            pieces = conversation.append(message)
    finally:
        conversation.close()
    return session.episode()
