"""The Reasoning Agent: gives the next step of a solution, not the answer."""

from dataclasses import dataclass

from aipo_env.agents.base import Agent, AgentReply, AgentRequest


@dataclass(frozen=True, slots=True)
class ReasoningAgent:
    """Passes `mind` the problem, the trace and the question."""

    mind: Agent

    @property
    def agent_id(self) -> str:
        """Role and mind."""
        return f"reason/{self.mind.agent_id}"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Give the next step."""
        return await self.mind.reply(request)
