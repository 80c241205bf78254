"""Where tasks come from."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aipo_env import (
    CodeTests,
    ConfigError,
    DataError,
    FileSource,
    ToySource,
    build_source,
    task_index,
)
from aipo_env.tasks import rows

ROW = {"id": "a", "prompt": "1+1?", "answer": "2"}


def write(path: Path, *rows: object) -> Path:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        encoding="utf-8",
    )
    return path


def test_the_toy_source():
    source = build_source("toy:difficulty=2", seed=5)
    assert isinstance(source, ToySource)
    assert (source.world.seed, source.world.difficulty, source.num_tasks("train")) == (
        5,
        2,
        None,
    )
    assert build_source("toy:seed=7", seed=5) == build_source(
        {"type": "toy", "seed": 7}, seed=0
    )
    task = build_source("toy", seed=0).task("train", 1)
    assert (task.id, task.prompt, task.answer) == (
        "toy-0-train-1",
        "Apply ramo to 9468.",
        "2490",
    )
    assert task.meta == {"bottleneck": "reason", "difficulty": 1}


def test_a_file_of_tasks(tmp_path: Path):
    rows = [
        {**ROW, "split": "train"},
        {**ROW, "id": "b", "split": "test", "meta": {"x": 1}},
        {**ROW, "id": "c", "choices": ["x", "y"]},
    ]
    source = build_source(f"file:{write(tmp_path / 'tasks.jsonl', *rows)}", seed=0)
    # What is not marked as held out may be learnt from.
    assert (source.num_tasks("train"), source.num_tasks("test")) == (2, 1)
    assert [source.task("train", index).id for index in range(4)] == [
        "a",
        "c",
        "a",
        "c",
    ]
    assert source.task("test", 0).meta == {"x": 1}
    assert source.task("train", 1).choices == ("x", "y")


def test_a_row_may_hold_any_separator_but_a_newline(tmp_path: Path):
    prompt = "a\u2028b\x85c\x0cd\r"
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + json.dumps({**ROW, "prompt": prompt}, ensure_ascii=False).encode()
        + b"\r\n\n"
    )
    source = FileSource(path)
    assert source.num_tasks("train") == 1
    assert source.task("train", 0).prompt == prompt


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"id": "a"', "line 2: not JSON"),
        (b"\xff\xff", "line 2: not JSON"),
        pytest.param(b"[" * 100_000, "line 2: not JSON", id="deep"),
        (
            b'{"id": "a", "prompt": "p", "answer": NaN}',
            "line 2: not JSON .NaN is no JSON",
        ),
        (b"[1]", "line 2: a row must be an object, got list"),
        (b'{"id": "a", "prompt": "p"}', "line 2: field 'answer' is missing"),
        (
            b'{"id": "b", "prompt": "p", "answer": true}',
            "line 2: task 'b': field 'answer' must be non-empty text",
        ),
        (
            b'{"id": "a", "prompt": "", "answer": "2"}',
            "line 2: task 'a': field 'prompt' must be non-empty",
        ),
        (
            b'{"id": "a", "prompt": "\\ud800", "answer": "2"}',
            "line 2: task 'a': field 'prompt' holds half",
        ),
        (
            b'{"id": "a", "prompt": "p", "answer": "2", "anwser": "2"}',
            "line 2: .*Did you mean 'answer'",
        ),
        (
            b'{"id": "a", "prompt": "p", "answer": "2", "split": "dev"}',
            "line 2: field 'split' is 'dev'",
        ),
        (
            b'{"id": "a", "prompt": "p", "answer": "2", "choices": "ab"}',
            "line 2: .*field 'choices'",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: bytes, fault: str):
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b"\n" + line)
    with pytest.raises(DataError, match=rf"tasks\.jsonl, {fault}"):
        build_source(f"file:{path}", seed=0)


def test_files_that_are_not_there_or_empty(tmp_path: Path):
    with pytest.raises(DataError, match=r"nothing\.jsonl: no such file"):
        build_source(f"file:{tmp_path}/nothing.jsonl", seed=0)
    source = build_source(
        f"file:{write(tmp_path / 'tasks.jsonl', {**ROW, 'split': 'test'})}", seed=0
    )
    with pytest.raises(DataError, match="no row belongs to the 'train' split"):
        source.task("train", 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "toys",
            (
                "there is no 'toys'. Valid: file, hf, mix, reasoning_gym, shipped,"
                " toy. Did you mean 'toy'"
            ),
        ),
        (
            "toy:dificulty=2",
            "there is no option 'dificulty'.* Did you mean 'difficulty'",
        ),
        ("toy:difficulty=9", "difficulty=9 must be a whole number from 1 to 3"),
        ({"type": "file"}, "missing 1 required positional argument: 'path'"),
        ({"type": "file", "path": "x", "pth": "y"}, "there is no option 'pth'"),
        ({"path": "x"}, "needs a 'type'"),
    ],
)
def test_bad_specs_are_named(spec: object, message: str):
    with pytest.raises(ConfigError, match=message):
        build_source(spec, seed=0)


def parquet(path: Path, *rows: dict) -> Path:
    names = {name: None for row in rows for name in row}
    pq.write_table(pa.Table.from_pylist([{**names, **row} for row in rows]), path)
    return path


TESTS = {
    "kind": "function",
    "entry": "f",
    "public": [],
    "hidden": [{"args": [1, 2], "expected": 3}],
}


@pytest.mark.parametrize(
    ("tests", "fault"),
    [
        (
            {"time_limit_s": "2"},
            (
                "field 'time_limit_s' must be a number of seconds from 0.01 to 300,"
                " got '2'"
            ),
        ),
        (
            {"memory_mb": 0},
            "field 'memory_mb' must be a whole number of MiB from 1 to 16384, got 0",
        ),
        (
            {"compare": "exact_json"},
            "field 'compare' must be an object, got 'exact_json'",
        ),
        (
            {"hidden": [{"args": 1, "expected": 3}]},
            r"hidden\[0\] must be an object with args \(list\) and expected",
        ),
        (
            {"kind": "stdin", "hidden": [{"input": 5, "output": ""}]},
            r"hidden\[0\] .* with input \(str\) and output",
        ),
        (
            {"kind": "stdin"},
            r"hidden\[0\] must be an object with input \(str\) and output \(str\)",
        ),
    ],
)
def test_bad_tests_are_named(tmp_path: Path, tests: dict, fault: str):
    row = {**ROW, "answer": "", "kind": "code", "tests": {**TESTS, **tests}}
    with pytest.raises(DataError, match=rf"tasks\.jsonl, line 1: tests: {fault}"):
        FileSource(write(tmp_path / "tasks.jsonl", row))


def test_an_id_that_comes_twice_is_named(tmp_path: Path):
    with pytest.raises(
        DataError, match=r"tasks\.jsonl, line 2: the id 'a' stands in an earlier row"
    ):
        FileSource(write(tmp_path / "tasks.jsonl", ROW, ROW))


def test_a_parquet_file_of_tasks(tmp_path: Path):
    tasks = [
        {**ROW, "split": "train", "meta": {"level": 2}},
        {**ROW, "id": "b", "choices": ["x", "½"], "split": "test", "kind": "choice"},
        {
            **ROW,
            "id": "c",
            "answer": "",
            "tests": {**TESTS, "memory_mb": None},
            "kind": "code",
        },
        {
            **ROW,
            "id": "d",
            "answer": "",
            "tests": {**TESTS, "memory_mb": 9},
            "kind": "code",
            "split": "train",
        },
    ]
    source = build_source(f"file:{parquet(tmp_path / 'tasks.parquet', *tasks)}", seed=0)
    assert (source.num_tasks("train"), source.num_tasks("test")) == (3, 1)
    assert source.task("train", 0).meta == {"level": 2}
    assert source.task("test", 0).choices == ("x", "½")
    assert source.task("train", 1).tests == CodeTests(
        kind="function", entry="f", hidden=({"args": [1, 2], "expected": 3},)
    )


def test_a_csv_file_of_tasks(tmp_path: Path):
    with (tmp_path / "tasks.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ROW))
        writer.writeheader()
        writer.writerow({**ROW, "prompt": "two\nlines, ½"})
    task = FileSource(tmp_path / "tasks.csv").task("train", 0)
    assert (task.prompt, task.answer) == ("two\nlines, ½", "2")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"id": "a", "prompt": "p"}, "row 2: field 'answer' is missing"),
        ({**ROW, "answer": None}, "row 2: field 'answer' is missing"),
        (
            {**ROW, "prompt": ""},
            "row 2: task 'a': field 'prompt' must be non-empty text",
        ),
        (
            {**ROW, "anwser": "2"},
            "row 2: there is no option 'anwser'.*Did you mean 'answer'",
        ),
        ({**ROW, "split": "dev"}, "row 2: field 'split' is 'dev'"),
        (
            {**ROW, "choices": [1]},
            "row 2: task 'a': field 'choices' must be a list of texts",
        ),
    ],
)
def test_a_bad_row_of_a_parquet_file_is_named(tmp_path: Path, row: dict, fault: str):
    with pytest.raises(DataError, match=rf"tasks\.parquet, {fault}"):
        FileSource(parquet(tmp_path / "tasks.parquet", ROW, row))


def test_numbers_are_no_texts_in_a_parquet_file(tmp_path: Path):
    with pytest.raises(
        DataError,
        match=r"row 1: task 'a': field 'answer' must be non-empty text, got nan",
    ):
        FileSource(parquet(tmp_path / "tasks.parquet", {**ROW, "answer": float("nan")}))


def test_a_library_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = parquet(tmp_path / "tasks.parquet", ROW)

    def absent(module: str) -> None:
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr(rows, "import_module", absent)
    with pytest.raises(
        ConfigError, match=r'pyarrow is needed .* pip install "aipo-rl\[data\]"'
    ):
        FileSource(path)
    with pytest.raises(
        ConfigError, match="huggingface_hub is needed and not installed"
    ):
        build_source("hf:math_500", seed=0)
    with pytest.raises(
        ConfigError, match="reasoning_gym is needed .* pip install reasoning-gym"
    ):
        build_source("reasoning_gym:gcd", seed=0)


def test_what_ships(tmp_path: Path):
    source = build_source("shipped:toy", seed=0)
    assert (source.num_tasks("train"), source.num_tasks("test")) == (12, 12)
    assert source.task("train", 0).prompt == "Apply mele to 0808."
    with pytest.raises(DataError, match="lists nothing under 'tyo'"):
        build_source("shipped:tyo", seed=0)


def test_a_bad_row_that_forbids_republication_is_not_shown(tmp_path: Path):
    row = {
        **ROW,
        "prompt": "SECRET",
        "choices": "SECRET",
        "meta": {"no_republish": True},
    }
    with pytest.raises(
        DataError, match="line 1: no task; its text forbids republication"
    ) as caught:
        FileSource(write(tmp_path / "tasks.jsonl", row))
    assert "SECRET" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_table_shows_no_text(tmp_path: Path):
    source = FileSource(write(tmp_path / "tasks.jsonl", ROW))
    assert (
        repr(source)
        == f"FileSource(name={str(tmp_path / 'tasks.jsonl')!r}, skipped={{}})"
    )
    assert repr(source.task("train", 0)) == "Task(id='a', kind='math', source='')"


@pytest.mark.integrations
def test_reasoning_gym():
    pytest.importorskip("reasoning_gym")
    source = build_source(
        {"type": "reasoning_gym", "name": "gcd", "size": 30, "num_test": 10}, seed=3
    )
    again = build_source("reasoning_gym:gcd,size=30,num_test=10", seed=3)
    train = [source.task("train", index) for index in range(source.num_tasks("train"))]
    test = [source.task("test", index) for index in range(source.num_tasks("test"))]
    assert (len(train), len(test), source.skipped) == (
        30,
        10,
        {"repeated, or without an answer": 0},
    )
    assert [again.task("train", index) for index in range(30)] == train
    assert not {task.prompt for task in train} & {task.prompt for task in test}
    assert build_source("reasoning_gym:gcd", seed=4).task("train", 0) != train[0]
    assert all(
        task.answer.isdigit() and task.source == "reasoning-gym/gcd" for task in train
    )
    with_options = build_source(
        "reasoning_gym:gcd,size=3,num_test=1,min_numbers=4,max_numbers=4", seed=3
    )
    assert with_options.task("train", 0).prompt.count(",") == 3
    for spec in ("reasoning_gym:nothing", "reasoning_gym:gcd,colour=red"):
        with pytest.raises(ConfigError, match="the library refuses"):
            build_source(spec, seed=0)


def test_every_epoch_of_a_file_is_shuffled_anew(tmp_path: Path):
    rows = [{**ROW, "id": str(number)} for number in range(5)]
    source = FileSource(write(tmp_path / "tasks.jsonl", *rows))
    epochs = [
        [task_index(source, "train", 5 * epoch + i, seed=3) for i in range(5)]
        for epoch in range(4)
    ]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert task_index(source, "train", 7, seed=3) == epochs[1][2]
    assert task_index(build_source("toy", 0), "train", 12345, seed=3) == 3_012_354
    assert task_index(build_source("toy", 0), "train", 12345, seed=0) == 12_345
