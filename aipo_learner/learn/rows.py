"""From episodes to padded tensors: a row for each, microbatches by number of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aipo_env import Episode

_SIMILAR_LENGTHS = 1.25
"""How much longer than its shortest row a row of a microbatch may be."""


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
        advantage: Of every token of the policy and its agents.
        is_rewritten: Whether its tokens stand in another context than that in which
            they were sampled, as those of agent-free forms do: what the sampler
            reported is then of that other context.
        group: Number of its group among those of the step: rows of one group stay in
            one minibatch.
    """

    token_ids: NDArray[np.int64]
    policy_mask: NDArray[np.bool_]
    agent_mask: NDArray[np.bool_]
    sampler_logprobs: NDArray[np.float32]
    agent_logprobs: NDArray[np.float32]
    advantage: float
    is_rewritten: bool = False
    group: int = 0


def episode_row(
    episode: Episode,
    advantage: float,
    prompt: Sequence[int] = (),
    kept: NDArray[np.int64] | None = None,
) -> Row:
    """Return the row of an episode.

    Args:
        episode: Its tokens are those of the row.
        advantage: Of the episode.
        prompt: Token ids that stand before them, and are in no loss.
        kept: int64[N], the places of the tokens that the row has, in its order; None:
            it has all, as they are.
    """
    tokens = episode.tokens
    is_rewritten = kept is not None or len(prompt) > 0
    if kept is None:
        kept = np.arange(len(tokens))
    prompt_ids = np.asarray(prompt, np.int64)
    in_no_mask = np.zeros(len(prompt), bool)
    unknown = np.full(len(prompt), np.nan, np.float32)
    token_ids = np.concatenate([prompt_ids, tokens.token_ids[kept]])
    policy_mask = np.concatenate([in_no_mask, tokens.policy_mask[kept]])
    agent_mask = np.concatenate([in_no_mask, tokens.agent_mask[kept]])
    logprobs = np.concatenate([unknown, tokens.behaviour_logprobs[kept]])
    return Row(
        token_ids=token_ids,
        policy_mask=policy_mask,
        agent_mask=agent_mask,
        # The record has one number per token, of whoever wrote it.
        sampler_logprobs=np.where(policy_mask, logprobs, np.float32(np.nan)),
        agent_logprobs=np.where(agent_mask, logprobs, np.float32(np.nan)),
        advantage=advantage,
        is_rewritten=is_rewritten,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Microbatch:
    """Rows of one pass, padded on the right: tensors `[rows, tokens]`.

    `advantages` and `is_rewritten` are `[rows]`. Padding is 0 in `attention_mask`, in
    no other mask, and without log-probabilities.
    """

    token_ids: Tensor
    attention_mask: Tensor
    policy_mask: Tensor
    agent_mask: Tensor
    sampler_logprobs: Tensor
    agent_logprobs: Tensor
    advantages: Tensor
    is_rewritten: Tensor


def collate(
    rows: Sequence[Row], pad_token_id: int, device: torch.device | str = "cpu"
) -> Microbatch:
    """Pad rows on the right.

    Args:
        rows: At least one.
        pad_token_id: Any id that the model knows.
        device: Where the tensors are put.
    """
    row_lengths = [len(row.token_ids) for row in rows]
    # A row may have no token: its prompt filled the context.
    width = max(1, *row_lengths)

    def padded(name: str, fill: float) -> Tensor:
        arrays = [getattr(row, name) for row in rows]
        shape = (len(rows), width)
        stacked = np.full(shape, fill, arrays[0].dtype)
        for line, array in zip(stacked, arrays, strict=True):
            line[: len(array)] = array
        return torch.from_numpy(stacked).to(device)

    lengths = torch.tensor(row_lengths, device=device)
    columns = torch.arange(width, device=device)
    is_real = columns[None] < lengths[:, None]
    return Microbatch(
        token_ids=padded("token_ids", pad_token_id),
        attention_mask=is_real.long(),
        policy_mask=padded("policy_mask", False),
        agent_mask=padded("agent_mask", False),
        sampler_logprobs=padded("sampler_logprobs", np.nan),
        agent_logprobs=padded("agent_logprobs", np.nan),
        advantages=torch.tensor(
            [row.advantage for row in rows], dtype=torch.float32, device=device
        ),
        is_rewritten=torch.tensor([row.is_rewritten for row in rows], device=device),
    )


def split_rows(
    rows: Sequence[Row], max_tokens: int, *, packed: bool = False
) -> list[list[Row]]:
    """Split rows into microbatches of at most `max_tokens` tokens, padding included.

    A longer row stands alone. Rows of similar length share a microbatch: at most a
    fifth of it is padding. Packed rows need none, and share one if they fit. The split
    is a function of the rows alone.

    Args:
        rows: In any order.
        max_tokens: What one forward and backward pass takes.
        packed: Whether rows stand behind each other, without padding.
    """
    parts: list[list[Row]] = []
    num_tokens = 0
    # By length: the last row of a part is its longest, to which all are padded.
    for row in sorted(rows, key=lambda row: len(row.token_ids)):
        length = len(row.token_ids)
        if not parts:
            parts.append([row])
            num_tokens = length
            continue
        part = parts[-1]
        if packed:
            num_tokens += length
            is_similar = True
        else:
            num_tokens = length * (len(part) + 1)
            is_similar = length <= _SIMILAR_LENGTHS * len(part[0].token_ids)
        if num_tokens <= max_tokens and is_similar:
            part.append(row)
        else:
            parts.append([row])
            num_tokens = length
    return parts
