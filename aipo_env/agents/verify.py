"""The Verify Agent: says whether a claim is right, where it goes wrong and why; never the answer."""

from dataclasses import dataclass

from aipo_env.agents.base import Agent, AgentReply, AgentRequest


@dataclass(frozen=True, slots=True)
class VerifyAgent:
    """Passes `mind` the problem, the trace and the claim. It is an agent, not a verifier: it has no gold."""

    mind: Agent

    @property
    def agent_id(self) -> str:
        """Role and mind."""
        return f"verify/{self.mind.agent_id}"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Judge the claim."""
        return await self.mind.reply(request)
