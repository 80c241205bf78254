"""Files as others write them: columns, ids, what is held out, several sources."""

import csv
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aipo_env import (
    ConfigError,
    DataError,
    FileSource,
    TaskTable,
    build_scenario,
    build_source,
    check_task_source,
    find_dataset,
    is_id,
    source_spec,
    task_index,
    trained_on,
)
from aipo_env.cli import main
from aipo_env.tasks.base import readings_per_epoch
from aipo_env.tasks.data_folder import split_by_name
from aipo_env.verifiers.golds import without_bad_golds

FEW = [{"question": f"{number} + 1?", "result": number + 1} for number in range(9)]
MANY = [{"question": f"{number} + 1?", "result": number + 1} for number in range(20)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ids(source: Any, split: str) -> list[str]:
    return [task.id for task in source.tasks[split]]


def prompts(source: Any, split: str) -> set[str]:
    return {task.prompt for task in source.tasks[split]}


def sizes(source: Any) -> tuple[int | None, int | None]:
    return source.num_tasks("train"), source.num_tasks("test")


def test_columns_of_any_name(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", MANY)
    source = build_source(f"file:{path},prompt=question,answer=result", seed=0)
    assert sizes(source) == (18, 2)
    answers = {
        task.prompt: task.answer for part in source.tasks.values() for task in part
    }
    assert answers["4 + 1?"] == "5"
    assert len(answers) == 20


def test_usual_columns_need_not_be_named(tmp_path: Path):
    rows = [{"problem": "1 + 1?", "expected_answer": 2.0, "level": 3}]
    task = FileSource(write(tmp_path / "mine.jsonl", rows)).task("train", 0)
    assert (task.prompt, task.answer, dict(task.meta)) == ("1 + 1?", "2", {"level": 3})


def test_paths_lead_into_objects_and_lists(tmp_path: Path):
    rows = [
        {
            "prompt": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "1 + 1?"},
            ],
            "reward_model": {"ground_truth": "2"},
        }
    ]
    path = write(tmp_path / "mine.jsonl", rows)
    source = build_source(
        f"file:{path},prompt=prompt.1.content,answer=reward_model.ground_truth", seed=0
    )
    assert source.task("train", 0).prompt == "1 + 1?"
    assert source.task("train", 0).answer == "2"
    # Two messages are no problem: neither is dropped unseen.
    with pytest.raises(
        DataError, match=r"the prompt has 2 messages.*prompt=prompt\.1\.content"
    ):
        FileSource(path)


def test_one_message_is_the_problem(tmp_path: Path):
    rows = [{"prompt": [{"role": "user", "content": "1 + 1?"}], "answer": 2}]
    task = FileSource(write(tmp_path / "mine.jsonl", rows)).task("train", 0)
    assert (task.prompt, task.answer) == ("1 + 1?", "2")


def test_ids_are_made_where_there_are_none(tmp_path: Path):
    first = FileSource(
        write(tmp_path / "a.jsonl", MANY), prompt="question", answer="result"
    )
    # Neither the order nor the file's name changes them.
    shuffled = random.Random(0).sample(MANY, len(MANY))
    again = FileSource(
        write(tmp_path / "b.jsonl", shuffled), prompt="question", answer="result"
    )
    assert set(ids(first, "train")) == set(ids(again, "train"))
    assert set(ids(first, "test")) == set(ids(again, "test"))
    assert all(len(task_id) == 16 for task_id in ids(first, "train"))


def test_ids_may_be_numbers_in_a_column_of_any_name(tmp_path: Path):
    rows = [{**row, "uid": number} for number, row in enumerate(FEW)]
    path = write(tmp_path / "mine.jsonl", rows)
    source = FileSource(path, prompt="question", answer="result", id="uid")
    assert ids(source, "train") == [str(number) for number in range(9)]


def test_a_problem_that_stands_twice_is_kept_once(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", [*FEW, FEW[2]])
    source = FileSource(path, prompt="question", answer="result")
    assert (sizes(source), source.skipped) == ((9, 0), {"repeated": 1})
    write(path, [*FEW, {**FEW[2], "result": "7"}])
    with pytest.raises(
        DataError, match=r"line 10: its problem stands in .*line 3 too, with another"
    ):
        FileSource(path, prompt="question", answer="result")


@pytest.mark.parametrize(
    ("num_rows", "num_held_out"),
    [(1, 0), (9, 0), (10, 1), (11, 2), (20, 2), (100, 10), (101, 11)],
)
def test_a_tenth_of_the_rows_is_held_out(
    tmp_path: Path, num_rows: int, num_held_out: int
):
    rows = [{"prompt": f"{number}?", "answer": "1"} for number in range(num_rows)]
    source = FileSource(write(tmp_path / "mine.jsonl", rows))
    assert sizes(source) == (num_rows - num_held_out, num_held_out)
    assert not prompts(source, "train") & prompts(source, "test")


@pytest.mark.parametrize(
    ("test", "expected"), [(0.2, (7, 2)), (0, (9, 0)), (1, (0, 9)), (0.5, (4, 5))]
)
def test_the_share_that_is_held_out_may_be_said(
    tmp_path: Path, test: float, expected: tuple[int, int]
):
    path = write(tmp_path / "mine.jsonl", FEW)
    spec = f"file:{path},prompt=question,answer=result,test={test}"
    assert sizes(build_source(spec, seed=0)) == expected


def test_a_column_says_what_is_held_out(tmp_path: Path):
    rows = [
        {**row, "part": "test" if number < 3 else "train"}
        for number, row in enumerate(MANY)
    ]
    path = write(tmp_path / "mine.jsonl", rows)
    source = FileSource(path, prompt="question", answer="result", split="part")
    assert sizes(source) == (17, 3)
    with pytest.raises(ConfigError, match="test=0.5 beside rows that say themselves"):
        FileSource(path, prompt="question", answer="result", split="part", test=0.5)
    with pytest.raises(
        DataError, match="line 1: nothing stands in column 'prt'.*'part'"
    ):
        FileSource(path, prompt="question", answer="result", split="prt")
    rows[1]["part"] = "holdout"
    write(path, rows)
    with pytest.raises(DataError, match="line 2: field 'part' is 'holdout'; use"):
        FileSource(path, prompt="question", answer="result", split="part")


def test_what_is_not_marked_is_trained_on(tmp_path: Path):
    rows = [*FEW, {**MANY[15], "split": "test"}]
    source = FileSource(
        write(tmp_path / "mine.jsonl", rows), prompt="question", answer="result"
    )
    assert sizes(source) == (9, 1)
    assert prompts(source, "test") == {"15 + 1?"}


def test_the_first_rows_alone(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", MANY)
    source = FileSource(path, prompt="question", answer="result", limit=12)
    assert sizes(source) == (10, 2)
    assert "12 + 1?" not in prompts(source, "train") | prompts(source, "test")


def test_a_folder_of_files_named_by_split(tmp_path: Path):
    write(tmp_path / "data" / "gsm_train.jsonl", MANY[:12])
    write(tmp_path / "data" / "gsm_test.jsonl", MANY[12:])
    (tmp_path / "README.md").write_text("About.")
    (tmp_path / "dataset_info.json").write_text("{}")
    source = build_source(f"file:{tmp_path},prompt=question,answer=result", seed=0)
    assert sizes(source) == (12, 8)


def test_a_folder_of_files_that_say_nothing(tmp_path: Path):
    write(tmp_path / "part-0.jsonl", MANY[:12])
    write(tmp_path / "part-1.jsonl", MANY[12:])
    source = FileSource(tmp_path, prompt="question", answer="result")
    assert sizes(source) == (18, 2)


def test_the_same_data_in_two_forms_is_read_once(tmp_path: Path):
    write(tmp_path / "tasks.jsonl", FEW)
    pq.write_table(pa.Table.from_pylist(FEW), tmp_path / "tasks.parquet")
    source = FileSource(tmp_path, prompt="question", answer="result")
    assert (sizes(source), source.skipped) == ((9, 0), {})


def test_a_folder_without_tasks_says_what_is_there(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no file of tasks.*files there: notes\.txt"):
        FileSource(tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("gsm8k_test.jsonl", "test"),
        ("validation.csv", "test"),
        ("Train.JSONL", "train"),
        ("test/part-0.jsonl", "test"),
        ("train_and_test.jsonl", None),
        ("contest.jsonl", None),
        ("problems.jsonl", None),
    ],
)
def test_splits_by_names_of_files(name: str, split: str | None):
    assert split_by_name(name) == split


def test_csv_and_parquet_and_a_list(tmp_path: Path):
    with (tmp_path / "mine.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["question", "result"])
        writer.writeheader()
        writer.writerows(MANY)
    pq.write_table(pa.Table.from_pylist(MANY), tmp_path / "mine.parquet")
    (tmp_path / "mine.json").write_text(json.dumps(MANY, indent=1))
    tables = [
        FileSource(tmp_path / name, prompt="question", answer="result").tasks
        for name in ("mine.csv", "mine.parquet", "mine.json")
    ]
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]["test"]) == 2


def test_other_columns_are_kept_for_verifiers(tmp_path: Path):
    rows = [
        {"question": "1 + 1?", "answer": "2", "worked": "1 + 1 = 2", "licence": "MIT"}
    ]
    task = FileSource(write(tmp_path / "mine.jsonl", rows)).task("train", 0)
    assert (dict(task.meta), task.licence) == ({"worked": "1 + 1 = 2"}, "MIT")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "p"}, "line 1: field 'answer' is missing.*Columns: none"),
        (
            {"q": "p", "a": "1"},
            "line 1: field 'prompt' is missing.*prompt=COLUMN,answer=COLUMN",
        ),
        ({"prompt": "p", "answer": None}, "field 'answer' is missing"),
        ({"prompt": "p", "answer": ["1"]}, "field 'answer' must be non-empty text"),
        ({"prompt": "p", "answer": True}, "field 'answer' must be non-empty text"),
        ({"prompt": "p", "answer": "1", "chioces": []}, "Did you mean 'choices'"),
        ({"prompt": "p", "answer": "1", "id": ""}, "field 'id' must be non-empty"),
        ({"prompt": 5, "answer": "1", "id": {}}, "field 'id' must be non-empty text"),
        ({"prompt": {}, "answer": "1"}, "field 'prompt' must be non-empty text"),
        ({"prompt": [], "answer": "1"}, "field 'prompt' must be non-empty text"),
        ({"prompt": [{"role": "user"}], "answer": "1"}, "field 'prompt' must be"),
    ],
)
def test_rows_that_are_no_tasks(tmp_path: Path, row: dict, message: str):
    with pytest.raises(DataError, match=message):
        FileSource(write(tmp_path / "mine.jsonl", [row]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "prompt=qestion",
            "nothing stands in column 'qestion'.*Did you mean 'question'",
        ),
        ("answer=solution", "nothing stands in column 'solution', which answer= names"),
        ("test=1.5", "test=1.5 must be a share of the rows, from 0 to 1"),
        ("test=half", "test='half' must be a share"),
        ("test=NaN", "test=nan must be a share"),
        ("limit=-1", "limit=-1 must be a whole number"),
        ("limit=ten", "limit='ten' must be a whole number"),
        ("column=x", "there is no option 'column'"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: str, message: str):
    path = write(tmp_path / "mine.jsonl", MANY)
    with pytest.raises((ConfigError, DataError), match=message):
        build_source(f"file:{path},{options}", seed=0)


def test_an_empty_file_is_no_source(tmp_path: Path):
    with pytest.raises(DataError, match="there is no row in it"):
        FileSource(write(tmp_path / "mine.jsonl", []))


def test_few_rows_are_never_called_held_out(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", FEW)
    source = FileSource(path, prompt="question", answer="result")
    with pytest.raises(
        DataError, match=r"train 9, test 0.*test=0\.2 holds out a fifth"
    ):
        source.task("test", 0)


def test_the_kit_finds_no_fault_in_a_file(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", MANY)
    check_task_source(f"file:{path},prompt=question,answer=result")


def test_a_problem_stays_on_one_side_however_it_is_set(tmp_path: Path):
    rows = [
        {"id": f"{number}{end}", "prompt": f"What is {number}+1?{end}", "answer": "1"}
        for number in range(50)
        for end in ("", " ", "\n")
    ]
    source = FileSource(write(tmp_path / "mine.jsonl", rows), test=0.3)
    bare = [
        {task.prompt.strip() for task in source.tasks[split]}
        for split in ("train", "test")
    ]
    assert not bare[0] & bare[1]
    assert trained_on(source, source) == []


@pytest.mark.parametrize(
    ("number", "text"), [(2.0, "2"), (1e23, "1e+23"), (0.5, "0.5"), (-3, "-3")]
)
def test_numbers_are_written_as_they_are(tmp_path: Path, number: float, text: str):
    path = write(tmp_path / "mine.jsonl", [{"prompt": "p", "answer": number}])
    assert FileSource(path).task("train", 0).answer == text


@pytest.mark.parametrize(
    "name", ["heldout", "held_out", "hold-out", "testing", "tests", "evaluation", "dev"]
)
def test_held_out_files_by_other_names(tmp_path: Path, name: str):
    write(tmp_path / "train.jsonl", MANY[:12])
    write(tmp_path / f"{name}.jsonl", MANY[12:])
    assert sizes(FileSource(tmp_path, prompt="question", answer="result")) == (12, 8)


def test_a_folder_of_which_some_files_say_nothing_is_named(tmp_path: Path):
    write(tmp_path / "train.jsonl", MANY[:12])
    write(tmp_path / "more.jsonl", MANY[12:])
    with pytest.raises(DataError, match=r"more\.jsonl says none, or both"):
        FileSource(tmp_path)


def test_a_limit_is_of_each_split_of_a_folder(tmp_path: Path):
    write(tmp_path / "a_test.jsonl", MANY[:10])
    write(tmp_path / "b_train.jsonl", MANY[10:])
    source = FileSource(tmp_path, prompt="question", answer="result", limit=4)
    assert sizes(source) == (4, 4)


def test_ids_that_begin_anew_in_each_file_of_a_folder(tmp_path: Path):
    for split in ("train", "test"):
        rows = [{"id": n, "prompt": f"{split} {n}", "answer": "1"} for n in range(3)]
        write(tmp_path / f"{split}.jsonl", rows)
    source = FileSource(tmp_path)
    assert sizes(source) == (3, 3)
    check_task_source(source)


def test_an_empty_cell_is_none(tmp_path: Path):
    path = tmp_path / "mine.csv"
    path.write_text("prompt,answer,split,id,note\n1+1?,2,,,\n2+2?,4,test,b,x\n")
    source = FileSource(path)
    assert sizes(source) == (1, 1)
    assert ids(source, "test") == ["b"]
    path.write_text("prompt,answer\n1+1?,\n")
    with pytest.raises(DataError, match="row 1: field 'answer' is missing"):
        FileSource(path)


# Several sources.


def two_files(tmp_path: Path) -> tuple[Path, Path]:
    large = [{"prompt": f"large {number}", "answer": "1"} for number in range(100)]
    small = [{"prompt": f"small {number}", "answer": "2"} for number in range(20)]
    return (
        write(tmp_path / "large.jsonl", large),
        write(tmp_path / "small.jsonl", small),
    )


def test_several_sources_one_after_another(tmp_path: Path):
    large, small = two_files(tmp_path)
    source = build_source(f"file:{large} + file:{small}", seed=0)
    assert sizes(source) == (108, 12)
    assert {task.source for task in source.tasks["train"]} == {
        "large.jsonl",
        "small.jsonl",
    }
    assert source.task("train", 0).id.startswith("large.jsonl/")


def test_weights_are_shares_of_an_epoch(tmp_path: Path):
    large, small = two_files(tmp_path)
    source = build_source(f"0.75*{large} + 0.25*{small}", seed=0)
    assert sizes(source) == (108, 12)
    for epoch in range(2):
        indices = [
            task_index(source, "train", 120 * epoch + at, 0) for at in range(120)
        ]
        origins = Counter(source.task("train", index).source for index in indices)
        # The large one once, the small one so often that it is a quarter.
        assert origins == {"large.jsonl": 90, "small.jsonl": 30}
        assert set(indices) == set(range(108))
    # What is held out is measured once each.
    test = [task_index(source, "test", at, 0) for at in range(12)]
    assert sorted(test) == list(range(12))


def test_over_epochs_all_tasks_of_a_source_are_read_as_often(tmp_path: Path):
    large, small = two_files(tmp_path)
    source = build_source(f"0.7*{large} + 0.3*{small}", seed=0)
    num_readings = readings_per_epoch(source)
    counts = Counter(
        task_index(source, "train", at, seed=3) for at in range(7 * num_readings)
    )
    of_small = [counts[index] for index in range(90, 108)]
    assert max(of_small) - min(of_small) <= 1
    assert {counts[index] for index in range(90)} == {7}


def test_json_stands_in_a_mixture_and_weights_within_one_do_not(tmp_path: Path):
    large, small = two_files(tmp_path)
    spec = json.dumps({"type": "file", "path": str(small), "limit": 12})
    source = build_source(f"0.5*{large} + 0.5*{spec}", seed=0)
    assert list(source.weights) == ["large.jsonl", "small.jsonl"]
    named = build_source(f"{large},limit=50 + {small}", seed=0)
    assert {task.source for task in named.tasks["train"]} == {
        "large.jsonl",
        "small.jsonl",
    }
    inner = {"type": "mix", "sources": {f"file:{large}": 1, f"file:{small}": 2}}
    with pytest.raises(ConfigError, match="is a mixture with weights itself"):
        build_source({"type": "mix", "sources": [inner, "shipped:math"]}, seed=0)


def test_weights_in_json(tmp_path: Path):
    large, small = two_files(tmp_path)
    spec = {"type": "mix", "sources": {f"file:{large}": 3, f"file:{small}": 1}}
    text = build_source(f"3*{large} + 1*{small}", seed=0)
    other = build_source(spec, seed=0)
    indices = [task_index(text, "train", at, seed=5) for at in range(120)]
    assert indices == [task_index(other, "train", at, seed=5) for at in range(120)]


def test_weights_stay_where_tasks_are_left_out(tmp_path: Path):
    large, small = two_files(tmp_path)
    bad = {"prompt": "bad", "answer": "no number at all, but a sentence of words."}
    with large.open("a") as file:
        file.write(json.dumps(bad) + "\n")
    source = without_bad_golds(build_source(f"3*{large} + 1*{small}", seed=0))
    assert source.weights == {"large.jsonl": 3.0, "small.jsonl": 1.0}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("0.5*{a} + {b}", "some sources in .* have a weight and some have none"),
        ("x*{a} + 0.5*{b}", "'x' in .* is no weight"),
        ("0*{a} + 1*{b}", "weight 0.0 of .* must be a positive number"),
        ("nan*{a} + 1*{b}", "weight nan of .* must be a positive number"),
        ("-1*{a} + 1*{b}", "must be a positive number"),
        ("{a} + {a}", "stands twice"),
        ("{a} + toy", "'toy' is endless"),
        ("1e-9*{a} + 1*{b}", "by these weights an epoch would have"),
        ("1*{a},test=1 + 1*{b}", "has a weight and no training task"),
        ({"type": "mix", "sources": ["{a}"]}, "two or more"),
        ({"type": "mix", "sources": {}}, "must be an object of weights"),
        ({"type": "mix", "sources": "{a}"}, "must be an object of weights"),
        ({"type": "mix"}, "sources"),
    ],
)
def test_mixtures_that_do_not_fit(tmp_path: Path, spec: Any, message: str):
    large, small = two_files(tmp_path)
    text = (
        json.dumps(spec).replace("{a}", f"file:{large}").replace("{b}", f"file:{small}")
    )
    with pytest.raises(ConfigError, match=message):
        build_source(json.loads(text), seed=0)


def test_sources_of_one_name_are_told_apart(tmp_path: Path):
    first = write(tmp_path / "a" / "tasks.jsonl", [{"prompt": "p", "answer": "1"}])
    second = write(tmp_path / "b" / "tasks.jsonl", [{"prompt": "p", "answer": "1"}])
    source = build_source(f"{first} + {second}", seed=0)
    assert [task.source for task in source.tasks["train"]] == [
        "tasks.jsonl",
        "tasks.jsonl-2",
    ]


def test_agents_that_all_sources_have(tmp_path: Path):
    scenario = build_scenario("shipped:math + shipped:science")
    assert set(scenario.offered) == {"verify", "knowledge", "reason"}
    large, _ = two_files(tmp_path)
    assert build_scenario(f"shipped:math + {large}").offered == ()


# Spellings.


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("gsm8k", "openai/gsm8k"),
        ("GSM8K", "openai/gsm8k"),
        ("gsm-8k", "openai/gsm8k"),
        ("openai/gsm8k", "openai/gsm8k"),
        ("OpenAI/GSM8K", "openai/gsm8k"),
        ("math500", "HuggingFaceH4/MATH-500"),
        ("MATH-500", "HuggingFaceH4/MATH-500"),
        ("aime_2025", "MathArena/aime_2025"),
        ("AIME-2025", "MathArena/aime_2025"),
        ("AIME 2024", "HuggingFaceH4/aime_2024"),
        ("math_train", "rasbt/math_full_minus_math500"),
        ("GPQA-Diamond", "Idavidrein/gpqa"),
        ("LiveCodeBench", "livecodebench/code_generation_lite"),
        ("HumanEval", "openai/openai_humaneval"),
        ("human_eval", "openai/openai_humaneval"),
        ("DAPO", "BytedTsinghua-SIA/DAPO-Math-17k"),
        ("dapo-math-17k", "BytedTsinghua-SIA/DAPO-Math-17k"),
        ("OpenR1", "open-r1/OpenR1-Math-220k"),
        ("DeepScaleR", "agentica-org/DeepScaleR-Preview-Dataset"),
        ("math-ai/aime24", "math-ai/aime24"),
        ("maths", None),
        ("", None),
        ("nobody/gsm8k", None),
    ],
)
def test_spellings_of_known_sets(name: str, dataset: str | None):
    found = find_dataset(name)
    assert (found and found.id) == dataset
    assert source_spec(name) == (f"hf:{name}" if dataset else name)


def test_a_set_with_a_test_set_of_its_own(tmp_path: Path):
    rows = [
        {"question": f"{number}?", "answer": f"#### {number}"} for number in range(6)
    ]
    for split, part in (("train", rows[:4]), ("test", rows[4:])):
        (tmp_path / "main").mkdir(exist_ok=True)
        table = pa.Table.from_pylist(part)
        pq.write_table(table, tmp_path / "main" / f"{split}-00000-of-00001.parquet")
    source = build_source(f"gsm8k,folder={tmp_path}", seed=0)
    assert sizes(source) == (4, 2)
    assert source.task("test", 0).answer == "4"
    only_test = build_source(f"gsm8k,split=test,folder={tmp_path}", seed=0)
    assert sizes(only_test) == (0, 2)


@pytest.mark.parametrize(
    "text", ["mine.jsonl", "a + b", "GSM8K", "0.5*a + 0.5*b", "data/x.csv"]
)
def test_sources_are_no_ids(text: str):
    assert not is_id(text)


def test_a_spec_may_be_json_wherever_it_is_a_text(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", MANY)
    spec = {"type": "file", "path": str(path), "prompt": "question", "answer": "result"}
    assert sizes(build_source(json.dumps(spec), seed=0)) == (18, 2)
    other = write(tmp_path / "other.jsonl", [{"prompt": "p", "answer": "1"}])
    both = build_source(json.dumps([spec, f"file:{other}"]), seed=0)
    assert sizes(both) == (19, 2)
    with pytest.raises(ConfigError, match="is no JSON"):
        build_source('{"type": "file"', seed=0)


def test_held_out_tasks_may_be_named_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = write(tmp_path / "mine.jsonl", MANY)
    spec = {"type": "file", "path": str(path), "prompt": "question", "answer": "result"}
    words = ["tasks", f"{path},prompt=question,answer=result"]
    assert main([*words, "--held-out", json.dumps({**spec, "test": 1})]) == 2
    assert "18 of 18 training tasks stand among" in capsys.readouterr().err


def test_a_table_is_a_source_as_it_is():
    table = TaskTable("mine", {})
    assert source_spec(table) is table


# The command.


def test_the_command_lists_known_sets(capsys: pytest.CaptureFixture):
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert "gsm8k" in out
    assert "openai/gsm8k" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_the_command_takes_a_spec_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = write(tmp_path / "mine.jsonl", MANY)
    spec = {"type": "file", "path": str(path), "prompt": "question", "answer": "result"}
    assert main(["tasks", json.dumps(spec)]) == 0
    assert capsys.readouterr().out.split() == ["train", "18", "test", "2"]
