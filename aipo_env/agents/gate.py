"""When an agent may be asked: so many calls at once and a second, a pause when it wants
one, a rest when it fails.

Also a watch on each call, so that the log says where a run hangs.
"""

import asyncio
import logging
import time
from collections import deque

import numpy as np

from aipo_env.agents.base import AgentRequest
from aipo_env.agents.limits import PoolLimits

BREAK_S = 30.0
"""How long an agent that keeps failing is left alone; then one call tries whether it is
back.
"""
HEDGE_AFTER = 20
"""Replies from which it can be told how long they usually take."""
STALL_S = 30.0
"""A call that takes longer is in the log, again and again."""
LOG = logging.getLogger("aipo_env.agents")


class Gate:
    """The way to one agent.

    `limits.concurrency` holds for each event loop. `lost` is why the agent can never
    answer; empty: it may.
    """

    def __init__(self, limits: PoolLimits) -> None:
        self._limits, self._took_s = limits, deque[float](maxlen=256)
        self._interval_s = 1 / limits.rate if limits.rate else 0.0
        # A semaphore belongs to the event loop it first waited in, a pool outlives
        # loops.
        self._slots: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        self._next = self._reopens = 0.0
        self._num_failed = 0
        self.lost = ""

    def slots(self) -> asyncio.Semaphore:
        """Return what limits the calls of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._slots:
            self._slots = {
                known: slots
                for known, slots in self._slots.items()
                if not known.is_closed()
            }
            self._slots[loop] = asyncio.Semaphore(self._limits.concurrency)
        return self._slots[loop]

    async def turn(self) -> None:
        """Wait until the agent may be asked."""
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + self._interval_s
        if start > now:
            await asyncio.sleep(start - now)

    def is_free(self) -> bool:
        """Return whether a call could be made at once."""
        return not self.slots().locked() and time.monotonic() >= self._next

    def pause(self, pause_s: float) -> None:
        """Let nobody ask for so long."""
        self._next = max(self._next, time.monotonic() + pause_s)

    def refusal(self) -> str:
        """Return why the agent may not be asked; empty when it may."""
        now = time.monotonic()
        if not self._limits.break_after or self._num_failed < self._limits.break_after:
            return ""
        if now < self._reopens:
            return f"not asked: it failed {self._num_failed} times in a row"
        self._reopens = (
            now + BREAK_S
        )  # this call tries, the others wait for what becomes of it
        return ""

    def patience_s(self) -> float | None:
        """Return after how many seconds a call is made a second time; None: never."""
        if self._limits.hedge_quantile and len(self._took_s) >= HEDGE_AFTER:
            return float(np.quantile(self._took_s, self._limits.hedge_quantile))
        return self._limits.hedge_s or None

    def took(self, is_answered: bool, seconds: float) -> None:
        """Count an attempt."""
        self._num_failed = 0 if is_answered else self._num_failed + 1
        self._took_s.extend([seconds] if is_answered else [])
        if not is_answered and self._num_failed == self._limits.break_after:
            LOG.warning(
                "an agent failed %d times in a row: left alone for %g s",
                self._num_failed,
                BREAK_S,
            )
        self._reopens = time.monotonic() + BREAK_S


class Watch:
    """Says in the log where a call hangs, while it is entered; `phase` is what the call
    is doing.
    """

    phase = ""

    def __init__(self, request: AgentRequest, agent_id: str) -> None:
        *episode, call = request.key or (0,)
        self._start, self._call = (
            time.monotonic(),
            ("-".join(map(str, episode)), call, agent_id),
        )

    def __enter__(self) -> "Watch":
        self._timer = asyncio.get_running_loop().call_later(STALL_S, self._tell)
        return self

    def __exit__(self, *fault: object) -> None:
        self._timer.cancel()

    def _tell(self) -> None:
        age_s = time.monotonic() - self._start
        LOG.warning(
            "stalled: episode %s, call %d, agent %s: %s, for %.0f s",
            *self._call,
            self.phase,
            age_s,
        )
        self._timer = asyncio.get_running_loop().call_later(STALL_S, self._tell)
