"""Public datasets: what `envs_data/datasets.json` says, and how rows become tasks."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from string import ascii_uppercase
from typing import Any

from aipo_env.records import Split, Task
from aipo_env.tasks.code_problems import read_humaneval, read_mbpp
from aipo_env.tasks.livecodebench import read_problem
from aipo_env.tasks.rows import Unusable
from aipo_env.verifiers.extract import marked_answer, read_gold

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
_READERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "livecodebench": read_problem,
    "humaneval": read_humaneval,
    "mbpp": read_mbpp,
}
"""What makes the fields of a task of a row whose columns are not for us to choose."""
MAX_EXACT = 2**53
"""Up to it a float holds every whole number."""
ID_DIGITS = 16
"""Hexadecimal digits of a prompt's hash in the id of its task."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset.

    A column is named by its path: "reward_model.ground_truth", "solution.boxed" for
    what is boxed.

    Args:
        names: Short names; the first begins the ids of its tasks.
        role: What its tasks are for: nobody trains on a "test" set by accident.
        config: Which subset is read by default; `split`: which part of it.
        files: Patterns of a config's files; other configs' files are known by their
            names.
        prompt: Columns of the problem, the first that is filled; `answer` likewise,
            which may be a solution that marks its answer as replies do.
        choices: Columns of the options, the right one first.
        read: "columns", or whose form the rows have: "livecodebench", "humaneval",
            "mbpp".
        only: Values that a column must have.
        strip: Patterns of what is cut out of problems: instructions for another answer
            format.
        meta: Kept beside: name in `Task.meta` to column.
        date: The column by which a window of days is chosen.
        is_repeated: Whether problems come several times; each is kept once.
        rows: How many rows there are by default; 0: unknown.
        test_split: The part of a training set that is its own test set; `test_rows` as
            `rows`.
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
    test_split: str = ""
    test_rows: int = 0
    licence: str = ""
    no_republish: bool = False

    @property
    def short_name(self) -> str:
        """What it is called; it begins the ids of its tasks."""
        return self.names[0] if self.names else self.id.rpartition("/")[2]

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
        if self.read != "columns":
            return set()  # all of them
        return {path.split(".")[0] for path in paths}

    def task(self, row: Mapping[str, Any]) -> Task:
        """Return the task of a row; its id is the hash of its prompt.

        Raises:
            Unusable: The row makes none. DataError: as `Task`.
        """
        read = _READERS.get(self.read, self._fields)
        fields = read(row)
        digest = prompt_digest(fields["prompt"]).hex()
        return Task(
            **fields,
            id=f"{self.short_name}-{digest[:ID_DIGITS]}",
            meta=self._meta(row),
            source=self.id,
            licence=self.licence,
        )

    def _meta(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is kept beside a row's task."""
        meta: dict[str, Any] = {}
        for name, path in self.meta.items():
            value = value_at(row, path)
            if value is None:
                continue
            # A parquet file may hold dates and decimals, which are no JSON.
            meta[name] = value if isinstance(value, str | int) else str(value)
        if self.no_republish:
            meta["no_republish"] = True
        return meta

    def problem(self, row: Mapping[str, Any]) -> str:
        """Return the row's problem as it stands, by which repeated ones are known."""
        return str(value_at(row, self.prompt[0])).strip()

    def _fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a row's task that its columns hold."""
        prompt = _text(row, self.prompt, "problem")
        for pattern in self.strip:
            prompt = re.sub(pattern, "", prompt)
        if not self.choices:
            return {"prompt": prompt, "answer": _gold(row, self.answer)}
        options = [_text(row, [path], "option") for path in self.choices]
        order = _order_of_options(prompt, len(options))
        choices = [options[index] for index in order]
        lines = [
            f"\n{letter}) {choice}"
            for letter, choice in zip(ascii_uppercase, choices, strict=False)
        ]
        # The right one is the first of the columns.
        answer = ascii_uppercase[order.index(0)]
        return {
            "prompt": (
                f"{prompt}\n{''.join(lines)}\n\n"
                "Give the letter of the right option in \\boxed{}."
            ),
            "answer": answer,
            "kind": "choice",
            "choices": choices,
        }


def _order_of_options(prompt: str, num_options: int) -> list[int]:
    """Return the order in which a problem's options are lettered.

    It comes of the problem alone, so that letters are the same in every run, order and
    selection.
    """

    def key(index: int) -> bytes:
        return prompt_digest(f"{index} {prompt}")

    return sorted(range(num_options), key=key)


def find_dataset(name: str) -> Dataset | None:
    """Return the data set that is meant by an id or a short name; None if none is.

    In a short name neither case nor `-` and `_` count: `GSM8K`, `MATH-500`.
    """
    exact = known_datasets().get(name.lower())
    if exact is not None or "/" in name:
        return exact
    return _folded_names().get(_folded(name))


@cache
def _folded_names() -> dict[str, Dataset]:
    return {
        _folded(name): dataset
        for dataset in known_datasets().values()
        for name in dataset.names
    }


def _folded(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


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


def prompt_digest(text: str) -> bytes:
    """Return a hash of a problem, by which it is known again."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def whole_if_exact(value: Any) -> Any:
    """Return a float that is a whole number as one; anything else as it is.

    A column of whole numbers with gaps is read as floats. Beyond the range in which
    floats are exact, digits would be made up.
    """
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole and abs(value) <= MAX_EXACT else value


def same_problem(text: str) -> str:
    """Return what two spellings of one problem have in common: neither blanks nor case.

    By it a problem is kept on one side of a split.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(folded.split())


def _text(row: Mapping[str, Any], paths: Sequence[str], what: str) -> str:
    """Return the first column that is filled; a number is written out, NaN is nothing.

    Raises:
        Unusable: None is filled, or one with neither text nor a number.
    """
    for path in paths:
        value = value_at(row, path)
        value = whole_if_exact(value)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Unusable(f"its {what} is {type(value).__name__}, not text")
        text = str(value).strip()
        if text not in ("", "nan"):
            return text
    raise Unusable(f"no {what}")


def _gold(row: Mapping[str, Any], paths: Sequence[str]) -> str:
    """Return the gold answer of the first column that is filled.

    Raises:
        Unusable: There is none, or it marks an answer that cannot be read.
    """
    gold = read_gold(_text(row, paths, "answer"))
    if not gold:
        raise Unusable("an answer that cannot be read")
    return gold


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """Follow a path into a row; None where it leads nowhere."""
    # A column's own name may hold a full stop.
    steps = [path] if path in row else path.split(".")
    value: Any = row
    for step in steps:
        value = _inside(value, step)
    return value


def _inside(value: Any, step: str) -> Any:
    """Return what a step of a path leads to; None where it leads nowhere."""
    if isinstance(value, Mapping):
        return value.get(step)
    if isinstance(value, list) and step.isdigit():
        index = int(step)
        return value[index] if index < len(value) else None
    if isinstance(value, str) and step == "boxed":
        return marked_answer(value) or None
    return None
