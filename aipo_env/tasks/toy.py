"""The toy world as a task source: generated, endless, offline."""

from collections.abc import Sequence
from dataclasses import dataclass

from aipo_env.records import CONSULT_KINDS, Split, Task
from aipo_env.toy.world import World


@dataclass(frozen=True)
class ToySource:
    """Problems of one world."""

    world: World
    default_agents = "scripted"

    def num_tasks(self, split: Split) -> int | None:
        """Endless."""
        return None

    def task(self, split: Split, index: int) -> Task:
        """Return problem `index`; kinds of bottleneck take turns."""
        problem = self.world.problem(split, index)
        kind = self.world.kinds[index % len(self.world.kinds)]
        return Task(
            id=f"toy-{self.world.seed}-{split}-{index}",
            prompt=problem.text,
            answer=problem.answer,
            meta={"bottleneck": kind, "difficulty": self.world.difficulty},
            source="toy",
            licence="Apache-2.0",
        )


def toy_source(
    seed: int = 0,
    num_operators: int = 4,
    difficulty: int = 1,
    kinds: Sequence[str] | str = CONSULT_KINDS,
) -> ToySource:
    """Build the source from the fields of `World`."""
    return ToySource(World(seed, num_operators, difficulty, kinds))  # type: ignore[arg-type]
