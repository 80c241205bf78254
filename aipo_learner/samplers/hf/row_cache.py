"""A key-value cache in which every row has a length of its own.

Conversations own the rows: `gather` makes rows of the keys and values that they hold,
`release` gives these back, longer by what was decoded.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from aipo_env import PolicyError

_GROWTH = 64
"""Positions added whenever a row outgrows the tensors."""
_DUMP = 1
"""Positions behind the longest row that padding is written to."""
_PADDING = -1
"""The position of padding. As an index it is the last one, which is the dump."""
_MASKED_TYPES = {"full_attention", "sliding_attention"}
"""Types of layers for which a mask says all: other layers keep a state of their own."""


class Cached(Protocol):
    """What owns a row while it is not decoded.

    `cache` has keys and values per layer, each [tokens, heads, head size]; it is empty
    where `num_cached`, the number of tokens, is 0.
    """

    cache: list[tuple[Tensor, Tensor]]
    num_cached: int


class RowCache(Cache):
    """Keys and values per layer, each of shape [rows, positions, heads, head size].

    Row i holds `lengths[i]` tokens at positions 0 to lengths[i] - 1. Rows are fed
    different numbers of tokens at once, so that some are fed padding: it is written to
    the last position, the dump, which no query ever sees.

    Args:
        owners: The conversations of the rows.
        device: Where the model is.
    """

    def __init__(self, owners: Sequence[Cached], device: torch.device) -> None:
        # transformers' own layers would append to all rows alike: here are none.
        super().__init__(layers=[])
        self.owners = list(owners)
        lengths = [owner.num_cached for owner in owners]
        self.lengths = torch.tensor(lengths, device=device)
        self.width = 0
        # Per layer [keys, values]; lists, for a tensor that grows is another one.
        self._tensors: list[list[Tensor]] = []
        self._slots: Tensor | None = None

    @classmethod
    def gather(cls, model: PreTrainedModel, owners: Sequence[Cached]) -> "RowCache":
        """Stack what the owners hold, a row for each, in their order."""
        cache = cls(owners, model.device)
        num_layers = max(len(owner.cache) for owner in owners)
        num_positions = int(cache.lengths.max()) + _DUMP
        for layer in range(num_layers):
            pairs = [owner.cache[layer] if owner.cache else None for owner in owners]
            keys = [pair[0] if pair else None for pair in pairs]
            values = [pair[1] if pair else None for pair in pairs]
            stacked = [_stacked(keys, num_positions), _stacked(values, num_positions)]
            cache._tensors.append(stacked)
        return cache

    def place(self, num_fed: Sequence[int], width: int) -> Tensor:
        """Reserve positions for tokens about to be fed, padded on the left to `width`.

        Args:
            num_fed: How many tokens each row is fed, padding not counted.
            width: The largest of them.

        Returns:
            int64[rows, width], the tokens' positions; negative at padding.
        """
        device = self.lengths.device
        counts = torch.tensor(num_fed, device=device)
        columns = torch.arange(width, device=device)
        # Which of the row's fed tokens a column holds; below 0 it holds padding.
        nth = columns[None] - (width - counts)[:, None]
        positions = torch.where(nth >= 0, nth + self.lengths[:, None], _PADDING)
        self.lengths = self.lengths + counts
        self.width = int(self.lengths.max())
        self._grow()
        self._slots = positions
        return positions

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values at the reserved positions; return all of the rows.

        The model calls it, in every layer, with what it was just fed.

        Args:
            key_states: [rows, heads, fed, head size], as are `value_states`.
            value_states: Their head size may be another.
            layer_idx: The layer, from 0.
            args: Unused, as are `kwargs`: what transformers passes on besides.
            kwargs: See `args`.

        Returns:
            Keys and values, each [rows, heads, `width`, head size].
        """
        # Indexed by [rows, 1] and [rows, fed], a tensor gives one place for each.
        rows = torch.arange(len(key_states), device=key_states.device)[:, None]
        if layer_idx == len(self._tensors):
            # Nobody held anything: only the model says what shapes its layers have.
            self._tensors.append([self._empty(key_states), self._empty(value_states)])
        pair = self._tensors[layer_idx]
        for tensor, states in zip(pair, (key_states, value_states), strict=True):
            tensor[rows, self._slots] = states.transpose(1, 2)
        keys, values = (tensor[:, : self.width].transpose(1, 2) for tensor in pair)
        return keys, values

    def release(self, rows: Sequence[int]) -> None:
        """Give their owners what these rows hold."""
        lengths = self.lengths.tolist()
        for row in rows:
            owner = self.owners[row]
            length = lengths[row]
            owner.num_cached = length
            # Copies: a view would keep the tensors of all rows alive.
            owner.cache = [
                (keys[row, :length].clone(), values[row, :length].clone())
                for keys, values in self._tensors
            ]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self.owners = [self.owners[row] for row in rows]
        # The dtype is said because there may be no rows, and torch.tensor([]) is float.
        index = torch.tensor(rows, dtype=torch.long, device=self.lengths.device)
        self.lengths = self.lengths[index]
        for pair in self._tensors:
            pair[:] = [tensor[index] for tensor in pair]

    def join(self, other: "RowCache") -> None:
        """Append another cache's rows."""
        self.owners += other.owners
        self.lengths = torch.cat([self.lengths, other.lengths])
        self.width = max(self.width, other.width)
        for pair, other_pair in zip(self._tensors, other._tensors, strict=True):
            pair[:] = map(_joined, pair, other_pair)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the length of the longest row."""
        return self.width

    def _empty(self, states: Tensor) -> Tensor:
        """Return zeros for rows of the states' shape, [rows, heads, fed, head size]."""
        num_rows, num_heads, _, head_size = states.shape
        num_positions = self.width + _GROWTH
        return states.new_zeros((num_rows, num_positions, num_heads, head_size))

    def _grow(self) -> None:
        """Make room for the longest row and the dump."""
        for pair in self._tensors:
            for part, tensor in enumerate(pair):
                # What padding left in the old dump stays where it is. Rows write over
                # it when they come there, and look at it no sooner.
                if tensor.shape[1] < self.width + _DUMP:
                    pair[part] = _lengthened(tensor, self.width + _GROWTH)


def _stacked(tensors: Sequence[Tensor | None], num_positions: int) -> Tensor:
    """Stack tensors of [tokens, heads, head size]; a row of None, not all, is 0."""
    like = next(tensor for tensor in tensors if tensor is not None)
    stacked = like.new_zeros((len(tensors), num_positions, *like.shape[1:]))
    for row, tensor in enumerate(tensors):
        if tensor is not None:
            stacked[row, : len(tensor)] = tensor
    return stacked


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Return the rows of both, with the positions of the one that has more."""
    num_positions = max(first.shape[1], second.shape[1])
    longer_first = _lengthened(first, num_positions)
    longer_second = _lengthened(second, num_positions)
    return torch.cat([longer_first, longer_second])


def _lengthened(tensor: Tensor, num_positions: int) -> Tensor:
    """Return the rows with zeros behind them, up to so many positions."""
    num_rows, num_there, *rest = tensor.shape
    more = tensor.new_zeros((num_rows, num_positions - num_there, *rest))
    return torch.cat([tensor, more], dim=1)


def attention_masks(
    config: Any, positions: Tensor, width: int
) -> Tensor | dict[str, Tensor]:
    """Return what each fed token may see, by layer type if the model has several.

    Args:
        config: Of the model.
        positions: int64[rows, fed], from `RowCache.place`.
        width: The length of the longest row.

    Returns:
        [rows, 1, fed, width]: bool, or for eager attention float32 to be added.

    Raises:
        PolicyError: The model has layers that are neither full nor sliding-window
            attention.
    """
    keys = torch.arange(width, device=positions.device)
    # Padding looks at the first position: a row of the softmax must not be empty.
    last_seen = positions.clamp(min=0)[..., None]
    full = keys <= last_seen
    near = full
    window = getattr(config, "sliding_window", None)
    if window:
        near = full & (keys > last_seen - window)
    types = set(getattr(config, "layer_types", None) or ())
    if types - _MASKED_TYPES:
        listed = ", ".join(sorted(types))
        raise PolicyError(
            f"the transformers sampler cannot run {config.model_type}: it has layers of"
            f" type {listed}."
        )
    if not types:
        # Models of before `layer_types` slide in all layers, if they have a window.
        return _as_attention_takes(near, config)
    if types == {"full_attention"}:
        # Here a window may be set and not used.
        return _as_attention_takes(full, config)
    return {
        "full_attention": _as_attention_takes(full, config),
        "sliding_attention": _as_attention_takes(near, config),
    }


def _as_attention_takes(mask: Tensor, config: Any) -> Tensor:
    """Return a mask, bool[rows, fed, width], in the form of the model's attention."""
    mask = mask[:, None]
    if config._attn_implementation != "eager":
        return mask
    # Eager attention adds the mask to the scores. The lowest number and not -inf: where
    # a padded query sees nothing, the softmax of -inf alone would be NaN.
    nothing_added = torch.zeros(mask.shape, device=mask.device)
    return nothing_added.masked_fill(~mask, torch.finfo(torch.float32).min)
