"""The generated tasks that ship: whole, balanced, solved by their references. How
mathematics is solved stands in test_math_tasks.py.
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from aipo_env import DataError, Task, TaskTable, build_scenario, run_sync
from aipo_env.sandboxes.process import ProcessSandbox
from aipo_env.tasks.file import FileSource
from aipo_env.verifiers.choice import ChoiceVerifier
from aipo_env.verifiers.leaks.check import gives_away
from aipo_env.verifiers.leaks.gold import Gold
from aipo_env.verifiers.unit_tests import CodeVerifier
from envs_data.prepare import code_tasks, math_tasks, science_tasks

MAKERS = {"code": code_tasks, "math": math_tasks, "science": science_tasks}


def tasks(name: str, split: str) -> list[Task]:
    source = FileSource(MAKERS[name].FOLDER / "tasks.jsonl")
    return [source.task(split, index) for index in range(source.num_tasks(split))]


@pytest.mark.parametrize("name", MAKERS)
def test_the_files_are_what_their_scripts_write(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shipped = MAKERS[name].FOLDER / "tasks.jsonl"
    monkeypatch.setattr(MAKERS[name], "FOLDER", tmp_path)
    MAKERS[name].main()
    assert (tmp_path / "tasks.jsonl").read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize(
    ("name", "half"), [("code", 36), ("math", 180), ("science", 40)]
)
def test_the_splits_are_halves_that_share_no_problem(name: str, half: int):
    train, test = tasks(name, "train"), tasks(name, "test")
    assert (len(train), len(test)) == (half, half)
    assert (
        len({task.prompt for task in train + test})
        == len({task.id for task in train + test})
        == 2 * half
    )
    assert {(task.source, task.licence) for task in train + test} == {
        (f"aipo-{name}", "Apache-2.0")
    }


def test_golds_of_a_source_that_is_checked_are_not_read_again():
    unreadable = {"train": [Task(id="a", prompt="b", answer="\\boxed{}")]}
    checked = TaskTable("mine", unreadable, is_checked=True)
    assert build_scenario(checked).source is checked
    with pytest.raises(DataError, match="no 'train' task has a gold answer"):
        build_scenario(TaskTable("mine", unreadable))


@pytest.mark.parametrize("name", MAKERS)
def test_every_task_has_notes_for_terms_and_a_hint(name: str):
    for task in tasks(name, "train") + tasks(name, "test"):
        assert task.meta["hint"].endswith((".", "?")), task.id
        assert task.meta["notes"], task.id
        assert all(
            text and text != term for term, text in task.meta["notes"].items()
        ), task.id


@pytest.mark.parametrize("split", ["train", "test"])
def test_science_options_are_balanced_and_distinct(split: str):
    found = tasks("science", split)
    assert Counter(task.answer for task in found) == {
        "A": 10,
        "B": 10,
        "C": 10,
        "D": 10,
    }
    for task in found:
        assert len({choice.casefold() for choice in task.choices}) == 4, task.id
        assert all(
            f"\n{letter}) {choice}\n" in task.prompt
            for letter, choice in zip("ABCD", task.choices, strict=True)
        )


@pytest.mark.parametrize(
    ("task_id", "right"),
    [
        ("kinetic-energy-1", "50 J"),
        ("power-3", "1150 W"),
        ("free-fall-0", "45 m"),
        ("wave-2", "320 m/s"),
        ("density-0", "2.7 g/cm³"),
        ("parallel-2", "6 Ω"),
        ("collision-0", "4 m/s"),
        ("heat-1", "252 kJ"),
        ("moles-3", "0.25 mol"),
        ("ph-1", "10"),
        ("ph-0", "3"),
        ("dilution-2", "1 mol/L"),
        ("ion-0", "18"),
        ("ion-1", "10"),
        ("ion-2", "36"),
        ("ion-3", "23"),
        ("warming-0", "8 L"),
        ("transcription-0", "5'-AUGCCU-3'"),
        ("cross-2", "1/16"),
        ("growth-0", "6400"),
        ("coding-0", "303"),
        ("magnification-1", "1200×"),
        ("organelle-2", "Chloroplast"),
        ("unit-3", "Volt"),
    ],
)
def test_science_golds_worked_by_hand(task_id: str, right: str):
    task = next(
        t
        for t in tasks("science", "train") + tasks("science", "test")
        if t.id == f"science-{task_id}"
    )
    assert task.choices["ABCD".index(task.answer)] == right


def test_science_answers_are_accepted_by_letter_and_by_text():
    for task in tasks("science", "train") + tasks("science", "test"):
        text = task.choices["ABCD".index(task.answer)]
        for said in (
            f"\\boxed{{{task.answer}}}",
            f"Answer: {task.answer}) {text}",
            f"\\boxed{{{text}}}",
        ):
            assert run_sync(ChoiceVerifier().verify(task, said)).status == "correct", (
                task.id,
                said,
            )


@pytest.mark.parametrize("name", ["code", "science"])
def test_neither_notes_nor_hints_give_an_answer_away(name: str):
    for task in tasks(name, "train") + tasks(name, "test"):
        notes = [f"{term}: {text}" for term, text in task.meta["notes"].items()]
        for reply in [*notes, task.meta["hint"]]:
            assert not run_sync(gives_away(Gold.of(task), reply, "")), task.id


def test_code_tasks_are_tested_and_show_no_hidden_test():
    for task in tasks("code", "train") + tasks("code", "test"):
        assert task.tests
        assert (len(task.tests.public), len(task.tests.hidden), task.answer) == (
            2,
            6,
            "",
        )
        outputs = [
            json.dumps(test.get("output", test.get("expected")))
            for test in task.tests.hidden
        ]
        assert len(set(outputs)) > 1, f"{task.id}: a constant passes"
        given = [
            json.dumps(test.get("input", test.get("args")))
            for test in task.tests.public + task.tests.hidden
        ]
        assert len(set(given)) == 8, task.id


def test_no_code_task_shows_only_empty_results():
    for task in tasks("code", "train") + tasks("code", "test"):
        assert task.tests
        assert any(
            test.get("output") or test.get("expected") not in ([], "", None)
            for test in task.tests.public
        ), task.id


@pytest.mark.parametrize("name", ["ion", "free-fall", "ph", "moles"])
def test_the_four_questions_of_a_family_have_different_golds(name: str):
    found = [
        t
        for t in tasks("science", "train") + tasks("science", "test")
        if t.id.startswith(f"science-{name}-")
    ]
    assert (
        len({task.choices["ABCD".index(task.answer)] for task in found})
        == len(found)
        == 4
    )


@pytest.mark.parametrize(
    ("task_id", "call", "expected"),
    [
        ("collatz-0", [27], 111),
        ("collatz-1", [27], 9232),
        ("runs-0", ["aaab"], "a3b1"),
        ("brackets-1", ["([)]"], -1),
        ("zeckendorf-0", [100], [89, 8, 3]),
        ("josephus-0", [5], 1),
        ("intervals-1", [[[1, 4], [4, 5], [7, 9]]], 6),
        ("roman-0", [[1994]], ["MCMXCIV"]),
        ("totient-0", [36], 12),
        ("moving-average-0", [[1, 2, 4]], [1.5, 3.0]),
    ],
)
def test_reference_functions_worked_by_hand(
    task_id: str, call: list[object], expected: object
):
    family = next(
        f for f in code_tasks.FAMILIES if f.name == task_id.rpartition("-")[0]
    )
    assert (
        code_tasks.answer(family, code_tasks.reference(f"code-{task_id}"), call)
        == expected
    )


@pytest.mark.parametrize(
    ("task_id", "given", "expected"),
    [
        ("digital-root-0", "2\n493193 18\n", "11\n"),
        ("caesar-0", "xyz XYZ!\n", "abc ABC!\n"),
        ("caesar-2", "fgh\n", "abc\n"),
        ("harshad-0", "10 21\n", "5\n"),
        ("gray-0", "4\n1 2 3 4\n", "1 3 2 6\n"),
        ("gray-1", "4\n1 3 2 6\n", "1 2 3 4\n"),
        ("luhn-0", "79927398713\n79927398710\n", "valid\ninvalid\n"),
        ("luhn-1", "7992739871\n", "3\n"),
        ("hamming-0", "karolin kathrin\nab ba\n", "5\n"),
        ("spiral-0", "2 3\n1 2 3\n4 5 6\n", "1 2 3 6 5 4\n"),
        ("spiral-1", "2 3\n1 2 3\n4 5 6\n", "1 4 5 6 3 2\n"),
        ("aliquot-0", "3\n6 12 9\n", "perfect\nabundant\ndeficient\n"),
        ("means-0", "1 2 4\n", "1.7142857142857142\n"),
    ],
)
def test_reference_programs_worked_by_hand(task_id: str, given: str, expected: str):
    family = next(
        f for f in code_tasks.FAMILIES if f.name == task_id.rpartition("-")[0]
    )
    assert (
        code_tasks.answer(family, code_tasks.reference(f"code-{task_id}"), given)
        == expected
    )


SANDBOXED = pytest.mark.skipif(
    sys.platform != "linux", reason="the process sandbox needs Linux"
)


def statuses(found: list[Task], solved: list[Task]) -> list[str]:
    """What the reference solutions of `solved` make of the tests of `found`."""

    async def all_verdicts() -> list[str]:
        verifier = CodeVerifier(ProcessSandbox())
        texts = [f"```python\n{code_tasks.reference(task.id)}```" for task in solved]
        works = [
            verifier.verify(task, text) for task, text in zip(found, texts, strict=True)
        ]
        return [verdict.status for verdict in await asyncio.gather(*works)]

    return run_sync(all_verdicts())


@SANDBOXED
def test_a_reference_of_every_family_passes_its_hidden_tests():
    found = tasks("code", "train")[:18]
    assert statuses(found, found) == ["correct"] * 18


@SANDBOXED
def test_the_reference_of_another_problem_of_the_family_fails():
    found = tasks("code", "train")
    assert statuses(found[:18], found[18:]) == ["wrong"] * 18


@SANDBOXED
@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_reference_passes_and_no_other_of_its_family_does(split: str):
    found = tasks("code", split)
    assert statuses(found, found) == ["correct"] * 36
    assert statuses(found, found[18:] + found[:18]) == ["wrong"] * 36
