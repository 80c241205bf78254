"""Agents for experiments: one that sees the answers, one that is wrong at times, a
mixture of several.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.errors import ConfigError, check_number
from aipo_env.keys import Salt, keyed_rng
from aipo_env.registry import AGENTS
from aipo_env.tasks.base import TaskSource, finite_tasks
from aipo_env.verifiers.by_kind import ByKind

_OPPOSITE = {
    "right": "wrong",
    "wrong": "right",
    "correct": "incorrect",
    "incorrect": "correct",
}
_FACT = re.compile(rf"\b(?:{'|'.join(_OPPOSITE)})\b|\d(?!\d)", re.IGNORECASE)


@dataclass(eq=False)
class OracleAgent:
    """Has the gold answers and says of a claim whether its answer is right; of anything
    else, "unknown".

    An ablation, never a help to be reported as an agent's. What it says is never the
    answer.

    Raises:
        ConfigError: The source has no end.
    """

    source: TaskSource
    agent_id = "oracle"

    def __post_init__(self) -> None:
        self._tasks = {task.prompt: task for task in finite_tasks(self.source)}
        if not self._tasks:
            raise ConfigError(
                "agents: 'oracle' needs a source with an end; for a toy world use"
                " 'scripted'."
            )

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Judge a claim."""
        task = self._tasks.get(request.problem) if request.kind == "verify" else None
        if task is None:
            return AgentReply(text="unknown")
        verdict = await ByKind().verify(task, request.query)
        is_open = verdict.correct is None or verdict.status == "no_answer"
        return AgentReply(
            text="unsure" if is_open else "right;" if verdict.correct else "wrong;",
            tokens=1,
        )


@dataclass(eq=False)
class MixedAgent:
    """Passes each request to one of several agents, drawn from the request's seed; the
    record names which.

    With one of them lost it is lost itself: the others alone are another mixture.

    Args:
        agents: Their specs.
        weights: How often each is asked; equal by default.

    Raises:
        ConfigError: There is no such agent, or the weights are not a number from 0 up
            for each.
    """

    source: TaskSource
    agents: Sequence[Any]
    weights: Sequence[float] = ()

    def __post_init__(self) -> None:
        self.minds = [AGENTS.build(agent, source=self.source) for agent in self.agents]
        self.agent_id = f"mix({', '.join(mind.agent_id for mind in self.minds)})"
        shares = [*self.weights] or [1] * len(self.minds)
        are_numbers = all(
            isinstance(share, int | float) and 0 <= share < np.inf for share in shares
        )
        if len(shares) != len(self.minds) or not are_numbers or not sum(shares):
            raise ConfigError(
                f"agent 'mix': weights={shares!r} must be one number from 0 up per"
                " agent."
            )
        self._shares = np.divide(shares, sum(shares))

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Draw an agent and ask it."""
        rng = keyed_rng([request.seed], Salt.MIXED_AGENT)
        mind = self.minds[rng.choice(len(self.minds), p=self._shares)]
        reply: AgentReply = await mind.reply(request)
        return replace(reply, agent_id=reply.agent_id or mind.agent_id)


@dataclass(eq=False)
class WrongAgent:
    """Passes requests on; with probability `p` the reply is spoiled: verdicts reversed,
    numbers changed.

    Drawn from the request's seed. The record names it as the one who spoke when it
    spoiled a reply.

    Args:
        agent: The spec of the agent that it asks.

    Raises:
        ConfigError: There is no such agent, or `p` is no probability.
    """

    source: TaskSource
    agent: Any
    p: float = 0.3

    def __post_init__(self) -> None:
        check_number("agent 'wrong': p", self.p, high=1)
        self._mind = AGENTS.build(self.agent, source=self.source)
        self.minds = [self._mind]
        self.agent_id = f"wrong/{self._mind.agent_id}"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Ask, and spoil the reply or not."""
        reply: AgentReply = await self._mind.reply(request)
        rng = keyed_rng([request.seed], Salt.SPOILED_REPLY)
        if rng.random() >= self.p:
            return replace(reply, agent_id=reply.agent_id or self._mind.agent_id)
        text = _FACT.sub(lambda fact: _spoiled(fact[0], rng), reply.text)
        return replace(
            reply, text=text, agent_id=self.agent_id, token_ids=(), logprobs=()
        )


def _spoiled(fact: str, rng: np.random.Generator) -> str:
    """Return the opposite of a verdict, or another last digit of a number."""
    if fact.isdigit():
        return str((int(fact) + int(rng.integers(1, 10))) % 10)
    opposite = _OPPOSITE[fact.lower()]
    return opposite.capitalize() if fact[0].isupper() else opposite
