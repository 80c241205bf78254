"""From episodes to padded tensors: one row per episode, microbatches by token
budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aipo_env import Episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One training sequence of T tokens with its advantage.

    Args:
        token_ids: int64[T].
        policy_mask: bool[T], tokens the policy wrote.
        agent_mask: bool[T], reply content an agent wrote.
        sampler_logprobs: float32[T], what the sampler reported; NaN where it reported
            nothing.
        agent_logprobs: float32[T], the agent's own; NaN where unknown.
    """

    token_ids: NDArray[np.int64]
    policy_mask: NDArray[np.bool_]
    agent_mask: NDArray[np.bool_]
    sampler_logprobs: NDArray[np.float32]
    agent_logprobs: NDArray[np.float32]
    advantage: float


def episode_row(
    episode: Episode,
    advantage: float,
    prompt: Sequence[int] = (),
    kept: NDArray[np.int64] | None = None,
) -> Row:
    """Return the row of an episode: after `prompt`, its tokens, or those at the places
    `kept`, in their order.
    """
    tokens, head = episode.tokens, len(prompt)
    if kept is None:
        kept = np.arange(len(tokens))
    policy_mask = np.concatenate([np.zeros(head, bool), tokens.policy_mask[kept]])
    agent_mask = np.concatenate([np.zeros(head, bool), tokens.agent_mask[kept]])
    logprobs = np.concatenate(
        [np.full(head, np.nan, np.float32), tokens.behaviour_logprobs[kept]]
    )
    return Row(
        token_ids=np.concatenate(
            [np.asarray(prompt, np.int64), tokens.token_ids[kept]]
        ),
        policy_mask=policy_mask,
        agent_mask=agent_mask,
        sampler_logprobs=np.where(policy_mask, logprobs, np.float32(np.nan)),
        agent_logprobs=np.where(agent_mask, logprobs, np.float32(np.nan)),
        advantage=advantage,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows padded on the right: all tensors `[batch, tokens]`, `advantages`
    `[batch]`.
    """

    token_ids: Tensor
    attention_mask: Tensor
    policy_mask: Tensor
    agent_mask: Tensor
    sampler_logprobs: Tensor
    agent_logprobs: Tensor
    advantages: Tensor


def collate(
    rows: Sequence[Row], pad_token_id: int, device: torch.device | str = "cpu"
) -> Batch:
    """Pad rows on the right."""
    width = max(
        1, *(len(row.token_ids) for row in rows)
    )  # a prompt that fills the context leaves no token

    def padded(name: str, fill: float) -> Tensor:
        arrays = [getattr(row, name) for row in rows]
        out = np.full((len(rows), width), fill, arrays[0].dtype)
        for line, array in zip(out, arrays, strict=True):
            line[: len(array)] = array
        return torch.from_numpy(out).to(device)

    lengths = torch.tensor([len(row.token_ids) for row in rows], device=device)
    return Batch(
        token_ids=padded("token_ids", pad_token_id),
        attention_mask=(
            torch.arange(width, device=device)[None] < lengths[:, None]
        ).long(),
        policy_mask=padded("policy_mask", False),
        agent_mask=padded("agent_mask", False),
        sampler_logprobs=padded("sampler_logprobs", np.nan),
        agent_logprobs=padded("agent_logprobs", np.nan),
        advantages=torch.tensor(
            [row.advantage for row in rows], dtype=torch.float32, device=device
        ),
    )


def split_rows(
    rows: Sequence[Row], max_tokens: int, *, packed: bool = False
) -> list[list[Row]]:
    """Split rows into microbatches of at most `max_tokens` tokens, padding included; a
    longer row stands alone.

    Rows of similar length share a microbatch: at most a fifth of it is padding. Packed
    rows need none, and share one if they fit. The split is a function of the rows
    alone.
    """
    parts: list[list[Row]] = []
    num_tokens = 0
    for row in sorted(rows, key=lambda row: len(row.token_ids)):
        length = len(row.token_ids)
        num_tokens = (
            num_tokens + length
            if packed or not parts
            else length * (len(parts[-1]) + 1)
        )
        similar = packed or not parts or length <= 1.25 * len(parts[-1][0].token_ids)
        if parts and num_tokens <= max_tokens and similar:
            parts[-1].append(row)
        else:
            parts.append([row])
            num_tokens = length
    return parts
