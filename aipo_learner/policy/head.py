"""Log-probabilities straight from hidden states: the logits of a large vocabulary never
exist at once.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Logits held at once, by device: enough to keep it busy, little beside the model."""
_CHUNK_TOKENS = 512


def token_logprobs_from_hidden(
    hidden: Tensor, weight: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each target token, and the entropy (nats) of the
    distribution there.

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
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        # mass and weighted sum e^(logit - highest) over the vocabulary, and that times
        # the logit.
        mass, weighted, picked = torch.zeros(
            3, len(hidden), dtype=torch.float32, device=hidden.device
        )
        highest = torch.full_like(mass, -torch.inf)
        for first, head, rows in _chunks(hidden, weight):
            logits = hidden[rows].float() @ head.T
            raised = torch.maximum(highest[rows], logits.amax(-1))
            shrink = (highest[rows] - raised).exp()
            powers = (logits - raised[:, None]).exp_()
            mass[rows] = mass[rows] * shrink + powers.sum(-1)
            weighted[rows] = weighted[rows] * shrink + powers.mul_(logits).sum(-1)
            highest[rows] = raised
            here, column = _columns(targets[rows], first, len(head))
            picked[rows] = torch.where(
                here, logits.gather(-1, column)[:, 0], picked[rows]
            )
        normaliser = highest + mass.log()
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
        grad_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for first, head, rows in _chunks(hidden, weight):
            states = hidden[rows].float()
            slope = (
                (states @ head.T)
                .sub_(normaliser[rows, None])
                .exp_()
                .mul_(-grad[rows, None])
            )
            here, column = _columns(targets[rows], first, len(head))
            slope.scatter_add_(-1, column, torch.where(here, grad[rows], 0.0)[:, None])
            grad_hidden[rows] += slope @ head
            grad_weight[first : first + len(head)].addmm_(slope.T, states)
        return grad_hidden.to(hidden.dtype), grad_weight.to(weight.dtype), None


def _chunks(hidden: Tensor, weight: Tensor) -> Any:
    """Yield (first vocabulary id, that part of the head in float32, rows of hidden
    states).
    """
    tokens = max(1, min(_CHUNK_TOKENS, len(hidden)))
    width = max(1, _CHUNK.get(hidden.device.type, 1 << 20) // tokens)
    for first in range(0, len(weight), width):
        head = weight[first : first + width].float()
        for start in range(0, len(hidden), tokens):
            yield first, head, slice(start, start + tokens)


def _columns(targets: Tensor, first: int, width: int) -> tuple[Tensor, Tensor]:
    """Return whether each target is in a part of the vocabulary, and its column there,
    clamped: [T], [T, 1].
    """
    column = targets - first
    return (column >= 0) & (column < width), column.clamp(0, width - 1)[:, None]
