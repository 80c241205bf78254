"""Agents that are programs: they know a toy world, and can be made wrong, slow or
silent.
"""

import asyncio
import re
from dataclasses import dataclass, replace

import numpy as np

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.errors import ConfigError, check_number
from aipo_env.keys import Salt, keyed_rng
from aipo_env.tasks.base import TaskSource
from aipo_env.tasks.toy import ToySource
from aipo_env.toy.world import draw_rule

_CLAIM = re.compile(r"(?<![a-z])([a-z]+)=([a-z]+)")


@dataclass(eq=False)
class ScriptedAgent:
    """Answers any role's requests about the world of a toy source, exactly.

    Args:
        wrong: Probability that a reply states a rule drawn at random instead of the
            true one.
        slow: Probability that a reply takes `slow_s` seconds.
        silent: Probability that no reply ever comes.

    Faults are drawn from the request's seed: equal requests meet equal faults.

    Raises:
        ConfigError: The source has no world to know, or a probability is outside 0 to
            1.
    """

    source: TaskSource
    wrong: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0
    silent: float = 0.0
    agent_id = "scripted"

    def __post_init__(self) -> None:
        if not isinstance(self.source, ToySource):
            raise ConfigError(
                "agents: 'scripted' knows toy worlds only; use agents='none' with this"
                " source."
            )
        self._operators = self.source.world.operators
        for name in ("wrong", "slow", "silent"):
            check_number(f"scripted agent: {name}", getattr(self, name), high=1)

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer; "unknown;" when the query names nothing of this world."""
        rng = keyed_rng([request.seed], Salt.SCRIPTED_AGENT)
        wrong, slow, silent = rng.random(3) < (self.wrong, self.slow, self.silent)
        if silent:
            await asyncio.Event().wait()
        if slow:
            await asyncio.sleep(self.slow_s)
        text = self._say(request, rng if wrong else None)
        return AgentReply(text=text, tokens=len(text.split()))

    def _say(self, request: AgentRequest, lie: np.random.Generator | None) -> str:
        """Return the reply's text; with `lie`, about a rule drawn from it."""
        claim = _CLAIM.search(request.query)
        operator = self._operators.get(claim[1] if claim else request.query.strip())
        if operator is None:
            return "unknown;"
        if lie is not None:
            operator = replace(
                operator, rule=draw_rule(operator.kind, operator.name, lie)
            )
        first, *further = operator.statements()
        if request.kind == "verify":
            right = claim is not None and claim[2] == operator.rule[0]
            return "right;" if right else f"wrong at {operator.name};{first}"
        is_taken = (
            request.kind == "reason" and f"{operator.name} first" in request.trace
        )
        return further[0] if further and is_taken else first
