"""The learning rate of each step."""

import math

import torch


def learning_rate(
    step: int,
    *,
    peak: float,
    warmup_steps: int,
    num_steps: int,
    end_share: float,
    decay: str = "linear",
) -> float:
    """Return the rate of a step: a linear rise, then a fall.

    Args:
        step: Counted from 0.
        peak: The highest rate.
        warmup_steps: Steps of the rise.
        num_steps: Of the whole run.
        end_share: Share of the peak that is left at the last step.
        decay: How it falls to that: "linear", "cosine" (half a period), or "constant"
            for not at all.

    >>> rates = {"peak": 1.0, "warmup_steps": 2, "num_steps": 6, "end_share": 0.5}
    >>> [learning_rate(step, **rates) for step in (0, 1, 5)]
    [0.5, 1.0, 0.5]
    """
    # The first step has a rate above 0 already, or it would change nothing.
    num_made = step + 1
    # Without warm-up, or with nothing after it, there is one step to divide by.
    rise = min(1.0, num_made / max(1, warmup_steps))
    num_falling = max(1, num_steps - warmup_steps)
    fall = max(0, num_made - warmup_steps) / num_falling
    if decay == "constant":
        fall = 0.0
    if decay == "cosine":
        fall = (1 - math.cos(math.pi * fall)) / 2
    return peak * rise * (1 - (1 - end_share) * fall)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
