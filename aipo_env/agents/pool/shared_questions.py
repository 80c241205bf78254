"""Equal questions are asked once, and all who ask get the same reply."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from aipo_env.agents.base import Agent, AgentRequest
from aipo_env.agents.pool.journal import Journal, Outcome, request_hash

SEED_DIGITS = 8
"""Hexadecimal digits of a hash that make a seed of 32 bits."""
_Question = tuple[asyncio.AbstractEventLoop, str]
"""A running event loop and the hash of what is asked in it."""
Ask = Callable[[Agent, AgentRequest], Coroutine[Any, Any, Outcome]]
"""Asks an agent, whatever was asked before."""


def open_cache(place: str) -> Journal | None:
    """Return where replies to equal questions are kept; None if nowhere.

    Args:
        place: "memory", a file, or nothing.

    Raises:
        ConfigError: There is no folder for the file.
    """
    if not place:
        return None
    # A journal that writes into nothing still has its replies in memory.
    path = os.devnull if place == "memory" else place
    return Journal(Path(path).expanduser())


class SharedQuestions:
    """Asks, unless the same was or is being asked.

    Args:
        cache: Where replies are kept.
        ask: Asks an agent.
    """

    def __init__(self, cache: Journal, ask: Ask) -> None:
        self._cache = cache
        self._ask = ask
        # Two loops may ask the same at once, and a task belongs to one of them.
        self._asking: dict[_Question, asyncio.Task[Outcome]] = {}

    async def ask(self, agent: Agent, request: AgentRequest) -> Outcome:
        """Return a reply, which is free where another has asked the same.

        Equal questions get one seed, drawn from what is asked: with the episode's own
        it would depend on who comes first what all of them are told.
        """
        content = request_hash(replace(request, seed=0))
        request = replace(request, seed=int(content[:SEED_DIGITS], 16))
        outcome = self._cache.get(_of_any_episode(request))
        if outcome is None:
            question = (asyncio.get_running_loop(), request_hash(request))
            is_first = question not in self._asking
            if is_first:
                self._begin(question, agent, request)
            # Shielded: one who waits may be cancelled, and the others go on waiting.
            outcome = await asyncio.shield(self._asking[question])
            if is_first:
                return outcome
        # Whoever asked first has paid, waited and retried.
        reply = outcome.reply and replace(outcome.reply, cost_usd=0.0)
        return replace(outcome, reply=reply, retries=0, seconds=0.0)

    def _begin(self, question: _Question, agent: Agent, request: AgentRequest) -> None:
        """Ask in a task of its own.

        Whoever asked first may be cancelled while others wait.
        """
        task = asyncio.create_task(self._ask_and_keep(agent, request))
        task.add_done_callback(lambda _: self._asking.pop(question))
        self._asking[question] = task

    async def _ask_and_keep(self, agent: Agent, request: AgentRequest) -> Outcome:
        """Ask, and keep a reply for those who ask the same later."""
        outcome = await self._ask(agent, request)
        # Weights in training say something else tomorrow, and their log-probabilities
        # are known.
        if outcome.reply and not outcome.reply.logprobs:
            self._cache.put(_of_any_episode(request), outcome)
        return outcome


def _of_any_episode(request: AgentRequest) -> AgentRequest:
    """Return a request under the one key that equal requests share in the cache."""
    return replace(request, key=())
