"""Agents for experiments: the oracle, one that is wrong at times, mixtures."""

from collections import Counter
from typing import Any

import pytest

from aipo_env import (
    AgentPool,
    AgentRequest,
    CannedAgent,
    ConfigError,
    MathVerifier,
    ScriptedPolicy,
    Session,
    TagsCodec,
    Task,
    TaskTable,
    VerifyAgent,
    build_agents,
    run_sync,
)
from aipo_env.agents.mixed import MixedAgent, OracleAgent, WrongAgent
from aipo_env.rollout.rules import DialogueRules
from aipo_env.tasks.toy import ToySource
from aipo_env.toy.world import World

TASK = Task(id="a", prompt="What is 6 times 7?", answer="42")
SOURCE = TaskTable(
    "two",
    {
        "train": (TASK,),
        "test": (
            Task(
                id="b", prompt="Which?", answer="B", kind="choice", choices=("x", "y")
            ),
        ),
    },
)
TOY = ToySource(World())


def say(
    agent: Any,
    query: str,
    kind: str = "verify",
    problem: str = TASK.prompt,
    seed: int = 0,
) -> Any:
    return run_sync(
        agent.reply(AgentRequest(kind=kind, query=query, problem=problem, seed=seed))
    )


@pytest.mark.parametrize(
    ("query", "problem", "said"),
    [
        ("So \\boxed{42}.", "What is 6 times 7?", "right;"),
        ("So \\boxed{43}.", "What is 6 times 7?", "wrong;"),
        ("Is it so?", "What is 6 times 7?", "unsure"),
        ("The answer is B", "Which?", "right;"),
        ("So \\boxed{42}.", "Another problem", "unknown"),
    ],
)
def test_an_oracle_judges_claims_and_is_named_so(query: str, problem: str, said: str):
    agent = OracleAgent(SOURCE)
    assert agent.agent_id == "oracle"
    assert say(agent, query, problem=problem).text == said
    assert say(agent, query, kind="reason", problem=problem).text == "unknown"


def test_an_oracle_needs_a_source_with_an_end():
    with pytest.raises(ConfigError, match="'oracle' needs a source with an end"):
        OracleAgent(TOY)


def test_a_wrong_agent_is_wrong_as_often_as_it_is_told():
    agent = WrongAgent(TOY, CannedAgent("Right: 12 + 30 = 42."), p=0.3)
    replies = [say(agent, "q", seed=seed) for seed in range(400)]
    spoiled = [reply for reply in replies if reply.agent_id == "wrong/canned"]
    assert 90 <= len(spoiled) <= 150
    for reply in spoiled:
        verdict, one, _, other, _, total = reply.text.rstrip(".").split()
        assert verdict == "Wrong:"
        assert (one[0], other[0], total[0]) == ("1", "3", "4")
        assert (one != "12", other != "30", total != "42") == (True, True, True)
    assert {reply.text for reply in replies if reply.agent_id == "canned"} == {
        "Right: 12 + 30 = 42."
    }
    assert replies == [say(agent, "q", seed=seed) for seed in range(400)]


def test_a_mixture_asks_by_its_weights():
    parts = [
        CannedAgent("a", "one"),
        CannedAgent("b", "two"),
        CannedAgent("c", "three"),
    ]
    agent = MixedAgent(TOY, parts, (3, 1, 0))
    assert agent.agent_id == "mix(one, two, three)"
    spoke = Counter(say(agent, "q", seed=seed).agent_id for seed in range(400))
    assert spoke["three"] == 0
    assert 260 <= spoke["one"] <= 340
    assert set(
        Counter(say(MixedAgent(TOY, parts), "q", seed=s).text for s in range(50))
    ) == {"a", "b", "c"}


def test_the_record_names_who_spoke():
    agent = MixedAgent(TOY, [WrongAgent(TOY, CannedAgent("right;"), p=1.0)])
    rules = DialogueRules()
    pool = AgentPool({"verify": VerifyAgent(agent)})
    session = Session(TASK, rules, TagsCodec(), pool, MathVerifier(), aided=True)
    episode = ScriptedPolicy(["<verify>x</verify>", "\\boxed{42}"]).run(session)
    assert [(consult.agent_id, consult.reply) for consult in episode.consults] == [
        ("wrong/canned", "wrong;")
    ]
    [span] = [span for span in episode.messages[3].spans if span.is_content]
    assert span.agent_id == "wrong/canned"


def test_specs_within_specs():
    here = "aipo_env.agents.mixed"
    spec = {
        "type": f"{here}:MixedAgent",
        "agents": ["scripted", {"type": f"{here}:WrongAgent", "agent": "scripted"}],
    }
    roles = build_agents({"verify": spec, "knowledge": "scripted"}, TOY)
    assert roles["verify"].agent_id == "verify/mix(scripted, wrong/scripted)"
    assert roles["knowledge"].agent_id == "knowledge/scripted"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: WrongAgent(TOY, "scripted", p=1.5),
            "p=1.5 must be a number from 0 to 1",
        ),
        (
            lambda: WrongAgent(TOY, "scripted", p="often"),
            "p='often' must be a number from 0 to 1",
        ),
        (lambda: WrongAgent(TOY, "nobody"), "there is no 'nobody'"),
        (
            lambda: MixedAgent(TOY, ["scripted"], (1, 2)),
            r"weights=\[1, 2\] must be one number from 0 up",
        ),
        (
            lambda: MixedAgent(TOY, ["scripted", "scripted"], (1, -1)),
            r"weights=\[1, -1\]",
        ),
        (lambda: MixedAgent(TOY, ["scripted"], ("x",)), r"weights=\['x'\]"),
        (lambda: MixedAgent(TOY, []), r"weights=\[\] must be"),
    ],
)
def test_what_cannot_be_used_is_named(make: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        make()
