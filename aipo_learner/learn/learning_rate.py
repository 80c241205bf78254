"""The learning rate of each step."""

import torch


def learning_rate(
    step: int, *, peak: float, warmup_steps: int, num_steps: int, end_share: float
) -> float:
    """Return the rate of a step: a linear rise over `warmup_steps`, then a linear fall
    to `end_share` of the peak.

    >>> rates = {"peak": 1.0, "warmup_steps": 2, "num_steps": 6, "end_share": 0.5}
    >>> [learning_rate(step, **rates) for step in (0, 1, 5)]
    [0.5, 1.0, 0.5]
    """
    risen = min(1.0, (step + 1) / max(1, warmup_steps))
    num_falling = max(1, num_steps - warmup_steps)
    fallen = max(0, step + 1 - warmup_steps) / num_falling
    return peak * risen * (1 - (1 - end_share) * fallen)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
