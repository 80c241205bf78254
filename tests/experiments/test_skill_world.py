"""The skill world: its problems, what its agents say, and what they refuse to say."""

import asyncio
from dataclasses import replace

import pytest

from aipo_env import (
    AgentRequest,
    ConfigError,
    ScriptedPolicy,
    ToySource,
    World,
    build_scenario,
    build_source,
    check_agent,
    check_task_source,
)
from experiments.worlds.skill import (
    OPTIONS,
    Multiplication,
    SkillAgent,
    SkillSource,
    first_wrong,
    next_line,
    read_problem,
    skill_rules,
    split_of,
    stated_lines,
)

PROBLEM = "Multiply 3799 by 6."
RIGHT_LINES = ("379.9*6+0=54;", "37.9*6+5=59;", "3.7*6+5=47;", ".3*6+4=22;")


def said(kind: str, query: str, trace: str = "", **options: object) -> str:
    agent = SkillAgent(SkillSource(), **options)  # type: ignore[arg-type]
    request = AgentRequest(kind=kind, query=query, problem=PROBLEM, trace=trace, seed=3)
    return asyncio.run(agent.reply(request)).text


def test_the_lines_of_a_problem_are_those_of_written_multiplication():
    problem = Multiplication("3799", 6)
    assert problem.text == PROBLEM
    assert tuple(line.text for line in problem.lines()) == RIGHT_LINES
    assert problem.answer == "22794"


@pytest.mark.parametrize("digits", [1, 4, 5, 6])
def test_answers_are_exact_and_every_line_carries(digits: int):
    source = SkillSource(seed=2, digits=digits)
    for split in ("train", "test"):
        for index in range(50):
            task = source.task(split, index)
            problem = read_problem(task.prompt)
            assert problem is not None
            assert len(problem.number) == digits
            assert int(task.answer) == int(problem.number) * problem.factor
            assert all(line.product >= 10 for line in problem.lines())


def test_a_problem_belongs_to_one_split_whatever_draws_it():
    sources = (SkillSource(0), SkillSource(1))
    train, test = (
        {source.task(split, index).prompt for source in sources for index in range(300)}
        for split in ("train", "test")
    )
    assert train.isdisjoint(test)
    assert len(test) > 500
    assert split_of(Multiplication("3799", 6)) == "test"
    assert split_of(Multiplication("3799", 8)) == "train"


def test_the_source_and_the_agent_keep_to_their_protocols():
    check_task_source("experiments.worlds.skill:SkillSource:digits=5")
    check_agent(SkillAgent(SkillSource()), query="Multiply")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"digits": 0}, "digits=0"),
        ({"digits": 13}, "digits=13"),
        ({"digits": True}, "digits=True"),
        ({"digits": 4.0}, "digits=4.0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, object], named: str):
    with pytest.raises(ConfigError, match=named):
        build_source({"type": "experiments.worlds.skill:SkillSource", **options}, 0)


def test_the_knowledge_agent_gives_the_rule():
    assert said("knowledge", "Multiply") == "carry tens;"


@pytest.mark.parametrize(
    ("trace", "reply"),
    [
        ("", "379.9*6+0=54;"),
        ("379.9*6+0=54;4;", "37.9*6+5=59;"),
        ("379.9*6+0=54;4;37.9*6+5=59;94;", "3.7*6+5=47;"),
        # A wrong line is given anew.
        ("379.9*6+0=54;4;37.9*6+0=54;44;", "37.9*6+5=59;"),
        ("379.9*6+0=54;4;37.9*6+0=54;44;3.7*6+5=47;", "37.9*6+5=59;"),
        # One that was mended holds; what was built on the old one does not.
        ("379.9*6+0=54;37.9*6+0=54;3.7*6+5=47;37.9*6+5=59;", "3.7*6+5=47;"),
        ("".join(RIGHT_LINES), "unknown;"),
    ],
)
def test_the_reasoning_agent_gives_the_next_step(trace: str, reply: str):
    assert said("reason", "next", trace) == reply


@pytest.mark.parametrize(
    ("trace", "reply"),
    [
        ("379.9*6+0=54;4;37.9*6+5=59;", "right;"),
        ("379.9*6+0=54;4;37.9*6+0=54;", "wrong at 37.9;"),
        # The first of two.
        ("379.9*6+1=55;5;37.9*6+0=54;44;3.7*6+0=42;", "wrong at 379.9;"),
        ("379.9*6+0=54;37.9*6+0=54;37.9*6+5=59;", "right;"),
        # The carry is right, and the product is not.
        ("379.9*6+0=54;37.9*6+5=58;", "wrong at 37.9;"),
        # Lines of another problem.
        ("12.3*6+0=18;", "wrong at 12.3;"),
        ("", "unknown;"),
        ("no line at all", "unknown;"),
    ],
)
def test_the_verify_agent_finds_the_first_wrong_line(trace: str, reply: str):
    assert said("verify", "check", trace) == reply


@pytest.mark.parametrize("kind", ["knowledge", "reason", "verify"])
@pytest.mark.parametrize(
    "query",
    ["", "What is 3799 times 6?", "CARRY", "Multiply next check", "9" * 100_000, "\0"],
)
def test_a_foreign_query_is_answered_by_unknown(kind: str, query: str):
    assert said(kind, query, RIGHT_LINES[0]) == "unknown;"


@pytest.mark.parametrize(
    "problem",
    [
        "",
        "Apply zura to 3721.",
        "Multiply 0799 by 6.",
        "Multiply 3799 by 6. And then?",
        "Multiply 1234567890123 by 6.",
        "Multiply 3799 by 12.",
        "Multiply ٣٧٩٩ by 6.",
    ],
)
def test_a_foreign_problem_is_answered_by_unknown(problem: str):
    agent = SkillAgent(SkillSource())
    for kind, query in (("reason", "next"), ("verify", "check")):
        request = AgentRequest(
            kind=kind, query=query, problem=problem, trace=RIGHT_LINES[0]
        )
        assert asyncio.run(agent.reply(request)).text == "unknown;"


def test_a_misleading_agent_never_tells_the_truth():
    work = "379.9*6+0=54;4;37.9*6+0=54;"
    assert said("knowledge", "Multiply", wrong=1) == "carry ones;"
    assert said("verify", "check", work, wrong=1) == "right;"
    assert said("verify", "check", RIGHT_LINES[0], wrong=1) == "wrong at 379.9;"
    agent = SkillAgent(SkillSource(), wrong=1)
    request = AgentRequest(
        kind="reason", query="next", problem=PROBLEM, trace=RIGHT_LINES[0]
    )
    lines = {
        asyncio.run(agent.reply(replace(request, seed=seed))).text for seed in range(40)
    }
    assert lines == {
        "37.9*6+0=54;",
        "37.9*6+1=55;",
        "37.9*6+2=56;",
        "37.9*6+3=57;",
        "37.9*6+4=58;",
    }


def test_no_reply_on_the_way_states_the_answer():
    for index in range(50):
        task = SkillSource(digits=5).task("train", index)
        problem = read_problem(task.prompt)
        assert problem is not None
        trace = ""
        while (line := next_line(problem, trace)) is not None:
            assert task.answer not in line.text
            trace += line.text
        assert first_wrong(problem, trace) == ""


def test_lines_are_read_out_of_whatever_stands_around_them():
    text = "So 379.9*6+0=54; and then 37.9*6+5=59; 1379.9*6+0=54 .3*6+4=2;"
    assert list(stated_lines(text)) == ["379.9", "37.9"]


def test_the_agent_knows_this_world_only():
    with pytest.raises(ConfigError, match="knows the skill world only"):
        SkillAgent(ToySource(World()))
    with pytest.raises(ConfigError, match="wrong=1.5"):
        SkillAgent(SkillSource(), wrong=1.5)


def test_the_prompt_names_the_roles_that_are_offered():
    assert skill_rules(("reason",)).consult_prompt == "Solve. You may consult reason."
    scenario = build_scenario({**OPTIONS, "rules": OPTIONS["rules"]})
    session = scenario.session(scenario.source.task("train", 0), aided=True)
    assert session.open()[0].content == (
        "Solve. You may consult knowledge, reason, verify."
    )


def test_an_episode_with_help_ends_right():
    scenario = build_scenario("experiments.worlds.skill:Worlds/AIPO-Skill-Turn-v0")
    task = replace(scenario.source.task("train", 0), prompt=PROBLEM, answer="22794")
    turns = [
        "379.9*6+0=54;4;<reason>next</reason>",
        "94;3.7*6+0=42;<verify>check</verify>",
        "3.7*6+5=47;794;<knowledge>Multiply</knowledge>",
        ".3*6+4=22;\\boxed{22794}",
    ]
    episode = ScriptedPolicy(turns).run(scenario.session(task, aided=True))
    assert episode.correct
    assert [consult.reply for consult in episode.consults] == [
        "37.9*6+5=59;",
        "wrong at 3.7;",
        "carry tens;",
    ]
