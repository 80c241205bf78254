"""Rewards, turns and tools of one's own through whole episodes: what is earned, what
failed, what ends a run.
"""

import asyncio
import copy
from collections.abc import Sequence
from typing import Any

import pytest

from aipo_env import (
    Completion,
    ConfigError,
    Episode,
    EpisodeRunner,
    EpisodeView,
    ScriptedPolicy,
    StopReason,
    Task,
    TextVoice,
    TextVoices,
    TokenEnv,
    TurnEnv,
    Verdict,
    build_scenario,
)

ADD = '<add>{"number": 3}</add>'


class Tally:
    """A sum for each episode."""

    made: Sequence["Tally"] = []

    def __init__(self, task: Task) -> None:
        self.task, self.total, self.closed = task, 0, 0
        Tally.made = [*Tally.made, self]

    def add(self, number: int) -> int:
        """Add a number to the sum."""
        self.total += number
        return self.total

    def close(self) -> None:
        self.closed += 1


class Broken:
    """A tool that cannot be made."""

    def __init__(self, task: Task) -> None:
        raise OSError("no database")

    def ask(self) -> str:
        """Ask."""
        return ""


class ByState:
    """Rewards the state that an episode leaves, and each turn that adds to it."""

    async def verify(self, task: Task, text: str, episode: EpisodeView) -> Verdict:
        total = episode.tools["Tally"].total
        return Verdict(correct=total >= 6, reward=float(total), status="correct")

    async def turn_reward(self, task: Task, text: str, episode: EpisodeView) -> float:
        return 0.25 if "add" in text else 0.0


def played(texts: Sequence[str], **options: Any) -> Episode:
    runner = EpisodeRunner(build_scenario("toy", **options), ScriptedPolicy(texts).say)

    async def first() -> Episode:
        (episode,) = [episode async for episode in runner.episodes(1)]
        return episode

    return asyncio.run(first())


def test_a_tool_has_a_state_for_each_episode_and_the_verifier_sees_it():
    Tally.made = []
    options = {"tools": [Tally], "verifier": ByState()}
    one = played([ADD, ADD, "done"], **options)
    other = played([ADD, "done"], **options)
    assert [consult.reply for consult in one.consults] == ["3", "6"]
    assert [consult.reply for consult in other.consults] == ["3"]
    assert one.reward_parts == {"verdict": 6.0, "turn": 0.5}
    assert (one.reward, one.correct, other.correct) == (6.5, True, False)
    assert [tally.closed for tally in Tally.made] == [1, 1]
    assert Tally.made[0].task.id == one.task.id


@pytest.mark.parametrize("face", [TurnEnv, TokenEnv])
def test_rewards_of_turns_are_returned_as_they_fall(face: type):
    env = face(source="toy", tools=[Tally], verifier=ByState())
    env.reset(seed=0)
    rewards = []
    for text in (ADD, ADD, "done"):
        actions = [text]
        if face is TokenEnv:
            end = [] if text.endswith(env.stop_strings) else [256]
            actions = [*text.encode(), *end]
        for action in actions:
            _, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
    assert rewards == [0.25, 0.25, 6.0]
    assert (terminated, truncated) == (True, False)
    assert info["reward_parts"] == {"verdict": 6.0, "turn": 0.5}
    assert sum(rewards) == info["episode_record"].reward


def test_a_tool_of_an_episode_that_is_left_is_closed():
    Tally.made = []
    env = TurnEnv(source="toy", tools=[Tally])
    env.reset(seed=0)
    env.step(ADD)
    env.reset()
    env.close()
    assert [tally.closed for tally in Tally.made] == [1, 1]


def test_a_tool_that_cannot_be_made_fails_the_episode():
    episode = played(["done"], tools=[Broken])
    assert (episode.stop_reason, episode.reward) == (StopReason.TOOL_ERROR, None)
    assert "no database" in episode.verdict.reason
    env = TurnEnv(source="toy", tools=[Broken])
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step("done")
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert "no database" in info["error"]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (float("nan"), "nan"),
        ("1.0", "'1.0'"),
        (None, "None"),
        ({"a": float("inf")}, "inf"),
    ],
)
def test_a_reward_that_is_none_fails_the_episode(result: Any, said: str):
    def reward(task: Task, text: str) -> Any:
        return result

    episode = played(["done"], verifier=reward)
    assert (episode.stop_reason, episode.reward) == (StopReason.VERIFIER_ERROR, None)
    assert said in episode.verdict.reason
    assert "reward" in episode.verdict.reason
    env = TurnEnv(source="toy", verifier=reward)
    env.reset(seed=0)
    _, earned, terminated, truncated, info = env.step("done")
    assert (earned, terminated, truncated) == (0.0, False, True)
    assert said in info["error"]


def test_partial_rewards_and_their_parts():
    def graded(task: Task, text: str) -> dict[str, float]:
        return {"form": 0.25, "length": -0.5}

    episode = played(["done"], verifier=graded)
    assert (episode.reward, episode.correct) == (-0.25, False)
    assert episode.reward_parts == {"form": 0.25, "length": -0.5}


class Hopeless:
    async def verify(self, task: Task, text: str) -> Verdict:
        raise ConfigError("the key is missing")


class Unimportable:
    async def verify(self, task: Task, text: str) -> Verdict:
        import package_that_is_not_there  # noqa: F401

        raise AssertionError


@pytest.mark.parametrize("verifier", [Hopeless(), Unimportable()])
def test_what_can_never_succeed_ends_the_run(verifier: Any):
    with pytest.raises((ConfigError, ImportError), match="key is missing|not_there"):
        played(["done"], verifier=verifier)
    env = TurnEnv(source="toy", verifier=verifier)
    env.reset(seed=0)
    with pytest.raises((ConfigError, ImportError)):
        env.step("done")


def test_a_kind_that_no_verifier_knows_ends_the_run():
    class Riddles:
        def num_tasks(self, split: str) -> int:
            return 1

        def task(self, split: str, index: int) -> Task:
            return Task(id="r", prompt="?", answer="x", kind="riddle")

    scenario = build_scenario(Riddles())
    runner = EpisodeRunner(scenario, ScriptedPolicy(["x"]).say)

    async def all_of_them() -> None:
        async for _ in runner.episodes(3):
            pass

    with pytest.raises(ConfigError, match="there is no kind 'riddle'"):
        asyncio.run(all_of_them())


def test_a_turn_reward_that_fails_is_no_zero():
    class Bad(ByState):
        async def turn_reward(self, task: Task, text: str, episode: EpisodeView) -> Any:
            return "much"

    episode = played([ADD, "done"], tools=[Tally], verifier=Bad())
    assert (episode.stop_reason, episode.reward) == (StopReason.VERIFIER_ERROR, None)
    assert "turn_reward returned 'much'" in episode.verdict.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": [Tally, Tally]}, "two are named"),
        ({"rules": {"budget_per_kind": {"sub": 1}}}, "a budget's kind='sub'"),
        ({"rules": {"tools_when": "never"}}, "tools_when='never'"),
        ({"rules": {"tool_budget": -1}}, "tool_budget=-1"),
        ({"pool": {"when_lost": "weep"}}, "when_lost='weep'"),
    ],
)
def test_contradictions_are_told_at_the_start(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        build_scenario("toy", **options)


def test_a_hung_turn_reward_is_given_up(monkeypatch: pytest.MonkeyPatch):
    class Hung(ByState):
        async def turn_reward(self, task: Task, text: str, episode: EpisodeView) -> Any:
            await asyncio.Event().wait()

    monkeypatch.setattr("aipo_env.verifiers.base.MAX_VERDICT_S", 0.1)
    episode = played([ADD, "done"], tools=[Tally], verifier=Hung())
    assert (episode.stop_reason, episode.reward) == (StopReason.VERIFIER_ERROR, None)


def test_tools_are_closed_when_a_wave_breaks():
    class Mute(TextVoices):
        def voice(self, key: tuple[int, ...]) -> TextVoice:
            voice = super().voice(key)
            voice.open = _raise  # type: ignore[method-assign]
            return voice

    Tally.made = []
    scenario = build_scenario("toy", tools=[Tally])
    sessions = [scenario.rollout("train", 0, i, aided=True) for i in range(2)]
    runner = EpisodeRunner(scenario, Mute(ScriptedPolicy(["x"]).say))
    with pytest.raises(LookupError, match="no template"):
        asyncio.run(runner.wave(sessions))
    assert [tally.closed for tally in Tally.made] == [1, 1]


def _raise(messages: Sequence[Any]) -> Any:
    raise LookupError("no template")


def test_an_episode_with_stateful_tools_is_not_copied():
    env = TurnEnv(source="toy", tools=[Tally])
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="a state that cannot be copied"):
        copy.deepcopy(env)
    twin = copy.copy(env)
    twin.reset(seed=0)
    assert twin.step(ADD)[0].endswith('<reply from="add">3</reply>')


def test_a_long_completion_without_ids_is_cut():
    async def talk(messages: Sequence[Any], stop: Any, limit: int) -> Completion:
        return Completion("x" * (limit + 50))

    runner = EpisodeRunner({"source": "toy", "rules": {"max_policy_tokens": 20}}, talk)

    async def first() -> Episode:
        (episode,) = [episode async for episode in runner.episodes(1)]
        return episode

    episode = asyncio.run(first())
    assert episode.stop_reason == StopReason.MAX_SAMPLED_TOKENS
    assert episode.tokens.policy_mask.sum() == 20
