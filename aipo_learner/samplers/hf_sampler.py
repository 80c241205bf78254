"""A sampler on plain transformers: batched, keeps each conversation's KV cache, draws by key.

Turns are sampled in *waves*: a wave starts when every open conversation waits for a completion. What is in
a wave therefore depends on the conversations alone and never on when an agent's reply arrived, which is what
makes a run repeatable bit for bit.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import Completion, ConfigError
from aipo_learner.samplers.base import ChatFormat, TokenConversation, end_ids
from aipo_learner.samplers.row_cache import RowCache, attention_masks
from aipo_learner.samplers.stops import StopFinder


@dataclass(eq=False, kw_only=True)
class HFConversation(TokenConversation):
    """A conversation of `HFSampler`: of its tokens, `num_cached` are in `cache`."""

    sampler: "HFSampler"
    cache: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    num_cached: int = 0

    async def complete(self, stop: Sequence[str], max_tokens: int) -> Completion:
        """Wait for the wave that samples this turn."""
        return await self.sampler.enqueue(self, tuple(stop), max_tokens)

    def close(self) -> None:
        """Leave the sampler."""
        self.sampler.leave(self)
        self.cache.clear()


@dataclass(eq=False)
class _Turn:
    """One row of a wave: what it may write, the draws it uses, what it has written."""

    conversation: HFConversation
    stop: tuple[str, ...]
    max_tokens: int
    future: "asyncio.Future[Completion]"
    draws: NDArray[np.float64]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = ""

    def unfed(self) -> list[int]:
        """Return the tokens that the model has not seen yet; a finished row is fed nothing but padding."""
        if self.finish_reason:
            return []
        return self.token_ids[-1:] or self.conversation.token_ids[self.conversation.num_cached :]


class HFSampler:
    """Samples turns with a transformers model at `temperature`.

    Args:
        max_rows: Conversations decoded side by side; of a larger wave the rest wait, in key order, for free rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        temperature: float = 1.0,
        max_rows: int = 256,
    ) -> None:
        if max_rows < 1:
            raise ConfigError(f"sampler: max_rows={max_rows} must be at least 1.")
        self.model, self.tokenizer = model, tokenizer
        self.temperature, self.max_rows = temperature, max_rows
        self.chat = ChatFormat(tokenizer)
        self.stops = StopFinder(tokenizer, end_ids(model, self.chat))
        self._open: set[HFConversation] = set()
        self._waiting: dict[HFConversation, _Turn] = {}

    def conversation(self, key: tuple[int, ...]) -> HFConversation:
        """Register a conversation; from now on waves wait for it."""
        conversation = HFConversation(self.chat, self.stops.end_ids, key, sampler=self)
        self._open.add(conversation)
        return conversation

    def close(self) -> None:
        """Do nothing: the model belongs to the learner."""

    def leave(self, conversation: HFConversation) -> None:
        """Forget a conversation; the others no longer wait for it."""
        self._open.discard(conversation)
        self._waiting.pop(conversation, None)
        self._start_if_ready()

    async def enqueue(
        self, conversation: HFConversation, stop: tuple[str, ...], max_tokens: int
    ) -> Completion:
        """Queue a turn for the next wave."""
        future = asyncio.get_running_loop().create_future()
        draws = np.random.default_rng([*conversation.key, conversation.num_turns, 5]).random(max_tokens)
        self._waiting[conversation] = _Turn(conversation, stop, max_tokens, future, draws)
        self._start_if_ready()
        return await future

    def _start_if_ready(self) -> None:
        if self._waiting and len(self._waiting) == len(self._open):
            turns = sorted(self._waiting.values(), key=lambda turn: turn.conversation.key)
            self._waiting = {}
            asyncio.get_running_loop().call_soon(self._run, turns)

    def _run(self, turns: list[_Turn]) -> None:
        """Sample a wave and hand out its completions."""
        turns = [turn for turn in turns if not turn.future.done()]
        try:
            self._sample(turns)
        except Exception as error:
            for turn in turns:
                if not turn.future.done():
                    turn.future.set_exception(error)
            return
        for turn in turns:
            if not turn.future.done():
                turn.future.set_result(self._finish(turn))

    def _finish(self, turn: _Turn) -> Completion:
        """Close a turn and return it as a completion."""
        conversation = turn.conversation
        is_cut = turn.finish_reason == "length"
        completion = conversation.take(turn.token_ids, turn.logprobs, is_cut=is_cut)
        if conversation.ended:
            # Most often the final answer: its cache is not worth the memory, and can be made again.
            conversation.cache, conversation.num_cached = [], 0
        return completion

    @torch.inference_mode()
    def _sample(self, turns: list[_Turn]) -> None:
        """Decode a wave to its ends, `max_rows` turns at a time: those that wait take the rows of the finished."""
        waiting = deque(turns)
        active: list[_Turn] = []
        cache: RowCache | None = None
        while True:
            going = [row for row, turn in enumerate(active) if not turn.finish_reason]
            if len(going) <= 0.6 * len(active):
                if cache is not None:
                    # Beside newcomers, who goes on is gathered again; where there are none, it keeps its place.
                    staying = set() if waiting else set(going)
                    cache.release([row for row in range(len(active)) if row not in staying])
                active = [active[row] for row in going]
                if waiting:
                    num_free = min(len(waiting), self.max_rows - len(active))
                    active += [waiting.popleft() for _ in range(num_free)]
                    cache = RowCache.gather(self.model, [turn.conversation for turn in active])
                elif cache is not None:
                    cache.keep(going)
            if not active or cache is None:
                return
            self._draw(active, self._forward(cache, [turn.unfed() for turn in active]))

    def _forward(self, cache: RowCache, fed: list[list[int]]) -> Tensor:
        """Feed each row its next tokens, padded on the left; return the logits after the last: [rows, vocab]."""
        width = max(map(len, fed))
        pad = self.tokenizer.pad_token_id or 0
        token_ids = torch.tensor([[pad] * (width - len(ids)) + ids for ids in fed], device=self.model.device)
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
        """Draw one token per row by inverting its cumulative distribution at the row's own draw."""
        scores = torch.log_softmax(logits / self.temperature, dim=-1)
        cumulative = scores.exp().double().cumsum(-1)
        draws = [turn.draws[min(len(turn.token_ids), turn.max_tokens - 1)] for turn in turns]
        target = torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None] * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, target, right=True).clamp(max=scores.shape[-1] - 1)
        logprobs = scores.gather(-1, drawn)[:, 0].tolist()
        for turn, token_id, logprob in zip(turns, drawn[:, 0].tolist(), logprobs, strict=True):
            if turn.finish_reason:
                continue
            turn.token_ids.append(token_id)
            turn.logprobs.append(logprob)
            if self.stops.is_end(turn.token_ids, turn.stop):
                turn.finish_reason = "stop"
            elif len(turn.token_ids) >= turn.max_tokens:
                turn.finish_reason = "length"
