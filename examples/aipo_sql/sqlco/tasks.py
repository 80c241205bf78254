"""Tasks: questions in the company's own words, which the glossary explains."""

from aipo_env import Split, Task
from sqlco.company import DEPARTMENTS, REGIONS, YEARS

TEMPLATES = (
    (
        "Name the active customers in region {}.",
        "SELECT name FROM customer WHERE status = 2 AND region = '{}'",
        REGIONS,
    ),
    (
        "Name the customers with a big order in {}.",
        (
            "SELECT DISTINCT name FROM customer JOIN orders ON customer_id ="
            " customer.id WHERE cents >= 700 AND year = {}"
        ),
        YEARS,
    ),
    (
        "Name the seniors in department {}.",
        "SELECT name FROM staff WHERE grade >= 6 AND department = '{}'",
        DEPARTMENTS,
    ),
)


class SqlTasks:
    """Every question is in one split: each template's last value is held out."""

    def __init__(self) -> None:
        self._tasks: dict[Split, list[Task]] = {"train": [], "test": []}
        for question, query, values in TEMPLATES:
            for value in values:
                split: Split = "test" if value == values[-1] else "train"
                self._add(split, question.format(value), query.format(value))

    def num_tasks(self, split: Split) -> int:
        return len(self._tasks[split])

    def task(self, split: Split, index: int) -> Task:
        tasks = self._tasks[split]
        return tasks[index % len(tasks)]

    def _add(self, split: Split, question: str, query: str) -> None:
        number = sum(map(len, self._tasks.values()))
        task = Task(
            id=f"sql-{number}",
            prompt=question,
            answer=query,
            kind="sql",
            meta={"seed": number},  # each task has rows of its own
        )
        self._tasks[split].append(task)
