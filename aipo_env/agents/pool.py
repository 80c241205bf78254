"""The only way to an agent: limits calls, gives each a deadline, retries, keeps a
journal and a budget.

What an agent does reaches the caller as an outcome, and an episode goes on without the
reply. Errors are what no later call could mend: an agent that is lost, a budget that is
spent, something wrongly set or not installed.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from aipo_env.agents.base import (
    Agent,
    AgentLost,
    AgentReply,
    AgentRequest,
    BudgetSpent,
    PermanentFailure,
    RequestRefused,
    RetryLater,
    named,
    taken,
)
from aipo_env.agents.batching import Batcher
from aipo_env.agents.gate import LOG, Gate, Watch
from aipo_env.agents.journal import MAX_ERROR_CHARS
from aipo_env.agents.journal import Cassette as Cassette
from aipo_env.agents.journal import Journal as Journal
from aipo_env.agents.journal import Outcome as Outcome
from aipo_env.agents.journal import request_hash as request_hash
from aipo_env.agents.limits import SPENT, counted, spent_limit
from aipo_env.agents.limits import PoolLimits as PoolLimits
from aipo_env.errors import is_hopeless
from aipo_env.keys import Salt, keyed_rng
from aipo_env.records import CONSULT_KINDS
from aipo_env.threads import check_cancelled


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt came to: a reply, or None and what went wrong.

    `retry_after_s` is for how many seconds nobody is to ask then; None: the same
    request is not to be made again.
    """

    reply: AgentReply | None
    error: str = ""
    retry_after_s: float | None = 0.0


class AgentPool:
    """The agents of a run by role, and its tools by name, behind shared limits.

    `spent` is what agents were asked and said in this process: "calls", "tokens" and
    "usd", and the same of each role and tool: "verify/calls".

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

    # What a call passes through, from top to bottom.

    async def consult(
        self, request: AgentRequest, tool: Agent | None = None
    ) -> Outcome:
        """Ask an agent or a tool. Whatever it does, a failure is an outcome.

        Args:
            tool: Asked instead of the pool's own of that kind, once: a tool of an
                episode's own. It has the pool's deadline and budget for the kind. With
                an attribute `is_stateful = True` nothing of it is kept or taken from
                the journal, so that its state is built anew when a step is played
                again.

        Raises:
            AgentLost: The agent can never answer, and the run is to stop then.
            BudgetSpent: The run's budget is spent, and it is to stop then.
            ConfigError: The agent is wrongly set, or cannot be used on this machine.
            ImportError: The agent needs what is not installed.
        """
        asked = self.agents.get(request.kind) if tool is None else tool
        if asked is None:
            return Outcome(reply=None, error=f"no agent for {request.kind!r}")
        is_stateful = getattr(asked, "is_stateful", False)
        journal = None if is_stateful else self.journal
        kept = journal.get(request) if journal else None
        if kept:
            return kept
        if tool is not None:
            outcome = await self._use(tool, request)
        elif self._cache and is_agents(request.kind) and not request.is_private:
            outcome = await self._ask_once(asked, request, self._cache)
        else:
            outcome = await self._ask(asked, request)
        if journal and not request.is_private:
            journal.put(request, outcome)
        return outcome

    async def _use(self, tool: Agent, request: AgentRequest) -> Outcome:
        """Call an episode's own tool. It waits for no other's, and no other's failures
        count against it.
        """
        refusal = self._overspent(request.kind)
        if refusal:
            return Outcome(reply=None, error=refusal)
        self._spend(request.kind, "calls", 1)
        start = time.monotonic()
        with Watch(request, getattr(tool, "agent_id", request.kind)) as watch:
            watch.phase = "called"
            try:
                attempt = await self._paid_call(tool, request)
            except PermanentFailure as failure:
                # It is this episode's alone, and the next episode has another.
                attempt = _failed(failure)
        seconds = time.monotonic() - start
        return Outcome(reply=attempt.reply, error=attempt.error, seconds=seconds)

    async def _ask_once(
        self, agent: Agent, request: AgentRequest, cache: Journal
    ) -> Outcome:
        """Ask, unless the same was asked before or is being asked: then the reply is
        that one, and free.
        """
        shown = request_hash(replace(request, seed=0))
        request = replace(request, seed=int(shown[:8], 16))
        place = replace(request, key=())
        name = (asyncio.get_running_loop(), request_hash(request))
        outcome = cache.get(place)
        if outcome is None:
            is_first = name not in self._asked
            if is_first:
                # A task of its own: whoever asked first may be cancelled while others
                # wait.
                asking = asyncio.create_task(self._ask_and_keep(agent, request, cache))
                asking.add_done_callback(lambda _: self._asked.pop(name))
                self._asked[name] = asking
            outcome = await asyncio.shield(self._asked[name])
            if is_first:
                return outcome
        reply = outcome.reply and replace(outcome.reply, cost_usd=0.0)
        return replace(outcome, reply=reply, retries=0, seconds=0.0)

    async def _ask_and_keep(
        self, agent: Agent, request: AgentRequest, cache: Journal
    ) -> Outcome:
        outcome = await self._ask(agent, request)
        # Weights in training say something else tomorrow, and their log-probabilities
        # are known.
        if outcome.reply and not outcome.reply.logprobs:
            cache.put(replace(request, key=()), outcome)
        return outcome

    async def _ask(self, agent: Agent, request: AgentRequest) -> Outcome:
        """Ask until there is a reply or no further attempt."""
        loss = self._loss(request.kind)
        if loss:
            return Outcome(reply=None, error=loss)
        start = time.monotonic()
        # A tool changes what it works on: a call that failed may have done so too.
        most_retries = self.limits.retries if is_agents(request.kind) else 0
        with Watch(request, agent.agent_id) as watch:
            attempt = await self._attempt(agent, request, watch)
            retries = 0
            while self._may_retry(attempt) and retries < most_retries:
                retries += 1
                watch.phase = "waiting to retry"
                await asyncio.sleep(self._back_off_s(request, retries))
                attempt = await self._attempt(agent, request, watch)
        return Outcome(
            reply=attempt.reply,
            error=attempt.error,
            retries=retries,
            seconds=time.monotonic() - start,
        )

    def _may_retry(self, attempt: Attempt) -> bool:
        """Return whether the same may be asked again."""
        if attempt.reply is not None or attempt.retry_after_s is None:
            return False
        return attempt.retry_after_s <= self.limits.deadline_s

    def _back_off_s(self, request: AgentRequest, retry: int) -> float:
        """Return for how long to wait before a retry, the first being 1; it is drawn
        from the request's seed.
        """
        rng = keyed_rng([request.seed], Salt.RETRY_PAUSE, retry)
        mean_s: float = self.limits.backoff_s * 2 ** (retry - 1)
        return mean_s * rng.uniform(0.5, 1.5)

    async def _attempt(
        self, agent: Agent, request: AgentRequest, watch: Watch
    ) -> Attempt:
        """Make one attempt when it is its turn."""
        gate = self._gate(agent)
        watch.phase = "waiting for its turn"
        async with gate.slots():
            if not gate.lost:
                await gate.turn()
            refusal = self._refusal(request.kind, gate)
            if refusal:
                return Attempt(None, refusal, retry_after_s=None)
            self._spend(request.kind, "calls", 1)
            watch.phase, start = "asked", time.monotonic()
            try:
                attempt = await self._hedged_call(agent, request, gate)
            except PermanentFailure as failure:
                self.lose(request.kind, named(mind_of(agent), failure))
                return Attempt(None, self._loss(request.kind), retry_after_s=None)
            seconds = time.monotonic() - start
        # That an agent refuses what a policy wrote does not count against it.
        if attempt.retry_after_s is not None:
            gate.took(attempt.reply is not None, seconds)
        if self._may_retry(attempt):
            gate.pause(attempt.retry_after_s or 0.0)
        return attempt

    async def _hedged_call(
        self, agent: Agent, request: AgentRequest, gate: Gate
    ) -> Attempt:
        """Make a call; when it takes longer than is usual, make it again beside it and
        take the first reply.
        """
        limits = self.limits
        is_hedged = bool(limits.hedge_s or limits.hedge_quantile)
        if not is_hedged or not is_agents(request.kind):
            return await self._paid_call(agent, request)
        first = asyncio.create_task(self._paid_call(agent, request))
        calls = [first]
        try:
            done, _ = await asyncio.wait(calls, timeout=gate.patience_s())
            if done or not self._may_hedge(request.kind, gate):
                return await first
            async with gate.slots():
                await gate.turn()
                self._spend(request.kind, "calls", 1)
                calls.append(asyncio.create_task(self._paid_call(agent, request)))
                for call in asyncio.as_completed(calls):
                    attempt = await call
                    if attempt.reply is not None:
                        return attempt
                # With its own reason, and the pause that it may ask for.
                return first.result()
        finally:
            for ended in calls:
                ended.add_done_callback(_look_at)
                ended.cancel()

    def _may_hedge(self, kind: str, gate: Gate) -> bool:
        """Return whether a second call may be made beside the first: what is optional
        neither waits nor ends the run.
        """
        if not gate.is_free() or spent_limit(self._most, self.spent, kind):
            return False
        return not gate.lost and not gate.refusal()

    async def _paid_call(self, agent: Agent, request: AgentRequest) -> Attempt:
        """Make a call, and count what its reply takes."""
        attempt = await self._call(agent, request)
        if attempt.reply is None:
            return attempt
        # Here, because a reply that is empty, or comes second, is paid for too.
        self._spend(request.kind, "tokens", attempt.reply.tokens)
        self._spend(request.kind, "usd", attempt.reply.cost_usd)
        reply = taken(attempt.reply)
        return Attempt(reply, "" if reply else "the reply is empty")

    async def _call(self, agent: Agent, request: AgentRequest) -> Attempt:
        """Have an agent reply in time. It may be somebody else's program."""
        deadline_s = self.limits.deadline_s
        try:
            async with asyncio.timeout(deadline_s) as deadline:
                reply: object = await agent.reply(request)
        except asyncio.CancelledError:
            check_cancelled()
            return Attempt(None, "the agent cancelled itself")
        except (Exception, SystemExit) as error:
            if deadline.expired():
                return Attempt(None, f"no reply within {deadline_s} s")
            if _is_for_good(error, request.kind):
                raise
            return _failed(error)
        if not isinstance(reply, AgentReply):
            return Attempt(None, f"no AgentReply, but {type(reply).__name__}")
        return Attempt(reply)

    # Why no call is made, and what calls take.

    def _refusal(self, kind: str, gate: Gate) -> str:
        """Return why an attempt is not made; empty: it may be.

        Raises:
            AgentLost, BudgetSpent: The run is to stop then.
        """
        return self._loss(kind) or self._overspent(kind) or gate.refusal()

    def _overspent(self, kind: str) -> str:
        """Return which budget forbids another call; empty: none does."""
        name = spent_limit(self._most, self.spent, kind)
        if not name:
            return ""
        shown = name if "/" in name else f"max_{name}"
        refusal = f"the run's budget for agents is spent: {shown}={self._most[name]}"
        if self.limits.when_spent == "stop":
            raise BudgetSpent(
                f"{refusal}. Raise it, or set when_spent to 'unaided', and resume."
            )
        self._warn_once(f"{refusal}; the run goes on unaided")
        return refusal

    def _spend(self, kind: str, name: str, amount: float) -> None:
        """Count what a role or a tool took; a tool is not counted with the agents."""
        for counted_name in counted(kind, name):
            self.spent[counted_name] += amount

    def _warn_once(self, warning: str) -> None:
        if warning not in self._told:
            LOG.warning("%s", warning)
        self._told.add(warning)

    # Agents that can never answer.

    def lose(self, kind: str, reason: str) -> None:
        """Never again ask the agent behind a role, in this role or another; `reason`
        names it and says why.
        """
        lost = self._gate(self.agents[kind])
        lost.lost = lost.lost or reason[:MAX_ERROR_CHARS]
        if self.limits.when_lost == "unaided":
            self._warn_once(f"lost: {lost.lost}; the run goes on unaided")
            self._keep_loss(lost)

    def why_lost(self, kind: str) -> str:
        """Return why the agent behind a role can never answer, to this run or the one
        it resumes; empty: it may.
        """
        agent = self.agents.get(kind)
        if agent is None or not is_agents(kind):
            return ""
        gate = self._gate(agent)
        if self.limits.when_lost == "unaided":
            self._recall_loss(kind, agent, gate)
        return gate.lost

    def _loss(self, kind: str) -> str:
        """Return the error of a call to an agent that is lost; empty: it is not.

        Raises:
            AgentLost: The run is to stop then.
        """
        reason = self.why_lost(kind)
        if reason and self.limits.when_lost == "stop":
            raise AgentLost.of(reason)
        return f"lost: {reason}" if reason else ""

    def _recall_loss(self, kind: str, agent: Agent, gate: Gate) -> None:
        """Take over from the journal that a run goes on without an agent, and see that
        it is there.
        """
        if self.journal is None:
            return
        reason = self.journal.loss(kind, agent.agent_id)
        if gate.lost and reason is None:
            self._keep_loss(gate)  # another journal than the one it was written to
        elif reason is not None and not gate.lost:
            self.lose(kind, reason)

    def _keep_loss(self, gate: Gate) -> None:
        """Put each role of an agent into the journal as one that the run goes on
        without.
        """
        for kind, agent in self.agents.items():
            if self.journal and self._gate(agent) is gate:
                self.journal.lose(kind, agent.agent_id, gate.lost)

    # Which agents are one.

    def _gate(self, agent: Agent) -> Gate:
        """Return the way to an agent: one, though it is behind several roles."""
        return self._gates[id(mind_of(agent))]

    def _batched(self, agent: Agent) -> Agent:
        """Return an agent whose calls are gathered if it, or what is behind its role,
        answers many at once.
        """
        mind: Any = mind_of(agent)
        if not callable(getattr(mind, "reply_many", None)):
            return agent
        batcher = self._batchers.setdefault(id(mind), Batcher(mind, self.limits))
        return (
            replace(agent, mind=batcher)
            if mind is not agent and is_dataclass(agent)
            else batcher
        )


def mind_of(agent: Agent) -> Agent:
    """Return the agent behind a role."""
    mind: Agent = getattr(agent, "mind", agent)
    return mind


def is_agents(kind: str) -> bool:
    """Return whether agents answer calls of this kind; otherwise it is a tool's
    name.
    """
    return kind in CONSULT_KINDS


def _failed(error: BaseException) -> Attempt:
    """Return what an error of an agent comes to."""
    told = f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS]
    if isinstance(error, RequestRefused):
        return Attempt(None, told, retry_after_s=None)
    if isinstance(error, RetryLater):
        return Attempt(None, told, error.retry_after_s)
    return Attempt(None, told)


def _is_for_good(error: BaseException, kind: str) -> bool:
    """Return whether no later call could do better.

    A tool may be called with anything that a policy wrote, so that no failure of one
    tells of the next.
    """
    if isinstance(error, PermanentFailure):
        return is_agents(kind)
    return is_hopeless(error)


def _look_at(call: "asyncio.Task[Attempt]") -> None:
    """Take an error that nobody waits for any more; asyncio would complain that none
    did.
    """
    if not call.cancelled():
        call.exception()
