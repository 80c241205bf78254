"""`AIPO-Math-v0`: one action is one token, and the tokenizer behind it."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env

from aipo_env import Author, ByteTokenizer, ConfigError, TokenEnv

ID = "AIPO-Math-v0"
END, KNOWLEDGE, REASON, VERIFY = 256, 257, 258, 259
TOKENIZER = ByteTokenizer()


def ids(text: str) -> list[int]:
    return list(text.encode())


def play(env: gym.Env, token_ids: list[int]) -> tuple:
    """Write tokens; only the last may end the episode."""
    for token_id in token_ids[:-1]:
        result = env.step(np.int64(token_id))
        assert result[1:4] == (0.0, False, False)
    return env.step(np.int64(token_ids[-1]))


def start(**options: object) -> gym.Env:
    env = gym.make(ID, **options)
    env.reset(seed=0, options={"index": 0})
    return env


@pytest.mark.parametrize("options", [{}, {"aided": False}, {"window": 1}, {"source": "toy:difficulty=3"}])
def test_check_env(options: dict, capsys: pytest.CaptureFixture):
    check_env(gym.make(ID, **options).unwrapped)


def test_spaces():
    env = gym.make(ID, window=64)
    assert env.action_space == gym.spaces.Discrete(260)
    assert env.observation_space == gym.spaces.Box(0, 259, (64,), np.int64)


PROMPT = [*ids("Solve. You may consult."), END, *ids("Apply mele to 0808."), END]
REPLY = [*ids('<reply from="knowledge">mele=#78#25;</reply>'), END]


def test_a_whole_episode():
    env = gym.make(ID, window=48)
    observation, info = env.reset(seed=0, options={"index": 0})
    assert observation.tolist() == [END] * 4 + PROMPT
    assert info == {"task_id": "toy-0-train-0", "turn": 0, "num_policy_tokens": 0, "consults_used": 0}

    observation, *_, info = env.step(KNOWLEDGE)
    assert observation.tolist() == [END] * 3 + PROMPT + [KNOWLEDGE]
    assert (info["turn"], info["num_policy_tokens"]) == (0, 1)
    call = [KNOWLEDGE, *ids("mele"), END]
    observation, reward, terminated, truncated, info = play(env, call[1:])
    assert observation.tolist() == (PROMPT + call + REPLY)[-48:]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info == {"task_id": "toy-0-train-0", "turn": 1, "num_policy_tokens": 6, "consults_used": 1}

    answer = [*ids("\\boxed{7623}"), END]
    observation, reward, terminated, truncated, info = play(env, answer)
    assert observation.tolist() == (PROMPT + call + REPLY + answer)[-48:]
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert (info["stop_reason"], info["num_policy_tokens"], info["turn"]) == ("completed", 19, 2)
    episode = info["episode_record"]
    assert episode.tokens.token_ids.tolist() == PROMPT + call + REPLY + answer
    assert episode.tokens.token_ids[episode.tokens.policy_mask].tolist() == call + answer
    assert [turn.completion for turn in episode.turns] == ["<knowledge>mele</knowledge>", "\\boxed{7623}"]
    assert (episode.tokens.author == Author.TEMPLATE).sum() == 3


def test_a_call_may_be_spelled_in_bytes():
    env = start(window=256)
    observation, *_, info = play(env, ids("<knowledge>mele</knowledge>"))
    assert info["consults_used"] == 1
    # The policy wrote no end of turn, so the template closes it.
    assert observation.tolist()[-len(REPLY) - 2 :] == [ord(">"), END, *REPLY]


def test_without_agents_macro_tokens_are_text():
    info = play(start(aided=False), [KNOWLEDGE, *ids("x</knowledge>"), END])[4]
    assert info["stop_reason"] == "no_answer"
    assert info["episode_record"].turns[0].completion == "<knowledge>x</knowledge>"


def test_malformed_macro_calls_are_explained():
    env = start(window=128)
    observation = play(env, [KNOWLEDGE, VERIFY, END])[0]
    assert TOKENIZER.decode(observation).endswith(
        "<verify> stands inside <knowledge>; calls cannot be nested. Nothing was asked."
    )
    observation = play(env, [REASON, END])[0]
    assert TOKENIZER.decode(observation).endswith(
        "Malformed call: <reason> holds no query. Nothing was asked."
    )


@pytest.mark.parametrize(
    ("rules", "token_ids", "reason"),
    [
        ({"max_policy_tokens": 5}, ids("abcde"), "max_sampled_tokens"),
        ({"max_context_tokens": 50}, ids("abcdef"), "context_overflow"),
        ({"max_context_tokens": 10}, ids("a"), "context_overflow"),
        ({"max_turns": 1}, [KNOWLEDGE, ord("x"), END], "max_turns"),
    ],
)
def test_limits_truncate(rules: dict, token_ids: list[int], reason: str):
    _, reward, terminated, truncated, info = play(start(rules=rules), token_ids)
    assert (reward, terminated, truncated, info["stop_reason"]) == (0.0, False, True, reason)


def test_an_end_of_turn_as_the_last_token_is_an_end():
    _, _, terminated, truncated, info = play(start(rules={"max_policy_tokens": 5}), [*ids("abcd"), END])
    assert (terminated, truncated, info["stop_reason"]) == (True, False, "no_answer")


def test_equal_seeds_and_actions_give_equal_steps():
    def steps(seed: int) -> list[object]:
        env = gym.make(ID, agents="scripted:wrong=0.5", window=16)
        env.action_space.seed(7)
        observation, info = env.reset(seed=seed)
        seen: list[object] = [observation.tolist(), info]
        for _ in range(400):
            observation, *rest = env.step(env.action_space.sample())
            seen += [observation.tolist(), *rest]
            if rest[1] or rest[2]:
                seen.append(env.reset()[1])
        return seen

    assert steps(5) == steps(5)
    assert steps(5) != steps(6)


def test_observations_are_fresh():
    env = start(window=8)
    first = env.step(65)[0]
    first[:] = 0
    assert env.step(66)[0].tolist() == [*PROMPT[-6:], 65, 66]


def test_vector_environments():
    envs = gym.make_vec(ID, num_envs=3, vectorization_mode="sync", window=8)
    observations, _ = envs.reset(seed=0, options={"index": 0})
    assert observations.shape == (3, 8)
    _, _, terminated, _, infos = envs.step(np.array([65, END, 67]))
    assert terminated.tolist() == [False, True, False]
    assert infos["num_policy_tokens"].tolist() == [1, 1, 1]
    envs.close()


def test_the_spec_has_a_json_form():
    env = gym.make(ID, window=32, pool={"retries": 0})
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.observation_space.shape == (32,)
    assert again.reset(seed=3)[0].tolist() == env.reset(seed=3)[0].tolist()


def test_misuse_is_named():
    env = TokenEnv()
    with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
        env.step(np.int64(1))
    env.reset()
    for action in (260, -1, 1.5, "a"):
        with pytest.raises(InvalidAction, match=r"is no token id; use one of Discrete\(260\)"):
            env.step(action)
    env.step(np.int64(END))
    with pytest.raises(ResetNeeded):
        env.step(np.int64(1))
    for window in (0, 2.5, "8"):
        with pytest.raises(ConfigError, match=f"window={window!r} must be a whole number"):
            TokenEnv(window=window)


@pytest.mark.parametrize(
    "text", ["", "2+é=\U0001f600", "\x00\x1b\r\n\u202e", "\ud800 \udfff", "<knowledge></reply>"]
)
def test_any_text_comes_back(text: str):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert all(0 <= token_id < 256 for token_id in TOKENIZER.encode(text))


def test_encoding():
    assert TOKENIZER.encode("2+é") == [50, 43, 195, 169]
    assert dict(TOKENIZER.macro_ids) == {"knowledge": 257, "reason": 258, "verify": 259}
    assert (TOKENIZER.end_id, TOKENIZER.num_tokens) == (256, 260)


@pytest.mark.parametrize(
    ("token_ids", "text"),
    [
        ([], ""),
        ([END], ""),
        ([KNOWLEDGE, 120, END], "<knowledge>x</knowledge>"),
        ([KNOWLEDGE, 120], "<knowledge>x"),
        ([REASON, END, END], "<reason></reason>"),
        ([KNOWLEDGE, 120, VERIFY, 121, END], "<knowledge>x<verify>y</verify>"),
        ([VERIFY, *b"x</verify>", END], "<verify>x</verify>"),
        ([120, 0xC3], "x\ufffd"),
        ([0xFF, 0xC3, 0xA9], "\ufffdé"),
    ],
)
def test_decoding(token_ids: list[int], text: str):
    assert TOKENIZER.decode(token_ids) == text


@pytest.mark.parametrize("token_id", [-1, 260, 10**9])
def test_an_unknown_token_is_named(token_id: int):
    with pytest.raises(ValueError, match=f"token id {token_id} is not in 0 to 259"):
        TOKENIZER.decode([65, token_id])
