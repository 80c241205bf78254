"""vLLM in process, and what all engines are told.

With `server.py`, `weights.py` and `teacher.py`, which stand beside it, the only code
that knows vLLM.
Written for vLLM 0.28 to 0.33. Engines take token ids and return token ids with the
log-probabilities under the sampling temperature, of one turn at a time: what is in a
batch is vLLM's business (continuous batching, cached prefixes).
"""

import asyncio
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from aipo_env import ConfigError, PolicyError
from aipo_learner.samplers.vllm.weights import OwnWeightClient

Sampled = tuple[list[int], list[float], bool]
"""Token ids with their log-probabilities (nats), and whether the turn was cut at its
token limit.
"""

PLAIN_SAMPLING: dict[str, Any] = {
    # The whole distribution: what is cut off would have another log-probability here
    # than with the learner.
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    # Of the sampled token, and of no others beside it.
    "logprobs": 0,
    # Stop strings are looked for in the text as it was written.
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
}
"""Said with every request: a server would else take what the model's folder recommends
for chats.
"""

_GPU_MEMORY_SHARE = 0.4
"""Of a GPU's memory, or on CPU of the machine's, for the engine beside the learner."""

ENVIRONMENT = {
    # Without it a server takes no new weights.
    "VLLM_SERVER_DEV_MODE": "1",
    # A fork would inherit torch's thread pool without its threads.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Of engines that we start; what is set already stays."""


class EngineFault(Exception):
    """The engine did not answer: it died, was killed, or hangs.

    What was asked of it can be asked again.
    """


def engine_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an engine that we start; those given go before ours.

    It is exact on CPU, and leaves room for the learner on a GPU.
    """
    ours: dict[str, Any] = {
        # Not what the model's folder recommends.
        "generation_config": "vllm",
        # Of the distribution that is drawn from: after the temperature.
        "logprobs_mode": "processed_logprobs",
        # By default vLLM wants nearly all of the memory, and does not start where the
        # learner, or a browser, has some.
        "gpu_memory_utilization": _GPU_MEMORY_SHARE,
    }
    if torch.cuda.is_available():
        ours["dtype"] = "bfloat16"
    else:
        # On CPU vLLM dies when it prefills in chunks a request that has a seed
        # (0.32.0).
        ours |= {"dtype": "float32", "enable_chunked_prefill": False}
    return ours | dict(options)


class OwnEngine:
    """vLLM's `AsyncLLM`, in this process, of which its workers are children.

    Args:
        options: Fields of vLLM's `AsyncEngineArgs`.

    Raises:
        ConfigError: vLLM cannot be imported.
    """

    def __init__(self, **options: Any) -> None:
        # Before the import, at which vLLM reads some of it.
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            self._vllm = importlib.import_module("vllm")
        except ImportError as error:
            raise ConfigError(
                f"sampler vllm cannot import vLLM ({error}). Install it, name a server,"
                " vllm:http://HOST:8000, or use --sampler transformers."
            ) from error
        self._options = engine_options(options)
        self._llm: Any = None

    async def start(self, folder: Path) -> None:
        """Bring the engine up, or up again, with the weights of a model folder.

        Raises:
            PolicyError: It does not start.
        """
        await self.close()
        try:
            path = str(folder)
            engine_args = self._vllm.AsyncEngineArgs(model=path, **self._options)
            build = self._vllm.AsyncLLMEngine.from_engine_args
            # It takes minutes, in which agents go on answering in the event loop.
            self._llm = await asyncio.to_thread(build, engine_args)
        # An option that it does not have, no memory, a model that it cannot run.
        except Exception as error:
            raise PolicyError(f"sampler: vLLM does not start: {error}") from error

    async def generate(
        self, token_ids: Sequence[int], sampling: Mapping[str, Any]
    ) -> Sampled:
        """Continue `token_ids` to the end of a turn.

        Args:
            token_ids: The conversation so far.
            sampling: Fields of vLLM's `SamplingParams`.

        Raises:
            EngineFault: The engine did not answer.
            PolicyError: The request can never be served.
        """
        sampling_params = importlib.import_module("vllm.sampling_params")
        # One output when the turn has ended, and none for every token.
        final_only = sampling_params.RequestOutputKind.FINAL_ONLY
        settings = self._vllm.SamplingParams(**sampling, output_kind=final_only)
        prompt = {"prompt_token_ids": token_ids}
        output: Any = None
        try:
            async for result in self._llm.generate(prompt, settings, uuid4().hex):
                output = result.outputs[0]
        except ValueError as error:
            raise PolicyError(f"sampler: vLLM refuses a turn: {error}") from error
        # Its kinds of death have many names.
        except Exception as error:
            raise EngineFault(str(error)) from error
        # By token id, for each place: the sampled token's is among them.
        pairs = zip(output.token_ids, output.logprobs, strict=True)
        logprobs = [by_token[token_id].logprob for token_id, by_token in pairs]
        is_cut = output.finish_reason == "length"
        return list(output.token_ids), logprobs, is_cut

    async def reload(self, folder: Path) -> None:
        """Take the weights of a model folder; forget what is cached of the old ones.

        Requests that are being served are finished with the old weights first.

        Raises:
            EngineFault: The engine did not take them.
        """
        try:
            await self._llm.pause_generation(mode="wait")
            arguments = {"weights_path": str(folder)}
            await self._llm.collective_rpc("reload_weights", kwargs=arguments)
            await self._llm.resume_generation()
        except Exception as error:
            raise EngineFault(str(error)) from error

    def weight_client(self, loop: asyncio.AbstractEventLoop) -> Any:
        """Return a `VLLMWeightSyncClient`, which blocks; the engine lives in `loop`."""
        return OwnWeightClient(self._llm, loop)

    async def num_workers(self) -> int:
        """Return the number of processes that hold weights."""
        return int(self._llm.vllm_config.parallel_config.world_size_across_dp)

    async def close(self) -> None:
        """End the engine. May be called twice."""
        llm = self._llm
        # First: what comes while it ends is not to meet an engine half shut down.
        self._llm = None
        if llm:
            await asyncio.to_thread(llm.shutdown)
