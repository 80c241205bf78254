"""A policy behind an endpoint."""

import asyncio
import time
from typing import Any

import pytest

from aipo_env import (
    CannedAgent,
    ChatPolicy,
    ConfigError,
    Episode,
    EpisodeRunner,
    FaultServer,
    PolicyLost,
    StopReason,
    Task,
    TaskTable,
    build_scenario,
)
from aipo_env.agents.endpoint import count_of
from aipo_env.rollout import chat_policy

TASKS = TaskTable("mine", {"train": [Task(id="a", prompt="1 + 1?", answer="2")]})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chat_policy, "FIRST_PAUSE_S", 0.01)


def play(policy: ChatPolicy, num: int = 1, **options: Any) -> list[Episode]:
    scenario = build_scenario(TASKS, **options)

    async def run() -> list[Episode]:
        runner = EpisodeRunner(scenario, policy, aided=bool(options))
        return [episode async for episode in runner.episodes(num)]

    return asyncio.run(run())


def test_it_answers_a_task():
    with FaultServer(text="So it is \\boxed{2}.") as server:
        policy = ChatPolicy("mine", server.url, temperature=0.5, extra={"top_p": 0.9})
        [episode] = play(policy)
    assert (episode.reward, episode.stop_reason) == (1.0, StopReason.COMPLETED)
    [(_, body)] = server.requests
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == "1 + 1?"
    assert (body["model"], body["temperature"], body["top_p"]) == ("mine", 0.5, 0.9)
    assert 0 <= body["seed"] < 2**32
    # The policy's tokens are known by a tokenizer of ours, and not their probabilities.
    assert episode.tokens.policy_mask.sum() > 5


def test_the_address_may_stand_in_one_text():
    with FaultServer(text="\\boxed{2}") as server:
        [episode] = play(ChatPolicy(f"mine@{server.url}"))
    assert episode.reward == 1.0


def test_episodes_have_seeds_of_their_own_which_stay():
    with FaultServer(text="\\boxed{2}") as server:
        play(ChatPolicy("mine", server.url), num=3)
        first = sorted(body["seed"] for _, body in server.requests)
        play(ChatPolicy("mine", server.url), num=3)
        second = sorted(body["seed"] for _, body in server.requests[3:])
    assert len(set(first)) == 3
    assert first == second


@pytest.mark.parametrize("fault", ["500", "429", "reset", "cut", "garbage", "shape"])
def test_a_completion_that_failed_is_asked_for_again(fault: str):
    with FaultServer([fault, "reply"], text="\\boxed{2}") as server:
        [episode] = play(ChatPolicy("mine", server.url))
    assert episode.reward == 1.0
    assert len(server.requests) == 2


def test_what_always_fails_ends_its_episode_alone():
    with FaultServer(["500"]) as server:
        [episode] = play(ChatPolicy("mine", server.url, retries=2))
    assert (episode.reward, episode.stop_reason) == (None, StopReason.POLICY_ERROR)
    assert episode.verdict is not None
    assert "HTTP 500" in episode.verdict.reason
    assert len(server.requests) == 3


def test_a_refusal_for_good_ends_the_run():
    with FaultServer(["401"]) as server:
        policy = ChatPolicy("mine", server.url, concurrency=1)
        with pytest.raises(PolicyLost, match=r"mine can no longer be asked.*HTTP 401"):
            play(policy, num=20)
    assert len(server.requests) == 1


def test_nobody_asks_while_the_endpoint_wants_a_pause():
    with FaultServer(["429", "reply"], headers={"retry-after": "0.3"}) as server:
        server.text = "\\boxed{2}"
        start = time.monotonic()
        episodes = play(ChatPolicy("mine", server.url, concurrency=1), num=4)
        assert time.monotonic() - start >= 0.3
    assert all(episode.reward == 1.0 for episode in episodes)


@pytest.mark.parametrize("value", [10**400, -1, True, 1.5, "12", None])
def test_a_count_that_is_none_is_not_believed(value: object):
    assert count_of(value) == 0
    assert count_of(12) == 12


def test_a_server_that_hangs_is_given_up():
    with FaultServer(["hang"]) as server:
        policy = ChatPolicy("mine", server.url, deadline_s=0.2, retries=0)
        [episode] = play(policy)
    assert episode.verdict is not None
    assert "no completion within 0.2 s" in episode.verdict.reason


def test_a_turn_that_is_cut_is_a_turn_that_is_cut():
    choice = {"finish_reason": "length"}
    with FaultServer(text="It goes on and", choice=choice) as server:
        [episode] = play(ChatPolicy("mine", server.url))
    assert episode.stop_reason.is_truncated


def test_a_turn_ends_behind_a_call():
    text = "I ask. <knowledge>what is 1 + 1?</knowledge> and then I go on alone"
    with FaultServer(text=text) as server:
        [episode] = play(ChatPolicy("mine", server.url), agents=CannedAgent("fine"))
    assert episode.turns[0].completion.endswith("</knowledge>")
    assert episode.consults


def test_calls_at_once_are_limited():
    with FaultServer(text="\\boxed{2}", delay_s=0.05) as server:
        play(ChatPolicy("mine", server.url, concurrency=2), num=8)
    assert server.most_open <= 2


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    with FaultServer(["401"]) as server, pytest.raises(ConfigError) as caught:
        asyncio.run(ChatPolicy("mine", server.url).check())
    assert "sk-very-secret-key" not in str(caught.value)
    assert "the first question to mine at" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "m@http://u:p@host/v1"}, "with no password"),
        ({"model": "m", "key_env": "no name"}, "key_env must name"),
        ({"model": "m", "key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"model": "m@http://h/v1", "concurrency": 0}, "concurrency=0 must be"),
        ({"model": "m@http://h/v1", "retries": -1}, "retries=-1 must be"),
        ({"model": "m@http://h/v1", "temperature": "hot"}, "temperature='hot'"),
        ({"model": "m@http://h/v1", "extra": 5}, "extra must be an object"),
        ({"model": "m@http://h/v1", "tokenizer": "words"}, "tokenizer: 'words'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        ChatPolicy(**options)
