"""Agents that are programs: they know a toy world, and can be made to fail."""

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

# A claim of a toy world: "guna=dile".
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
        # All three at once, so that one probability does not move the others' draws.
        draws = rng.random(3)
        is_wrong, is_slow, is_silent = draws < (self.wrong, self.slow, self.silent)
        if is_silent:
            await asyncio.Event().wait()
        if is_slow:
            await asyncio.sleep(self.slow_s)
        text = self._say(request, rng if is_wrong else None)
        return AgentReply(text=text, tokens=len(text.split()))

    def _say(self, request: AgentRequest, lie: np.random.Generator | None) -> str:
        """Return the reply's text.

        Args:
            lie: Draws the rule that is stated instead of the true one; None: no lie.
        """
        claim = _CLAIM.search(request.query)
        name = claim[1] if claim else request.query.strip()
        operator = self._operators.get(name)
        if operator is None:
            return "unknown;"
        if lie is not None:
            rule = draw_rule(operator.kind, operator.name, lie)
            operator = replace(operator, rule=rule)
        first, *further = operator.statements()
        if request.kind == "verify":
            is_right = claim is not None and claim[2] == operator.rule[0]
            return "right;" if is_right else f"wrong at {operator.name};{first}"
        # The next step: the second one where the trace has the first already.
        has_first = (
            request.kind == "reason" and f"{operator.name} first" in request.trace
        )
        return further[0] if further and has_first else first
