"""From episodes to padded tensors: a row for each, microbatches by number of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aipo_env import Author, Episode
from aipo_learner.settings.objective import ObjectiveConfig

_SIMILAR_LENGTHS = 1.25
"""How much longer than its shortest row a row of a microbatch may be."""


class Taught(IntEnum):
    """Whether a teacher scores the own tokens of a row, and why not."""

    NOT_ASKED = 0
    """There is no teacher, or it is not asked of this episode."""
    ASKED = 1
    NOTHING_TO_SHOW = 2
    """The policy is its own teacher, and its episode left nothing that it knows more.
    """
    UNREADABLE = 3
    """With its prompt it is longer than the teacher reads, or has tokens that the
    teacher does not know.
    """


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
        observation_mask: bool[T], tokens that are learned as observations; None where
            the loss has no term of them.
        is_only_observed: Whether nothing else of it is learned, as in a group without
            a gradient: then it is in no normalizer but that of observations.
        num_prompt: How many tokens stand before what the episode itself has.
        taught: Whether a teacher is asked of it.
        teacher_prompt: int64[P], the tokens that the teacher reads in the place of
            these first ones; None: these. They are in no pass of the policy's.
        teacher_logprobs: float32[T], the teacher's of the policy's tokens; NaN where
            unknown. None where no teacher was asked.
    """

    token_ids: NDArray[np.int64]
    policy_mask: NDArray[np.bool_]
    agent_mask: NDArray[np.bool_]
    sampler_logprobs: NDArray[np.float32]
    agent_logprobs: NDArray[np.float32]
    advantage: float
    is_rewritten: bool = False
    group: int = 0
    observation_mask: NDArray[np.bool_] | None = None
    is_only_observed: bool = False
    num_prompt: int = 0
    taught: Taught = Taught.NOT_ASKED
    teacher_prompt: NDArray[np.int64] | None = None
    teacher_logprobs: NDArray[np.float32] | None = None

    @property
    def is_taught(self) -> bool:
        """Whether a teacher scores its own tokens."""
        return self.taught == Taught.ASKED


def observation_mask(
    episode: Episode, objective: ObjectiveConfig | None
) -> NDArray[np.bool_] | None:
    """Return bool[T], an episode's tokens that are learned as observations.

    Those of an author are what it said: the body of a tool's result or of an agent's
    reply. What stands around it, and notices, are the environment's. What an agent
    quotes of the policy's own words is nobody's.

    Args:
        episode: Any.
        objective: Says whose tokens, and of which episodes; None: nobody's.

    Returns:
        The mask; None where the loss has no term of such tokens.
    """
    if objective is None or not objective.observation_weight:
        return None
    tokens = episode.tokens
    is_learned = objective.observation_episodes == "all" or bool(episode.correct)
    mask = np.zeros(len(tokens), bool)
    if not is_learned:
        return mask
    for name in objective.observation_authors:
        if name == "agent":
            # Of agents the body alone is theirs, as for the agent rule.
            mask |= tokens.agent_mask
        elif name == "env":
            # What a reply quotes of the policy is its content, and is nobody's.
            mask |= (tokens.author == Author.ENV) & ~tokens.is_content
        else:
            mask |= tokens.author == Author[name.upper()]
    return mask


def episode_row(
    episode: Episode,
    advantage: float,
    prompt: Sequence[int] = (),
    kept: NDArray[np.int64] | None = None,
    *,
    objective: ObjectiveConfig | None = None,
) -> Row:
    """Return the row of an episode.

    Args:
        episode: Its tokens are those of the row.
        advantage: Of the episode.
        prompt: Token ids that stand before them, and are in no loss.
        kept: int64[N], the places of the tokens that the row has, in its order; None:
            it has all, as they are.
        objective: Says which tokens are learned as observations; None: none are.
    """
    tokens = episode.tokens
    is_rewritten = kept is not None or len(prompt) > 0
    num_prompt = len(prompt)
    if kept is None:
        kept = np.arange(len(tokens))
        num_prompt += _num_before_policy(tokens.policy_mask)
    prompt_ids = np.asarray(prompt, np.int64)
    in_no_mask = np.zeros(len(prompt), bool)
    unknown = np.full(len(prompt), np.nan, np.float32)
    token_ids = np.concatenate([prompt_ids, tokens.token_ids[kept]])
    policy_mask = np.concatenate([in_no_mask, tokens.policy_mask[kept]])
    agent_mask = np.concatenate([in_no_mask, tokens.agent_mask[kept]])
    logprobs = np.concatenate([unknown, tokens.behaviour_logprobs[kept]])
    observed = observation_mask(episode, objective)
    if observed is not None:
        observed = np.concatenate([in_no_mask, observed[kept]])
    return Row(
        token_ids=token_ids,
        policy_mask=policy_mask,
        agent_mask=agent_mask,
        # The record has one number per token, of whoever wrote it.
        sampler_logprobs=np.where(policy_mask, logprobs, np.float32(np.nan)),
        agent_logprobs=np.where(agent_mask, logprobs, np.float32(np.nan)),
        advantage=advantage,
        is_rewritten=is_rewritten,
        observation_mask=observed,
        num_prompt=num_prompt,
    )


def _num_before_policy(policy_mask: NDArray[np.bool_]) -> int:
    """Return how many tokens stand before the policy's first; all if it has none."""
    own = np.flatnonzero(policy_mask)
    return int(own[0]) if len(own) else len(policy_mask)


def observed_row(episode: Episode, objective: ObjectiveConfig | None) -> Row | None:
    """Return an episode as a row of which observation tokens alone are learned.

    None if it has no such token.

    Args:
        episode: Any.
        objective: Says which tokens; None: none.
    """
    observed = observation_mask(episode, objective)
    if observed is None or not observed.any():
        return None
    nothing = np.zeros_like(observed)
    return replace(
        episode_row(episode, 0.0, objective=objective),
        policy_mask=nothing,
        agent_mask=nothing,
        is_only_observed=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Microbatch:
    """Rows of one pass, padded on the right: tensors `[rows, tokens]`.

    `advantages` and `is_rewritten` are `[rows]`; `observation_mask` and
    `teacher_logprobs` are None where no row has them. Padding is 0 in
    `attention_mask`, in no other mask, and without log-probabilities.
    """

    token_ids: Tensor
    attention_mask: Tensor
    policy_mask: Tensor
    agent_mask: Tensor
    sampler_logprobs: Tensor
    agent_logprobs: Tensor
    advantages: Tensor
    is_rewritten: Tensor
    observation_mask: Tensor | None = None
    teacher_logprobs: Tensor | None = None

    @property
    def read_mask(self) -> Tensor:
        """bool `[rows, tokens]`, the tokens that any term of the loss reads."""
        own_or_agents = self.policy_mask | self.agent_mask
        if self.observation_mask is None:
            return own_or_agents
        return own_or_agents | self.observation_mask


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
        return padded_arrays([getattr(row, name) for row in rows], fill)

    def padded_arrays(arrays: Sequence[NDArray[Any]], fill: float) -> Tensor:
        shape = (len(rows), width)
        stacked = np.full(shape, fill, arrays[0].dtype)
        for line, array in zip(stacked, arrays, strict=True):
            line[: len(array)] = array
        return torch.from_numpy(stacked).to(device)

    observed = None
    if any(row.observation_mask is not None for row in rows):
        observed = padded_arrays([_observed(row) for row in rows], False)
    taught = None
    if any(row.teacher_logprobs is not None for row in rows):
        taught = padded_arrays([_teacher_logprobs(row) for row in rows], np.nan)
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
        observation_mask=observed,
        teacher_logprobs=taught,
    )


def _observed(row: Row) -> NDArray[np.bool_]:
    """Return the mask of a row beside others that have one."""
    if row.observation_mask is None:
        return np.zeros(len(row.token_ids), bool)
    return row.observation_mask


def _teacher_logprobs(row: Row) -> NDArray[np.float32]:
    """Return the teacher's log-probabilities of a row beside others that have some."""
    if row.teacher_logprobs is None:
        return np.full(len(row.token_ids), np.nan, np.float32)
    return row.teacher_logprobs


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
