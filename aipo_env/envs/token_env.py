"""`AIPO-Math-v0`: one action is one token of the policy."""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction
from numpy.typing import NDArray

from aipo_env.envs.byte_tokenizer import ByteTokenizer
from aipo_env.envs.episode_env import EpisodeEnv
from aipo_env.errors import ConfigError


class TokenEnv(EpisodeEnv[NDArray[np.int64], np.int64]):
    """The policy writes ids of `ByteTokenizer`; what an agent replies is appended to what it sees.

    Args:
        window: Length of the observation.
        options: As in `EpisodeEnv`.

    Action: `Discrete(V)`, a token id. Observation: int64[window], the last token ids of the episode, each
    message closed by an end of turn, padded on the left with the end of turn. A turn ends with that token,
    with a closing tag spelled in bytes, or where a limit falls.

    Raises:
        ConfigError: `window` is less than 1, or as in `EpisodeEnv`.
    """

    def __init__(self, *, window: int = 512, **options: Any) -> None:
        if not isinstance(window, int) or window < 1:
            raise ConfigError(f"environment: window={window!r} must be a whole number, at least 1.")
        super().__init__(**options)
        self.tokenizer = ByteTokenizer()
        self.action_space = spaces.Discrete(self.tokenizer.num_tokens)
        self.observation_space = spaces.Box(0, self.tokenizer.num_tokens - 1, (window,), np.int64)
        self._turn: list[int] = []
        self._stops: list[list[int]] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Start an episode; `options={"index": n}` chooses the task."""
        self._begin(seed, options)
        self._turn, self._stops = [], [self.tokenizer.encode(stop) for stop in self.stop_strings]
        return self._observe(), self._info()

    def step(self, action: np.int64) -> tuple[NDArray[np.int64], float, bool, bool, dict[str, Any]]:
        """Take one token.

        Raises:
            InvalidAction: The action is no token id. ResetNeeded: no episode is running.
        """
        running = self._running()
        if not self.action_space.contains(action):
            raise InvalidAction(f"the action {action!r} is no token id; use one of {self.action_space}")
        if running.session.stop_reason is None:
            self._turn.append(int(action))
            is_full = len(self._turn) >= running.session.dialogue.token_limit()
            if self._is_turn_ended() or is_full:
                running.write(self._turn, is_cut=not self._is_turn_ended())
                self._turn = []
        return self._step(self._observe())

    def _is_turn_ended(self) -> bool:
        """Return whether the policy ended its turn, as a sampler with these stop strings would."""
        return self._turn[-1] == self.tokenizer.end_id or any(
            self._turn[-len(stop) :] == stop for stop in self._stops
        )

    def _info(self) -> dict[str, Any]:
        info = super()._info()
        info["num_policy_tokens"] += len(self._turn)
        return info

    def _observe(self) -> NDArray[np.int64]:
        window = self.observation_space.shape[0]  # type: ignore[index]
        token_ids = [*self._running().token_ids[-window:], *self._turn][-window:]
        observation = np.full(window, self.tokenizer.end_id, np.int64)
        observation[window - len(token_ids) :] = token_ids
        return observation
