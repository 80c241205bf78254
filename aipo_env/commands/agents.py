"""The command `aipo agents check`."""

import asyncio
import json
import re
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.agents.pool.agent_pool import AgentPool
from aipo_env.agents.pool.journal import Outcome
from aipo_env.agents.pool.limits import PoolLimits
from aipo_env.errors import AgentError, AipoError, ConfigError
from aipo_env.event_loop import run_sync
from aipo_env.rollout.scenario import build_agents
from aipo_env.tasks.base import build_source
from aipo_env.verifiers.leaks.check import gives_away
from aipo_env.verifiers.leaks.gold import Gold
from aipo_env.viewer.render import escape_terminal

_RETRIES = 4
"""Attempts after the first, of each question."""
_BACKOFF_S = 0.2
"""Seconds before the second attempt."""
_QUESTIONS = Path(__file__).parents[1] / "agents" / "questions.json"
"""What each role is asked, and the form that its reply is to have."""


def agents(
    action: Positional[Literal["check"]],
    spec: Positional[str],
    source: str = "toy",
    deadline_s: float = 30.0,
) -> None:
    """Ask agents a few questions and say whether they will do.

    Each role is asked two; what it says is printed, and what that takes.

    Args:
        action: What to do.
        spec: Who is asked: "openai:MODEL@URL", or JSON for the dictionary form or for
            an agent per role.
        source: Task source of agents that answer from one.
        deadline_s: Seconds for one attempt; a question is tried up to five times.
    """
    limits = PoolLimits(
        deadline_s=deadline_s,
        retries=_RETRIES,
        backoff_s=_BACKOFF_S,
        break_after=0,
        when_lost="unaided",  # so that every question has its account
    )
    try:
        is_json = spec.lstrip().startswith("{")
        parsed = json.loads(spec) if is_json else spec
        agents_by_role = build_agents(parsed, build_source(source, 0))
        pool = AgentPool(agents_by_role, limits)
    except AipoError:
        raise
    except Exception as error:  # not JSON, or somebody else's program
        raise ConfigError(f"agents: {spec!r} cannot be used: {error!r:.300}.") from None
    rows = json.loads(_QUESTIONS.read_text(encoding="utf-8"))
    roles = set(pool.agents)
    questions = [row for row in rows if row["request"]["kind"] in roles]
    if not questions:
        raise ConfigError(
            f"agents: {spec!r} names nobody to ask. Write openai:MODEL@URL."
        )
    outcomes = run_sync(_ask_all(pool, questions))
    num_good = sum(map(partial(_tell, pool), questions, outcomes))
    usage = f"{pool.spent['tokens']:g} tokens, ${pool.spent['usd']:.4f}"
    print(
        f"{num_good} of {len(questions)} replies will do; {pool.spent['calls']:g}"
        f" calls, {usage}."
    )
    silent = [outcome.error for outcome in outcomes if not outcome.reply]
    if silent:
        raise AgentError(
            f"agents: {len(silent)} of {len(questions)} questions got no reply:"
            f" {silent[-1]}"
        )


async def _ask_all(pool: AgentPool, questions: list[dict[str, Any]]) -> list[Outcome]:
    """Return what each question came to, in order; they are asked side by side."""
    consults = []
    for number, question in enumerate(questions):
        request = AgentRequest(**question["request"], key=(number, 0))
        consults.append(pool.consult(request))
    return await asyncio.gather(*consults)


def _tell(pool: AgentPool, question: dict[str, Any], outcome: Outcome) -> bool:
    """Print what became of a question; return whether the reply will do."""
    kind = question["request"]["kind"]
    query = question["request"]["query"]
    reply = outcome.reply or AgentReply(text=f"(no reply: {outcome.error})")
    gold = Gold(question["answer"])
    does_leak = run_sync(gives_away(gold, reply.text, query))
    has_form = (
        outcome.reply is not None and re.match(question["form"], reply.text) is not None
    )
    price = f"{reply.tokens} tokens, ${reply.cost_usd:.4f}"
    cost = f"{outcome.seconds:.1f} s, {price}, {outcome.retries + 1} tries"
    leaks = "YES" if does_leak else "no"
    fits = "yes" if has_form else "NO"
    # Further lines stand below the first.
    text = reply.text.replace("\n", "\n           ")
    account = (
        f"{kind}  {pool.agent_id(kind)}",
        f"  asked    {query}",
        f"  replied  {text}",
        f"  {cost}; leaks: {leaks}, as the role demands: {fits}",
    )
    print(escape_terminal("\n".join(account)))
    return has_form and not does_leak
