"""A key-value cache in which every row has a length of its own.

Conversations own the rows: `gather` makes rows of the keys and values that they hold,
`release` gives these back, longer by what was decoded.

All rows end in the same column, as those of a batch that is padded on the left do. For
such a batch transformers makes the masks itself, from the one that says where padding
is, and so it is the model that knows its windows, chunks and biases.
"""

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from aipo_env import PolicyError
from aipo_learner.samplers.base import cannot_sample

_GROWTH = 64
"""Columns added whenever the tensors have too few."""


class Cached(Protocol):
    """What owns a row while it is not decoded.

    `cache` has keys and values per layer, each [tokens, heads, head size]; it is empty
    where `num_cached`, the number of tokens, is 0.
    """

    cache: list[tuple[Tensor, Tensor]]
    num_cached: int


class RowCache(Cache):
    """Keys and values per layer, each of shape [rows, columns, heads, head size].

    Row i holds its tokens in the columns from `starts[i]` up to `ends[i]`. Whatever is
    fed goes to the last columns of all. A row that is fed nothing is over: from then on
    it is only kept until it is released, and its outputs mean nothing.

    `is_used` says whether the model has put anything in.

    Args:
        model: What they are the keys and values of.
        owners: The conversations of the rows.
        num_fed: How many tokens each row will be fed first: they are placed so that all
            rows then end in the same column.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        owners: Sequence[Cached],
        num_fed: Sequence[int],
    ) -> None:
        # transformers' own layers would append to all rows alike: here are none.
        super().__init__(layers=_NoLayers(model))
        self.model = model
        self.owners = list(owners)
        num_cached = [owner.num_cached for owner in owners]
        lengths = [
            cached + fed for cached, fed in zip(num_cached, num_fed, strict=True)
        ]
        last_column = max(lengths)
        self.ends = [last_column - num for num in num_fed]
        pairs = zip(self.ends, num_cached, strict=True)
        self.starts = [end - num for end, num in pairs]
        # Columns that are taken: those of what is being fed come last.
        self.width = last_column - max(num_fed)
        self._num_new = 0
        # The first column that a row which goes on has a token in.
        self._left = 0
        # Which of the new columns hold tokens of their row; None if all may be written.
        self._is_token: Tensor | None = None
        # Per layer [keys, values]; lists, for a tensor that grows is another one.
        self._tensors: list[list[Tensor]] = []

    @classmethod
    def gather(
        cls,
        model: PreTrainedModel,
        owners: Sequence[Cached],
        num_fed: Sequence[int],
    ) -> "RowCache":
        """Stack what the owners hold, a row for each, in their order."""
        cache = cls(model, owners, num_fed)
        num_layers = max(len(owner.cache) for owner in owners)
        for layer in range(num_layers):
            pairs = [owner.cache[layer] if owner.cache else None for owner in owners]
            keys = [pair[0] if pair else None for pair in pairs]
            values = [pair[1] if pair else None for pair in pairs]
            stacked_keys = cache._stacked(keys)
            stacked_values = cache._stacked(values)
            cache._tensors.append([stacked_keys, stacked_values])
        return cache

    @property
    def is_used(self) -> bool:
        """Whether the model keeps its keys and values here."""
        return bool(self._tensors)

    def place(self, num_fed: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Reserve columns for tokens about to be fed, padded on the left.

        Args:
            num_fed: How many tokens each row is fed, padding not counted; 0 of a row
                that is over.

        Returns:
            The mask, int64[rows, columns], 1 at the tokens of a row, and the positions
            of what is fed, int64[rows, fed]. Both cover only the columns from the first
            that a row which goes on has a token in, as `update` does.
        """
        self._num_new = max(num_fed)
        self.width += self._num_new
        going = [row for row, num in enumerate(num_fed) if num]
        for row in going:
            self.ends[row] += num_fed[row]
            assert self.ends[row] == self.width
        self._left = min(self.starts[row] for row in going)
        # A row that is over looks at all there is: a softmax over nothing is no number.
        starts = [
            start if num else self._left
            for start, num in zip(self.starts, num_fed, strict=True)
        ]
        device = self.model.device
        first_tokens = torch.tensor(starts, device=device)[:, None]
        columns = torch.arange(self._left, self.width, device=device)
        new_columns = columns[-self._num_new :]
        self._is_token = None
        if self._num_new > 1 and min(num_fed) < self._num_new:
            first_fed = self.width - torch.tensor(num_fed, device=device)
            self._is_token = new_columns >= first_fed[:, None]
        mask = (columns >= first_tokens).long()
        # Padding stands nowhere, but the model looks its position up.
        positions = (new_columns - first_tokens).clamp(min=0)
        return mask, positions

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values to the reserved columns; return all of the rows.

        The model calls it, in every layer, with what it was just fed.

        Args:
            key_states: [rows, heads, fed, head size], as are `value_states`.
            value_states: Their head size may be another.
            layer_idx: The layer, from 0.
            args: Unused, as are `kwargs`: what transformers passes on besides.
            kwargs: See `args`.

        Returns:
            Keys and values, each [rows, heads, columns, head size].
        """
        if layer_idx == len(self._tensors):
            # Nobody held anything: only the model says what shapes its layers have.
            keys = self._empty(key_states)
            values = self._empty(value_states)
            self._tensors.append([keys, values])
        pair = self._tensors[layer_idx]
        for part, states in enumerate((key_states, value_states)):
            if pair[part].shape[1] < self.width:
                pair[part] = _padded(pair[part], right=_GROWTH + self._num_new)
            new = pair[part][:, self.width - self._num_new : self.width]
            states = states.transpose(1, 2)
            if self._is_token is not None:
                # Where a row is fed less than another, it may have tokens already.
                states = torch.where(self._is_token[..., None, None], states, new)
            new.copy_(states)
        columns = slice(self._left, self.width)
        all_keys, all_values = (tensor[:, columns] for tensor in pair)
        return all_keys.transpose(1, 2), all_values.transpose(1, 2)

    def release(self, rows: Sequence[int]) -> None:
        """Give their owners what these rows hold."""
        for row in rows:
            owner = self.owners[row]
            held = slice(self.starts[row], self.ends[row])
            owner.num_cached = held.stop - held.start
            # Copies: a view would keep the tensors of all rows alive.
            owner.cache = [
                (keys[row, held].clone(), values[row, held].clone())
                for keys, values in self._tensors
            ]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, and the columns that none of them has tokens in."""
        self.owners = [self.owners[row] for row in rows]
        first_column = min((self.starts[row] for row in rows), default=self.width)
        self.starts = [self.starts[row] - first_column for row in rows]
        self.ends = [self.ends[row] - first_column for row in rows]
        self.width -= first_column
        # The dtype is said because there may be no rows, and torch.tensor([]) is float.
        index = torch.tensor(rows, dtype=torch.long, device=self.model.device)
        for pair in self._tensors:
            pair[:] = [tensor[:, first_column:][index] for tensor in pair]

    def join(self, other: "RowCache") -> None:
        """Append another cache's rows; all end in the same column again."""
        width = max(self.width, other.width)
        for cache in (self, other):
            shift = width - cache.width
            cache.starts = [start + shift for start in cache.starts]
            cache.ends = [end + shift for end in cache.ends]
        for pair, other_pair in zip(self._tensors, other._tensors, strict=True):
            for part, tensor in enumerate(pair):
                own = _padded(tensor[:, : self.width], left=width - self.width)
                others = other_pair[part][:, : other.width]
                others = _padded(others, left=width - other.width)
                pair[part] = torch.cat([own, others])
        self.owners += other.owners
        self.starts += other.starts
        self.ends += other.ends
        self.width = width

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of columns before what is being fed."""
        return self.width - self._num_new - self._left

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return the number of columns, and the first of them."""
        return self.width - self._left, 0

    def has_previous_state(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise PolicyError: only a layer with a state of its own asks."""
        raise _keeps_more(self.model)

    def _empty(self, states: Tensor) -> Tensor:
        """Return zeros for rows of the states' shape, [rows, heads, fed, head size]."""
        num_rows, num_heads, _, head_size = states.shape
        num_columns = self.width + _GROWTH
        return states.new_zeros((num_rows, num_columns, num_heads, head_size))

    def _stacked(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Stack tensors of [tokens, heads, head size]; a row of None, not all, is 0."""
        like = next(tensor for tensor in tensors if tensor is not None)
        num_columns = max(self.ends) + _GROWTH
        stacked = like.new_zeros((len(tensors), num_columns, *like.shape[1:]))
        for row, tensor in enumerate(tensors):
            if tensor is not None:
                stacked[row, self.starts[row] : self.ends[row]] = tensor
        return stacked


class _NoLayers(list[Any]):
    """No layers, of which a model that keeps more than keys and values looks for one.

    Args:
        model: The model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def __getitem__(self, index: object) -> NoReturn:
        """Raise PolicyError."""
        raise _keeps_more(self.model)


def _keeps_more(model: PreTrainedModel) -> PolicyError:
    """Return the error for a model with layers that carry on a state of their own."""
    return cannot_sample(model, "its layers keep more than keys and values")


def _padded(tensor: Tensor, *, left: int = 0, right: int = 0) -> Tensor:
    """Return [rows, columns, heads, head size] with so many columns of zeros more."""
    if not left and not right:
        return tensor
    # From the last dimension to the first: head size, heads, columns.
    return torch.nn.functional.pad(tensor, (0, 0, 0, 0, left, right))
