"""Write `envs_data/toy/tasks.jsonl`: problems of the toy world with seed 0, as an example of a task file.

python -m envs_data.prepare.toy_tasks && python -m envs_data.prepare.manifest
"""

import json
from pathlib import Path

from aipo_env import ToySource, World

FOLDER = Path(__file__).parent.parent / "toy"


def main() -> None:
    """Write twelve training and twelve test problems, four of each kind of bottleneck."""
    source = ToySource(World(seed=0))
    rows = []
    for split in ("train", "test"):
        for index in range(12):
            task = source.task(split, index)
            rows.append(
                {
                    "id": task.id,
                    "prompt": task.prompt,
                    "answer": task.answer,
                    "kind": task.kind,
                    "meta": dict(task.meta),
                    "source": task.source,
                    "licence": task.licence,
                    "split": split,
                }
            )
    FOLDER.mkdir(exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (FOLDER / "tasks.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
