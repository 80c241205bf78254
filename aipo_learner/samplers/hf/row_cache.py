"""A key-value cache whose rows have lengths of their own, gathered from and released to
conversations.
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


class Cached(Protocol):
    """What owns a row while it is not decoded: per layer keys and values, each [tokens,
    heads, head size].
    """

    cache: list[tuple[Tensor, Tensor]]
    num_cached: int


class RowCache(Cache):
    """Per layer, keys and values of shape [rows, positions, heads, head size]; the last
    position is a dump.

    Row i holds `lengths[i]` tokens at positions 0 to lengths[i] - 1. Padding is written
    to the dump, which no query ever sees.
    """

    def __init__(self, owners: Sequence[Cached], device: torch.device) -> None:
        super().__init__(layers=[])
        self.owners = list(owners)
        self.lengths = torch.tensor(
            [owner.num_cached for owner in owners], device=device
        )
        self.width = 0
        self._tensors: list[list[Tensor]] = []
        self._slots: Tensor | None = None

    @classmethod
    def gather(cls, model: PreTrainedModel, owners: Sequence[Cached]) -> "RowCache":
        """Stack what the owners hold."""
        cache = cls(owners, model.device)
        num_layers = max(len(owner.cache) for owner in owners)
        for layer in range(num_layers):
            pair = []
            for part in (0, 1):
                held = [
                    owner.cache[layer][part] if owner.cache else None
                    for owner in owners
                ]
                like = next(tensor for tensor in held if tensor is not None)
                stacked = like.new_zeros(
                    (len(owners), int(cache.lengths.max()) + 1, *like.shape[1:])
                )
                for row, tensor in enumerate(held):
                    if tensor is not None:
                        stacked[row, : len(tensor)] = tensor
                pair.append(stacked)
            cache._tensors.append(pair)
        return cache

    def place(self, num_fed: Sequence[int], width: int) -> Tensor:
        """Reserve positions for tokens about to be fed, padded on the left to `width`.

        Returns their positions, int64 [rows, width]; negative at padding.
        """
        counts = torch.tensor(num_fed, device=self.lengths.device)
        columns = torch.arange(width, device=self.lengths.device)
        positions = columns[None] - (width - counts)[:, None]
        positions = torch.where(positions >= 0, positions + self.lengths[:, None], -1)
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
        """Write [rows, heads, width, head size] at the reserved positions; return all
        that rows hold.
        """
        rows = torch.arange(len(key_states), device=key_states.device)[:, None]
        if layer_idx == len(self._tensors):
            shape = (
                len(key_states),
                self.width + _GROWTH,
                key_states.shape[1],
                key_states.shape[3],
            )
            self._tensors.append(
                [
                    key_states.new_zeros(shape),
                    value_states.new_zeros((*shape[:3], value_states.shape[3])),
                ]
            )
        for tensor, states in zip(
            self._tensors[layer_idx], (key_states, value_states), strict=True
        ):
            tensor[rows, self._slots] = states.transpose(1, 2)
        keys, values = (
            tensor[:, : self.width].transpose(1, 2)
            for tensor in self._tensors[layer_idx]
        )
        return keys, values

    def release(self, rows: Sequence[int]) -> None:
        """Give rows back to their owners."""
        lengths = self.lengths.tolist()
        for row in rows:
            owner = self.owners[row]
            owner.num_cached = lengths[row]
            owner.cache = [
                (k[row, : lengths[row]].clone(), v[row, : lengths[row]].clone())
                for k, v in self._tensors
            ]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self.owners = [self.owners[row] for row in rows]
        index = torch.tensor(rows, dtype=torch.long, device=self.lengths.device)
        self.lengths = self.lengths[index]
        self._tensors = [[tensor[index] for tensor in pair] for pair in self._tensors]

    def join(self, other: "RowCache") -> None:
        """Append another cache's rows."""
        self.owners += other.owners
        self.lengths = torch.cat([self.lengths, other.lengths])
        self.width = max(self.width, other.width)
        for own, others in zip(self._tensors, other._tensors, strict=True):
            for part, pair in enumerate(zip(own, others, strict=True)):
                longest = max(tensor.shape[1] for tensor in pair)
                own[part] = torch.cat([_lengthened(tensor, longest) for tensor in pair])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the length of the longest row."""
        return self.width

    def _grow(self) -> None:
        """Make room for the longest row and the dump."""
        for pair in self._tensors:
            for part, tensor in enumerate(pair):
                if tensor.shape[1] <= self.width:
                    pair[part] = _lengthened(tensor, self.width + _GROWTH)


def _lengthened(tensor: Tensor, num_positions: int) -> Tensor:
    more = tensor.new_zeros(
        (len(tensor), num_positions - tensor.shape[1], *tensor.shape[2:])
    )
    return torch.cat([tensor, more], dim=1)


def attention_masks(
    config: Any, positions: Tensor, width: int
) -> Tensor | dict[str, Tensor]:
    """Return what each fed token may see: [rows, 1, fed, width], by layer type where
    there are several.

    Raises:
        PolicyError: The model has layers that are neither full nor sliding-window
            attention.
    """
    keys = torch.arange(width, device=positions.device)
    # Padding looks at the first position: a row of the softmax must not be empty.
    seen_from = positions.clamp(min=0)[..., None]
    full = keys <= seen_from
    window = getattr(config, "sliding_window", None)
    near = full & (keys > seen_from - window) if window else full
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        listed = ", ".join(sorted(kinds))
        raise PolicyError(
            f"the transformers sampler cannot run {config.model_type}: it has layers of"
            f" type {listed}."
        )
    if not kinds:
        return _shaped(near, config)
    if kinds == {"full_attention"}:
        return _shaped(full, config)
    return {
        "full_attention": _shaped(full, config),
        "sliding_attention": _shaped(near, config),
    }


def _shaped(mask: Tensor, config: Any) -> Tensor:
    """Return the mask as the attention implementation takes it: eager attention adds it
    to the scores.
    """
    mask = mask[:, None]
    if config._attn_implementation != "eager":
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(
        ~mask, torch.finfo(torch.float32).min
    )
