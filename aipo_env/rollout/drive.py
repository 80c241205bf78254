"""A policy through a whole episode.

Whoever has the turns of a policy one at a time, as a Gymnasium environment or a person
has, calls `begin` and then `take_turn` for each; `play` and `finish` are the loop over
these, with a voice that writes the turns. Rules and limits are the same for all.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aipo_env.episode import Episode
from aipo_env.records import Completion, Message, StopReason
from aipo_env.rollout.session import Session
from aipo_env.rollout.voice import PolicyFault, Voice


async def play(session: Session, voice: Voice) -> Episode:
    """Play an episode to its end and return it.

    The voice is closed before its answer is verified, so that nobody waits for a
    verdict where voices wait for each other.
    """
    async with running(session, voice):
        await _take_turns(session, voice)
    return session.episode()


@asynccontextmanager
async def running(session: Session, voice: Voice) -> AsyncIterator[None]:
    """Have an episode begun, and in the end its voice and its session closed.

    Whatever happens in between.
    """
    try:
        await session.prepare()
        begin(session, voice)
        yield
    finally:
        voice.close()
        await session.close()


def begin(session: Session, voice: Voice) -> tuple[Message, ...]:
    """Show the policy its prompt; return it.

    The episode may be over at once, if the prompt does not fit into a limit. What
    `session.prepare` makes is there already.
    """
    messages = session.open()
    session.show(voice.open(messages))
    return messages


async def finish(session: Session, voice: Voice) -> Episode:
    """Play an episode that has begun to its end and return it."""
    try:
        await _take_turns(session, voice)
    finally:
        voice.close()
        await session.close()
    return session.episode()


async def _take_turns(session: Session, voice: Voice) -> None:
    """Have the voice write turns until the episode ends."""
    dialogue = session.dialogue
    try:
        while session.stop_reason is None:
            stop_strings = dialogue.stop_strings()
            max_tokens = dialogue.token_limit()
            completion = await voice.complete(stop_strings, max_tokens)
            # It may have been ended from outside in the meantime.
            if session.stop_reason is None:
                await take_turn(session, voice, completion)
    except PolicyFault as fault:
        session.fail(StopReason.POLICY_ERROR, str(fault))


async def take_turn(
    session: Session, voice: Voice, completion: Completion
) -> Message | None:
    """Take a turn of the policy and show what came back.

    Returns:
        What came back; None when this turn ended the episode.
    """
    # The voice is closed as soon as its answer is there: the verdict may take long.
    message = await session.advance(completion, on_answer=voice.close)
    if message is not None:
        session.show(voice.append(message))
    # What was shown may have overrun a limit, which ends the episode as well.
    if session.stop_reason is not None:
        await session.close()
    return message
