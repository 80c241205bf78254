"""What a step's episodes come to in numbers."""

import re
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
from aipo_learner.learn.episode_metrics import (
    CONSULT_STATUSES,
    METRICS,
    episode_metrics,
)
from aipo_learner.run.metrics_log import MetricsLog, read_metrics
from aipo_learner.settings.evaluation import EvaluationSchedule
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train


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


PAGE = Path(__file__).resolve().parents[2] / "docs" / "is_it_working.md"
NOT_OF_EVERY_RUN = {
    # Of options, of tools, of a verifier with parts, of several sources.
    *("rows/truncated", "groups/refilled", "minibatches/empty", "tool_calls"),
    *("aided_groups", "groups/demonstrated"),
    *("success/not_consulted", "success/revealed", "reward_part/NAME"),
    *("source/NAME/success/aided", "source/NAME/success/unaided"),
    *("source/NAME/reward", "source/NAME/share"),
}
"""What the page explains and a small run of the toy world has no reason to write."""


def documented_metrics() -> list[str]:
    """Return the names in the first columns of the page's tables of metrics."""
    _, glossary = PAGE.read_text(encoding="utf-8").split("## Every metric")
    cells = re.findall(r"^\| (`[^|]*) \|", glossary, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def is_a(name: str, documented: str) -> bool:
    """Return whether a metric is the documented one, or of its family."""
    # Words in capitals stand for what depends on the run: KIND, NAME, N, K.
    pattern = re.sub(r"(?<![a-z])[A-Z]+", "[^/]+", re.escape(documented))
    return re.fullmatch(pattern, name) is not None


def test_every_metric_of_a_run_is_explained_and_none_that_there_is_not(
    tmp_path: Path,
):
    config = TrainConfig(
        out=tmp_path,
        num_steps=2,
        groups_per_step=2,
        group_size=4,
        num_threads=1,
        lr=1e-3,
        loggers="",
        objective=ObjectiveConfig(
            base="dr_grpo",
            kl_coef=0.01,
            observation_weight=0.05,
            observation_authors=("env",),
            teacher="self:answer",
        ),
        evaluation=EvaluationSchedule(every=2, num_tasks=2, num_samples=2),
    )
    train(config, Console(quiet=True))
    written = {name for row in read_metrics(tmp_path / "metrics.jsonl") for name in row}
    documented = documented_metrics()
    assert [
        name
        for name in sorted(written)
        if not any(is_a(name, other) for other in documented)
    ] == []
    assert [
        other
        for other in documented
        if other not in NOT_OF_EVERY_RUN
        and not any(is_a(name, other) for name in written)
    ] == []


def test_every_metric_of_the_episodes_is_explained():
    documented = documented_metrics()
    assert set(METRICS) - set(documented) == set()
    assert {f"consult_status/{status}" for status in CONSULT_STATUSES} - set(
        documented
    ) == set()


def test_the_symptoms_speak_of_metrics_that_are_explained():
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition("## From symptom")[2].partition("## When may")[0]
    looked_at = [row.split(" | ")[1] for row in table.splitlines() if " | " in row]
    names = re.findall(r"`([a-z_]+(?:/\w+)*(?:/NAME)?)`", " ".join(looked_at))
    assert len(names) > 40
    documented = documented_metrics()
    assert [
        name
        for name in names
        if not any(is_a(name, other) for other in documented) and name != "consulting"
    ] == []
