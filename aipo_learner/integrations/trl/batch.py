"""Rows as what TRL shuffles and splits: tensors with one first dimension."""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from aipo_env import Episode
from aipo_learner.learn.rows import Microbatch, Row, collate, episode_row


def generation_batch(
    rows: Sequence[Row],
    episodes: Sequence[Episode],
    num_parts: int,
    pad_token_id: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Return the tensors of a generation batch, by their names in `Microbatch`.

    TRL splits them into equal parts and drops what is left over, so that there are rows
    behind them in which no token counts.

    Args:
        rows: Of the batch; there may be none.
        episodes: It was made of, at least one.
        num_parts: Into which TRL splits it.
        pad_token_id: Any id that the model knows.
        device: Where the tensors are put.
    """
    num_missing = -len(rows) % num_parts if rows else num_parts
    shortest = min(
        rows or [episode_row(episode, 0.0) for episode in episodes],
        key=lambda row: len(row.token_ids),
    )
    padded = [*rows, *[_filler(shortest)] * num_missing]
    batch = collate(padded, pad_token_id, device)
    return {item.name: getattr(batch, item.name) for item in fields(Microbatch)}


def _filler(row: Row) -> Row:
    """Return a row of which the model computes, and nothing counts."""
    nothing = np.zeros(len(row.token_ids), bool)
    return replace(row, policy_mask=nothing, agent_mask=nothing, advantage=0.0)
