"""Write `envs_data/toy/tasks.jsonl`: problems of the toy world, as an example.

python -m envs_data.prepare.toy_tasks && python -m envs_data.prepare.manifest
"""

import json
from pathlib import Path
from typing import Any

from aipo_env import ToySource, World

FOLDER = Path(__file__).parent.parent / "toy"
NUM_TASKS = 12
"""Of each split: kinds of bottleneck take turns, so four of each."""


def main() -> None:
    """Write the training and the test problems of the world with seed 0."""
    source = ToySource(World(seed=0))
    rows: list[dict[str, Any]] = []
    for split in ("train", "test"):
        for index in range(NUM_TASKS):
            task = source.task(split, index)
            row = {
                "id": task.id,
                "prompt": task.prompt,
                "answer": task.answer,
                "kind": task.kind,
                "meta": dict(task.meta),
                "source": task.source,
                "licence": task.licence,
                "split": split,
            }
            rows.append(row)
    FOLDER.mkdir(exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (FOLDER / "tasks.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
