"""Generated puzzles of the library reasoning-gym."""

from typing import Any

from aipo_env.errors import ConfigError
from aipo_env.records import Task
from aipo_env.tasks.base import TaskTable
from aipo_env.tasks.rows import need


def reasoning_gym_source(
    name: str, size: int = 500, num_test: int = 100, seed: int = 0, **options: Any
) -> TaskTable:
    """Draw `size` training puzzles and, after them, `num_test` others.

    An answer counts when it equals the puzzle's own: the library's scorers are not
    used, since some evaluate what the policy wrote. So choose puzzles with one right
    answer; those without any are left out.

    Args:
        name: A dataset of the library, with its own `options`:
            `reasoning_gym:gcd,size=200`.

    Raises:
        ConfigError: The library is missing, or refuses name or options.
    """
    library = need("reasoning_gym", "reasoning-gym")
    try:
        num_puzzles = size + num_test
        dataset = library.create_dataset(name, size=num_puzzles, seed=seed, **options)
        puzzles = list(dataset)
    except Exception as error:  # whatever its many datasets make of options
        raise ConfigError(
            f"reasoning_gym:{name}, {options!r}: the library refuses ({error})."
        ) from error
    # By the question: small worlds draw the same puzzle often. The last one stays, so
    # that a puzzle of both parts is for tests.
    tasks: dict[str, Task] = {}
    for index, puzzle in enumerate(puzzles):
        answer = puzzle["answer"]
        if not isinstance(answer, str) or not answer.strip():
            continue
        tasks[puzzle["question"]] = Task(
            id=f"{name}-{seed}-{index}",
            prompt=puzzle["question"],
            answer=answer,
            meta={"is_test": index >= size},
            source=f"reasoning-gym/{name}",
            licence="Apache-2.0",
        )
    if not tasks:
        raise ConfigError(
            f"reasoning_gym:{name}: none of its puzzles has an answer. Choose another"
            " dataset."
        )
    train: list[Task] = []
    test: list[Task] = []
    for task in tasks.values():
        part = test if task.meta["is_test"] else train
        part.append(task)
    skipped = {"repeated, or without an answer": len(puzzles) - len(tasks)}
    return TaskTable(f"reasoning_gym:{name}", {"train": train, "test": test}, skipped)
