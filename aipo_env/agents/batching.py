"""Calls to an agent that answers many at once, as a model on this machine does: those
that come together.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from aipo_env.agents.base import Agent, AgentReply, AgentRequest
from aipo_env.agents.limits import PoolLimits
from aipo_env.errors import AgentError

_Waiting = list[tuple[AgentRequest, "asyncio.Future[Any]"]]


class BatchAgent(Agent, Protocol):
    """An agent that rather answers many requests at once."""

    async def reply_many(
        self, requests: Sequence[AgentRequest]
    ) -> Sequence[AgentReply | Exception]:
        """Answer each request, or say for which there is no answer; raise if there is
        none for any.
        """


class Batcher:
    """Passes requests on together: those of `batch_s` seconds, at most as many as may
    be in flight at once.
    """

    def __init__(self, mind: BatchAgent, limits: PoolLimits) -> None:
        self._mind, self.agent_id, self._limits = mind, mind.agent_id, limits
        self._waiting: dict[asyncio.AbstractEventLoop, _Waiting] = {}
        self._asked: set[asyncio.Task[None]] = set()

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer one request, with others."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting.setdefault(loop, [])
        future: asyncio.Future[AgentReply] = loop.create_future()
        waiting.append((request, future))
        if len(waiting) == self._limits.concurrency:
            self._send(loop, waiting)
        elif len(waiting) == 1:
            loop.call_later(self._limits.batch_s, self._send, loop, waiting)
        return await future

    def _send(self, loop: asyncio.AbstractEventLoop, waiting: _Waiting) -> None:
        """Ask, unless that was done because there were enough."""
        if self._waiting.get(loop) is waiting:
            task = loop.create_task(self._ask(self._waiting.pop(loop)))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)

    async def _ask(self, waiting: _Waiting) -> None:
        """Ask for those that still wait, and hand out what comes back."""
        asked = [(request, future) for request, future in waiting if not future.done()]
        replies: Sequence[Any]
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                replies = await self._mind.reply_many([request for request, _ in asked])
            if len(replies) != len(asked):
                raise AgentError(f"{len(replies)} replies for {len(asked)} requests")
        except (
            Exception,
            SystemExit,
        ) as error:  # an agent may be somebody else's program
            replies = [error] * len(asked)
        for (_, future), reply in zip(asked, replies, strict=True):
            if not future.done() and isinstance(reply, Exception | SystemExit):
                future.set_exception(reply)
            elif not future.done():
                future.set_result(reply)
