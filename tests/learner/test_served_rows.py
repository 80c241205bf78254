"""The code of docs/serve.md that makes rows of what a server tells."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aipo_env import Episode, TurnEnv, Verdict, build_scenario, play
from aipo_env.serving.episodes import start_told, turn_told
from aipo_learner import HFSampler, Row, episode_row, load_policy, policy_folder

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
WORLD = "toy:kinds=knowledge"


class Client:
    """What OpenEnv's client returns, of an environment that is played here."""

    def __init__(self) -> None:
        limits = {"max_policy_tokens": 9_999, "max_context_tokens": 99_999}
        self.env = TurnEnv(environment=WORLD, observation="delta", rules=limits)

    async def reset(self, seed: int, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(observation=await start_told(self.env, seed, options))

    async def step(self, action: dict[str, str]) -> SimpleNamespace:
        told = await turn_told(self.env, action["text"])
        is_over = told["terminated"] or told["truncated"]
        return SimpleNamespace(observation=told, reward=told["reward"], done=is_over)


@pytest.fixture(scope="module")
def sampler() -> HFSampler:
    return HFSampler(*load_policy(policy_folder("tiny")))


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the page's code defines."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    [code] = [block for block in blocks if "async def rollout" in block]
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


async def rows_served(page: dict[str, Any], sampler: HFSampler) -> list[Row]:
    voices = [sampler.voice((7, number)) for number in range(4)]
    return await page["group"]([Client() for _ in voices], voices, index=2)


async def episodes_here(sampler: HFSampler) -> list[Episode]:
    scenario = build_scenario(WORLD)
    voices = [sampler.voice((7, number)) for number in range(4)]
    sessions = [
        scenario.rollout("train", number, 0, index=2, aided=number < 2)
        for number in range(4)
    ]
    playing = [play(*pair) for pair in zip(sessions, voices, strict=True)]
    return await asyncio.gather(*playing)


def test_rows_of_served_episodes_are_those_of_episodes_played_here(
    page: dict[str, Any], sampler: HFSampler
):
    rows = asyncio.run(rows_served(page, sampler))
    episodes = asyncio.run(episodes_here(sampler))
    assert [len(episode.consults) for episode in episodes] == [1, 1, 0, 0]
    assert [int(row.agent_mask.sum()) for row in rows] == [5, 5, 0, 0]
    assert [row.advantage for row in rows] == pytest.approx([1, 1, 0, 0], abs=1e-5)
    for row, episode in zip(rows, episodes, strict=True):
        here = episode_row(episode, row.advantage)
        for name in ("token_ids", "policy_mask", "agent_mask"):
            assert np.array_equal(getattr(row, name), getattr(here, name)), name
        for name in ("sampler_logprobs", "agent_logprobs"):
            served, own = getattr(row, name), getattr(here, name)
            assert np.array_equal(served, own, equal_nan=True), name


class ByTurns:
    """A verifier that rewards each consultation, beside the answer."""

    async def verify(self, task: Any, text: str) -> Verdict:
        return Verdict(correct=True, reward=1.0, status="correct")

    async def turn_reward(self, task: Any, text: str, view: Any) -> dict[str, float]:
        return {"shape": 0.5}


class Replayed:
    """A voice that says given turns."""

    def __init__(self, *turns: str) -> None:
        self.turns = iter(turns)

    def open(self, messages: Any) -> list[Any]:
        return []

    def append(self, message: Any) -> list[Any]:
        return []

    def close(self) -> None:
        pass

    async def complete(self, stop: Any, max_tokens: int) -> SimpleNamespace:
        return SimpleNamespace(text=next(self.turns), token_ids=[1], logprobs=None)


def test_an_episodes_reward_is_the_sum_of_what_its_turns_earn(page: dict[str, Any]):
    ask, answer = "<knowledge>mele</knowledge>", "\\boxed{1}"

    async def reward(*turns: str) -> float:
        client = Client()
        client.env = TurnEnv(environment=WORLD, observation="delta", verifier=ByTurns())
        _, earned = await page["rollout"](client, Replayed(*turns), index=2, seed=0)
        return earned

    assert asyncio.run(reward(answer)) == 1.0
    assert asyncio.run(reward(ask, answer)) == 1.5
    assert asyncio.run(reward(ask, ask, answer)) == 2.0


def test_a_group_in_which_the_server_failed_is_left_out(
    page: dict[str, Any], sampler: HFSampler, monkeypatch: pytest.MonkeyPatch
):
    def verify(task: Any, text: str) -> float:
        raise ValueError("no verdict")

    make = Client.__init__

    def with_a_verifier_that_fails(client: Client) -> None:
        make(client)
        client.env = TurnEnv(environment=WORLD, observation="delta", verifier=verify)

    monkeypatch.setattr(Client, "__init__", with_a_verifier_that_fails)
    assert asyncio.run(rows_served(page, sampler)) == []
