"""The only way to an agent: limits, deadlines, retries, a journal and a budget.

What an agent does reaches the caller as an outcome, and an episode goes on without the
reply. Errors are raised only where no later call could do better: an agent that is
lost, a budget that is spent, something wrongly set or not installed.

The agent that a role (`KnowledgeAgent` and its kin) passes requests on to is called the
role's mind. One mind behind several roles is one agent here: it has one gate.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from aipo_env.agents.base import (
    Agent,
    AgentLost,
    AgentReply,
    AgentRequest,
    BudgetSpent,
    PermanentFailure,
    RequestRefused,
    RetryLater,
    said_of,
    taken,
)
from aipo_env.agents.pool.batching import Batcher
from aipo_env.agents.pool.gate import LOG, Gate, Watch
from aipo_env.agents.pool.journal import MAX_ERROR_CHARS
from aipo_env.agents.pool.journal import Cassette as Cassette
from aipo_env.agents.pool.journal import Journal as Journal
from aipo_env.agents.pool.journal import Outcome as Outcome
from aipo_env.agents.pool.journal import request_hash as request_hash
from aipo_env.agents.pool.limits import PoolLimits as PoolLimits
from aipo_env.budgets import SPENT, counted, spent_limit
from aipo_env.errors import is_hopeless
from aipo_env.keys import Salt, keyed_rng
from aipo_env.records import CONSULT_KINDS
from aipo_env.threads import check_cancelled

PAUSE_GROWTH = 2
"""By how much the mean pause before a retry grows from one retry to the next."""
LEAST_PAUSE, MOST_PAUSE = 0.5, 1.5
"""Bounds of a pause, as shares of its mean; spread, so that calls that failed together
do not come back together.
"""
SEED_DIGITS = 8
"""Hexadecimal digits of a hash that make a seed of 32 bits."""
_Question = tuple[asyncio.AbstractEventLoop, str]
"""A running event loop and the hash of what is asked in it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt came to: a reply, or None and what went wrong.

    Args:
        retry_after_s: Seconds for which nobody is to ask after a failure; None: the
            same request is not to be made again.
    """

    reply: AgentReply | None
    error: str = ""
    retry_after_s: float | None = 0.0


class AgentPool:
    """The agents of a run by role, and its tools by name, behind shared limits.

    `spent` is what agents were asked and said in this process: "calls", "tokens" and
    "usd", and the same of each role and tool: "verify/calls".

    Args:
        agents: By role or by name of a tool.
        limits: Those of `PoolLimits` unless others are given.
        journal: Where replies that were paid for are kept; nowhere if None.

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
        totals = {metric: getattr(self.limits, f"max_{metric}") for metric in SPENT}
        self._budget: dict[str, float | None] = {**totals, **self.limits.max_per_kind}
        self._warnings: set[str] = set()
        self._gates = defaultdict[int, Gate](lambda: Gate(self.limits))
        self._cache = self._open_cache()
        # Two loops may ask the same at once, and a task belongs to one of them.
        self._asking: dict[_Question, asyncio.Task[Outcome]] = {}

    def _open_cache(self) -> Journal | None:
        """Return where replies to equal questions are kept; None if nowhere."""
        place = self.limits.cache
        if not place:
            return None
        # A journal that writes into nothing still has its replies in memory.
        path = os.devnull if place == "memory" else place
        return Journal(Path(path).expanduser())

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
        agent = self.agents.get(request.kind) if tool is None else tool
        if agent is None:
            return Outcome(reply=None, error=f"no agent for {request.kind!r}")
        is_stateful = getattr(agent, "is_stateful", False)
        journal = None if is_stateful else self.journal
        recorded = journal.get(request) if journal else None
        if recorded:
            return recorded
        if tool is not None:
            outcome = await self._use(tool, request)
        elif self._cache and is_agents(request.kind) and not request.is_private:
            outcome = await self._ask_once(agent, request, self._cache)
        else:
            outcome = await self._ask(agent, request)
        # Nothing of a task that forbids republication is written down.
        if journal and not request.is_private:
            journal.put(request, outcome)
        return outcome

    async def _use(self, tool: Agent, request: AgentRequest) -> Outcome:
        """Call an episode's own tool.

        It waits for no other's, and no other's failures count against it: each episode
        has a tool of its own, so there is no gate. It is never called twice either.
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
        """Ask, unless the same was or is being asked: that reply is shared, and free.

        Equal questions get one seed, drawn from what is asked: with the episode's own
        it would depend on who comes first what all of them are told.
        """
        content = request_hash(replace(request, seed=0))
        request = replace(request, seed=int(content[:SEED_DIGITS], 16))
        outcome = cache.get(_of_any_episode(request))
        if outcome is None:
            question = (asyncio.get_running_loop(), request_hash(request))
            is_first = question not in self._asking
            if is_first:
                self._begin_asking(question, agent, request, cache)
            # Shielded: one who waits may be cancelled, and the others go on waiting.
            outcome = await asyncio.shield(self._asking[question])
            if is_first:
                return outcome
        # Whoever asked first has paid, waited and retried.
        reply = outcome.reply and replace(outcome.reply, cost_usd=0.0)
        return replace(outcome, reply=reply, retries=0, seconds=0.0)

    def _begin_asking(
        self, question: _Question, agent: Agent, request: AgentRequest, cache: Journal
    ) -> None:
        """Ask in a task of its own.

        Whoever asked first may be cancelled while others wait.
        """
        task = asyncio.create_task(self._ask_and_keep(agent, request, cache))
        task.add_done_callback(lambda _: self._asking.pop(question))
        self._asking[question] = task

    async def _ask_and_keep(
        self, agent: Agent, request: AgentRequest, cache: Journal
    ) -> Outcome:
        """Ask, and keep a reply for those who ask the same later."""
        outcome = await self._ask(agent, request)
        # Weights in training say something else tomorrow, and their log-probabilities
        # are known.
        if outcome.reply and not outcome.reply.logprobs:
            cache.put(_of_any_episode(request), outcome)
        return outcome

    async def _ask(self, agent: Agent, request: AgentRequest) -> Outcome:
        """Ask until there is a reply or no further attempt."""
        loss = self._loss(request.kind)
        if loss:
            return Outcome(reply=None, error=loss)
        start = time.monotonic()
        with Watch(request, agent.agent_id) as watch:
            retrying = self._retrying(request, watch)
            try:
                attempt: Attempt = await retrying(self._attempt, agent, request, watch)
            finally:
                # Its last actions refer to it: a cycle for each call, while garbage is
                # collected rarely (see `runner`).
                retrying.iter_state.reset()
        return Outcome(
            reply=attempt.reply,
            error=attempt.error,
            retries=retrying.statistics["attempt_number"] - 1,
            seconds=time.monotonic() - start,
        )

    def _retrying(self, request: AgentRequest, watch: Watch) -> AsyncRetrying:
        """Return what makes the attempts of one request, and pauses between them.

        An attempt returns how it failed. What it raises is for the caller, and is not
        tried again: a loss, a spent budget, a cancellation.
        """

        def pause_s(state: RetryCallState) -> float:
            return self._pause_s(request, state.attempt_number)

        def before_pause(state: RetryCallState) -> None:
            watch.phase = "waiting to retry"

        # A tool changes what it works on: a call that failed may have done so too.
        num_retries = self.limits.retries if is_agents(request.kind) else 0
        return AsyncRetrying(
            retry=retry_if_result(self._may_retry),
            stop=stop_after_attempt(1 + num_retries),
            wait=pause_s,
            before_sleep=before_pause,
            # A call that is cancelled in the midst of a pause wakes from it at once.
            sleep=asyncio.sleep,
            # Without it, a last attempt that failed would be raised as a RetryError.
            retry_error_callback=_last_attempt,
        )

    def _may_retry(self, attempt: Attempt) -> bool:
        """Return whether the same may be asked again.

        Not if the agent asks for a pause beyond the deadline: no episode waits so long.
        """
        if attempt.reply is not None or attempt.retry_after_s is None:
            return False
        return attempt.retry_after_s <= self.limits.deadline_s

    def _pause_s(self, request: AgentRequest, retry: int) -> float:
        """Return for how many seconds to wait before a retry, the first being 1.

        It is drawn from the request's seed and the retry's number alone, so that it
        does not matter how often it is asked for.
        """
        rng = keyed_rng([request.seed], Salt.RETRY_PAUSE, retry)
        mean_s: float = self.limits.backoff_s * PAUSE_GROWTH ** (retry - 1)
        return mean_s * rng.uniform(LEAST_PAUSE, MOST_PAUSE)

    async def _attempt(
        self, agent: Agent, request: AgentRequest, watch: Watch
    ) -> Attempt:
        """Make one attempt when it is its turn."""
        gate = self._gate(agent)
        watch.phase = "waiting for its turn"
        async with gate.slots():
            # A lost agent is not waited for: all who queue are told at once.
            if not gate.lost:
                await gate.turn()
            # Only now: much may have been spent, or lost, while this call waited.
            refusal = self._refusal(request.kind, gate)
            if refusal:
                return Attempt(None, refusal, retry_after_s=None)
            self._spend(request.kind, "calls", 1)
            watch.phase = "asked"
            start = time.monotonic()
            try:
                attempt = await self._hedged_call(agent, request, gate)
            except PermanentFailure as failure:
                self.lose(request.kind, said_of(mind_of(agent), failure))
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
        """Make a call; when it is late, make it again beside it.

        The first reply counts.
        """
        limits = self.limits
        is_hedged = bool(limits.hedge_s or limits.hedge_quantile)
        # A tool changes what it works on, so that it is not called a second time.
        if not is_hedged or not is_agents(request.kind):
            return await self._paid_call(agent, request)
        first = asyncio.create_task(self._paid_call(agent, request))
        calls = [first]
        try:
            finished_calls, _ = await asyncio.wait(calls, timeout=gate.patience_s())
            if finished_calls or not self._may_hedge(request.kind, gate):
                return await first
            async with gate.slots():
                await gate.turn()
                self._spend(request.kind, "calls", 1)
                calls.append(asyncio.create_task(self._paid_call(agent, request)))
                for finished in asyncio.as_completed(calls):
                    attempt = await finished
                    if attempt.reply is not None:
                        return attempt
                # With its own reason, and the pause that it may ask for.
                return first.result()
        finally:
            # The slower one, or both if the caller was cancelled.
            for call in calls:
                call.add_done_callback(_look_at)
                call.cancel()

    def _may_hedge(self, kind: str, gate: Gate) -> bool:
        """Return whether a second call may be made beside the first.

        What is optional neither waits nor ends the run.
        """
        if not gate.is_free() or spent_limit(self._budget, self.spent, kind):
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
        if reply is None:
            return Attempt(None, "the reply is empty")
        return Attempt(reply)

    async def _call(self, agent: Agent, request: AgentRequest) -> Attempt:
        """Have an agent reply in time. It may be somebody else's program."""
        deadline_s = self.limits.deadline_s
        try:
            async with asyncio.timeout(deadline_s) as deadline:
                reply: object = await agent.reply(request)
        except asyncio.CancelledError:
            # Of this task, or raised by the agent, whose program that concerns alone.
            check_cancelled()
            return Attempt(None, "the agent cancelled itself")
        except (Exception, SystemExit) as error:
            # The agent may have a timeout of its own, which looks the same.
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
        name = spent_limit(self._budget, self.spent, kind)
        if not name:
            return ""
        # As it is set: max_per_kind has "verify/calls", the total is max_calls.
        setting = name if "/" in name else f"max_{name}"
        limit = f"{setting}={self._budget[name]}"
        refusal = f"the run's budget for agents is spent: {limit}"
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
        """Log a warning that every further call would repeat."""
        if warning in self._warnings:
            return
        self._warnings.add(warning)
        LOG.warning("%s", warning)

    # Agents that can never answer.

    def lose(self, kind: str, reason: str) -> None:
        """Never again ask the agent behind a role, in this role or another.

        Args:
            kind: One of its roles.
            reason: Names the agent and says why. The first one stays.
        """
        gate = self._gate(self.agents[kind])
        gate.lost = gate.lost or reason[:MAX_ERROR_CHARS]
        if self.limits.when_lost == "unaided":
            self._warn_once(f"lost: {gate.lost}; the run goes on unaided")
            self._keep_loss(gate)

    def why_lost(self, kind: str) -> str:
        """Return why the agent behind a role can never answer; empty: it may.

        It may have been lost to this run, or to the one that this run resumes.
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
        """Take over a loss from the journal, or see that it stands there."""
        if self.journal is None:
            return
        reason = self.journal.loss(kind, agent.agent_id)
        if gate.lost and reason is None:
            # The pool has another journal than the one that the loss was written to.
            self._keep_loss(gate)
        elif reason is not None and not gate.lost:
            self.lose(kind, reason)

    def _keep_loss(self, gate: Gate) -> None:
        """Note in the journal every role of a lost agent."""
        for kind, agent in self.agents.items():
            if self.journal and self._gate(agent) is gate:
                self.journal.lose(kind, agent.agent_id, gate.lost)

    # Which agents are one.

    def _gate(self, agent: Agent) -> Gate:
        """Return the way to an agent: one, though it is behind several roles."""
        # By identity: equal agents may be two servers. They live as long as the pool.
        return self._gates[id(mind_of(agent))]

    def _batched(self, agent: Agent) -> Agent:
        """Return an agent whose calls are gathered, if its mind answers many at once.

        Roles that share a mind share its batches.
        """
        mind: Any = mind_of(agent)
        if not callable(getattr(mind, "reply_many", None)):
            return agent
        fresh = Batcher(mind, self.limits)
        batcher = self._batchers.setdefault(id(mind), fresh)
        is_role = mind is not agent and is_dataclass(agent)
        if not is_role:
            return batcher
        # The role stays in between: it decides what its mind may see of a request.
        role: Any = agent
        batched: Agent = replace(role, mind=batcher)
        return batched


def mind_of(agent: Agent) -> Agent:
    """Return the agent behind a role; an agent that is no role is its own mind."""
    mind: Agent = getattr(agent, "mind", agent)
    return mind


def is_agents(kind: str) -> bool:
    """Return whether agents answer calls of this kind; if not, it names a tool."""
    return kind in CONSULT_KINDS


def _of_any_episode(request: AgentRequest) -> AgentRequest:
    """Return a request under the one key that equal requests share in the cache."""
    return replace(request, key=())


def _last_attempt(state: RetryCallState) -> Attempt:
    """Return what the last attempt came to, when there is to be no other."""
    assert state.outcome is not None
    attempt: Attempt = state.outcome.result()
    return attempt


def _failed(error: BaseException) -> Attempt:
    """Return what an error of an agent comes to."""
    text = f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS]
    if isinstance(error, RequestRefused):
        return Attempt(None, text, retry_after_s=None)
    if isinstance(error, RetryLater):
        return Attempt(None, text, error.retry_after_s)
    return Attempt(None, text)


def _is_for_good(error: BaseException, kind: str) -> bool:
    """Return whether no later call could do better.

    A tool may be called with anything that a policy wrote, so that no failure of one
    tells of the next.
    """
    if isinstance(error, PermanentFailure):
        return is_agents(kind)
    return is_hopeless(error)


def _look_at(call: "asyncio.Task[Attempt]") -> None:
    """Look at the error of a call that nobody waits for any more.

    Of one that is never looked at, asyncio complains in the log.
    """
    if not call.cancelled():
        call.exception()
