"""What a viewer shows of tokens beyond their record: their text, and their coefficients in the objective."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedModel

from aipo_env import DataError, Episode
from aipo_learner.learn.objective import agent_coefficient
from aipo_learner.learn.rows import collate, episode_row
from aipo_learner.policy.load import token_logprobs
from aipo_learner.settings.train import TrainConfig


def token_decoder(policy: Path) -> Callable[[int], str]:
    """Return a function that gives the text of one token id of a policy's tokenizer.

    Raises:
        DataError: There is no such folder. Nothing is looked for elsewhere.
    """
    if not policy.is_dir():
        raise DataError(f"{policy}: no such folder, so its tokens cannot be read.")
    tokenizer = AutoTokenizer.from_pretrained(str(policy), local_files_only=True)

    def decode(token_id: int) -> str:
        text = str(tokenizer.decode([token_id]))
        # SentencePiece drops the blank before a word that is decoded alone.
        starts_word = str(tokenizer.convert_ids_to_tokens(token_id)).startswith("▁")
        return f" {text}" if starts_word and not text.startswith(" ") else text

    return decode


@torch.no_grad()
def episode_coefficients(
    model: PreTrainedModel, episodes: Sequence[Episode], config: TrainConfig
) -> list[NDArray[np.float32]]:
    """Return the coefficient of every agent token at the model's weights, as if the advantage were positive.

    float32[T] per episode, NaN at all other tokens.
    """
    coefficients = []
    for episode in episodes:
        batch = collate([episode_row(episode, 1.0)], 0, model.device)
        logprobs, _ = token_logprobs(model, batch, temperature=config.temperature)
        known = (batch.agent_logprobs, batch.advantages, config.objective)
        found = torch.where(
            batch.agent_mask, agent_coefficient(logprobs, logprobs, *known), torch.nan
        )
        coefficients.append(found[0, : len(episode.tokens)].cpu().numpy())
    return coefficients


def write_coefficients(path: Path, coefficients: Sequence[NDArray[np.float32]]) -> None:
    """Write the coefficients of the episodes in `path` (`….jsonl`) beside them, as `….coefficients.json`."""
    rows = [
        [None if math.isnan(value) else value for value in row.tolist()]
        for row in coefficients
    ]
    path.with_suffix(".coefficients.json").write_text(
        json.dumps(rows), encoding="utf-8"
    )


def read_coefficients(
    path: Path, episodes: Sequence[Episode]
) -> list[NDArray[np.float32]]:
    """Return float32[T] per episode in `path`, from the file beside it; NaN where unknown, or without a file.

    Raises:
        DataError: The file is corrupt or belongs to other episodes.
    """
    beside = path.with_suffix(".coefficients.json")
    if not beside.is_file() or beside.is_symlink():
        return [
            np.full(len(episode.tokens), np.nan, np.float32) for episode in episodes
        ]
    try:
        rows = json.loads(beside.read_text(encoding="utf-8"))
        arrays = [
            np.array([np.nan if v is None else v for v in row], np.float32)
            for row in rows
        ]
    except (TypeError, ValueError) as error:
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
