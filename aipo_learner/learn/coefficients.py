"""The coefficients of agents' tokens in the objective, kept beside episodes for the
viewer.
"""

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
from aipo_learner.learn.logprobs import token_logprobs
from aipo_learner.learn.objective import agent_coefficient
from aipo_learner.learn.rows import collate, episode_row
from aipo_learner.settings.objective import ObjectiveConfig

MAX_FLOAT32 = 3.4e38


@torch.no_grad()
def episode_coefficients(
    model: PreTrainedModel,
    episodes: Sequence[Episode],
    objective: ObjectiveConfig,
    *,
    temperature: float,
) -> list[NDArray[np.float32]]:
    """Return the coefficient of every agent token at the model's weights, as if the
    advantage were positive.

    float32[T] per episode, NaN at all other tokens.
    """
    coefficients = []
    for episode in episodes:
        batch = collate([episode_row(episode, 1.0)], 0, model.device)
        logprobs, _ = token_logprobs(model, batch, temperature=temperature)
        of_all = agent_coefficient(
            logprobs, logprobs, batch.agent_logprobs, batch.advantages, objective
        )
        of_agents = torch.where(batch.agent_mask, of_all, torch.nan)
        coefficients.append(of_agents[0, : len(episode.tokens)].cpu().numpy())
    return coefficients


def write_coefficients(path: Path, coefficients: Sequence[NDArray[np.float32]]) -> None:
    """Write the coefficients of the episodes in `path` (`….jsonl`) beside them, as
    `….coefficients.json`.
    """
    rows = [
        [None if math.isnan(value) else value for value in row.tolist()]
        for row in coefficients
    ]
    write_anew(path.with_suffix(".coefficients.json"), json.dumps(rows))


def read_coefficients(
    path: Path, episodes: Sequence[Episode]
) -> list[NDArray[np.float32]]:
    """Return float32[T] per episode in `path`, from the file beside it; NaN where
    unknown, or without a file.

    Raises:
        DataError: The file is corrupt or belongs to other episodes.
    """
    beside = path.with_suffix(".coefficients.json")
    if not beside.is_file() or beside.is_symlink():
        return [
            np.full(len(episode.tokens), np.nan, np.float32) for episode in episodes
        ]
    try:
        arrays = [_as_array(row) for row in _lists(json.loads(read_whole(beside)))]
    except (RecursionError, ValueError) as error:
        raise DataError(
            f"{beside}: no lists of coefficients ({error}). Delete the file."
        ) from error
    if [len(array) for array in arrays] != [
        len(episode.tokens) for episode in episodes
    ]:
        raise DataError(
            f"{beside}: does not fit the episodes in {path.name}. Delete the file."
        )
    return arrays


def _lists(value: Any) -> list[list[Any]]:
    """Return a list of lists of numbers and nulls; raise ValueError if it is something
    else.
    """
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise ValueError(f"{shown(value)} is no list of lists")
    return value


def _as_array(row: list[Any]) -> NDArray[np.float32]:
    """Return the numbers of a list, NaN for null; raise ValueError if it holds
    something else.
    """
    numbers = [math.nan if value is None else value for value in row]
    for number in numbers:
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        # Infinities and NaN may be what the objective came to; more digits are none of
        # ours.
        if not is_number or MAX_FLOAT32 < abs(number) < math.inf:
            raise ValueError(f"{shown(number)} is no coefficient")
    return np.array(numbers, np.float32)
