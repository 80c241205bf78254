"""Rows as what TRL shuffles and splits: tensors with one first dimension."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from aipo_learner.learn.rows import Microbatch, Row, collate

_FILLER_TOKENS = 2
"""The fewest that a model says a log-probability of: that of the second."""


def generation_batch(
    rows: Sequence[Row],
    num_parts: int,
    pad_token_id: int,
    device: torch.device,
    *,
    has_observations: bool = False,
) -> dict[str, Tensor]:
    """Return the tensors of a generation batch, by their names in `Microbatch`.

    TRL splits them into equal parts and drops what is left over, so that there are rows
    behind them in which no token counts.

    Args:
        rows: Of the batch; there may be none. One without a token that counts, as of an
            episode whose prompt filled the context, is left out: no term of the loss
            reads it.
        num_parts: Into which TRL splits it.
        pad_token_id: Any id that the model knows.
        device: Where the tensors are put.
        has_observations: Whether the loss has a term of observation tokens, so that
            there is a mask of them, be there such tokens or not.
    """
    read = [row for row in rows if _is_read(row)]
    num_missing = -len(read) % num_parts if read else num_parts
    padded = [*read, *[_filler(pad_token_id)] * num_missing]
    batch = collate(padded, pad_token_id, device)
    tensors = {item.name: getattr(batch, item.name) for item in fields(Microbatch)}
    if has_observations and batch.observation_mask is None:
        tensors["observation_mask"] = torch.zeros_like(batch.policy_mask)
    # TRL splits tensors, and knows nothing that is none.
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _is_read(row: Row) -> bool:
    """Return whether any term of the loss reads a row."""
    if row.observation_mask is not None and row.observation_mask.any():
        return True
    return bool(row.policy_mask.any() or row.agent_mask.any())


def _filler(pad_token_id: int) -> Row:
    """Return a row of which the model computes, and nothing counts."""
    nothing = np.zeros(_FILLER_TOKENS, bool)
    unknown = np.full(_FILLER_TOKENS, np.nan, np.float32)
    return Row(
        token_ids=np.full(_FILLER_TOKENS, pad_token_id, np.int64),
        policy_mask=nothing,
        agent_mask=nothing,
        sampler_logprobs=unknown,
        agent_logprobs=unknown,
        advantage=0.0,
    )
