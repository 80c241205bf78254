"""Tasks whose source forbids republication: nothing of their text leaves by any
door.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aipo_env import (
    Author,
    Call,
    CannedAgent,
    CodeTests,
    ConfigError,
    Episode,
    Message,
    ScriptedPolicy,
    Span,
    StopReason,
    Task,
    Turn,
    build_scenario,
    episode_text,
    episodes_html,
    read_episodes,
    write_episodes,
)
from aipo_env.episode import redact
from aipo_env.tasks.base import TaskTable
from aipo_env.terminal import play_in_terminal
from aipo_env.testing import example_episode, example_tokens
from aipo_env.viewer.render import messages_text

SECRET = "SECRET"
NOTICE = "[withheld: made/up forbids republication]"
TASK = Task(
    id="up-1",
    prompt=SECRET,
    answer=SECRET,
    kind="choice",
    choices=(SECRET, "b"),
    tests=CodeTests(hidden=({"input": SECRET, "output": SECRET},)),
    meta={"no_republish": True, "canary": SECRET, SECRET: 1},
    source="made/up",
    licence="none",
)


def episode(task: Task = TASK) -> Episode:
    shown = example_episode(SECRET, task=task)
    _, _, said, answered, _ = shown.messages
    asked = Message("system", (Span(f"Solve. {SECRET}", Author.PROMPT),))
    reply = replace(answered.spans[1], token_ids=(83, 69))
    marked = Message("user", (Span("<r>", Author.ENV), reply))
    consult = replace(
        shown.consults[0], error=SECRET, token_ids=(83, 69), logprobs=(-0.5, -0.5)
    )
    return replace(
        shown,
        messages=(asked, said, marked),
        consults=(consult,),
        tokens=example_tokens(token_ids=[83, 69, 67]),
        verdict=replace(shown.verdict, reason=SECRET),
    )


def spelt(token_ids: Sequence[int]) -> list[str]:
    return [SECRET] * len(token_ids)


def test_no_door_lets_text_out(tmp_path: Path):
    path = tmp_path / "episodes.jsonl"
    write_episodes(path, [episode()])
    doors = {
        "file": path.read_text(),
        "dictionary": json.dumps(episode().to_dict()),
        "text": episode_text(episode()),
        "running": messages_text(episode().messages, TASK),
        "page": episodes_html([episode()], title="t"),
        "tokens": episodes_html([episode()], title="t", tokens=[spelt]),
        "from file": episodes_html(
            list(read_episodes(path)), title="t", tokens=[spelt]
        ),
        "repr": repr(episode()) + repr(TASK),
    }
    for door, text in doors.items():
        assert SECRET not in text, door
        assert "withheld" in text or door == "repr", door


def test_what_stays():
    shown = redact(episode())
    assert (shown.task.id, shown.task.source, shown.task.licence, shown.task.kind) == (
        "up-1",
        "made/up",
        "none",
        "choice",
    )
    assert (shown.task.prompt, shown.task.answer) == (NOTICE, NOTICE)
    assert (shown.task.choices, shown.task.tests, shown.task.meta) == (
        (),
        None,
        {"no_republish": True},
    )
    assert [span.text for message in shown.messages for span in message.spans] == [
        NOTICE
    ] * 4
    assert [span.author for message in shown.messages for span in message.spans] == [
        0,
        1,
        4,
        2,
    ]
    assert shown.turns[0] == Turn(NOTICE, "stop", (Call("verify", NOTICE),), NOTICE)
    assert (
        shown.consults[0].status,
        shown.consults[0].reply,
        shown.consults[0].error,
    ) == (
        "answered",
        NOTICE,
        "",
    )
    assert shown.tokens.token_ids.tolist() == [0, 0, 0]
    assert (shown.consults[0].token_ids, shown.consults[0].logprobs) == ((), ())
    assert all(
        span.token_ids == () for message in shown.messages for span in message.spans
    )
    assert shown.tokens.author.tolist() == [0, 1, 2]
    assert shown.tokens.behaviour_logprobs[1] == np.float32(-0.5)
    assert (shown.verdict.correct, shown.verdict.extracted, shown.verdict.reason) == (
        True,
        "",
        "",
    )
    assert (shown.reward, shown.stop_reason, shown.group_id) == (
        1.0,
        StopReason.COMPLETED,
        "3-1",
    )
    assert redact(shown) == shown


def test_a_file_written_openly_is_exact(tmp_path: Path):
    path = tmp_path / "private.jsonl"
    write_episodes(path, [episode()], reveal=True)
    assert list(read_episodes(path)) == [episode()]
    assert SECRET not in episode_text(next(read_episodes(path)))


@pytest.mark.parametrize("meta", [{}, {"no_republish": False}])
def test_other_tasks_are_shown(meta: dict):
    free = replace(TASK, meta=meta)
    assert free.withheld == ""
    assert redact(episode(free)) == episode(free)
    assert episode(free).to_dict()["task"]["prompt"] == SECRET
    assert SECRET in episode_text(episode(free))
    assert SECRET in messages_text(episode(free).messages, free)


def test_it_is_not_played(capsys: pytest.CaptureFixture):
    scenario = build_scenario(TaskTable("up", {"train": [TASK]}), "none")
    with pytest.raises(
        ConfigError, match="task 'up-1': .withheld: made/up forbids republication"
    ):
        play_in_terminal(scenario)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("task", "num_rows"), [(TASK, 0), (replace(TASK, meta={}), 1)])
def test_a_cassette_keeps_no_reply_about_it(tmp_path: Path, task: Task, num_rows: int):
    cassette, agent = tmp_path / "replies.jsonl", CannedAgent("the question says so")
    scenario = build_scenario(
        TaskTable("up", {"train": [task]}), agent, cassette=str(cassette)
    )
    session = scenario.session(task, aided=True, key=(0,))
    found = ScriptedPolicy(["<knowledge>what?</knowledge>", "\\boxed{B}"]).run(session)
    assert [consult.reply for consult in found.consults] == ["the question says so"]
    assert [request.is_private for request in agent.requests] == [not num_rows]
    assert (
        len(cassette.read_text().splitlines()) if cassette.exists() else 0
    ) == num_rows
