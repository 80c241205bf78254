"""What a step's episodes come to in numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

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
from aipo_learner.run.metrics_log import MetricsLog, read_metrics


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
    for line in (
        "[1]",
        '{"a": 1}',
        '{"step": "1"}',
        '{"step": true}',
        '{"step": -1}',
        f'{{"step": {10**300}}}',
        f'{{"step": 1, "a": {"9" * 5_000}}}',
        "x",
        "[" * 100_000,
    ):
        path.write_text(f'{{"step": 0}}\n{line}\n{{"step": 1}}\n')
        with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: no row"):
            read_metrics(path)


def test_of_a_row_only_single_values_are_read(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    deep = "[" * 900 + "]" * 900
    path.write_text(f'{{"step": 0, "a": {deep}, "b": {{}}, "eval/pass_at_1": "x"}}\n')
    assert read_metrics(path) == [{"step": 0, "eval/pass_at_1": "x"}]
    log = MetricsLog(tmp_path, Console(quiet=True), num_steps=1)
    log.close()
    assert log.scores == {}


@pytest.mark.parametrize(
    ("difficulty", "name"),
    [
        (3, "3"),
        ("hard", "hard"),
        ("x" * 100_000, "x" * 39),
        ("\ud800\x1b[2J", "\\ud800\\x1b[2J"),
        ([1], None),
        ({"a": 1}, None),
        (1.5, None),
        (None, None),
    ],
    ids=range(8),
)
def test_a_task_says_its_difficulty_in_a_word(difficulty: object, name: str | None):
    episode = play(CannedAgent("a"))
    task = replace(episode.task, meta={"difficulty": difficulty})
    found = episode_metrics([replace(episode, task=task)])
    names = [key for key in found if key.startswith("consult_rate/difficulty_")]
    assert names == ([] if name is None else [f"consult_rate/difficulty_{name}"])
    assert all(key.isprintable() for key in found)
