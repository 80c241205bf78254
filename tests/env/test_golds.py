"""Tasks whose gold answer cannot be read."""

import pytest

from aipo_env import DataError, Task, TaskTable, ToySource, World, build_scenario
from aipo_env.verifiers.golds import without_bad_golds


def task(name: str, answer: str, kind: str = "math") -> Task:
    choices = ("yes", "no") if kind == "choice" else ()
    return Task(id=name, prompt=name, answer=answer, kind=kind, choices=choices)


GOOD = [task("a", "12"), task("b", "\\frac{1}{2}"), task("c", "A", "choice")]
BAD = [task("d", "9^{9^{9^9}}"), task("e", "\\frac{1}{")]


def test_they_are_left_out_and_counted():
    source = TaskTable(
        "mine", {"train": [*GOOD, *BAD], "test": [*GOOD, BAD[0]]}, {"too long": 1}
    )
    kept = without_bad_golds(source)
    assert [kept.task("train", index).id for index in range(3)] == ["a", "b", "c"]
    assert (kept.num_tasks("train"), kept.num_tasks("test")) == (3, 3)
    assert kept.skipped == {"too long": 1, "gold answer that cannot be read": 2}
    assert build_scenario(source, "none").source.num_tasks("train") == 3
    assert (
        build_scenario(source, "none", verifier="choice").source.num_tasks("train") == 5
    )


def test_a_source_without_any_is_the_same():
    source = TaskTable("mine", {"train": GOOD})
    assert without_bad_golds(source) is source
    endless = ToySource(World(seed=0))
    assert without_bad_golds(endless) is endless


def test_a_split_of_nothing_else_is_an_error():
    with pytest.raises(
        DataError,
        match=(
            r"mine: no 'test' task has a gold answer that can be read, for example '9"
        ),
    ):
        without_bad_golds(TaskTable("mine", {"train": GOOD, "test": BAD[:1]}))
