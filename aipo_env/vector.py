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

from aipo_env.envs import FaceOptions, make_env
from aipo_env.envs.episode_env import EpisodeEnv
from aipo_env.errors import ConfigError, whole
from aipo_env.event_loop import run_sync

Batch = tuple[
    Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]
"""Observations, rewards [k], terminations [k], truncations [k], infos of k
environments.
"""
_Work = Coroutine[Any, Any, Any] | None


class VectorEnv(vector.VectorEnv[Any, Any, Any]):
    """Copies of one environment that share its tasks, its agents and the limits of
    their pool.

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
        self._sent: dict[int, asyncio.Task[None]] = {}
        self._finished: asyncio.Queue[int] = asyncio.Queue()
        self.num_envs = num_envs = whole("environment: num_envs", num_envs, 1)
        self.max_episode_steps = max_episode_steps
        self.autoreset_mode = vector.AutoresetMode(autoreset_mode)
        self._spec: EnvSpec | None = None
        self._adopt(make_env(mode=mode, **options))
        self._observations: list[Any] = [None] * num_envs
        self._num_steps = [0] * num_envs
        self._is_over = [True] * num_envs

    @property
    def spec(self) -> EnvSpec | None:
        """The spec that `gymnasium.make_vec` made the environments of."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        """Take the spec; rules and pool are merged with the registered ones, as in
        `EpisodeEnv`.
        """
        self._spec = spec
        first = self.envs[0]
        before = first.scenario
        first.spec = spec
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
        options = dict(options or {})
        mask = options.pop("reset_mask", np.ones(self.num_envs, np.bool_))
        if (
            getattr(mask, "dtype", None) != np.bool_
            or mask.shape != (self.num_envs,)
            or not mask.any()
        ):
            raise ConfigError(
                f"reset: reset_mask={mask!r} must be bool[{self.num_envs}], true"
                " somewhere."
            )
        seeds = _seeds(seed, self.num_envs)
        infos: dict[str, Any] = {}
        for env_id in np.flatnonzero(mask).tolist():
            infos = self._add_info(
                infos, self._reset(env_id, seeds[env_id], options), env_id
            )
        return self._observe(range(self.num_envs)), infos

    def step(self, actions: Any) -> Batch:
        """Take one action in each environment and wait for all.

        Raises:
            InvalidAction: An action is not of its space. ResetNeeded: an episode is
                over and nothing resets it.
            AlreadyPendingCallError: A result is still to come.
        """
        self._check_none_sent("step")
        env_ids = range(self.num_envs)
        works = [work for work in self._act(actions, env_ids) if work]
        if works:
            run_sync(_finish_all(works))
        return self._results(env_ids)

    def send(self, actions: Sequence[Any], env_ids: Sequence[int]) -> None:
        """Begin a step in some environments, one action for each of `env_ids`. Waits
        for nothing.

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
        run_sync(self._start(self._act(actions, env_ids), env_ids))

    def recv(self, min_ready: int = 1) -> Batch:
        """Return the results of the environments that have finished, at least
        `min_ready`, first ones first.

        The batch, `infos` included, is of their number k; `infos["env_id"]`, int64[k],
        says which they are.

        Raises:
            NoAsyncCallError: Fewer than `min_ready` results are to come.
        """
        if not 1 <= min_ready <= len(self._sent):
            fault = (
                f"min_ready={min_ready!r} must be from 1 to {len(self._sent)}, the"
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
        """Cancel what was sent, without waiting: when the interpreter exits, the loop
        runs no more.
        """
        for task in self._sent.values():
            task.get_loop().call_soon_threadsafe(task.cancel)

    def _act(self, actions: Sequence[Any], env_ids: Sequence[int]) -> list[_Work]:
        """Take the actions; return what has to be awaited for each."""
        if len(actions) != len(env_ids) or not set(env_ids) <= set(
            range(self.num_envs)
        ):
            raise InvalidAction(
                f"{len(actions)} actions for environments {env_ids!r} of"
                f" {self.num_envs}."
            )
        resets = self.autoreset_mode is vector.AutoresetMode.NEXT_STEP
        for env_id in env_ids:
            if self._is_over[env_id] and (
                self._observations[env_id] is None or not resets
            ):
                raise ResetNeeded(
                    f"environment {env_id} has no running episode: call reset() first."
                )
        works: list[_Work] = []
        try:
            for env_id, action in zip(env_ids, actions, strict=True):
                works.append(
                    None if self._is_over[env_id] else self.envs[env_id]._act(action)
                )
        except BaseException:
            for work in filter(None, works):
                work.close()
            raise
        return works

    def _reset(
        self, env_id: int, seed: int | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Reset one environment; return its info."""
        self._observations[env_id], info = self.envs[env_id].reset(
            seed=seed, options=dict(options)
        )
        self._num_steps[env_id], self._is_over[env_id] = 0, False
        return info

    def _observe(self, env_ids: Sequence[int]) -> Any:
        """Return the batch of last observations."""
        space = self.single_observation_space
        empty: Any = create_empty_array(space, len(env_ids))
        return concatenate(
            space, [self._observations[env_id] for env_id in env_ids], empty
        )

    def _results(self, env_ids: Sequence[int]) -> Batch:
        """Return the results of environments that have finished their step, and reset
        as the mode says.
        """
        size = len(env_ids)
        batch: vector.VectorEnv[Any, Any, Any] = vector.VectorEnv()
        batch.num_envs = size  # so that `_add_info` makes arrays of this size
        rewards, (terminations, truncations) = (
            np.zeros(size),
            np.zeros((2, size), np.bool_),
        )
        infos: dict[str, Any] = {}
        for row, env_id in enumerate(env_ids):
            if self._is_over[env_id]:
                info = self._reset(env_id, None, {})
            else:
                observation, rewards[row], terminated, truncated, info = self.envs[
                    env_id
                ]._result()
                self._observations[env_id] = observation
                self._num_steps[env_id] += 1
                truncated |= self._num_steps[env_id] == self.max_episode_steps
                terminations[row], truncations[row] = terminated, truncated
                self._is_over[env_id] = terminated or truncated
                if (
                    self._is_over[env_id]
                    and self.autoreset_mode is vector.AutoresetMode.SAME_STEP
                ):
                    infos = batch._add_info(
                        infos, {"final_obs": observation, "final_info": info}, row
                    )
                    info = self._reset(env_id, None, {})
            infos = batch._add_info(infos, info, row)
        return self._observe(env_ids), rewards, terminations, truncations, infos

    def _check_none_sent(self, name: str) -> None:
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
    """Wait for all, and raise what the first that failed raised."""
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _seeds(seed: Any, num_envs: int) -> list[Any]:
    """Return one seed per environment; what is no seed the environments refuse."""
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        return [seed + env_id for env_id in range(num_envs)]
    seeds = list(seed) if isinstance(seed, Sequence | np.ndarray) else [seed] * num_envs
    if len(seeds) != num_envs:
        raise ConfigError(
            f"reset: {len(seeds)} seeds for {num_envs} environments; give one for each."
        )
    return seeds
