"""Calls to an agent that answers many at once: those that come together go together.

A model on this machine is such an agent: it takes hardly longer for many than for one.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from aipo_env.agents.base import Agent, AgentReply, AgentRequest
from aipo_env.agents.pool.limits import PoolLimits
from aipo_env.errors import AgentError

_Waiting = list[tuple[AgentRequest, "asyncio.Future[Any]"]]
"""Requests of one batch, each with the future of its reply."""


class BatchAgent(Agent, Protocol):
    """An agent that rather answers many requests at once."""

    async def reply_many(
        self, requests: Sequence[AgentRequest]
    ) -> Sequence[AgentReply | Exception]:
        """Answer each request, in order.

        An exception in place of a reply says that there is none for this request; raise
        one if there is none for any.
        """


class Batcher:
    """Passes requests on together: those of `batch_s` seconds.

    A batch goes at once when it has as many as may be in flight: no more could come.

    Args:
        answerer: The agent that answers them.
        limits: Those of its pool; each batch has `deadline_s`.
    """

    def __init__(self, answerer: BatchAgent, limits: PoolLimits) -> None:
        self._agent = answerer
        self._limits = limits
        self.agent_id = answerer.agent_id
        # A future belongs to its event loop, and so does the batch it waits in.
        self._waiting: dict[asyncio.AbstractEventLoop, _Waiting] = {}
        # An event loop holds its tasks weakly: they would be collected in the midst.
        self._tasks: set[asyncio.Task[None]] = set()

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer one request, with others."""
        loop = asyncio.get_running_loop()
        batch = self._waiting.setdefault(loop, [])
        future: asyncio.Future[AgentReply] = loop.create_future()
        batch.append((request, future))
        if len(batch) == self._limits.concurrency:
            self._send(loop, batch)
        elif len(batch) == 1:
            # The first one starts the clock for all that come after it.
            loop.call_later(self._limits.batch_s, self._send, loop, batch)
        return await future

    def _send(self, loop: asyncio.AbstractEventLoop, batch: _Waiting) -> None:
        """Ask for a batch, unless that was done because there were enough."""
        # When the clock of a full batch runs out, another one is waiting already.
        if self._waiting.get(loop) is not batch:
            return
        del self._waiting[loop]
        task = loop.create_task(self._ask(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, batch: _Waiting) -> None:
        """Ask for those that still wait, and hand out what comes back."""
        # A call that was cancelled in the meantime costs nothing.
        open_calls = [
            (request, future) for request, future in batch if not future.done()
        ]
        requests = [request for request, _ in open_calls]
        replies: Sequence[Any]
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                replies = await self._agent.reply_many(requests)
            if len(replies) != len(requests):
                raise AgentError(f"{len(replies)} replies for {len(requests)} requests")
        # An agent may be somebody else's program.
        except (Exception, SystemExit) as error:
            replies = [error] * len(requests)
        for (_, future), reply in zip(open_calls, replies, strict=True):
            _settle(future, reply)


def _settle(future: "asyncio.Future[Any]", reply: Any) -> None:
    """Give a reply, or what was raised, to the one who waits for it."""
    # Calls may be cancelled while the agent thinks.
    if future.done():
        return
    if isinstance(reply, Exception | SystemExit):
        future.set_exception(reply)
    else:
        future.set_result(reply)
