"""Whether training tasks stand among evaluation tasks: by their whole text, or by
thirteen words in a row.

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
"""Words in a row that stand in so many evaluation tasks are a stock phrase and betray
nothing.
"""
# Scripts without spaces between words count by the character.
_WORD = re.compile(r"[\u3040-\u9fff]|[^\W_\u3040-\u9fff]+")


@dataclass(frozen=True, eq=False)
class ContaminationIndex:
    """Hashes of evaluation tasks, of whole texts and of every thirteen words in a row,
    each with a task's id.
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
            if text not in texts:
                texts[text] = task.id
                counts.update(runs)
                words |= dict.fromkeys(runs, task.id)
        rare = {
            run: task_id for run, task_id in words.items() if counts[run] < STOCK_PHRASE
        }
        return cls(len(texts), texts | rare)

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
            if row["num_words"] != NUM_WORDS:
                raise ValueError(
                    f"of {row['num_words']} words in a row, not {NUM_WORDS}"
                )
            return cls(int(row["num_tasks"]), dict(row["hashes"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: no hash list ({message_of(error)}). Make one: aipo tasks"
                " --hashes."
            ) from error


@dataclass(frozen=True, slots=True)
class ContaminationReport:
    """How many tasks were compared; `found` has the ids of training tasks, each with an
    evaluation task's.
    """

    num_train: int
    num_evaluation: int
    found: Mapping[str, str]


def contaminated(tasks: Iterable[Task], index: ContaminationIndex) -> dict[str, str]:
    """Return the ids of the tasks that share text with an evaluation task, each with
    that one's id.
    """
    found = (
        (task.id, filter(None, map(index.hashes.get, _hashes(task.prompt))))
        for task in tasks
    )
    return {
        task_id: match for task_id, matches in found if (match := next(matches, None))
    }


def check_contamination(
    train: TaskSource, evaluation: Iterable[TaskSource | ContaminationIndex]
) -> ContaminationReport:
    """Compare the training tasks of a source with the test tasks of others, or with
    hash lists of such.

    Raises:
        ConfigError: A source is endless. DataError: one has no such tasks.
    """
    tasks = list(all_tasks(train, "train"))
    found: dict[str, str] = {}
    num_evaluation = 0
    for other in evaluation:
        if not isinstance(other, ContaminationIndex):
            other = ContaminationIndex.from_tasks(all_tasks(other, "test"))
        num_evaluation += other.num_tasks
        found = contaminated(tasks, other) | found
    return ContaminationReport(len(tasks), num_evaluation, found)


def held_out(name: str) -> "TaskSource | ContaminationIndex":
    """Return what a task source's spec or a hash list's path names.

    Raises:
        ConfigError: There is no such source. DataError: the file is no hash list.
    """
    return (
        ContaminationIndex.load(Path(name))
        if name.endswith(".json")
        else build_source(name, 0)
    )


def without_contaminated(source: TaskSource, evaluation: Sequence[str]) -> TaskSource:
    """Return the source without the training tasks that share text with what `held_out`
    reads by these names.

    Raises:
        ConfigError, DataError: As `check_contamination`; or no training task is left.
    """
    if not evaluation:
        return source
    found = check_contamination(source, map(held_out, evaluation)).found
    train = [task for task in all_tasks(source, "train") if task.id not in found]
    if not train:
        raise DataError(
            f"every training task stands among {', '.join(evaluation)}. Train on"
            " another source."
        )
    test = [
        source.task("test", index) for index in range(source.num_tasks("test") or 0)
    ]
    skipped = {**getattr(source, "skipped", {}), "stands in held-out tasks": len(found)}
    return TaskTable(
        getattr(source, "name", str(source)),
        {"train": train, "test": test},
        skipped,
        getattr(source, "default_agents", "none"),
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
    """Return hashes of a text and of every run of words in it; case, spacing and
    punctuation do not count.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    runs = {
        " ".join(words[start : start + NUM_WORDS])
        for start in range(len(words) - NUM_WORDS + 1)
    }
    whole = "".join(words)
    return [
        hashlib.blake2b(part.encode(), digest_size=8).hexdigest()
        for part in (whole, *sorted(runs))
    ]
