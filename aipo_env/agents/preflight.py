"""Are the agents there? One short question to each before a run, so that no run finds
out after an hour.
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
    named,
)
from aipo_env.agents.gate import LOG
from aipo_env.agents.pool import AgentPool, is_agents, mind_of
from aipo_env.errors import ConfigError
from aipo_env.threads import check_cancelled

QUESTION = "What is 2 + 2?"
RETRY_S = 0.25
"""Pause before an agent that could not be reached is tried again."""
MAX_SHOWN_CHARS = 500


async def check_agents(pool: AgentPool, *, patience_s: float = 20.0) -> None:
    """Ask every agent behind the roles one short question, all at once, and lose those
    that can never answer.

    These are agents that raise `PermanentFailure`, and those to which no connection can
    be made. Any reply will do; one that gives none for another reason is there, and is
    named in the log, as is one that cannot be reached yet. The question costs nothing
    of the pool's budget, and nothing is kept of it. Asked are the agents behind a
    mixture or another agent, too; not asked are tools, the policy itself ("self"), what
    a resumed run has lost before, and anybody where a cassette is replayed.

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
    asked = [
        (kind, mind)
        for kind, agent in _distinct(pool).items()
        for mind in _behind(mind_of(agent))
        if not mind.agent_id.startswith("self#")
    ]
    questions = [_ask(pool, kind, mind, patience_s) for kind, mind in asked]
    reasons = await asyncio.gather(*questions)
    for (kind, _), reason in zip(asked, reasons, strict=True):
        if reason:
            pool.lose(kind, reason)
    lost = list(dict.fromkeys(filter(None, reasons)))
    if lost and pool.limits.when_lost == "stop":
        raise AgentLost.of(*lost)


def _distinct(pool: AgentPool) -> dict[str, Agent]:
    """Return the agents to ask by role, each in the first of its roles."""
    distinct: dict[int, tuple[str, Agent]] = {}
    for kind, agent in pool.agents.items():
        if is_agents(kind) and not pool.why_lost(kind):
            distinct.setdefault(id(mind_of(agent)), (kind, agent))
    return dict(distinct.values())


def _behind(agent: Agent) -> list[Agent]:
    """Return whom an agent passes requests on to, as far as it tells by `minds`;
    itself, if to nobody.
    """
    minds: list[Agent] = list(getattr(agent, "minds", ()))
    if not minds:
        return [agent]
    return [leaf for mind in minds for leaf in _behind(mind)]


async def _ask(pool: AgentPool, kind: str, agent: Agent, patience_s: float) -> str:
    """Return why an agent can never answer; empty: it may."""
    request = AgentRequest(kind=kind, query=QUESTION, agent_id=agent.agent_id)
    ends = time.monotonic() + patience_s
    is_told = False
    while True:
        try:
            fault = await _fault(agent, request, pool.limits.deadline_s)
        except PermanentFailure as failure:
            return named(agent, failure)
        except Unreachable as failure:
            left_s = ends - time.monotonic()
            if left_s <= 0:
                return named(agent, failure)
            if not is_told:
                reason = named(agent, failure)
                LOG.warning(
                    "no connection yet, tried for %.0f s more: %s", left_s, reason
                )
                is_told = True
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
        check_cancelled()
        return "it cancelled itself"
    except (Exception, SystemExit) as error:  # an agent may be somebody else's program
        if deadline.expired():
            return f"none within {deadline_s} s"
        return f"{type(error).__name__}: {error}"[:MAX_SHOWN_CHARS]
    if not isinstance(reply, AgentReply):
        return f"no AgentReply, but {type(reply).__name__}"
    return "" if reply.text.strip() else "it is empty"
