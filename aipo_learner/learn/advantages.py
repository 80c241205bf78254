"""From the rewards of one group to the advantage of each of its episodes."""

import math
import statistics
from collections.abc import Sequence

WITHOUT_STD = ("dr_grpo", "rloo")
BASELINES = ("split", "union", "per_mode")
STD_EPSILON = 1e-6


def group_advantages(
    rewards: Sequence[float],
    aided: Sequence[bool],
    *,
    base: str,
    baseline: str = "split",
) -> list[float]:
    """Advantages of one group, in the order of `rewards`.

    `aided[i]` says whether episode i was allowed to consult. Each episode is compared with a set:
    `split` compares an aided one with the whole group and an unaided one with the unaided only,
    `union` compares all with the whole group, `per_mode` aided with aided and unaided with
    unaided. A = (R - mean) / (std + 1e-6) over that set; `dr_grpo` leaves out the std (arXiv
    2503.20783), and so does `rloo`, whose mean also leaves out the episode itself (arXiv
    2402.14740). The std is the population's (divided by n), which a set of one has too. A set
    of one, or of equal rewards, gives exactly 0. The baselines are our reconstruction.

    >>> group_advantages([1, 0, 0, 0], [True, True, False, False], base="dr_grpo")
    [0.75, -0.25, 0.0, 0.0]
    """
    return [
        _advantage(row, _comparison_set(row, aided, baseline), rewards, base)
        for row in range(len(rewards))
    ]


def _comparison_set(row: int, aided: Sequence[bool], baseline: str) -> list[int]:
    """The rows that `row` is compared with, itself included."""
    if baseline == "union" or (baseline == "split" and aided[row]):
        return list(range(len(aided)))
    return [
        other for other in range(len(aided)) if bool(aided[other]) == bool(aided[row])
    ]


def _advantage(
    row: int, compared: list[int], rewards: Sequence[float], base: str
) -> float:
    averaged = (
        [other for other in compared if other != row] if base == "rloo" else compared
    )
    if not averaged:
        return 0.0
    # The mean of differences, not the difference from a mean: equal rewards give 0 exactly.
    gain = math.fsum(rewards[row] - rewards[other] for other in averaged) / len(
        averaged
    )
    if base in WITHOUT_STD:
        return gain
    return gain / (
        statistics.pstdev(rewards[other] for other in compared) + STD_EPSILON
    )


def is_dropped(advantages: Sequence[float]) -> bool:
    """Whether a group teaches nothing: every advantage is 0 (arXiv 2503.14476)."""
    return all(advantage == 0 for advantage in advantages)


def overlong_penalty(
    num_policy_tokens: int, max_policy_tokens: int, buffer_tokens: int
) -> float:
    """Reward term that punishes length softly (arXiv 2503.14476).

    0 up to `max_policy_tokens - buffer_tokens`, then linear down to -1 at `max_policy_tokens`.

    >>> overlong_penalty(90, 100, 20)
    -0.5

    `buffer_tokens` is from 0 to `max_policy_tokens`.
    """
    overlong = num_policy_tokens - (max_policy_tokens - buffer_tokens)
    return -min(1.0, max(0, overlong) / max(buffer_tokens, 1))
