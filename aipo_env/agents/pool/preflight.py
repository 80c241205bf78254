"""Are the agents there? One short question to each before a run.

Without it, a run would find out after an hour. Those to whom a mixture or a role passes
requests on are asked in its place.
"""

import asyncio
import time

from aipo_env.agents.base import (
    Agent,
    AgentLost,
    AgentReply,
    AgentRequest,
    PermanentFailure,
    Unreachable,
    loss_reason,
)
from aipo_env.agents.pool.agent_pool import AgentPool
from aipo_env.agents.pool.gate import LOG
from aipo_env.agents.roles import answerer_of, is_agents
from aipo_env.errors import ConfigError
from aipo_env.threads import check_cancelled

QUESTION = "What is 2 + 2?"
"""Any agent can say something to it, and briefly."""
RETRY_S = 0.25
"""Pause before an agent that could not be reached is tried again."""
MAX_LOGGED_CHARS = 500
"""How much of an error the log shows."""
OWN_POLICY_PREFIX = "self#"
"""How the `agent_id` begins of the policy as its own agent."""


async def check_agents(pool: AgentPool, *, patience_s: float = 20.0) -> None:
    """Ask every agent one short question, and lose those that can never answer.

    These are agents that raise `PermanentFailure`, and those to which no connection can
    be made. Any reply will do; one that gives none for another reason is there, and is
    named in the log, as is one that cannot be reached yet. The question costs nothing
    of the pool's budget, and nothing is kept of it. All are asked at once, the agents
    behind a mixture or another agent, too; not asked are tools, the policy itself
    ("self"), what a resumed run has lost before, and anybody where a cassette is
    replayed.

    Args:
        patience_s: For how many seconds a connection that cannot be made is tried
            again: servers are started beside the run.

    Raises:
        AgentLost: Some can never answer; all of them are named. With `when_lost`
            "unaided" the pool loses them instead.
        ConfigError: An agent is wrongly set. ImportError: it needs what is not
            installed.
    """
    if pool.journal and pool.journal.is_replay:
        return
    addressees: list[tuple[str, Agent]] = []
    for kind, agent in _distinct(pool).items():
        for answerer in _behind(answerer_of(agent)):
            # The policy speaks only once training or evaluation has begun.
            if not answerer.agent_id.startswith(OWN_POLICY_PREFIX):
                addressees.append((kind, answerer))
    questions = [
        _ask(pool, kind, answerer, patience_s) for kind, answerer in addressees
    ]
    reasons = await asyncio.gather(*questions)
    for (kind, _), reason in zip(addressees, reasons, strict=True):
        if reason:
            pool.lose(kind, reason)
    # One agent may stand in several mixtures, and is named once.
    lost = list(dict.fromkeys(filter(None, reasons)))
    if lost and pool.limits.when_lost == "stop":
        raise AgentLost.of(*lost)


def _distinct(pool: AgentPool) -> dict[str, Agent]:
    """Return the agents to ask by role, each in the first of its roles."""
    distinct: dict[int, tuple[str, Agent]] = {}
    for kind, agent in pool.agents.items():
        if is_agents(kind) and not pool.why_lost(kind):
            distinct.setdefault(id(answerer_of(agent)), (kind, agent))
    return dict(distinct.values())


def _behind(agent: Agent) -> list[Agent]:
    """Return whom an agent passes requests on to; itself, if to nobody.

    Known is what it tells by an attribute `minds`, at any depth.
    """
    answerers: list[Agent] = list(getattr(agent, "minds", ()))
    if not answerers:
        return [agent]
    return [leaf for answerer in answerers for leaf in _behind(answerer)]


async def _ask(pool: AgentPool, kind: str, agent: Agent, patience_s: float) -> str:
    """Return why an agent can never answer; empty: it may."""
    request = AgentRequest(kind=kind, query=QUESTION, agent_id=agent.agent_id)
    deadline = time.monotonic() + patience_s
    is_logged = False
    while True:
        try:
            fault = await _fault(agent, request, pool.limits.deadline_s)
        except PermanentFailure as failure:
            return loss_reason(agent, failure)
        except Unreachable as failure:
            reason = loss_reason(agent, failure)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return reason
            if not is_logged:
                LOG.warning(
                    "no connection yet, tried for %.0f s more: %s", left_s, reason
                )
                is_logged = True
            await asyncio.sleep(min(RETRY_S, left_s))
        else:
            break
    if fault:
        LOG.warning(
            "agent %s gave no reply to a first question: %s", agent.agent_id, fault
        )
    return ""


async def _fault(agent: Agent, request: AgentRequest, deadline_s: float) -> str:
    """Ask, and return what is wrong with the reply; empty: nothing.

    Raises:
        PermanentFailure, Unreachable, ConfigError, ImportError: As the agent does.
    """
    try:
        async with asyncio.timeout(deadline_s) as deadline:
            reply: object = await agent.reply(request)
    except (PermanentFailure, Unreachable, ConfigError, ImportError):
        raise
    except asyncio.CancelledError:
        # Of this task, or raised by the agent.
        check_cancelled()
        return "it cancelled itself"
    # An agent may be somebody else's program.
    except (Exception, SystemExit) as error:
        if deadline.expired():
            return f"none within {deadline_s} s"
        return f"{type(error).__name__}: {error}"[:MAX_LOGGED_CHARS]
    if not isinstance(reply, AgentReply):
        return f"no AgentReply, but {type(reply).__name__}"
    return "" if reply.text.strip() else "it is empty"
