"""What is done when an update fails: the batch is kept for inspection, and the reason
says what to change.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from aipo_env import (
    ConfigError,
    Episode,
    PolicyError,
    suggest,
    write_episodes,
)
from aipo_learner.learn.metrics import MEANS
from aipo_learner.learn.rows import Row
from aipo_learner.policy.distributed import rank


@contextlib.contextmanager
def guarded_update(
    folder: Path, step: int, rows: Sequence[Row], episodes: Sequence[Episode]
) -> Iterator[None]:
    """When the update of a step raises PolicyError, keep its rows and episodes and say
    how to look at them.

    Args:
        folder: Of the run; `failed/` in it gets them.
    """
    try:
        yield
    except PolicyError as error:
        if rank():  # rank 0 writes
            raise
        place = folder / "failed" / f"step-{step:06d}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        tensors = place.with_suffix(".pt")
        for old in (place, tensors):
            old.unlink(missing_ok=True)
        write_episodes(place, episodes)
        torch.save({"step": step, "rows": list(map(_as_tensors, rows))}, tensors)
        raise PolicyError(
            f"step {step + 1}: {error} Its episodes: aipo view {place}; the rows it was"
            " trained on, as tensors: "
            f'torch.load("{tensors}")["rows"].'
        ) from error


def _as_tensors(row: Row) -> dict[str, Tensor]:
    fields = dataclasses.fields(row)
    return {field.name: torch.as_tensor(getattr(row, field.name)) for field in fields}


def check_bounds(
    telemetry: Mapping[str, float], bounds: Mapping[str, Sequence[float | None]]
) -> None:
    """Compare the telemetry of an update with `TrainConfig.bounds`.

    Raises:
        PolicyError: A metric is out of its bounds. ConfigError: there is no such
            metric.
    """
    for name, (low, high) in bounds.items():
        if name not in telemetry:
            if name in {*MEANS, "effective_sample_size"} - {"kl_ref"}:
                continue  # a mean over nothing: this step had no such tokens
            raise ConfigError(
                f"config: bounds has {name!r}, which no update reports."
                f" {suggest(name, telemetry)}"
            )
        value = telemetry[name]
        if not (low is None or value >= low) or not (high is None or value <= high):
            raise PolicyError(
                f"{name} is {value:.6g}, out of its bounds {low} to {high}. Lower lr,"
                " or raise objective.kl_coef, and start from an earlier checkpoint in"
                " another --out; or change --bounds and go on from the last one."
            )


def update_advice(
    rows: Sequence[Row], microbatch_tokens: int, *, has_checkpointing: bool
) -> str:
    """Say how to update with less memory: what a pass needs is in proportion to its
    tokens.
    """
    longest = max(len(row.token_ids) for row in rows)
    if microbatch_tokens > longest:
        fewer = max(longest, microbatch_tokens // 2)
        return (
            f"It happened in an update with --microbatch-tokens {microbatch_tokens};"
            f" {fewer} needs {1 - fewer / microbatch_tokens:.0%} less for activations,"
            " and changes nothing in the result."
        )
    alone = (
        f"It happened in an update, and the longest row, {longest} tokens, alone is"
        f" more than microbatch_tokens={microbatch_tokens}, so smaller microbatches"
        " cannot help."
    )
    if not has_checkpointing:
        return (
            f"{alone} Use --compute.gradient-checkpointing, which keeps the activations"
            " of one layer at a time."
        )
    return (
        f"{alone} Lower --environment.rules.max-context-tokens to {longest // 2}, which"
        " halves it, or train with LoRA."
    )
