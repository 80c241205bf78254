"""Training tasks that stand among evaluation tasks."""

import json
from pathlib import Path

import pytest

from aipo_env import ConfigError, DataError, Task, ToySource, World, build_source
from aipo_env.cli import main
from aipo_env.tasks.base import TaskTable
from aipo_env.tasks.contamination import (
    ContaminationIndex,
    ContaminationReport,
    check_contamination,
    contaminated,
    held_out,
    without_contaminated,
)


def run(*arguments: str) -> int:
    return main(list(arguments))


WORDS = [f"w{number}" for number in range(40)]


def tasks(**prompts: str) -> list[Task]:
    return [
        Task(id=name, prompt=prompt, answer="1") for name, prompt in prompts.items()
    ]


def find(evaluation: str, training: str) -> bool:
    return bool(
        contaminated(
            tasks(t=training), ContaminationIndex.from_tasks(tasks(e=evaluation))
        )
    )


@pytest.mark.parametrize(
    ("evaluation", "training", "found"),
    [
        ("What is 1 + 1?", "  what is $1+1$ ", True),
        ("What is 1 + 1?", "What is 1 + 2?", False),
        ("Find \ufb01ve.", "FIND FIVE", True),
        (" ".join(WORDS[:20]), " ".join(["x", *WORDS[5:18], "y"]), True),
        (" ".join(WORDS[:20]), " ".join(["x", *WORDS[5:17], "y"]), False),
        (" ".join(WORDS[:13]), ", ".join(WORDS[:13]).upper() + " and more", True),
        (
            "求下列方程的所有实数解之和是多少",
            "已知,求下列方程的所有实数解之和是多少?",
            True,
        ),
        ("求下列方程的所有实数解", "已知,求下列方程的所有实数解?", False),
    ],
)
def test_what_counts_as_shared_text(evaluation: str, training: str, found: bool):
    assert find(evaluation, training) is found


def test_a_stock_phrase_betrays_nothing():
    stock = " ".join(WORDS[:13])
    two = ContaminationIndex.from_tasks(tasks(a=f"one {stock}", b=f"two {stock}"))
    three = ContaminationIndex.from_tasks(
        tasks(a=f"one {stock}", b=f"two {stock}", c=f"three {stock}")
    )
    again = ContaminationIndex.from_tasks(
        tasks(a=f"one {stock}", b=f"One, {stock}", c=f"ONE {stock}")
    )
    training = tasks(t=f"other {stock}")
    assert contaminated(training, two) == {"t": "b"}
    assert contaminated(training, three) == {}
    assert contaminated(training, again) == {"t": "a"}
    assert contaminated(tasks(t=f"Three {stock}!"), three) == {"t": "c"}


def test_a_source_against_sources_and_hash_lists(tmp_path: Path):
    train = TaskTable(
        "train",
        {
            "train": tasks(a="Add 1 and 2.", b="Add 3 and 4.", c="Add 5 and 6."),
            "test": [],
        },
    )
    first = TaskTable(
        "first", {"test": tasks(x="add 3 and 4"), "train": tasks(y="Add 5 and 6.")}
    )
    second = ContaminationIndex.from_tasks(tasks(z="Add 1, and 2", v="Other."))
    report = check_contamination(train, [first, second])
    assert report == ContaminationReport(
        num_train=3, num_evaluation=3, found={"b": "x", "a": "z"}
    )
    path = tmp_path / "list.json"
    second.save(path)
    assert check_contamination(train, [ContaminationIndex.load(path)]).found == {
        "a": "z"
    }


def write_tasks(path: Path, *rows: tuple[str, str, str]) -> str:
    names = ("id", "prompt", "split")
    lines = [
        json.dumps({**dict(zip(names, row, strict=True)), "answer": "1"})
        for row in rows
    ]
    path.write_text("\n".join(lines))
    return f"file:{path}"


def test_contaminated_training_tasks_are_left_out(tmp_path: Path):
    train = write_tasks(
        tmp_path / "train.jsonl",
        ("a", "Add 1 and 2.", "train"),
        ("b", "Add 3 and 4.", "train"),
        ("c", "Go.", "test"),
    )
    evaluation = write_tasks(
        tmp_path / "evaluation.jsonl", ("x", "add 3 and 4", "test")
    )
    kept = without_contaminated(build_source(train, 0), [evaluation])
    assert (
        kept.num_tasks("train"),
        kept.task("train", 0).id,
        kept.task("test", 0).id,
    ) == (1, "a", "c")
    assert kept.skipped == {"stands in held-out tasks": 1}
    assert kept.name == build_source(train, 0).name
    path = tmp_path / "hashes.json"
    assert run("tasks", evaluation, "--hashes", str(path)) == 0
    assert isinstance(held_out(str(path)), ContaminationIndex)
    assert (
        without_contaminated(build_source(train, 0), [str(path)]).num_tasks("train")
        == 1
    )
    same = write_tasks(tmp_path / "same.jsonl", ("b", "Add 3 and 4", "train"))
    with pytest.raises(
        DataError, match="every training task stands among .*Train on another source"
    ):
        without_contaminated(build_source(same, 0), [evaluation])


def test_the_command_counts_tasks_and_names_contaminated_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    train = write_tasks(
        tmp_path / "t.jsonl",
        ("a", "Add 1 and 2.", "train"),
        ("b", "Add 3 and 4.", "train"),
    )
    clean = write_tasks(tmp_path / "c.jsonl", ("x", "Other.", "test"))
    assert run("tasks", train, "--held-out", clean) == 0
    assert (
        capsys.readouterr().out
        == "train  2\ntest   0\n0 of 2 training tasks stand among 1 held out\n"
    )
    dirty = write_tasks(tmp_path / "d.jsonl", ("y", "add 3 and 4", "test"))
    assert run("tasks", train, "--held-out", clean, dirty) == 2
    out, fault = capsys.readouterr()
    assert out.endswith("b stands in y\n")
    assert (
        fault
        == "aipo: 1 of 2 training tasks stand among 2 held out. `aipo train --held-out`"
        " leaves them out.\n"
    )


def test_a_hash_list_holds_no_text(tmp_path: Path):
    path = tmp_path / "list.json"
    ContaminationIndex.from_tasks(tasks(e=" ".join(WORDS))).save(path)
    row = json.loads(path.read_text())
    assert (row["num_words"], row["num_tasks"], len(row["hashes"])) == (13, 1, 1 + 28)
    assert all(
        len(key) == 16 and set(key) <= set("0123456789abcdef") for key in row["hashes"]
    )
    assert "w1" not in path.read_text()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"{", "Expecting property name"),
        (b"[1]", "list indices must be integers"),
        (b'{"num_words": 8}', "of 8 words in a row, not 13"),
        (b'{"num_words": 13, "num_tasks": 1}', "'hashes'"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff", "codec"),
    ],
)
def test_what_is_no_hash_list_is_named(tmp_path: Path, content: bytes, fault: str):
    path = tmp_path / "list.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"list\.json: no hash list .*{fault}"):
        ContaminationIndex.load(path)
    with pytest.raises(DataError, match="no hash list"):
        ContaminationIndex.load(tmp_path / "none.json")


def test_nothing_to_compare_is_no_clean_bill():
    train = TaskTable("only training", {"train": tasks(a="Add 1 and 2.")})
    with pytest.raises(
        DataError, match="only training: no row belongs to the 'test' split"
    ):
        check_contamination(train, [train])
    with pytest.raises(
        DataError, match="only tests: no row belongs to the 'train' split"
    ):
        check_contamination(
            TaskTable("only tests", {"test": tasks(a="Add 1 and 2.")}), []
        )


def test_an_endless_source_is_refused():
    with pytest.raises(ConfigError, match="is endless"):
        check_contamination(ToySource(World(seed=0)), [])
