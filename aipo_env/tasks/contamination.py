"""Whether training tasks stand among evaluation tasks: whole, or thirteen words of one.

    source = build_source("hf:dapo_math_17k", 0)
    report = check_contamination(source, [held_out("hf:aime_2025")])

An index holds hashes alone, so that it can be kept and shared where the tasks' text
cannot.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aipo_env.errors import ConfigError, DataError, message_of
from aipo_env.files import read_whole, write_output
from aipo_env.records import Split, Task
from aipo_env.tasks.base import TaskSource, TaskTable, build_source
from aipo_env.tasks.rows import read_json

NUM_WORDS = 13
"""Words in a row that two texts share only if one quotes the other."""
STOCK_PHRASE = 3
"""What stands in so many evaluation tasks is a stock phrase, and betrays nothing."""
_HASH_BYTES = 8
"""Of a hash: among the texts of all datasets no two are equal by chance."""
# Scripts without spaces between words count by the character.
_WORD = re.compile(r"[\u3040-\u9fff]|[^\W_\u3040-\u9fff]+")


@dataclass(frozen=True, eq=False)
class ContaminationIndex:
    """Hashes of evaluation tasks, of whole texts and of every thirteen words in a row.

    Args:
        num_tasks: How many tasks were hashed, without those that repeat another.
        hashes: Each hash, in hexadecimal, with the id of the task that it is of.
    """

    num_tasks: int
    hashes: Mapping[str, str] = field(repr=False)

    @classmethod
    def from_tasks(cls, tasks: Iterable[Task]) -> "ContaminationIndex":
        """Index tasks; one that repeats another is taken once."""
        texts: dict[str, str] = {}
        words: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for task in tasks:
            text, *runs = _hashes(task.prompt)
            if text in texts:
                continue
            texts[text] = task.id
            counts.update(runs)
            words |= dict.fromkeys(runs, task.id)
        rare_words = {
            run: task_id for run, task_id in words.items() if counts[run] < STOCK_PHRASE
        }
        return cls(len(texts), texts | rare_words)

    def save(self, path: Path) -> None:
        """Write the hash list as JSON."""
        row = {
            "num_words": NUM_WORDS,
            "num_tasks": self.num_tasks,
            "hashes": dict(self.hashes),
        }
        write_output(path, json.dumps(row, indent=0, sort_keys=True) + "\n")

    @classmethod
    def load(cls, path: Path) -> "ContaminationIndex":
        """Read a hash list.

        Raises:
            DataError: The file is missing or no hash list of this kind.
        """
        try:
            row = read_json(read_whole(path))
            num_words = row["num_words"]
            if num_words != NUM_WORDS:
                raise ValueError(f"of {num_words} words in a row, not {NUM_WORDS}")
            return cls(int(row["num_tasks"]), dict(row["hashes"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: no hash list ({message_of(error)}). Make one: aipo tasks"
                " --hashes."
            ) from error


@dataclass(frozen=True, slots=True)
class ContaminationReport:
    """What a comparison came to.

    Args:
        num_train: Training tasks that were compared.
        num_evaluation: Evaluation tasks that they were compared with.
        found: The ids of training tasks that share text with an evaluation task, each
            with that one's id.
    """

    num_train: int
    num_evaluation: int
    found: Mapping[str, str]


def contaminated(tasks: Iterable[Task], index: ContaminationIndex) -> dict[str, str]:
    """Return the ids of tasks that share text with an evaluation task, with its id."""
    matches: dict[str, str] = {}
    for task in tasks:
        for digest in _hashes(task.prompt):
            match = index.hashes.get(digest)
            if match:
                matches[task.id] = match
                break
    return matches


def check_contamination(
    train: TaskSource, evaluation: Iterable[TaskSource | ContaminationIndex]
) -> ContaminationReport:
    """Compare the training tasks of a source with the test tasks of others.

    Args:
        train: The source of the training tasks.
        evaluation: The others, or hash lists of theirs.

    Raises:
        ConfigError: A source is endless. DataError: one has no such tasks.
    """
    tasks = list(all_tasks(train, "train"))
    matches: dict[str, str] = {}
    num_evaluation = 0
    for other in evaluation:
        if isinstance(other, ContaminationIndex):
            index = other
        else:
            index = ContaminationIndex.from_tasks(all_tasks(other, "test"))
        num_evaluation += index.num_tasks
        # A task that stands in several is named with the first of them.
        matches = contaminated(tasks, index) | matches
    return ContaminationReport(len(tasks), num_evaluation, matches)


def held_out(name: str) -> "TaskSource | ContaminationIndex":
    """Return what a task source's spec or a hash list's path names.

    Raises:
        ConfigError: There is no such source. DataError: the file is no hash list.
    """
    if name.endswith(".json"):
        return ContaminationIndex.load(Path(name))
    return build_source(name, 0)


def without_contaminated(source: TaskSource, evaluation: Sequence[str]) -> TaskSource:
    """Return a source without the training tasks that stand among evaluation tasks.

    Args:
        source: Any finite one; if `evaluation` is empty it is returned as it is.
        evaluation: Names of sources or hash lists; see `held_out`.

    Raises:
        ConfigError, DataError: As `check_contamination`; or no training task is left.
    """
    if not evaluation:
        return source
    report = check_contamination(source, map(held_out, evaluation))
    matches = report.found
    train = [task for task in all_tasks(source, "train") if task.id not in matches]
    if not train:
        raise DataError(
            f"every training task stands among {', '.join(evaluation)}. Train on"
            " another source."
        )
    num_test = source.num_tasks("test") or 0
    test = [source.task("test", index) for index in range(num_test)]
    # Any source may have these attributes, and none must.
    skipped = dict(getattr(source, "skipped", {}))
    skipped["stands in held-out tasks"] = len(matches)
    return TaskTable(
        name=getattr(source, "name", str(source)),
        tasks={"train": train, "test": test},
        skipped=skipped,
        default_agents=getattr(source, "default_agents", "none"),
        weights=getattr(source, "weights", {}),
    )


def all_tasks(source: TaskSource, split: Split) -> Iterator[Task]:
    """Yield every task of a split.

    Raises:
        ConfigError: The source is endless. DataError: the split is empty, so nothing
            would be compared.
    """
    size = source.num_tasks(split)
    if size is None:
        raise ConfigError(
            f"{source!r} is endless, so its tasks cannot be listed. Choose a finite"
            " source."
        )
    # An empty split says so itself when it is asked for a task.
    yield from (source.task(split, index) for index in range(size or 1))


def _hashes(text: str) -> list[str]:
    """Return hashes of a text, and of every run of words in it, each once.

    Case, spacing and punctuation do not count.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    num_runs = len(words) - NUM_WORDS + 1
    runs = {" ".join(words[start : start + NUM_WORDS]) for start in range(num_runs)}
    # Without blanks: two texts that differ in "x+1" and "x + 1" are the same.
    whole = "".join(words)
    return [_hash(part) for part in (whole, *sorted(runs))]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES).hexdigest()
