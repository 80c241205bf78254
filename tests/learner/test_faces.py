"""The same task and the same texts give the same episode, whoever plays it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import pytest

from aipo_env import (
    Episode,
    EpisodeRunner,
    Scenario,
    ScriptedPolicy,
    TextVoice,
    TextVoices,
    VectorEnv,
    build_scenario,
    play,
    run_sync,
)
from aipo_env.terminal import play_in_terminal
from aipo_learner.rollout.waves import play_wave

INDEX = 3
CONSULTING = ("<knowledge>mele</knowledge>", "<verify>mele=zura</verify>", r"\boxed{1}")
MALFORMED = ("<knowledge>mele", "<reason></reason>", r"\boxed{1}")
LONG = ("x" * 90, r"\boxed{1}")


def rules(limits: dict[str, int]) -> dict[str, Any]:
    return {"max_policy_tokens": 160, "max_context_tokens": 400, **limits}


def scenario(limits: dict[str, int]) -> Scenario:
    return build_scenario("toy", "scripted", rules=rules(limits))


def by_token_env(texts: tuple[str, ...], limits: dict[str, int]) -> Episode:
    env = gym.make("AIPO-Toy-v0", rules=rules(limits), disable_env_checker=True)
    env.reset(seed=0, options={"index": INDEX})
    for text in texts:
        # A turn that closes no call is ended by the end of turn.
        actions = list(text.encode())
        if not text.endswith(env.unwrapped.stop_strings):
            actions.append(256)
        for action in actions:
            _, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                return info["episode_record"]
    raise AssertionError("the episode did not end")


def by_turn_env(texts: tuple[str, ...], limits: dict[str, int]) -> Episode:
    env = gym.make("AIPO-Toy-Turn-v0", rules=rules(limits), disable_env_checker=True)
    env.reset(seed=0, options={"index": INDEX})
    for text in texts:
        _, _, terminated, truncated, info = env.step(text)
        if terminated or truncated:
            return info["episode_record"]
    raise AssertionError("the episode did not end")


def by_vector(texts: tuple[str, ...], limits: dict[str, int]) -> Episode:
    envs = VectorEnv(
        1, mode="turn", source="toy", agents="scripted", rules=rules(limits)
    )
    envs.reset(seed=0, options={"index": INDEX})
    for text in texts:
        _, _, terminated, truncated, infos = envs.step([text])
        if terminated[0] or truncated[0]:
            return infos["episode_record"][0]
    raise AssertionError("the episode did not end")


def by_runner(texts: tuple[str, ...], limits: dict[str, int]) -> Episode:
    made = scenario(limits)
    task = made.source.task("train", INDEX)

    class OneTask:
        def num_tasks(self, split: str) -> int:
            return 1

        def task(self, split: str, index: int) -> Any:
            return task

    async def first() -> Episode:
        runner = EpisodeRunner(
            replace(made, source=OneTask()), ScriptedPolicy(texts).say
        )
        (episode,) = [episode async for episode in runner.episodes(1)]
        return episode

    return asyncio.run(first())


def by_drive(texts: tuple[str, ...], limits: dict[str, int]) -> Episode:
    session = scenario(limits).rollout("train", 0, 0, index=INDEX, aided=True)
    return run_sync(play(session, TextVoice(policy=ScriptedPolicy(texts).say)))


def by_learner(texts: tuple[str, ...], limits: dict[str, int]) -> Episode:
    class Sampler(TextVoices):
        def close(self) -> None:
            pass

    made = scenario(limits)
    session = made.rollout("train", 0, 0, index=INDEX, aided=True)
    sampler = Sampler(ScriptedPolicy(texts).say)
    return run_sync(play_wave(made, [session], sampler))[0]


FACES: dict[str, Callable[..., Episode]] = {
    "token env": by_token_env,
    "turn env": by_turn_env,
    "vector": by_vector,
    "runner": by_runner,
    "learner": by_learner,
}


@pytest.mark.parametrize("face", [face for face in FACES if face != "token env"])
@pytest.mark.parametrize(
    "texts", [CONSULTING, MALFORMED, LONG], ids=["consulting", "malformed", "long"]
)
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_context_tokens": 87},
        {"max_context_tokens": 88},
        {"max_context_tokens": 128},
        {"max_context_tokens": 20},
        {"max_policy_tokens": 30},
        {"max_policy_tokens": 27},
        {"max_turns": 2},
        {"consult_budget": 1},
    ],
    ids=str,
)
def test_every_face_gives_the_same_episode(
    face: str, texts: tuple[str, ...], limits: dict[str, int]
):
    expected = by_drive(texts, limits)
    assert FACES[face](texts, limits) == expected
    assert len(expected.tokens) <= rules(limits)["max_context_tokens"]


@pytest.mark.parametrize("limit", [60, 87, 88, 110, 128, 140, 400])
def test_the_token_environment_gives_the_same_episode(limit: int):
    # All turns end by a stop string: one that does not ends by a token of its own
    # there.
    limits = {"max_context_tokens": limit}
    texts = (*CONSULTING[:2], *["<knowledge>x</knowledge>"] * 6)
    expected = by_drive(texts, limits)
    found = by_token_env(texts, limits)
    assert found == expected


def test_a_reply_that_does_not_fit_is_not_recorded():
    episodes = [face(CONSULTING, {"max_context_tokens": 87}) for face in FACES.values()]
    assert [len(episode.tokens) for episode in episodes] == [71] * 5
    assert {episode.stop_reason.value for episode in episodes} == {"context_overflow"}


@pytest.mark.parametrize("limits", [{}, {"max_context_tokens": 87}], ids=str)
def test_a_person_plays_the_same_episode(
    limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
):
    lines = iter([*CONSULTING, ""])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    episode = play_in_terminal(scenario(limits), index=INDEX)
    assert episode == by_drive(CONSULTING, limits)
