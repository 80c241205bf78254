"""Log-probabilities straight from hidden states, never holding all of the logits."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Logits held at once, by device: enough to keep it busy, little beside the model."""
_CHUNK_ELSEWHERE = 1 << 20
"""Logits held at once on a device that `_CHUNK` does not name."""
_CHUNK_TOKENS = 512
"""Hidden states that meet a part of the head at once."""


def token_logprobs_from_hidden(
    hidden: Tensor, weight: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return each target's log-probability, and the entropy (nats) where it stands.

    Computed in float32 in chunks over tokens and vocabulary, forward and backward, so
    that neither [T, V] logits nor their gradient are ever held. The backward pass
    computes the logits once more.

    Args:
        hidden: [T, D], the model's last hidden states. Divide by a temperature
            beforehand.
        weight: [V, D], the output embedding.
        targets: int64[T], one id in 0 to V - 1 per row of `hidden`.

    Returns:
        float32[T] log-probabilities, differentiable in `hidden` and `weight`, and
        float32[T] entropies, detached.
    """
    logprobs, entropy = _HeadLogprobs.apply(hidden, weight, targets)
    return logprobs, entropy


class _HeadLogprobs(torch.autograd.Function):
    """The product with the head, the softmax and the choice of targets, as one.

    Autograd would keep every chunk of logits for the backward pass. This keeps the
    normaliser of each token instead, float32[T], from which any logit's probability can
    be had again.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        # Per token, over the part of the vocabulary that was read so far:
        # highest   max of the logits
        # mass      sum of e^(logit - highest)
        # weighted  sum of e^(logit - highest) * logit
        # picked    the target's logit, once its part was read
        mass, weighted, picked = torch.zeros(
            3, len(hidden), dtype=torch.float32, device=hidden.device
        )
        highest = torch.full_like(mass, -torch.inf)
        for first, head, rows in _chunks(hidden, weight):
            logits = hidden[rows].float() @ head.T
            raised = torch.maximum(highest[rows], logits.amax(-1))
            # Sums so far are relative to the old maximum. In the first part that is
            # -inf, which makes the factor 0, and the sums are 0 as well.
            shrink = (highest[rows] - raised).exp()
            powers = (logits - raised[:, None]).exp_()
            mass_here = powers.sum(-1)
            # In place: a copy of the powers would double what a chunk takes.
            weighted_here = powers.mul_(logits).sum(-1)
            mass[rows] = mass[rows] * shrink + mass_here
            weighted[rows] = weighted[rows] * shrink + weighted_here
            highest[rows] = raised
            is_here, column = _columns(targets[rows], first, len(head))
            target_logits = logits.gather(-1, column)[:, 0]
            picked[rows] = torch.where(is_here, target_logits, picked[rows])
        normaliser = highest + mass.log()
        # H = -sum p (logit - normaliser) = normaliser - sum p logit.
        entropy = normaliser - weighted / mass
        ctx.save_for_backward(hidden, weight, targets, normaliser)
        ctx.mark_non_differentiable(entropy)
        return picked - normaliser, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, _: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        hidden, weight, targets, normaliser = ctx.saved_tensors
        # Summed over chunks in float32, whatever the weights are: a bfloat16 sum would
        # lose the small addends.
        grad_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for first, head, rows in _chunks(hidden, weight):
            states = hidden[rows].float()
            # d log p(target) / d logit = [logit is the target's] - p(logit). All in
            # place, so that one chunk of logits is held and no more.
            slope = states @ head.T
            slope.sub_(normaliser[rows, None]).exp_()
            slope.mul_(-grad[rows, None])
            is_here, column = _columns(targets[rows], first, len(head))
            at_target = torch.where(is_here, grad[rows], 0.0)
            slope.scatter_add_(-1, column, at_target[:, None])
            grad_hidden[rows] += slope @ head
            last = first + len(head)
            grad_weight[first:last].addmm_(slope.T, states)
        # Autograd wants gradients of the inputs' types; targets have none.
        return grad_hidden.to(hidden.dtype), grad_weight.to(weight.dtype), None


def _chunks(hidden: Tensor, weight: Tensor) -> Iterator[tuple[int, Tensor, slice]]:
    """Yield a part's first vocabulary id, its head (float32), and rows of `hidden`.

    The vocabulary is the outer loop, so that each part of the head is converted to
    float32 only once.
    """
    num_rows = max(1, min(_CHUNK_TOKENS, len(hidden)))
    num_logits = _CHUNK.get(hidden.device.type, _CHUNK_ELSEWHERE)
    width = max(1, num_logits // num_rows)
    for first in range(0, len(weight), width):
        head = weight[first : first + width].float()
        for start in range(0, len(hidden), num_rows):
            yield first, head, slice(start, start + num_rows)


def _columns(targets: Tensor, first: int, width: int) -> tuple[Tensor, Tensor]:
    """Return whether each target is in a part of the vocabulary, and its column there.

    Targets of other parts get a column all the same, the nearest, because `gather` and
    `scatter_add_` refuse one that is out of range: bool[T], int64[T, 1].
    """
    column = targets - first
    is_here = (column >= 0) & (column < width)
    return is_here, column.clamp(0, width - 1)[:, None]
