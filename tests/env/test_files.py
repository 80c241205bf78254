"""Files of somebody else's: links, lines without end, journals that say what no call could have come to."""

import json
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aipo_env import (
    AgentRequest,
    ConfigError,
    DataError,
    build_scenario,
    cli,
    run_sync,
    write_episodes,
)
from aipo_env import files as files_module
from aipo_env.agents.journal import Cassette, Journal, Outcome, request_hash
from aipo_env.files import bounded_lines, write_anew
from aipo_env.grading import Grader
from aipo_env.stored import lint_episodes
from aipo_env.tasks.file import FileSource
from aipo_env.tasks.rows import read_rows
from aipo_env.testing import ScriptedPolicy

REQUEST = AgentRequest(kind="verify", query="1=1", key=(0, 0))


def test_a_link_is_replaced_and_not_followed(tmp_path: Path):
    victim, page = tmp_path / "authorized_keys", tmp_path / "step.html"
    victim.write_text("mine")
    page.symlink_to(victim)
    write_anew(page, "theirs")
    assert (victim.read_text(), page.read_text()) == ("mine", "theirs")
    assert not page.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == [victim.name, page.name]


def test_view_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("jinja2")
    scenario = build_scenario()
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    write_episodes(
        tmp_path / "step.jsonl", [ScriptedPolicy(["\\boxed{1}"]).run(session)]
    )
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "step.html").symlink_to(victim)
    assert cli.main(["view", str(tmp_path / "step.jsonl")]) == 0
    assert victim.read_text() == "mine"
    assert "<!doctype html>" in (tmp_path / "step.html").read_text().lower()


def test_a_line_without_end_is_refused_and_the_rest_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(files_module, "MAX_LINE_BYTES", 100)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"x" * 5_000_000 + b'\n{"a": 2}\n' + b"y" * 101)
    with path.open("rb") as file:
        lines = list(bounded_lines(file))
    assert [len(line) for line in lines] == [9, 101, 9, 101]
    with pytest.raises(DataError, match="line 2: not JSON .a line of more than"):
        list(read_rows(path))
    faults = [fault for number, _, fault in lint_episodes(path) if number == 2]
    assert faults == ["a line of more than 0 MiB, which is not read."]


def test_a_flood_of_unknown_fields_is_told_in_a_few_lines(tmp_path: Path):
    path = tmp_path / "episodes.jsonl"
    path.write_text(json.dumps({f"field{n}": n for n in range(200_000)}) + "\n")
    faults = [fault for _, kind, fault in lint_episodes(path) if kind == "error"]
    assert len(faults) < 20
    assert "…: 199995 more fields that do not exist." in faults


def line(reply: Any, **account: Any) -> bytes:
    row = {
        "key": str(REQUEST.key),
        "hash": request_hash(REQUEST),
        "reply": reply,
        "error": "",
        "retries": 0,
        "seconds": 0.1,
        **account,
    }
    return json.dumps(row).encode() + b"\n"


def kept(
    tmp_path: Path, content: bytes, kind: type[Journal] = Journal
) -> Outcome | None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    found = kind(str(path)) if kind is Cassette else kind(path)
    return found.get(REQUEST)


@pytest.mark.parametrize("kind", [Journal, Cassette])
def test_a_line_passes_the_checks_of_a_live_reply(tmp_path: Path, kind: type[Journal]):
    outcome = kept(tmp_path, line({"text": "x" * 5_000_000}), kind)
    assert outcome
    assert outcome.reply
    assert len(outcome.reply.text) == 20_000
    outcome = kept(tmp_path, line({"text": "a\ud800b", "token_ids": [1]}), kind)
    assert outcome
    assert outcome.reply
    assert (outcome.reply.text, outcome.reply.token_ids) == ("a?b", ())


@pytest.mark.parametrize(
    "content",
    [
        line({"text": "right;"}, seconds="x"),
        line({"text": "right;"}, seconds=-1),
        line({"text": "right;"}, retries=1.5),
        line({"text": "right;"}, error=[1]),
        line({"text": "right;", "tokens": -1}),
        line({"text": "right;"}, hash=["x"]),
        line({"text": 5}),
        line({"text": "  "}),
        line({"text": "right;"}, surprise=1),
        line(None),
        line("right;"),
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
    ],
    ids=range(13),
)
def test_what_no_call_could_have_come_to_is_passed_over(tmp_path: Path, content: bytes):
    assert kept(tmp_path, content) is None
    good = kept(tmp_path, content + line({"text": "right;"}))
    assert good
    assert good.reply
    assert good.reply.text == "right;"


def test_a_failure_is_kept_with_its_error_cut(tmp_path: Path):
    outcome = kept(tmp_path, line(None, error="e" * 5_000))
    assert outcome
    assert outcome.reply is None
    assert len(outcome.error) == 500


SEEDS = {
    "rows": b'{"id": "a", "prompt": "p", "answer": "1", "meta": {"x": [1, 2.5, null]}}\n',
    "journal": line({"text": "right;", "tokens": 3, "token_ids": [1, 2]}),
    "code": json.dumps(
        {
            "id": "c",
            "prompt": "p",
            "answer": "",
            "kind": "code",
            "tests": {"hidden": [{"input": "1", "output": "1"}], "memory_mb": 256},
        }
    ).encode()
    + b"\n",
}
JUNK = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\ud800", b"1e999", b"NaN", b"-", b"0", b"\0", b"\xff", b"null",
    b"true", b"\n", b"[" * 2_000, b"9" * 5_000, b'"memory_mb": 1e300', b'"time_limit_s": -1', b'"kind": []',
)  # fmt: skip


def read_all(folder: Path, content: bytes) -> None:
    """Have every reader of lines read a file; each may refuse it, and nothing else."""
    path = folder / "any.jsonl"
    path.write_bytes(content)
    with suppress(DataError, ConfigError):
        for row in FileSource(str(path)).tasks.values():
            assert all(task.prompt for task in row)
    with suppress(DataError):
        assert list(lint_episodes(path)) is not None
    Journal(path).get(REQUEST)
    verdicts = run_sync(graded(content))
    assert all(verdict["status"] for verdict in verdicts)


async def graded(content: bytes) -> list[dict[str, Any]]:
    lines = content.split(b"\n")
    return [verdict async for verdict in Grader("math").grade(lines)]


@pytest.mark.slow
def test_files_of_junk_are_refused_and_nothing_else(tmp_path: Path):
    draw = random.Random(5)
    end = time.monotonic() + 60
    scenario = build_scenario()
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    path = tmp_path / "seed.jsonl"
    write_episodes(path, [ScriptedPolicy(["\\boxed{1}"]).run(session)])
    seeds = [*SEEDS.values(), path.read_bytes()]
    while time.monotonic() < end:
        content = bytearray(draw.choice(seeds))
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(content) + 1)
            cut = draw.choice((0, 0, 1, 5, 40))
            content[at : at + cut] = draw.choice(JUNK)
        read_all(tmp_path, bytes(content))
