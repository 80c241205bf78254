"""Agents for experiments: one that sees the answers, one often wrong, a mixture.

The agents that one of these passes requests on to are its `minds`; whoever wants to
know who is behind it looks there.
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
_FACT = re.compile(
    rf"""
    \b (?: {"|".join(_OPPOSITE)} ) \b   # a verdict: "Right", "incorrect"
    | \d (?!\d)                        # the last digit of a number: the 3 of "123"
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What a wrong agent changes in a reply."""


@dataclass(eq=False)
class OracleAgent:
    """Has the gold answers, and says whether the answer of a claim is right.

    Of anything else it says "unknown". An ablation, never a help to be reported as an
    agent's. What it says is never the answer.

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
        is_claim = request.kind == "verify"
        task = self._tasks.get(request.problem) if is_claim else None
        if task is None:
            return AgentReply(text="unknown")
        verdict = await ByKind().verify(task, request.query)
        if verdict.correct is None or verdict.status == "no_answer":
            text = "unsure"
        elif verdict.correct:
            text = "right;"
        else:
            text = "wrong;"
        return AgentReply(text=text, tokens=1)


@dataclass(eq=False)
class MixedAgent:
    """Passes each request to one of several agents, drawn from the request's seed.

    The record names which. With one of them lost it is lost itself: the others alone
    are another mixture.

    Args:
        agents: Their specs.
        weights: How often each is asked, in any unit; equal by default.

    Raises:
        ConfigError: There is no such agent, or the weights are not a number from 0 up
            for each.
    """

    source: TaskSource
    agents: Sequence[Any]
    weights: Sequence[float] = ()

    def __post_init__(self) -> None:
        self.minds = [AGENTS.build(agent, source=self.source) for agent in self.agents]
        names = ", ".join(answerer.agent_id for answerer in self.minds)
        self.agent_id = f"mix({names})"
        weights = [*self.weights] or [1] * len(self.minds)
        are_numbers = all(
            isinstance(weight, int | float) and 0 <= weight < np.inf
            for weight in weights
        )
        is_one_each = len(weights) == len(self.minds)
        if not is_one_each or not are_numbers or not sum(weights):
            raise ConfigError(
                f"agent 'mix': weights={weights!r} must be one number from 0 up per"
                " agent."
            )
        self._shares = np.divide(weights, sum(weights))
        """The probability of each."""

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Draw an agent and ask it."""
        rng = keyed_rng([request.seed], Salt.MIXED_AGENT)
        index = rng.choice(len(self.minds), p=self._shares)
        answerer = self.minds[index]
        reply: AgentReply = await answerer.reply(request)
        return replace(reply, agent_id=reply.agent_id or answerer.agent_id)


@dataclass(eq=False)
class WrongAgent:
    """Passes requests on, and spoils some replies: verdicts reversed, numbers changed.

    Which ones is drawn from the request's seed. The record names it as the one who
    spoke when it spoiled a reply.

    Args:
        agent: The spec of the agent that it asks.
        p: The probability that a reply is spoiled, 0 to 1.

    Raises:
        ConfigError: There is no such agent, or `p` is no probability.
    """

    source: TaskSource
    agent: Any
    p: float = 0.3

    def __post_init__(self) -> None:
        check_number("agent 'wrong': p", self.p, high=1)
        self._answerer = AGENTS.build(self.agent, source=self.source)
        self.minds = [self._answerer]
        self.agent_id = f"wrong/{self._answerer.agent_id}"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Ask, and spoil the reply or not."""
        reply: AgentReply = await self._answerer.reply(request)
        rng = keyed_rng([request.seed], Salt.SPOILED_REPLY)
        if rng.random() >= self.p:
            return replace(reply, agent_id=reply.agent_id or self._answerer.agent_id)
        text = _FACT.sub(lambda match: _spoiled(match[0], rng), reply.text)
        # Its tokens are no longer those that were sampled.
        return replace(
            reply, text=text, agent_id=self.agent_id, token_ids=(), logprobs=()
        )


def _spoiled(fact: str, rng: np.random.Generator) -> str:
    """Return the opposite of a verdict, or another last digit of a number."""
    if fact.isdigit():
        # 1 to 9 further on: never the same digit again.
        distance = int(rng.integers(1, 10))
        return str((int(fact) + distance) % 10)
    opposite = _OPPOSITE[fact.lower()]
    return opposite.capitalize() if fact[0].isupper() else opposite
