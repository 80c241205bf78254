"""The policy as its own agent: `agents="self"`, another conversation with the same
weights in an agent's role.

What trains or evaluates a policy lends it its voice, for as long as it runs:

    token = OWN_POLICY.set(speak)
"""

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.agents.roles import role_prompts, role_question, version_hash
from aipo_env.errors import AgentError, check_whole
from aipo_env.records import Author, Completion, Message, Span

Speak = Callable[
    [Sequence[tuple[int, ...]], Sequence[Sequence[Message]], int],
    Awaitable[Sequence[Completion]],
]
"""Continues conversations, each with a key that its draws derive from, by at most so
many tokens.
"""
OWN_POLICY: ContextVar[Speak] = ContextVar("OWN_POLICY")


@dataclass(eq=False)
class OwnPolicyAgent:
    """Answers any role's requests with the policy that asks; what it says are an
    agent's tokens all the same.

    Their log-probabilities are known exactly: of the very tokens, under the role's
    prompt.

    Args:
        max_tokens: Of a reply.
        prompts: A folder with a knowledge.md, a reason.md and a verify.md of your own.

    Raises:
        ConfigError: An option cannot be used.
    """

    max_tokens: int = 256
    prompts: str = ""

    def __post_init__(self) -> None:
        check_whole("agent 'self': max_tokens", self.max_tokens, 1)
        self._prompts = role_prompts(self.prompts)
        self.agent_id = f"self#{version_hash(self._prompts, self.max_tokens)}"
        """A hash of the prompts and the sampling."""

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer one request."""
        return (await self.reply_many([request]))[0]

    async def reply_many(self, requests: Sequence[AgentRequest]) -> list[AgentReply]:
        """Answer requests together.

        Raises:
            AgentError: No policy has lent its voice.
        """
        speak = OWN_POLICY.get(None)
        if speak is None:
            raise AgentError(
                "agent 'self': an environment alone has no policy; train or"
                " evaluate one"
            )
        asked = [self._messages(request) for request in requests]
        said = await speak(
            [request.key for request in requests], asked, self.max_tokens
        )
        return [_as_reply(completion) for completion in said]

    def _messages(self, request: AgentRequest) -> tuple[Message, ...]:
        system = Span(self._prompts[request.kind], Author.PROMPT)
        question = Span(role_question(request), Author.PROMPT)
        return Message("system", (system,)), Message("user", (question,))


def _as_reply(said: Completion) -> AgentReply:
    ids = said.token_ids
    return AgentReply(
        text=said.text, tokens=len(ids), token_ids=ids, logprobs=said.logprobs
    )
