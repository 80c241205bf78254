"""Generated puzzles of the library reasoning-gym."""

from typing import Any

from aipo_env.errors import ConfigError
from aipo_env.records import Task
from aipo_env.tasks.base import TaskTable
from aipo_env.tasks.rows import need


def reasoning_gym_source(
    name: str, size: int = 500, num_test: int = 100, seed: int = 0, **options: Any
) -> TaskTable:
    """Draw `size` training puzzles and, after them, `num_test` others:
    `reasoning_gym:gcd,size=200`.

    An answer counts when it equals the puzzle's own: the library's scorers are not
    used, since some evaluate what the policy wrote. So choose puzzles with one right
    answer; those without any are left out.

    Args:
        name: A dataset of the library, with its own `options`.

    Raises:
        ConfigError: The library is missing, or refuses name or options.
    """
    library = need("reasoning_gym", "reasoning-gym")
    try:
        drawn = list(
            library.create_dataset(name, size=size + num_test, seed=seed, **options)
        )
    except Exception as error:  # whatever its many datasets make of options
        raise ConfigError(
            f"reasoning_gym:{name}, {options!r}: the library refuses ({error})."
        ) from error
    tasks = {
        entry["question"]: Task(
            id=f"{name}-{seed}-{index}",
            prompt=entry["question"],
            answer=entry["answer"],
            meta={"is_test": index >= size},
            source=f"reasoning-gym/{name}",
            licence="Apache-2.0",
        )
        for index, entry in enumerate(drawn)
        if isinstance(entry["answer"], str) and entry["answer"].strip()
    }
    if not tasks:
        raise ConfigError(
            f"reasoning_gym:{name}: none of its puzzles has an answer. Choose another"
            " dataset."
        )
    train = [task for task in tasks.values() if not task.meta["is_test"]]
    test = [task for task in tasks.values() if task.meta["is_test"]]
    skipped = {"repeated, or without an answer": len(drawn) - len(tasks)}
    return TaskTable(f"reasoning_gym:{name}", {"train": train, "test": test}, skipped)
