"""GEM: its `AsyncVectorEnv`, a thread for each environment, in lock step."""

import sys
import time
from pathlib import Path
from typing import Any

from gem.core import Env
from gem.vector.async_vector_env import AsyncVectorEnv
from gem.vector.vector_env import AutoresetMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from workload import Load, Slots, clock, parse_load, report


class ConsultEnv(Env):
    """Answers a call after as long as the load says; a turn without a call is the
    answer.
    """

    def __init__(self, load: Load) -> None:
        super().__init__()
        self.load = load

    def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        return "1 + 0 = ?", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action.startswith("<knowledge>"):
            time.sleep(self.load.delay_s(action))
            return "It holds.", 0.0, False, False, {}
        return "", float("\\boxed{1}" in action), True, False, {}


def run(load: Load) -> None:
    envs = AsyncVectorEnv(
        ["consult"] * load.slots,
        [lambda: ConsultEnv(load)] * load.slots,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    envs.reset(seed=load.seed)
    envs.step(["\\boxed{1}"] * load.slots)
    slots = Slots(load)
    with clock() as measured:
        while slots.num_finished < load.episodes:
            _, _, terminated, _, _ = envs.step(
                [slots.act(slot) for slot in range(load.slots)]
            )
            for slot, is_over in enumerate(terminated.tolist()):
                slots.observe(slot, is_over)
    report(load, measured, slots.num_finished, slots.num_consults)


if __name__ == "__main__":
    run(parse_load()[0])
