"""The policy as its own agent: `agents="self"`.

It is another conversation with the same weights, in an agent's role. What trains or
evaluates a policy says, for as long as it runs, by which function the policy speaks:

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
"""Continues conversations: takes the key of each, from which its draws derive, the
messages of each, and the most tokens of a reply; returns one completion for each.
"""
OWN_POLICY: ContextVar[Speak] = ContextVar("OWN_POLICY")
"""How the policy speaks that is trained or evaluated. Of a context, not a module: two
runs in one process each have their own.
"""


@dataclass(eq=False)
class OwnPolicyAgent:
    """Answers any role's requests with the policy that asks.

    What it says are an agent's tokens all the same. Their log-probabilities are known
    exactly: of the very tokens, under the role's prompt.

    Args:
        max_tokens: The most that a reply may have.
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
        [reply] = await self.reply_many([request])
        return reply

    async def reply_many(self, requests: Sequence[AgentRequest]) -> list[AgentReply]:
        """Answer requests together.

        Raises:
            AgentError: `OWN_POLICY` is not set: no policy is trained or evaluated.
        """
        speak = OWN_POLICY.get(None)
        if speak is None:
            raise AgentError(
                "agent 'self': an environment alone has no policy; train or"
                " evaluate one"
            )
        keys = [request.key for request in requests]
        conversations = [self._messages(request) for request in requests]
        completions = await speak(keys, conversations, self.max_tokens)
        return [_as_reply(completion) for completion in completions]

    def _messages(self, request: AgentRequest) -> tuple[Message, ...]:
        """Return what the policy is shown in the role of an agent."""
        system = Span(self._prompts[request.kind], Author.PROMPT)
        question = Span(role_question(request), Author.PROMPT)
        return Message("system", (system,)), Message("user", (question,))


def _as_reply(completion: Completion) -> AgentReply:
    """Return what the policy wrote as an agent's reply."""
    token_ids = completion.token_ids
    return AgentReply(
        text=completion.text,
        tokens=len(token_ids),
        token_ids=token_ids,
        logprobs=completion.logprobs,
    )
