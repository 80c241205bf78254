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
_LOWEST_BIAS = -1e30
"""A bias below it rules a token out: its probability is 0, and so is its share of the
entropy, which minus infinity would make no number. Sums of as many as there are tokens
are still finite.
"""
_CHUNK_TOKENS = 512
"""Hidden states that meet a part of the head at once."""


def token_logprobs_from_hidden(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Return each target's log-probability, and the entropy (nats) where it stands.

    The logits are `x = scale * (hidden @ weight.T + bias)`, and with a cap
    `cap * tanh(x / cap)` (soft-capping, arXiv 2408.00118). Logits are divided by a
    temperature where scale and cap are.

    Computed in float32 in chunks over tokens and vocabulary, forward and backward, so
    that neither [T, V] logits nor their gradient are ever held. The backward pass
    computes the logits once more.

    Args:
        hidden: [T, D], the model's last hidden states.
        weight: [V, D], the output embedding.
        targets: int64[T], one id in 0 to V - 1 per row of `hidden`.
        bias: [V], added to the product; none if None.
        scale: What the product and the bias are multiplied by.
        cap: What no logit exceeds, more than 0; none if None.

    Returns:
        float32[T] log-probabilities, differentiable in `hidden`, `weight` and `bias`,
        and float32[T] entropies, detached.

    Raises:
        ValueError: The cap is not more than 0, or there is not one bias per id.
    """
    if cap is not None and not cap > 0:
        raise ValueError(f"cap={cap} must be more than 0, or None for no cap.")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias has the shape {list(bias.shape)}, weight {list(weight.shape)}: it"
            " must have one number per id, [V]."
        )
    if scale != 1:
        # Of the states, of which there are fewer than logits.
        hidden = hidden.float() * scale
        bias = None if bias is None else bias.float() * scale
    if bias is not None:
        bias = bias.float().clamp(min=_LOWEST_BIAS)
    logprobs, entropy = _HeadLogprobs.apply(hidden, weight, bias, targets, cap)
    return logprobs, entropy


class _HeadLogprobs(torch.autograd.Function):
    """The product with the head, the softmax and the choice of targets, as one.

    Autograd would keep every chunk of logits for the backward pass. This keeps the
    normaliser of each token instead, float32[T], from which any logit's probability can
    be had again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        cap: float | None,
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
        for part, head, rows in _chunks(hidden, weight):
            logits = _logits(hidden[rows].float(), head, bias, part, cap)
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
            is_here, column = _columns(targets[rows], part)
            target_logits = logits.gather(-1, column)[:, 0]
            picked[rows] = torch.where(is_here, target_logits, picked[rows])
        normaliser = highest + mass.log()
        # H = -sum p (logit - normaliser) = normaliser - sum p logit.
        entropy = normaliser - weighted / mass
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser)
        ctx.cap = cap
        ctx.mark_non_differentiable(entropy)
        return picked - normaliser, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, _: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        # Summed over chunks in float32, whatever the weights are: a bfloat16 sum would
        # lose the small addends. What is frozen, a head under adapters, needs none.
        grad_hidden, grad_weight, grad_bias = (
            torch.zeros_like(value, dtype=torch.float32) if is_needed else None
            for value, is_needed in zip(
                (hidden, weight, bias), ctx.needs_input_grad, strict=False
            )
        )
        for part, head, rows in _chunks(hidden, weight):
            states = hidden[rows].float()
            # d log p(target) / d logit = [logit is the target's] - p(logit). In place,
            # so that one chunk of logits is held, and of capped ones two.
            slope = _logits(states, head, bias, part, ctx.cap)
            # d (c tanh(x / c)) / d x = 1 - tanh(x / c)^2.
            steepness = None
            if ctx.cap is not None:
                steepness = slope.div(ctx.cap).square_().neg_().add_(1.0)
            slope.sub_(normaliser[rows, None]).exp_()
            slope.mul_(-grad[rows, None])
            is_here, column = _columns(targets[rows], part)
            at_target = torch.where(is_here, grad[rows], 0.0)
            slope.scatter_add_(-1, column, at_target[:, None])
            if steepness is not None:
                slope.mul_(steepness)
            if grad_hidden is not None:
                grad_hidden[rows] += slope @ head
            if grad_weight is not None:
                grad_weight[part].addmm_(slope.T, states)
            if grad_bias is not None:
                grad_bias[part] += slope.sum(0)
        # Autograd wants gradients of the inputs' types; targets and cap have none.
        return (
            _as_type(grad_hidden, hidden),
            _as_type(grad_weight, weight),
            _as_type(grad_bias, bias),
            None,
            None,
        )


def _logits(
    states: Tensor, head: Tensor, bias: Tensor | None, part: slice, cap: float | None
) -> Tensor:
    """Return logits of a part of the vocabulary, made in place: float32[rows, part]."""
    logits = states @ head.T
    if bias is not None:
        logits.add_(bias[part].float())
    if cap is not None:
        logits.div_(cap).tanh_().mul_(cap)
    return logits


def _as_type(grad: Tensor | None, value: Tensor) -> Tensor | None:
    return None if grad is None else grad.to(value.dtype)


def _chunks(hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor, slice]]:
    """Yield a part of the vocabulary, its head (float32), and rows of `hidden`.

    The vocabulary is the outer loop, so that each part of the head is converted to
    float32 only once.
    """
    num_rows = max(1, min(_CHUNK_TOKENS, len(hidden)))
    num_logits = _CHUNK.get(hidden.device.type, _CHUNK_ELSEWHERE)
    width = max(1, num_logits // num_rows)
    for first in range(0, len(weight), width):
        last = min(first + width, len(weight))
        head = weight[first:last].float()
        for start in range(0, len(hidden), num_rows):
            yield slice(first, last), head, slice(start, start + num_rows)


def _columns(targets: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """Return whether each target is in a part of the vocabulary, and its column there.

    Targets of other parts get a column all the same, the nearest, because `gather` and
    `scatter_add_` refuse one that is out of range: bool[T], int64[T, 1].
    """
    column = targets - part.start
    is_here = (targets >= part.start) & (targets < part.stop)
    return is_here, column.clamp(0, part.stop - part.start - 1)[:, None]
