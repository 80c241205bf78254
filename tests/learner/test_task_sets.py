"""`aipo eval` on benchmarks: small files of the real schemas, with contents of ours,
through the real loaders.
"""

import base64
import csv
import io
import json
import pickle
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from aipo_env import (
    Completion,
    ConfigError,
    DataError,
    Environment,
    Message,
    Piece,
    PolicyError,
)
from aipo_learner.evaluation.task_sets import measure_task_sets
from aipo_learner.samplers.base import ChatVoice
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.settings.eval_options import EvalOptions, task_sets

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the process sandbox needs Linux"
)


class Knowing(ChatVoice):
    """Knows every answer, and gives it in every second sample."""

    def open(self, messages: Sequence[Message]) -> list[Piece]:
        problem = messages[-1].content
        answers = {
            "seventy": "\\boxed{70}",
            "$3+4$": "\\boxed{7}",
            "square": "```python\nprint(int(input())**2)\n```",
        }
        self.answer = next(
            (answer for words, answer in answers.items() if words in problem), ""
        )
        if "right 5" in problem:
            (line,) = [line for line in problem.splitlines() if "right 5" in line]
            self.answer = f"\\boxed{{{line[0]}}}"
        return super().open(messages)

    async def complete(self, stop: Sequence[str], max_tokens: int) -> Completion:
        text = self.answer if self.key[-1] % 2 == 0 else "\\boxed{no}"
        token_ids = [
            *self.chat.tokenizer.encode(text, add_special_tokens=False),
            *self.end_ids,
        ]
        return self.take(token_ids, [0.0] * len(token_ids), is_cut=False)

    def close(self) -> None:
        pass


class KnowingSampler:
    num_sampled = 0

    def __init__(self, tokenizer: Any) -> None:
        self.chat = ChatFormat(tokenizer)

    def voice(self, key: tuple[int, ...]) -> Knowing:
        return Knowing(self.chat, self.chat.end_ids(), key)

    def close(self) -> None:
        pass


def pack(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(value)))).decode()


@pytest.fixture
def benchmarks(tmp_path: Path) -> str:
    """The four benchmarks of the issue, as `hf download` leaves them; returns what
    --tasks takes.
    """
    aime = {
        "problem_idx": 1,
        "problem": "What is seventy?",
        "answer": 70,
        "problem_type": ["Number Theory"],
    }
    math = {
        "problem": "What is $3+4$?",
        "solution": "It is $\\boxed{7}$.",
        "answer": "7",
        "subject": "Algebra",
    }
    gpqa = {
        "Question": "Which?",
        "Correct Answer": "right 5",
        "Incorrect Answer 1": "wrong 1",
        "Incorrect Answer 2": "wrong 2",
        "Incorrect Answer 3": "wrong 3",
        "Explanation": "because",
        "High-level domain": "Physics",
        "Record ID": "rec5",
        "Canary String": "SYNTHETIC-CANARY-0",
    }
    code = {
        "question_title": "Squares",
        "question_content": "Print the square.\n",
        "platform": "atcoder",
        "question_id": "abc1_a",
        "contest_id": "abc1",
        "contest_date": "2024-08-03T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "metadata": "{}",
        "public_test_cases": json.dumps(
            [{"input": "3\n", "output": "9\n", "testtype": "stdin"}]
        ),
        "private_test_cases": pack(
            [{"input": "4\n", "output": "16\n", "testtype": "stdin"}]
        ),
    }
    folders = {
        name: tmp_path / name
        for name in ("aime2025", "math500", "gpqa_diamond", "livecodebench")
    }
    for folder in folders.values():
        folder.mkdir()
    pq.write_table(
        pa.Table.from_pylist([aime]),
        folders["aime2025"] / "train-00000-of-00001.parquet",
    )
    (folders["math500"] / "test.jsonl").write_text(
        json.dumps({**math, "level": 2, "unique_id": "u"}) + "\n"
    )
    with (folders["gpqa_diamond"] / "gpqa_diamond.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(gpqa))
        writer.writeheader()
        writer.writerow(gpqa)
    (folders["livecodebench"] / "test6.jsonl").write_text(json.dumps(code) + "\n")
    specs = [f"{name},folder={folder}" for name, folder in folders.items()]
    return ",".join(specs) + ",config=v6"


@linux
def test_the_four_benchmarks(
    benchmarks: str, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture
):
    out = tmp_path / "out"
    options = EvalOptions(tasks=benchmarks, samples=4, out=out)
    results = measure_task_sets(KnowingSampler(tokenizer), options, Console(width=200))
    assert list(results) == ["aime2025", "math500", "gpqa_diamond", "livecodebench"]
    for name, result in results.items():
        row = result["unaided"]
        assert (row["num_tasks"], row["mean@4"], row["pass@2"], row["pass@4"]) == (
            1,
            0.5,
            pytest.approx(5 / 6),
            1.0,
        )
        assert row["intervals"]["pass@4"] == [1.0, 1.0]
        assert (row["num_truncated"], row["num_unverified"]) == (0, 0)
        assert "aided" not in result
        assert json.loads((out / name / "scores.json").read_text()) == result
        assert len((out / name / "episodes.jsonl").read_text().splitlines()) == 1
    assert "right 5" not in (out / "gpqa_diamond" / "episodes.jsonl").read_text()
    assert results["math500"]["settings"] == {
        "tasks": "math500",
        "prompt": (
            "Solve the problem step by step. Give the final answer in the form that the"
            " problem asks for, or in \\boxed{} if it asks for none."
        ),
        "temperature": 1.0,
        "max_policy_tokens": 1024,
        "max_context_tokens": 4096,
        "samples": 4,
        "seed": 0,
    }
    printed = capsys.readouterr().out
    assert "math500: prompt='Solve the problem step by step." in printed
    assert "@4 0.500 (0.50–0.50)  @4 1.000 (1.00–1.00)  0%" in printed
    assert "Mean over the 4 sets, alone: 0.500. Each set counts the same" in printed


def test_one_set_lies_in_the_folder_itself(tokenizer: Any, tmp_path: Path):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(
        '{"id": "a", "prompt": "$3+4$", "answer": "7"}\n{"id": "b", "prompt": "?",'
        ' "answer": "8"}\n'
    )
    options = EvalOptions(tasks=f"file:{tasks},test=1", samples=1, out=tmp_path / "out")
    result = measure_task_sets(KnowingSampler(tokenizer), options, Console(quiet=True))
    assert [row["unaided"]["mean@1"] for row in result.values()] == [0.5]
    assert (
        json.loads((tmp_path / "out" / "scores.json").read_text())["unaided"][
            "num_tasks"
        ]
        == 2
    )


@pytest.mark.parametrize("sets", ["toy", "toy,shipped:science"])
@pytest.mark.parametrize("name", ["scores.json", "episodes.jsonl", ""])
def test_scores_are_written_through_no_link(
    tokenizer: Any, tmp_path: Path, sets: str, name: str
):
    out, victim = tmp_path / "out", tmp_path / "victim"
    folder = out / "toy" if "," in sets else out
    victim.mkdir()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(victim)
    options = EvalOptions(tasks=sets, num_tasks=1, samples=1, out=out)
    sampler = KnowingSampler(tokenizer)
    if folder == out and not name:
        # The user named this one.
        measure_task_sets(sampler, options, Console(quiet=True))
        assert (victim / "scores.json").is_file()
        return
    with pytest.raises(DataError, match="a link, which is not followed"):
        measure_task_sets(sampler, options, Console(quiet=True))
    assert list(victim.iterdir()) == []


def test_nothing_is_sampled_when_a_later_set_cannot_be_read(
    tokenizer: Any, tmp_path: Path
):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"id": "a", "prompt": "p", "answer": "1", "split": "train"}\n')
    options = EvalOptions(
        tasks=f"toy,file:{tasks}", num_tasks=2, samples=1, out=tmp_path / "out"
    )
    with pytest.raises(DataError, match="no row belongs to the 'test' split"):
        measure_task_sets(KnowingSampler(tokenizer), options, Console(quiet=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("aime2025,math500", {"aime2025": "aime2025", "math500": "math500"}),
        (
            "hf:a/b,prompt=question,limit=3, toy",
            {"hf-a-b": "hf:a/b,prompt=question,limit=3", "toy": "toy"},
        ),
        (
            "livecodebench,end=2024-08-01,livecodebench,start=2024-08-02",
            {
                "livecodebench": "livecodebench,end=2024-08-01",
                "livecodebench-start=2024-08-02": "livecodebench,start=2024-08-02",
            },
        ),
        (
            '{"type": "toy", "difficulty": 2}',
            {"type-toy-difficulty-2": {"type": "toy", "difficulty": 2}},
        ),
        ("file:../a b.jsonl", {"file-..-a-b.jsonl": "file:../a b.jsonl"}),
    ],
)
def test_lists_of_task_sets(text: str, sets: dict[str, Any]):
    assert task_sets(text) == sets


def test_what_was_measured_is_kept_when_a_later_set_fails(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture
):
    class Failing(KnowingSampler):
        def voice(self, key: tuple[int, ...]) -> Knowing:
            if (tmp_path / "toy" / "scores.json").is_file():
                raise PolicyError("out of order")
            return super().voice(key)

    options = EvalOptions(
        tasks="toy,shipped:science", num_tasks=1, samples=1, out=tmp_path
    )
    with pytest.raises(PolicyError, match="out of order"):
        measure_task_sets(Failing(tokenizer), options, Console(width=100))
    assert (
        " toy          alone   1      @1 0.000 (0.00–0.00)" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": " , "}, "--tasks names no task set"),
        ({"tasks": "aime25"}, "there is no 'aime25'"),
        ({"samples": 0}, "eval: samples=0 must be a whole number, 1 or more"),
        ({"temperature": -1.0}, "eval: temperature=-1.0 must be a finite number, 0 or"),
        (
            {"aided": True, "environment": Environment(agents="none")},
            "--aided with nobody to consult",
        ),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str, tokenizer: Any):
    with pytest.raises(ConfigError, match=message):
        measure_task_sets(
            KnowingSampler(tokenizer), EvalOptions(**fields), Console(quiet=True)
        )


class Counting(KnowingSampler):
    """Counts the episodes that it plays."""

    num_voices = 0

    def voice(self, key: tuple[int, ...]) -> Knowing:
        self.num_voices += 1
        return super().voice(key)


def measured(tokenizer: Any, out: Path, **fields: Any) -> tuple[int, str, dict]:
    """Return how many episodes an evaluation played, what it printed, its scores."""
    console = Console(width=200, record=True, quiet=False, file=io.StringIO())
    sampler = Counting(tokenizer)
    options = EvalOptions(
        tasks="shipped:science", **{"num_tasks": 2, "samples": 3, "out": out} | fields
    )
    [result] = measure_task_sets(sampler, options, console).values()
    return sampler.num_voices, console.export_text(), result


def test_every_sample_is_kept_and_played_once(tokenizer: Any, tmp_path: Path):
    out = tmp_path / "out"
    num_played, _, first = measured(tokenizer, out)
    assert num_played == 6
    lines = (out / "samples.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[1:]]
    assert [(row["task"], row["sample"]) for row in rows] == [
        (task, sample) for task in range(2) for sample in range(3)
    ]
    assert all(row["turns"] and row["policy_tokens"] > 0 for row in rows)
    # Given again, it plays nothing and says the same; with more samples, only those.
    num_played, text, again = measured(tokenizer, out)
    assert (num_played, again["unaided"]) == (0, first["unaided"])
    assert "shipped-science: 6 samples of before are counted, from" in text
    num_played, _, more = measured(tokenizer, out, samples=5)
    assert (num_played, more["unaided"]["num_samples"]) == (4, 5)
    # The first episode of each task is there once.
    assert len((out / "episodes.jsonl").read_text().splitlines()) == 2


def test_an_evaluation_that_was_cut_off_goes_on(tokenizer: Any, tmp_path: Path):
    out = tmp_path / "out"
    _, _, whole = measured(tokenizer, out)
    path = out / "samples.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    # Killed while it wrote the fourth.
    path.write_text("".join(lines[:4]) + lines[4][:20])
    num_played, _, result = measured(tokenizer, out)
    assert (num_played, result["unaided"]) == (3, whole["unaided"])
    # Lines that are no samples are played anew.
    path.write_text("".join(lines[:3]) + '{"task": "x"}\n[1]\nnot JSON\n')
    assert measured(tokenizer, out)[0] == 4


def test_samples_of_other_settings_are_replaced_and_that_is_said(
    tokenizer: Any, tmp_path: Path
):
    out = tmp_path / "out"
    measured(tokenizer, out)
    num_played, text, _ = measured(tokenizer, out, temperature=0.5)
    assert num_played == 6
    assert "samples of another policy or of other settings are replaced in" in text
    assert len((out / "samples.jsonl").read_text().splitlines()) == 7


def test_samples_of_a_file_that_has_changed_do_not_count(
    tokenizer: Any, tmp_path: Path
):
    path, out = tmp_path / "mine.jsonl", tmp_path / "out"
    for answer in ("4", "5"):
        row = {"id": "a", "prompt": f"What is {answer}?", "answer": answer}
        path.write_text(json.dumps(row))
        tasks = f"file:{path},test=1"
        options = {"tasks": tasks, "num_tasks": 1, "samples": 2, "out": out}
        sampler = Counting(tokenizer)
        measure_task_sets(sampler, EvalOptions(**options), Console(quiet=True))
        assert sampler.num_voices == 2
