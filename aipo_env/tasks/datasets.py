"""Public datasets: what `envs_data/datasets.json` knows of them, and how their rows
become tasks.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from aipo_env.records import Split, Task
from aipo_env.tasks.livecodebench import read_problem
from aipo_env.tasks.rows import Unusable

PROMPT_COLUMNS = (
    "problem",
    "Problem",
    "question",
    "Question",
    "prompt.0.content",
    "prompt",
)
ANSWER_COLUMNS = (
    "answer",
    "Answer",
    "expected_answer",
    "reward_model.ground_truth",
    "solution.boxed",
)
"""Where problem and answer are looked for in a dataset that the table lacks."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset. A column is named by its path: "reward_model.ground_truth",
    "solution.boxed" for what is boxed.

    Args:
        names: Short names; the first begins the ids of its tasks.
        role: What its tasks are for: nobody trains on a "test" set by accident.
        config: Which subset is read by default; `split`: which part of it.
        files: Patterns of a config's files; other configs' files are known by their
            names.
        prompt: Columns of the problem, the first that is filled; `answer` likewise.
        choices: Columns of the options, the right one first.
        read: "columns", or "livecodebench".
        only: Values that a column must have.
        strip: Patterns of what is cut out of problems: instructions for another answer
            format.
        meta: Kept beside: name in `Task.meta` to column.
        date: The column by which a window of days is chosen.
        is_repeated: Whether problems come several times; each is kept once.
        rows: How many rows there are by default; 0: unknown.
    """

    id: str
    names: Sequence[str] = ()
    role: Split = "train"
    config: str = ""
    split: str = "train"
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    prompt: Sequence[str] = PROMPT_COLUMNS
    answer: Sequence[str] = ANSWER_COLUMNS
    choices: Sequence[str] = ()
    read: str = "columns"
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    strip: Sequence[str] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    is_repeated: bool = False
    rows: int = 0
    licence: str = ""
    no_republish: bool = False

    @property
    def columns(self) -> set[str]:
        """All that is read of a row."""
        paths = (
            *self.prompt,
            *self.answer,
            *self.choices,
            *self.only,
            *self.meta.values(),
        )
        return (
            set() if self.read != "columns" else {path.split(".")[0] for path in paths}
        )

    def task(self, row: Mapping[str, Any]) -> Task:
        """Return the task of a row; its id is the hash of its prompt.

        Raises:
            Unusable: The row makes none. DataError: as `Task`.
        """
        fields = (
            read_problem(row) if self.read == "livecodebench" else self._fields(row)
        )
        found = {name: _pick(row, path) for name, path in self.meta.items()}
        meta = {
            name: v if isinstance(v, str | int) else str(v)
            for name, v in found.items()
            if v is not None
        }
        meta |= {"no_republish": True} if self.no_republish else {}
        name = self.names[0] if self.names else self.id.rpartition("/")[2]
        task_id = f"{name}-{_digest(fields['prompt']).hex()[:16]}"
        return Task(
            **fields, id=task_id, meta=meta, source=self.id, licence=self.licence
        )

    def problem(self, row: Mapping[str, Any]) -> str:
        """Return the row's problem as it stands, by which repeated ones are known."""
        return str(_pick(row, self.prompt[0])).strip()

    def _fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        prompt = _text(row, self.prompt, "problem")
        for pattern in self.strip:
            prompt = re.sub(pattern, "", prompt)
        if not self.choices:
            return {"prompt": prompt, "answer": _text(row, self.answer, "answer")}
        options = [_text(row, [path], "option") for path in self.choices]
        # By the problem alone, so that letters are the same in every run, order and
        # selection.
        order = sorted(
            range(len(options)), key=lambda index: _digest(f"{index} {prompt}")
        )
        choices = [options[index] for index in order]
        listed = "".join(
            f"\n{chr(65 + number)}) {choice}" for number, choice in enumerate(choices)
        )
        answer = chr(65 + order.index(0))
        prompt = (
            f"{prompt}\n{listed}\n\nGive the letter of the right option in \\boxed{{}}."
        )
        return {
            "prompt": prompt,
            "answer": answer,
            "kind": "choice",
            "choices": choices,
        }


@cache
def known_datasets() -> dict[str, Dataset]:
    """Return the table by id and by short name, in lower case."""
    text = files("envs_data").joinpath("datasets.json").read_text(encoding="utf-8")
    table = [Dataset(**entry) for entry in json.loads(text)]
    return {
        name.lower(): dataset
        for dataset in table
        for name in (dataset.id, *dataset.names)
    }


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _text(row: Mapping[str, Any], paths: Sequence[str], what: str) -> str:
    """Return the first column that is filled; a number is written out, NaN is
    nothing.
    """
    for value in (_pick(row, path) for path in paths):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            if str(value).strip() not in ("", "nan"):
                return str(value).strip()
        elif value is not None:
            raise Unusable(f"its {what} is {type(value).__name__}, not text")
    raise Unusable(f"no {what}")


def _pick(row: Mapping[str, Any], path: str) -> Any:
    """Follow a path into a row."""
    value: Any = row
    for step in path.split(".") if path not in row else [path]:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = (
                _boxed(value) if isinstance(value, str) and step == "boxed" else None
            )
    return value


def _boxed(text: str) -> str | None:
    r"""Return what stands in the last `\boxed{…}`."""
    rest, depth = text.rpartition("\\boxed{")[2], 1
    for place, char in enumerate(rest):
        depth += (char == "{") - (char == "}")
        if not depth:
            return rest[:place]
    return None
