"""`AIPO-Math-Turn-v0`: one action is one turn of the policy, in text."""

from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, Literal, get_args

from gymnasium import spaces
from gymnasium.error import InvalidAction

from aipo_env.codecs.openai_calls import OpenAICodec, completion_text
from aipo_env.errors import check_choice
from aipo_env.gym.episode_env import EpisodeEnv
from aipo_env.gym.spaces import MAX_TEXT_CHARS, UnicodeText
from aipo_env.records import Completion, Message, Split
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
from aipo_env.threads import in_thread
from aipo_env.tokenizers.bpe import build_tokenizer
from aipo_env.tokenizers.bytes import ByteTokenizer

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
        tokenizer: What the limits of tokens count, without a chat template: "byte", the
            bytes of UTF-8; "tiktoken:aipo", which ships, or another encoding of
            tiktoken; "hf:" and a folder or id of a Hugging Face tokenizer.

    The other arguments are those of `EpisodeEnv`.

    The action is text, or the dictionary of an OpenAI assistant message; its
    `tool_calls` need `codec="openai"`. Several calls are answered together. Have your
    language model stop after each of `stop_strings`, or it will make up the reply
    itself. A turn is cut where `max_policy_tokens` or `max_context_tokens` falls, which
    truncates the episode. `new_messages` say who wrote what the last step has brought.

    Raises:
        ConfigError: An argument is out of range, or as in `EpisodeEnv`.
    """

    def __init__(
        self,
        *,
        observation: Observation = "transcript",
        tokenizer: str = "byte",
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
        self._tokenizer_spec = tokenizer
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
        # No macro tokens: what is a call stands in the text.
        self.tokenizer = build_tokenizer(self._tokenizer_spec, {})
        longest = MAX_TEXT_CHARS
        if isinstance(self.tokenizer, ByteTokenizer):
            # Characters up to the limit of bytes: what has more is cut there anyway.
            rules = self.scenario.rules
            longest = min(rules.max_policy_tokens, rules.max_context_tokens)
        self.action_space = UnicodeText(longest)
        text = UnicodeText(MAX_TEXT_CHARS)
        message = spaces.Dict({"role": UnicodeText(MAX_ROLE_CHARS), "content": text})
        is_list = self.observation == "messages"
        self.observation_space = spaces.Sequence(message) if is_list else text

    @property
    def new_messages(self) -> tuple[Message, ...]:
        """What the last call has brought, each part by its author; no turn of the
        policy's own.
        """
        return tuple(message for message in self._new if message.role != "assistant")

    async def step_async(
        self, action: str | Mapping[str, Any]
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action as `step` does, and hold up no event loop meanwhile."""
        # To tokenise a long turn takes a while.
        turn = await in_thread(partial(self._completion, action), "aipo-turn")
        if turn is not None:
            await take_turn(self._running(), self._voice, turn)
        return self._result()

    def _act(self, action: str | Mapping[str, Any]) -> Coroutine[Any, Any, Any] | None:
        turn = self._completion(action)
        if turn is None:
            return None
        return take_turn(self._running(), self._voice, turn)

    def _completion(self, action: str | Mapping[str, Any]) -> Completion | None:
        """Return what the policy said, in tokens; None if the episode is over already.

        Raises:
            InvalidAction, ResetNeeded: As in `step`.
        """
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
        return self._voice.said(action, session.dialogue.token_limit())

    def _observe(self) -> Any:
        messages = self._running().messages
        if self.observation == "delta":
            return "\n\n".join(message.content for message in self.new_messages)
        if self.observation == "messages":
            return tuple(
                {"role": message.role, "content": message.content}
                for message in messages
            )
        return "\n\n".join(f"{message.role}: {message.content}" for message in messages)
