"""What an agent is: anything with `async reply(request) -> AgentReply`."""

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from aipo_env.errors import AgentError
from aipo_env.records import CodeTests
from aipo_env.text import encodable

MAX_TOKEN_ID = 2**31 - 1
"""The record of an episode holds token ids as int32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRequest:
    """One consultation. It never holds the gold answer or hidden tests.

    Args:
        problem: The task's prompt; empty for a role that must not see it.
        trace: What the policy wrote and was told so far; empty likewise.
        seed: Draws whatever the agent draws, so that equal requests of equal episodes
            get equal replies.
        key: Names the call within a run: (seed, step, group, rollout, call).
        is_private: Whether the task's source forbids republication: no text of it may
            be kept or shown.
        agent_id: Who is asked, its version included: another one gets no reply from the
            same journal.
        public_tests: For the verify role, a code task's public tests, and nothing of
            its hidden ones; None where a checker judges, which may hold the solution.
    """

    kind: str
    query: str
    problem: str = ""
    trace: str = ""
    seed: int = 0
    key: tuple[int, ...] = ()
    is_private: bool = False
    agent_id: str = ""
    public_tests: CodeTests | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReply:
    """What an agent says.

    Args:
        text: The reply.
        tokens: How many it has, by the agent's own count; 0 when it has none.
        cost_usd: What it cost in US dollars, likewise.
        agent_id: Who spoke, if the agent that was asked passed the question on.
        token_ids: The text as it was sampled, if that was with the policy's own
            tokenizer. They enter the episode if they decode to the text.
        logprobs: The log-probability of each token, at the temperature of the sampling.

    Raises:
        AgentError: The text is not text, a count is not a finite number from 0 up, or
            tokens are no tokens.
    """

    text: str
    tokens: int = 0
    cost_usd: float = 0.0
    agent_id: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        # Whoever read them from JSON has lists, and the class is frozen.
        object.__setattr__(self, "token_ids", tuple(self.token_ids))
        object.__setattr__(self, "logprobs", tuple(self.logprobs))
        if not all(_is_token_id(token_id) for token_id in self.token_ids):
            raise AgentError(
                "an agent's reply has token_ids that are no token ids: whole numbers"
                " from 0 up"
            )
        are_logprobs = all(_is_logprob(logprob) for logprob in self.logprobs)
        is_one_each = len(self.logprobs) in (0, len(self.token_ids))
        if not are_logprobs or not is_one_each:
            raise AgentError(
                "an agent's reply has logprobs that are not one number up to 0 for each"
                " token"
            )
        if not isinstance(self.text, str):
            raise AgentError(
                f"an agent's reply must be text, got {type(self.text).__name__}"
            )
        if not isinstance(self.tokens, int) or self.tokens < 0:
            raise AgentError(
                f"an agent's reply has tokens={self.tokens!r}; use a whole number from"
                " 0 up"
            )
        is_number = isinstance(self.cost_usd, int | float)
        if not is_number or not 0 <= self.cost_usd < math.inf:
            raise AgentError(
                f"an agent's reply has cost_usd={self.cost_usd!r}; use a number from"
                " 0 up"
            )


def _is_token_id(value: object) -> bool:
    # Not isinstance: True is an int, and no token.
    return type(value) is int and 0 <= value <= MAX_TOKEN_ID


def _is_logprob(value: object) -> bool:
    # Not -inf: a token that could not be sampled was not. NaN fails both comparisons.
    return isinstance(value, int | float) and -math.inf < value <= 0


MAX_REPLY_CHARS = 20_000
"""A reply is cut here: no agent may flood an episode."""


def taken(reply: AgentReply) -> AgentReply | None:
    """Return a reply as an episode takes it; None if it says nothing.

    Whoever said it or wherever it was kept: a file of replies may be anybody's.
    """
    # Half a surrogate pair, as a JSON API may return it, is no text that a tokenizer
    # takes.
    text = encodable(reply.text[:MAX_REPLY_CHARS])
    if not text.strip():
        return None
    if text == reply.text:
        return reply
    # Its tokens are no longer those that were sampled.
    return replace(reply, text=text, token_ids=(), logprobs=())


@runtime_checkable
class Agent(Protocol):
    """A consulted helper."""

    @property
    def agent_id(self) -> str:
        """Name in the record."""

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer one request; raise any exception when there is no answer.

        The classes below say more of a failure than that there is one. `ConfigError`
        and `ImportError` end the run: what is not installed or wrongly set stays so.
        """


class RetryLater(AgentError):
    """An agent gave no reply, and asks for a pause of `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unreachable(AgentError):
    """No connection to the agent could be made. It may not be up yet, or no longer."""


class RequestRefused(AgentError):
    """An agent gave no reply, and would give none to the same request again.

    To another request it may.
    """


class PermanentFailure(AgentError):
    """An agent gave no reply and will never give one, whatever it is asked.

    It has a wrong key, or its model is not there. Only for what no request can bring
    about: a policy writes the requests, and no policy may stop a run. An agent that
    passes requests on to others lets it through.
    """


class AgentLost(AgentError):
    """An agent can never answer, and the run is to stop.

    The message names the agent and says what to do.
    """

    @classmethod
    def of(cls, *losses: str) -> "AgentLost":
        """Return the error for agents that are lost, each named and with its reason."""
        reasons = "; ".join(losses).rstrip(". ")
        return cls(
            f"no answer can come from {reasons}. Start the server, correct the address,"
            " the model's name or the key, and resume; or set pool.when_lost to"
            " 'unaided' to go on without."
        )


def loss_reason(agent: Agent, failure: AgentError) -> str:
    """Return which agent can never answer and why: its name, then the failure.

    A failure that names the agent itself stands alone.
    """
    text = str(failure)
    if agent.agent_id in text:
        return text
    return f"{agent.agent_id}: {text}"


class BudgetSpent(AgentError):
    """The run's budget for agents is spent, and the run is to stop."""
