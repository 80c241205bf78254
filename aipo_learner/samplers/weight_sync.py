"""New weights for the sampler, and the check that it samples from the learner's.

A sampler is compared with the learner by what it says of its own tokens: in a few
conversations of two turns, of different lengths and side by side, so that rows join
others, leave and come back, as they do in a run.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from aipo_env import (
    Author,
    Completion,
    ConfigError,
    Message,
    Piece,
    PolicyError,
    Span,
    Voice,
    all_of,
    run_sync,
)
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.memory import out_of_memory_explained
from aipo_learner.samplers.base import Sampler, cannot_sample
from aipo_learner.settings.compute import ComputeConfig

_NUM_WORDS = 60
"""Words of the fixed prompt. It is longer than a block of any prefix cache: one kept
from older weights would show.
"""
_LARGEST_WORD = 100
"""Words are numbers below it."""
_FIRST_TURNS = (4, 16, 4, 16, 16)
"""Tokens of the conversations' first turns at most. Two end before the others, which
is when the transformers sampler pauses and takes further turns in.
"""
_NUM_LONG = 2
"""So many conversations have the longest prompt: one ends early, and both share it."""
_SHORTER = 20
"""Each of the others has so many words less than the one before it."""
_SECOND_TURN = 8
"""Tokens of every second turn at most."""
_REPLY = "1 2 3"
"""What stands between the turns."""
_TWO_TURNS = 64
"""Tokens that are kept free behind a prompt: both turns, the reply and its markup."""
_BEYOND = 128
"""So many tokens longer than a window a prompt is made."""
_LONGEST = 4096 + 2 * _BEYOND
"""Tokens of a prompt at most: what is compared must be computed, also on a CPU."""
_REACH = re.compile(r"window|chunk_size|local_attention|original_max_position")
"""Names of settings of a model that say how far something in it reaches, in tokens."""
_ROUNDING = 1e-3
"""Nats. With the same weights in float32, half of a conversation's log-probabilities
are closer than this; a few may be further off, where rounding turns a router's choice.
"""


def sync_weights(
    sampler: Sampler, model: PreTrainedModel, max_gap: float
) -> dict[str, float]:
    """Give the sampler the weights of `model`, and check that it samples from them.

    Where the sampler shares the model there is nothing to do and nothing to report.

    Args:
        sampler: What is given the weights.
        model: The learner's.
        max_gap: Nats, the largest `sampler_gap` that is taken for rounding.

    Returns:
        The metric `kl_sampler/max_gap`, which is the `sampler_gap`.

    Raises:
        PolicyError: The gap is more than `max_gap`, or is no number.
    """
    if sampler.shares_weights:
        return {}
    sampler.take_weights()
    gap = sampler_gap(sampler, model)
    # Not `gap > max_gap`, which a NaN would pass.
    if not gap <= max_gap:
        raise PolicyError(
            "after the sampler took the learner's weights, it gives a token of a fixed"
            f" prompt's continuation a log-probability that is {gap:.4g} from the"
            f" learner's; max_sampler_gap allows {max_gap:g}. It holds other weights (a"
            " server that cannot reload this model, or sees another folder), reports"
            " log-probabilities before temperature (start it with --logprobs-mode"
            " processed_logprobs), or computes too coarsely."
        )
    return {"kl_sampler/max_gap": gap}


def check_sampler(
    sampler: Sampler,
    model: PreTrainedModel,
    max_gap: float,
    max_tokens: int | None = None,
) -> dict[str, float]:
    """Check once that a sampler which shares the model computes what the learner does.

    It has a cache, and masks and positions of its own, which a model may not be made
    for. The prompt is longer than any window of the model's configuration, if episodes
    and positions are, and if that is at most `_LONGEST`.

    Args:
        sampler: One that has weights of its own is left to `sync_weights`.
        model: The learner's.
        max_gap: Nats, the most that a log-probability may be off.
        max_tokens: Of an episode; no limit if None.

    Returns:
        The metric `kl_sampler/max_gap`; nothing of a sampler with weights of its own.

    Raises:
        PolicyError: The sampler cannot run the model, or computes something else.
        ConfigError: There is not enough memory.
    """
    if not sampler.shares_weights:
        return {}
    num_tokens = probe_tokens(model.config, max_tokens)
    advise = partial(sampler.memory_advice, len(_FIRST_TURNS))
    try:
        with out_of_memory_explained(advise):
            gaps = _gaps(sampler, model, num_tokens)
    except (PolicyError, ConfigError):
        raise
    # Models that keep no such cache fail in as many ways as there are.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = f"it fails on a prompt ({type(error).__name__}: {lines[0]})"
        raise cannot_sample(model, reason) from error
    largest = torch.cat(gaps).max().item()
    # Of the conversation that is off the most: only long ones leave a window.
    typical = max(gap.median().item() for gap in gaps)
    is_rounding = model.dtype != torch.float32 or typical <= _ROUNDING
    if not largest <= max_gap or not is_rounding:
        raise cannot_sample(
            model,
            f"after a prompt of {num_tokens} tokens its log-probabilities are"
            f" {largest:.4g} nats from the learner's at most, and {typical:.4g} in the"
            f" median of a conversation; max_sampler_gap allows {max_gap:g}, rounding"
            f" {_ROUNDING:g} in the median",
        )
    return {"kl_sampler/max_gap": largest}


def sampler_gap(sampler: Sampler, model: PreTrainedModel) -> float:
    """Return max |Δ log-probability| (nats) between learner and sampler.

    It is taken over tokens that are sampled after a fixed prompt. It is no divergence
    but the worst of 5 conversations of two turns, always with the same keys, at the
    sampling temperature: rounding when both have the same weights, and several nats
    when they have not. `kl_sampler`, in the telemetry of the update, is the mean k3
    over what was trained on.
    """
    return torch.cat(_gaps(sampler, model, num_tokens=None)).max().item()


def probe_tokens(config: PreTrainedConfig, max_tokens: int | None) -> int:
    """Return how long a prompt must be to be longer than what a model looks back.

    Args:
        config: Of the model; one of several parts has a configuration of each.
        max_tokens: Of an episode; no limit if None.
    """
    text_config = config.get_text_config(decoder=True)
    limits = [_LONGEST]
    num_positions = getattr(text_config, "max_position_embeddings", None)
    for limit in (num_positions, max_tokens):
        if limit:
            limits.append(limit - _TWO_TURNS)
    wanted = max(_reaches(config.to_dict()), default=0) + _BEYOND
    return max(1, min(wanted, *limits))


def _reaches(settings: Mapping[str, Any]) -> Iterator[int]:
    """Yield the numbers in a configuration that say how far something reaches."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _reaches(value)
        # By type: True is an integer too.
        elif type(value) is int and _REACH.search(name):
            # What lies beyond the longest prompt is not reached, whatever it is.
            yield min(value, _LONGEST)


@torch.no_grad()
def _gaps(
    sampler: Sampler, model: PreTrainedModel, num_tokens: int | None
) -> list[Tensor]:
    """Return |Δ log-probability| (nats) of the tokens sampled in each conversation.

    Args:
        sampler: Continues the prompts.
        model: The learner's.
        num_tokens: Of the longest prompt, at least; that of `_NUM_WORDS` words if None.
    """
    # What is compared is what both compute, not how coarsely the update does.
    compute = ComputeConfig(layout="padded", precision="float32")
    with _in_full_float32():
        conversations = run_sync(_conversations(sampler, num_tokens))
        forward = LearnerForward(model, compute, temperature=sampler.temperature)
        return [_gaps_of(forward, parts) for parts in conversations]


@contextmanager
def _in_full_float32() -> Iterator[None]:
    """Compute float32 products in float32, and not in TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


_Parts = list[list[Piece] | Completion]
"""Of a conversation: what was shown, and what was written, in turn."""


def _gaps_of(forward: LearnerForward, parts: _Parts) -> Tensor:
    """Return |Δ log-probability| of what was written there: float32[tokens]."""
    token_ids: list[int] = []
    reported: list[float] = []
    is_written: list[bool] = []
    for part in parts:
        if isinstance(part, Completion):
            token_ids += part.token_ids
            reported += part.logprobs
            is_written += [True] * len(part.token_ids)
        else:
            shown = [token_id for ids, _ in part for token_id in ids]
            token_ids += shown
            is_written += [False] * len(shown)
    device = forward.model.device
    row = torch.tensor([token_ids], device=device)
    written = torch.tensor([is_written], device=device)
    # One row at a time, as short as it is: what is compared with has no padding.
    own, _ = forward(row, torch.ones_like(row), written)
    return (own[written] - torch.tensor(reported, device=device)).abs()


async def _conversations(sampler: Sampler, num_tokens: int | None) -> list[_Parts]:
    """Return the parts of the conversations, which are held side by side."""
    longest = _NUM_WORDS if num_tokens is None else _num_words(sampler, num_tokens)
    lengths = [longest] * _NUM_LONG
    while len(lengths) < len(_FIRST_TURNS):
        fewer = min(lengths[-1], _NUM_WORDS) - _SHORTER
        lengths.append(max(fewer, 1))
    # All voices before the first turn, or the first would be decoded alone.
    voices = [sampler.voice((draw,)) for draw in range(len(_FIRST_TURNS))]
    try:
        return await all_of(
            _conversation(voice, num_words, first_turn)
            for voice, num_words, first_turn in zip(
                voices, lengths, _FIRST_TURNS, strict=True
            )
        )
    finally:
        for voice in voices:
            voice.close()


async def _conversation(voice: Voice, num_words: int, first_turn: int) -> _Parts:
    """Hold a conversation of two turns, and leave."""
    try:
        prompt = voice.open([_message(num_words)])
        first = await voice.complete((), first_turn)
        reply = voice.append(Message("user", (Span(_REPLY, Author.ENV),)))
        second = await voice.complete((), _SECOND_TURN)
        return [prompt, first, reply, second]
    finally:
        voice.close()


def _message(num_words: int) -> Message:
    """Return the first words of a text that never repeats itself for long."""
    numbers = np.random.default_rng(0).integers(_LARGEST_WORD, size=num_words)
    text = " ".join(map(str, numbers))
    return Message("user", (Span(text, Author.PROMPT),))


def _num_words(sampler: Sampler, num_tokens: int) -> int:
    """Return how many words make a prompt of at least so many tokens, about."""
    once = _num_prompt_tokens(sampler, _NUM_WORDS)
    twice = _num_prompt_tokens(sampler, 2 * _NUM_WORDS)
    # A chat template adds as much to the one as to the other.
    tokens_per_word = (twice - once) / _NUM_WORDS
    num_more = math.ceil((num_tokens - once) / tokens_per_word)
    return max(1, _NUM_WORDS + num_more)


def _num_prompt_tokens(sampler: Sampler, num_words: int) -> int:
    """Return how many tokens the prompt of so many words has."""
    voice = sampler.voice((0,))
    pieces = voice.open([_message(num_words)])
    voice.close()
    return sum(len(token_ids) for token_ids, _ in pieces)
