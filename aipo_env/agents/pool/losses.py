"""The agents that can never answer: none of them is asked again."""

from collections.abc import Mapping

from aipo_env.agents.base import Agent, AgentLost
from aipo_env.agents.pool.gate import Gate, Gates, Notices
from aipo_env.agents.pool.journal import MAX_ERROR_CHARS, Journal
from aipo_env.agents.pool.limits import PoolLimits
from aipo_env.agents.roles import is_agents


class Losses:
    """Which agents of a pool are lost, to this run or to the one that it resumes.

    A loss is written into the journal where the run goes on without the agent; each
    method is told of the pool's journal, which may be another one later.

    Args:
        agents: By role or by name of a tool.
        gates: The ways to them, on which a loss is noted.
        limits: Those of the pool.
    """

    def __init__(
        self, agents: Mapping[str, Agent], gates: Gates, limits: PoolLimits
    ) -> None:
        self._agents = agents
        self._gates = gates
        self._when_lost = limits.when_lost
        self._notices = Notices()

    def lose(self, kind: str, reason: str, journal: Journal | None) -> None:
        """Never again ask the agent behind a role, in this role or another.

        Args:
            kind: One of its roles.
            reason: Names the agent and says why. The first one stays.
            journal: Where the loss is kept for the run that resumes this one.
        """
        gate = self._gates.of(self._agents[kind])
        gate.lost = gate.lost or reason[:MAX_ERROR_CHARS]
        if self._when_lost == "unaided":
            self._notices.give(f"lost: {gate.lost}; the run goes on unaided")
            self._keep(gate, journal)

    def reason(self, kind: str, journal: Journal | None) -> str:
        """Return why the agent behind a role can never answer; empty: it may."""
        agent = self._agents.get(kind)
        if agent is None or not is_agents(kind):
            return ""
        gate = self._gates.of(agent)
        if journal is not None and self._when_lost == "unaided":
            self._recall(kind, agent, gate, journal)
        return gate.lost

    def refusal(self, kind: str, journal: Journal | None) -> str:
        """Return the error of a call to an agent that is lost; empty: it is not.

        Raises:
            AgentLost: The run is to stop then.
        """
        reason = self.reason(kind, journal)
        if reason and self._when_lost == "stop":
            raise AgentLost.of(reason)
        return f"lost: {reason}" if reason else ""

    def _recall(self, kind: str, agent: Agent, gate: Gate, journal: Journal) -> None:
        """Take over a loss from the journal, or see that it stands there."""
        reason = journal.loss(kind, agent.agent_id)
        if gate.lost and reason is None:
            # The pool has another journal than the one that the loss was written to.
            self._keep(gate, journal)
        elif reason is not None and not gate.lost:
            self.lose(kind, reason, journal)

    def _keep(self, gate: Gate, journal: Journal | None) -> None:
        """Note in the journal every role of a lost agent."""
        for kind, agent in self._agents.items():
            if journal and self._gates.of(agent) is gate:
                journal.lose(kind, agent.agent_id, gate.lost)
