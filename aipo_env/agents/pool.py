"""The only way to an agent: limits calls, gives each a deadline, retries, keeps a journal and a budget.

Nothing an agent does reaches the caller as an error: an episode goes on without the reply.
"""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from aipo_env.agents.base import Agent, AgentReply, AgentRequest, BudgetSpent, RetryLater
from aipo_env.agents.gate import LOG, Gate, Watch
from aipo_env.agents.journal import Cassette as Cassette
from aipo_env.agents.journal import Journal as Journal
from aipo_env.agents.journal import Outcome as Outcome
from aipo_env.agents.journal import request_hash as request_hash
from aipo_env.errors import ConfigError
from aipo_env.records import CONSULT_KINDS

MAX_REPLY_CHARS = 20_000
"""A reply is cut here: no agent may flood an episode."""
MAX_ERROR_CHARS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Limits of an agent pool.

    Args:
        concurrency: Calls in flight at once to one agent.
        rate: Calls a second to one agent; 0: any number.
        deadline_s: Seconds a single attempt may take, and the longest pause that an agent may ask for: a call that
            is to wait longer fails.
        retries: Further attempts after a failed one.
        backoff_s: Mean seconds before the first retry; doubled for each further one. How much of it, from half to
            one and a half, is drawn from the request's seed.
        break_after: Failed attempts in a row after which an agent is left alone for 30 s; 0: never.
        max_calls: Attempts to ask agents in the whole run; None: any number. Replies from a journal are free.
        max_tokens: The same for tokens of replies. Calls in flight together may overdraw it.
        max_usd: The same for what the agents say they cost, in US dollars.
        when_spent: "unaided": further calls fail and the run goes on; "stop": the run ends with an error.

    Raises:
        ConfigError: A value is out of range; the message names it.
    """

    concurrency: int = 64
    rate: float = 0.0
    deadline_s: float = 60.0
    retries: int = 2
    backoff_s: float = 0.5
    break_after: int = 20
    max_calls: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    when_spent: Literal["unaided", "stop"] = "unaided"

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"agent pool: concurrency={self.concurrency} must be at least 1.")
        if not self.deadline_s > 0:
            raise ConfigError(f"agent pool: deadline_s={self.deadline_s} must be positive.")
        for name in ("rate", "retries", "backoff_s", "break_after", "max_calls", "max_tokens", "max_usd"):
            if not (getattr(self, name) is None or getattr(self, name) >= 0):
                raise ConfigError(f"agent pool: {name}={getattr(self, name)} must not be negative.")
        if self.when_spent not in ("unaided", "stop"):
            raise ConfigError(f"agent pool: when_spent={self.when_spent!r} must be 'unaided' or 'stop'.")


class AgentPool:
    """The agents of a run by role, and its tools by name, behind shared limits.

    `spent` is what agents were asked and said in this process: calls, tokens, usd.
    """

    def __init__(
        self,
        agents: Mapping[str, Agent],
        limits: PoolLimits | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.agents = dict(agents)
        self.limits = limits or PoolLimits()
        self.journal = journal
        self.spent: dict[str, float] = {"calls": 0, "tokens": 0, "usd": 0.0}
        self._is_told = False
        self._gates: dict[int, Gate] = {}

    def agent_id(self, kind: str) -> str:
        """Return the name of the agent behind a role, or of a tool."""
        agent = self.agents.get(kind)
        return agent.agent_id if agent else ""

    async def consult(self, request: AgentRequest) -> Outcome:
        """Ask an agent. Whatever an agent does, a failure is an outcome.

        Raises:
            BudgetSpent: The run's budget is spent, and it is to stop then.
        """
        agent = self.agents.get(request.kind)
        if agent is None:
            return Outcome(reply=None, error=f"no agent for {request.kind!r}")
        outcome = self.journal.get(request) if self.journal else None
        if outcome is None:
            outcome = await self._ask(agent, request)
            if self.journal and not request.is_private:
                self.journal.put(request, outcome)
        return outcome

    async def _ask(self, agent: Agent, request: AgentRequest) -> Outcome:
        """Ask until there is a reply or no further attempt."""
        start, error, attempt, limits = time.monotonic(), "", 0, self.limits
        gate = self._gate(agent)
        with Watch(request, agent.agent_id) as watch:
            for attempt in range(limits.retries + 1):
                if attempt:
                    watch.phase = "waiting to retry"
                    share = np.random.default_rng([request.seed, 5, attempt]).uniform(0.5, 1.5)
                    await asyncio.sleep(limits.backoff_s * 2 ** (attempt - 1) * share)
                reply, error, pause_s = await self._attempt(agent, request, gate, watch)
                if reply is not None:
                    if request.kind in CONSULT_KINDS:
                        self.spent["tokens"] += reply.tokens
                        self.spent["usd"] += reply.cost_usd
                    return Outcome(reply=reply, retries=attempt, seconds=time.monotonic() - start)
                if pause_s > limits.deadline_s:
                    break
                gate.pause(pause_s)
        return Outcome(reply=None, error=error, retries=attempt, seconds=time.monotonic() - start)

    def _gate(self, agent: Agent) -> Gate:
        """Return the gate of an agent; one that is behind several roles has one."""
        key, limits = id(getattr(agent, "mind", agent)), self.limits
        if key not in self._gates:
            self._gates[key] = Gate(limits.concurrency, limits.rate, limits.break_after)
        return self._gates[key]

    def _refusal(self, request: AgentRequest, gate: Gate) -> str:
        """Return why an attempt is not made; count it otherwise. Tools are not counted."""
        is_agent = request.kind in CONSULT_KINDS
        for name, spent in self.spent.items() if is_agent else ():
            most = getattr(self.limits, f"max_{name}")
            if most is not None and spent >= most:
                return self._stop(f"the run's budget for agents is spent: max_{name}={most}")
        refusal = gate.refusal()
        self.spent["calls"] += is_agent and not refusal
        return refusal

    def _stop(self, refusal: str) -> str:
        if self.limits.when_spent == "stop":
            raise BudgetSpent(f"{refusal}. Raise it, or set when_spent to 'unaided', and resume.")
        if not self._is_told:
            LOG.warning("%s; the run goes on unaided", refusal)
        self._is_told = True
        return refusal

    async def _attempt(
        self, agent: Agent, request: AgentRequest, gate: Gate, watch: Watch
    ) -> tuple[AgentReply | None, str, float]:
        """Make one attempt when it is its turn; return the reply, or None, what went wrong, and a wanted pause."""
        watch.phase = "waiting for its turn"
        async with gate.slots():
            await gate.turn()
            if refusal := self._refusal(request, gate):
                return None, refusal, math.inf
            watch.phase = "asked"
            reply, error, pause_s = await self._call(agent, request)
        gate.took(reply is not None)
        return reply, error, pause_s

    async def _call(self, agent: Agent, request: AgentRequest) -> tuple[AgentReply | None, str, float]:
        try:
            async with asyncio.timeout(self.limits.deadline_s) as deadline:
                reply: object = await agent.reply(request)
        except asyncio.CancelledError:
            check_cancelled()
            return None, "the agent cancelled itself", 0.0
        except (Exception, SystemExit) as error:  # an agent may be somebody else's program
            if deadline.expired():
                return None, f"no reply within {self.limits.deadline_s} s", 0.0
            pause_s = error.retry_after_s if isinstance(error, RetryLater) else 0.0
            return None, f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS], pause_s
        if not isinstance(reply, AgentReply):
            return None, f"no AgentReply, but {type(reply).__name__}", 0.0
        # Half a surrogate pair, as a JSON API may return it, is no text that a tokenizer takes.
        text = reply.text[:MAX_REPLY_CHARS].encode("utf-8", "replace").decode()
        if not text.strip():
            return None, "the reply is empty", 0.0
        return reply if text == reply.text else replace(reply, text=text), "", 0.0


def check_cancelled() -> None:
    """Raise CancelledError if this task was cancelled, and not somebody else's program within it."""
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
