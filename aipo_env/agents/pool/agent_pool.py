"""The only way to an agent: limits, deadlines, retries, a journal and a budget.

What an agent does reaches the caller as an outcome, and an episode goes on without the
reply. Errors are raised only where no later call could do better: an agent that is
lost, a budget that is spent, something wrongly set or not installed.

An agent to which several roles (`KnowledgeAgent` and its kin) pass requests on is one
agent here: it has one gate.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from aipo_env.agents.base import (
    Agent,
    AgentReply,
    AgentRequest,
    PermanentFailure,
    RequestRefused,
    RetryLater,
    loss_reason,
    taken,
)
from aipo_env.agents.pool.batching import Batcher
from aipo_env.agents.pool.budget import Budget
from aipo_env.agents.pool.gate import Gate, Gates, Watch
from aipo_env.agents.pool.journal import MAX_ERROR_CHARS, Journal, Outcome
from aipo_env.agents.pool.limits import PoolLimits
from aipo_env.agents.pool.losses import Losses
from aipo_env.agents.pool.shared_questions import SharedQuestions, open_cache
from aipo_env.agents.roles import answerer_of, is_agents
from aipo_env.errors import is_hopeless
from aipo_env.keys import Salt, keyed_rng
from aipo_env.threads import check_cancelled

PAUSE_GROWTH = 2
"""By how much the mean pause before a retry grows from one retry to the next."""
LEAST_PAUSE, MOST_PAUSE = 0.5, 1.5
"""Bounds of a pause, as shares of its mean; spread, so that calls that failed together
do not come back together.
"""


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
        self._budget = Budget(self.limits)
        self.spent = self._budget.spent
        self._gates = Gates(self.limits)
        self._losses = Losses(self.agents, self._gates, self.limits)
        cache = open_cache(self.limits.cache)
        self._shared = SharedQuestions(cache, self._ask) if cache else None

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
        elif self._shared and is_agents(request.kind) and not request.is_private:
            outcome = await self._shared.ask(agent, request)
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
        refusal = self._budget.refusal(request.kind)
        if refusal:
            return Outcome(reply=None, error=refusal)
        self._budget.spend(request.kind, "calls", 1)
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

    async def _ask(self, agent: Agent, request: AgentRequest) -> Outcome:
        """Ask until there is a reply or no further attempt."""
        loss = self._losses.refusal(request.kind, self.journal)
        if loss:
            return Outcome(reply=None, error=loss)
        start = time.monotonic()
        num_retries = 0
        with Watch(request, agent.agent_id) as watch:
            # Beside the retrying: most calls succeed at once, and what repeats them
            # costs as much time as all else that a call passes through.
            attempt = await self._attempt(agent, request, watch)
            if self._may_retry(attempt) and self._most_retries(request.kind):
                attempt, num_retries = await self._retry(agent, request, watch)
        return Outcome(
            reply=attempt.reply,
            error=attempt.error,
            retries=num_retries,
            seconds=time.monotonic() - start,
        )

    def _most_retries(self, kind: str) -> int:
        """Return how often a failed call may be made again.

        A tool changes what it works on: a call that failed may have done so too.
        """
        return self.limits.retries if is_agents(kind) else 0

    async def _retry(
        self, agent: Agent, request: AgentRequest, watch: Watch
    ) -> tuple[Attempt, int]:
        """Make further attempts after a first that failed, with a pause before each.

        An attempt returns how it failed. What it raises is for the caller, and is not
        tried again: a loss, a spent budget, a cancellation.

        Returns:
            The last attempt, and how many there were.
        """

        def pause_s(state: RetryCallState) -> float:
            # Of the retry to come: the first was made after a pause of its own.
            return self._pause_s(request, state.attempt_number + 1)

        def before_pause(state: RetryCallState) -> None:
            watch.phase = "waiting to retry"

        retrying = AsyncRetrying(
            retry=retry_if_result(self._may_retry),
            stop=stop_after_attempt(self._most_retries(request.kind)),
            wait=pause_s,
            before_sleep=before_pause,
            # A call that is cancelled in the midst of a pause wakes from it at once.
            sleep=asyncio.sleep,
            # Without it, a last attempt that failed would be raised as a RetryError.
            retry_error_callback=_last_attempt,
        )
        watch.phase = "waiting to retry"
        await asyncio.sleep(self._pause_s(request, 1))
        try:
            attempt: Attempt = await retrying(self._attempt, agent, request, watch)
        finally:
            # Its last actions refer to it: a cycle for each call, while garbage is
            # collected rarely (see `runner`).
            retrying.iter_state.reset()
        return attempt, retrying.statistics["attempt_number"]

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
        """Make one attempt when the agent may be asked."""
        gate = self._gates.of(agent)
        watch.phase = "waiting for its turn"
        async with gate.slots():
            # A lost agent is not waited for: all who queue are told at once.
            if not gate.lost:
                await gate.wait_for_slot()
            # Only now: much may have been spent, or lost, while this call waited.
            refusal = self._refusal(request.kind, gate)
            if refusal:
                return Attempt(None, refusal, retry_after_s=None)
            self._budget.spend(request.kind, "calls", 1)
            watch.phase = "asked"
            start = time.monotonic()
            try:
                attempt = await self._hedged_call(agent, request, gate)
            except PermanentFailure as failure:
                self.lose(request.kind, loss_reason(answerer_of(agent), failure))
                loss = self._losses.refusal(request.kind, self.journal)
                return Attempt(None, loss, retry_after_s=None)
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
                await gate.wait_for_slot()
                self._budget.spend(request.kind, "calls", 1)
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
        if not gate.is_free() or self._budget.reached(kind):
            return False
        return not gate.lost and not gate.refusal()

    async def _paid_call(self, agent: Agent, request: AgentRequest) -> Attempt:
        """Make a call, and count what its reply takes."""
        attempt = await self._call(agent, request)
        if attempt.reply is None:
            return attempt
        # Here, because a reply that is empty, or comes second, is paid for too.
        self._budget.spend(request.kind, "tokens", attempt.reply.tokens)
        self._budget.spend(request.kind, "usd", attempt.reply.cost_usd)
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

    def _refusal(self, kind: str, gate: Gate) -> str:
        """Return why an attempt is not made; empty: it may be.

        Raises:
            AgentLost, BudgetSpent: The run is to stop then.
        """
        loss = self._losses.refusal(kind, self.journal)
        return loss or self._budget.refusal(kind) or gate.refusal()

    def lose(self, kind: str, reason: str) -> None:
        """Never again ask the agent behind a role, in this role or another.

        Args:
            kind: One of its roles.
            reason: Names the agent and says why. The first one stays.
        """
        self._losses.lose(kind, reason, self.journal)

    def why_lost(self, kind: str) -> str:
        """Return why the agent behind a role can never answer; empty: it may.

        It may have been lost to this run, or to the one that this run resumes.
        """
        return self._losses.reason(kind, self.journal)

    def _batched(self, agent: Agent) -> Agent:
        """Return an agent whose calls are gathered, if who answers takes many at once.

        Roles that one agent answers for share its batches.
        """
        answerer: Any = answerer_of(agent)
        if not callable(getattr(answerer, "reply_many", None)):
            return agent
        fresh = Batcher(answerer, self.limits)
        batcher = self._batchers.setdefault(id(answerer), fresh)
        is_role = answerer is not agent and is_dataclass(agent)
        if not is_role:
            return batcher
        # The role stays in between: it decides what the other may see of a request.
        role: Any = agent
        batched: Agent = replace(role, mind=batcher)
        return batched


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
