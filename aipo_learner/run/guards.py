"""What a run does when a step fails: it stops, keeps the batch for inspection, and says which knob to turn."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch

from aipo_env import (
    ConfigError,
    Episode,
    PolicyError,
    parse_spec,
    suggest,
    write_episodes,
)
from aipo_learner.learn.metrics import MEANS
from aipo_learner.learn.rows import Row
from aipo_learner.policy.distributed import rank
from aipo_learner.settings.train import TrainConfig


@contextlib.contextmanager
def guarded_update(
    config: TrainConfig, step: int, rows: Sequence[Row], episodes: Sequence[Episode]
) -> Iterator[None]:
    """When the update of a step raises PolicyError, keep its rows and episodes and say how to look at them.

    Where memory runs out, say what to change.
    """
    try:
        with out_of_memory_explained(update_advice(config, rows)):
            yield
    except PolicyError as error:
        if rank():
            raise
        place = config.out / "failed" / f"step-{step:06d}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        write_episodes(place, episodes)
        fields = [
            {
                f.name: torch.as_tensor(getattr(row, f.name))
                for f in dataclasses.fields(row)
            }
            for row in rows
        ]
        torch.save({"step": step, "rows": fields}, place.with_suffix(".pt"))
        raise PolicyError(
            f"step {step + 1}: {error} Its episodes: aipo view {place}; the rows it was trained on, as tensors: "
            f'torch.load("{place.with_suffix(".pt")}")["rows"].'
        ) from error


def check_bounds(
    telemetry: Mapping[str, float], bounds: Mapping[str, Sequence[float | None]]
) -> None:
    """Compare the telemetry of an update with `TrainConfig.bounds`.

    Raises:
        PolicyError: A metric is out of its bounds. ConfigError: there is no such metric.
    """
    for name, (low, high) in bounds.items():
        if name not in telemetry:
            if name in {*MEANS, "effective_sample_size"} - {"kl_ref"}:
                continue  # a mean over nothing: this step had no such tokens
            raise ConfigError(
                f"config: bounds has {name!r}, which no update reports. {suggest(name, telemetry)}"
            )
        value = telemetry[name]
        if not (low is None or value >= low) or not (high is None or value <= high):
            raise PolicyError(
                f"{name} is {value:.6g}, out of its bounds {low} to {high}. Lower lr, or raise objective.kl_coef, and "
                "start from an earlier checkpoint in another --out; or change --bounds and go on from the last one."
            )


@contextlib.contextmanager
def out_of_memory_explained(advice: str) -> Iterator[None]:
    """Turn torch's want of memory into ConfigError that says what to change."""
    try:
        yield
    except (
        MemoryError,
        RuntimeError,
    ) as error:  # on CPU, torch has no error of its own for it
        is_memory = isinstance(
            error, MemoryError | torch.OutOfMemoryError
        ) or "allocate memory" in str(error)
        if not is_memory:
            raise
        raise ConfigError(
            f"out of memory: {str(error).splitlines()[0]} {advice}"
        ) from error


def sampling_advice(config: TrainConfig) -> str:
    """Say how to sample with less memory."""
    kind, options = parse_spec(config.sampler, "sampler")
    if kind not in ("auto", "transformers"):
        return "It happened while episodes were sampled: lower gpu_memory_utilization in --sampler."
    num_rows = min(
        options.get("max_rows", 256), config.groups_per_step * config.group_size
    )
    return (
        f"It happened while {num_rows} episodes were sampled side by side; the cache needs memory in proportion. Halve "
        f"them: --sampler transformers:max_rows={num_rows // 2 or 1}."
    )


def update_advice(config: TrainConfig, rows: Sequence[Row]) -> str:
    """Say how to update with less memory: what a pass needs is in proportion to its tokens."""
    longest = max(len(row.token_ids) for row in rows)
    if config.microbatch_tokens > longest:
        fewer = max(longest, config.microbatch_tokens // 2)
        return (
            f"It happened in an update with --microbatch-tokens {config.microbatch_tokens}; {fewer} needs "
            f"{1 - fewer / config.microbatch_tokens:.0%} less for activations, and changes nothing in the result."
        )
    alone = (
        f"It happened in an update, and the longest row, {longest} tokens, alone is more than microbatch_tokens="
        f"{config.microbatch_tokens}, so smaller microbatches cannot help."
    )
    if not config.compute.gradient_checkpointing:
        return f"{alone} Use --compute.gradient-checkpointing, which keeps the activations of one layer at a time."
    return f"{alone} Lower max_context_tokens in --rules to {longest // 2}, which halves it, or train with LoRA."
