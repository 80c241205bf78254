"""From the rewards of one group to the advantage of each of its episodes."""

import math
import statistics
from collections.abc import Sequence

from aipo_env import suggest
from aipo_learner.learn.base_algorithms import BaseAlgorithm, find_base
from aipo_learner.settings.objective import BASELINES

STD_EPSILON = 1e-6
"""Added to the standard deviation, which may be next to nothing."""


def group_advantages(
    rewards: Sequence[float],
    aided: Sequence[bool],
    *,
    base: str,
    baseline: str = "split",
) -> list[float]:
    """Return the advantages of one group, in the order of `rewards`.

    `aided[i]` says whether episode i was allowed to consult. Each episode is compared
    with a set: `split` compares an aided one with the whole group and an unaided one
    with the unaided only, `union` compares all with the whole group, `per_mode` aided
    with aided and unaided with unaided. A = (R - mean) / (std + 1e-6) over that set;
    `dr_grpo` leaves out the std (arXiv 2503.20783), and so does `rloo`, whose mean also
    leaves out the episode itself (arXiv 2402.14740); a base of your own does as it
    says. The std is the population's (divided by n), which a set of one has too. A set
    of one, or of equal rewards, gives exactly 0. The baselines are our reconstruction.

    >>> group_advantages([1, 0, 0, 0], [True, True, False, False], base="dr_grpo")
    [0.75, -0.25, 0.0, 0.0]

    Raises:
        ValueError: `base` or `baseline` is unknown, a reward is not finite, or
            `rewards` and `aided` differ in length.
    """
    algorithm = find_base(base)
    _check_group(rewards, aided, baseline)
    advantages: list[float] = []
    for row in range(len(rewards)):
        compared = _comparison_set(row, aided, baseline)
        advantages.append(_advantage(row, compared, rewards, algorithm))
    return advantages


def _check_group(
    rewards: Sequence[float], aided: Sequence[bool], baseline: str
) -> None:
    """Raise ValueError for what would give numbers that mean something else."""
    if baseline not in BASELINES:
        raise ValueError(f"baseline={baseline!r}. {suggest(str(baseline), BASELINES)}")
    if len(rewards) != len(aided):
        raise ValueError(
            f"{len(rewards)} rewards and {len(aided)} values of aided: there must be"
            " one of each for every episode of the group."
        )
    for row, reward in enumerate(rewards):
        if not math.isfinite(reward):
            raise ValueError(
                f"rewards[{row}]={reward} is not finite. Leave out the whole group: "
                "without this episode its baseline would be another."
            )


def _comparison_set(row: int, aided: Sequence[bool], baseline: str) -> list[int]:
    """Return the rows that `row` is compared with, itself included."""
    group = list(range(len(aided)))
    if baseline == "union":
        return group
    # Help may make an aided episode better than its whole group, but it makes no
    # unaided one worse.
    if baseline == "split" and aided[row]:
        return group
    return [peer for peer in group if bool(aided[peer]) == bool(aided[row])]


def _advantage(
    row: int, compared: list[int], rewards: Sequence[float], algorithm: BaseAlgorithm
) -> float:
    """Return the advantage of `row` over the rows that it is compared with."""
    averaged = compared
    if algorithm.leaves_out_itself:
        averaged = [peer for peer in compared if peer != row]
    # Alone, an episode is as good as its set.
    if not averaged:
        return 0.0
    # The mean of differences, not the difference from a mean: equal rewards give 0
    # exactly. fsum rounds once, so that the order of the group changes nothing.
    differences = [rewards[row] - rewards[peer] for peer in averaged]
    gain = math.fsum(differences) / len(averaged)
    if not algorithm.divides_by_std:
        return gain
    std = statistics.pstdev(float(rewards[peer]) for peer in compared)
    return gain / (std + STD_EPSILON)


def is_dropped(advantages: Sequence[float]) -> bool:
    """Return whether a group teaches nothing: all are 0 (arXiv 2503.14476)."""
    return all(advantage == 0 for advantage in advantages)


def overlong_penalty(
    num_policy_tokens: int, max_policy_tokens: int, buffer_tokens: int
) -> float:
    """Return the reward term that punishes length softly (arXiv 2503.14476).

    0 up to `max_policy_tokens - buffer_tokens`, then linear down to -1 at
    `max_policy_tokens`.

    >>> overlong_penalty(90, 100, 20)
    -0.5

    Raises:
        ValueError: `buffer_tokens` is not from 0 to `max_policy_tokens`.
    """
    if not 0 <= buffer_tokens <= max_policy_tokens:
        raise ValueError(
            f"buffer_tokens={buffer_tokens} must be from 0 to max_policy_tokens="
            f"{max_policy_tokens}."
        )
    buffer_start = max_policy_tokens - buffer_tokens
    num_overlong = max(0, num_policy_tokens - buffer_start)
    # Without a buffer, the first token too many has the whole penalty.
    share = num_overlong / max(buffer_tokens, 1)
    return -min(1.0, share)
