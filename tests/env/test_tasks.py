"""Where tasks come from."""

import json
from pathlib import Path

import pytest

from aipo_env import ConfigError, DataError, FileSource, ToySource, build_source, task_index

ROW = {"id": "a", "prompt": "1+1?", "answer": "2"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_toy_source():
    source = build_source("toy:difficulty=2", seed=5)
    assert isinstance(source, ToySource)
    assert (source.world.seed, source.world.difficulty, source.num_tasks("train")) == (5, 2, None)
    assert build_source("toy:seed=7", seed=5) == build_source({"type": "toy", "seed": 7}, seed=0)
    task = build_source("toy", seed=0).task("train", 1)
    assert (task.id, task.prompt, task.answer) == ("toy-0-train-1", "Apply ramo to 9468.", "5808")
    assert task.meta == {"bottleneck": "reason", "difficulty": 1}


def test_a_file_of_tasks(tmp_path: Path):
    rows = [
        {**ROW, "split": "train"},
        {**ROW, "id": "b", "split": "test", "meta": {"x": 1}},
        {**ROW, "id": "c", "choices": ["x", "y"]},
    ]
    source = build_source(f"file:{write(tmp_path / 'tasks.jsonl', *rows)}", seed=0)
    assert (source.num_tasks("train"), source.num_tasks("test")) == (2, 2)
    assert [source.task("train", index).id for index in range(4)] == ["a", "c", "a", "c"]
    assert source.task("test", 0).meta == {"x": 1}
    assert source.task("train", 1).choices == ("x", "y")


def test_a_row_may_hold_any_separator_but_a_newline(tmp_path: Path):
    prompt = "a\u2028b\x85c\x0cd\r"
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps({**ROW, "prompt": prompt}, ensure_ascii=False).encode() + b"\r\n\n"
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
        (b'{"id": "a", "prompt": "p", "answer": NaN}', "line 2: not JSON .NaN is no JSON"),
        (b"[1]", "line 2: a row must be an object, got list"),
        (b'{"id": "a", "prompt": "p"}', "line 2: field 'answer' is missing"),
        (
            b'{"id": "a", "prompt": "p", "answer": 2}',
            "line 2: task 'a': field 'answer' must be non-empty text",
        ),
        (b'{"id": "a", "prompt": "", "answer": "2"}', "line 2: task 'a': field 'prompt' must be non-empty"),
        (b'{"id": "a", "prompt": "\\ud800", "answer": "2"}', "line 2: task 'a': field 'prompt' holds half"),
        (b'{"id": "a", "prompt": "p", "answer": "2", "anwser": "2"}', "line 2: .*Did you mean 'answer'"),
        (b'{"id": "a", "prompt": "p", "answer": "2", "split": "dev"}', "line 2: field 'split' is 'dev'"),
        (b'{"id": "a", "prompt": "p", "answer": "2", "choices": "ab"}', "line 2: .*field 'choices'"),
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
    source = build_source(f"file:{write(tmp_path / 'tasks.jsonl', {**ROW, 'split': 'test'})}", seed=0)
    with pytest.raises(DataError, match="no row belongs to the 'train' split"):
        source.task("train", 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("toys", "there is no 'toys'. Valid: file, toy. Did you mean 'toy'"),
        ("toy:dificulty=2", "there is no option 'dificulty'.* Did you mean 'difficulty'"),
        ("toy:difficulty=9", "difficulty=9 is out of range"),
        ({"type": "file"}, "missing 1 required positional argument: 'path'"),
        ({"type": "file", "path": "x", "pth": "y"}, "there is no option 'pth'"),
        ({"path": "x"}, "needs a 'type'"),
    ],
)
def test_bad_specs_are_named(spec: object, message: str):
    with pytest.raises(ConfigError, match=message):
        build_source(spec, seed=0)


def test_every_epoch_of_a_file_is_shuffled_anew(tmp_path: Path):
    rows = [{**ROW, "id": str(number)} for number in range(5)]
    source = FileSource(write(tmp_path / "tasks.jsonl", *rows))
    epochs = [[task_index(source, "train", 5 * epoch + i, seed=3) for i in range(5)] for epoch in range(4)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert task_index(source, "train", 7, seed=3) == epochs[1][2]
    assert task_index(build_source("toy", 0), "train", 12345, seed=3) == 12345
