"""Rollout workers as Ray actors: each has a sampler and a scenario of its own, and
plays the groups it is handed.

What an episode is follows from its step, group and rollout and from the weights, never
from who plays it. So a worker that dies is replaced by Ray, and the groups that it had
are played again from their beginning.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from aipo_env import ConfigError, Episode, Journal, PolicyError, Scenario, run_sync
from aipo_learner.policy.distributed import parts
from aipo_learner.rollout.sampled import Playing, play_groups
from aipo_learner.samplers.base import Sampler
from aipo_learner.samplers.weight_sync import sync_weights
from aipo_learner.settings.train import TrainConfig

Weights = list[NDArray[np.float32]]
Build = Callable[[TrainConfig], tuple[PreTrainedModel, Sampler, Scenario]]
"""Makes a policy of any weights, a sampler that samples from it, and the scenario."""
NUM_TRIES = 4
"""How often groups are handed out before the run ends."""


class RayWorker:
    """One worker, in a process that Ray starts."""

    def __init__(self, config: TrainConfig, build: Build) -> None:
        self._config = config
        self._model, self._sampler, self._scenario = build(config)
        self._version = -1

    def play(
        self, weights: Weights, step: int, groups: Sequence[int], policy_version: int
    ) -> list[Episode]:
        """Take the weights unless they are there already, and play some groups of a
        step.
        """
        if policy_version != self._version:
            with torch.no_grad():
                for parameter, values in zip(
                    self._model.parameters(), weights, strict=True
                ):
                    parameter.copy_(torch.tensor(values))
            sync_weights(self._sampler, self._model, self._config.max_sampler_gap)
            self._version = policy_version
        path = Path(self._config.out, "journal.jsonl")
        # Read anew: it has what a worker that died was answered, and no more what a
        # checkpoint has made useless.
        self._scenario.pool.journal = Journal(path) if path.parent.is_dir() else None
        work = play_groups(
            self._config.rollouts,
            self._scenario,
            self._sampler,
            step,
            groups,
            policy_version,
        )
        return run_sync(work)


class RayWorkers:
    """The workers of a run, in the cluster that RAY_ADDRESS names, or else on this
    machine.

    Raises:
        ConfigError: Ray is not installed, or the cluster has too few CPUs or GPUs, or
            episodes come from a file.
    """

    def __init__(
        self, number: int, config: TrainConfig, model: PreTrainedModel, build: Build
    ) -> None:
        if config.source.is_stored:
            raise ConfigError(
                f"ray={number}: stored episodes leave nothing to sample. Leave --ray"
                " out."
            )
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                f'ray={number} needs Ray: pip install "aipo-rl[ray]".'
            ) from error
        self._ray: Any = ray
        self._model, self._version = model, -1
        self._weights: Any = None
        ray.init(ignore_reinit_error=True, logging_level="ERROR")
        each = {"CPU": 1, "GPU": int(model.device.type == "cuda")}
        there = ray.cluster_resources()
        for name, of_each in each.items():
            if there.get(name, 0) < number * of_each:
                raise ConfigError(
                    f"ray={number} workers need as many {name}s, and Ray has"
                    f" {there.get(name, 0):g}. Use fewer, or add machines: ray start"
                    " --address=…"
                )
        make = ray.remote(
            num_cpus=1,
            num_gpus=each["GPU"],
            max_restarts=-1,
            max_task_retries=NUM_TRIES - 1,
            scheduling_strategy="SPREAD",
        )(RayWorker)
        self.workers = [make.remote(config, build) for _ in range(number)]

    def play(self, step: int, groups: Sequence[int], policy_version: int) -> Playing:
        """Have all workers play their parts with the weights that the model has at the
        call.

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
            self._weights, self._version = ray.put(weights), policy_version
        calls = [
            worker.play.remote(self._weights, step, list(part), policy_version)
            for worker, part in zip(
                self.workers, parts(groups, len(self.workers)), strict=True
            )
        ]
        return self._played(step, calls)

    async def _played(self, step: int, calls: Sequence[Any]) -> list[Episode]:
        ray = self._ray
        try:
            played = await asyncio.gather(*calls)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayActorError as error:
            raise PolicyError(
                f"a rollout worker gave up step {step + 1}: {error}. If it was killed"
                f" {NUM_TRIES} times, its memory is too small: lower max_rows of the"
                " sampler, or use fewer workers for each machine."
            ) from error
        return [episode for part in played for episode in part]

    def close(self) -> None:
        """End the workers."""
        self._ray.shutdown()
