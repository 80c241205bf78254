"""The reward that advantages are taken of: the verdict's, and the terms beside it."""

from dataclasses import replace

import pytest

from aipo_env import Consult, DialogueRules, Episode, ScriptedPolicy, build_scenario
from aipo_learner.learn.rewards import shaped_reward
from aipo_learner.settings.stages import RewardSettings

RULES = DialogueRules(max_policy_tokens=100)
PLAIN = RewardSettings(consult_bonus=0.0, consult_cost=0.0, overlong_buffer=0)


def episode(*statuses: str, reward: float = 1.0, num_tokens: int = 0) -> Episode:
    """Return an episode whose consultations ended so."""
    said = "x" * num_tokens + "\\boxed{1}"
    session = build_scenario("toy").rollout("train", 0, 0, index=0, aided=True)
    consults = tuple(
        Consult(
            kind="verify",
            agent_id="a",
            query="q",
            reply="r",
            status=status,
            call_id=number,
            turn=1,
        )
        for number, status in enumerate(statuses)
    )
    made = ScriptedPolicy([said]).run(session)
    verdict = replace(made.verdict, correct=reward == 1.0, reward=reward)
    return replace(made, consults=consults, reward=reward, verdict=verdict)


def test_without_terms_it_is_the_verdicts():
    assert shaped_reward(episode("answered"), PLAIN, RULES, 1.0) == 1.0
    assert shaped_reward(episode(reward=0.25), PLAIN, RULES, 1.0) == 0.25


def test_every_answered_consultation_costs():
    settings = replace(PLAIN, consult_cost=0.1)
    made = episode("answered", "failed", "answered", "leaked", "denied")
    assert shaped_reward(made, settings, RULES, 1.0) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("statuses", "reward", "share", "expected"),
    [
        (("answered", "answered"), 1.0, 1.0, 1.5),
        (("answered",), 1.0, 0.5, 1.25),
        (("answered",), 1.0, 0.0, 1.0),
        (("failed",), 1.0, 1.0, 1.0),
        (("answered",), 0.0, 1.0, 0.0),
        ((), 1.0, 1.0, 1.0),
    ],
)
def test_a_correct_episode_that_consulted_has_a_bonus_that_is_annealed(
    statuses: tuple[str, ...], reward: float, share: float, expected: float
):
    settings = replace(PLAIN, consult_bonus=0.5)
    made = episode(*statuses, reward=reward)
    assert shaped_reward(made, settings, RULES, share) == expected


def test_length_is_punished_over_the_last_tokens_before_the_limit():
    settings = replace(PLAIN, overlong_buffer=40)
    made = episode(num_tokens=71)  # with the answer, 80 bytes
    assert int(made.tokens.policy_mask.sum()) == 80
    assert shaped_reward(made, settings, RULES, 1.0) == 0.5
