"""What both Gymnasium environments share: tasks, seeding, the end of an episode, `info`, rendering.

No rule of the dialogue is here; `Session` and `Dialogue` hold them.
"""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, get_args

import gymnasium as gym
from gymnasium.error import ResetNeeded

from aipo_env.envs.byte_session import ByteSession
from aipo_env.errors import ConfigError, suggest
from aipo_env.records import Message, Split
from aipo_env.registry import Spec
from aipo_env.render import episode_text, messages_text
from aipo_env.scenario import build_scenario

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")

BYTE_LIMITS = {"max_policy_tokens": 4096, "max_context_tokens": 16384}
"""Limits unless `rules` gives others: tokens are bytes here, about four to a token of a language model."""


class EpisodeEnv(gym.Env[ObsT, ActT], Generic[ObsT, ActT]):
    """An environment whose actions end in turns of a `Session`.

    Args:
        source: Where tasks come from: "toy", "toy:difficulty=2", "file:tasks.jsonl".
        agents: Who is consulted: "scripted", "scripted:wrong=0.2", "none".
        rules: Fields of `DialogueRules` that differ from the source's defaults and `BYTE_LIMITS`.
        pool: Fields of `PoolLimits` that differ from its defaults.
        aided: Whether the policy is told of the agents and may consult.
        split: "train" or "test".
        world_seed: The toy world's, unless `source` gives one.
        render_mode: "human" prints messages as they come; "ansi" has `render` return the transcript.

    Every argument has a JSON form, so that the environment's spec has one. `reset(options={"index": n})`
    chooses a task; otherwise it is drawn from `np_random`.

    `info` holds `task_id`, `turn`, `num_policy_tokens`, `consults_used`; on the last step also `stop_reason`
    and `episode_record`, the `Episode`. The gold answer is in the `Episode` alone.

    Raises:
        ConfigError: An argument or option is unknown or out of range. DataError: a task file cannot be read.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        *,
        source: Spec = "toy",
        agents: Spec = "scripted",
        rules: Mapping[str, Any] | None = None,
        pool: Mapping[str, Any] | None = None,
        aided: bool = True,
        split: Split = "train",
        world_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        check_option("split", split, get_args(Split))
        if render_mode is not None:
            check_option("render_mode", render_mode, self.metadata["render_modes"])
        limits = {**BYTE_LIMITS, **(rules or {})}
        self.scenario = build_scenario(source, agents, rules=limits, pool=pool, seed=world_seed)
        self.aided, self.split, self.render_mode = aided, split, render_mode
        self._bytes: ByteSession | None = None
        self._is_over = True
        self._num_printed = 0

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings after which a turn of the current episode ends."""
        return self._bytes.session.dialogue.stop_strings() if self._bytes else ()

    def render(self) -> str | None:
        """Return the transcript in mode "ansi"; mode "human" has printed it already."""
        if self.render_mode is None:
            gym.logger.warn('render() does nothing: make the environment with render_mode="human" or "ansi".')
        if self.render_mode != "ansi" or self._bytes is None:
            return None
        session = self._bytes.session
        return episode_text(session.episode()) if session.stop_reason else messages_text(session.messages)

    def _begin(self, seed: int | None, options: Mapping[str, Any] | None) -> tuple[Message, ...]:
        """Start an episode; return the prompt."""
        super().reset(seed=seed)
        size = self.scenario.source.num_tasks(self.split)
        # Drawn whether used or not, so that choosing a task changes no later draw.
        index, key = int(self.np_random.integers(size or 2**31)), int(self.np_random.integers(2**31))
        chosen = _chosen_index(dict(options or {}), size)
        task = self.scenario.source.task(self.split, index if chosen is None else chosen)
        self._bytes = ByteSession(self.scenario.session(task, aided=self.aided, key=(key,)))
        self._is_over, self._num_printed = False, 0
        messages = self._bytes.open()
        self._print_new()
        return messages

    def _running(self) -> ByteSession:
        """Return the running session.

        Raises:
            ResetNeeded: There is none: `reset` was not called yet, or the episode is over.
        """
        if self._bytes is None or self._is_over:
            raise ResetNeeded("step() without a running episode: call reset() first, and after each episode.")
        return self._bytes

    def _info(self) -> dict[str, Any]:
        session = self._running().session
        return {
            "task_id": session.task.id,
            "turn": len(session.dialogue.turns),
            "num_policy_tokens": session.dialogue.num_policy_tokens,
            "consults_used": session.dialogue.num_consults,
        }

    def _step(self, observation: ObsT) -> tuple[ObsT, float, bool, bool, dict[str, Any]]:
        """Return what `step` returns; the reward comes with the last step."""
        self._print_new()
        session, info = self._running().session, self._info()
        if session.stop_reason is None:
            return observation, 0.0, False, False, info
        episode = session.episode()
        info |= {"stop_reason": episode.stop_reason.value, "episode_record": episode}
        self._is_over = True
        truncated = episode.stop_reason.is_truncated
        return observation, float(episode.reward or 0.0), not truncated, truncated, info

    def _print_new(self) -> None:
        """In mode "human", print the messages that came since the last call."""
        messages = self._running().session.messages
        if self.render_mode == "human" and messages[self._num_printed :]:
            print(messages_text(messages[self._num_printed :]))
        self._num_printed = len(messages)


def check_option(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Raise ConfigError that lists the valid values unless `value` is one of them."""
    if value not in valid:
        raise ConfigError(f"environment: {name}={value!r}. {suggest(str(value), valid)}")


def _chosen_index(options: dict[str, Any], size: int | None) -> int | None:
    """Return the task that the options of `reset` choose, None when they choose none."""
    index = options.pop("index", None)
    if options:
        raise ConfigError(f"reset: there is no option {next(iter(options))!r}. Valid: index.")
    if index is None:
        return None
    is_whole = isinstance(index, int) and not isinstance(index, bool)
    if not is_whole or not 0 <= index < (size or 2**31):
        raise ConfigError(f"reset: index={index!r} must be a whole number from 0 to {(size or 2**31) - 1}.")
    return int(index)
