"""The scores of a run's evaluations: which weights were best, and whether it still gets
better.
"""

from collections.abc import Mapping

SCORE = "eval/pass_at_1"
"""The metric by which weights are chosen: over held-out tasks, the mean share of
correct episodes, alone.
"""


def best_step(scores: Mapping[int, float]) -> int:
    """Return the step with the highest score, the first of equals; 0 where there is
    none.
    """
    return max(scores, key=lambda step: (scores[step], -step), default=0)


def is_stalled(scores: Mapping[int, float], patience: int) -> bool:
    """Return whether the last `patience` evaluations brought nothing better; 0 is
    never.

    >>> is_stalled({10: 0.2, 20: 0.3, 30: 0.3, 40: 0.1}, 2)
    True
    """
    return 0 < patience <= sum(step > best_step(scores) for step in scores)
