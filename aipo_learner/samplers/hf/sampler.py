"""A sampler on plain transformers: batched, keeps each episode's KV cache, draws by
key.

Turns are decoded side by side, each in a row of its own. When four rows in ten have
finished, decoding pauses until their voices have come back with the next turn or have
been closed; only then do those who wait join. What is decoded beside what therefore
depends on the episodes alone and never on when an agent's reply arrived, which is what
makes a run repeatable bit for bit.

The model works in a thread of its own, entered once from pause to pause: meanwhile
agents answer, verifiers judge and deadlines pass in the event loop.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import Completion, ConfigError, Key, Salt, keyed_rng
from aipo_learner.samplers.base import ChatVoice, end_ids
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.hf.row_cache import RowCache, attention_masks
from aipo_learner.samplers.hf.stops import StopFinder

GO_ON_SHARE = 0.6
"""Decoding pauses when at most this share of the rows goes on."""


@dataclass(eq=False, kw_only=True)
class HFVoice(ChatVoice):
    """A voice of `HFSampler`: of its tokens, `num_cached` are in `cache`."""

    sampler: "HFSampler"
    cache: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    num_cached: int = 0

    async def complete(self, stop: Sequence[str], max_tokens: int) -> Completion:
        """Wait until this turn is sampled."""
        return await self.sampler.enqueue(self, tuple(stop), max_tokens)

    def close(self) -> None:
        """Leave the sampler."""
        self.sampler.leave(self)

    def forget(self) -> None:
        """Drop the cache: it can be made again."""
        self.cache, self.num_cached = [], 0


@dataclass(eq=False)
class _Turn:
    """One row: what it may write, the draws it uses, what it has written.

    `is_abandoned` is set from the event loop while the model works; all else belongs to
    whoever has the row, the loop or the model's thread.
    """

    voice: HFVoice
    stop: tuple[str, ...]
    max_tokens: int
    future: "asyncio.Future[Completion]"
    draws: NDArray[np.float64]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = ""
    is_abandoned: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether more is to be written."""
        return not self.finish_reason and not self.is_abandoned

    def unfed(self) -> list[int]:
        """Return the tokens that the model has not seen yet; a row that is over is fed
        nothing but padding.
        """
        if self.finish_reason:
            return []
        return self.token_ids[-1:] or self.voice.token_ids[self.voice.num_cached :]


@dataclass(eq=False)
class _Rows:
    """What is decoded side by side: turns, and the cache with a row for each."""

    active: list[_Turn] = field(default_factory=list)
    cache: RowCache | None = None


def _prepare_thread(num_threads: int, device: torch.device) -> None:
    """Give a thread what torch keeps for each: the number of threads, on which sums
    depend, and the device.
    """
    torch.set_num_threads(num_threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)


class HFSampler:
    """Samples turns with a transformers model at `temperature`.

    Args:
        max_rows: Turns decoded side by side; the others wait, in key order, for free
            rows.
        thread: Where the model works; a thread of the sampler's own unless another is
            given.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        temperature: float = 1.0,
        max_rows: int = 256,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        if max_rows < 1:
            raise ConfigError(f"sampler: max_rows={max_rows} must be at least 1.")
        self.model, self.tokenizer = model, tokenizer
        self.temperature, self.max_rows = temperature, max_rows
        self.chat = ChatFormat(tokenizer)
        self.stops = StopFinder(tokenizer, end_ids(model, self.chat))
        self._model_thread = thread or ThreadPoolExecutor(
            1,
            thread_name_prefix="aipo-model",
            initializer=_prepare_thread,
            initargs=(torch.get_num_threads(), model.device),
        )
        self._open: set[HFVoice] = set()
        self._waiting: dict[HFVoice, _Turn] = {}
        self._rows = _Rows()
        self._decoding: asyncio.Task[None] | None = None

    @property
    def shares_weights(self) -> bool:
        """True: the learner's own model is sampled from."""
        return True

    @property
    def samples_during_update(self) -> bool:
        """False: an update changes the weights that are sampled from."""
        return False

    def take_weights(self) -> None:
        """Do nothing: the learner's weights are there."""

    def memory_advice(self, num_episodes: int) -> str:
        """Say how to sample `num_episodes` at once with less memory."""
        num_rows = min(self.max_rows, num_episodes)
        return (
            f"It happened while {num_rows} episodes were sampled side by side; the"
            " cache needs memory in proportion. Halve them: --sampler"
            f" transformers:max_rows={num_rows // 2 or 1}."
        )

    def beside(self) -> "HFSampler":
        """Return another sampler of the same model, in the same thread; neither's
        voices wait for the other's.
        """
        return HFSampler(
            self.model,
            self.tokenizer,
            temperature=self.temperature,
            max_rows=self.max_rows,
            thread=self._model_thread,
        )

    def voice(self, key: Key) -> HFVoice:
        """Return the voice of an episode; from now on the others wait for it."""
        voice = HFVoice(self.chat, self.stops.end_ids, key, sampler=self)
        self._open.add(voice)
        return voice

    def close(self) -> None:
        """End the thread. The model belongs to the learner."""
        self._model_thread.shutdown(wait=True)

    def leave(self, voice: HFVoice) -> None:
        """Forget a voice; the others no longer wait for it."""
        self._open.discard(voice)
        self._waiting.pop(voice, None)
        mine = [turn for turn in self._rows.active if turn.voice is voice]
        for turn in mine:
            turn.is_abandoned = True
        if not mine:
            # Otherwise the model's thread may be reading it.
            voice.forget()
        if not self._open:
            # What an interruption left half done is nobody's any more.
            self._rows = _Rows()
        self._decode_if_ready()

    async def enqueue(
        self, voice: HFVoice, stop: tuple[str, ...], max_tokens: int
    ) -> Completion:
        """Queue a turn and wait for it."""
        future = asyncio.get_running_loop().create_future()
        draws = keyed_rng([*voice.key, voice.num_turns], Salt.TURN_TOKENS)
        turn = _Turn(voice, stop, max_tokens, future, draws.random(max_tokens))
        self._waiting[voice] = turn
        self._decode_if_ready()
        return await future

    def _is_ready(self) -> bool:
        """Return whether every open voice is here: it waits for a row, or has one."""
        with_row = sum(turn.voice in self._open for turn in self._rows.active)
        return len(self._waiting) + with_row == len(self._open) > 0

    def _decode_if_ready(self) -> None:
        """Have the model work unless it does, or somebody is still to come."""
        if self._decoding is None and self._is_ready():
            self._decoding = asyncio.get_running_loop().create_task(self._decode())

    async def _decode(self) -> None:
        """Decode up to the next pause and hand out what the turns that ended wrote."""
        # Since this was begun a voice may have been opened.
        if not self._is_ready():
            self._decoding = None
            return
        rows = self._rows
        newcomers = self._admit(rows)
        loop = asyncio.get_running_loop()
        try:
            ended = await loop.run_in_executor(
                self._model_thread, self._work, rows, newcomers
            )
        except Exception as error:
            self._give_up(rows, error)
            ended = []
        finally:
            self._decoding = None
        for turn in ended:
            if turn.is_abandoned:
                turn.voice.forget()
            elif not turn.future.done():
                turn.future.set_result(self._finish(turn))
        self._decode_if_ready()

    def _admit(self, rows: _Rows) -> list[_Turn]:
        """Give the free rows to those who wait, in the order of their keys; return
        their turns.
        """
        waiting = sorted(self._waiting.values(), key=lambda turn: turn.voice.key)
        newcomers = waiting[: self.max_rows - len(rows.active)]
        for turn in newcomers:
            del self._waiting[turn.voice]
        rows.active = rows.active + newcomers
        return newcomers

    def _give_up(self, rows: _Rows, error: Exception) -> None:
        """Tell everybody that the model failed, and start afresh."""
        for turn in [*rows.active, *self._waiting.values()]:
            if not turn.future.done():
                turn.future.set_exception(error)
        self._waiting = {}
        self._rows = _Rows()

    def _finish(self, turn: _Turn) -> Completion:
        """Close a turn and return it as a completion."""
        voice = turn.voice
        is_cut = turn.finish_reason == "length"
        completion = voice.take(turn.token_ids, turn.logprobs, is_cut=is_cut)
        if voice.ended:
            voice.forget()
        return completion

    # What follows runs in the model's thread; the event loop looks at none of it
    # meanwhile.

    @torch.inference_mode()
    def _work(self, rows: _Rows, newcomers: list[_Turn]) -> list[_Turn]:
        """Take the newcomers in, decode until few enough rows go on; free and return
        the others.
        """
        if newcomers:
            self._take_in(rows, newcomers)
        while True:
            going = [row for row, turn in enumerate(rows.active) if turn.goes_on]
            if len(going) <= GO_ON_SHARE * len(rows.active):
                return self._free(rows, going)
            assert rows.cache is not None
            fed = [turn.unfed() for turn in rows.active]
            self._draw(rows.active, self._forward(rows.cache, fed))

    def _take_in(self, rows: _Rows, newcomers: list[_Turn]) -> None:
        """Read what the newcomers' models have not seen, and draw the first token of
        each.
        """
        voices = [turn.voice for turn in newcomers]
        self._read_prompts(voices)
        fresh = RowCache.gather(self.model, voices)
        fed = [turn.unfed() for turn in newcomers]
        self._draw(newcomers, self._forward(fresh, fed))
        if rows.cache is None:
            rows.cache = fresh
        else:
            rows.cache.join(fresh)

    def _free(self, rows: _Rows, going: list[int]) -> list[_Turn]:
        """Keep the rows that go on; return the turns of the others."""
        assert rows.cache is not None
        active = rows.active
        still = set(going)
        over = [row for row in range(len(active)) if row not in still]
        # What ended is most often the final answer: its cache is not worth the memory,
        # and can be made again.
        worth_keeping = [
            row for row in over if active[row].token_ids[-1] not in self.stops.end_ids
        ]
        rows.cache.release(worth_keeping)
        rows.cache.keep(going)
        rows.active = [active[row] for row in going]
        if not going:
            rows.cache = None
        return [active[row] for row in over]

    def _read_prompts(self, voices: Sequence[HFVoice]) -> None:
        """Feed new voices all of their prompts but the last token; equal ones, as those
        of a group, once.
        """
        by_prompt: dict[tuple[int, ...], list[HFVoice]] = {}
        for voice in voices:
            if not voice.num_cached:
                by_prompt.setdefault(tuple(voice.token_ids[:-1]), []).append(voice)
        shared = {
            prompt: alike
            for prompt, alike in by_prompt.items()
            if prompt and len(alike) > 1
        }
        if not shared:
            return
        cache = RowCache.gather(self.model, [alike[0] for alike in shared.values()])
        self._forward(cache, list(map(list, shared)))
        cache.release(range(len(shared)))
        for first, *others in shared.values():
            for other in others:
                other.cache, other.num_cached = first.cache, first.num_cached

    def _forward(self, cache: RowCache, fed: list[list[int]]) -> Tensor:
        """Feed each row its next tokens, padded on the left; return the logits after
        the last: [rows, vocab].
        """
        width = max(map(len, fed))
        pad = self.tokenizer.pad_token_id or 0
        token_ids = torch.tensor(
            [[pad] * (width - len(ids)) + ids for ids in fed], device=self.model.device
        )
        positions = cache.place([len(ids) for ids in fed], width)
        out = self.model(
            input_ids=token_ids,
            attention_mask=attention_masks(self.model.config, positions, cache.width),
            position_ids=positions.clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()

    def _draw(self, turns: list[_Turn], logits: Tensor) -> None:
        """Draw one token per row by inverting its cumulative distribution at the row's
        own draw.
        """
        scores = torch.log_softmax(logits / self.temperature, dim=-1)
        cumulative = scores.exp().double().cumsum(-1)
        draws = [
            turn.draws[min(len(turn.token_ids), turn.max_tokens - 1)] for turn in turns
        ]
        target = (
            torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None]
            * cumulative[:, -1:]
        )
        drawn = torch.searchsorted(cumulative, target, right=True).clamp(
            max=scores.shape[-1] - 1
        )
        logprobs = scores.gather(-1, drawn)[:, 0].tolist()
        for turn, token_id, logprob in zip(
            turns, drawn[:, 0].tolist(), logprobs, strict=True
        ):
            if turn.finish_reason:
                continue
            turn.token_ids.append(token_id)
            turn.logprobs.append(logprob)
            if self.stops.is_end(turn.token_ids, turn.stop):
                turn.finish_reason = "stop"
            elif len(turn.token_ids) >= turn.max_tokens:
                turn.finish_reason = "length"
