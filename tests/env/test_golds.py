"""Tasks whose gold answer cannot be read."""

import logging

import pytest

from aipo_env import DataError, Task, TaskTable, ToySource, World, build_scenario
from aipo_env.verifiers.choice_golds import gold_letter
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
    rows = TaskTable("mine", {"train": tuple(GOOD)})
    assert without_bad_golds(rows) is rows
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


def choice(name: str, answer: str, choices: tuple[str, ...] = ("yes", "no", "maybe")):
    return Task(id=name, prompt=name, answer=answer, kind="choice", choices=choices)


@pytest.mark.parametrize(
    ("gold", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("B.", "B"),
        ("B) no", "B"),
        ("option B", "B"),
        ("no", "B"),
        ("$\\text{no}$", "B"),
        ("0", "A"),
        ("2", "C"),
    ],
)
def test_golds_of_choices_become_letters(gold: str, letter: str):
    # A number 0 in the source says that the first option is 0.
    source = TaskTable("mine", {"train": [choice("a", gold), choice("b", "0")]})
    kept = without_bad_golds(source)
    assert [task.answer for task in kept.tasks["train"]] == [letter, "A"]
    assert kept.skipped == {}


def test_numbers_count_from_1_where_one_is_the_number_of_options():
    source = TaskTable("mine", {"train": [choice("a", "1"), choice("b", "3")]})
    assert [task.answer for task in without_bad_golds(source).tasks["train"]] == [
        "A",
        "C",
    ]


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        ("y", "'y' is no letter of its 3 choices, nor the text or the number of one"),
        ("D", "'D' is no letter of its 3 choices"),
        ("A or B", "'A or B' is no letter"),
        ("B) yes", "'B\\) yes' is no letter"),
        ("1", "'1' may count options from 0 or from 1; write letters"),
        ("7", "'7' may count"),
    ],
)
def test_choice_golds_that_name_no_option_are_left_out(gold: str, reason: str):
    source = TaskTable("mine", {"train": [choice("a", gold), choice("b", "A")]})
    kept = without_bad_golds(source)
    assert [task.id for task in kept.tasks["train"]] == ["b"]
    assert kept.skipped == {"gold answer that cannot be read": 1}
    with pytest.raises(DataError, match=f"mine: no 'train' task .*: {reason}"):
        without_bad_golds(TaskTable("mine", {"train": [choice("a", gold)]}))


def test_options_that_are_numbers_are_meant_by_their_text():
    tasks = [choice("a", "3", ("1", "2", "3", "4")), choice("b", "0", ("5", "6", "0"))]
    kept = without_bad_golds(TaskTable("mine", {"train": tasks}))
    assert [task.answer for task in kept.tasks["train"]] == ["C", "C"]


NUMBERS = ("1", "2", "3", "4")


@pytest.mark.parametrize(
    ("gold", "choices", "reason"),
    [
        ("2", NUMBERS, "'2' may be an option's text or its number"),
        ("A", ("O", "A", "B", "AB"), "'A' may be an option's letter or its text"),
    ],
)
def test_golds_that_may_name_two_options_are_left_out(
    gold: str, choices: tuple[str, ...], reason: str
):
    # The second task says that numbers count from 0.
    tasks = [choice("a", gold, choices), choice("b", "0")]
    kept = without_bad_golds(TaskTable("mine", {"train": tasks}))
    assert [task.id for task in kept.tasks["train"]] == ["b"]
    with pytest.raises(ValueError, match=reason):
        gold_letter(gold, choices, 0)


def test_a_text_that_is_its_own_number_is_no_doubt():
    assert gold_letter("2", NUMBERS, 1) == "B"
    assert gold_letter("B", ("A", "B"), None) == "B"


def test_they_are_named(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        without_bad_golds(TaskTable("mine", {"train": [*GOOD, *BAD]}))
    assert caplog.messages == [
        "mine: 2 tasks are left out, for no reply could equal their gold answer: d"
        " ('9^{9^{9^9}}': it holds a tower of exponents); e ('\\\\frac{1}{': it cannot"
        " be read: \\frac{1}{)"
    ]


def test_golds_may_be_marked_like_the_answers_of_replies():
    marked = [
        task("f", "So \\fbox{7}."),
        task("g", "$\\boxed 5$"),
        task("h", "3 + 4 = 7\n#### 7"),
    ]
    open_box = task("i", "\\boxed{3} or \\boxed{")
    kept = without_bad_golds(TaskTable("mine", {"train": [*marked, open_box]}))
    assert kept.num_tasks("train") == 3
    assert kept.skipped == {"gold answer that cannot be read": 1}
