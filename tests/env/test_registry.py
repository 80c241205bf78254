"""Spec strings, and the scenario that is put together from them."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from aipo_env import (
    CONSULT_KINDS,
    TOY_RULES,
    ConfigError,
    DialogueRules,
    build_scenario,
    choose,
    construct,
    parse_spec,
)


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("scripted", ("scripted", {})),
        ("scripted:", ("scripted", {})),
        ("scripted:wrong=0.2,slow=1", ("scripted", {"wrong": 0.2, "slow": 1})),
        ("x: a = true,b=null,c=two words,d=a=b", ("x", {"a": True, "b": None, "c": "two words", "d": "a=b"})),
        ({"type": "scripted", "wrong": 0.2}, ("scripted", {"wrong": 0.2})),
        ("file:some/tasks.jsonl", ("file", {"": "some/tasks.jsonl"})),
        ("openai:m/M-1@http://h:8/v1,tokens=9", ("openai", {"": "m/M-1@http://h:8/v1", "tokens": 9})),
    ],
)
def test_both_forms_of_a_spec(spec: object, parsed: tuple):
    assert parse_spec(spec, "agents") == parsed


def test_parsing_leaves_the_spec_as_it_was():
    spec = {"type": "scripted", "wrong": 0.2}
    parse_spec(spec, "agents")
    assert spec == {"type": "scripted", "wrong": 0.2}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "scripted:a=1,wrong",
            "agents: 'wrong' in 'scripted:a=1,wrong' is no option; write scripted:name=value",
        ),
        ({"wrong": 0.2}, "agents: the spec .* needs a 'type'"),
        ({"type": 3}, "needs a 'type'"),
        (3, "agents: 3 is no spec"),
        (None, "agents: None is no spec"),
    ],
)
def test_what_is_no_spec(spec: object, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_spec(spec, "agents")


@dataclass
class Thing:
    """Something to construct."""

    size: int
    name: str = ""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ConfigError(f"size={self.size}")


def test_construct_names_the_option():
    assert construct(Thing, {"size": 3}, "thing") == Thing(3)
    with pytest.raises(
        ConfigError, match=r"thing: there is no option 'sise'. Valid: name, size. Did you mean 'size'"
    ):
        construct(Thing, {"sise": 3}, "thing")
    with pytest.raises(ConfigError, match=r"thing: .*missing 1 required"):
        construct(Thing, {}, "thing")
    with pytest.raises(ConfigError, match="thing: '<' not supported"):
        construct(Thing, {"size": "three"}, "thing")
    with pytest.raises(ConfigError, match=r"^size=-1$"):
        construct(Thing, {"size": -1}, "thing")


def test_choose_suggests_the_nearest():
    assert choose({"a": 1}, "a", "letter") == 1
    with pytest.raises(
        ConfigError, match=r"letter: there is no 'alpa'. Valid: alpha, beta. Did you mean 'alpha'"
    ):
        choose({"alpha": 1, "beta": 2}, "alpa", "letter")


def test_a_scenario_from_specs():
    scenario = build_scenario("toy:difficulty=2", "scripted:wrong=0.5", rules={"max_turns": 3}, seed=4)
    assert scenario.rules.max_turns == 3
    assert scenario.rules.plain_prompt == TOY_RULES.plain_prompt == "Solve."
    assert [scenario.pool.agent_id(kind) for kind in CONSULT_KINDS] == [
        "knowledge/scripted",
        "reason/scripted",
        "verify/scripted",
    ]
    assert build_scenario(agents="none").pool.agents == {}


def test_a_file_has_the_general_rules_and_no_scripted_agents(tmp_path: Path):
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"id": "a", "prompt": "1+1?", "answer": "2"}\n')
    assert build_scenario(f"file:{path}", "none").rules == DialogueRules()
    with pytest.raises(ConfigError, match="'scripted' agents know toy worlds only; use agents='none'"):
        build_scenario(f"file:{path}", "scripted")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agents": "scriptd"}, "agent: there is no 'scriptd'.*Did you mean 'scripted'"),
        ({"agents": "scripted:wrng=1"}, "there is no option 'wrng'.*Did you mean 'wrong'"),
        ({"agents": "scripted:wrong=2"}, "wrong=2 is no probability"),
        (
            {"rules": {"max_turn": 3}},
            "dialogue rules: there is no option 'max_turn'.*Did you mean 'max_turns'",
        ),
        ({"rules": {"budget_per_kind": {"verfy": 1}}}, "budget_per_kind has 'verfy'.*Did you mean 'verify'"),
        ({"rules": {"max_turns": "3"}}, "dialogue rules: max_turns='3' must be a whole number"),
        ({"pool": {"retries": -1}}, "agent pool: retries=-1"),
        ({"pool": {"retry": 1}}, "agent pool: there is no option 'retry'"),
    ],
)
def test_a_scenario_names_what_is_wrong(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        build_scenario(**options)
