"""`AIPO-Toy-v0`: one action is one token, and the tokenizer behind it."""

import copy
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from aipo_env import (
    Author,
    ByteTokenizer,
    ConfigError,
    ScriptedPolicy,
    TokenEnv,
    TokenRecord,
    build_scenario,
    data_folder,
)

ID = "AIPO-Toy-v0"
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


def facts(info: dict) -> dict:
    """`info` without its mask, which does not compare."""
    assert {type(allowed) for allowed in info["action_mask"]} == {int}
    return {name: value for name, value in info.items() if name != "action_mask"}


def start(**options: object) -> gym.Env:
    env = gym.make(ID, **options)
    env.reset(seed=0, options={"index": 0})
    return env


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
    assert facts(info) == {
        "task_id": "toy-0-train-0",
        "turn": 0,
        "num_policy_tokens": 0,
        "consults_used": 0,
    }

    observation, *_, info = env.step(KNOWLEDGE)
    assert observation.tolist() == [END] * 3 + PROMPT + [KNOWLEDGE]
    assert (info["turn"], info["num_policy_tokens"]) == (0, 1)
    call = [KNOWLEDGE, *ids("mele"), END]
    observation, reward, terminated, truncated, info = play(env, call[1:])
    assert observation.tolist() == (PROMPT + call + REPLY)[-48:]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert facts(info) == {
        "task_id": "toy-0-train-0",
        "turn": 1,
        "num_policy_tokens": 6,
        "consults_used": 1,
    }

    answer = [*ids("\\boxed{7623}"), END]
    observation, reward, terminated, truncated, info = play(env, answer)
    assert observation.tolist() == (PROMPT + call + REPLY + answer)[-48:]
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert (info["stop_reason"], info["num_policy_tokens"], info["turn"]) == (
        "completed",
        19,
        2,
    )
    episode = info["episode_record"]
    assert episode.tokens.token_ids.tolist() == PROMPT + call + REPLY + answer
    assert (
        episode.tokens.token_ids[episode.tokens.policy_mask].tolist() == call + answer
    )
    assert [turn.completion for turn in episode.turns] == [
        "<knowledge>mele</knowledge>",
        "\\boxed{7623}",
    ]
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


def test_an_end_of_turn_as_the_last_token_is_an_end():
    _, _, terminated, truncated, info = play(
        start(rules={"max_policy_tokens": 5}), [*ids("abcd"), END]
    )
    assert (terminated, truncated, info["stop_reason"]) == (True, False, "no_answer")


def test_equal_seeds_and_actions_give_equal_steps():
    def steps(seed: int) -> list[object]:
        env = gym.make(ID, agents="scripted:wrong=0.5", window=16)
        env.action_space.seed(7)
        observation, info = env.reset(seed=seed)
        seen: list[object] = [observation.tolist(), facts(info)]
        for _ in range(400):
            observation, *rest, info = env.step(env.action_space.sample())
            seen += [observation.tolist(), *rest, facts(info)]
            if rest[1] or rest[2]:
                seen.append(facts(env.reset()[1]))
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
    for action in (260, -1, 1.5, "a", None, [1], np.array([1, 2])):
        with pytest.raises(
            InvalidAction, match=r"is no token id; use one of Discrete\(260\)"
        ):
            env.step(action)
    env.step(np.int64(END))
    with pytest.raises(ResetNeeded):
        env.step(np.int64(1))
    for window in (0, 2.5, "8"):
        with pytest.raises(
            ConfigError, match=f"window={window!r} must be a whole number"
        ):
            TokenEnv(window=window)


def allowed(mask: Sequence[int]) -> dict[int, int]:
    """The mask of the macro tokens; all else must be allowed."""
    assert all(mask[:KNOWLEDGE])
    return dict(enumerate(mask[KNOWLEDGE:], KNOWLEDGE))


ALL, NONE = {KNOWLEDGE: 1, REASON: 1, VERIFY: 1}, {KNOWLEDGE: 0, REASON: 0, VERIFY: 0}


@pytest.mark.parametrize(
    ("options", "at_first", "after_a_call"),
    [
        ({}, ALL, ALL),
        ({"aided": False}, NONE, NONE),
        ({"agents": "none"}, NONE, NONE),
        (
            {"agents": {"knowledge": "scripted"}},
            {**NONE, KNOWLEDGE: 1},
            {**NONE, KNOWLEDGE: 1},
        ),
        ({"rules": {"consult_budget": 0}}, NONE, NONE),
        ({"rules": {"consult_budget": 1}}, ALL, NONE),
        ({"rules": {"budget_per_kind": {"knowledge": 1}}}, ALL, {**ALL, KNOWLEDGE: 0}),
        (
            {"rules": {"kinds": ["verify", "knowledge"]}},
            {**ALL, REASON: 0},
            {**ALL, REASON: 0},
        ),
        ({"codec": "macro"}, ALL, ALL),
    ],
)
def test_macros_are_masked_where_they_ask_nothing(
    options: dict, at_first: dict, after_a_call: dict
):
    env = gym.make(ID, **options)
    info = env.reset(seed=0, options={"index": 0})[1]
    assert (
        allowed(info["action_mask"])
        == allowed(env.unwrapped.action_masks())
        == at_first
    )
    assert env.unwrapped.action_masks().dtype == np.bool_
    if not options.get("aided", True):
        return
    for token_id in (KNOWLEDGE, *ids("mele")):
        info = env.step(token_id)[4]
        assert allowed(info["action_mask"]) == NONE
    info = env.step(END)[4]
    assert allowed(info["action_mask"]) == after_a_call


def test_large_vocabularies_have_no_mask_in_info(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aipo_env.gym.token_env.MAX_MASK_TOKENS", 259)
    env = start(obs="dict")
    observation, *_, info = env.step(65)
    assert "action_mask" not in info
    assert (
        allowed(observation["action_mask"])
        == allowed(env.unwrapped.action_masks())
        == ALL
    )


def test_a_dictionary_tells_who_wrote_what():
    env = gym.make(ID, obs="dict", window=48)
    assert env.observation_space["author"] == gym.spaces.Box(0, 5, (48,), np.int8)
    observation, _ = env.reset(seed=0, options={"index": 0})
    assert {name: (part.shape, part.dtype) for name, part in observation.items()} == {
        "tokens": ((48,), np.int64),
        "author": ((48,), np.int8),
        "length": ((1,), np.int64),
        "action_mask": ((260,), np.int8),
    }
    assert observation["length"].tolist() == [44]
    assert observation["tokens"].tolist() == [END] * 4 + PROMPT
    assert observation["author"].tolist() == [Author.TEMPLATE] * 4 + [
        Author.TEMPLATE if token_id == END else Author.PROMPT for token_id in PROMPT
    ]
    call = [KNOWLEDGE, *ids("mele"), END]
    observation = play(env, call)[0]
    wrapper, body = len('<reply from="knowledge">'), len("mele=#78#25;")
    authors = (
        [Author.POLICY] * 6
        + [Author.ENV] * wrapper
        + [Author.AGENT] * body
        + [Author.ENV] * 8
        + [Author.TEMPLATE]
    )
    assert observation["tokens"].tolist() == (call + REPLY)[-48:]
    assert observation["author"].tolist() == authors[-48:]
    assert observation["length"].tolist() == [48]


def test_the_window_of_a_long_episode():
    env = start(window=100, rules={"max_policy_tokens": 5000})
    written = np.random.default_rng(0).integers(65, 91, 3000).tolist()
    for token_id in written:
        observation = env.step(token_id)[0]
    assert observation.tolist() == written[-100:]


def test_a_session_keeps_the_tokens_and_who_wrote_them():
    scenario = build_scenario()
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    ScriptedPolicy(["<knowledge>mele</knowledge>", "\\boxed{1}"]).run(session)
    tokens = session.episode().tokens
    shown = [token_id for run in session.token_runs for token_id in run.token_ids]
    assert tokens.token_ids.tolist() == shown
    assert (tokens.author == Author.POLICY).sum() == 27 + 9
    assert (tokens.author == Author.AGENT).sum() == 12


AIPO = {"tokenizer": "tiktoken:aipo", "window": 64}
TINY = {"tokenizer": f"hf:{data_folder('tiny_policy')}", "window": 64}


@pytest.mark.parametrize(
    ("options", "codec"),
    [(AIPO, "tags"), (TINY, "tags"), (AIPO, "macro"), (AIPO, "hermes")],
)
def test_a_whole_episode_in_tokens_of_a_language_model(options: dict, codec: str):
    env = gym.make(ID, **options, codec=codec)
    env.reset(seed=0, options={"index": 0})
    tokenizer = env.unwrapped.tokenizer
    text = {
        "tags": "<knowledge>mele</knowledge>",
        "macro": "<|knowledge|>mele",
        "hermes": (
            '<tool_call>{"name": "consult", "arguments": {"kind": "knowledge", "query":'
            ' "mele"}}</tool_call>'
        ),
    }[codec]
    spelled = tokenizer.encode(text) + ([tokenizer.end_id] if codec == "macro" else [])
    assert play(env, spelled)[4]["consults_used"] == 1
    if tokenizer.macro_ids:
        macro = [
            tokenizer.macro_ids["knowledge"],
            *tokenizer.encode("mele"),
            tokenizer.end_id,
        ]
        assert play(env, macro)[4]["consults_used"] == 2
    answer = [*tokenizer.encode("\\boxed{7623}"), tokenizer.end_id]
    _, reward, terminated, _, info = play(env, answer)
    assert (reward, terminated) == (1.0, True)
    turns = info["episode_record"].turns
    assert {turn.completion for turn in turns[:-1]} == {text}
    assert turns[-1].completion == "\\boxed{7623}"


def bpe(folder: Path, merges: list[tuple[str, str]]) -> str:
    """Save a tokenizer of bytes, these merges and an end token that is the first id;
    return its spec.
    """
    tokens = dict.fromkeys(
        ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    )
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    return f"hf:{folder}"


def test_a_stop_string_may_end_inside_a_token(tmp_path: Path):
    env = start(tokenizer=bpe(tmp_path, [(">", "!"), ("e", ">!")]))
    tokenizer = env.unwrapped.tokenizer
    last = tokenizer.encode("e>!")
    assert len(last) == 1
    info = play(env, [*tokenizer.encode("<knowledge>mele</knowledg"), *last])[4]
    assert info["consults_used"] == 1


PAIRS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=60)
TURNS = st.one_of(
    st.lists(st.integers(0, 10**6), max_size=20),
    st.sampled_from(
        [
            "<knowledge>mele</knowledge>",
            "é <verify>",
            "<reason>mele</reason>\U0001f600",
            "\\boxed{1}",
        ]
    ),
)


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.lists(TURNS, min_size=1, max_size=6))
def test_what_the_policy_wrote_stands_unchanged_whatever_its_tokens(
    pairs: list, turns: list
):
    words = sorted(set("<>/knowledgmlvrifysa#;{}\\bx01"))
    merges: dict[tuple[str, str], None] = {}
    for left, right in pairs:
        pair = (words[left % len(words)], words[right % len(words)])
        merges[pair] = None
        words.append("".join(pair))
    with TemporaryDirectory() as folder:
        env = TokenEnv(
            tokenizer=bpe(Path(folder), list(merges)), window=1000, obs="dict"
        )
    env.reset(seed=0, options={"index": 0})
    tokenizer, written, is_over = env.tokenizer, [], False
    for turn in [*turns, [], [], []]:
        token_ids = (
            tokenizer.encode(turn)
            if isinstance(turn, str)
            else [i % tokenizer.num_tokens for i in turn]
        )
        for token_id in (*token_ids, tokenizer.end_id):
            if not is_over:
                written.append(token_id)
                observation, _, terminated, truncated, info = env.step(token_id)
                is_over = terminated or truncated
    episode = info["episode_record"]
    tokens = episode.tokens
    assert tokens.token_ids[tokens.policy_mask].tolist() == written
    for number, turn in enumerate(episode.turns):
        own = tokens.token_ids[tokens.policy_mask & (tokens.turn == number)].tolist()
        assert turn.completion == tokenizer.decode(own)
    # Every token has one author, and they say the messages in turn.
    assert set(tokens.author.tolist()) <= set(Author)
    shown = [span for message in episode.messages for span in message.spans]
    for author in set(Author) - {Author.POLICY, Author.TEMPLATE}:
        said = "".join(span.text for span in shown if span.author == author)
        assert "".join(map(tokenizer.decode, runs(tokens, author))) == said
    template = tokens.token_ids[tokens.author == Author.TEMPLATE]
    assert set(template.tolist()) <= {tokenizer.end_id}
    for consult in episode.consults:
        reply = tokens.token_ids[
            (tokens.author == Author.AGENT) & (tokens.call_id == consult.call_id)
        ]
        assert tokenizer.decode(reply.tolist()) == consult.reply
    length = min(len(tokens), 1000)
    assert observation["length"].tolist() == [length]
    assert (
        observation["tokens"][-length:].tolist() == tokens.token_ids[-length:].tolist()
    )
    assert observation["author"][-length:].tolist() == tokens.author[-length:].tolist()


def runs(tokens: TokenRecord, author: Author) -> list[list[int]]:
    """The token ids of an author, as one list for each run of them."""
    found = groupby(
        zip(tokens.author, tokens.token_ids, strict=True),
        key=lambda pair: pair[0] == author,
    )
    return [
        [int(token_id) for _, token_id in run] for is_author, run in found if is_author
    ]


def test_an_episode_without_agents_stops_at_no_call_beside_one_with_them():
    aided = TokenEnv(window=64)
    alone = copy.copy(aided)
    aided.reset(seed=1, options={"index": 0})
    alone.reset(seed=1, options={"index": 0, "aided": False})
    turn = list(b"<knowledge>mele</knowledge>")
    for token_id in turn:
        asked, told = aided.step(token_id)[4], alone.step(token_id)[4]
    assert (asked["turn"], asked["consults_used"]) == (1, 1)
    assert (told["turn"], told["consults_used"]) == (0, 0)
    assert not alone.action_masks()[257:].any()
    # The other way round, too: what one remembers of tokens is not the other's.
    aided.reset(options={"index": 0, "aided": False})
    alone.reset(options={"index": 0})
    for token_id in turn:
        told, asked = aided.step(token_id)[4], alone.step(token_id)[4]
    assert (asked["turn"], told["turn"]) == (1, 0)
