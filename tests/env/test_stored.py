"""Files of episodes made elsewhere: what a line may leave out, and what `aipo lint`
says of a bad one.
"""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aipo_env import (
    Author,
    DataError,
    Span,
    StopReason,
    Verdict,
    lint_episodes,
    read_episodes,
    write_episodes,
)
from aipo_env.cli import main

TASK = {"id": "t1", "prompt": "What is 2 + 2?", "answer": "4"}
SHORTEST = {
    "task": TASK,
    "messages": [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "\\boxed{4}"},
    ],
}
CONSULTED = {
    "task": TASK,
    "messages": [
        {"role": "system", "content": "Solve."},
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "<knowledge>sum</knowledge>"},
        {
            "role": "user",
            "spans": [
                {"text": "<reply>", "author": "env"},
                {"text": "it is even", "author": "agent", "call_id": 0},
                {"text": "</reply>", "author": "env"},
            ],
        },
        {"role": "assistant", "content": "\\boxed{4}"},
    ],
    "consults": [
        {
            "kind": "knowledge",
            "agent_id": "book",
            "query": "sum",
            "reply": "it is even",
            "status": "answered",
            "call_id": 0,
            "turn": 1,
        }
    ],
    "reward": 1,
    "group_id": "g",
}
TOKENS = {
    "token_ids": [1, 2, 3, 4, 5],
    "author": [0, 1, 2, 4, 1],
    "behaviour_logprobs": [None, -0.5, None, None, None],
}


def written(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_line_needs_a_task_and_messages_and_no_more(tmp_path: Path):
    [episode] = read_episodes(written(tmp_path, SHORTEST))
    assert [span for m in episode.messages for span in m.spans] == [
        Span("What is 2 + 2?", Author.PROMPT),
        Span("\\boxed{4}", Author.POLICY),
    ]
    assert [turn.completion for turn in episode.turns] == ["\\boxed{4}"]
    assert (episode.aided, episode.reward, episode.verdict) == (False, None, None)
    assert (episode.stop_reason, len(episode.tokens)) == (StopReason.COMPLETED, 0)


def test_authors_follow_from_roles_or_are_named(tmp_path: Path):
    [episode] = read_episodes(written(tmp_path, CONSULTED))
    spans = [span for message in episode.messages for span in message.spans]
    assert [span.author.name for span in spans] == [
        "PROMPT",
        "PROMPT",
        "POLICY",
        "ENV",
        "AGENT",
        "ENV",
        "POLICY",
    ]
    assert [span.is_content for span in spans] == [False] * 4 + [True, False, False]
    assert episode.aided
    assert episode.verdict == Verdict(correct=True, reward=1, status="correct")


def test_turns_follow_from_the_messages_where_there_are_none(tmp_path: Path):
    [episode] = read_episodes(written(tmp_path, {**SHORTEST, "turns": []}))
    assert [turn.completion for turn in episode.turns] == ["\\boxed{4}"]


def test_what_a_token_record_lacks_follows_from_its_authors(tmp_path: Path):
    [episode] = read_episodes(
        written(tmp_path, {"task": TASK, "tokens": TOKENS, "reward": 0.0})
    )
    assert episode.tokens.turn.tolist() == [0, 0, 1, 1, 1]
    assert episode.tokens.call_id.tolist() == [-1] * 5
    assert episode.tokens.agent_mask.tolist() == [False, False, True, False, False]
    assert [math.isnan(x) for x in episode.tokens.behaviour_logprobs] == [
        True,
        False,
        True,
        True,
        True,
    ]
    assert episode.verdict == Verdict(correct=False, reward=0.0, status="wrong")


def test_an_episode_of_ours_that_ended_without_a_verdict_comes_back_without(
    tmp_path: Path,
):
    [made] = read_episodes(written(tmp_path, {**CONSULTED, "tokens": TOKENS}))
    cut = replace(
        made,
        verdict=None,
        reward=0.0,
        reward_parts={"verdict": 0.0},
        stop_reason=StopReason.MAX_TURNS,
    )
    write_episodes(tmp_path / "cut.jsonl", [cut])
    assert list(read_episodes(tmp_path / "cut.jsonl")) == [cut]


def changed(path: str, value: Any, base: dict[str, Any] = CONSULTED) -> dict[str, Any]:
    row = copy.deepcopy({**base, "tokens": TOKENS})
    *places, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = row
    for place in places:
        target = target[place]
    target[last] = value
    return row


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ([], "the line is []; an object is needed"),
        ({"task": TASK}, "messages: the roles are []; without tokens"),
        (
            {**SHORTEST, "messages": SHORTEST["messages"][::-1]},
            "the roles are ['assistant', 'user']",
        ),
        ({**SHORTEST, "rewards": 1}, "rewards: no such field. Valid: aided, consults"),
        (changed("task.answer", 4), "task.answer is 4; text is needed"),
        (changed("task.prompt", " "), "field 'prompt' must be non-empty text"),
        (
            changed("messages.0.role", "tool"),
            "messages[0].role is 'tool'. Valid: assistant, system, user",
        ),
        (
            changed("messages.3.spans.1.author", "expert"),
            "messages[3].spans[1].author is 'expert'",
        ),
        (
            changed("messages.3.spans.1.text", None),
            "messages[3].spans[1].text is None; text is needed",
        ),
        (
            changed("consults.0.status", "ok"),
            "consults[0].status is 'ok'. Valid: answered",
        ),
        (changed("consults.0.turn", 1.5), "consults[0].turn is 1.5; a whole number"),
        (
            changed("reward", "1"),
            "reward is '1'; a number below 2^31 or null is needed",
        ),
        (changed("reward", 10**400), "reward is 1000"),
        (
            changed("reward_parts", {"a": True}),
            "reward_parts['a'] is True; a number below",
        ),
        (changed("aided", 1), "aided is 1; true or false is needed"),
        (
            changed("stop_reason", "finished"),
            "stop_reason is 'finished'. Valid: cancelled",
        ),
        (changed("tokens.author.1", 6), "tokens.author[1] is 6; 0 to 5 is needed"),
        (
            changed("tokens.behaviour_logprobs.1", 0.5),
            "tokens.behaviour_logprobs[1] is 0.5; -1e+30 to 0.001 or null is needed",
        ),
        (
            changed("tokens.policy_version", [-1, -2, -1, -1, 0]),
            "tokens.policy_version[1] is -2; -1 to 2147483647 is needed",
        ),
        (changed("tokens.token_ids", [1]), "differ in length"),
        (
            changed("tokens.logprobs", []),
            "tokens.logprobs: no such column. Valid: author, beh",
        ),
        (
            changed("tokens", {"token_ids": [1]}),
            (
                "tokens is {'token_ids': [1]}; an object with at least token_ids and"
                " author"
            ),
        ),
        (changed("tokens.author", 5), "tokens.author is 5; a list is needed"),
        (
            changed("verdict", {"correct": 1}),
            "verdict.correct is 1; true or false is needed",
        ),
        (
            changed("verdict", {"correct": True, "status": "correct"}),
            "verdict.reward is missing",
        ),
        (
            changed("consults.0.tokens", None),
            "consults[0].tokens is None; a whole number",
        ),
        (
            {"task": TASK, "messages": [], "tokens": {"token_ids": [], "author": []}},
            "messages: the roles are []; without tokens",
        ),
    ],
)
def test_a_fault_is_named_with_its_line_and_field(
    tmp_path: Path, row: Any, fault: str, capsys
):
    path = written(tmp_path, SHORTEST, row)
    assert main(["lint", str(path)]) == 2
    out = capsys.readouterr()
    assert "made.jsonl:2: " in out.out
    assert fault in out.out
    assert "made.jsonl:1:" not in out.out
    assert "1 lines cannot be used" in out.err
    with pytest.raises(DataError, match=r"made\.jsonl, line 2: not an episode"):
        list(read_episodes(path))


def test_notes_say_what_training_takes_for_granted(tmp_path: Path, capsys):
    zeros = {**TOKENS, "behaviour_logprobs": [0.0] * 5}
    failed = {**CONSULTED, "reward": None, "stop_reason": "cancelled", "group_id": "h"}
    rows = [
        SHORTEST,
        CONSULTED,
        {**CONSULTED, "tokens": TOKENS},
        {**CONSULTED, "tokens": zeros, "reward_parts": {"a": 0.5}},
        failed,
        failed,
        {**CONSULTED, "tokens": {**TOKENS, "policy_version": [-1, 7, 7, -1, 8]}},
    ]
    path = written(tmp_path, *rows)
    assert main(["lint", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        (
            "note: line 1 and 3 more: no tokens: its text is tokenised with the chat"
            " template of the policy in training."
        ),
        "note: line 1: no reward: it is verified again.",
        (
            "note: line 3 and 1 more: unknown log-probabilities: those tokens count as"
            " sampled by the policy at its update."
        ),
        (
            "note: line 4: every log-probability of the policy's tokens is 0: an"
            " unknown one is null."
        ),
        "note: line 4: its reward is 1, but reward_parts add up to 0.5.",
        "note: line 5 and 1 more: no reward: its group is left out.",
        (
            "note: line 7: tokens.policy_version is to be -1 where the policy did not"
            " write: it is not looked at there."
        ),
        "note: 1 of 3 groups have equal rewards and teach nothing.",
        "note: 1 of 3 groups hold an episode without reward.",
        (
            "note: 1 of 3 groups hold one episode, which is compared with nothing and"
            " teaches nothing."
        ),
        "no errors",
    ]


def test_a_text_withheld_at_writing_is_an_error(tmp_path: Path, capsys):
    [episode] = read_episodes(
        written(
            tmp_path, {**CONSULTED, "task": {**TASK, "meta": {"no_republish": True}}}
        )
    )
    write_episodes(tmp_path / "shown.jsonl", [episode])
    assert main(["lint", str(tmp_path / "shown.jsonl")]) == 2
    assert (
        "shown.jsonl:1: its text was withheld when it was written"
        in capsys.readouterr().out
    )


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "\x1b[2J",
            "\ud800",
            {},
            [],
            [[]],
            {"a": 1},
            "policy",
            10**400,
            -1,
            2**31,
            1e308,
            "9" * 5000,
        ]
    ),
    st.recursive(
        st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    ),
)


def places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value, as far in as a row has any."""
    if depth > 20:
        return []
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    inner = [
        pair
        for _, item in items
        if isinstance(item, dict | list)
        for pair in places(item, depth + 1)
    ]
    return [(value, key) for key, _ in items] + inner


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    data=st.data(),
    base=st.sampled_from([SHORTEST, CONSULTED, {**CONSULTED, "tokens": TOKENS}]),
)
def test_no_line_brings_the_linter_down_and_what_it_passes_can_be_read(
    tmp_path: Path, data, base
):
    row = copy.deepcopy(base)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(row) or [(row, "task")]))
        if isinstance(container, dict) and data.draw(st.booleans()):
            container[data.draw(st.text(max_size=6))] = container.pop(key, None)
        else:
            container[key] = data.draw(HOSTILE)
    path = written(tmp_path, row)
    findings = list(lint_episodes(path))
    if not any(severity == "error" for _, severity, _ in findings):
        [episode] = read_episodes(path)
        (tmp_path / "again.jsonl").unlink(missing_ok=True)
        write_episodes(tmp_path / "again.jsonl", [episode], reveal=True)
        assert list(read_episodes(tmp_path / "again.jsonl")) == [episode]


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(line=st.binary(max_size=60))
def test_any_bytes_are_linted(tmp_path: Path, line: bytes):
    (tmp_path / "bytes.jsonl").write_bytes(line)
    findings = list(lint_episodes(tmp_path / "bytes.jsonl"))
    # So few bytes are no episode.
    assert findings or not line.strip()
    for number, severity, text in findings:
        assert (number > 0, severity, bool(text)) == (True, "error", True)


@pytest.mark.parametrize("depth", [400, 900, 990, 999, 5000])
def test_deep_nesting_is_a_fault(tmp_path: Path, depth: int):
    path = tmp_path / "deep.jsonl"
    path.write_text(
        json.dumps(SHORTEST)[:-1] + ', "tokens": ' + "[" * depth + "]" * depth + "}\n"
    )
    assert [severity for _, severity, _ in lint_episodes(path)] == ["error"]
