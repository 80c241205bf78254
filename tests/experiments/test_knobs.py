"""The knobs on help: exact at 0, drawn from the request's seed, and never an answer."""

import asyncio
import re

import numpy as np
import pytest

from aipo_env import (
    AGENTS,
    CONSULT_KINDS,
    MOVES,
    OPERATOR_NAMES,
    AgentReply,
    AgentRequest,
    ConfigError,
    ScriptedAgent,
    ToySource,
    World,
    build_scenario,
)
from experiments.worlds.knobs import HARMLESS, PHRASES, Knobs, KnobsAgent, dressed
from experiments.worlds.skill import OPTIONS, SkillAgent, SkillSource, skill_rules

PROBLEM = "Multiply 3799 by 6."
TRACE = "379.9*6+0=54;4;37.9*6+0=54;"
QUERIES = {"knowledge": "Multiply", "reason": "next", "verify": "check"}


def ask(agent: object, kind: str, seed: int = 0, query: str = "") -> AgentReply:
    request = AgentRequest(
        kind=kind,
        query=query or QUERIES[kind],
        problem=PROBLEM,
        trace=TRACE,
        seed=seed,
    )
    return asyncio.run(agent.reply(request))  # type: ignore[attr-defined]


def test_knobs_at_their_harmless_end_change_no_bit_of_an_episode():
    plain = SkillAgent(SkillSource())
    knobbed = KnobsAgent(SkillSource())
    assert knobbed.agent_id == plain.agent_id == "skill"
    for kind in CONSULT_KINDS:
        for seed in range(20):
            assert ask(knobbed, kind, seed) == ask(plain, kind, seed)
    source = ToySource(World(seed=1))
    toy, toy_knobbed = ScriptedAgent(source), KnobsAgent(source)
    for name, operator in source.world.operators.items():
        reply = ask(toy_knobbed, operator.kind, query=name)
        assert reply == ask(toy, operator.kind, query=name)


def test_what_is_said_depends_on_the_seed_of_the_request_alone():
    agent = KnobsAgent(SkillSource(), chatter=0.5, wrong=0.5, length=2)
    again = KnobsAgent(SkillSource(), chatter=0.5, wrong=0.5, length=2)
    first = [ask(agent, "reason", seed).text for seed in range(30)]
    backwards = [ask(again, "reason", seed).text for seed in reversed(range(30))]
    assert first == backwards[::-1]
    assert len(set(first)) > 20


def test_a_misleading_reply_takes_itself_back_in_half_of_the_cases():
    agent = KnobsAgent(SkillSource(), wrong=1)
    texts = [ask(agent, "knowledge", seed).text for seed in range(200)]
    assert set(texts) == {"carry ones;", "carry ones;no carry tens;"}
    assert 80 < texts.count("carry ones;") < 120


def test_so_many_replies_mislead_as_the_knob_says():
    agent = KnobsAgent(SkillSource(), wrong=0.25)
    texts = [ask(agent, "verify", seed).text for seed in range(400)]
    assert set(texts) == {"wrong at 37.9;", "right;", "right;no wrong at 37.9;"}
    assert 270 < texts.count("wrong at 37.9;") < 330


def test_facts_mislead_by_another_rule_of_the_same_operator():
    source = ToySource(World(seed=1))
    for name, operator in source.world.operators.items():
        texts = [
            ask(KnobsAgent(source, wrong=1), operator.kind, seed, query=name).text
            for seed in range(12)
        ]
        truth = ask(ScriptedAgent(source), operator.kind, query=name).text
        # A rule that is drawn may be the true one, one time in a hundred.
        assert texts.count(truth) <= 1
        assert all(name in text for text in texts if text != "right;")


def test_a_reply_that_cannot_mislead_stays_as_it_is():
    agent = KnobsAgent(SkillSource(), wrong=1)
    assert ask(agent, "knowledge", query="foreign").text == "unknown;"


def test_length_says_the_same_so_many_times():
    agent = KnobsAgent(SkillSource(), length=3)
    assert ask(agent, "knowledge").text == "carry tens;carry tens;carry tens;"
    assert ask(agent, "knowledge").tokens == 4


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
def test_chatter_is_about_the_share_of_a_reply_that_it_is_to_be(share: float):
    rng = np.random.default_rng(0)
    knobs = Knobs(chatter=share)
    pieces = re.compile(r"[A-Za-z]+|\d|\s|[^\sA-Za-z\d]")
    said, all_said = 0, 0
    for _ in range(1000):
        text = dressed("37.9*6+5=59;", "", knobs, rng)
        assert text.count("37.9*6+5=59;") == 1
        all_said += len(pieces.findall(text))
        said += len(pieces.findall("37.9*6+5=59;"))
    assert 1 - said / all_said == pytest.approx(share, abs=0.03)


def test_chatter_holds_no_digit_no_markup_and_no_word_of_a_world():
    words = set(re.findall(r"[A-Za-z]+", " ".join(PHRASES)))
    worlds = "carry tens ones next check wrong right unknown unavailable at first then"
    assert words.isdisjoint(worlds.split())
    assert words.isdisjoint(CONSULT_KINDS)
    assert words.isdisjoint(MOVES)
    assert all(words.isdisjoint(names) for names in OPERATOR_NAMES.values())
    assert all(re.fullmatch(r"[A-Za-z ,.:]+", phrase) for phrase in PHRASES)


def test_one_knob_does_not_move_the_draws_of_another():
    quiet = KnobsAgent(SkillSource(), wrong=0.5)
    chatty = KnobsAgent(SkillSource(), wrong=0.5, chatter=0.5)
    for seed in range(30):
        assert ask(quiet, "reason", seed).text in ask(chatty, "reason", seed).text


def test_the_agent_is_named_by_a_spec_and_the_record_says_whose_words_are_spoiled():
    spec = "experiments.worlds.knobs:KnobsAgent:chatter=0.5"
    agent = AGENTS.build(spec, source=SkillSource())
    assert agent.knobs == Knobs(chatter=0.5)
    assert agent.agent_id == "knobs/skill"
    scenario = build_scenario({**OPTIONS, "agents": spec})
    assert scenario.pool.agent_id("reason") == "reason/knobs/skill"
    assert scenario.rules.kinds == skill_rules().kinds


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"chatter": 1.0}, "chatter=1.0"),
        ({"chatter": -0.1}, "chatter=-0.1"),
        ({"chatter": "much"}, "chatter='much'"),
        ({"wrong": 1.1}, "wrong=1.1"),
        ({"wrong": float("nan")}, "wrong=nan"),
        ({"length": 0}, "length=0"),
        ({"length": 9}, "length=9"),
        ({"length": 1.5}, "length=1.5"),
        ({"agent": 3}, "agent=3"),
        ({"agent": "nobody"}, "'nobody'"),
        ({"agent": "self"}, "no option 'wrong'"),
    ],
)
def test_a_knob_out_of_range_is_named(options: dict[str, object], named: str):
    with pytest.raises(ConfigError, match=re.escape(named)):
        KnobsAgent(SkillSource(), **options)  # type: ignore[arg-type]


def test_harmless_knobs_are_the_default():
    assert Knobs() == HARMLESS
    assert Knobs().are_harmless
    assert not Knobs(length=2).are_harmless
