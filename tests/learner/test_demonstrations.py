"""Solutions of others inside sampled groups: how they are read, and what is learned."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from aipo_env import (
    Author,
    ConfigError,
    DataError,
    Environment,
    Episode,
    Scenario,
    StopReason,
    Task,
    TokenRecord,
    Verdict,
    build_scenario,
)
from aipo_learner.build import _is_constant
from aipo_learner.learn.normalizers import batch_normalizers
from aipo_learner.learn.objective import aipo_loss
from aipo_learner.learn.rows import Row, collate
from aipo_learner.learn.training_rows import TrainingRows, training_rows
from aipo_learner.rollout.demonstrations import (
    NO_DEMONSTRATIONS,
    Demonstrations,
    read_demonstrations,
)
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.first_look import look_at_run
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

TASKS = (
    {"id": "sum", "prompt": "2 + 2", "answer": "4"},
    {"id": "product", "prompt": "2 * 3", "answer": "6"},
)
TOLD = "It is \\boxed{4}"


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def sums(tmp_path: Path) -> Scenario:
    tasks = written(tmp_path / "tasks.jsonl", *TASKS)
    return build_scenario(f"file:{tasks}", rules={"plain_prompt": "Solve."})


def read(tmp_path: Path, sums: Scenario, tokenizer: Any, *rows: Any) -> Demonstrations:
    path = written(tmp_path / "shown.jsonl", *rows)
    return read_demonstrations(path, sums, tokenizer)


def test_the_tokens_of_a_solution_are_an_agents(tmp_path: Path, sums, tokenizer):
    made = read(tmp_path, sums, tokenizer, {"id": "sum", "solution": TOLD})
    [episode] = made.by_task["sum"]
    tokens = episode.tokens
    assert not tokens.policy_mask.any()
    said = tokenizer.decode(tokens.token_ids[tokens.agent_mask])
    assert said == f"{TOLD}{tokenizer.eos_token}"
    # What stands before it is the prompt of deployment, token by token.
    prompt = sums.session(sums.source.task("train", 0), aided=False).open()
    pieces = ChatFormat(tokenizer).prompt(prompt)
    before = [token_id for token_ids, _ in pieces for token_id in token_ids]
    assert tokens.token_ids[~tokens.agent_mask].tolist() == before
    assert np.isnan(tokens.behaviour_logprobs).all()
    assert (episode.correct, episode.reward, episode.aided) == (True, 1.0, False)
    assert made.note.endswith("shown.jsonl, 1 of 1 tasks")


def as_episode(task: Any, text: str, **others: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": task["prompt"]},
        {"role": "assistant", "content": text},
    ]
    return {"task": dict(task), "messages": messages, **others}


@pytest.mark.parametrize(
    "row",
    [
        {"id": "sum", "solution": TOLD},
        {"prompt": " 2 + 2\n", "solution": TOLD},
        # A file of tasks may hold their solutions.
        {**TASKS[0], "solution": TOLD},
        as_episode(TASKS[0], TOLD),
        # What it was rewarded with elsewhere counts for nothing.
        as_episode(TASKS[0], TOLD, reward=0.0),
    ],
    ids=["id", "prompt", "task", "episode", "rewarded"],
)
def test_a_demonstration_is_found_by_its_task(row: Any, tmp_path, sums, tokenizer):
    made = read(tmp_path, sums, tokenizer, row)
    assert list(made.by_task) == ["sum"]
    [episode] = made.by_task["sum"]
    assert episode.reward == 1.0
    assert TOLD in tokenizer.decode(episode.tokens.token_ids[episode.tokens.agent_mask])


def test_log_probabilities_of_whoever_wrote_it_are_kept(tmp_path, sums, tokenizer):
    answer = tokenizer.encode("\\boxed{4}", add_special_tokens=False)
    prompt = tokenizer.encode("2 + 2", add_special_tokens=False)
    tokens = {
        "token_ids": [*prompt, *answer],
        "author": [0] * len(prompt) + [1] * len(answer),
        "behaviour_logprobs": [None] * len(prompt) + [-0.25] * len(answer),
    }
    row = as_episode(TASKS[0], "\\boxed{4}", tokens=tokens)
    [episode] = read(tmp_path, sums, tokenizer, row).by_task["sum"]
    assert episode.tokens.token_ids.tolist() == tokens["token_ids"]
    assert episode.tokens.agent_mask.tolist() == [False] * len(prompt) + [True] * len(
        answer
    )
    [row] = trained([episode, answered(sums, False)]).rows[:1]
    assert row.agent_logprobs[row.agent_mask].tolist() == [-0.25] * len(answer)
    assert np.isnan(row.sampler_logprobs).all()


def test_what_cannot_stand_in_a_group_is_left_out_and_named(tmp_path, sums, tokenizer):
    made = read(
        tmp_path,
        sums,
        tokenizer,
        {"id": "sum", "solution": TOLD},
        {"id": "sum", "solution": "\\boxed{5}"},
        {"id": "product", "solution": "no idea"},
        {"id": "root", "solution": "\\boxed{2}"},
        {"prompt": "1 + 1", "solution": "\\boxed{2}"},
        {"id": "product", "solution": "\\boxed{6}"},
        {"id": "product", "solution": "2 * 3 = \\boxed{6}"},
    )
    assert {name: len(of) for name, of in made.by_task.items()} == {
        "sum": 1,
        "product": 2,
    }
    assert made.note.endswith(
        "3 of 2 tasks; left out 2 that the verifier does not accept (line 2: 'sum',"
        " line 3: 'product'); left out 2 of tasks that are not trained on (line 4:"
        " 'root', line 5: '1 + 1')"
    )


def test_an_episode_of_another_task_with_the_same_id_is_of_none(
    tmp_path, sums, tokenizer
):
    other = {"id": "sum", "prompt": "3 + 1", "answer": "4"}
    made = read(
        tmp_path,
        sums,
        tokenizer,
        as_episode(other, TOLD),
        as_episode(TASKS[1], "\\boxed{6}"),
    )
    assert list(made.by_task) == ["product"]
    assert "left out 1 of tasks that are not trained on (line 1: 'sum')" in made.note


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 of 0 tasks. Nothing of it can be used"),
        ([{"id": "sum", "solution": "\\boxed{5}"}], "Nothing of it can be used"),
        ([{"id": "sum", "solution": 4}], "line 1: solution=4 must be a text"),
        ([{"id": 3, "solution": TOLD}], "line 1: id=3 must be a text"),
        ([{"solution": TOLD}], "line 1: prompt=None must be a text"),
        (
            [{"id": "sum", "solution": TOLD}, {"id": "sum", "solutoin": TOLD}],
            "line 2: solution=None must be a text",
        ),
        ([{"id": "sum", "solution": TOLD}, [1]], "line 2: no object of names and val"),
        ([{"id": "sum", "answer": TOLD}], "line 1: not an episode"),
        (
            [as_episode(TASKS[0], TOLD, tokens={"token_ids": [10**6], "author": [1]})],
            "line 1: token id 1000000 is not among the policy's",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    rows: Any, message: str, tmp_path, sums, tokenizer
):
    with pytest.raises(DataError) as caught:
        read(tmp_path, sums, tokenizer, *rows)
    assert message in str(caught.value)


def test_a_file_that_is_no_json_or_is_not_there_is_named(tmp_path, sums, tokenizer):
    path = tmp_path / "shown.jsonl"
    with pytest.raises(DataError, match="no such file"):
        read_demonstrations(path, sums, tokenizer)
    path.write_text('{"id": "sum", "solution": "a"}\n{"id"\n')
    with pytest.raises(DataError, match="line 2: no JSON"):
        read_demonstrations(path, sums, tokenizer)
    written(path, {"id": "sum", "solution": TOLD})
    with pytest.raises(DataError, match="line 1: the episode has .* at most 3"):
        read_demonstrations(path, sums, tokenizer, max_tokens=3)


def test_tasks_without_end_take_episodes_that_name_theirs(
    tmp_path, scenario, tokenizer
):
    task = scenario.source.task("train", 7)
    values = {"id": task.id, "prompt": task.prompt, "answer": task.answer}
    row = as_episode(values, f"\\boxed{{{task.answer}}}")
    path = written(tmp_path / "shown.jsonl", row)
    assert list(read_demonstrations(path, scenario, tokenizer).by_task) == [task.id]
    written(path, {"id": task.id, "solution": "a"})
    with pytest.raises(DataError, match="these have no end here. Give episodes"):
        read_demonstrations(path, scenario, tokenizer)


def answered(sums: Scenario, is_right: bool) -> Episode:
    """A rollout of the first task: a prompt token, and one that the policy wrote."""
    task = sums.source.task("train", 0)
    tokens = TokenRecord.build(
        {
            "token_ids": [1, 2],
            "author": [Author.PROMPT, Author.POLICY],
            "call_id": [-1, -1],
            "turn": [0, 0],
            "behaviour_logprobs": [None, -1.0],
            "is_content": [False, False],
        }
    )
    status = "correct" if is_right else "wrong"
    reward = float(is_right)
    return Episode(
        task=task,
        aided=False,
        messages=(),
        turns=(),
        consults=(),
        tokens=tokens,
        verdict=Verdict(correct=is_right, reward=reward, status=status),
        reward=reward,
        stop_reason=StopReason.COMPLETED,
    )


def trained(
    group: list[Episode], base: str = "dr_grpo", baseline: str = "split"
) -> TrainingRows:
    return training_rows(
        [group], lambda each: float(each.reward), base=base, baseline=baseline
    )


def shown(tmp_path: Path, sums: Scenario, tokenizer: Any) -> Episode:
    row = {"id": "sum", "solution": "2 + 2 = \\boxed{4}"}
    return read(tmp_path, sums, tokenizer, row).by_task["sum"][0]


@pytest.mark.parametrize("baseline", ["split", "union", "per_mode"])
def test_a_demonstration_shares_in_the_baseline_of_its_group(
    baseline: str, tmp_path, sums, tokenizer
):
    wrong = answered(sums, False)
    made = Demonstrations({"sum": [shown(tmp_path, sums, tokenizer)]})
    [group] = made.joined([[wrong, wrong, wrong]])
    rows = trained(group, baseline=baseline).rows
    assert [row.advantage for row in rows] == [-0.25, -0.25, -0.25, 0.75]
    assert [bool(row.policy_mask.any()) for row in rows] == [True, True, True, False]
    assert trained([wrong, wrong, wrong], baseline=baseline).rows == []
    # Where all are right it has nothing to add.
    right = answered(sums, True)
    assert trained(made.joined([[right, right]])[0], baseline=baseline).rows == []


def test_other_groups_stay_as_they_are(tmp_path, sums, tokenizer):
    wrong = answered(sums, False)
    other = replace(wrong, task=Task(id="other", prompt="p", answer="1"))
    made = Demonstrations({"sum": [shown(tmp_path, sums, tokenizer)] * 2})
    groups = made.joined([[wrong, wrong], [other]])
    assert [len(group) for group in groups] == [4, 1]
    assert made.num_groups([[wrong, wrong], [other]]) == 1
    assert NO_DEMONSTRATIONS.joined([[wrong], [other]]) == [[wrong], [other]]
    # Another set, or another world of tasks without end, may use the same ids.
    renamed = replace(wrong, task=replace(wrong.task, prompt="3 + 1"))
    assert [len(group) for group in made.joined([[renamed]])] == [1]
    failed = replace(wrong, reward=None, verdict=None)
    assert trained(made.joined([[wrong, failed]])[0]).rows == []


PUSH = {
    "p": [1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99],
    "masked": [0.0] * 9,
    "on_policy": [1.0] * 9,
    "plain_is": [1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99],
    "floored": [0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.6, 0.9, 0.99],
    "luffy": [0.001, 0.0098, 0.083, 0.222, 0.25, 0.1875, 0.122, 0.09, 0.083],
    "mixture": [0.0004, 0.004, 0.039, 0.17, 0.29, 0.53, 0.54, 0.31, 0.10],
}
"""The table of docs/objective.md."""


@pytest.mark.parametrize("rule", [name for name in PUSH if name != "p"])
def test_a_demonstrations_tokens_follow_the_rules_table(
    rule: str, tmp_path, sums, tokenizer
):
    demonstration = shown(tmp_path, sums, tokenizer)
    wrong = answered(sums, False)
    row = trained([wrong, wrong, wrong, demonstration]).rows[-1]
    num_tokens = int(row.agent_mask.sum())
    assert num_tokens >= len(PUSH["p"])
    places = np.flatnonzero(row.agent_mask)[: len(PUSH["p"])]
    batch = collate([row], 0)
    logprobs = torch.full(batch.token_ids.shape, -1.0, dtype=torch.float64)
    logprobs[0, places] = torch.tensor(PUSH["p"], dtype=torch.float64).log()
    logprobs.requires_grad_()
    objective = ObjectiveConfig(base="dr_grpo", agent_rule=rule)
    normalizers = batch_normalizers([row], objective)
    assert normalizers.agent == num_tokens
    loss, _ = aipo_loss(
        logprobs,
        logprobs.detach(),
        batch.advantages.double(),
        batch.policy_mask,
        batch.agent_mask,
        objective,
        agent_logprobs=batch.agent_logprobs.double(),
        sampler_logprobs=batch.sampler_logprobs.double(),
        policy_normalizer=normalizers.policy,
        agent_normalizer=normalizers.agent,
    )
    loss.backward()
    push = -logprobs.grad[0] * num_tokens / 0.75
    assert push[places].tolist() == pytest.approx(PUSH[rule], rel=0.06, abs=1e-12)
    assert not push[~torch.tensor(row.agent_mask)].any()


def test_rows_of_the_policy_are_what_they_are_without_a_demonstration(
    tmp_path, sums, tokenizer
):
    wrong, right = answered(sums, False), answered(sums, True)
    alone = trained([wrong, right], baseline="union").rows
    beside = trained(
        [wrong, right, shown(tmp_path, sums, tokenizer)], baseline="union"
    ).rows
    for one, other in zip(alone, beside[:2], strict=True):
        assert same_but_advantage(one, other)
    assert [round(row.advantage, 6) for row in beside] == [
        -0.666667,
        0.333333,
        0.333333,
    ]


def same_but_advantage(one: Row, other: Row) -> bool:
    names = ("token_ids", "policy_mask", "agent_mask", "sampler_logprobs")
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in names[:3]
    ) and np.array_equal(one.sampler_logprobs, other.sampler_logprobs, equal_nan=True)


def test_an_episode_that_consulted_has_no_agent_free_form_as_a_demonstration(
    tmp_path, sums, tokenizer
):
    consult = {
        "kind": "knowledge",
        "agent_id": "a",
        "query": "q",
        "reply": "r",
        "status": "answered",
        "call_id": 0,
        "turn": 1,
    }
    row = as_episode(TASKS[0], TOLD, aided=True, consults=[consult])
    [episode] = read(tmp_path, sums, tokenizer, row).by_task["sum"]
    assert episode.consults == ()
    assert not episode.aided


def test_a_group_that_all_failed_is_not_refilled_where_it_is_shown_how(
    tmp_path, sums, tokenizer
):
    config = TrainConfig(source=EpisodeSource(max_refills=1))
    made = Demonstrations({"sum": [shown(tmp_path, sums, tokenizer)]})
    group = [answered(sums, False)] * 2
    assert _is_constant(config, sums.rules, NO_DEMONSTRATIONS, 0, group)
    assert not _is_constant(config, sums.rules, made, 0, group)


def run(out: Path, tasks: Path, **named: Any) -> TrainConfig:
    source = EpisodeSource(**named)
    return TrainConfig(
        out=out,
        environment=Environment(
            source=f"file:{tasks}", rules={"max_policy_tokens": 20}
        ),
        source=source,
        objective=ObjectiveConfig(agent_rule="luffy"),
        num_steps=2,
        groups_per_step=2,
        group_size=2,
        num_threads=1,
        lr=1e-3,
        warmup_steps=0,
        loggers="",
        stop_after_idle_steps=0,
    )


def test_a_run_learns_what_it_is_shown(tmp_path: Path):
    tasks = written(tmp_path / "tasks.jsonl", *TASKS)
    solutions = written(
        tmp_path / "shown.jsonl",
        {"id": "sum", "solution": TOLD},
        {"id": "product", "solution": "It is \\boxed{6}"},
    )
    told = Console(file=io.StringIO(), width=200)
    train(run(tmp_path / "run", tasks, demonstrations=str(solutions)), told)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["groups/demonstrated"] for row in rows] == [2, 2]
    # Two rollouts of each task, all wrong, and the solution of each.
    assert [row["rows"] for row in rows] == [6, 6]
    assert rows[1]["agent_p_mean"] > rows[0]["agent_p_mean"]
    assert "success/aided" not in rows[0]
    assert rows[0]["success/unaided"] == 0.0
    assert "2 of 2 tasks" in told.file.getvalue()
    train(run(tmp_path / "without", tasks), Console(quiet=True))
    without = read_metrics(tmp_path / "without" / "metrics.jsonl")
    assert "groups/demonstrated" not in without[0]
    assert [row["rows"] for row in without] == [0, 0]


@pytest.mark.parametrize("other", [{"episodes": "a"}, {"sft_episodes": "a"}])
def test_demonstrations_stand_in_groups_that_are_sampled(other: dict[str, Any]):
    with pytest.raises(
        ConfigError, match="demonstrations='d' stand in groups that are"
    ):
        EpisodeSource(demonstrations="d", **other)
    EpisodeSource(demonstrations="d", max_staleness=1)


def test_a_file_that_is_not_there_is_told_before_anything_is_loaded(tmp_path: Path):
    source = EpisodeSource(demonstrations=str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="none.jsonl: no such file"):
        look_at_run(TrainConfig(source=source))
