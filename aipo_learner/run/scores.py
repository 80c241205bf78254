"""The scores of a run's evaluations: which was best, and whether more bring better."""

from collections.abc import Mapping

SCORE = "eval/pass_at_1"
"""The metric that chooses weights: the share of correct episodes, held out, alone."""


def best_step(scores: Mapping[int, float]) -> int:
    """Return the step with the highest score, the first of equals; 0 without any.

    Args:
        scores: By the number of steps that the weights had made.
    """

    # Of equal scores, the least step makes the greatest pair.
    def rank(step: int) -> tuple[float, int]:
        return scores[step], -step

    return max(scores, key=rank, default=0)


def is_stalled(scores: Mapping[int, float], patience: int) -> bool:
    """Return whether the last `patience` evaluations brought nothing better.

    A patience of 0 never ends.

    >>> is_stalled({10: 0.2, 20: 0.3, 30: 0.3, 40: 0.1}, 2)
    True
    """
    if patience <= 0:
        return False
    best = best_step(scores)
    num_since_best = sum(step > best for step in scores)
    return num_since_best >= patience
