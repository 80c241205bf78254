"""`AIPO-Math-v0`: one action is one token of the policy."""

from array import array
from collections.abc import Coroutine
from functools import cache
from operator import index
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction
from numpy.typing import NDArray

from aipo_env.errors import check_choice, whole
from aipo_env.gym.episode_env import EpisodeEnv
from aipo_env.records import CONSULT_KINDS, Author, Split
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
from aipo_env.tokenizers.bpe import build_tokenizer

ObservationForm = Literal["flat", "dict"]
MAX_MASK_TOKENS = 4096
"""A larger vocabulary has no mask in `info`: it would be the costliest of a step."""


class TokenEnv(EpisodeEnv[Any, np.int64]):
    """The policy writes token ids; what an agent replies is appended to what it sees.

    Args:
        window: Length of the observation.
        obs: "flat" or "dict".
        tokenizer: "byte"; "tiktoken:aipo", which ships, or another encoding of
            tiktoken; "hf:" and a folder or id of a Hugging Face tokenizer.

    The other arguments are those of `EpisodeEnv`.

    Action: `Discrete(V)`, a token id. Observation "flat": int64[window], the last token
    ids of the episode, each message closed by an end of turn, padded on the left with
    the end of turn. "dict": `tokens`, the same; `author`, int8[window], an `Author`
    each, padding being the template's; `length`, int64[1], how much of the window is
    filled; `action_mask`, int8[V]. A turn ends with the end of turn, with a stop string
    spelled in tokens, or where a limit falls.

    The mask leaves out macro tokens where they ask nothing: unaided, in an open call,
    without an agent, over budget. `action_masks()` gives it, and `info["action_mask"]`,
    a tuple of 0 and 1, for V up to 4,096.

    Raises:
        ConfigError: An argument is out of range, or as in `EpisodeEnv`.
    """

    def __init__(
        self,
        *,
        window: int = 512,
        obs: ObservationForm = "flat",
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
        check_choice("environment: obs", obs, get_args(ObservationForm))
        self.window = whole("environment: window", window, 1)
        self.obs = obs
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
        scenario = self.scenario
        macros = scenario.codec.macros(CONSULT_KINDS)
        self.tokenizer = build_tokenizer(self._tokenizer_spec, macros)
        num_tokens = self.tokenizer.num_tokens
        self._num_tokens = num_tokens
        self.action_space = spaces.Discrete(num_tokens)
        tokens = spaces.Box(0, num_tokens - 1, (self.window,), np.int64)
        last_author = int(max(Author))
        parts: dict[str, spaces.Space[Any]] = {
            "tokens": tokens,
            "author": spaces.Box(0, last_author, (self.window,), np.int8),
            "length": spaces.Box(0, self.window, (1,), np.int64),
            "action_mask": spaces.Box(0, 1, (num_tokens,), np.int8),
        }
        self.observation_space = spaces.Dict(parts) if self.obs == "dict" else tokens
        self._macro_ids = frozenset(self.tokenizer.macro_ids.values())
        self._plain_mask = np.ones(num_tokens, np.int8)
        self._plain_mask[list(self._macro_ids)] = 0
        self._stops: tuple[str, ...] = ()
        # By token, because it is asked in every step and decoding takes long. An
        # episode without agents may have other stop strings than one with them.
        self._may_stop = cache(self._closes_stop)
        self._allow(self._plain_mask)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        # The cache of a method cannot be pickled; `_build` makes another.
        del state["_may_stop"]
        return state

    def _allow(self, mask: NDArray[np.int8]) -> None:
        """Set the mask, and what `info` shows of it: JSON has no arrays."""
        self._mask = mask
        self._mask_info: dict[str, Any] = {}
        if len(mask) <= MAX_MASK_TOKENS:
            self._mask_info["action_mask"] = tuple(mask.tolist())

    def action_masks(self) -> NDArray[np.bool_]:
        """Return bool[V], the token ids of use in the next step."""
        return self._mask.astype(np.bool_)

    def _clear(self) -> None:
        super()._clear()
        self._turn: list[int] = []
        self._limit = 0
        self._num_runs = 0
        self._stops = self.stop_strings
        self._allow(self._plain_mask)
        # All tokens of the episode behind a window of padding: appending is cheap, and
        # so is copying the end.
        self._tokens = array("q", [self.tokenizer.end_id] * self.window)
        self._authors = bytearray([Author.TEMPLATE] * self.window)

    def _act(self, action: np.int64) -> Coroutine[Any, Any, Any] | None:
        session = self._running()
        # numpy's integers and Python's alike, and no number with a fraction.
        try:
            token_id = index(action)
        except TypeError:
            token_id = -1
        if not 0 <= token_id < self._num_tokens:
            raise InvalidAction(
                f"the action {action!r} is no token id; use one of {self.action_space}"
            )
        if session.stop_reason is not None:
            return None
        self._turn.append(token_id)
        self._tokens.append(token_id)
        self._authors.append(Author.POLICY)
        is_end = token_id == self.tokenizer.end_id
        # The first question is cheap and mostly answered by no.
        is_ended = is_end or (
            self._may_stop(token_id, self._stops) and self._has_stop()
        )
        if is_ended or len(self._turn) >= self._limit:
            turn = self._turn
            self._turn = []
            completion = self._voice.written(turn, is_cut=not is_ended)
            return take_turn(session, self._voice, completion)
        # In an open call a further macro token asks nothing.
        if token_id in self._macro_ids:
            self._allow(self._plain_mask)
        return None

    def _note(self) -> None:
        super()._note()
        session = self._running()
        for run in session.token_runs[self._num_runs :]:
            # The policy's own tokens are there since it wrote them.
            if run.author != Author.POLICY:
                self._tokens.extend(run.token_ids)
                self._authors.extend([run.author] * len(run.token_ids))
        self._num_runs = len(session.token_runs)
        self._limit = session.dialogue.token_limit()
        mask = self._plain_mask.copy()
        mask[self._askable()] = 1
        self._allow(mask)

    def _askable(self) -> list[int]:
        """Return the macro tokens whose call would be answered."""
        dialogue = self._running().dialogue
        macro_ids = self.tokenizer.macro_ids
        return [macro_ids[kind] for kind in macro_ids if dialogue.may_consult(kind)]

    def _closes_stop(self, token_id: int, stops: tuple[str, ...]) -> bool:
        """Return whether one of the stop strings can end in this token."""
        text = self.tokenizer.decode([token_id])
        return any(stop[-1] in text for stop in stops)

    def _has_stop(self) -> bool:
        """Return whether the policy ended its turn, as a sampler would have it end.

        Asked after every token that may end a stop string, so that one can only be at
        the end of the turn: in as many tokens as it has characters.
        """
        num_last = max(map(len, self._stops))
        tail = self.tokenizer.decode(self._turn[-num_last:])
        return any(stop in tail for stop in self._stops)

    def _info(self) -> dict[str, Any]:
        info = super()._info()
        info["num_policy_tokens"] += len(self._turn)
        return info | self._mask_info

    def _observe(self) -> Any:
        # A slice of an array is a copy, so that the next step does not change it.
        tokens = np.frombuffer(self._tokens[-self.window :], np.int64)
        if self.obs == "flat":
            return tokens
        num_episode_tokens = len(self._tokens) - self.window
        length = min(num_episode_tokens, self.window)
        return {
            "tokens": tokens,
            "author": np.frombuffer(self._authors[-self.window :], np.int8),
            "length": np.array([length], np.int64),
            "action_mask": self._mask.copy(),
        }
