"""Files of somebody else's: links, lines without end, journals that say what no call
could have come to.
"""

import json
import os
import random
import threading
import time
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from aipo_env import (
    AgentReply,
    AgentRequest,
    ConfigError,
    DataError,
    build_scenario,
    cli,
    run_sync,
    write_episodes,
)
from aipo_env import files as files_module
from aipo_env.agents.pool.journal import Cassette, Journal, Outcome, request_hash
from aipo_env.files import (
    bounded_lines,
    check_entries,
    check_place,
    check_tree,
    is_stream,
    link_anew,
    open_output,
    read_whole,
    write_anew,
    write_output,
)
from aipo_env.grading import Grader
from aipo_env.rollout.rules import DialogueRules
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


def test_a_file_keeps_what_it_holds_under_its_other_name(tmp_path: Path):
    backup, page = tmp_path / "backup.html", tmp_path / "page.html"
    backup.write_text("before")
    backup.chmod(0o640)
    os.link(backup, page)
    write_anew(page, b"after")
    assert (backup.read_text(), page.read_text()) == ("before", "after")
    assert page.stat().st_mode & 0o777 == 0o640
    os.unlink(page)
    os.link(backup, page)
    with open_output(page) as file:
        file.write("line by line")
    assert (backup.read_text(), page.read_text()) == ("before", "line by line")
    assert page.stat().st_mode & 0o777 == 0o640


def test_what_is_no_file_is_refused_by_name(tmp_path: Path):
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path, found in ((pipe, "pipe"), (folder, "folder")):
        with pytest.raises(DataError, match=f"{path}: a {found}, where a file is nee"):
            write_anew(path, "page")
        with pytest.raises(DataError, match=f"{path}: a {found}, where a file is nee"):
            check_place(path)
    with pytest.raises(DataError, match="/dev/null: a device, where a file is needed"):
        write_anew(Path("/dev/null"), "page")
    with pytest.raises(DataError, match="a pipe, where a folder is needed"):
        check_place(pipe, is_folder=True)
    assert check_place(folder, is_folder=True) == folder
    assert check_place(tmp_path / "absent") == tmp_path / "absent"
    assert check_place(tmp_path / "nu\0ll") == tmp_path / "nu\0ll"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_link_among_the_entries_is_named(tmp_path: Path):
    check_entries(tmp_path / "absent")
    check_entries(tmp_path)
    (tmp_path / "entry").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="entry: a link, which is not followed"):
        check_entries(tmp_path)


def test_a_whole_folder_holds_files_and_folders_alone(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    check_tree(tmp_path)
    os.mkfifo(tmp_path / "a" / "b" / "pipe")
    with pytest.raises(DataError, match="a/b/pipe: a pipe, where a file is needed"):
        check_tree(tmp_path)
    (tmp_path / "a" / "b" / "pipe").unlink()
    (tmp_path / "a" / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="a/link: a link, which is not followed"):
        check_tree(tmp_path)


def test_a_link_takes_the_place_of_a_link(tmp_path: Path):
    link_anew(tmp_path / "best", Path("one"))
    link_anew(tmp_path / "best", Path("two"))
    assert (tmp_path / "best").readlink() == Path("two")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_stream_that_a_user_names_is_written_into(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_output(pipe, "page")
    reader.join(10)
    assert read == ["page"]
    assert pipe.is_fifo()
    assert is_stream(Path("/dev/null"))
    assert is_stream(Path("/dev/stdout"))
    assert is_stream(Path("/proc/self/fd/1"))
    assert not is_stream(tmp_path / "page.html")
    (tmp_path / "page.html").symlink_to(tmp_path / "victim")
    assert not is_stream(tmp_path / "page.html")
    with pytest.raises(DataError, match="a folder, where a file is needed"):
        write_output(tmp_path, "page")


def test_a_long_file_is_not_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "list.json"
    path.write_text('[{"id": "a", "prompt": "p", "answer": "1"}]')
    assert len(read_whole(path)) == 43
    with pytest.raises(ValueError, match="more than 0 MiB, which is not read"):
        read_whole(path, 42)
    with pytest.raises(ValueError, match="more than 0 MiB, which is not read"):
        read_whole(Path("/dev/zero"), 42)
    assert len(FileSource(path).tasks["train"]) == 1
    monkeypatch.setattr(files_module, "MAX_LINE_BYTES", 10)
    monkeypatch.setattr(files_module, "MAX_FILE_BYTES", 20)
    with pytest.raises(DataError, match="line 1: not JSON .a list of more than"):
        FileSource(path)


def test_view_hangs_at_no_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("jinja2")
    path = episodes_file(tmp_path)
    os.mkfifo(tmp_path / "step.html")
    assert cli.main(["view", str(path)]) == 2
    assert "step.html: a pipe, where a file is needed" in capsys.readouterr().err


def test_view_prints_a_page(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    pytest.importorskip("jinja2")
    path = episodes_file(tmp_path)
    assert cli.main(["view", str(path), "--out", "/dev/stdout"]) == 0
    page = capfd.readouterr().out
    assert page.lower().startswith("<!doctype html>")
    assert "Page:" not in page


def episodes_file(folder: Path) -> Path:
    scenario = build_scenario()
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    path = folder / "step.jsonl"
    write_episodes(path, [ScriptedPolicy(["\\boxed{1}"]).run(session)])
    return path


def test_verdicts_overwrite_no_other_name_of_their_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    line = '{"gold": "7", "pred": "7", "form": "answer"}\n'
    answers, twin, link = (tmp_path / name for name in ("in", "twin", "link"))
    answers.write_text(line)
    os.link(answers, twin)
    link.symlink_to(answers)
    for out in (answers, twin, link):
        command = ["verify", "--kind", "math", str(answers), "--out", str(out)]
        assert cli.main(command) == 2
        assert "the verdicts would overwrite" in capsys.readouterr().err
    assert answers.read_text() == line
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("mine")
    out.symlink_to(victim)
    assert cli.main(["verify", "--kind", "math", str(answers), "--out", str(out)]) == 0
    assert victim.read_text() == "mine"
    assert json.loads(out.read_text())["status"] == "correct"


def test_view_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("jinja2")
    episodes_file(tmp_path)
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


def test_a_flood_of_unknown_columns_is_told_in_a_few_lines(tmp_path: Path):
    path = tmp_path / "episodes.jsonl"
    columns = {f"{'z' * 5_000}{n}": [1] for n in range(500)}
    path.write_text(json.dumps(EPISODE | {"tokens": TOKENS | columns}) + "\n")
    faults = [fault for _, kind, fault in lint_episodes(path) if kind == "error"]
    assert len(faults) == 6
    assert faults[-1] == "tokens.…: 495 more columns that do not exist."


EPISODE: dict[str, Any] = {
    "task": {"id": "t", "prompt": "p", "answer": "1"},
    "messages": [
        {"role": "user", "content": "p"},
        {"role": "assistant", "content": "\\boxed{1}"},
    ],
    "reward": 1.0,
}
TOKENS: dict[str, Any] = {"token_ids": [1], "author": [1]}


@pytest.mark.parametrize(
    ("tokens", "fault"),
    [
        (
            {"token_ids": [1] * 80_000, "author": [1, 0] * 40_000},
            (
                "tokens.turn is missing, and by author there are 40000 turns; 32767 at"
                " most are read."
            ),
        ),
        (
            TOKENS | {"turn": [40_000]},
            "tokens.turn[0] is 40000; 0 to 32767 is needed.",
        ),
        (
            TOKENS | {"turn": []},
            (
                "token record arrays differ in length: {'token_ids': 1, 'author': 1,"
                " 'call_id': 1, 'turn': 0, 'behaviour_logprobs': 1, 'is_content': 1}."
            ),
        ),
    ],
)
def test_a_token_record_with_odd_turns_is_linted(
    tmp_path: Path, tokens: dict[str, Any], fault: str
):
    path = tmp_path / "episodes.jsonl"
    path.write_text(json.dumps(EPISODE | {"tokens": tokens}) + "\n")
    faults = [fault for _, kind, fault in lint_episodes(path) if kind == "error"]
    assert faults == [fault]


@pytest.mark.parametrize("field", ["stop_reason", "group_id", "surprise"])
def test_what_is_told_of_a_long_value_is_cut(tmp_path: Path, field: str):
    path = tmp_path / "episodes.jsonl"
    path.write_text(json.dumps(EPISODE | {field: [1] * 500_000}) + "\n")
    faults = [fault for _, kind, fault in lint_episodes(path) if kind == "error"]
    assert faults
    assert max(map(len, faults)) < 400


ROW = {"id": "a", "prompt": "p", "answer": "1"}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (ROW | {"tests": 5}, "task 'a': field 'tests' must be an object"),
        (ROW | {"tests": [1]}, "task 'a': field 'tests' must be an object"),
        (ROW | {"x" * 5_000_000: 1}, "there is no option 'xxx"),
        (ROW | {"id": ["x"] * 500_000}, r"task \['x', 'x'"),
        (ROW | {"split": "x" * 5_000_000}, "field 'split' is 'xxx"),
        (
            ROW | {"kind": "choice", "choices": ["\ud800"]},
            "task 'a': field 'choices' holds half",
        ),
    ],
    ids=range(6),
)
def test_a_row_is_refused_in_a_few_words(
    tmp_path: Path, row: dict[str, Any], fault: str
):
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=f"tasks.jsonl, line 1: {fault}") as caught:
        FileSource(path)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            "id,prompt,answer\n1,p,1,extra\n",
            "row 1: not csv .it has more cells than the",
        ),
        ("id,prompt,answer,answer\n1,p,1,2\n", "two columns .* are called 'answer'"),
        ("id,prompt,answer\n1,\xff,1\n", "row 1: not csv .'utf-8' codec"),
        ("id,prompt,answer\r1,p,1\r", "row 1: not csv .new-line character seen"),
        (f"id,prompt,answer\n1,{'x' * 200},1\n", "row 1: not csv .a line of more"),
    ],
)
def test_a_damaged_table_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, fault: str
):
    monkeypatch.setattr(files_module, "MAX_LINE_BYTES", 100)
    path = tmp_path / "tasks.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=fault):
        FileSource(path)


def test_a_table_may_quote_and_begin_with_its_mark(tmp_path: Path):
    path = tmp_path / "tasks.csv"
    path.write_bytes(
        b'\xef\xbb\xbfid,prompt,answer\r\n1,"two\r\nlines \xe2\x80\xa8",1\r\n2,p,1\r\n'
    )
    first, second = FileSource(path).tasks["train"]
    assert (first.id, first.prompt) == ("1", "two\r\nlines \u2028")
    assert (second.id, second.prompt) == ("2", "p")


@pytest.mark.parametrize("kind", ["date", "timestamp", "duration", "day"])
def test_what_no_python_holds_of_a_table_is_named(tmp_path: Path, kind: str):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    column = {
        "date": lambda: pa.array([10**8], pa.int32()).cast(pa.date32()),
        "timestamp": lambda: pa.array([2**62], pa.timestamp("us")),
        "duration": lambda: pa.array([2**62], pa.duration("s")),
        # Python holds this one, and JSON does not.
        "day": lambda: pa.array([{"day": date(2026, 1, 2)}]),
    }[kind]()
    texts = {name: pa.array([value]) for name, value in ROW.items()}
    pq.write_table(pa.table({**texts, "meta": column}), tmp_path / "tasks.parquet")
    with pytest.raises(DataError, match="tasks.parquet, row 1: "):
        FileSource(tmp_path / "tasks.parquet")


@pytest.mark.parametrize("name", ["plain_prompt", "consult_prompt"])
def test_a_prompt_holds_no_half_pair(name: str):
    with pytest.raises(ConfigError, match=f"{name} holds half a surrogate pair"):
        DialogueRules(**{name: "Solve.\ud800"})  # type: ignore[arg-type]


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


@pytest.mark.parametrize("kind", [Journal, Cassette])
def test_replies_are_kept_in_a_file_alone(tmp_path: Path, kind: type[Journal]):
    path = tmp_path / "journal.jsonl"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="journal.jsonl: no file, so replies cannot"):
        kind(str(path)) if kind is Cassette else kind(path)  # type: ignore[arg-type]


def test_a_journal_that_is_emptied_stays_whole_under_its_other_name(tmp_path: Path):
    path, backup = tmp_path / "journal.jsonl", tmp_path / "backup.jsonl"
    journal = Journal(path)
    outcome = Outcome(reply=AgentReply(text="right;"))
    journal.put(REQUEST, outcome)
    journal.lose("verify", "x", "gone")
    os.link(path, backup)
    whole = backup.read_text()
    journal.clear(journal.size())
    assert backup.read_text() == whole
    assert path.read_text() == '{"lost": "verify", "agent_id": "x", "error": "gone"}\n'
    journal.put(REQUEST, outcome)
    journal.close()
    assert backup.read_text() == whole
    again = Journal(path)
    assert again.get(REQUEST) == outcome
    assert again.loss("verify", "x") == "gone"


SEEDS = {
    "rows": (
        b'{"id": "a", "prompt": "p", "answer": "1", "meta": {"x": [1, 2.5, null]}}\n'
    ),
    "journal": line({"text": "right;", "tokens": 3, "token_ids": [1, 2]}),
    "code": (
        json.dumps(
            {
                "id": "c",
                "prompt": "p",
                "answer": "",
                "kind": "code",
                "tests": {"hidden": [{"input": "1", "output": "1"}], "memory_mb": 256},
            }
        ).encode()
        + b"\n"
    ),
}
JUNK = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\\ud800",
    b"1e999",
    b"NaN",
    b"-",
    b"0",
    b"\0",
    b"\xff",
    b"null",
    b"true",
    b"\n",
    b"[" * 2_000,
    b"9" * 5_000,
    b'"memory_mb": 1e300',
    b'"time_limit_s": -1',
    b'"kind": []',
)


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
