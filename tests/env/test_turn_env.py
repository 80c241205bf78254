"""`AIPO-Toy-Turn-v0`: one action is one turn, in text."""

import copy
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded

from aipo_env import Author, ConfigError, Episode, TurnEnv, build_scenario

ID = "AIPO-Toy-Turn-v0"
ASK = "<knowledge>mele</knowledge>"


def start(**options: object) -> gym.Env:
    env = gym.make(ID, **options)
    env.reset(seed=0, options={"index": 0})
    return env


def test_a_whole_episode_as_a_transcript():
    env = gym.make(ID)
    observation, info = env.reset(seed=0, options={"index": 0})
    prompt = "system: Solve. You may consult.\n\nuser: Apply mele to 0808."
    assert observation == prompt
    assert info == {
        "task_id": "toy-0-train-0",
        "turn": 0,
        "num_policy_tokens": 0,
        "consults_used": 0,
    }

    observation, reward, terminated, truncated, info = env.step(ASK)
    asked = (
        f"{prompt}\n\nassistant: {ASK}\n\nuser: <reply"
        ' from="knowledge">mele=#78#25;</reply>'
    )
    assert observation == asked
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info == {
        "task_id": "toy-0-train-0",
        "turn": 1,
        "num_policy_tokens": 27,
        "consults_used": 1,
    }

    observation, reward, terminated, truncated, info = env.step(
        "0808+7825=7623;\\boxed{7623}"
    )
    assert observation == f"{asked}\n\nassistant: 0808+7825=7623;\\boxed{{7623}}"
    assert (reward, terminated, truncated) == (1.0, True, False)
    episode = info.pop("episode_record")
    assert info == {
        "task_id": "toy-0-train-0",
        "turn": 2,
        "num_policy_tokens": 54,
        "consults_used": 1,
        "stop_reason": "completed",
        "reward_parts": {"verdict": 1.0},
    }
    assert isinstance(episode, Episode)
    assert episode.correct
    assert (
        bytes(episode.tokens.token_ids[episode.tokens.policy_mask].tolist()).decode()
        == f"{ASK}0808+7825=7623;\\boxed{{7623}}"
    )
    assert (episode.tokens.author == Author.AGENT).sum() == len("mele=#78#25;")


def test_delta_shows_what_is_new():
    env = gym.make(ID, observation="delta")
    assert (
        env.reset(options={"index": 0})[0]
        == "Solve. You may consult.\n\nApply mele to 0808."
    )
    assert env.step(ASK)[0] == '<reply from="knowledge">mele=#78#25;</reply>'
    assert (
        env.step("<verify>")[0]
        == "Malformed call: <verify> is not closed. Nothing was asked."
    )
    assert env.step("\\boxed{1}")[0] == ""


def test_delta_of_an_episode_that_was_over_at_once():
    env = start(observation="delta", rules={"max_context_tokens": 10})
    assert env.step("x")[0] == ""


def test_messages_hold_roles_and_contents():
    env = gym.make(ID, observation="messages")
    prompt = (
        {"role": "system", "content": "Solve. You may consult."},
        {"role": "user", "content": "Apply mele to 0808."},
    )
    assert env.reset(options={"index": 0})[0] == prompt
    assert env.step("\\boxed{1}")[0] == (
        *prompt,
        {"role": "assistant", "content": "\\boxed{1}"},
    )


def test_any_text_is_an_action():
    text = "\x00\ud800\U0001f600\u202e"
    info = start().step(text)[4]
    assert (info["stop_reason"], info["num_policy_tokens"]) == (
        "no_answer",
        1 + 3 + 4 + 3,
    )
    assert info["episode_record"].turns[0].completion == text
    assert start().step("")[4]["stop_reason"] == "no_answer"


def test_a_sampled_first_action_never_truncates():
    env = start(rules={"max_policy_tokens": 20})
    env.action_space.seed(0)
    for _ in range(20):
        env.reset()
        assert env.step(env.action_space.sample())[3] is False


def test_equal_seeds_give_equal_episodes():
    def episodes(seed: int) -> list[object]:
        env = gym.make(ID, agents="scripted:wrong=0.5", source="toy:difficulty=2")
        seen: list[object] = [env.reset(seed=seed)]
        for _ in range(3):
            seen += [
                env.step(ASK),
                env.step("<verify>riva=nire</verify>"),
                env.step("\\boxed{1}"),
            ]
            seen.append(env.reset())
        return seen

    assert episodes(5) == episodes(5)
    assert episodes(5) != episodes(6)


def test_choosing_a_task_changes_no_later_draw():
    first, second = gym.make(ID), gym.make(ID)
    first.reset(seed=1)
    second.reset(seed=1, options={"index": np.int64(3)})
    assert first.reset()[0] == second.reset()[0]


def test_splits_and_worlds():
    assert (
        start(split="test").unwrapped.reset(options={"index": 0})[1]["task_id"]
        == "toy-0-test-0"
    )
    assert (
        start(source="toy:seed=4").reset(options={"index": 0})[1]["task_id"]
        == "toy-4-train-0"
    )
    assert start(aided=False).unwrapped.stop_strings == ()
    assert start().unwrapped.stop_strings == ("</knowledge>", "</reason>", "</verify>")


def test_tasks_of_a_file(tmp_path: Path):
    path = tmp_path / "tasks.jsonl"
    path.write_text(
        '{"id": "a", "prompt": "1+1?", "answer": "2"}\n{"id": "b", "prompt": "x",'
        ' "answer": "3"}\n'
    )
    env = gym.make(ID, source=f"file:{path}", agents="none")
    assert {env.reset(seed=seed)[1]["task_id"] for seed in range(20)} == {"a", "b"}
    with pytest.raises(ConfigError, match="index=2 must be a whole number from 0 to 1"):
        env.reset(options={"index": 2})


def test_a_cassette_repeats_what_agents_said(tmp_path: Path):
    path = tmp_path / "replies.jsonl"
    env = start(cassette=str(path))
    said = env.step(ASK)[0]
    env.close()
    again = start(cassette=f"replay:{path}", agents="scripted:wrong=1")
    assert again.step(ASK)[0] == said
    again.close()


def test_info_gives_nothing_away_before_the_end():
    env = start()
    infos = [
        env.reset(options={"index": 0})[1],
        env.step(ASK)[4],
        env.step("<verify>")[4],
    ]
    assert "7623" not in json.dumps(infos)


def test_the_spec_has_a_json_form():
    env = gym.make(
        ID,
        source={"type": "toy", "difficulty": 2},
        rules={"max_turns": 3},
        observation="delta",
    )
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    again = gym.make(spec)
    assert again.unwrapped.scenario.rules.max_turns == 3
    assert again.reset(seed=3)[0] == env.reset(seed=3)[0]


def test_vector_environments():
    envs = gym.make_vec(ID, num_envs=2, vectorization_mode="sync", observation="delta")
    observations, infos = envs.reset(seed=0, options={"index": 0})
    assert observations == ("Solve. You may consult.\n\nApply mele to 0808.",) * 2
    _, rewards, terminated, _, infos = envs.step((ASK, "\\boxed{7623}"))
    assert rewards.tolist() == [0.0, 1.0]
    assert terminated.tolist() == [False, True]
    assert infos["consults_used"].tolist() == [1, 0]
    assert infos["episode_record"][1].correct
    envs.close()


def test_statistics_wrappers_find_their_key_free():
    env = gym.wrappers.RecordEpisodeStatistics(gym.make(ID))
    env.reset(options={"index": 0})
    info = env.step("\\boxed{7623}")[4]
    assert (info["episode"]["r"], info["episode"]["l"]) == (1.0, 1)


def test_ansi_shows_the_transcript_harmlessly():
    env = start(render_mode="ansi")
    assert (
        env.render()
        == "  prompt │ Solve. You may consult.\n  prompt │ Apply mele to 0808."
    )
    env.step("\x1b[2J\u202e\\boxed{1}")
    assert "  policy │ \\u001b[2J\\u202e\\boxed{1}\n" in env.render()
    assert env.render().endswith("     end │ completed, reward 0")


def test_human_prints_messages_as_they_come(capsys: pytest.CaptureFixture):
    env = start(render_mode="human")
    assert (
        capsys.readouterr().out
        == "  prompt │ Solve. You may consult.\n  prompt │ Apply mele to 0808.\n"
    )
    env.step(f"\x07{ASK}")
    assert (
        capsys.readouterr().out
        == f'  policy │ \\u0007{ASK}\n     env │ <reply from="knowledge">\n   agent │'
        " mele=#78#25;\n     env │ </reply>\n"
    )
    assert env.render() is None
    assert capsys.readouterr().out == ""


def test_human_prints_nothing_that_must_not_be_republished(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    row = {
        "id": "a",
        "prompt": "SECRET",
        "answer": "2",
        "source": "x/y",
        "meta": {"no_republish": True},
    }
    (tmp_path / "tasks.jsonl").write_text(json.dumps(row))
    start(
        source=f"file:{tmp_path / 'tasks.jsonl'}", agents="none", render_mode="human"
    ).step("SECRET")
    mark = "[withheld: x/y forbids republication]"
    assert (
        capsys.readouterr().out
        == f"  prompt │ {mark}\n  prompt │ {mark}\n  policy │ {mark}\n"
    )


def test_step_needs_a_running_episode():
    env = TurnEnv()
    with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
        env.step("x")
    env.reset()
    env.step("\\boxed{1}")
    with pytest.raises(ResetNeeded):
        env.step("x")
    env.reset()
    with pytest.raises(InvalidAction, match="the action must be text, got int"):
        env.step(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observation": "delat"}, "observation='delat'.*Did you mean 'delta'"),
        ({"split": "tests"}, "split='tests'.*Did you mean 'test'"),
        (
            {"render_mode": "rgb_array"},
            "render_mode='rgb_array'. Valid: ansi, html, human",
        ),
        ({"source": "toys"}, "Did you mean 'toy'"),
        ({"rules": {"max_turn": 1}}, "Did you mean 'max_turns'"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        TurnEnv(**options)


@pytest.mark.parametrize("name", ["AIPO-Toy-v0", ID])
@pytest.mark.parametrize(
    ("option", "near"), [("agent", "agents"), ("frameskip", ""), ("seed", "")]
)
def test_an_unknown_argument_is_a_type_error(name: str, option: str, near: str):
    message = f"got an unexpected keyword argument '{option}'"
    with pytest.raises(TypeError, match=message) as caught:
        gym.make(name, **{option: 3})
    assert f"Did you mean '{near}'" in str(caught.value) or not near
    with pytest.raises(TypeError, match=message):
        gym.make_vec(name, num_envs=2, **{option: 3})


OWN = {
    "source": "toy",
    "agents": {"knowledge": "scripted"},
    "rules": {"plain_prompt": "You are a clerk.", "consult_budget": 5},
    "pool": {"retries": 1},
}


@pytest.fixture
def own_id() -> Iterator[str]:
    """An environment as another package registers it."""
    gym.register("Own/Clerk-Turn-v3", entry_point="aipo_env:TurnEnv", kwargs=OWN)
    yield "Own/Clerk-Turn-v3"
    del gym.registry["Own/Clerk-Turn-v3"]


def test_rules_are_merged_with_those_that_are_registered(own_id: str):
    env = gym.make(own_id, rules={"max_turns": 3}, pool={"deadline_s": 9.0})
    rules = env.unwrapped.scenario.rules
    assert (rules.plain_prompt, rules.consult_budget) == ("You are a clerk.", 5)
    assert rules.max_turns == 3
    limits = env.unwrapped.scenario.pool.limits
    assert (limits.retries, limits.deadline_s) == (1, 9.0)
    assert "You are a clerk." in env.reset(seed=0)[0]
    again = gym.make(env.spec).unwrapped
    assert again.scenario.rules == rules
    assert gym.make(own_id).unwrapped.scenario.rules.max_turns == 10


def test_an_id_is_an_environment(own_id: str):
    scenario = build_scenario(own_id, rules={"max_turns": 2}, agents="none")
    assert (scenario.rules.plain_prompt, scenario.rules.max_turns) == (
        "You are a clerk.",
        2,
    )
    assert scenario.offered == ()
    env = TurnEnv(environment={"id": own_id, "rules": {"max_turns": 2}})
    assert env.scenario.rules.plain_prompt == "You are a clerk."


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize("name", ["AIPO-Toy-v0", ID, "AIPO-Code-Turn-v0"])
def test_an_environment_goes_to_another_process(name: str, pickler: Any):
    env = gym.make(name, rules={"max_turns": 2}, disable_env_checker=True)
    for moment in ("made", "reset"):
        if moment == "reset":
            env.reset(seed=4)
        twin = pickler.loads(pickler.dumps(env))
        with pytest.raises(ResetNeeded):
            twin.step(env.action_space.sample())
        first, again = env.reset(seed=3), twin.reset(seed=3)
        assert np.array_equal(first[0], again[0])
        assert first[1] == again[1]
        assert twin.unwrapped.scenario.rules == env.unwrapped.scenario.rules
        assert twin.spec.id == name


def test_a_deep_copy_goes_on_with_the_running_episode():
    env = gym.make("AIPO-Toy-v0", window=8)
    env.reset(seed=1)
    env.step(65)
    twin = copy.deepcopy(env)
    assert (env.step(66)[0][-2:].tolist(), twin.step(67)[0][-2:].tolist()) == (
        [65, 66],
        [65, 67],
    )
    assert twin.unwrapped.scenario is env.unwrapped.scenario


@pytest.mark.parametrize(
    "options", [{"idx": 3}, {"index": -1}, {"index": "a"}, {"index": True}]
)
def test_bad_options_of_reset_are_named(options: dict):
    with pytest.raises(ConfigError, match=r"reset: .*index"):
        TurnEnv().reset(options=options)


def test_an_episode_may_be_of_another_split_and_without_agents():
    env = TurnEnv(observation="delta")
    observation, info = env.reset(options={"index": 3, "split": "test"})
    assert info["task_id"] == "toy-0-test-3"
    assert observation.startswith("Solve. You may consult.")
    observation, info = env.reset(options={"index": 3, "aided": False})
    assert (info["task_id"], env.stop_strings) == ("toy-0-train-3", ())
    assert observation.startswith("Solve.\n")
    assert env.step(ASK)[4]["episode_record"].aided is False
    # Only that one episode.
    observation, info = env.reset(options={"index": 3})
    assert (info["task_id"], len(env.stop_strings)) == ("toy-0-train-3", 3)
    unaided = TurnEnv(observation="delta", aided=False)
    assert "You may consult" in unaided.reset(options={"aided": True})[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"split": "dev"}, "reset: split='dev'. Valid: test, train."),
        ({"aided": "no"}, "reset: aided='no' must be true or false."),
        ({"aided": 0}, "reset: aided=0 must be true or false."),
    ],
)
def test_a_split_or_aid_that_there_is_not_is_named(options: dict, told: str):
    env = TurnEnv()
    env.reset(seed=4)
    with pytest.raises(ConfigError, match=re.escape(told)):
        env.reset(options=options)


def test_new_messages_say_who_wrote_what():
    env = TurnEnv()
    assert env.new_messages == ()
    env.reset(options={"index": 0})
    assert [message.role for message in env.new_messages] == ["system", "user"]
    env.step(ASK)
    [message] = env.new_messages
    assert [(span.text, span.author) for span in message.spans] == [
        ('<reply from="knowledge">', Author.ENV),
        ("mele=#78#25;", Author.AGENT),
        ("</reply>", Author.ENV),
    ]
    assert copy.copy(env).new_messages == ()
    env.step("\\boxed{1}")
    assert env.new_messages == ()


def test_limits_count_tokens_of_the_tokenizer_that_is_named():
    pytest.importorskip("tiktoken")
    limits = {"max_policy_tokens": 60}
    text = "Let us think about what it is, and then about it again. " * 2
    for tokenizer, reason in (("byte", "max_sampled_tokens"), ("tiktoken:aipo", None)):
        env = start(tokenizer=tokenizer, rules=limits)
        stop_reason = env.step(text)[4]["stop_reason"]
        assert stop_reason == (reason or "no_answer")
        assert text in env.action_space or tokenizer == "byte"
    twin = pickle.loads(pickle.dumps(env.unwrapped))
    twin.reset(options={"index": 0})
    assert twin.step(text)[4]["stop_reason"] == "no_answer"
    with pytest.raises(ConfigError, match="tokenizer: 'words' is unknown"):
        TurnEnv(tokenizer="words")


def call(name: str, arguments: dict) -> dict:
    """An OpenAI assistant message with one call."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    calls = [{"id": "c1", "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def test_an_openai_message_is_an_action():
    env = start(codec="openai", observation="delta", tools=["aipo_env:add_codes"])
    observation = env.step(call("consult", {"kind": "knowledge", "query": "mele"}))[0]
    assert (
        observation
        == '{"role": "tool", "name": "knowledge", "content": "mele=#78#25;"}\n'
    )
    observation = env.step(call("add_codes", {"code": "0808", "shift": "7825"}))[0]
    assert observation == '{"role": "tool", "name": "add_codes", "content": "7623"}\n'
    assert (
        env.step({"role": "assistant", "content": "\\boxed{7623}", "tool_calls": None})[
            1
        ]
        == 1.0
    )


def test_structured_calls_need_their_codec():
    env = start()
    with pytest.raises(InvalidAction, match='make the environment with codec="openai"'):
        env.step(call("consult", {"kind": "knowledge", "query": "mele"}))
    assert env.step({"role": "assistant", "content": "\\boxed{7623}"})[1] == 1.0


@pytest.mark.parametrize("mode", ["token", "turn"])
def test_either_id_has_either_face(mode: str):
    faces = {"token": "TokenEnv", "turn": "TurnEnv"}
    for name in ("AIPO-Toy-v0", "AIPO-Toy-Turn-v0"):
        assert type(gym.make(name, mode=mode).unwrapped).__name__ == faces[mode]
    with pytest.raises(ConfigError, match="mode='turns'.*Did you mean 'turn'"):
        gym.make(ID, mode="turns")


def test_every_option_has_a_json_form():
    options = {
        "tools": ["aipo_env:add_codes"],
        "verifier": "math",
        "codec": "hermes",
        "agents": {
            "knowledge": "scripted",
            "verify": {"type": "scripted", "wrong": 0.5},
        },
        "rules": {
            "max_turns": 3,
            "kinds": ["knowledge"],
            "budget_per_kind": {"add_codes": 1},
        },
        "pool": {"deadline_s": 5},
        "split": "test",
        "aided": True,
    }
    for name in ("AIPO-Toy-v0", ID):
        env = gym.make(name, **options)
        again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
        assert again.reset(seed=1)[1]["task_id"] == env.reset(seed=1)[1]["task_id"]
        assert again.unwrapped.scenario.rules == env.unwrapped.scenario.rules


@pytest.mark.parametrize("name", ["AIPO-Toy-v0", ID])
@pytest.mark.parametrize(
    "seed", [-1, 1.0, True, 2**63, "1", np.float64(1), np.bool_(1)]
)
def test_a_seed_is_honoured_or_refused(name: str, seed: object):
    env = gym.make(name)
    with pytest.raises(
        ConfigError,
        match=f"reset: seed={re.escape(repr(seed))} must be a whole number from 0",
    ):
        env.reset(seed=seed)
    assert env.reset(seed=np.int64(7))[1]["task_id"] == env.reset(seed=7)[1]["task_id"]
    assert env.reset(seed=2**63 - 1)[1]["task_id"] != env.reset(seed=7)[1]["task_id"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("codec", 7, "codec: 7 is no spec."),
        ("cassette", 5, "cassette=5 must be the path of a file, as text."),
        ("rules", [1], "dialogue rules: [1] must be an object of names and values."),
        ("pool", 3, "agent pool: 3 must be an object of names and values."),
        ("tools", 5, "tools=5 must be a list of functions, classes or their names."),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(name: str, value: object, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        gym.make(ID, **{name: value})


def test_another_codec_is_explained_in_the_toy_world_too():
    system = gym.make(ID, codec="hermes").reset(seed=0)[0]
    assert "<tool_call>" in system
