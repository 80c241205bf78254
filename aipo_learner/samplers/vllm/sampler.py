"""A sampler on vLLM: every turn is a request of its own.

An episode that waits for an agent holds no place in the engine's batch.

Draws are seeded by conversation and turn. Which turns share a batch depends on when
they come, and with it the last bits of the numbers: equal runs are equal up to
rounding, not bit for bit.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import (
    Completion,
    ConfigError,
    PolicyError,
    Salt,
    in_process_loop,
    process_loop,
    run_sync,
)
from aipo_learner.policy.distributed import world_size
from aipo_learner.samplers.base import ChatVoice, end_ids
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.vllm.engine import (
    PLAIN_SAMPLING,
    EngineFault,
    OwnEngine,
    Sampled,
)
from aipo_learner.samplers.vllm.server import ServedEngine
from aipo_learner.samplers.vllm.weights import export_weights, open_transfer
from aipo_learner.settings.token_filter import EVERY_TOKEN

NUM_TRIES = 4
"""How often a turn is asked for before the run ends; the engine is brought up again in
between.
"""


@dataclass(eq=False, kw_only=True)
class VLLMVoice(ChatVoice):
    """A voice of `VLLMSampler`."""

    sampler: "VLLMSampler"

    async def complete(self, stop: Sequence[str], max_tokens: int) -> Completion:
        """Ask for the turn, again if the engine dies under it."""
        # vLLM draws itself, so that it gets a seed where other samplers get draws.
        entropy = [*self.key, self.num_turns, Salt.TURN_TOKENS]
        state = np.random.SeedSequence(entropy).generate_state(1)
        token_ids, logprobs, is_cut = await self.sampler.sample(
            self.token_ids, seed=int(state[0]), stop=stop, max_tokens=max_tokens
        )
        return self.take(token_ids, logprobs, is_cut=is_cut)

    def close(self) -> None:
        """Do nothing: vLLM frees a request when it ends."""


class VLLMSampler:
    """Samples turns by a vLLM engine, which lives in the event loop of this process.

    Args:
        model: The learner's, whose weights the engine is given.
        tokenizer: Its tokenizer, with a chat template.
        engine: What samples.
        temperature: What logits are divided by, for draws and log-probabilities.
        folder: Where weights are handed over; a temporary one if "". A server elsewhere
            must see it too.
        weights: How: "file", or vLLM's transfer between GPUs, "ipc" or "nccl".

    Raises:
        ConfigError: `weights` is none of these.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        engine: OwnEngine | ServedEngine,
        *,
        temperature: float = 1.0,
        folder: str = "",
        weights: str = "file",
    ) -> None:
        if weights not in ("file", "ipc", "nccl"):
            raise ConfigError(
                f"sampler: weights={weights!r} must be 'file', 'ipc' or 'nccl'."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.engine = engine
        self.temperature = temperature
        self.token_filter = EVERY_TOKEN
        self.weights = weights
        self.chat = ChatFormat(tokenizer)
        self._end_ids = end_ids(model, self.chat)
        self._scratch = tempfile.TemporaryDirectory(
            prefix="aipo-vllm-", dir=folder or None
        )
        self.folder = Path(self._scratch.name, "policy")
        # How often the engine was brought up: by it a turn knows whether the engine
        # that died under it was replaced already, because of another turn.
        self.num_starts = 0
        self._one_at_a_time = asyncio.Lock()
        # Set at every start, where weights are not handed over as files.
        self._transfer: Callable[[], None]
        self._is_closed = False
        self.num_sampled = 0
        """Tokens of the turns that have ended."""

    @property
    def shares_weights(self) -> bool:
        """False: the engine has a copy."""
        return False

    @property
    def samples_during_update(self) -> bool:
        """Whether it can go on with its weights while the learner changes its own.

        It can if they come as files. By vLLM's own transfer it cannot: an engine that
        died would be brought up again with the weights of that moment.
        """
        return self.weights == "file"

    def beside(self) -> "VLLMSampler":
        """Return this sampler: its voices never wait for each other."""
        return self

    def memory_advice(self, num_episodes: int) -> str:
        """Say how to sample with less memory, however many episodes."""
        return (
            "It happened while episodes were sampled: lower gpu_memory_utilization in "
            "--sampler."
        )

    def voice(self, key: tuple[int, ...]) -> VLLMVoice:
        """Return the voice of an episode."""
        return VLLMVoice(self.chat, self._end_ids, key, sampler=self)

    async def sample(
        self,
        token_ids: Sequence[int],
        *,
        seed: int,
        stop: Sequence[str] = (),
        max_tokens: int,
    ) -> Sampled:
        """Continue `token_ids` to the end of a turn.

        Args:
            token_ids: The conversation so far.
            seed: Of the draws.
            stop: Strings at which the turn ends.
            max_tokens: After how many it is cut.

        Raises:
            PolicyError: The engine refuses, or died under the request again and again.
        """
        own: dict[str, Any] = {
            "seed": seed,
            "stop": list(stop),
            "max_tokens": max_tokens,
            "temperature": self.temperature,
            "stop_token_ids": sorted(self._end_ids),
            "top_k": self.token_filter.top_k,
            "top_p": self.token_filter.top_p,
            "min_p": self.token_filter.min_p,
        }
        # A copy: a voice appends to its list while the request waits in another loop.
        work = self._sample(list(token_ids), PLAIN_SAMPLING | own)
        return await in_process_loop(work)

    def close(self) -> None:
        """End the engine."""
        if not self._is_closed:
            self._is_closed = True
            run_sync(self.engine.close())
        self._scratch.cleanup()

    def take_weights(self) -> None:
        """Give the engine the weights of `model`.

        It is brought up the first time, and again if it is gone.
        """
        is_first = self.num_starts == 0
        by_file = self.weights == "file"
        # Even by transfer an engine starts from a folder, which tells it the shapes.
        if is_first or by_file:
            export_weights(self.model, self.tokenizer, self.folder, untie=by_file)
        if not is_first:
            with contextlib.suppress(EngineFault):
                if by_file:
                    run_sync(self.engine.reload(self.folder))
                else:
                    self._transfer()
                return
        run_sync(self._start(self.num_starts))

    async def _start(self, num_starts_before: int) -> None:
        """Bring the engine up with the weights as they are, unless somebody just did.

        All turns that were under way when the engine died come here. The first brings
        it up; the others find another `num_starts` than they had before.
        """
        async with self._one_at_a_time:
            if self.num_starts != num_starts_before:
                return
            await self.engine.start(self.folder)
            if self.weights != "file":
                client = self.engine.weight_client(process_loop())
                num_workers = await self.engine.num_workers()
                # In threads: the client blocks until this loop has answered it.
                self._transfer = await asyncio.to_thread(
                    open_transfer, self.weights, client, self.model, num_workers
                )
                await asyncio.to_thread(self._transfer)
            self.num_starts += 1

    async def _sample(
        self, token_ids: list[int], sampling: Mapping[str, Any]
    ) -> Sampled:
        for _ in range(NUM_TRIES):
            num_starts_before = self.num_starts
            try:
                sampled = await self.engine.generate(token_ids, sampling)
            except EngineFault as error:
                fault = error
                await self._start(num_starts_before)
            else:
                token_ids_of_turn, _, _ = sampled
                self.num_sampled += len(token_ids_of_turn)
                return sampled
        raise PolicyError(
            f"sampler: vLLM died {NUM_TRIES} times under one turn: {fault}"
        )


def vllm_sampler(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    temperature: float = 1.0,
    url: str = "",
    folder: str = "",
    weights: str = "file",
    is_served: bool = False,
    **options: Any,
) -> VLLMSampler:
    """Build the sampler of the specs `vllm` and, with `is_served`, `vllm-serve`.

    Args:
        model: See `VLLMSampler`, as for the next four.
        tokenizer: See there.
        temperature: See there.
        url: Address of a server, as in vllm:http://HOST:8000; "" for an engine of our
            own.
        folder: See `VLLMSampler`, as for the next.
        weights: See there.
        is_served: Whether the engine is a server, even if no address is named.
        options: Of the engine.

    Raises:
        ConfigError: An option cannot be used, or what it takes is not installed.
    """
    if url and world_size() > 1:
        raise ConfigError(
            f"sampler: {url} would be given the weights by each of"
            f" {world_size()} ranks. Let every rank start a server of its own,"
            " --sampler vllm-serve, or train on one rank."
        )
    by_http = is_served or url
    engine = ServedEngine(url, **options) if by_http else OwnEngine(**options)
    return VLLMSampler(
        model,
        tokenizer,
        engine,
        temperature=temperature,
        folder=folder,
        weights=weights,
    )


served_sampler = partial(vllm_sampler, is_served=True)
