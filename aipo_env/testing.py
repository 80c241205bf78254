"""Public test doubles: a policy and agents that do as they are told. See also `ScriptedAgent`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.envs.token_session import TokenSession
from aipo_env.episode import Episode
from aipo_env.session import Session


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """Says the given texts, one a turn, whatever it is shown; its tokens are bytes."""

    texts: Sequence[str]

    def run(self, session: Session) -> Episode:
        """Play a session to its end, with texts left over or none.

        Raises:
            RuntimeError: The texts ran out before the episode ended.
        """
        running = TokenSession(session)
        running.open()
        for text in self.texts:
            if session.stop_reason is None:
                running.say(text)
        return session.episode()


@dataclass(slots=True)
class CannedAgent:
    """Always gives the same reply, and keeps the `requests` it got."""

    text: str
    agent_id: str = "canned"
    requests: list[AgentRequest] = field(default_factory=list)

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Return the text, one token a word."""
        self.requests.append(request)
        return AgentReply(text=self.text, tokens=len(self.text.split()))


Fault = Literal["raise", "exit", "cancel", "hang", "junk"]


@dataclass(slots=True)
class FaultyAgent:
    """Fails `times` times in one way, then replies "fine": what an environment has to survive.

    "raise" raises ValueError, "exit" SystemExit, "cancel" CancelledError; "hang" never returns; "junk"
    returns something that is no reply.
    """

    fault: Fault
    times: int = 1_000_000
    agent_id: str = "faulty"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Fail, or reply."""
        self.times -= 1
        if self.times < 0:
            return AgentReply(text="fine")
        if self.fault == "hang":
            await asyncio.Event().wait()
        if self.fault == "junk":
            junk: Any = {"text": 5}
            return junk  # type: ignore[no-any-return]
        raise {"exit": SystemExit, "cancel": asyncio.CancelledError}.get(self.fault, ValueError)("boom")
