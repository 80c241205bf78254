"""A function from token ids to token ids as the policy's voice."""

import asyncio
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import (
    Author,
    Completion,
    Episode,
    Key,
    Message,
    PolicyError,
    PolicyFault,
    Scenario,
    Span,
    StopReason,
    build_scenario,
    play,
)
from aipo_learner import (
    GenerateVoices,
    HFSampler,
    agent_free_rows,
    by_group,
    episode_row,
    group_advantages,
    load_policy,
    play_wave,
    policy_folder,
)
from aipo_learner.learn.rows import Row

PROMPT = (Message("user", (Span("mele?", Author.PROMPT),)),)


@pytest.fixture(scope="module")
def tiny() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model, tokenizer = load_policy(policy_folder("tiny"))
    return model.eval(), tokenizer


def sessions_of(scenario: Scenario) -> list[Any]:
    source = scenario.source
    return [
        scenario.session(
            source.task("train", task),
            aided=rollout < 2,
            key=(7, 0, task, rollout),
            group_id=str(task),
        )
        for task in range(6)
        for rollout in range(4)
    ]


class Replay:
    """An engine that says again, turn by turn, what a sampler drew."""

    def __init__(self, keys: Sequence[Key], episodes: Sequence[Episode]) -> None:
        self.turns: dict[Key, tuple[list[int], list[float]]] = {}
        self.asked: dict[Key, list[int]] = {}
        for key, episode in zip(keys, episodes, strict=True):
            tokens = episode.tokens
            for turn in range(len(episode.turns)):
                own = tokens.policy_mask & (tokens.turn == turn)
                ids = tokens.token_ids[own].tolist()
                logprobs = tokens.behaviour_logprobs[own].tolist()
                self.turns[*key, turn] = (ids, logprobs)

    async def generate(
        self, token_ids: list[int], stop: tuple[str, ...], max_tokens: int, key: Key
    ) -> tuple[list[int], list[float]]:
        self.asked[key] = token_ids
        return self.turns[key]


def rows_of(
    scenario: Scenario, tokenizer: PreTrainedTokenizerBase, episodes: list[Episode]
) -> list[Row]:
    rows = []
    for group in by_group(episodes):
        rewards = [float(episode.reward or 0) for episode in group]
        aided = [episode.aided for episode in group]
        advantages = group_advantages(rewards, aided, base="grpo")
        rows += map(episode_row, group, advantages)
        rows += agent_free_rows(scenario, tokenizer, group, advantages)
    return rows


def test_a_batch_through_a_function_has_the_rows_of_the_transformers_sampler(tiny):
    model, tokenizer = tiny
    scenario = build_scenario("toy:kinds=knowledge", seed=3)
    sampler = HFSampler(model, tokenizer)
    sampled = asyncio.run(play_wave(scenario, sessions_of(scenario), sampler))
    keys = [session.key for session in sessions_of(scenario)]
    engine = Replay(keys, sampled)
    voices = GenerateVoices(tokenizer, engine.generate)

    async def play_all() -> list[Episode]:
        playing = [
            play(session, voices.voice(session.key))
            for session in sessions_of(scenario)
        ]
        return await asyncio.gather(*playing)

    by_function = asyncio.run(play_all())
    in_waves = asyncio.run(play_wave(scenario, sessions_of(scenario), voices))
    expected = rows_of(scenario, tokenizer, sampled)
    assert len(expected) > 24  # agent-free rows among them
    assert any(row.agent_mask.any() for row in expected)
    for episodes in (by_function, in_waves):
        rows = rows_of(scenario, tokenizer, episodes)
        assert len(rows) == len(expected)
        for row, other in zip(rows, expected, strict=True):
            assert row.advantage == other.advantage
            assert row.is_rewritten == other.is_rewritten
            for name in ("token_ids", "policy_mask", "agent_mask"):
                assert np.array_equal(getattr(row, name), getattr(other, name))
            for name in ("sampler_logprobs", "agent_logprobs"):
                pair = getattr(row, name), getattr(other, name)
                assert np.array_equal(*pair, equal_nan=True)
    num_own = sum(int(episode.tokens.policy_mask.sum()) for episode in sampled)
    assert voices.num_sampled == 2 * num_own
    second_turns = [key for key in engine.asked if key[-1] == 1]
    assert second_turns
    for key in second_turns:
        # The engine is asked with the very tokens that it drew before.
        first = engine.turns[*key[:-1], 0][0]
        before = engine.asked[*key[:-1], 0]
        assert engine.asked[key][: len(before) + len(first)] == before + first


def completed(
    tokenizer: PreTrainedTokenizerBase,
    returned: Any,
    *,
    stop: tuple[str, ...] = (),
    max_tokens: int = 8,
    end_ids: tuple[int, ...] = (),
) -> Completion:
    async def generate(*asked: Any) -> Any:
        return returned

    voice = GenerateVoices(tokenizer, generate, end_ids=end_ids).voice((1, 2))
    voice.open(PROMPT)
    return asyncio.run(voice.complete(stop, max_tokens))


def test_what_is_drawn_behind_the_end_of_a_turn_is_left_off(tiny):
    _, tokenizer = tiny
    end = int(tokenizer.eos_token_id)
    a, b, c = tokenizer.encode("123", add_special_tokens=False)
    logprobs = [-0.1, -0.2, -0.3, -0.4]
    ended = completed(tokenizer, ([a, b, end, c], logprobs))
    assert ended.token_ids == (a, b, end)
    assert ended.logprobs == (-0.1, -0.2, -0.3)
    assert ended.text == "12"
    assert ended.finish_reason == "stop"
    stopped = completed(tokenizer, ([a, b, c, end], logprobs), stop=("2",))
    assert stopped.token_ids == (a, b)
    assert stopped.finish_reason == "stop"
    cut = completed(tokenizer, ([a, b, c, end], logprobs), max_tokens=2)
    assert cut.token_ids == (a, b)
    assert cut.finish_reason == "length"
    at_limit = completed(tokenizer, ([a, end], logprobs[:2]), max_tokens=2)
    assert at_limit.finish_reason == "stop"
    # An end token that only the model's generation settings name.
    named = completed(tokenizer, ([a, b, c], logprobs[:3]), end_ids=(b,))
    assert named.token_ids == (a, b)
    assert named.finish_reason == "stop"


def test_ids_and_numbers_may_be_arrays_or_tensors(tiny):
    _, tokenizer = tiny
    ids = [*tokenizer.encode("12", add_special_tokens=False), tokenizer.eos_token_id]
    plain = completed(tokenizer, (ids, [-0.5, -0.25, -0.125]))
    arrays = (np.asarray(ids), np.asarray([-0.5, -0.25, -0.125], np.float32))
    assert completed(tokenizer, arrays) == plain
    tensors = (torch.tensor(ids), torch.tensor([-0.5, -0.25, -0.125]))
    assert completed(tokenizer, tensors) == plain
    assert all(type(token_id) is int for token_id in plain.token_ids)


def test_a_model_may_have_more_tokens_than_its_tokenizer_has_texts_for(tiny):
    _, tokenizer = tiny
    beyond = max(tokenizer.get_vocab().values()) + 1
    end = int(tokenizer.eos_token_id)

    async def generate(*asked: Any) -> Any:
        return [beyond, end], [-9.0, -0.1]

    voice = GenerateVoices(tokenizer, generate, vocab_size=beyond + 1).voice((1,))
    voice.open(PROMPT)
    completion = asyncio.run(voice.complete((), 4))
    assert completion.token_ids == (beyond, end)
    assert completion.text == ""
    with pytest.raises(PolicyError, match=rf"\[0\]={beyond} is not in the vocabulary"):
        completed(tokenizer, ([beyond, end], [-9.0, -0.1]))


def test_an_engine_that_knows_no_log_probabilities_says_none(tiny):
    _, tokenizer = tiny
    scenario = build_scenario("toy", seed=3)
    answer = tokenizer.encode(r"\boxed{1}", add_special_tokens=False)
    ids = [*answer, int(tokenizer.eos_token_id)]

    async def generate(*asked: Any) -> Any:
        return ids, None

    session = scenario.session(scenario.source.task("train", 0), aided=False, key=(1,))
    voices = GenerateVoices(tokenizer, generate)
    episode = asyncio.run(play(session, voices.voice(session.key)))
    row = episode_row(episode, 1.0)
    assert int(row.policy_mask.sum()) == len(ids)
    # NaN is unknown: a 0 would say that each token was certain.
    assert np.isnan(row.sampler_logprobs).all()
    # What is behind the end is left off as ever.
    assert completed(tokenizer, ([*ids, 5], None)).token_ids == tuple(ids)
    assert completed(tokenizer, (ids, None)).logprobs == ()


def test_a_log_probability_that_rounding_put_above_0_is_0(tiny):
    _, tokenizer = tiny
    ids = [*tokenizer.encode("12", add_special_tokens=False), tokenizer.eos_token_id]
    assert completed(tokenizer, (ids, [1e-4, -0.5, 1e-7])).logprobs == (0.0, -0.5, 0.0)
    with pytest.raises(PolicyError, match=r"\[0\] is 0.002: .* returns None in the"):
        completed(tokenizer, (ids, [0.002, -0.5, -0.5]))


def test_the_engine_of_the_documentation_draws_from_the_whole_vocabulary(
    tiny, tmp_path: Path
):
    # The settings of generation that came with the model leave it one token.
    folder = tmp_path / "policy"
    shutil.copytree(policy_folder("tiny"), folder)
    narrow = {"do_sample": True, "temperature": 0.3, "top_p": 0.01, "top_k": 1}
    (folder / "generation_config.json").write_text(json.dumps(narrow))
    page = Path(__file__).parents[2] / "docs" / "trainers.md"
    block = page.read_text(encoding="utf-8").split("```python\n", 1)[1].split("```")[0]
    engine = block.split("scenario = ")[0].replace(
        'policy_folder("tiny")', repr(str(folder))
    )
    names: dict[str, Any] = {}
    exec(engine, names)
    prompt = tiny[1].encode("mele?", add_special_tokens=False)
    drawn = [
        int(asyncio.run(names["generate"](prompt, (), 1, (number,)))[0][0])
        for number in range(20)
    ]
    assert len(set(drawn)) == 5


BAD = {
    "fewer log-probabilities": (([5, 6], [-0.1]), "2 token ids and 1 log-prob"),
    "more log-probabilities": (([5], [-0.1, -0.1]), "1 token ids and 2 log-prob"),
    "no token": (([], []), "no token"),
    "an id behind the vocabulary": (([10**6], [-0.1]), r"\[0\]=1000000 is not in the"),
    "a negative id": (([5, -1], [-0.1, -0.1]), r"\[1\]=-1 is not in the vocabulary"),
    "an id that is no integer": (([5.0], [-0.1]), "must be integers"),
    "text": (("12", [-0.1, -0.1]), "must be integers"),
    "NaN": (([5, 6], [-0.1, math.nan]), r"\[1\] is nan"),
    "minus infinity": (([5], [-math.inf]), r"\[0\] is -inf"),
    "a probability": (([5], [0.9]), r"\[0\] is 0.9"),
    "None for a number": (([5], [None]), "must be numbers"),
    "one number": (([5], -0.1), "must be numbers"),
    "no pair": ([5, 6, 7], "must return a pair"),
    "nothing": (None, "must return a pair"),
    "an end that was taken away": (([5, 6], [-0.1, -0.1]), "2 tokens of at most 8"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_engine_that_answers_wrongly_is_refused_by_name(tiny, name: str):
    returned, message = BAD[name]
    with pytest.raises(PolicyError, match=message):
        completed(tiny[1], returned)


def test_a_function_that_does_not_wait_is_refused_by_name(tiny):
    voice = GenerateVoices(tiny[1], lambda *asked: ([5], [-0.1])).voice((1,))
    voice.open(PROMPT)
    with pytest.raises(PolicyError, match="returned tuple and nothing to wait for"):
        asyncio.run(voice.complete((), 4))


def test_end_ids_that_no_token_has_are_refused(tiny):
    with pytest.raises(PolicyError, match=r"end_ids\[0\]=-3 is not in the vocabulary"):
        GenerateVoices(tiny[1], Replay([], []).generate, end_ids=[-3])


def test_what_an_engine_raises_ends_the_run_and_a_fault_of_the_policy_does_not(tiny):
    scenario = build_scenario("toy", seed=3)
    task = scenario.source.task("train", 0)

    async def broken(*asked: Any) -> Any:
        raise ConnectionError("the engine is gone")

    async def faulty(*asked: Any) -> Any:
        raise PolicyFault("it refuses")

    voices = GenerateVoices(tiny[1], broken)
    session = scenario.session(task, aided=False, key=(1,))
    with pytest.raises(ConnectionError, match="the engine is gone"):
        asyncio.run(play(session, voices.voice(session.key)))
    voices = GenerateVoices(tiny[1], faulty)
    session = scenario.session(task, aided=False, key=(1,))
    episode = asyncio.run(play(session, voices.voice(session.key)))
    assert episode.stop_reason == StopReason.POLICY_ERROR
    assert episode.reward is None


def test_a_policy_that_is_its_own_agent_is_asked_through_the_function_too(tiny):
    _, tokenizer = tiny
    limits = {"max_context_tokens": 900}
    scenario = build_scenario("toy", "self:max_tokens=6", rules=limits, seed=5)
    call = "<knowledge>mele</knowledge>"
    consulting = tokenizer.encode(call, add_special_tokens=False)
    answer = tokenizer.encode(r"\boxed{1}", add_special_tokens=False)
    end = int(tokenizer.eos_token_id)
    keys = []

    async def generate(
        token_ids: list[int], stop: tuple[str, ...], max_tokens: int, key: Key
    ) -> tuple[list[int], list[float]]:
        keys.append(key)
        ids = consulting if key == (4, 0) else [*answer, end]
        return ids[:max_tokens], [-1.0] * len(ids[:max_tokens])

    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(4,))
    voices = GenerateVoices(tokenizer, generate)
    (episode,) = asyncio.run(play_wave(scenario, [session], voices))
    assert [consult.status for consult in episode.consults] == ["answered"]
    assert keys[0] == (4, 0)
    assert keys[-1] == (4, 1)
    assert len(keys) == 3
    assert episode.tokens.agent_mask.any()
