"""What a step's episodes come to in numbers."""

from pathlib import Path

import pytest

from aipo_env import (
    AgentPool,
    AgentReply,
    AgentRequest,
    DataError,
    DialogueRules,
    Episode,
    MathVerifier,
    ScriptedPolicy,
    Session,
    TagsCodec,
    Task,
    build_scenario,
)
from aipo_env.testing import CannedAgent, FaultyAgent
from aipo_learner.learn.episode_metrics import episode_metrics
from aipo_learner.run.metrics import read_metrics


def play(agent: object, aided: bool = True) -> Episode:
    pool = {"retries": 2, "backoff_s": 0.0, "deadline_s": 0.05}
    scenario = build_scenario(agents=agent, pool=pool, rules={"consult_budget": 1})
    session = scenario.session(scenario.source.task("train", 0), aided=aided, key=(0,))
    return ScriptedPolicy(["<knowledge>a</knowledge>"] * 2 + ["\\boxed{1}"]).run(
        session
    )


def test_consultations_are_counted_by_what_became_of_them():
    episodes = [
        play(CannedAgent("fine")),
        play(FaultyAgent("hang")),
        play(FaultyAgent("junk")),
    ]
    counts = {
        k: v for k, v in episode_metrics(episodes).items() if k.startswith("consults/")
    }
    assert counts == {
        "consults/answered": 1,
        "consults/denied": 3,
        "consults/timeout": 1,
        "consults/garbage": 1,
        "consults/revealed": 0,
        "consults/retries": 4,
    }


def test_without_consultations_there_is_nothing_but_no_retries():
    counts = {
        k: v
        for k, v in episode_metrics([play(CannedAgent("fine"), aided=False)]).items()
        if "consults" in k
    }
    assert counts == {"consults/revealed": 0, "consults/retries": 0}


def test_replies_that_state_the_gold_are_counted_and_success_is_split_by_them():
    class Knows:
        agent_id = "knows"

        async def reply(self, request: AgentRequest) -> AgentReply:
            return AgentReply(text="\\boxed{1}")

    def play_task(agent: object) -> Episode:
        task = Task(id="t", prompt="?", answer="1")
        session = Session(
            task,
            DialogueRules(),
            TagsCodec(),
            AgentPool({"knowledge": agent}),
            MathVerifier(),
            aided=True,
        )
        return ScriptedPolicy(["<knowledge>a</knowledge>", "\\boxed{1}"]).run(session)

    episodes = [play_task(Knows()), play_task(CannedAgent("hm"))]
    metrics = episode_metrics(episodes)
    assert [episode.is_revealed for episode in episodes] == [True, False]
    assert metrics["consults/revealed"] == 1
    assert metrics["success/revealed"] == metrics["success/not_revealed"] == 1.0


def test_a_row_cut_short_is_dropped_and_any_other_fault_is_named(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "a": 1}\n{"step": 1}\n{"step": 1, "b": 2}\n{"st')
    assert read_metrics(path) == [{"step": 0, "a": 1}, {"step": 1, "b": 2}]
    for line in ("[1]", '{"a": 1}', '{"step": "1"}', "x", "[" * 100_000):
        path.write_text(f'{{"step": 0}}\n{line}\n{{"step": 1}}\n')
        with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: no row"):
            read_metrics(path)
