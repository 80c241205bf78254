"""What is done when an update fails: its batch is kept, and advice is given."""

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
from aipo_learner.learn.metrics import AGENT_FREE, MEANS
from aipo_learner.learn.rows import Row
from aipo_learner.policy.distributed import rank

_SAMPLE_SIZES = {"effective_sample_size", f"effective_sample_size{AGENT_FREE}"}
_SOMETIMES_ABSENT = {*MEANS, *_SAMPLE_SIZES} - {"kl_ref"}
"""Means over nothing, if a step has no such tokens. `kl_ref` is absent in every step of
a run without a reference: a bound of it is a mistake.
"""
_COUNTED_IN = {
    "observation_p_mean": "observation_tokens",
    "observation_gradient_share": "observation_tokens",
    "teacher_gap": "teacher_tokens",
}
"""Of means that some objectives have: the count that is in every step of theirs."""


@contextlib.contextmanager
def guarded_update(
    folder: Path, step: int, rows: Sequence[Row], episodes: Sequence[Episode]
) -> Iterator[None]:
    """When the update raises PolicyError, keep its batch and say how to look at it.

    Args:
        folder: Of the run; `failed/` in it gets what is kept.
        step: Number of the step, from 1.
        rows: What the update is made of.
        episodes: What these rows were made of.
    """
    try:
        yield
    except PolicyError as error:
        if rank():  # rank 0 writes
            raise
        place = folder / "failed" / f"step-{step:06d}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        tensors = place.with_suffix(".pt")
        # A step may fail in the same way again, and files are appended to.
        for old in (place, tensors):
            old.unlink(missing_ok=True)
        write_episodes(place, episodes)
        rows_as_tensors = [_as_tensors(row) for row in rows]
        torch.save({"step": step, "rows": rows_as_tensors}, tensors)
        raise PolicyError(
            f"step {step}: {error} Its episodes: aipo view {place}; the rows it was"
            " trained on, as tensors: "
            f'torch.load("{tensors}")["rows"].'
        ) from error


def _as_tensors(row: Row) -> dict[str, Tensor]:
    """Return a row's fields as tensors, which torch.load reads without our classes.

    Those that it has not are left out.
    """
    names = [field.name for field in dataclasses.fields(row)]
    values = {name: getattr(row, name) for name in names}
    return {
        name: torch.as_tensor(value)
        for name, value in values.items()
        if value is not None
    }


def _may_be_absent(name: str, telemetry: Mapping[str, float]) -> bool:
    """Return whether another step of the run may have a metric that this has not."""
    count = _COUNTED_IN.get(name)
    has_term = count is None or count in telemetry
    return name in _SOMETIMES_ABSENT and has_term


def check_bounds(
    telemetry: Mapping[str, float], bounds: Mapping[str, Sequence[float | None]]
) -> None:
    """Compare the telemetry of an update with `TrainConfig.bounds`.

    Args:
        telemetry: Metrics by name.
        bounds: By name of a metric the lowest and the highest value, None for no bound.

    Raises:
        PolicyError: A metric is out of its bounds. ConfigError: there is no such
            metric.
    """
    for name, (low, high) in bounds.items():
        if name not in telemetry:
            if _may_be_absent(name, telemetry):
                continue
            raise ConfigError(
                f"config: bounds has {name!r}, which no update reports."
                f" {suggest(name, telemetry)}"
            )
        value = telemetry[name]
        # So that NaN, which is neither less nor more, is within no bound.
        is_above_low = low is None or value >= low
        is_below_high = high is None or value <= high
        if not is_above_low or not is_below_high:
            raise PolicyError(
                f"{name} is {value:.6g}, out of its bounds {low} to {high}. Lower lr,"
                " or raise objective.kl_coef, and start from an earlier checkpoint in"
                " another --out; or change --bounds and go on from the last one."
            )


def update_advice(
    rows: Sequence[Row], microbatch_tokens: int, *, has_checkpointing: bool
) -> str:
    """Say how to update with less memory.

    What a pass needs is in proportion to its tokens.

    Args:
        rows: What the update is made of.
        microbatch_tokens: What a pass has at most, unless one row has more.
        has_checkpointing: Whether activations are computed again already.
    """
    longest = max(len(row.token_ids) for row in rows)
    if microbatch_tokens > longest:
        # Fewer than the longest row has would change nothing for this row.
        fewer = max(longest, microbatch_tokens // 2)
        saving = 1 - fewer / microbatch_tokens
        return (
            f"It happened in an update with --microbatch-tokens {microbatch_tokens};"
            f" {fewer} needs {saving:.0%} less for activations,"
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
