"""One environment, one spec: Python, JSON, ids and flags say the same."""

import asyncio
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from aipo_env import (
    ConfigError,
    DialogueRules,
    Environment,
    EpisodeRunner,
    PoolLimits,
    PoolSettings,
    RuleSettings,
    ScriptedPolicy,
    Task,
    TurnEnv,
    Verdict,
    build_scenario,
    short_forms,
    with_limits,
)
from aipo_env.cli import main
from aipo_env.flags import expanded
from aipo_env.rollout.environment import is_id


def double(number: int) -> int:
    """Double a number."""
    return 2 * number


def exact(task: Task, text: str) -> float:
    """Return what an answer earns."""
    return float(text.strip() == task.answer)


class Strict:
    """A verifier of one's own."""

    async def verify(self, task: Task, text: str) -> Verdict:
        is_right = text == task.answer
        status = "correct" if is_right else "wrong"
        return Verdict(correct=is_right, reward=0.5 * is_right, status=status)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AIPO-Math-Turn-v0", True),
        ("package:Namespace/Name-v12", True),
        ("package.module:Name-v1", True),
        ("toy", False),
        ("toy:difficulty=2", False),
        ("file:tasks-v1", False),
        ("hf:OWNER/NAME-v2", False),
        ("my_package.tasks:Source", False),
        ("math500", False),
        ("", False),
    ],
)
def test_what_is_an_id(text: str, expected: bool):
    assert is_id(text) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("AIPO-Code-v0", Environment(id="AIPO-Code-v0")),
        ("toy:difficulty=2", Environment(source="toy:difficulty=2")),
        ({"type": "toy"}, Environment(source={"type": "toy"})),
        (
            {"source": "toy", "rules": {"max_turns": 3}, "pool": {"retries": 0}},
            Environment(
                source="toy",
                rules=RuleSettings(max_turns=3),
                pool=PoolSettings(retries=0),
            ),
        ),
    ],
)
def test_short_forms_in_python(value: Any, expected: Environment):
    assert Environment.of(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"sorce": "toy"}, "there is no option 'sorce'.*Did you mean 'source'"),
        ({"rules": {"max_turn": 3}}, "Did you mean 'max_turns'"),
        ({"rules": 3}, "dialogue rules: 3 must be an object"),
        ({"tools": "shout"}, "tools='shout' must be a list"),
        ({"id": 3}, "id=3 must be a Gymnasium id"),
    ],
)
def test_what_is_no_environment(value: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        Environment.of(value)


def test_json_turns_back():
    environment = Environment(
        id="AIPO-Math-v0",
        agents={"knowledge": "scripted"},
        tools=["my_package:shout"],
        verifier={"type": "reward", "functions": {"a:f": 1.0}},
        codec="hermes",
        rules={"max_turns": 3, "kinds": ["verify"], "budget_per_kind": {"verify": 1}},
        pool={"retries": 0},
    )
    row = json.loads(json.dumps(environment.to_dict()))
    assert Environment.of(row) == environment
    assert Environment().to_dict() == {}


def test_functions_and_objects_in_json():
    environment = Environment(source=Strict(), tools=[double], verifier=exact)
    assert environment.to_dict() == {
        "source": f"<{__name__}.Strict>",
        "tools": [f"{__name__}:double"],
        "verifier": f"{__name__}:exact",
    }


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("source", "<mine.Tasks>", "task"),
        ("agents", "<mine.Agent>", "agent"),
        ("verifier", "<mine.Check>", "verifier"),
        ("codec", "<mine.Codec>", "codec"),
        ("tools", ["<mine.Tool>"], "tool"),
    ],
)
def test_an_object_is_not_made_from_its_json(field: str, value: Any, kind: str):
    with pytest.raises(
        ConfigError, match=f"{kind}: <mine.* was an object of the program"
    ):
        build_scenario(Environment.of({field: value}))


def test_every_rule_and_limit_can_be_set():
    for settings, whole in ((RuleSettings, DialogueRules), (PoolSettings, PoolLimits)):
        names = set(settings.__dataclass_fields__)
        assert names == set(whole.__dataclass_fields__)
        # Each is explained where --help reads it.
        explained = {name for name in names if f"{name}: " in (settings.__doc__ or "")}
        grouped = {"max_calls", "max_tokens", "max_usd"}
        assert names - explained - grouped == set()


def test_merging():
    base = Environment(
        id="X-v0", rules={"max_turns": 3, "plain_prompt": "P"}, pool={"retries": 0}
    )
    other = Environment(source="toy", rules={"max_turns": 5}, tools=[])
    merged = base.changed(other)
    assert (merged.id, merged.source, merged.tools) == ("X-v0", "toy", ())
    assert (merged.rules.max_turns, merged.rules.plain_prompt) == (5, "P")
    assert merged.pool.retries == 0


def test_flags():
    rest, environment = short_forms(
        [
            "--lr",
            "1",
            "--agents",
            '{"verify": "scripted"}',
            "--environment=toy:difficulty=2",
            "--reward",
            "a:f=1,b:g=0.2",
            "--environment.rules.max-turns",
            "3",
        ],
        Environment(id="AIPO-Code-v0", rules={"max_invalid": 0}),
    )
    assert rest == ["--lr", "1", "--environment.rules.max-turns", "3"]
    assert environment == Environment(
        source="toy:difficulty=2",
        agents={"verify": "scripted"},
        verifier={"type": "reward", "functions": {"a:f": 1.0, "b:g": 0.2}},
        rules={"max_invalid": 0},
    )
    assert expanded(["--source", "toy", "--environment", "A-v0", "x"]) == [
        "--environment.source",
        "toy",
        "--environment.id",
        "A-v0",
        "x",
    ]


@pytest.mark.parametrize(
    "words", [["--agents"], ["--agents", "--lr"], ["--environment="], ["--agents", "{"]]
)
def test_flags_without_a_value_are_named(words: list[str]):
    with pytest.raises(ConfigError, match=words[0].strip("=")):
        short_forms(words, Environment())


def test_agents_follow_the_source(tmp_path: Path):
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"id": "a", "prompt": "1+1?", "answer": "2"}\n')
    alone = build_scenario(f"file:{path}")
    assert (alone.pool.agents, alone.offered) == ({}, ())
    assert build_scenario("toy").offered == ("knowledge", "reason", "verify")
    assert build_scenario("shipped:code").offered == ("knowledge", "reason", "verify")
    assert build_scenario("toy", {"reason": "scripted"}).offered == ("reason",)


def test_prompts_offer_those_who_answer(tmp_path: Path):
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"id": "a", "prompt": "1+1?", "answer": "2"}\n')
    prompt = TurnEnv(source=f"file:{path}").reset(seed=0)[0]
    assert "consult" not in prompt
    assert "<verify>" not in prompt
    own = {"plain_prompt": "P. {instructions}", "max_turns": 4}
    some = TurnEnv(source="toy", agents={"verify": "scripted"}, rules=own).reset(
        seed=0
    )[0]
    assert "<verify>" in some
    assert "<reason>" not in some
    assert "{" not in some


def test_tools_have_their_place_in_both_prompts():
    options = {"source": "toy", "tools": [double], "rules": {"plain_prompt": "P"}}
    alone = TurnEnv(aided=False, **options).reset(seed=0)[0]
    aided = TurnEnv(**options).reset(seed=0)[0]
    assert "<double>" in alone
    assert "<double>" in aided
    assert "<knowledge>" not in alone
    assert "<knowledge>" in aided
    placed = {**options, "rules": {"plain_prompt": "A {tools} B"}}
    prompt = TurnEnv(aided=False, **placed).reset(seed=0)[0].split("user:")[0]
    assert prompt.startswith("system: A ")
    assert prompt.strip().endswith(" B")
    away = {**options, "rules": {"plain_prompt": "P", "tools_when": "aided"}}
    assert "<double>" not in TurnEnv(aided=False, **away).reset(seed=0)[0]


def test_tools_stay_in_deployment_and_are_no_consultations():
    env = TurnEnv(
        source="toy",
        tools=[double],
        aided=False,
        rules={"tool_budget": 1, "max_turns": 5},
    )
    env.reset(seed=0)
    observation = env.step('<double>{"number": 4}</double>')[0]
    assert observation.endswith('<reply from="double">8</reply>')
    observation, _, terminated, _, info = env.step('<double>{"number": 4}</double>')
    assert not terminated
    assert info["consults_used"] == 0
    assert "no calls left" in observation


def test_markup_of_agents_is_text_where_none_answers():
    env = TurnEnv(source="toy", tools=[double], agents="none")
    env.reset(seed=0)
    _, _, terminated, _, info = env.step("<knowledge>mele</knowledge>")
    assert terminated
    assert info["stop_reason"] == "no_answer"


def test_a_runner_takes_an_environment():
    runner = EpisodeRunner(
        {"source": "toy", "verifier": Strict(), "rules": {"max_turns": 1}},
        ScriptedPolicy(["no"]).say,
    )

    async def first() -> Any:
        (episode,) = [episode async for episode in runner.episodes(1)]
        return episode

    episode = asyncio.run(first())
    assert (episode.reward, episode.stop_reason.value) == (0.0, "completed")


def test_verify_grades_by_a_verifier_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "own_reward.py").write_text(
        "def exact(task, text):\n    return float(text == task.answer)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows = [
        {"gold": "x", "response": "x"},
        {"gold": "x", "response": "y"},
        {"task": {"answer": "z", "kind": "own"}, "response": "z"},
        {"task": 0, "response": "7623"},
        {"task": {"anser": "z"}, "response": "z"},
        {"response": "z"},
        {"task": 0, "split": "dev", "response": "z"},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "verdicts.jsonl"
    given = ["--reward", "own_reward:exact", "--out", str(out)]
    assert main(["verify", str(path), *given]) == 0
    verdicts = [json.loads(line) for line in out.read_text().splitlines()]
    assert [verdict["reward"] for verdict in verdicts] == [1, 0, 1, 1, None, None, None]
    assert "Did you mean 'answer'" in verdicts[4]["reason"]
    assert "field 'gold' is missing" in verdicts[5]["reason"]
    assert "'dev'" in verdicts[6]["reason"]
    assert main(["verify", str(path)]) == 2
    assert "--kind math, choice or code" in capsys.readouterr().err


def test_tasks_and_play_take_an_id(capsys: pytest.CaptureFixture):
    assert main(["tasks", "AIPO-Science-Turn-v0"]) == 0
    assert capsys.readouterr().out.startswith("train  ")


def test_an_environment_beside_an_id(tmp_path: Path):
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"id": "a", "prompt": "1+1?", "answer": "2"}\n')
    env = gym.make("AIPO-Math-Turn-v0", environment=f"file:{path}")
    assert env.reset(seed=0)[1]["task_id"] == "a"
    both = {"source": f"file:{path}", "rules": {"max_turns": 2}}
    env = gym.make("AIPO-Math-Turn-v0", environment=both, rules={"max_invalid": 0})
    rules = env.unwrapped.scenario.rules
    assert (rules.max_turns, rules.max_invalid) == (2, 0)


def test_an_id_that_registers_an_environment_whole():
    kwargs = {"environment": {"source": "toy", "rules": {"max_turns": 2}}}
    gym.register("Own/Whole-Turn-v0", entry_point="aipo_env:TurnEnv", kwargs=kwargs)
    try:
        for scenario in (
            build_scenario("Own/Whole-Turn-v0"),
            gym.make("Own/Whole-Turn-v0").unwrapped.scenario,
            gym.make("Own/Whole-Turn-v0", rules={"max_invalid": 0}).unwrapped.scenario,
        ):
            assert scenario.rules.max_turns == 2
    finally:
        del gym.registry["Own/Whole-Turn-v0"]


def test_an_id_without_a_source_is_refused():
    gym.register("Own/Empty-Turn-v0", entry_point="aipo_env:TurnEnv", kwargs={})
    try:
        with pytest.raises(ConfigError, match="registered without a source"):
            build_scenario("Own/Empty-Turn-v0")
        assert build_scenario({"id": "Own/Empty-Turn-v0", "source": "toy"}).offered
    finally:
        del gym.registry["Own/Empty-Turn-v0"]


def test_verify_takes_a_bad_line_for_a_bad_line(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"gold": "4", "response": "\\boxed{4}"},
        {"gold": "4", "kind": "ode", "response": ""},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl"
    given = ["--environment", "AIPO-Science-v0", "--out", str(out)]
    assert main(["verify", str(path), *given]) == 0
    verdicts = [json.loads(line) for line in out.read_text().splitlines()]
    assert [verdict["reward"] for verdict in verdicts] == [1.0, None]
    assert "there is no kind 'ode'" in verdicts[1]["reason"]


def test_prompts_with_misspelt_places_are_refused():
    for rules, message in (
        ({"plain_prompt": "{tool}"}, r"has '\{tool\}', which stands for nothing"),
        ({"consult_prompt": "{instruction}"}, r"Did you mean '\{instructions\}'"),
        ({"plain_prompt": 5}, "plain_prompt=5 must be text"),
        ({"kinds": "verify"}, "kinds='verify' must be a list of roles"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_scenario("toy", rules=rules)
    assert build_scenario("toy", rules={"plain_prompt": r"\boxed{x} {y}"})


class Clerk(TurnEnv):
    """A class of one's own that says itself what it plays."""

    def __init__(self, **options: Any) -> None:
        super().__init__(source="toy:difficulty=2", tools=[double], **options)


def test_a_class_of_ones_own_has_its_say():
    own = {"rules": {"plain_prompt": "P"}}
    gym.register("Own/Clerk-Turn-v5", entry_point=Clerk, kwargs=own)
    try:
        made = gym.make("Own/Clerk-Turn-v5", rules={"max_turns": 3}).unwrapped.scenario
        built = build_scenario("Own/Clerk-Turn-v5", rules={"max_turns": 3})
        for scenario in (made, built):
            assert scenario.toolbox.names == ("double",)
            assert (scenario.rules.plain_prompt, scenario.rules.max_turns) == ("P", 3)
    finally:
        del gym.registry["Own/Clerk-Turn-v5"]


@pytest.mark.parametrize(
    ("environment", "tokenizer", "limits"),
    [
        ("toy", "byte", (131_072, 262_144)),
        ("toy:kinds=knowledge", "tiktoken:aipo", (32_768, 65_536)),
        ("AIPO-Math-Turn-v0", "hf:somewhere", (32_768, 65_536)),
        ({"rules": {"max_turns": 2}}, "byte", (131_072, 262_144)),
        ({"rules": {"max_policy_tokens": 77}}, "hf:somewhere", (77, 65_536)),
        (Environment(rules={"max_context_tokens": 99}), "byte", (131_072, 99)),
    ],
)
def test_a_policy_may_think_at_length_unless_the_environment_has_limits(
    environment: Any, tokenizer: str, limits: tuple[int, int]
):
    rules = with_limits(environment, tokenizer).rules
    assert (rules.max_policy_tokens, rules.max_context_tokens) == limits


def test_limits_leave_all_else_of_an_environment_as_it_is():
    given = Environment(source="toy", agents="none", rules={"max_turns": 2})
    made = with_limits(given)
    assert (made.source, made.agents, made.rules.max_turns) == ("toy", "none", 2)
