"""Agents that are programs: they know a toy world, and can be made wrong, slow or silent."""

import asyncio
import re
from dataclasses import dataclass

import numpy as np

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.errors import ConfigError
from aipo_env.tasks.base import TaskSource
from aipo_env.tasks.toy import ToySource
from aipo_env.toy.world import KIND_OF_NAME, Operator, World, draw_rule

_CLAIM = re.compile(r"(?<![a-z])([a-z]+)=([a-z]+)")


@dataclass(frozen=True, slots=True)
class ScriptedAgent:
    """Answers any role's requests about one toy world, exactly.

    Args:
        world: What the agent knows.
        wrong: Probability that a reply states a rule drawn at random instead of the true one.
        slow: Probability that a reply takes `slow_s` seconds.
        silent: Probability that no reply ever comes.

    Faults are drawn from the request's seed: equal requests meet equal faults.

    Raises:
        ConfigError: A probability is outside 0 to 1.
    """

    world: World
    wrong: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0
    silent: float = 0.0
    agent_id: str = "scripted"

    def __post_init__(self) -> None:
        for name in ("wrong", "slow", "silent"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"scripted agent: {name}={getattr(self, name)} is no probability; use 0 to 1."
                )

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer; "unknown;" when the query names nothing of this world."""
        rng = np.random.default_rng([request.seed, 3])
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
        operator = self.world.operators.get(claim.group(1) if claim else request.query.strip())
        if operator is None:
            return "unknown;"
        if lie is not None:
            operator = Operator(operator.name, operator.kind, draw_rule(operator.kind, operator.name, lie))
        if request.kind == "verify":
            right = claim is not None and claim.group(2) == operator.rule[0]
            return "right;" if right else f"wrong at {operator.name};{operator.statements()[0]}"
        if request.kind == "reason":
            return operator.statements()[self._step(request, operator)]
        return operator.statements()[0]

    @staticmethod
    def _step(request: AgentRequest, operator: Operator) -> int:
        """Return the step that comes next: the second once the trace has taken the first."""
        taken = f"{operator.name} first" in request.trace
        return 1 if taken and KIND_OF_NAME[operator.name] == "reason" else 0


def scripted(
    source: TaskSource, wrong: float = 0.0, slow: float = 0.0, slow_s: float = 1.0, silent: float = 0.0
) -> ScriptedAgent:
    """Build the agent that knows the world of a source.

    Raises:
        ConfigError: The source has no world to know, or a probability is outside 0 to 1.
    """
    if not isinstance(source, ToySource):
        raise ConfigError(
            "agents: 'scripted' agents know toy worlds only; use agents='none' with this source."
        )
    return ScriptedAgent(source.world, wrong, slow, slow_s, silent)
