"""The only way to an agent: limits calls, gives each a deadline, retries, keeps a journal and a budget.

Nothing an agent does reaches the caller as an error: an episode goes on without the reply.
"""

import asyncio
import math
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aipo_env.agents.base import (
    Agent,
    AgentReply,
    AgentRequest,
    BudgetSpent,
    RetryLater,
)
from aipo_env.agents.batching import Batcher
from aipo_env.agents.gate import LOG, Gate, Watch
from aipo_env.agents.journal import Cassette as Cassette
from aipo_env.agents.journal import Journal as Journal
from aipo_env.agents.journal import Outcome as Outcome
from aipo_env.agents.journal import request_hash as request_hash
from aipo_env.agents.limits import SPENT, counted, spent_limit
from aipo_env.agents.limits import PoolLimits as PoolLimits
from aipo_env.records import CONSULT_KINDS
from aipo_env.threads import check_cancelled as check_cancelled

MAX_REPLY_CHARS = 20_000
"""A reply is cut here: no agent may flood an episode."""
MAX_ERROR_CHARS = 500
Answer = tuple[AgentReply | None, str, float]
"""What an attempt came to: a reply, or None; what went wrong; the pause in seconds that the agent wants."""


class AgentPool:
    """The agents of a run by role, and its tools by name, behind shared limits.

    `spent` is what agents were asked and said in this process: "calls", "tokens" and "usd", and the same of each
    role and tool: "verify/calls".

    Raises:
        ConfigError: There is no folder for the cache.
    """

    def __init__(
        self,
        agents: Mapping[str, Agent],
        limits: PoolLimits | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.limits = limits or PoolLimits()
        self.journal = journal
        self._batchers: dict[int, Batcher] = {}
        self.agents = {kind: self._batched(agent) for kind, agent in agents.items()}
        self.spent = defaultdict[str, float](float, calls=0, tokens=0, usd=0.0)
        totals = {name: getattr(self.limits, f"max_{name}") for name in SPENT}
        self._most: dict[str, float | None] = {**totals, **self.limits.max_per_kind}
        self._told: set[str] = set()
        self._gates = defaultdict[int, Gate](lambda: Gate(self.limits))
        place = os.devnull if self.limits.cache == "memory" else self.limits.cache
        self._cache = Journal(Path(place).expanduser()) if place else None
        self._asked: dict[
            tuple[asyncio.AbstractEventLoop, str], asyncio.Task[Outcome]
        ] = {}

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
        if self.journal and (kept := self.journal.get(request)):
            return kept
        cache = (
            self._cache
            if request.kind in CONSULT_KINDS and not request.is_private
            else None
        )
        outcome = await (
            self._ask_once(agent, request, cache)
            if cache
            else self._ask(agent, request)
        )
        if self.journal and not request.is_private:
            self.journal.put(request, outcome)
        return outcome

    def _batched(self, agent: Agent) -> Agent:
        """Return an agent whose calls are gathered if it, or what is behind its role, answers many at once."""
        mind: Any = getattr(agent, "mind", agent)
        if not callable(getattr(mind, "reply_many", None)):
            return agent
        batcher = self._batchers.setdefault(id(mind), Batcher(mind, self.limits))
        return (
            replace(agent, mind=batcher)
            if mind is not agent and is_dataclass(agent)
            else batcher
        )

    async def _ask_once(
        self, agent: Agent, request: AgentRequest, cache: Journal
    ) -> Outcome:
        """Ask, unless the same was asked before or is being asked: then the reply is that one, and free."""
        request = replace(
            request, seed=int(request_hash(replace(request, seed=0))[:8], 16)
        )
        place, name = (
            replace(request, key=()),
            (asyncio.get_running_loop(), request_hash(request)),
        )
        if (outcome := cache.get(place)) is None:
            is_first = name not in self._asked
            if is_first:
                # A task of its own: whoever asked first may be cancelled while others wait.
                self._asked[name] = asyncio.create_task(
                    self._ask_and_keep(agent, request, cache)
                )
                self._asked[name].add_done_callback(lambda _: self._asked.pop(name))
            outcome = await asyncio.shield(self._asked[name])
            if is_first:
                return outcome
        reply = outcome.reply and replace(outcome.reply, cost_usd=0.0)
        return replace(outcome, reply=reply, retries=0, seconds=0.0)

    async def _ask_and_keep(
        self, agent: Agent, request: AgentRequest, cache: Journal
    ) -> Outcome:
        outcome = await self._ask(agent, request)
        # Weights in training say something else tomorrow, and their log-probabilities are known.
        if outcome.reply and not outcome.reply.logprobs:
            cache.put(replace(request, key=()), outcome)
        return outcome

    async def _ask(self, agent: Agent, request: AgentRequest) -> Outcome:
        """Ask until there is a reply or no further attempt."""
        start, error, attempt, limits = time.monotonic(), "", 0, self.limits
        gate = self._gates[
            id(getattr(agent, "mind", agent))
        ]  # one, though it is behind several roles
        with Watch(request, agent.agent_id) as watch:
            for attempt in range(limits.retries + 1):
                if attempt:
                    watch.phase = "waiting to retry"
                    share = np.random.default_rng([request.seed, 5, attempt]).uniform(
                        0.5, 1.5
                    )
                    await asyncio.sleep(limits.backoff_s * 2 ** (attempt - 1) * share)
                reply, error, pause_s = await self._attempt(agent, request, gate, watch)
                if reply is not None:
                    return Outcome(
                        reply=reply, retries=attempt, seconds=time.monotonic() - start
                    )
                if pause_s > limits.deadline_s:
                    break
                gate.pause(pause_s)
        return Outcome(
            reply=None, error=error, retries=attempt, seconds=time.monotonic() - start
        )

    def _spend(self, kind: str, name: str, amount: float) -> None:
        """Count what a role or a tool took; a tool is not counted with the agents."""
        for counted_name in counted(kind, name):
            self.spent[counted_name] += amount

    def _refusal(self, request: AgentRequest, gate: Gate) -> str:
        """Return why an attempt is not made; count it otherwise."""
        name = spent_limit(self._most, self.spent, request.kind)
        if not name:
            refusal = gate.refusal()
            self._spend(request.kind, "calls", not refusal)
            return refusal
        shown = name if "/" in name else f"max_{name}"
        refusal = f"the run's budget for agents is spent: {shown}={self._most[name]}"
        if self.limits.when_spent == "stop":
            raise BudgetSpent(
                f"{refusal}. Raise it, or set when_spent to 'unaided', and resume."
            )
        if refusal not in self._told:
            LOG.warning("%s; the run goes on unaided", refusal)
        self._told.add(refusal)
        return refusal

    async def _attempt(
        self, agent: Agent, request: AgentRequest, gate: Gate, watch: Watch
    ) -> Answer:
        """Make one attempt when it is its turn."""
        watch.phase = "waiting for its turn"
        async with gate.slots():
            await gate.turn()
            if refusal := self._refusal(request, gate):
                return None, refusal, math.inf
            watch.phase, start = "asked", time.monotonic()
            is_hedged = self.limits.hedge_s or self.limits.hedge_quantile
            answer = await (
                self._hedge(agent, request, gate)
                if is_hedged
                else self._call(agent, request)
            )
            gate.took(answer[0] is not None, time.monotonic() - start)
        return answer

    async def _hedge(self, agent: Agent, request: AgentRequest, gate: Gate) -> Answer:
        """Make a call; when it takes longer than is usual, make it again beside it and take the first reply."""
        calls = [asyncio.create_task(self._call(agent, request))]
        try:
            done, _ = await asyncio.wait(calls, timeout=gate.patience_s())
            # What is optional neither waits nor ends the run.
            is_free = gate.is_free() and not spent_limit(
                self._most, self.spent, request.kind
            )
            if done or not is_free or self._refusal(request, gate):
                return await calls[0]
            async with gate.slots():
                await gate.turn()
                calls.append(asyncio.create_task(self._call(agent, request)))
                for call in asyncio.as_completed(calls):
                    if (answer := await call)[0]:
                        return answer
                return calls[
                    0
                ].result()  # with its own reason, and the pause that it may ask for
        finally:
            for call in calls:
                call.cancel()

    async def _call(self, agent: Agent, request: AgentRequest) -> Answer:
        try:
            async with asyncio.timeout(self.limits.deadline_s) as deadline:
                reply: object = await agent.reply(request)
        except asyncio.CancelledError:
            check_cancelled()
            return None, "the agent cancelled itself", 0.0
        except (
            Exception,
            SystemExit,
        ) as error:  # an agent may be somebody else's program
            if deadline.expired():
                return None, f"no reply within {self.limits.deadline_s} s", 0.0
            pause_s = error.retry_after_s if isinstance(error, RetryLater) else 0.0
            return None, f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS], pause_s
        if not isinstance(reply, AgentReply):
            return None, f"no AgentReply, but {type(reply).__name__}", 0.0
        # Here, because a reply that is empty, or comes second, is paid for too.
        self._spend(request.kind, "tokens", reply.tokens)
        self._spend(request.kind, "usd", reply.cost_usd)
        # Half a surrogate pair, as a JSON API may return it, is no text that a tokenizer takes.
        text = reply.text[:MAX_REPLY_CHARS].encode("utf-8", "replace").decode()
        if not text.strip():
            return None, "the reply is empty", 0.0
        return (
            reply
            if text == reply.text
            else replace(reply, text=text, token_ids=(), logprobs=()),
            "",
            0.0,
        )
