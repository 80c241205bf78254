"""What a model does to logits, packed rows and padding, seen by running it.

Names of classes tell none of it. A few tokens do, once, before training.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from aipo_env import PolicyError
from aipo_learner.policy.memory import is_out_of_memory

_SIZES = (1e-4, 1.0, 10.0, 100.0, 1e3, 1e6)
"""Sizes of logits that show a change: from where a cap does nothing to where nothing
else is left, for caps of 0.2 to 50,000 times the scale.
"""
NUM_PROBE_TOKENS = len(_SIZES)
"""Tokens in what `probe_logits` returns."""
_LOGIT_ROUNDING = 2e-6
"""By how much of its size float32 may round a changed logit: some units in the last
place.
"""
_PRODUCT_ROUNDING = 16
"""Units in the last place by which two ways to compute one product may differ."""

_PACKED_TOKENS = 32
"""Tokens of each row that is packed to see whether rows stay apart."""
_MOST_PACKED_TOKENS = 4096
"""The most positions of a model that packed rows are made to outgrow."""
_PADDED_ROWS = 2
"""Rows that are padded to see whether a model minds."""
_PADDED_TOKENS = 64
"""Tokens of each of them."""
_PADDING_TOKENS = 32
"""Padding behind each of them."""

_ROUNDING = 5e-3
"""By how much of their size rounding may move states and logits in float32.

It is far less, 1e-7 to 1e-5, but where it decides to which of many experts a token
goes. What is seen, or left out, by mistake moves them by more.
"""
_ROUNDING_OF_HALF = 0.1
"""The same for weights that are themselves held in 16 bits."""
_SLACK = 4.0
"""How many times as far from float32 as a row alone a packed row may be computed."""


class Probe(Protocol):
    """Runs a model on a few tokens."""

    def __call__(
        self, inputs: dict[str, Tensor], tokens: slice, *, is_exact: bool
    ) -> tuple[Tensor, Tensor]:
        """Return what the model gives its head, and last logits that it returns.

        float32[rows, tokens, D], and of the last of these tokens float32[rows, 1, V].

        Args:
            inputs: What the model is called with.
            tokens: Of which tokens of each row.
            is_exact: In full float32 with the model's own attention, rather than as the
                learner computes.
        """
        ...


@dataclass(frozen=True)
class LogitChange:
    """What a model makes of its head's logits x: `scale * x`, which it may then cap.

    Args:
        scale: What they are multiplied by.
        cap: c in c * tanh(scale * x / c); None where it does not cap.
    """

    scale: float
    cap: float | None

    def __call__(self, logits: Tensor) -> Tensor:
        """Return logits as the model would: a tensor of the same form."""
        scaled = logits * self.scale
        if self.cap is None:
            return scaled
        return self.cap * (scaled / self.cap).tanh()


def probe_logits(num_ids: int, device: torch.device) -> Tensor:
    """Return logits that show what a model does to them: float32[1, tokens, V].

    Every id has at every token a logit of its own, and none is near 0 for its token.
    """
    part = torch.linspace(0.5, 1.0, num_ids, device=device)
    is_odd = torch.arange(num_ids, device=device) % 2
    signs = 1 - 2 * is_odd
    sizes = torch.tensor(_SIZES, device=device)
    return (sizes[:, None] * part * signs)[None]


def logit_change(given: Tensor, returned: Tensor) -> LogitChange | None:
    """Return how a model turns one into the other; None if it does anything else.

    Args:
        given: float32[1, tokens, V], those of `probe_logits`.
        returned: What the model returned for them.
    """
    if returned.shape != given.shape or not returned.isfinite().all():
        return None
    # Where logits are smallest a cap does nothing, where they are largest it is what is
    # left. A median of roundings is far nearer than each of them.
    smallest_given = given[0, 0].double()
    smallest_returned = returned[0, 0].double()
    ratios = smallest_returned / smallest_given
    scale = ratios.median().item()
    largest_returned = returned[0, -1].abs()
    largest = largest_returned.max().item()
    for change in (LogitChange(scale, None), LogitChange(scale, largest)):
        explained = change(given)
        if torch.allclose(returned.float(), explained, rtol=_LOGIT_ROUNDING, atol=0.0):
            return change
    return None


def is_product(
    head: nn.Module, forward: Callable[[Tensor], Tensor], num_features: int
) -> bool:
    """Return whether a head gives its product with its weight, and its bias if any.

    Its weight and its bias must be all that it learns: an adapter that has learned
    nothing yet changes nothing yet.

    Args:
        head: The output embedding.
        forward: What it does when it is called.
        num_features: D, of the hidden states that it is given.
    """
    learned = {name for name, _ in head.named_parameters()}
    if "weight" not in learned or not learned <= {"weight", "bias"}:
        return False
    weight = head.get_parameter("weight")
    if not weight.is_floating_point() or weight.shape[1:] != (num_features,):
        return False
    # Any states will do that are in no simple relation to each other.
    numbers = torch.arange(2.0 * num_features, device=weight.device)
    states = numbers.sin().to(weight.dtype).view(1, 2, num_features)
    product = functional.linear(states, weight, getattr(head, "bias", None))
    given = forward(states)
    if given.shape != product.shape:
        return False
    unit = torch.finfo(weight.dtype).eps * product.abs().max()
    difference = (given - product).abs().max()
    return bool(difference <= _PRODUCT_ROUNDING * unit)


@torch.no_grad()
def packing_fault(probe: Probe, model: PreTrainedModel) -> str:
    """Return what is wrong with packed rows of a model, or "" if nothing is.

    A recurrent layer carries its state from a row to the next; some kinds of attention
    see all rows. Models that take no position ids count on through all rows, or stop at
    their last position.

    Args:
        probe: What runs it.
        model: The policy.
    """
    try:
        return _packing_fault(probe, model)
    # Models refuse in their own ways what they were not made for.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return f"cannot be computed ({_first_line(error)})"


def _packing_fault(probe: Probe, model: PreTrainedModel) -> str:
    num_ids = model.config.get_text_config().vocab_size
    num_positions = _num_positions(model)
    num_tokens = min(_PACKED_TOKENS, num_positions or _PACKED_TOKENS)
    before, row = _some_ids(2, num_tokens, num_ids, model.device)
    other = (before + 1) % num_ids
    last = slice(-num_tokens, None)

    # No tolerance: what comes before has no way to a row that it is kept apart from,
    # not even by rounding, since the two have the same form. But experts do: how many
    # tokens one is given decides how its products are rounded. The gradient tells.
    packed = probe(_packed(before, row), last, is_exact=False)
    behind_other = probe(_packed(other, row), last, is_exact=False)
    is_same = all(map(torch.equal, packed, behind_other))
    if not is_same and _reaches_back(probe, model, _packed(before, row), last):
        return "see each other"

    # Rows that see nothing of each other may still stand at wrong positions, in both
    # alike; and all may be too long for what the model made for its positions.
    num_before = 1
    if num_positions is not None and num_positions <= _MOST_PACKED_TOKENS:
        num_before = math.ceil(num_positions / num_tokens)
    crowd = _packed(*[before] * num_before, row)
    alone = {"input_ids": row[None]}
    exact = probe(alone, last, is_exact=True)
    crowded = probe(crowd, last, is_exact=True)
    is_right = _are_close(crowded, exact, _tolerance(model))
    # Other attention, in bfloat16, is as far from float32 as bfloat16 is anyway.
    rounded = probe(alone, last, is_exact=False)
    rounding = max(map(_distance, rounded, exact))
    tolerance = _tolerance(model) + _SLACK * rounding
    if not is_right or not _are_close(packed, exact, tolerance):
        return "get other values than each gets alone"
    return ""


@torch.enable_grad()
def _reaches_back(
    probe: Probe, model: PreTrainedModel, inputs: dict[str, Tensor], last: slice
) -> bool:
    """Return whether any token before the last ones has a way to their states.

    The gradient is 0, and not only nearly, where attention is masked.
    """
    embedded: list[Tensor] = []

    def cut_off(module: nn.Module, args: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = model.get_input_embeddings().register_forward_hook(cut_off)
    try:
        states, _ = probe(inputs, last, is_exact=False)
    finally:
        hook.remove()
    # Of sums, a norm would leave nothing: each state is taken for a number of its own.
    numbers = torch.arange(1.0, states.numel() + 1, device=states.device).sin()
    (gradient,) = torch.autograd.grad(
        (states * numbers.view_as(states)).sum(), embedded
    )
    return bool(gradient[:, : last.start].count_nonzero())


@torch.no_grad()
def needs_padding_mask(probe: Probe, model: PreTrainedModel) -> bool:
    """Return whether a model sees padding behind a row unless a mask hides it.

    Causal attention sees none. What chooses among all tokens of a row may.

    Args:
        probe: What runs it.
        model: The policy.

    Raises:
        PolicyError: Padding changes what it computes, with a mask and without.
    """
    num_ids = model.config.get_text_config().vocab_size
    num_positions = _num_positions(model) or 2 * _PADDED_TOKENS
    num_tokens = min(_PADDED_TOKENS, num_positions // 2)
    num_padding = min(_PADDING_TOKENS, num_tokens)
    # Tokens like any other stand for padding: that of a run may be any, too.
    padded = _some_ids(_PADDED_ROWS, num_tokens + num_padding, num_ids, model.device)
    real = slice(num_tokens)
    mask = torch.ones_like(padded)
    mask[:, num_tokens:] = 0
    alone = probe({"input_ids": padded[:, real]}, real, is_exact=True)
    if not all(wanted.isfinite().all() for wanted in alone):
        # Nothing can be told of a model that is broken; an update says so.
        return False
    for more in ({}, {"attention_mask": mask}):
        seen = probe({"input_ids": padded, **more}, real, is_exact=True)
        if _are_close(seen, alone, _tolerance(model)):
            return bool(more)
    raise PolicyError(
        f"a {model.config.model_type} computes other log-probabilities for a row when"
        " padding stands behind it, with a padding mask and without: it cannot be"
        " trained on rows of different lengths. Choose another model."
    )


def _packed(*rows: Tensor) -> dict[str, Tensor]:
    """Return rows as one, as the learner packs them: positions start anew with each."""
    positions = [torch.arange(len(row), device=row.device) for row in rows]
    joined = {"input_ids": rows, "position_ids": positions}
    return {name: torch.cat(list(parts))[None] for name, parts in joined.items()}


def _some_ids(
    num_rows: int, num_tokens: int, num_ids: int, device: torch.device
) -> Tensor:
    """Return ids, different from token to token: int64[rows, tokens]."""
    ids = torch.arange(num_rows * num_tokens, device=device) % num_ids
    return ids.view(num_rows, num_tokens)


def _num_positions(model: PreTrainedModel) -> int | None:
    """Return for how many positions a model is made; None if it does not say."""
    config = model.config.get_text_config()
    number: int | None = getattr(config, "max_position_embeddings", None)
    # Some write 0 or -1 for no limit.
    return number if number is not None and number > 0 else None


def _are_close(
    seen: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], tolerance: float
) -> bool:
    """Return whether states and logits are where they should be, as shares of both."""
    return all(distance <= tolerance for distance in map(_distance, seen, wanted))


def _distance(seen: Tensor, wanted: Tensor) -> float:
    """Return how far numbers are from wanted ones, as a share of their size."""
    # Logits may all be 0, as of a head that is.
    size = wanted.norm().clamp(min=torch.finfo(wanted.dtype).tiny)
    return ((seen - wanted).norm() / size).item()


def _tolerance(model: PreTrainedModel) -> float:
    """Return what share of its size rounding may move a state, as weights are held."""
    is_half = model.dtype in (torch.bfloat16, torch.float16)
    return _ROUNDING_OF_HALF if is_half else _ROUNDING


def _first_line(error: Exception) -> str:
    """Return an error's kind and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
