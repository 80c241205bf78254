"""Steps that nothing is learned from: the reasons, and what is said to do about
them.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from aipo_env import (
    Episode,
    ScriptedPolicy,
    StopReason,
    Verdict,
    build_scenario,
)
from aipo_learner.learn.idle import (
    stop_idle,
    what_to_do,
    why_idle,
)
from aipo_learner.run.metrics_log import num_trailing_idle


def episode(text: str = r"\boxed{1}") -> Episode:
    session = build_scenario("toy").rollout("train", 0, 0, index=0, aided=True)
    return ScriptedPolicy([text]).run(session)


WRONG = episode()
RIGHT = episode(r"\boxed{7623}")
CUT = replace(WRONG, stop_reason=StopReason.MAX_SAMPLED_TOKENS)
PARTIAL = replace(WRONG, reward=0.25)
FAILED = replace(
    WRONG,
    stop_reason=StopReason.VERIFIER_ERROR,
    reward=None,
    verdict=Verdict(correct=None, reward=None, status="error", reason="it broke."),
)


@pytest.mark.parametrize(
    ("groups", "reasons", "advice"),
    [
        ([[WRONG] * 2] * 3, "3 x group all wrong", "hardly ever succeeds"),
        ([[RIGHT] * 2], "1 x group all right", "take harder ones"),
        ([[PARTIAL] * 2], "1 x group of equal rewards", "tells more answers apart"),
        (
            [[WRONG, CUT]],
            "1 x group all wrong; 1 of 2 episodes were cut off",
            "max-policy-tokens",
        ),
        (
            [[WRONG, FAILED], [WRONG] * 2],
            (
                "1 x group with a failed episode, verifier_error; 1 x group all wrong; "
                "the first failure: it broke"
            ),
            "Correct the verifier or the reward function",
        ),
    ],
)
def test_reasons(groups: Sequence[Sequence[Episode]], reasons: str, advice: str):
    assert why_idle(groups) == reasons
    assert advice in what_to_do(groups)
    error = stop_idle(3, groups, "runs/x")
    assert f"3 steps in a row gave no gradient.*{reasons}".split(".*")[0] in str(error)
    assert reasons in str(error)
    assert error.exit_code == 2


def test_failed_consultations_are_counted():
    session = build_scenario(
        "toy", "scripted:silent=1", pool={"deadline_s": 0.01, "retries": 0}
    )
    asked = ScriptedPolicy(["<knowledge>mele</knowledge>", r"\boxed{1}"]).run(
        session.rollout("train", 0, 0, index=0, aided=True)
    )
    assert (
        why_idle([[asked, asked]])
        == "1 x group all wrong; 2 of 2 consultations failed: no reply within 0.01 s"
    )
    assert what_to_do([[asked, asked]]).startswith("No agent answers")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([], 0), ([0, 0], 2), ([0, 3], 0), ([3, 0, 0], 2), ([0, 3, 0], 1)],
)
def test_idle_steps_are_counted_from_the_end(rows: list[int], expected: int):
    assert num_trailing_idle([{"rows": number} for number in rows]) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(2, 2), (5, 5)], 2),
        ([(2, 2), (5, 4)], 0),
        ([(3, 0), (0, 0), (4, 4)], 2),
        ([(2, 2), (3, 1), (1, 1)], 1),
    ],
)
def test_steps_of_observation_tokens_alone_are_idle(
    rows: list[tuple[int, int]], expected: int
):
    metrics = [{"rows": number, "rows/only_observed": only} for number, only in rows]
    assert num_trailing_idle(metrics) == expected


def test_of_idle_steps_with_observations_no_other_gradient_is_told():
    error = stop_idle(2, [[WRONG] * 2], "runs/x", observes=True)
    assert "2 steps in a row gave no gradient but of observation tokens" in str(error)


def test_groups_that_masking_leaves_nothing_of_say_so():
    masked = why_idle([[CUT, CUT]], mask_truncated=True)
    assert masked.startswith("1 x group all cut off, which mask_truncated leaves out;")
    assert why_idle([[CUT, CUT]]).startswith("1 x group all wrong;")
