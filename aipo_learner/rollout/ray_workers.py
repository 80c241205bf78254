"""Rollout workers as Ray actors, each with a sampler and a scenario of its own.

A worker plays the groups that it is given. What an episode is follows from its step,
group and rollout and from the weights, never from who plays it. So a worker that dies
is replaced by Ray, and the groups that it had are played again from their beginning.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from aipo_env import ConfigError, Episode, Journal, PolicyError, Scenario, run_sync
from aipo_learner.policy.distributed import parts
from aipo_learner.rollout.aid import NOT_PLAYED, Competence
from aipo_learner.rollout.sampled import IsConstant, Playing, play_groups
from aipo_learner.run.progress import SILENT, Progress, WorkCount
from aipo_learner.samplers.base import Sampler
from aipo_learner.samplers.weight_sync import sync_weights
from aipo_learner.settings.stages import RolloutSettings

Weights = list[NDArray[np.float32]]
"""Of all parameters, in the order of `model.parameters()`."""
Build = Callable[[], tuple[PreTrainedModel, Sampler, Scenario]]
"""Makes a policy of any weights, a sampler that samples from it, and the scenario."""
NUM_TRIES = 4
"""How often groups are given to a worker before the run ends."""
_FOREVER = -1
"""To Ray: start an actor again however often it dies."""
_NO_VERSION = -1
"""Before any weights were there; versions count from 0."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What every worker is told.

    Args:
        rollouts: Which episodes the run samples.
        max_sampler_gap: As in `sync_weights`.
        journal: The run's file of replies. On another machine its folder may not be.
        is_constant: As in `play_groups`.
    """

    rollouts: RolloutSettings
    max_sampler_gap: float
    journal: Path
    is_constant: IsConstant | None = None


class RayWorker:
    """One worker, in a process that Ray starts."""

    def __init__(self, settings: WorkerSettings, build: Build) -> None:
        self._settings = settings
        self._model, self._sampler, self._scenario = build()
        self._version = _NO_VERSION

    def play(
        self,
        weights: Weights,
        step: int,
        groups: Sequence[int],
        policy_version: int,
        competence: Competence = NOT_PLAYED,
    ) -> list[Episode]:
        """Take the weights unless they are there already, and play some groups.

        Args:
            weights: Of the policy.
            step: Whose groups.
            groups: Their numbers within the step.
            policy_version: Of the weights.
            competence: Running success before the step.
        """
        if policy_version != self._version:
            pairs = zip(self._model.parameters(), weights, strict=True)
            with torch.no_grad():
                for parameter, values in pairs:
                    # A copy: Ray's arrays are read-only, and shared among processes.
                    parameter.copy_(torch.tensor(values))
            sync_weights(self._sampler, self._model, self._settings.max_sampler_gap)
            self._version = policy_version
        # Read anew: it has what a worker that died was answered, and no more what a
        # checkpoint has made useless.
        path = self._settings.journal
        journal = Journal(path) if path.parent.is_dir() else None
        self._scenario.pool.journal = journal
        work = play_groups(
            self._settings.rollouts,
            self._scenario,
            self._sampler,
            step,
            groups,
            policy_version,
            competence,
            self._settings.is_constant,
        )
        return run_sync(work)


class RayWorkers:
    """The workers of a run, in the cluster of RAY_ADDRESS, or else on this machine.

    Args:
        number: How many.
        settings: What each is told.
        model: Whose weights the workers sample with.
        build: Called in each worker's process.
        progress: Says how many of them have played their parts.

    Raises:
        ConfigError: Ray is not installed, or the cluster has too few CPUs or GPUs.
    """

    def __init__(
        self,
        number: int,
        settings: WorkerSettings,
        model: PreTrainedModel,
        build: Build,
        progress: Progress = SILENT,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                f'ray={number} needs Ray: pip install "aipo-rl[ray]".'
            ) from error
        self._ray: Any = ray
        self._model = model
        self._progress = progress
        self._version = _NO_VERSION
        # Ray's reference to the weights of that version.
        self._weights: Any = None
        ray.init(ignore_reinit_error=True, logging_level="ERROR")
        each = {"CPU": 1, "GPU": int(model.device.type == "cuda")}
        resources = ray.cluster_resources()
        for name, of_each in each.items():
            # Ray would wait without a word until somebody adds machines.
            available = resources.get(name, 0)
            if available < number * of_each:
                raise ConfigError(
                    f"ray={number} workers need as many {name}s, and Ray has"
                    f" {available:g}. Use fewer, or add machines: ray start"
                    " --address=…"
                )
        as_actor = ray.remote(
            num_cpus=each["CPU"],
            num_gpus=each["GPU"],
            max_restarts=_FOREVER,
            max_task_retries=NUM_TRIES - 1,
            # On as many machines as there are, for their memory.
            scheduling_strategy="SPREAD",
        )
        actor = as_actor(RayWorker)
        self.workers = [actor.remote(settings, build) for _ in range(number)]

    def play(
        self,
        step: int,
        groups: Sequence[int],
        policy_version: int,
        competence: Competence = NOT_PLAYED,
    ) -> Playing:
        """Have all workers play their parts, with the weights as they are at the call.

        Args:
            step: Whose groups.
            groups: Their numbers within the step.
            policy_version: Of the weights: those of one version are sent once.
            competence: Running success before the step.

        Returns:
            What is awaited for the episodes, which come in the order of the groups.

        Raises:
            PolicyError: When awaited: a worker could not be made, or died again and
                again over the same groups.
        """
        ray = self._ray
        if policy_version != self._version:
            weights = [
                parameter.detach().cpu().numpy()
                for parameter in self._model.parameters()
            ]
            self._weights = ray.put(weights)
            self._version = policy_version
        groups_of_workers = parts(groups, len(self.workers))
        pairs = zip(self.workers, groups_of_workers, strict=True)
        calls = [
            worker.play.remote(
                self._weights, step, list(part), policy_version, competence
            )
            for worker, part in pairs
        ]
        # The calls run from here on, whoever awaits them and when.
        return self._played(step, calls)

    async def _played(self, step: int, calls: Sequence[Any]) -> list[Episode]:
        """Return the episodes of all calls, in the order of these."""
        ray = self._ray
        # Of what each has done of its part, nothing is known here.
        count = WorkCount("rollouts, workers done", len(calls))

        async def counted(call: Any) -> list[Episode]:
            episodes: list[Episode] = await call
            count.add()
            return episodes

        try:
            with self._progress.part(count.text):
                parts_of_step = await asyncio.gather(*map(counted, calls))
        except ray.exceptions.RayTaskError as error:
            # What was raised in the worker is told as if it had been raised here.
            raise error.cause from error
        except ray.exceptions.RayActorError as error:
            raise PolicyError(
                f"a rollout worker gave up step {step + 1}: {error}. If it was killed"
                f" {NUM_TRIES} times, its memory is too small: lower max_rows of the"
                " sampler, or use fewer workers for each machine."
            ) from error
        return [episode for part in parts_of_step for episode in part]

    def close(self) -> None:
        """End the workers."""
        self._ray.shutdown()
