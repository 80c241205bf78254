"""Spec strings, and the scenario that is put together from them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

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
    registry,
)
from aipo_env.registry import Plugin, Registry, all_registries, load_attribute


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("scripted", ("scripted", {})),
        ("scripted:", ("scripted", {})),
        ("scripted:wrong=0.2,slow=1", ("scripted", {"wrong": 0.2, "slow": 1})),
        (
            "x: a = true,b=null,c=two words,d=a=b",
            ("x", {"a": True, "b": None, "c": "two words", "d": "a=b"}),
        ),
        ({"type": "scripted", "wrong": 0.2}, ("scripted", {"wrong": 0.2})),
        ("file:some/tasks.jsonl", ("file", {"": "some/tasks.jsonl"})),
        (
            "openai:m/M-1@http://h:8/v1,tokens=9",
            ("openai", {"": "m/M-1@http://h:8/v1", "tokens": 9}),
        ),
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
            (
                "agents: 'wrong' in 'scripted:a=1,wrong' is no option; write"
                " scripted:name=value"
            ),
        ),
        ({"wrong": 0.2}, "agents: the spec .* needs a 'type'"),
        ({"type": 3}, "needs a 'type'"),
        ("toy:seed=1,seed=2", "agents: 'seed' is given twice in 'toy:seed=1,seed=2'"),
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
        ConfigError,
        match=(
            r"thing: there is no option 'sise'. Valid: name, size. Did you mean 'size'"
        ),
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
        ConfigError,
        match=r"letter: there is no 'alpa'. Valid: alpha, beta. Did you mean 'alpha'",
    ):
        choose({"alpha": 1, "beta": 2}, "alpa", "letter")


def test_a_scenario_from_specs():
    scenario = build_scenario(
        "toy:difficulty=2", "scripted:wrong=0.5", rules={"max_turns": 3}, seed=4
    )
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
    with pytest.raises(
        ConfigError, match="'scripted' knows toy worlds only; use agents='none'"
    ):
        build_scenario(f"file:{path}", "scripted")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"agents": "scriptd"},
            "agent: there is no 'scriptd'.*Did you mean 'scripted'",
        ),
        (
            {"agents": "scripted:wrng=1"},
            "there is no option 'wrng'.*Did you mean 'wrong'",
        ),
        ({"agents": "scripted:wrong=2"}, "wrong=2 must be a number from 0 to 1"),
        (
            {"rules": {"max_turn": 3}},
            "dialogue rules: there is no option 'max_turn'.*Did you mean 'max_turns'",
        ),
        (
            {"pool": {"max_per_kind": {"verfy/usd": 1}}},
            "a budget's kind='verfy'.*Did you mean 'verify'",
        ),
        (
            {"rules": {"reply_budget": {"verfy/usd": 1}}},
            "a budget's kind='verfy'.*Did you mean 'verify'",
        ),
        (
            {"rules": {"budget_per_kind": {"verfy": 1}}},
            "a budget's kind='verfy'.*Did you mean 'verify'",
        ),
        (
            {"rules": {"max_turns": "3"}},
            "dialogue rules: max_turns='3' must be a whole number",
        ),
        (
            {"rules": {"budget_per_kind": [1]}},
            "dialogue rules: 'list' object has no attribute 'items'",
        ),
        ({"pool": {"retries": -1}}, "agent pool: retries=-1"),
        ({"pool": {"retry": 1}}, "agent pool: there is no option 'retry'"),
    ],
)
def test_a_scenario_names_what_is_wrong(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        build_scenario(**options)


@dataclass
class Pump:
    """A component with options."""

    litres: int = 1
    seed: int = -1
    name: str = ""

    @classmethod
    def made(cls) -> "Pump":
        return cls()

    def with_seed(self, seed: int) -> "Pump":
        return Pump(self.litres, seed)


READY = Pump(litres=9)


def no_value() -> Pump:
    return Pump()


def anything(first: str, **rest: int) -> dict[str, Any]:
    return {"first": first, **rest}


@pytest.fixture
def pumps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    """A registry with one component of its own, beside packages that offer some, two of
    them broken.
    """
    module = ModuleType("pumps")
    module.__dict__.update(Pump=Pump, READY=READY, no_value=no_value, anything=anything)
    monkeypatch.setitem(sys.modules, "pumps", module)
    (tmp_path / "exits.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    offers = {
        "hand": "pumps:Pump",
        "gone": "gone_pumps:Pump",
        "exit": "exits:Pump",
        "own": "pumps:READY",
    }
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group: (
            [EntryPoint(name, value, group) for name, value in offers.items()]
            if group == "aipo_env.pumps"
            else []
        ),
    )
    return Registry("pump", {"own": "pumps:Pump"})


@pytest.mark.parametrize(
    ("spec", "built"),
    [
        ("own", Pump(seed=7)),
        ("own:3", Pump(litres="3", seed=7)),
        ("own:litres=3,seed=1", Pump(litres=3, seed=1)),
        ("own:3,name=a", Pump(litres="3", seed=7, name="a")),
        ({"type": "own", "litres": 3}, Pump(litres=3, seed=7)),
        ("hand:litres=4", Pump(litres=4, seed=7)),
        ("pumps:Pump", Pump(seed=7)),
        ("pumps:Pump:litres=5", Pump(litres=5, seed=7)),
        ("pumps:Pump:litres=5,name=b", Pump(litres=5, seed=7, name="b")),
        ({"type": "pumps:Pump", "litres": 6}, Pump(litres=6, seed=7)),
        ("pumps:anything:x,more=2", {"first": "x", "more": 2}),
    ],
)
def test_a_component_by_spec(pumps: Registry, spec: Any, built: Any):
    assert pumps.build(spec, seed=7, unasked=1) == built


def test_a_live_object_is_the_component(pumps: Registry):
    assert pumps.build(READY, seed=7) is READY
    assert pumps.build("pumps:READY", seed=7) is READY
    assert pumps.build({"type": "pumps:READY"}) is READY


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "owm",
            "pump: there is no 'owm'. Valid: exit, gone, hand, own. Did you mean 'own'",
        ),
        ("owm:size", "pump: there is no 'owm'. Valid: .* Did you mean 'own'"),
        ("owm:tasks.jsonl", "pump: there is no 'owm'"),
        ("", "pump: there is no ''"),
        (":x", "pump: there is no ''"),
        (
            "own:litre=3",
            "pump 'own': there is no option 'litre'.*Did you mean 'litres'",
        ),
        ("own:3,litres=4", "pump: 'own' takes no value, got '3'"),
        ("pumps:no_value:3", "pump: 'pumps' takes no value, got '3'"),
        ("pumps:READY:3", "pump 'pumps': it is no factory, so it takes no options"),
        ("pumps:Pmp", "pump: 'pumps:Pmp' cannot be loaded: AttributeError: .*'Pmp'"),
        (
            "pumps.no:Pump",
            "pump: 'pumps.no:Pump' cannot be loaded: ModuleNotFoundError",
        ),
        (
            "gone",
            (
                "pump: 'gone_pumps:Pump' cannot be loaded: ModuleNotFoundError: No"
                " module named 'gone_pumps'"
            ),
        ),
        ("exit", "pump: 'exits:Pump' cannot be loaded: SystemExit: 3"),
    ],
)
def test_what_cannot_be_built_is_named(pumps: Registry, spec: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        pumps.build(spec)


def test_a_broken_package_breaks_no_other_name(pumps: Registry):
    assert pumps.names() == ["exit", "gone", "hand", "own"]
    assert pumps.build("hand") == Pump()
    assert pumps.plugins() == [
        Plugin(
            "pump",
            "exit",
            "exits:Pump",
            "pump: 'exits:Pump' cannot be loaded: SystemExit: 3.",
        ),
        Plugin(
            "pump",
            "gone",
            "gone_pumps:Pump",
            "pump: 'gone_pumps:Pump' cannot be loaded: ModuleNotFoundError: No module"
            " named 'gone_pumps'.",
        ),
        Plugin("pump", "hand", "pumps:Pump"),
        Plugin("pump", "own", "aipo_env"),
        Plugin("pump", "own", "pumps:READY", "the name 'own' is taken by aipo_env"),
    ]


def test_nothing_is_looked_up_for_a_name_of_our_own(
    monkeypatch: pytest.MonkeyPatch, pumps: Registry
):
    monkeypatch.setattr(registry, "entry_points", None)
    assert pumps.build("own") == Pump()


@pytest.mark.parametrize("spec", ["pumps:READY", "ready"])
def test_packages_are_asked_once_for_a_spec(
    monkeypatch: pytest.MonkeyPatch, pumps: Registry, spec: str
):
    asked: list[str] = []

    def entries(group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint("ready", "pumps:READY", group)]

    monkeypatch.setattr(registry, "entry_points", entries)
    found = [pumps.component(spec) for _ in range(3)]
    assert found == [READY] * 3
    assert pumps.is_named(spec)
    assert asked == ["aipo_env.pumps"]


def test_a_package_that_is_installed_later_is_found(
    monkeypatch: pytest.MonkeyPatch, pumps: Registry
):
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    with pytest.raises(ConfigError, match="pump: there is no 'ready'"):
        pumps.component("ready")
    entry = EntryPoint("ready", "pumps:READY", "g")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert pumps.component("ready") is READY
    pumps.register("ready")(no_value)
    assert pumps.component("ready") is no_value


def test_a_decorator_gives_a_short_name(pumps: Registry):
    @pumps.register("my-pump")
    def made(litres: int, seed: int) -> Pump:
        return Pump(litres, seed)

    assert made(1, 2) == Pump(1, 2)
    assert pumps.build("my-pump:litres=2", seed=5) == Pump(2, 5)
    assert (
        pumps.register("my-pump")(made) is made
    )  # as a notebook's cell that runs again
    assert "my-pump" in pumps.names()
    assert Plugin("pump", "my-pump", __name__) in pumps.plugins()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own", "pump: the name 'own' is taken"),
        ("mine", "pump: the name 'mine' is taken"),
        ("a:b", "pump: 'a:b' is no name; use letters, digits, '-' and '_'"),
        ("", "pump: '' is no name"),
    ],
)
def test_a_name_is_given_once(pumps: Registry, name: str, message: str):
    pumps.register("mine")(no_value)
    with pytest.raises(ConfigError, match=message):
        pumps.register(name)(Pump)


class Filter(NamedTuple):
    """A component that is no factory."""

    mesh: Callable[[], Pump]
    width: float = 0.5


class Brass(Pump):
    """Another class of pumps."""


def fine() -> Pump:
    return Pump(7)


def of_litres(litres: int) -> Callable[[], Pump]:
    def made() -> Pump:
        return Pump(litres)

    return made


def through(factory: Callable[[], Pump]) -> Callable[[], Pump]:
    def made() -> Pump:
        return factory()

    return made


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (no_value, fine),
        (of_litres(1), of_litres(2)),
        (through(no_value), through(fine)),
        (lambda: Pump(1), lambda: Pump(2)),
        (lambda: no_value(), lambda: fine()),
        (Filter(of_litres(1)), Filter(of_litres(2))),
        (Filter(no_value), Filter(fine)),
        (Filter(no_value), Filter(no_value, 0.1)),
        (Filter(no_value), (no_value, 0.5)),
        (Pump(1), Pump(2)),
        (READY, no_value),
        (partial(Pump, 1), partial(Pump, 2)),
        (partial(Pump, seed=1), partial(Pump, seed=2)),
        (partial(Pump, 1), partial(Brass, 1)),
        (Pump.made, Brass.made),
        (Pump(1).with_seed, Pump(2).with_seed),
        (object(), object()),
    ],
)
def test_another_component_of_any_form_is_refused_under_a_name(
    pumps: Registry, first: Any, second: Any
):
    pumps.register("mine")(first)
    with pytest.raises(ConfigError, match="pump: the name 'mine' is taken"):
        pumps.register("mine")(second)
    assert pumps.find("mine")[1] is first


def again(code: str) -> Any:
    """Return what a notebook's cell makes, which is run anew each time."""
    names = {"__name__": "__main__", "Filter": Filter, "Pump": Pump, "partial": partial}
    exec(code, names)
    return names["made"]


@pytest.mark.parametrize(
    "code",
    [
        "def made(): return Pump(3)",
        "class made: pass",
        "def mesh(): return Pump(3)\nmade = Filter(mesh, 0.3)",
        "def mesh(): return Pump(3)\nmade = partial(mesh, litres=2)",
        "class Own:\n @classmethod\n def make(cls): return Pump(3)\nmade = Own.make",
        "made = Pump(3)",
        "made = lambda: Pump(3)",
        "def make(litres):\n return lambda: Pump(litres)\nmade = make(3)",
        "def make():\n def pump(): return pump()\n return pump\nmade = make()",
        "def make(parts):\n def pump(): return parts\n return pump\nmade = make([{}])",
    ],
)
def test_the_cell_of_a_notebook_may_register_again(pumps: Registry, code: str):
    pumps.register("mine")(again(code))
    second = pumps.register("mine")(again(code))
    assert pumps.find("mine")[1] is second


def test_a_cell_that_was_edited_takes_the_place_of_what_it_made(pumps: Registry):
    pumps.register("mine")(again("def mesh(): return Pump(3)\nmade = Filter(mesh)"))
    edited = again("# finer\ndef mesh(): return Pump(4)\nmade = Filter(mesh)")
    assert pumps.register("mine")(edited).mesh() == Pump(4)


def test_what_is_registered_is_from_the_module_that_did_it(pumps: Registry):
    pumps.register("filter")(Filter(no_value))
    pumps.register("partial")(partial(Pump, 1))
    code = "pumps.register('of-a-cell')(Filter(no_value))"
    exec(code, {**globals(), "__name__": "cells", "pumps": pumps})
    origins = {plugin.name: plugin.origin for plugin in pumps.plugins()}
    assert origins["filter"] == __name__
    assert origins["partial"] == __name__
    assert origins["of-a-cell"] == "cells"


def test_what_is_registered_goes_before_what_is_installed(pumps: Registry):
    pumps.register("hand")(no_value)
    assert pumps.build("hand:", seed=3) == Pump()
    assert (
        Plugin("pump", "hand", "pumps:Pump", f"the name 'hand' is taken by {__name__}")
        in pumps.plugins()
    )


def test_two_packages_of_one_name_have_a_fixed_winner(monkeypatch: pytest.MonkeyPatch):
    class Distribution:
        version = "1"

        def __init__(self, name: str) -> None:
            self.name = name

    entries = [
        EntryPoint("fast", "json:loads", "g")._for(Distribution(name))
        for name in ("b-pumps", "a-pumps")
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    assert Registry("pump", {}).plugins() == [
        Plugin("pump", "fast", "a-pumps 1"),
        Plugin("pump", "fast", "b-pumps 1", "the name 'fast' is taken by a-pumps 1"),
    ]


def test_every_kind_has_a_check():
    pytest.importorskip("torch")  # of the learner's
    names = {}
    for each in all_registries():
        check = load_attribute(each.check, each.kind)
        names[each.kind] = check.__name__
    assert names == {
        "agent": "check_agent",
        "tool": "check_tool",
        "verifier": "check_verifier",
        "task": "check_task_source",
        "codec": "check_codec",
        "agent_rule": "check_agent_rule",
        "base": "check_base",
    }


@pytest.mark.parametrize(
    ("spec", "is_one"),
    [
        ("own", True),
        ("own:3", True),
        ("gone", True),
        ("hand", True),
        ("pumps:Pump", True),
        ("pumps:Pump:litres=3", True),
        ("pumps:NoSuch", True),  # only importing it would tell
        ("no_such_module_at_all:Pump", False),
        ("pump", False),
        ("", False),
        ("pumps:1", False),
    ],
)
def test_whether_a_spec_names_something_is_told_without_importing(
    pumps: Registry, monkeypatch: pytest.MonkeyPatch, spec: str, is_one: bool
):
    monkeypatch.setattr(registry, "load_attribute", None)
    assert pumps.is_named(spec) is is_one


def test_a_component_that_is_no_factory_is_returned_as_it_is(pumps: Registry):
    assert pumps.component("pumps:Pump").__name__ == "Pump"
    with pytest.raises(ConfigError, match="pump 'own': it takes no options"):
        pumps.component("own:litres=3")
