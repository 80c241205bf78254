"""New weights for the sampler, and the check that they are the learner's."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aipo_env import (
    Author,
    Completion,
    Message,
    Piece,
    PolicyError,
    Span,
    all_of,
    run_sync,
)
from aipo_learner.samplers.base import Sampler

_PROMPT = " ".join(map(str, range(60)))
"""Longer than a block of any prefix cache: one kept from older weights would show."""
_NUM_DRAWS = 4
"""Continuations of it that are compared, with the keys (0,) to (3,)."""
_DRAW_TOKENS = 16
"""Tokens of each at most."""


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


@torch.no_grad()
def sampler_gap(sampler: Sampler, model: PreTrainedModel) -> float:
    """Return max |Δ log-probability| (nats) between learner and sampler.

    It is taken over tokens that are sampled after a fixed prompt. It is no divergence
    but the worst of 4 continuations of up to 16 tokens, always with the same keys, at
    the sampling temperature: rounding when both have the same weights, and several nats
    when they have not. `kl_sampler`, in the telemetry of the update, is the mean k3
    over what was trained on.
    """
    gaps = []
    for pieces, completion in run_sync(_continuations(sampler)):
        prompt = [token_id for token_ids, _ in pieces for token_id in token_ids]
        written = list(completion.token_ids)
        own = _continuation_logprobs(model, prompt, written, sampler.temperature)
        theirs = torch.tensor(completion.logprobs, device=own.device)
        gaps.append((own - theirs).abs().max())
    return torch.stack(gaps).max().item()


def _continuation_logprobs(
    model: PreTrainedModel, prompt: list[int], written: list[int], temperature: float
) -> Tensor:
    """Return the model's log-probabilities of what was written: float32[tokens]."""
    num_prompt = len(prompt)
    token_ids = torch.tensor([prompt + written], device=model.device)
    all_logits = model(input_ids=token_ids).logits
    # The logits at a place are of the token after it.
    logits = all_logits[0, num_prompt - 1 : -1].float()
    scores = torch.log_softmax(logits / temperature, dim=-1)
    targets = token_ids[0, num_prompt:, None]
    return scores.gather(-1, targets)[:, 0]


async def _continuations(sampler: Sampler) -> list[tuple[list[Piece], Completion]]:
    """Return the pieces of the fixed prompt and a completion, several times."""
    draws = range(_NUM_DRAWS)
    return await all_of(_continuation(sampler, draw) for draw in draws)


async def _continuation(sampler: Sampler, draw: int) -> tuple[list[Piece], Completion]:
    message = Message("user", (Span(_PROMPT, Author.PROMPT),))
    voice = sampler.voice((draw,))
    try:
        pieces = voice.open([message])
        return pieces, await voice.complete((), _DRAW_TOKENS)
    finally:
        voice.close()
