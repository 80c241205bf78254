"""When an agent may be asked: how many calls at once, and when it is to be left alone.

An agent has so many calls at once and a second, a pause when it asks for one, and a
rest when it keeps failing. A watch on each call tells in the log where a run hangs.
"""

import asyncio
import logging
import time
from collections import defaultdict, deque

import numpy as np

from aipo_env.agents.base import Agent, AgentRequest
from aipo_env.agents.pool.limits import PoolLimits
from aipo_env.agents.roles import answerer_of

BREAK_S = 30.0
"""How long an agent that keeps failing is left alone; then one call tries it again."""
HEDGE_AFTER = 20
"""Replies from which it can be told how long they usually take."""
HEDGE_MEMORY = 256
"""So many of the last replies tell it: an agent that became slower is believed soon."""
STALL_S = 30.0
"""A call that takes longer is in the log, again and again."""
LOG = logging.getLogger("aipo_env.agents")


class Gate:
    """The way to one agent.

    `limits.concurrency` holds for each event loop. `lost` is why the agent can never
    answer; empty: it may.
    """

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._interval_s = 1 / limits.rate if limits.rate else 0.0
        # A semaphore belongs to the event loop it first waited in, a pool outlives
        # loops.
        self._slots: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        # Both by the monotonic clock.
        self._next_start = 0.0
        self._reopens = 0.0
        self._num_failed = 0
        self._reply_seconds = deque[float](maxlen=HEDGE_MEMORY)
        self.lost = ""

    def slots(self) -> asyncio.Semaphore:
        """Return what limits the calls of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._slots:
            # A run may open a loop for every step: those that are closed are let go.
            self._slots = {
                earlier: slots
                for earlier, slots in self._slots.items()
                if not earlier.is_closed()
            }
            self._slots[loop] = asyncio.Semaphore(self._limits.concurrency)
        return self._slots[loop]

    async def wait_for_slot(self) -> None:
        """Wait until the agent may be asked."""
        now = time.monotonic()
        start = max(now, self._next_start)
        # Taken before the wait, so that the next one who comes queues behind.
        self._next_start = start + self._interval_s
        if start > now:
            await asyncio.sleep(start - now)

    def is_free(self) -> bool:
        """Return whether a call could be made at once."""
        return not self.slots().locked() and time.monotonic() >= self._next_start

    def pause(self, pause_s: float) -> None:
        """Let nobody ask for so many seconds."""
        self._next_start = max(self._next_start, time.monotonic() + pause_s)

    def refusal(self) -> str:
        """Return why the agent may not be asked; empty when it may.

        Of those who ask after a rest, the first may, and is to tell by `took`.
        """
        now = time.monotonic()
        most = self._limits.break_after
        if not most or self._num_failed < most:
            return ""
        if now < self._reopens:
            return f"not asked: it failed {self._num_failed} times in a row"
        # This call tries, the others wait for what becomes of it.
        self._reopens = now + BREAK_S
        return ""

    def patience_s(self) -> float | None:
        """Return after how many seconds a call is made a second time; None: never."""
        quantile = self._limits.hedge_quantile
        if quantile and len(self._reply_seconds) >= HEDGE_AFTER:
            return float(np.quantile(self._reply_seconds, quantile))
        return self._limits.hedge_s or None

    def took(self, is_answered: bool, seconds: float) -> None:
        """Count an attempt, and for how many seconds it took."""
        if is_answered:
            self._num_failed = 0
            self._reply_seconds.append(seconds)
        else:
            self._num_failed += 1
        # Equal, not more: calls that were under way fail too, and one line is enough.
        if not is_answered and self._num_failed == self._limits.break_after:
            LOG.warning(
                "an agent failed %d times in a row: left alone for %g s",
                self._num_failed,
                BREAK_S,
            )
        # Looked at only after `break_after` failures; the rest begins at the last one.
        self._reopens = time.monotonic() + BREAK_S


class Gates:
    """The ways to the agents of a pool.

    Args:
        limits: Those of the pool.
    """

    def __init__(self, limits: PoolLimits) -> None:
        self._gates = defaultdict[int, Gate](lambda: Gate(limits))

    def of(self, agent: Agent) -> Gate:
        """Return the way to an agent: one, though it is behind several roles."""
        # By identity: equal agents may be two servers. They live as long as the pool.
        return self._gates[id(answerer_of(agent))]


class Notices:
    """Warnings that every further call would repeat; each is logged once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def give(self, warning: str) -> None:
        """Log a warning, unless it was."""
        if warning in self._given:
            return
        self._given.add(warning)
        LOG.warning("%s", warning)


class Watch:
    """Says in the log where a call hangs, while it is entered.

    `phase` is what the call is doing; whoever makes the call keeps it up to date.
    """

    phase = ""

    def __init__(self, request: AgentRequest, agent_id: str) -> None:
        # A key ends with the number of the call; before it stands the episode's.
        *episode, call_id = request.key or (0,)
        self._episode = "-".join(map(str, episode))
        self._call_id = call_id
        self._agent_id = agent_id
        self._start = time.monotonic()

    def __enter__(self) -> "Watch":
        self._wait()
        return self

    def __exit__(self, *fault: object) -> None:
        self._timer.cancel()

    def _wait(self) -> None:
        """Have the loop look again after a while; a timer costs less than a task."""
        self._timer = asyncio.get_running_loop().call_later(STALL_S, self._tell)

    def _tell(self) -> None:
        """Write where the call hangs into the log, and wait again."""
        age_s = time.monotonic() - self._start
        LOG.warning(
            "stalled: episode %s, call %d, agent %s: %s, for %.0f s",
            self._episode,
            self._call_id,
            self._agent_id,
            self.phase,
            age_s,
        )
        self._wait()
