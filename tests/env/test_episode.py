"""The record of an episode: JSON lines out and exactly back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aipo_env import (
    Author,
    Completion,
    DataError,
    Episode,
    StopReason,
    Task,
    TokenRecord,
    Verdict,
    read_episodes,
    write_episodes,
)
from aipo_env.testing import example_episode, example_tokens

HOSTILE = '\x00\x1b[31m\u202e\ud800\u2028\x85\r\n</script>\U0010ffff"\\'


def record(**columns: list) -> TokenRecord:
    numbers = {
        "token_ids": [5, 2**31 - 1, 7],
        "behaviour_logprobs": [None, np.float32(-0.1), float("nan")],
    }
    return example_tokens(**(numbers | columns))


def episode(text: str = "a") -> Episode:
    task = Task(
        id="t",
        prompt="p" + text.replace("\ud800", ""),
        answer="8",
        choices=["x", "y"],
        meta={"n": [1.5]},
    )
    shown = example_episode(text, task=task, tokens=record())
    consult = replace(shown.consults[0], cost_usd=0.1, seconds=0.25)
    return replace(shown, consults=(consult,), num_forged=2, policy_version=4)


def test_the_example_is_an_episode_as_they_are_played():
    shown = example_episode()
    roles = [message.role for message in shown.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert [turn.finish_reason for turn in shown.turns] == ["stop", "stop"]
    assert [len(turn.calls) for turn in shown.turns] == [1, 0]
    shown_texts = [shown.messages[1].content, shown.messages[3].content]
    assert shown_texts == [shown.task.prompt, shown.turns[0].feedback]
    spans = [span for message in shown.messages for span in message.spans]
    assert [int(span.author) for span in spans] == shown.tokens.author.tolist()
    assert [span.call_id for span in spans] == shown.tokens.call_id.tolist()
    assert [span.is_content for span in spans] == shown.tokens.is_content.tolist()
    assert shown.tokens.turn.tolist() == [0, 0, 0, 1, 1, 1]
    other = Task(id="u", prompt="q", answer="2")
    assert example_episode(task=other).messages[1].content == "q"


@pytest.mark.parametrize(
    "text", ["", "héllo \N{SNOWMAN}", pytest.param(HOSTILE, id="hostile")]
)
def test_json_lines_give_back_the_same_episode(tmp_path: Path, text: str):
    path = tmp_path / "episodes.jsonl"
    failed = replace(
        episode(text),
        verdict=None,
        reward=None,
        reward_parts={},
        stop_reason=StopReason.CANCELLED,
    )
    write_episodes(path, [episode(text)])
    write_episodes(path, [failed])
    assert list(read_episodes(path)) == [episode(text), failed]
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 3
    assert path.read_bytes().isascii()


def test_what_comes_back_has_its_types(tmp_path: Path):
    path = tmp_path / "episodes.jsonl"
    write_episodes(path, [episode()])
    [back] = read_episodes(path)
    tokens = back.tokens
    assert [
        getattr(tokens, name).dtype.name
        for name in ("token_ids", "author", "call_id", "turn")
    ] == [
        "int32",
        "int8",
        "int32",
        "int16",
    ]
    assert (tokens.behaviour_logprobs.dtype.name, tokens.is_content.dtype.name) == (
        "float32",
        "bool",
    )
    assert np.isnan(tokens.behaviour_logprobs).tolist() == [True, False, True]
    assert tokens.behaviour_logprobs[1] == np.float32(-0.1)
    assert back.consults[0].seconds == 0.25
    assert back.task.choices == ("x", "y")


def test_an_unknown_logprob_is_null_in_the_file(tmp_path: Path):
    path = tmp_path / "episodes.jsonl"
    write_episodes(path, [episode()])
    row = json.loads(path.read_text())
    assert row["tokens"]["behaviour_logprobs"] == [None, float(np.float32(-0.1)), None]


def test_equality_sees_every_token():
    assert record() == record()
    assert record() != record(author=[Author.PROMPT, Author.POLICY, Author.ENV])
    assert record() != record(behaviour_logprobs=[None, None, None])
    assert episode() != replace(episode(), tokens=record(turn=[0, 0, 0]))


def test_masks():
    assert record().policy_mask.tolist() == [False, True, False]
    assert record().agent_mask.tolist() == [False, False, True]
    assert record(is_content=[False] * 3).agent_mask.tolist() == [False] * 3
    assert len(record()) == 3


def test_tokens_of_several_versions_of_the_policy_come_back_exactly(tmp_path: Path):
    path = tmp_path / "episodes.jsonl"
    mixed = replace(episode(), tokens=record(policy_version=[-1, 2**31 - 1, -1]))
    write_episodes(path, [mixed, episode()])
    back, plain = read_episodes(path)
    assert (back, plain) == (mixed, episode())
    assert back != plain
    assert back.tokens.policy_version.dtype.name == "int32"
    assert back.policy_versions.tolist() == [-1, 2**31 - 1, -1]
    assert plain.tokens.policy_version is None
    assert plain.policy_versions.tolist() == [-1, 4, -1]
    assert (
        "policy_version" not in json.loads(path.read_text().splitlines()[1])["tokens"]
    )
    with pytest.raises(ValueError, match="differ in length"):
        record(policy_version=[0])


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        record(turn=[0])


def test_a_line_cut_short_by_a_crash_does_not_spoil_the_next(tmp_path: Path):
    path = tmp_path / "episodes.jsonl"
    write_episodes(path, [episode()])
    path.write_bytes(path.read_bytes()[:-20])
    write_episodes(path, [episode()])
    assert [line[-1:] for line in path.read_bytes().splitlines()] != [b"}"]
    with pytest.raises(DataError, match=r"episodes\.jsonl, line 1: not an episode"):
        list(read_episodes(path))
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    assert list(read_episodes(path)) == [episode()]


def row(**fields: object) -> bytes:
    return json.dumps({**episode().to_dict(), **fields}).encode()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{", "Expecting property name"),
        (b"", "Expecting value"),
        (b"\xff", "can't decode"),
        (b"[1]", "the line is .1.; an object is needed"),
        (b"{}", "task is missing"),
        pytest.param(
            row(stop_reason="bored"),
            "stop_reason is 'bored'. Valid: cancelled, completed",
            id="enum",
        ),
        pytest.param(row(extra=1), "extra: no such field", id="extra"),
        pytest.param(row(task={"choices": []}), "task.id is missing", id="task"),
        pytest.param(
            row(tokens={**record().to_dict(), "token_ids": [2**40] * 3}),
            r"tokens.token_ids.0. is 1099511627776; 0 to 2147483647 is needed",
            id="int32",
        ),
        pytest.param(
            row(tokens={**record().to_dict(), "author": [0]}),
            "differ in length",
            id="length",
        ),
        pytest.param(b"[" * 100_000, "recursion", id="deep"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, fault: str):
    path = tmp_path / "episodes.jsonl"
    path.write_bytes(row() + b"\n" + line + b"\n")
    with pytest.raises(
        DataError, match=rf"episodes\.jsonl, line 2: not an episode: .*{fault}"
    ):
        list(read_episodes(path))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"nothing\.jsonl: no such file"):
        list(read_episodes(tmp_path / "nothing.jsonl"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": ""}, "field 'id' must be non-empty text, got ''"),
        ({"prompt": " \n"}, "field 'prompt' must be non-empty text"),
        ({"answer": 8}, "field 'answer' must be non-empty text, got 8"),
        ({"prompt": "\ud800"}, "field 'prompt' holds half a surrogate pair"),
        ({"choices": "xy"}, "field 'choices' must be a list of texts, got 'xy'"),
        ({"choices": [1]}, "field 'choices' must be a list of texts"),
        ({"meta": [1]}, "field 'meta' must be an object"),
    ],
)
def test_a_task_is_checked_at_construction(fields: dict, message: str):
    with pytest.raises(DataError, match=message):
        Task(**{"id": "t", "prompt": "p", "answer": "8", **fields})


def test_a_completion_is_checked_at_construction():
    assert Completion("a", (1, 2), (-0.5, float("nan"))).finish_reason == "stop"
    with pytest.raises(ValueError, match="1 logprobs for 2 token ids"):
        Completion("a", (1, 2), (-0.5,))
    with pytest.raises(ValueError, match="an infinite logprob"):
        Completion("a", (1,), (float("-inf"),))


def test_the_dictionary_holds_nothing_but_what_json_has():
    def check(value: object) -> None:
        assert type(value) in (dict, list, str, int, float, bool, type(None)), value
        for item in (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, list)
            else ()
        ):
            check(item)

    check(episode().to_dict())
    assert episode().to_dict()["messages"][0]["spans"][0]["author"] == 0


def test_a_value_that_json_has_not_is_named(tmp_path: Path):
    task = replace(episode().task, meta={"loss": np.float32(1)})
    with pytest.raises(TypeError, match="float32 is not JSON serializable"):
        write_episodes(tmp_path / "e.jsonl", [replace(episode(), task=task)])


def test_the_parts_of_a_verdict_come_back(tmp_path: Path):
    verdict = Verdict(
        correct=True,
        reward=np.float32(1.25),
        status="correct",
        parts={"answer": 1, "format": np.float32(0.25)},
    )
    judged = replace(episode(), verdict=verdict)
    write_episodes(tmp_path / "e.jsonl", [judged])
    [again] = read_episodes(tmp_path / "e.jsonl")
    assert again == judged
    assert again.verdict.reward == 1.25
    assert again.verdict.parts == {"answer": 1.0, "format": 0.25}


def test_a_verdict_written_without_parts_is_read(tmp_path: Path):
    row = episode().to_dict()
    del row["verdict"]["parts"]
    (tmp_path / "e.jsonl").write_text(json.dumps(row) + "\n")
    [again] = read_episodes(tmp_path / "e.jsonl")
    assert again == episode()
    assert again.verdict.parts == {}


def test_a_file_of_one_byte_gets_its_end_of_line(tmp_path: Path):
    path = tmp_path / "episodes.jsonl"
    path.write_bytes(b"x")
    write_episodes(path, [episode()])
    first, second = path.read_text().splitlines()
    assert first == "x"
    assert second.startswith("{")
