"""The Knowledge Agent: gives a fact or a definition. It sees the query and nothing else."""

from dataclasses import dataclass, replace

from aipo_env.agents.base import Agent, AgentReply, AgentRequest


@dataclass(frozen=True, slots=True)
class KnowledgeAgent:
    """Passes `mind` the query alone: a fact must not depend on the problem it is asked for."""

    mind: Agent

    @property
    def agent_id(self) -> str:
        """Role and mind."""
        return f"knowledge/{self.mind.agent_id}"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer the query."""
        return await self.mind.reply(replace(request, problem="", trace=""))
