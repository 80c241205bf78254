"""From the rewards of one group to the advantage of each of its episodes."""

import math
import statistics
from collections.abc import Sequence

USES_STD: dict[str, bool] = {
    "grpo": True,
    "dr_grpo": False,
    "dapo": True,
    "rloo": False,
    "gspo": True,
    "cispo": True,
    "gppo": True,
}
BASELINES = ("split", "union", "per_mode")
STD_EPSILON = 1e-6


def group_advantages(
    rewards: Sequence[float], aided: Sequence[bool], *, base: str, baseline: str = "split"
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

    Raises ValueError for an unknown base or baseline, unequal lengths, a reward not finite.
    """
    _check_group(rewards, aided, base, baseline)
    return [
        _advantage(row, _comparison_set(row, aided, baseline), rewards, base) for row in range(len(rewards))
    ]


def _comparison_set(row: int, aided: Sequence[bool], baseline: str) -> list[int]:
    """The rows that `row` is compared with, itself included."""
    if baseline == "union" or (baseline == "split" and aided[row]):
        return list(range(len(aided)))
    return [other for other in range(len(aided)) if bool(aided[other]) == bool(aided[row])]


def _advantage(row: int, compared: list[int], rewards: Sequence[float], base: str) -> float:
    averaged = [other for other in compared if other != row] if base == "rloo" else compared
    if not averaged:
        return 0.0
    # The mean of differences, not the difference from a mean: equal rewards give 0 exactly.
    gain = math.fsum(rewards[row] - rewards[other] for other in averaged) / len(averaged)
    if not USES_STD[base]:
        return gain
    return gain / (statistics.pstdev(rewards[other] for other in compared) + STD_EPSILON)


def is_dropped(advantages: Sequence[float]) -> bool:
    """Whether a group teaches nothing: every advantage is 0 (arXiv 2503.14476)."""
    return all(advantage == 0 for advantage in advantages)


def overlong_penalty(num_policy_tokens: int, max_policy_tokens: int, buffer_tokens: int) -> float:
    """Reward term that punishes length softly (arXiv 2503.14476).

    0 up to `max_policy_tokens - buffer_tokens`, then linear down to -1 at `max_policy_tokens`.

    >>> overlong_penalty(90, 100, 20)
    -0.5

    Raises ValueError unless 0 <= `buffer_tokens` <= `max_policy_tokens`.
    """
    if not 0 <= buffer_tokens <= max_policy_tokens:
        raise ValueError(
            f"buffer_tokens is {buffer_tokens}: it must lie between 0 and "
            f"max_policy_tokens={max_policy_tokens}."
        )
    overlong = num_policy_tokens - (max_policy_tokens - buffer_tokens)
    if overlong <= 0:
        return 0.0
    return -min(1.0, overlong / max(buffer_tokens, 1))


def _check_group(rewards: Sequence[float], aided: Sequence[bool], base: str, baseline: str) -> None:
    if base not in USES_STD:
        raise ValueError(f"base is {base!r}: it must be one of {', '.join(USES_STD)}.")
    if baseline not in BASELINES:
        raise ValueError(f"baseline is {baseline!r}: it must be one of {', '.join(BASELINES)}.")
    if len(rewards) != len(aided):
        raise ValueError(f"aided has {len(aided)} entries for {len(rewards)} rewards: give one per episode.")
    for row, reward in enumerate(rewards):
        if not math.isfinite(reward):
            raise ValueError(f"rewards[{row}] is {reward}: it must be a finite number.")
