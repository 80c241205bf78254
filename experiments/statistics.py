"""What rows say together: means, spreads over seeds, paired intervals over tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aipo_learner import pass_at_k

NUM_RESAMPLES = 2000
"""Bootstrap resamples behind every interval."""
_BOUNDS = (0.025, 0.975)
"""Of a 95 % interval."""
_SEED = 20_260
"""The same draws whatever is measured: a page that is written anew is the same."""


@dataclass(frozen=True)
class Spread:
    """A number per seed.

    Args:
        mean: Over the seeds.
        low: Of the seed with the least.
        high: Of the seed with the most.
        num_seeds: How many there are.
    """

    mean: float
    low: float
    high: float
    num_seeds: int


@dataclass(frozen=True)
class Difference:
    """What a method has over another on the same tasks.

    Args:
        mean: Over tasks and seeds.
        low: Of the 95 % interval.
        high: Of it.
    """

    mean: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether 0 is outside the interval."""
        return self.low > 0 or self.high < 0


def spread(values: Sequence[float]) -> Spread:
    """Return the mean of a number per seed, its least and its greatest.

    Raises:
        ValueError: There is none.
    """
    if not values:
        raise ValueError("spread: no values")
    return Spread(float(np.mean(values)), min(values), max(values), len(values))


def pass_at(column: dict[str, Any], k: int) -> NDArray[np.float64]:
    """Return pass@k of every task of a row's column: float64[tasks]."""
    num_samples = column["num_samples"]
    return np.array(
        [pass_at_k(num_samples, number, k) for number in column["num_correct"]]
    )


def difference(
    one: Sequence[NDArray[np.float64]], other: Sequence[NDArray[np.float64]]
) -> Difference:
    """Return the paired difference, with a bootstrap interval over tasks.

    Tasks are drawn again within each seed, so that no seed counts for more.

    Args:
        one: A value for each task, float64[tasks], for each seed.
        other: The same of the method it is compared with: the same seeds and tasks.

    Raises:
        ValueError: The seeds or tasks are not the same in number.
    """
    if not one or len(one) != len(other):
        raise ValueError(f"difference: {len(one)} seeds against {len(other)}")
    draw = np.random.default_rng(_SEED)
    per_seed: list[NDArray[np.float64]] = []
    means: list[float] = []
    for ours, theirs in zip(one, other, strict=True):
        if len(ours) != len(theirs):
            raise ValueError(f"difference: {len(ours)} tasks against {len(theirs)}")
        gaps = ours - theirs
        picked = draw.integers(len(gaps), size=(NUM_RESAMPLES, len(gaps)))
        per_seed.append(gaps[picked].mean(axis=1))
        means.append(float(gaps.mean()))
    resampled = np.mean(per_seed, axis=0)
    low, high = np.quantile(resampled, _BOUNDS)
    return Difference(float(np.mean(means)), float(low), float(high))


def retention(before: dict[str, Any], after: dict[str, Any]) -> float | None:
    """Return success after on the tasks that were solved before; None if none was.

    Tasks count by how often they were solved before.
    """
    weights = np.array(before["num_correct"], float)
    if not weights.sum():
        return None
    shares = np.array(after["num_correct"]) / after["num_samples"]
    return float((weights * shares).sum() / weights.sum())
