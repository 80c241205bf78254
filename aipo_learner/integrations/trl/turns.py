"""Turns of many episodes through the vLLM that TRL runs and gives the weights."""

import asyncio
from dataclasses import dataclass
from typing import Any

from aipo_env import Key, PolicyError

Written = tuple[list[int], list[float]]
"""Token ids, and their log-probabilities in nats."""


@dataclass(eq=False)
class _Turn:
    """A turn that is asked for."""

    token_ids: list[int]
    stop: tuple[str, ...]
    max_tokens: int
    written: "asyncio.Future[Written]"


class VLLMTurns:
    """Asks TRL's generation for turns, all that wait at once.

    TRL draws without a seed for each turn: equal runs are not equal token by token.

    Args:
        generation: TRL's `VLLMGeneration`. Its limit of tokens and its further
            arguments are set anew for each call.
    """

    def __init__(self, generation: Any) -> None:
        self._generation = generation
        self._waiting: list[_Turn] = []
        self._working: asyncio.Task[None] | None = None

    async def generate(
        self, token_ids: list[int], stop: tuple[str, ...], max_tokens: int, key: Key
    ) -> Written:
        """Write a turn, beside those of other episodes; see `Generate`."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(_Turn(token_ids, stop, max_tokens, written))
        if self._working is None:
            self._begin()
        return await written

    def _begin(self) -> None:
        self._working = asyncio.get_running_loop().create_task(self._work())
        # A task that is cancelled before it begins runs no code of its own.
        self._working.add_done_callback(self._end)

    def _end(self, work: "asyncio.Task[None]") -> None:
        """Tell whoever waits still what ended the work: nobody else would."""
        self._working = None
        error = None if work.cancelled() else work.exception()
        if error is None and not work.cancelled():
            if self._waiting:
                self._begin()
            return
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if error is None:
                turn.written.cancel()
            elif not turn.written.done():
                turn.written.set_exception(error)

    async def _work(self) -> None:
        """Have turns written until none waits."""
        while self._waiting:
            # One call has one set of stop strings; other turns wait for the next.
            stop = self._waiting[0].stop
            await self._write([turn for turn in self._waiting if turn.stop == stop])
            self._waiting = [turn for turn in self._waiting if not turn.written.done()]

    async def _write(self, turns: list[_Turn]) -> None:
        """Have some turns written, and tell those who wait for them."""
        # In a thread: agents answer and deadlines pass meanwhile.
        all_written = await asyncio.to_thread(self._call, turns)
        for turn, written in zip(turns, all_written, strict=True):
            # It is done if its waiter was cancelled.
            if not turn.written.done():
                turn.written.set_result(written)

    def _call(self, turns: list[_Turn]) -> list[Written]:
        """Return what vLLM writes.

        Raises:
            PolicyError: It wrote more or fewer turns than it was asked for.
        """
        generation = self._generation
        generation.max_completion_length = max(turn.max_tokens for turn in turns)
        generation.generation_kwargs = {
            "stop": list(turns[0].stop),
            "include_stop_str_in_output": True,
            # Stop strings are looked for in the text as it was written.
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
        }
        prompts = [turn.token_ids for turn in turns]
        made = generation.generate(prompts=prompts, images=None, num_generations=1)
        _, token_ids, logprobs, _ = made
        if not len(token_ids) == len(logprobs) == len(turns):
            raise PolicyError(
                f"vLLM returned {len(token_ids)} turns and the log-probabilities of"
                f" {len(logprobs)} for {len(turns)} prompts: there must be one for"
                " each. Is vllm the version that TRL asks for?"
            )
        # Of every token a list, in which the one that was drawn stands alone.
        drawn = [[first for first, *_ in of_turn] for of_turn in logprobs]
        return list(zip(token_ids, drawn, strict=True))
