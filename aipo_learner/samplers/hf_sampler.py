"""A sampler on plain transformers: batched, keeps each conversation's KV cache, draws by key.

Turns are decoded side by side, each in a row of its own. When four rows in ten have finished, decoding pauses
until their conversations have come back with the next turn or have left; only then do those who wait join.
What is decoded beside what therefore depends on the conversations alone and never on when an agent's reply
arrived, which is what makes a run repeatable bit for bit.
"""

import asyncio
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
        """Wait until this turn is sampled."""
        return await self.sampler.enqueue(self, tuple(stop), max_tokens)

    def close(self) -> None:
        """Leave the sampler."""
        self.sampler.leave(self)
        self.cache = []


@dataclass(eq=False)
class _Turn:
    """One row: what it may write, the draws it uses, what it has written."""

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
        return (
            self.token_ids[-1:]
            or self.conversation.token_ids[self.conversation.num_cached :]
        )


class HFSampler:
    """Samples turns with a transformers model at `temperature`.

    Args:
        max_rows: Conversations decoded side by side; the others wait, in key order, for free rows.
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
        self._active: list[_Turn] = []
        self._cache: RowCache | None = None

    def conversation(self, key: tuple[int, ...]) -> HFConversation:
        """Register a conversation; from now on the others wait for it."""
        conversation = HFConversation(self.chat, self.stops.end_ids, key, sampler=self)
        self._open.add(conversation)
        return conversation

    def close(self) -> None:
        """Do nothing: the model belongs to the learner."""

    def leave(self, conversation: HFConversation) -> None:
        """Forget a conversation; the others no longer wait for it."""
        self._open.discard(conversation)
        self._waiting.pop(conversation, None)
        for turn in self._active:
            if turn.conversation is conversation:
                turn.finish_reason = "cancelled"
        if not self._open:  # what an interruption left half done is nobody's any more
            self._active, self._cache = [], None
        self._decode_if_ready()

    async def enqueue(
        self, conversation: HFConversation, stop: tuple[str, ...], max_tokens: int
    ) -> Completion:
        """Queue a turn."""
        future = asyncio.get_running_loop().create_future()
        draws = np.random.default_rng(
            [*conversation.key, conversation.num_turns, 5]
        ).random(max_tokens)
        self._waiting[conversation] = _Turn(
            conversation, stop, max_tokens, future, draws
        )
        self._decode_if_ready()
        return await future

    def _is_ready(self) -> bool:
        """Return whether every open conversation is here: it waits for a row, or has one."""
        num_here = len(self._waiting) + sum(
            turn.conversation in self._open for turn in self._active
        )
        return num_here == len(self._open) > 0

    def _decode_if_ready(self) -> None:
        if self._is_ready():
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        """Decode one token; once rows are free, hand out what their turns wrote."""
        if not self._is_ready():  # an earlier call has decoded already
            return
        try:
            finished = self._decode()
        except Exception as error:
            for turn in [*self._active, *self._waiting.values()]:
                if not turn.future.done():
                    turn.future.set_exception(error)
            self._waiting, self._active, self._cache = {}, [], None
            return
        for turn in finished:
            if not turn.future.done():
                turn.future.set_result(self._finish(turn))
        self._decode_if_ready()

    def _finish(self, turn: _Turn) -> Completion:
        """Close a turn and return it as a completion."""
        conversation = turn.conversation
        is_cut = turn.finish_reason == "length"
        completion = conversation.take(turn.token_ids, turn.logprobs, is_cut=is_cut)
        if conversation.ended:
            conversation.cache, conversation.num_cached = [], 0
        return completion

    @torch.inference_mode()
    def _decode(self) -> list[_Turn]:
        """Give those who wait the free rows, then decode a token of each row or free those that have finished.

        Rows are freed, and their turns returned, when at most 0.6 of the rows go on. Between tokens others on the
        event loop get their turn: verdicts, and whatever else has a deadline. Nobody joins there.
        """
        ready = sorted(self._waiting.values(), key=lambda turn: turn.conversation.key)
        newcomers = ready[: self.max_rows - len(self._active)]
        if newcomers:
            self._read_prompts([turn.conversation for turn in newcomers])
            fresh = RowCache.gather(
                self.model, [turn.conversation for turn in newcomers]
            )
            self._draw(
                newcomers, self._forward(fresh, [turn.unfed() for turn in newcomers])
            )
            if self._cache is None:
                self._cache = fresh
            else:
                self._cache.join(fresh)
            self._active += newcomers
            self._waiting = {
                turn.conversation: turn for turn in ready[len(newcomers) :]
            }
        assert self._cache is not None
        going = [row for row, turn in enumerate(self._active) if not turn.finish_reason]
        if len(going) <= 0.6 * len(self._active):
            return self._free(self._cache, going)
        self._draw(
            self._active,
            self._forward(self._cache, [turn.unfed() for turn in self._active]),
        )
        return []

    def _free(self, cache: RowCache, going: list[int]) -> list[_Turn]:
        """Keep the rows that go on; return the turns of the others."""
        active = self._active
        finished = [row for row, turn in enumerate(active) if turn.finish_reason]
        # What ended is most often the final answer: its cache is not worth the memory, and can be made again.
        cache.release(
            [
                row
                for row in finished
                if active[row].token_ids[-1] not in self.stops.end_ids
            ]
        )
        cache.keep(going)
        self._active, self._cache = (
            [active[row] for row in going],
            cache if going else None,
        )
        return [active[row] for row in finished]

    def _read_prompts(self, conversations: Sequence[HFConversation]) -> None:
        """Feed new conversations all of their prompts but the last token; equal ones, as those of a group, once."""
        by_prompt: dict[tuple[int, ...], list[HFConversation]] = {}
        for conversation in conversations:
            if not conversation.num_cached:
                by_prompt.setdefault(tuple(conversation.token_ids[:-1]), []).append(
                    conversation
                )
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
        """Feed each row its next tokens, padded on the left; return the logits after the last: [rows, vocab]."""
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
        """Draw one token per row by inverting its cumulative distribution at the row's own draw."""
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
