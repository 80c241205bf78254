"""Many environments on one event loop, without a thread or process each.

`gymnasium.make_vec("AIPO-Math-v0", num_envs=64)` makes it. `step` waits for the slowest
environment; `send` and `recv` do not:

    observations, infos = envs.reset(seed=0)
    envs.send(actions, env_ids=range(64))
    observations, rewards, terminations, truncations, infos = envs.recv(min_ready=8)
    envs.send(new_actions, infos["env_id"])
"""

import asyncio
import copy
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from gymnasium import vector
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import (
    AlreadyPendingCallError,
    InvalidAction,
    NoAsyncCallError,
    ResetNeeded,
)
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from numpy.typing import NDArray

from aipo_env.errors import ConfigError, whole
from aipo_env.event_loop import run_sync
from aipo_env.gym import FaceOptions, make_env
from aipo_env.gym.episode_env import EpisodeEnv

StepResults = tuple[
    Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]
"""What k environments return: observations, rewards [k], terminations [k], truncations
[k], infos.
"""
_Work = Coroutine[Any, Any, Any] | None
"""What is to be awaited before a step has a result; None: it has one already."""


class VectorEnv(vector.VectorEnv[Any, Any, Any]):
    """Copies of one environment: they share its tasks, its agents and their limits.

    Args:
        num_envs: How many.
        autoreset_mode: "NextStep": the step after the last one resets and takes no
            action. "SameStep": the last step resets too; `infos` holds "final_obs" and
            "final_info". "Disabled": you reset, with `options={"reset_mask":
            bool[num_envs]}`.
        max_episode_steps: Steps after which an episode is truncated.
        mode: "token" or "turn".
        options: Of the environment.

    Everything is batched as `gymnasium.vector.SyncVectorEnv` does it, and equal to its
    for equal seeds.

    Raises:
        ConfigError: An argument cannot be used. DataError: a task file cannot be read.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: str | vector.AutoresetMode = vector.AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        mode: str = "token",
        **options: Unpack[FaceOptions],
    ) -> None:
        # First of all: gymnasium closes what could not be made, and `close_extras`
        # reads what was sent.
        self._sent: dict[int, asyncio.Task[None]] = {}
        self._finished: asyncio.Queue[int] = asyncio.Queue()
        self.num_envs = whole("environment: num_envs", num_envs, 1)
        self.max_episode_steps = max_episode_steps
        self.autoreset_mode = vector.AutoresetMode(autoreset_mode)
        self._spec: EnvSpec | None = None
        self._adopt(make_env(mode=mode, **options))
        self._observations: list[Any] = [None] * self.num_envs
        self._num_steps = [0] * self.num_envs
        self._is_over = [True] * self.num_envs

    @property
    def spec(self) -> EnvSpec | None:
        """The spec that `gymnasium.make_vec` made the environments of."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        """Take the spec; rules and pool are merged as in `EpisodeEnv`."""
        self._spec = spec
        first = self.envs[0]
        before = first.scenario
        first.spec = spec
        # The merging may have built another scenario, which all copies are to share.
        if first.scenario is not before:
            self._adopt(first)

    def _adopt(self, first: EpisodeEnv[Any, Any]) -> None:
        """Make copies of an environment the ones that are stepped."""
        num_envs = self.num_envs
        others = [copy.copy(first) for _ in range(num_envs - 1)]
        self.envs: list[EpisodeEnv[Any, Any]] = [first, *others]
        self.metadata = {**first.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = first.render_mode
        self.single_action_space = first.action_space
        self.single_observation_space = first.observation_space
        self.action_space = batch_space(first.action_space, num_envs)
        self.observation_space = batch_space(first.observation_space, num_envs)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes; environment i gets `seed + i`, or the i-th of a list.

        Raises:
            ConfigError: A seed or option cannot be used. AlreadyPendingCallError: a
                result is still to come.
        """
        self._check_none_sent("reset")
        env_options = dict(options or {})
        mask = env_options.pop("reset_mask", np.ones(self.num_envs, np.bool_))
        self._check_mask(mask)
        seeds = _seeds(seed, self.num_envs)
        infos: dict[str, Any] = {}
        for env_id in np.flatnonzero(mask).tolist():
            info = self._reset(env_id, seeds[env_id], env_options)
            infos = self._add_info(infos, info, env_id)
        return self._observe(range(self.num_envs)), infos

    def step(self, actions: Any) -> StepResults:
        """Take one action in each environment and wait for all.

        Raises:
            InvalidAction: An action is not of its space. ResetNeeded: an episode is
                over and nothing resets it.
            AlreadyPendingCallError: A result is still to come.
        """
        self._check_none_sent("step")
        env_ids = range(self.num_envs)
        works = [work for work in self._act(actions, env_ids) if work]
        # Most steps of tokens end no turn, and need no event loop.
        if works:
            run_sync(_finish_all(works))
        return self._results(env_ids)

    def send(self, actions: Sequence[Any], env_ids: Sequence[int]) -> None:
        """Begin a step in some environments, and wait for nothing.

        Args:
            actions: One for each of `env_ids`.
            env_ids: The numbers of the environments.

        Raises:
            AlreadyPendingCallError: The result of an action sent before is still to
                come.
            InvalidAction, ResetNeeded: As in `step`.
        """
        env_ids = [int(env_id) for env_id in env_ids]
        for env_id in env_ids:
            if env_id in self._sent or env_ids.count(env_id) > 1:
                fault = f"environment {env_id} is sent two actions; recv() first."
                raise AlreadyPendingCallError(fault, "send")
        works = self._act(actions, env_ids)
        run_sync(self._start(works, env_ids))

    def recv(self, min_ready: int = 1) -> StepResults:
        """Return the results of the environments that have finished, first ones first.

        The batch, `infos` included, is of their number k; `infos["env_id"]`, int64[k],
        says which they are.

        Args:
            min_ready: How many to wait for; those that have finished too come with
                them.

        Raises:
            NoAsyncCallError: Fewer than `min_ready` results are to come.
        """
        if not 1 <= min_ready <= len(self._sent):
            num_sent = len(self._sent)
            fault = (
                f"min_ready={min_ready!r} must be from 1 to {num_sent}, the"
                " actions under way by send()."
            )
            raise NoAsyncCallError(fault, "recv")
        env_ids = run_sync(self._ready(min_ready))
        results = self._results(env_ids)
        results[-1]["env_id"] = np.array(env_ids, np.int64)
        return results

    def render(self) -> tuple[Any, ...]:
        """Return what each environment renders."""
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Cancel what was sent, without waiting for it.

        When the interpreter exits, the loop runs no more, and a wait would never end.
        """
        for task in self._sent.values():
            task.get_loop().call_soon_threadsafe(task.cancel)

    def _act(self, actions: Sequence[Any], env_ids: Sequence[int]) -> list[_Work]:
        """Take the actions; return what has to be awaited for each."""
        are_ours = set(env_ids) <= set(range(self.num_envs))
        if len(actions) != len(env_ids) or not are_ours:
            raise InvalidAction(
                f"{len(actions)} actions for environments {env_ids!r} of"
                f" {self.num_envs}."
            )
        for env_id in env_ids:
            self._check_can_step(env_id)
        works: list[_Work] = []
        try:
            for env_id, action in zip(env_ids, actions, strict=True):
                # What is over is reset by this step, and its action is not looked at.
                is_over = self._is_over[env_id]
                works.append(None if is_over else self.envs[env_id]._act(action))
        except BaseException:
            # Python would warn of each coroutine that was never awaited.
            for work in works:
                if work is not None:
                    work.close()
            raise
        return works

    def _check_can_step(self, env_id: int) -> None:
        """Raise ResetNeeded if an environment has no episode and a step starts none."""
        if not self._is_over[env_id]:
            return
        was_reset = self._observations[env_id] is not None
        if was_reset and self.autoreset_mode is vector.AutoresetMode.NEXT_STEP:
            return
        raise ResetNeeded(
            f"environment {env_id} has no running episode: call reset() first."
        )

    def _check_mask(self, mask: Any) -> None:
        """Raise ConfigError unless a mask says which environments are reset."""
        is_bool = getattr(mask, "dtype", None) == np.bool_
        if not is_bool or mask.shape != (self.num_envs,) or not mask.any():
            raise ConfigError(
                f"reset: reset_mask={mask!r} must be bool[{self.num_envs}], true"
                " somewhere."
            )

    def _reset(
        self, env_id: int, seed: int | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Reset one environment; return its info."""
        env = self.envs[env_id]
        # A copy each: an environment may take out of it what it reads.
        observation, info = env.reset(seed=seed, options=dict(options))
        self._observations[env_id] = observation
        self._num_steps[env_id] = 0
        self._is_over[env_id] = False
        return info

    def _observe(self, env_ids: Sequence[int]) -> Any:
        """Return the batch of last observations."""
        space = self.single_observation_space
        observations = [self._observations[env_id] for env_id in env_ids]
        empty: Any = create_empty_array(space, len(env_ids))
        return concatenate(space, observations, empty)

    def _results(self, env_ids: Sequence[int]) -> StepResults:
        """Return the results of environments that have finished their step.

        They are reset as the mode says.
        """
        size = len(env_ids)
        # `_add_info` makes arrays of as many rows as its object has environments.
        batch: vector.VectorEnv[Any, Any, Any] = vector.VectorEnv()
        batch.num_envs = size
        rewards = np.zeros(size)
        terminations = np.zeros(size, np.bool_)
        truncations = np.zeros(size, np.bool_)
        infos: dict[str, Any] = {}
        for row, env_id in enumerate(env_ids):
            if self._is_over[env_id]:
                # NextStep: this step was the reset, with reward 0 and nothing ended.
                info = self._reset(env_id, None, {})
                infos = batch._add_info(infos, info, row)
                continue
            result = self.envs[env_id]._result()
            observation, reward, terminated, truncated, info = result
            self._observations[env_id] = observation
            self._num_steps[env_id] += 1
            truncated |= self._num_steps[env_id] == self.max_episode_steps
            is_over = terminated or truncated
            rewards[row] = reward
            terminations[row] = terminated
            truncations[row] = truncated
            self._is_over[env_id] = is_over
            if is_over and self.autoreset_mode is vector.AutoresetMode.SAME_STEP:
                final = {"final_obs": observation, "final_info": info}
                infos = batch._add_info(infos, final, row)
                info = self._reset(env_id, None, {})
            infos = batch._add_info(infos, info, row)
        return self._observe(env_ids), rewards, terminations, truncations, infos

    def _check_none_sent(self, name: str) -> None:
        """Raise unless every result of `send` was received, on a call of `name`."""
        if self._sent:
            fault = (
                f"{name}: {len(self._sent)} results of send() are still to come; recv()"
                " them first."
            )
            raise AlreadyPendingCallError(fault, name)

    async def _start(self, works: Sequence[_Work], env_ids: Sequence[int]) -> None:
        """Begin what has to be awaited."""
        for env_id, work in zip(env_ids, works, strict=True):
            self._sent[env_id] = asyncio.create_task(self._finish(env_id, work))

    async def _finish(self, env_id: int, work: _Work) -> None:
        """Finish a step, and say that it is, even if it raised: `recv` raises that."""
        try:
            if work:
                await work
        finally:
            self._finished.put_nowait(env_id)

    async def _ready(self, min_ready: int) -> list[int]:
        """Wait until this many have finished; return all that have."""
        env_ids = [await self._finished.get() for _ in range(min_ready)]
        while not self._finished.empty():
            env_ids.append(self._finished.get_nowait())
        # None is under way any more, not even if one of them raises.
        for task in [self._sent.pop(env_id) for env_id in env_ids]:
            await task
        return env_ids


async def _finish_all(works: Sequence[Coroutine[Any, Any, Any]]) -> None:
    """Wait for all, and raise what the first that failed raised.

    The others have ended by then, so that every environment can be stepped on.
    """
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _seeds(seed: Any, num_envs: int) -> list[Any]:
    """Return one seed per environment; what is no seed the environments refuse."""
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        return [seed + env_id for env_id in range(num_envs)]
    is_list = isinstance(seed, Sequence | np.ndarray)
    seeds = list(seed) if is_list else [seed] * num_envs
    if len(seeds) != num_envs:
        raise ConfigError(
            f"reset: {len(seeds)} seeds for {num_envs} environments; give one for each."
        )
    return seeds
