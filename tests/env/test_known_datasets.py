"""The datasets that are known: small files of their schemas, with contents of ours,
through the real loader.
"""

import csv
import json
import logging
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aipo_env import DataError, build_source
from aipo_env.tasks.code_problems import read_mbpp
from aipo_env.tasks.datasets import known_datasets

PREFIX = (
    "Solve the following math problem step by step. The last line of your response"
    " should be of the form Answer: $Answer (without quotes) where $Answer is the"
    " answer to the problem.\n\n"
)
SUFFIX = '\n\nRemember to put your answer on its own line after "Answer:".'
CANARY = "SYNTHETIC-CANARY-0"


def verl(problem: str, answer: str, index: int = 0) -> dict:
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": PREFIX + problem + SUFFIX, "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": str(index)},
    }


def openr1(problem: str, answer: str, question_type: str = "math-word-problem") -> dict:
    return {
        "problem": problem,
        "solution": f"... \\boxed{{{answer}}}",
        "answer": answer,
        "problem_type": "Algebra",
        "question_type": question_type,
        "source": "olympiads",
        "uuid": problem,
        "is_reasoning_complete": [True, False],
        "generations": ["long", "longer"],
        "correctness_math_verify": [True, False],
        "correctness_count": 1,
        "messages": [{"role": "user", "content": problem}],
    }


MATH_500 = {
    "problem": "What is $3+4$?",
    "solution": "It is $\\boxed{7}$.",
    "answer": "7",
    "subject": "Algebra",
    "level": 2,
    "unique_id": "test/algebra/1.json",
}
MATH_TRAIN = {
    "problem": "What is $3+4$?",
    "level": "Level 2",
    "type": "Algebra",
    "solution": "It is $\\boxed{7}$.",
    "answer": "7",
    "unique_id": "train/algebra/1.json",
}
# Each: short name or id, file, row, gold answer, meta.
SETS = [
    (
        "gsm8k",
        "main/train-00000-of-00001.parquet",
        {
            "question": "p",
            "answer": "16 - 3 = <<16-3=13>>13, twice <<13*2=26>>26.\n#### 26",
        },
        "26",
        {},
    ),
    (
        "aime_2024",
        "data/train-00000-of-00001.parquet",
        {
            "id": 60,
            "problem": "p",
            "solution": "s",
            "answer": "204",
            "url": "u",
            "year": "2024",
        },
        "204",
        {"year": "2024", "url": "u"},
    ),
    (
        "Maxwell-Jia/AIME_2024",
        "aime_2024_problems.parquet",
        {"ID": "2024-I-1", "Problem": "p", "Solution": "s", "Answer": 33},
        "33",
        {"number": "2024-I-1"},
    ),
    (
        "math-ai/aime24",
        "test.jsonl",
        {"id": 1, "problem": "p", "solution": r"\boxed{204}", "url": "u"},
        "204",
        {},
    ),
    (
        "aime_2025",
        "data/train-00000-of-00001.parquet",
        {
            "problem_idx": 1,
            "problem": "p",
            "answer": 70,
            "problem_type": ["Number Theory"],
        },
        "70",
        {"number": 1},
    ),
    (
        "math-ai/aime25",
        "test.jsonl",
        {"problem": "p", "answer": "70", "id": "0"},
        "70",
        {},
    ),
    (
        "opencompass/AIME2025",
        "aime2025-I.jsonl",
        {"question": "p", "answer": "70"},
        "70",
        {},
    ),
    (
        "aime_2026",
        "data/train-00000-of-00001.parquet",
        {"problem_idx": 3, "answer": 277, "problem": "p"},
        "277",
        {"number": 3},
    ),
    (
        "math_500",
        "test.jsonl",
        MATH_500,
        "7",
        {"subject": "Algebra", "level": 2, "number": "test/algebra/1.json"},
    ),
    (
        "math_train",
        "math_full_minus_math500.json",
        MATH_TRAIN,
        "7",
        {"subject": "Algebra", "level": "Level 2", "number": "train/algebra/1.json"},
    ),
    (
        "nlile/hendrycks-MATH-benchmark",
        "data/train-00000-of-00001.parquet",
        MATH_500,
        "7",
        {"subject": "Algebra", "level": 2, "number": "test/algebra/1.json"},
    ),
    ("dapo_math_17k", "data/dapo-math-17k.parquet", verl("p", "34"), "34", {}),
    (
        "BytedTsinghua-SIA/AIME-2024",
        "data/aime-2024.parquet",
        verl("p", "34"),
        "34",
        {},
    ),
    (
        "open-r1/DAPO-Math-17k-Processed",
        "all/train-00000-of-00001.parquet",
        {
            "prompt": "p",
            "solution": "34",
            "data_source": "math_dapo",
            "ability": "MATH",
        },
        "34",
        {},
    ),
    (
        "openr1_math",
        "data/train-00000-of-00010.parquet",
        openr1("p", "9"),
        "9",
        {"subject": "Algebra", "origin": "olympiads", "number": "p"},
    ),
    (
        "deepscaler",
        "deepscaler.json",
        {"problem": "p", "answer": "-2/3", "solution": "s"},
        "-2/3",
        {},
    ),
]


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        is_list = path.suffix == ".json"
        text = (
            json.dumps(rows)
            if is_list
            else "".join(json.dumps(row) + "\n" for row in rows)
        )
        path.write_text(text, encoding="utf-8")


def read(folder: Path, name: str, **options: object):
    return build_source(
        {"type": "hf", "name": name, "folder": str(folder), **options}, seed=0
    )


@pytest.mark.parametrize(
    ("name", "file", "row", "answer", "meta"), SETS, ids=[row[0] for row in SETS]
)
def test_every_schema(
    tmp_path: Path, name: str, file: str, row: dict, answer: str, meta: dict
):
    write(tmp_path / file, [row])
    dataset = known_datasets()[name.lower()]
    source = read(tmp_path, name)
    assert (source.num_tasks("train"), source.num_tasks("test")) == (
        (1, 0) if dataset.role == "train" else (0, 1)
    )
    task = source.task(dataset.role, 0)
    assert task.prompt == ("What is $3+4$?" if answer == "7" else "p")
    assert (task.answer, task.kind, task.meta) == (answer, "math", meta)
    assert (task.source, task.licence) == (dataset.id, dataset.licence)


def test_the_table_itself():
    table = {dataset.id: dataset for dataset in known_datasets().values()}
    assert len(table) == 21
    tested = {known_datasets()[row[0].lower()].id for row in SETS}
    assert set(table) - tested == {
        "Idavidrein/gpqa",
        "livecodebench/code_generation_lite",
        "lighteval/code_generation_lite",
        "openai/openai_humaneval",
        "google-research-datasets/mbpp",
    }
    assert all(
        dataset.licence and dataset.role in ("train", "test")
        for dataset in table.values()
    )
    assert [name for name, dataset in table.items() if dataset.no_republish] == [
        "Idavidrein/gpqa"
    ]
    assert {
        dataset.names[0]: dataset.rows for dataset in table.values() if dataset.names
    } == {
        "aime_2024": 30,
        "aime_2025": 30,
        "aime_2026": 30,
        "math_500": 500,
        "math_train": 12000,
        "gpqa_diamond": 198,
        "livecodebench": 1055,
        "humaneval": 164,
        "mbpp": 500,
        "dapo_math_17k": 0,
        "openr1_math": 93733,
        "deepscaler": 40315,
        "gsm8k": 7473,
    }


def test_a_benchmark_of_another_size_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    write(tmp_path / "test.jsonl", [MATH_500])
    with caplog.at_level(logging.WARNING, "aipo_env"):
        read(tmp_path, "math_500", limit=1)
        assert not caplog.records
        read(tmp_path, "HuggingFaceH4/math-500")
    assert caplog.messages == [
        "HuggingFaceH4/MATH-500 has 1 rows, where 500 were expected"
    ]


def test_both_halves_of_an_aime(tmp_path: Path):
    write(tmp_path / "aime2025-I.jsonl", [{"question": "one", "answer": "1"}])
    write(tmp_path / "aime2025-II.jsonl", [{"question": "two", "answer": "2"}])
    assert read(tmp_path, "opencompass/AIME2025").num_tasks("test") == 2
    assert (
        read(tmp_path, "opencompass/AIME2025", config="AIME2025-II")
        .task("test", 0)
        .prompt
        == "two"
    )


def test_dapo_is_taken_once_and_without_its_answer_format(tmp_path: Path):
    rows = [verl("What is\n\n$1+1$?", "2", 0), verl("Second?", "5", 1)] * 50
    write(tmp_path / "data" / "dapo-math-17k.parquet", rows)
    source = read(tmp_path, "dapo_math_17k")
    assert [source.task("train", index).prompt for index in range(2)] == [
        "What is\n\n$1+1$?",
        "Second?",
    ]
    assert source.num_tasks("train") == 2
    assert source.skipped == {"repeated": 98}


def test_openr1_without_proofs_and_multiple_choice(tmp_path: Path):
    rows = [
        openr1("a", "1"),
        openr1("b", "A", "MCQ"),
        openr1("c", "proof", "proof"),
        openr1("d", ""),
    ]
    write(tmp_path / "data" / "train-00000-of-00010.parquet", rows)
    write(tmp_path / "all" / "train-00000-of-00020.parquet", [openr1("e", "1")])
    source = read(tmp_path, "openr1_math")
    assert source.num_tasks("train") == 1
    assert source.skipped == {
        "question_type is MCQ": 1,
        "question_type is proof": 1,
        "no answer": 1,
    }
    assert read(tmp_path, "openr1_math", config="all").task("train", 0).prompt == "e"


def test_deepscaler_without_rows_that_lack_an_answer(tmp_path: Path):
    rows = [
        {"problem": "a", "answer": "", "solution": ""},
        {"problem": "b", "answer": "2", "solution": ""},
        {"problem": "c", "solution": ""},
    ]
    write(tmp_path / "deepscaler.json", rows)
    source = read(tmp_path, "deepscaler")
    assert (source.num_tasks("train"), source.skipped) == (1, {"no answer": 2})


def gpqa(number: int) -> dict:
    return {
        "Question": f"Made-up question {number}?",
        "Correct Answer": f"right {number}\n",
        "Incorrect Answer 1": "wrong 1",
        "Incorrect Answer 2": "wrong 2, [with brackets]",
        "Incorrect Answer 3": "wrong 3",
        "Explanation": "because",
        "High-level domain": "Physics",
        "Record ID": f"rec{number}",
        "Canary String": CANARY,
    }


def test_gpqa_options_are_shuffled_by_the_question(tmp_path: Path):
    write(tmp_path / "gpqa_diamond.csv", [gpqa(number) for number in range(400)])
    write(tmp_path / "gpqa_main.csv", [gpqa(1000)])
    source = read(tmp_path, "gpqa_diamond")
    tasks = [source.task("test", index) for index in range(400)]
    assert source.num_tasks("test") == 400
    for number, task in enumerate(tasks):
        assert task.kind == "choice"
        assert task.choices["ABCD".index(task.answer)] == f"right {number}"
        assert sorted(task.choices)[1:] == [
            "wrong 1",
            "wrong 2, [with brackets]",
            "wrong 3",
        ]
    assert all(
        70 < count < 130 for count in Counter(task.answer for task in tasks).values()
    )
    first = tasks[0]
    listed = "\n".join(
        f"{letter}) {text}" for letter, text in zip("ABCD", first.choices, strict=True)
    )
    assert (
        first.prompt
        == f"Made-up question 0?\n\n{listed}\n\nGive the letter of the right option in"
        " \\boxed{}."
    )
    assert first.meta == {
        "domain": "Physics",
        "number": "rec0",
        "canary": CANARY,
        "no_republish": True,
    }
    assert "question" not in first.id
    assert first.withheld == "[withheld: Idavidrein/gpqa forbids republication]"
    write(tmp_path / "gpqa_diamond.csv", [gpqa(7), gpqa(0)])
    assert read(tmp_path, "gpqa_diamond").task("test", 1) == first


def test_a_fault_in_gpqa_shows_no_text(tmp_path: Path):
    row = {
        **gpqa(0),
        "Question": "SECRET",
        "Correct Answer": "",
        "Incorrect Answer 1": "SECRET",
    }
    write(tmp_path / "gpqa_diamond.csv", [gpqa(1), row])
    with pytest.raises(
        DataError,
        match=r"gpqa_diamond\.csv, row 2: no option\. Columns: Question, Correct",
    ) as caught:
        read(tmp_path, "gpqa_diamond")
    assert "SECRET" not in str(caught.value)


# Problems whose tests are Python

HUMANEVAL = {
    "task_id": "HumanEval/53",
    "prompt": 'def add(x: int, y: int):\n    """Add two numbers."""\n',
    "canonical_solution": "    return x + y\n",
    "test": "def check(candidate):\n    assert candidate(0, 1) == 1\n",
    "entry_point": "add",
}
MBPP = {
    "task_id": 11,
    "text": "Write a function to add.",
    "code": "import math\ndef helper():\n  pass\ndef plus(x, y):\n  return x + y",
    "test_list": ["assert math.isclose(plus(1, 2), 3)", "assert plus(0, 0) == 0"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
SANITIZED = {
    "task_id": 11,
    "prompt": "Write a function to add.",
    "code": MBPP["code"],
    "test_list": MBPP["test_list"],
    "test_imports": ["import math"],
}


def test_humaneval_goes_on_with_its_prompt(tmp_path: Path):
    file = "openai_humaneval/test-00000-of-00001.parquet"
    write(tmp_path / file, [HUMANEVAL])
    task = read(tmp_path, "humaneval").task("test", 0)
    assert task.prompt.startswith("Complete this function.\n```python\ndef add(x: int")
    assert (task.kind, task.answer, task.meta) == (
        "code",
        "",
        {"number": "HumanEval/53"},
    )
    tests = task.tests
    assert (tests.kind, tests.entry, tests.public) == ("asserts", "add", ())
    assert tests.prelude == HUMANEVAL["prompt"]
    assert tests.hidden == ({"code": HUMANEVAL["test"] + "\n\ncheck(add)\n"},)
    assert tests.solution == "    return x + y\n"


@pytest.mark.parametrize(
    ("config", "file", "row", "prelude"),
    [
        ("full", "full/test-00000-of-00001.parquet", MBPP, ""),
        (
            "sanitized",
            "sanitized/test-00000-of-00001.parquet",
            SANITIZED,
            "import math\n",
        ),
    ],
)
def test_mbpp_shows_its_assertions(
    tmp_path: Path, config: str, file: str, row: dict, prelude: str
):
    write(tmp_path / file, [row])
    task = read(tmp_path, "mbpp", config=config).task("test", 0)
    assert "Write a function to add.\n\nYour program must pass" in task.prompt
    assert "assert plus(0, 0) == 0\n```" in task.prompt
    tests = task.tests
    assert (tests.kind, tests.entry, tests.prelude) == ("asserts", "plus", prelude)
    codes = [f"import math\n{code}" for code in row["test_list"]]
    assert tests.hidden == tests.public == tuple({"code": code} for code in codes)
    assert tests.solution == row["code"]


@pytest.mark.parametrize(
    ("solution", "imports"),
    [
        ("import math, re\ndef f(x): return x", "import math, re\n"),
        (
            "from math import (\n    floor,\n    ceil as up,\n)\ndef f(x): return x",
            "from math import floor, ceil as up\n",
        ),
        (
            "from math import \\\n    floor\ndef f(x): return x",
            "from math import floor\n",
        ),
        ('def f(x):\n    """Add\nfrom here on\nimport it."""\n    return x', ""),
        ("def f(x):\n    import math\n    return x", ""),
        ("import re; import math\ndef f(x): return '\\d'", "import re\nimport math\n"),
        ("import math\ndef f(x: return x", ""),
    ],
    ids=range(7),
)
def test_assertions_of_mbpp_may_use_what_a_solution_imports(
    solution: str, imports: str
):
    row = {**MBPP, "code": solution, "test_list": ["assert f(1) == 1"]}
    [test] = read_mbpp(row)["tests"]["hidden"]
    assert test == {"code": f"{imports}assert f(1) == 1"}
