"""`AIPO-Math-Turn-v0`: one action is one turn of the policy, in text."""

from collections.abc import Coroutine, Mapping
from typing import Any, Literal, get_args

from gymnasium import spaces
from gymnasium.error import InvalidAction

from aipo_env.codecs.openai_calls import OpenAICodec, completion_text
from aipo_env.errors import check_choice
from aipo_env.gym.episode_env import EpisodeEnv
from aipo_env.gym.spaces import MAX_TEXT_CHARS, UnicodeText
from aipo_env.records import Split
from aipo_env.rollout.drive import take_turn
from aipo_env.rollout.environment import (
    AgentsSpec,
    CodecSpec,
    EnvironmentSpec,
    Pool,
    Rules,
    SourceSpec,
    ToolSpecs,
    VerifierSpec,
)

Observation = Literal["transcript", "delta", "messages"]
MAX_ROLE_CHARS = 16
"""More than any role has: "assistant" is the longest."""


class TurnEnv(EpisodeEnv[Any, Any]):
    """A turn with a call is answered by the agents; any other is the final answer.

    Args:
        observation: What the policy is shown. "transcript": the whole conversation as
            one text, a role before each message. "delta": only what is new, as plain
            text; empty when the episode is over. "messages": the whole conversation as
            a tuple of `{"role": ..., "content": ...}`.

    The other arguments are those of `EpisodeEnv`.

    The action is text, or the dictionary of an OpenAI assistant message; its
    `tool_calls` need `codec="openai"`. Several calls are answered together. Have your
    language model stop after each of `stop_strings`, or it will make up the reply
    itself. Tokens are counted as bytes of UTF-8, and a turn is cut where
    `max_policy_tokens` or `max_context_tokens` falls, which truncates the episode.
    """

    def __init__(
        self,
        *,
        observation: Observation = "transcript",
        environment: EnvironmentSpec | None = None,
        source: SourceSpec | None = None,
        agents: AgentsSpec | None = None,
        tools: ToolSpecs | None = None,
        verifier: VerifierSpec | None = None,
        codec: CodecSpec | None = None,
        rules: Rules | None = None,
        pool: Pool | None = None,
        cassette: str | None = None,
        aided: bool = True,
        split: Split = "train",
        render_mode: str | None = None,
    ) -> None:
        modes = get_args(Observation)
        check_choice("environment: observation", observation, modes)
        self.observation = observation
        super().__init__(
            environment=environment,
            source=source,
            agents=agents,
            tools=tools,
            verifier=verifier,
            codec=codec,
            rules=rules,
            pool=pool,
            cassette=cassette,
            aided=aided,
            split=split,
            render_mode=render_mode,
        )

    def _build(self) -> None:
        super()._build()
        rules = self.scenario.rules
        # Characters up to the limit of bytes: what has more is cut there anyway.
        longest = min(rules.max_policy_tokens, rules.max_context_tokens)
        self.action_space = UnicodeText(longest)
        text = UnicodeText(MAX_TEXT_CHARS)
        message = spaces.Dict({"role": UnicodeText(MAX_ROLE_CHARS), "content": text})
        is_list = self.observation == "messages"
        self.observation_space = spaces.Sequence(message) if is_list else text

    def _act(self, action: str | Mapping[str, Any]) -> Coroutine[Any, Any, Any] | None:
        session = self._running()
        if isinstance(action, Mapping):
            reads_calls = isinstance(self.scenario.codec, OpenAICodec)
            if action.get("tool_calls") and not reads_calls:
                raise InvalidAction(
                    "a message with tool_calls: make the environment with"
                    ' codec="openai".'
                )
            action = completion_text(action)
        if not isinstance(action, str):
            raise InvalidAction(f"the action must be text, got {type(action).__name__}")
        if session.stop_reason is not None:
            return None
        turn = self._voice.said(action, session.dialogue.token_limit())
        return take_turn(session, self._voice, turn)

    def _observe(self) -> Any:
        messages = self._running().messages
        if self.observation == "delta":
            # The policy knows its own turn.
            others = [message for message in self._new if message.role != "assistant"]
            return "\n\n".join(message.content for message in others)
        if self.observation == "messages":
            return tuple(
                {"role": message.role, "content": message.content}
                for message in messages
            )
        return "\n\n".join(f"{message.role}: {message.content}" for message in messages)
