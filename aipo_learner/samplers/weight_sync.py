"""New weights for the sampler before it samples, and the check that they are the learner's."""

import torch
from transformers import PreTrainedModel

from aipo_env import Author, Message, PolicyError, Span, all_of, run_sync
from aipo_learner.samplers.base import Sampler
from aipo_learner.samplers.vllm.sampler import VLLMSampler

_PROMPT = " ".join(map(str, range(60)))
"""Longer than a block of any prefix cache, so that a cache kept from older weights shows."""
_NUM_DRAWS = 4
_DRAW_TOKENS = 16


def sync_weights(
    sampler: Sampler, model: PreTrainedModel, max_gap: float
) -> dict[str, float]:
    """Give the sampler the weights of `model`; return `kl_sampler/max_gap`, see `sampler_gap`.

    The transformers sampler shares the model: nothing to do, nothing to report.

    Raises:
        PolicyError: The gap is more than `max_gap`, or is no number.
    """
    if not isinstance(sampler, VLLMSampler):
        return {}
    sampler.take_weights()
    gap = sampler_gap(sampler, model)
    if not gap <= max_gap:
        raise PolicyError(
            f"after the sampler took the learner's weights, it gives a token of a fixed prompt's continuation a "
            f"log-probability that is {gap:.4g} from the learner's; max_sampler_gap allows {max_gap:g}. It holds other "
            "weights (a server that cannot reload this model, or sees another folder), reports log-probabilities "
            "before temperature (start it with --logprobs-mode processed_logprobs), or computes too coarsely."
        )
    return {"kl_sampler/max_gap": gap}


@torch.no_grad()
def sampler_gap(sampler: VLLMSampler, model: PreTrainedModel) -> float:
    """Return max |Δ log-probability| (nats) between learner and sampler over tokens sampled after a fixed prompt.

    It is no divergence but the worst of 4 continuations of up to 16 tokens, always with the same seeds, at the
    sampling temperature: rounding when both have the same weights, and several nats when they have not.
    `kl_sampler`, in the telemetry of the update, is the mean k3 over what was trained on.
    """
    message = Message("user", (Span(_PROMPT, Author.PROMPT),))
    prompt = [
        token_id for piece, _ in sampler.chat.prompt([message]) for token_id in piece
    ]

    async def draw() -> list[tuple[list[int], list[float], bool]]:
        turns = [
            sampler.sample(prompt, seed=seed, max_tokens=_DRAW_TOKENS)
            for seed in range(_NUM_DRAWS)
        ]
        return await all_of(turns)

    gaps = []
    for token_ids, logprobs, _ in run_sync(draw()):
        whole = torch.tensor([prompt + token_ids], device=model.device)
        logits = model(input_ids=whole).logits[0, len(prompt) - 1 : -1].float()
        scores = torch.log_softmax(logits / sampler.temperature, dim=-1)
        own = scores.gather(-1, whole[0, len(prompt) :, None])[:, 0]
        gaps.append((own - torch.tensor(logprobs, device=own.device)).abs().max())
    return torch.stack(gaps).max().item()
