"""Every ending and limit of an episode, through both environments."""

from typing import Any, NamedTuple

import gymnasium as gym
import pytest

from aipo_env import Task, Verdict

ASK, CLAIM, BAD = "<knowledge>mele</knowledge>", "<verify>mele=x</verify>", "<verify>"
RIGHT, WRONG, NOTHING = "\\boxed{7623}", "\\boxed{1}", "I do not know."
NOTICE = '<reply from="knowledge">no consultations left</reply>'
UNAVAILABLE = '<reply from="knowledge">unavailable</reply>'
EXPLAINED = "Malformed call: <verify> is not closed. Nothing was asked."


class Broken:
    """A verifier that fails."""

    async def verify(self, task: Task, text: str) -> Verdict:
        raise OSError("the verifier is gone")


class Ending(NamedTuple):
    """What an episode comes to: the flags, the reward, consultations charged, their
    fates, the last feedback.
    """

    stop_reason: str
    flag: str = "terminated"
    reward: float = 0.0
    charged: int = 0
    statuses: str = ""
    feedback: str = ""
    num_invalid: int = 0


TABLE: dict[str, tuple[dict[str, Any], list[str], Ending]] = {
    "right answer": ({}, [RIGHT], Ending("completed", reward=1.0)),
    "wrong answer": ({}, [WRONG], Ending("completed")),
    "no answer": ({}, [NOTHING], Ending("no_answer")),
    "nothing at all": ({}, [""], Ending("no_answer")),
    "right after a reply": (
        {},
        [ASK, RIGHT],
        Ending(
            "completed",
            reward=1.0,
            charged=1,
            statuses="answered",
            feedback='<reply from="knowledge">mele=',
        ),
    ),
    "the verifier fails": (
        {"verifier": Broken()},
        [RIGHT],
        Ending("verifier_error", "truncated"),
    ),
    "unaided": (
        {"aided": False},
        [f"{ASK}{BAD}{RIGHT}"],
        Ending("completed", reward=1.0),
    ),
    "unaided, markup alone": ({"aided": False}, [ASK], Ending("no_answer")),
    # Malformed calls
    "one malformed call": (
        {},
        [BAD, RIGHT],
        Ending("completed", reward=1.0, feedback=EXPLAINED, num_invalid=1),
    ),
    "as many as allowed": (
        {},
        [BAD, BAD, RIGHT],
        Ending("completed", reward=1.0, feedback=EXPLAINED, num_invalid=2),
    ),
    "one too many": (
        {},
        [BAD, BAD, BAD],
        Ending("parse_error", feedback=EXPLAINED, num_invalid=3),
    ),
    "none is allowed": (
        {"rules": {"max_invalid": 0}},
        [BAD],
        Ending("parse_error", num_invalid=1),
    ),
    "good calls between do not forgive": (
        {"rules": {"max_invalid": 1}},
        [BAD, ASK, BAD],
        Ending(
            "parse_error",
            charged=1,
            statuses="answered",
            feedback="<reply",
            num_invalid=2,
        ),
    ),
    "malformed in the last turn": (
        {"rules": {"max_turns": 1}},
        [BAD],
        Ending("max_turns", "truncated", num_invalid=1),
    ),
    "parse errors come before the turn limit": (
        {"rules": {"max_turns": 1, "max_invalid": 0}},
        [BAD],
        Ending("parse_error", num_invalid=1),
    ),
    # Budgets: what is denied is not executed, and free
    "over budget": (
        {"rules": {"consult_budget": 1}},
        [ASK, ASK, RIGHT],
        Ending(
            "completed",
            reward=1.0,
            charged=1,
            statuses="answered denied",
            feedback=NOTICE,
        ),
    ),
    "no budget": (
        {"rules": {"consult_budget": 0}},
        [ASK, RIGHT],
        Ending("completed", reward=1.0, statuses="denied", feedback=NOTICE),
    ),
    "over one agent's budget": (
        {"rules": {"budget_per_kind": {"knowledge": 1}}},
        [CLAIM, ASK, ASK, RIGHT],
        Ending(
            "completed",
            reward=1.0,
            charged=2,
            statuses="answered answered denied",
            feedback=NOTICE,
        ),
    ),
    "an agent that may not be asked": (
        {"rules": {"kinds": ["verify"]}},
        [ASK, CLAIM, RIGHT],
        Ending(
            "completed",
            reward=1.0,
            charged=1,
            statuses="denied answered",
            feedback="<reply",
        ),
    ),
    "denied without end": (
        {"rules": {"consult_budget": 0, "max_turns": 3}},
        [ASK, ASK, ASK],
        Ending("max_turns", "truncated", statuses="denied denied", feedback=NOTICE),
    ),
    # Agents that fail are not charged
    "no agent": (
        {"agents": "none"},  # nobody is offered, so this is text, and an answer
        [ASK],
        Ending("no_answer"),
    ),
    "an agent that says nothing": (
        {"agents": "scripted:silent=1", "pool": {"retries": 0, "deadline_s": 0.01}},
        [ASK, RIGHT],
        Ending(
            "completed", reward=1.0, charged=1, statuses="failed", feedback=UNAVAILABLE
        ),
    ),
    "a role nobody answers for leaves the budget": (
        {"agents": {"verify": "scripted"}, "rules": {"consult_budget": 1}},
        [ASK, CLAIM, RIGHT],
        Ending(
            "completed",
            reward=1.0,
            charged=1,
            statuses="failed answered",
            feedback="<reply",
        ),
    ),
    # Limits
    "turns": (
        {"rules": {"max_turns": 2}},
        [ASK, ASK],
        Ending("max_turns", "truncated", 0.0, 1, "answered", "<reply"),
    ),
    "an answer in the last turn": (
        {"rules": {"max_turns": 2}},
        [ASK, RIGHT],
        Ending(
            "completed", reward=1.0, charged=1, statuses="answered", feedback="<reply"
        ),
    ),
    "policy tokens": (
        {"rules": {"max_policy_tokens": 5}},
        ["abcdef"],
        Ending("max_sampled_tokens", "truncated"),
    ),
    "policy tokens after a reply": (
        {"rules": {"max_policy_tokens": 27}},
        [ASK],
        Ending("max_sampled_tokens", "truncated", 0.0, 1, "answered", "<reply"),
    ),
    "context, by the policy": (
        {"rules": {"max_context_tokens": 60}},
        ["x" * 30],
        Ending("context_overflow", "truncated"),
    ),
    "context, by a reply": (
        {"rules": {"max_context_tokens": 100}},
        [ASK],
        Ending("context_overflow", "truncated", 0.0, 1, "answered", "<reply"),
    ),
    "context, by the prompt": (
        {"rules": {"max_context_tokens": 10}},
        ["x"],
        Ending("context_overflow", "truncated"),
    ),
}


@pytest.mark.parametrize("mode", ["token", "turn"])
@pytest.mark.parametrize("name", TABLE)
def test_endings(name: str, mode: str):
    options, turns, expected = TABLE[name]
    env = gym.make("AIPO-Toy-v0", mode=mode, **options)
    env.reset(seed=0, options={"index": 0})
    taken = 0
    for turn in turns:
        # A turn of tokens ends by itself at a closing tag.
        end = [] if turn.endswith(env.unwrapped.stop_strings) else [256]
        actions = [turn] if mode == "turn" else [*turn.encode(), *end]
        for action in actions:
            _, reward, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                break
            assert reward == 0.0
        taken += 1
        if terminated or truncated:
            break
    assert taken == len(turns)
    episode = info["episode_record"]
    feedback = [turn.feedback for turn in episode.turns if turn.feedback]
    assert (feedback or [""])[-1].startswith(expected.feedback)
    assert expected == Ending(
        info["stop_reason"],
        "truncated" if truncated else "terminated",
        reward,
        info["consults_used"],
        " ".join(consult.status for consult in episode.consults),
        expected.feedback,
        episode.num_invalid,
    )
    assert terminated is not truncated
    assert episode.reward == (
        None if expected.stop_reason == "verifier_error" else reward
    )
