"""A sampler on plain transformers: batched, keeps each KV cache, draws by key.

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
from aipo_learner.samplers.base import ChatVoice, cannot_sample, end_ids
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.hf.filtering import filtered
from aipo_learner.samplers.hf.row_cache import RowCache
from aipo_learner.samplers.stops import StopFinder
from aipo_learner.settings.token_filter import EVERY_TOKEN

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
        self.cache = []
        self.num_cached = 0


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
        """Return the tokens that the model has not seen yet.

        There are none of a row that is over: it is fed nothing but padding.
        """
        if self.finish_reason:
            return []
        if self.token_ids:
            # The last is drawn and not fed; all before it were.
            return self.token_ids[-1:]
        return self.voice.token_ids[self.voice.num_cached :]


@dataclass(eq=False)
class _Rows:
    """What is decoded side by side: turns, and the cache with a row for each."""

    active: list[_Turn] = field(default_factory=list)
    cache: RowCache | None = None


def _prepare_thread(num_threads: int, device: torch.device) -> None:
    """Give a thread the settings that torch keeps for each thread by itself.

    They are the device, and the number of threads to compute with: sums depend on it.
    """
    torch.set_num_threads(num_threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)


class HFSampler:
    """Samples turns with a transformers model at `temperature`.

    A voice that is open and has no turn here is somewhere else: it waits for an agent
    or a verifier. Decoding begins when there is no such voice. `leave` and `enqueue`
    are called by voices, in the event loop.

    Args:
        model: The policy, which is also the learner's.
        tokenizer: Its tokenizer, with a chat template.
        temperature: What logits are divided by, for draws and log-probabilities.
        max_rows: Turns decoded side by side; the others wait, in key order, for free
            rows.
        thread: Where the model works; a thread of the sampler's own unless another is
            given.

    Raises:
        ConfigError: `max_rows` is less than 1.
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
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.token_filter = EVERY_TOKEN
        self.max_rows = max_rows
        self.chat = ChatFormat(tokenizer)
        self.stops = StopFinder(tokenizer, end_ids(model, self.chat))
        self._model_thread = thread or ThreadPoolExecutor(
            1,
            thread_name_prefix="aipo-model",
            initializer=_prepare_thread,
            initargs=(torch.get_num_threads(), model.device),
        )
        # A turn is in one place: in _waiting, or with a row in _rows.active.
        self._open: set[HFVoice] = set()
        self._waiting: dict[HFVoice, _Turn] = {}
        self._rows = _Rows()
        # Set from the moment that decoding is planned until its results are taken.
        self._decoding: asyncio.Task[None] | None = None
        self.num_sampled = 0
        """Tokens that were drawn so far."""

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
        """Return another sampler of the same model, whose voices wait for none of ours.

        Nor do ours wait for its. The model works for one at a time, in one thread.
        """
        other = HFSampler(
            self.model,
            self.tokenizer,
            temperature=self.temperature,
            max_rows=self.max_rows,
            thread=self._model_thread,
        )
        other.token_filter = self.token_filter
        return other

    def voice(self, key: Key) -> HFVoice:
        """Return the voice of an episode; from now on the others wait for it."""
        end_tokens = self.stops.end_ids
        voice = HFVoice(self.chat, end_tokens, key, sampler=self)
        self._open.add(voice)
        return voice

    def close(self) -> None:
        """End the thread. The model belongs to the learner."""
        self._model_thread.shutdown(wait=True)

    def leave(self, voice: HFVoice) -> None:
        """Forget a voice; the others no longer wait for it."""
        self._open.discard(voice)
        self._waiting.pop(voice, None)
        turns = [turn for turn in self._rows.active if turn.voice is voice]
        for turn in turns:
            turn.is_abandoned = True
        if not turns:
            # With a row, the model's thread may be reading the voice just now; then
            # `_decode` forgets it when the thread is back.
            voice.forget()
        if not self._open:
            # What an interruption left half done is nobody's any more.
            self._rows = _Rows()
        # The others may have waited for this voice alone.
        self._decode_if_ready()

    async def enqueue(
        self, voice: HFVoice, stop: tuple[str, ...], max_tokens: int
    ) -> Completion:
        """Queue a turn and wait for it.

        Args:
            voice: Whose turn it is.
            stop: Strings at which the turn ends, part of what it writes.
            max_tokens: After how many it is cut.
        """
        future = asyncio.get_running_loop().create_future()
        # All draws of the turn at once: the n-th token takes the n-th, whatever else is
        # decoded beside it.
        rng = keyed_rng([*voice.key, voice.num_turns], Salt.TURN_TOKENS)
        draws = rng.random(max_tokens)
        turn = _Turn(voice, stop, max_tokens, future, draws)
        self._waiting[voice] = turn
        self._decode_if_ready()
        return await future

    def _is_ready(self) -> bool:
        """Return whether every open voice is here: it waits for a row, or has one."""
        active = self._rows.active
        # Rows of voices that have left are still there until the next pause.
        num_with_row = sum(turn.voice in self._open for turn in active)
        num_open = len(self._open)
        return num_open > 0 and len(self._waiting) + num_with_row == num_open

    def _decode_if_ready(self) -> None:
        """Have the model work unless it does, or somebody is still to come."""
        if self._decoding is None and self._is_ready():
            # The task begins when whoever runs now lets go, and may have opened voices
            # by then: `_decode` looks again.
            self._decoding = asyncio.get_running_loop().create_task(self._decode())

    async def _decode(self) -> None:
        """Decode up to the next pause and hand out what the turns that ended wrote."""
        # Since this was begun a voice may have been opened.
        if not self._is_ready():
            self._decoding = None
            return
        # `leave` may put other rows in the place of these meanwhile.
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
                # A future is done here if its waiter was cancelled.
                turn.future.set_result(self._finish(turn))
        self._decode_if_ready()

    def _admit(self, rows: _Rows) -> list[_Turn]:
        """Give the free rows to those who wait, by their keys; return their turns."""
        waiting = sorted(self._waiting.values(), key=lambda turn: turn.voice.key)
        num_free = self.max_rows - len(rows.active)
        newcomers = waiting[:num_free]
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
        """Take the newcomers in and decode until few enough rows go on.

        Returns the turns of the others, whose rows are free again.
        """
        if newcomers:
            self._take_in(rows, newcomers)
        while True:
            going = [row for row, turn in enumerate(rows.active) if turn.goes_on]
            if len(going) <= GO_ON_SHARE * len(rows.active):
                return self._free(rows, going)
            assert rows.cache is not None
            # Rows that are over stay until the pause, and are fed padding: to take each
            # out by itself would copy the whole cache every time.
            fed = [turn.unfed() for turn in rows.active]
            logits = self._forward(rows.cache, fed)
            self._draw(rows.active, logits)

    def _take_in(self, rows: _Rows, newcomers: list[_Turn]) -> None:
        """Read what the newcomers' caches lack, and draw the first token of each."""
        voices = [turn.voice for turn in newcomers]
        self._read_prompts(voices)
        fed = [turn.unfed() for turn in newcomers]
        fresh = RowCache.gather(self.model, voices, [len(ids) for ids in fed])
        # By themselves: beside a long prompt every row that goes on would be padded.
        logits = self._forward(fresh, fed)
        self._draw(newcomers, logits)
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
        worth_keeping = [row for row in over if not self._is_at_end(active[row])]
        rows.cache.release(worth_keeping)
        rows.cache.keep(going)
        rows.active = [active[row] for row in going]
        if not going:
            rows.cache = None
        return [active[row] for row in over]

    def _is_at_end(self, turn: _Turn) -> bool:
        """Return whether the last token written is one that ends a turn."""
        return turn.token_ids[-1] in self.stops.end_ids

    def _read_prompts(self, voices: Sequence[HFVoice]) -> None:
        """Feed prompts that several new voices share, all but the last token, once.

        The episodes of a group have one prompt. The last token is left to each voice,
        because the logits after it are what its first token is drawn from.
        """
        by_prompt: dict[tuple[int, ...], list[HFVoice]] = {}
        for voice in voices:
            if not voice.num_cached:
                prompt = tuple(voice.token_ids[:-1])
                by_prompt.setdefault(prompt, []).append(voice)
        groups = {
            prompt: group
            for prompt, group in by_prompt.items()
            if prompt and len(group) > 1
        }
        if not groups:
            return
        first_voices = [group[0] for group in groups.values()]
        fed = [list(prompt) for prompt in groups]
        cache = RowCache.gather(self.model, first_voices, [len(ids) for ids in fed])
        self._forward(cache, fed)
        cache.release(range(len(groups)))
        for first, *others in groups.values():
            for other in others:
                # The same tensors for all: `gather` copies them, and nobody writes.
                other.cache = first.cache
                other.num_cached = first.num_cached

    def _forward(self, cache: RowCache, fed: list[list[int]]) -> Tensor:
        """Feed each row its next tokens; return the logits after the last of them.

        Args:
            cache: Of the rows; it takes the tokens in.
            fed: Token ids, for each row; they are padded on the left.

        Returns:
            float32[rows, vocab].

        Raises:
            PolicyError: The model keeps nothing, or more, than keys and values.
        """
        width = max(map(len, fed))
        pad = self.tokenizer.pad_token_id or 0
        padded = [[pad] * (width - len(ids)) + ids for ids in fed]
        token_ids = torch.tensor(padded, device=self.model.device)
        mask, positions = cache.place([len(ids) for ids in fed])
        out = self.model(
            input_ids=token_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            # Padded on the left, all rows have their last token in the last column.
            logits_to_keep=1,
        )
        if not cache.is_used:
            # It takes any cache, and would forget the prompt with the first token.
            raise cannot_sample(self.model, "it keeps no keys and values in a cache")
        return out.logits[:, -1].float()

    def _draw(self, turns: list[_Turn], logits: Tensor) -> None:
        """Draw one token per row by inverting its cumulative distribution.

        Args:
            turns: Of the rows; each token is taken at the turn's own draw, in [0, 1).
            logits: float32[rows, vocab].
        """
        scores = torch.log_softmax(logits / self.temperature, dim=-1)
        drawn_from = scores
        if not self.token_filter.is_open:
            drawn_from = filtered(scores, self.token_filter)
        # In float64: over a large vocabulary a float32 sum would lose unlikely tokens.
        cumulative = drawn_from.exp().double().cumsum(-1)
        draws = torch.tensor(
            [_next_draw(turn) for turn in turns],
            dtype=torch.float64,
            device=logits.device,
        )
        # Probabilities add up to 1 only up to rounding: draws are scaled to their sum.
        target = draws[:, None] * cumulative[:, -1:]
        # right=True passes over tokens of probability 0. Rounding may put the target at
        # the very end, hence the clamp.
        vocabulary = scores.shape[-1]
        places = torch.searchsorted(cumulative, target, right=True)
        tokens = places.clamp(max=vocabulary - 1)
        if not self.token_filter.is_open:
            # Nor may rounding draw one that was cut off, behind the last that was not.
            is_cut = drawn_from.gather(-1, tokens) == -torch.inf
            tokens = torch.where(is_cut, scores.argmax(-1, keepdim=True), tokens)
        token_logprobs = scores.gather(-1, tokens)
        token_ids: list[int] = tokens[:, 0].tolist()
        logprobs: list[float] = token_logprobs[:, 0].tolist()
        for turn, token_id, logprob in zip(turns, token_ids, logprobs, strict=True):
            if turn.finish_reason:
                continue
            turn.token_ids.append(token_id)
            turn.logprobs.append(logprob)
            self.num_sampled += 1
            if self.stops.is_end(turn.token_ids, turn.stop):
                turn.finish_reason = "stop"
            elif len(turn.token_ids) >= turn.max_tokens:
                turn.finish_reason = "length"


def _next_draw(turn: _Turn) -> float:
    """Return the draw of a turn's next token; of one that is over, any."""
    place = min(len(turn.token_ids), turn.max_tokens - 1)
    return float(turn.draws[place])
