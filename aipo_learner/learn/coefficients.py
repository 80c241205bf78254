"""The coefficients of agents' tokens in the objective, kept beside episodes to view."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from aipo_env import (
    DataError,
    Episode,
    read_whole,
    shown,
    write_anew,
)
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.objective import agent_coefficient
from aipo_learner.learn.rows import collate, episode_row
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.settings.objective import ObjectiveConfig

MAX_FLOAT32 = 3.4e38
"""Larger numbers in a file become no float32 but infinity."""
_SUFFIX = ".coefficients.json"
"""In place of `.jsonl`, the name of the file beside one of episodes."""
_POSITIVE_ADVANTAGE = 1.0
_PAD_TOKEN_ID = 0


@torch.no_grad()
def episode_coefficients(
    model: PreTrainedModel,
    episodes: Sequence[Episode],
    objective: ObjectiveConfig,
    *,
    temperature: float,
) -> list[NDArray[np.float32]]:
    """Return the coefficient of every agent token at the model's weights.

    As if the advantage were positive: what it multiplies is shown, not how much a step
    moved. float32[T] per episode, NaN at all other tokens.
    """
    forward = LearnerForward(model, temperature=temperature)
    coefficients: list[NDArray[np.float32]] = []
    for episode in episodes:
        row = episode_row(episode, _POSITIVE_ADVANTAGE)
        # One at a time, so that nothing is padded, and any token pads.
        alone = collate([row], _PAD_TOKEN_ID, model.device)
        logprobs, _ = microbatch_logprobs(forward, alone)
        # The policy is its own old policy: before a step, their ratio is 1.
        of_all = agent_coefficient(
            logprobs, logprobs, alone.agent_logprobs, alone.advantages, objective
        )
        of_agents = torch.where(alone.agent_mask, of_all, torch.nan)
        of_episode = of_agents[0, : len(episode.tokens)]
        coefficients.append(of_episode.cpu().numpy())
    return coefficients


def write_coefficients(path: Path, coefficients: Sequence[NDArray[np.float32]]) -> None:
    """Write the coefficients of the episodes in `….jsonl` to `….coefficients.json`.

    Args:
        path: Of the episodes.
        coefficients: float32[T] per episode.
    """
    rows = [_as_list(row) for row in coefficients]
    write_anew(path.with_suffix(_SUFFIX), json.dumps(rows))


def _as_list(row: NDArray[np.float32]) -> list[float | None]:
    """Return the numbers of an array, null for NaN, which JSON has not."""
    return [None if math.isnan(value) else value for value in row.tolist()]


def read_coefficients(
    path: Path, episodes: Sequence[Episode]
) -> list[NDArray[np.float32]]:
    """Return float32[T] per episode; NaN where unknown, and everywhere without a file.

    Args:
        path: Of the episodes; the file stands beside it.
        episodes: What it holds.

    Raises:
        DataError: The file is corrupt or belongs to other episodes.
    """
    beside = path.with_suffix(_SUFFIX)
    lengths = [len(episode.tokens) for episode in episodes]
    # A link may lead anywhere, in a folder that is somebody else's.
    if not beside.is_file() or beside.is_symlink():
        return [np.full(length, np.nan, np.float32) for length in lengths]
    try:
        rows = _lists(json.loads(read_whole(beside)))
        arrays = [_as_array(row) for row in rows]
    except (RecursionError, ValueError) as error:
        raise DataError(
            f"{beside}: no lists of coefficients ({error}). Delete the file."
        ) from error
    if [len(array) for array in arrays] != lengths:
        raise DataError(
            f"{beside}: does not fit the episodes in {path.name}. Delete the file."
        )
    return arrays


def _lists(value: Any) -> list[list[Any]]:
    """Return a value that is a list of lists; raise ValueError if it is not."""
    is_list = isinstance(value, list)
    if not is_list or not all(isinstance(row, list) for row in value):
        raise ValueError(f"{shown(value)} is no list of lists")
    return value


def _as_array(row: list[Any]) -> NDArray[np.float32]:
    """Return the numbers of a list, NaN for null.

    Raises:
        ValueError: It holds something else.
    """
    numbers = [math.nan if value is None else value for value in row]
    for number in numbers:
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        # Infinities and NaN may be what the objective came to; more digits are none of
        # ours.
        if not is_number or MAX_FLOAT32 < abs(number) < math.inf:
            raise ValueError(f"{shown(number)} is no coefficient")
    return np.array(numbers, np.float32)
