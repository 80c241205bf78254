"""An environment: tasks of your own, and an id for them."""

import gymnasium as gym
import numpy as np

from aipo_chem.tool import MASSES
from aipo_env import Split, Task


class MolarMasses:
    """Endless: the molar mass of a made-up molecule. Train has even counts of its last
    atom, test odd ones.
    """

    def num_tasks(self, split: Split) -> None:
        return None

    def task(self, split: Split, index: int) -> Task:
        rng = np.random.default_rng([index, 11])
        counts = dict(
            zip(MASSES, (1 + rng.integers(60, size=len(MASSES))).tolist(), strict=True)
        )
        counts["S"] = 2 * counts["S"] + (split == "test")
        formula = "".join(f"{symbol}{count}" for symbol, count in counts.items())
        mass = sum(MASSES[symbol] * count for symbol, count in counts.items())
        return Task(
            id=f"chem-{formula}",
            prompt=f"Molar mass of {formula}, in g/mol?",
            answer=str(mass),
        )


options = {"source": "chem", "agents": "chemist", "tools": ["atomic_mass"]}
gym.register("Chem/AIPO-Masses-Turn-v0", entry_point="aipo_env:TurnEnv", kwargs=options)
gym.register("Chem/AIPO-Masses-v0", entry_point="aipo_env:TokenEnv", kwargs=options)
