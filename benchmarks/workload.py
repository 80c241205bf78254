"""The work every system is given: episodes of 1 to 5 consultations of an agent that
takes its time.

Imported by programs in other virtual environments, so only the standard library is used
here. A system's program takes `--slots 64 --episodes 1280 [--tail] [--delay-s 0.05]
[--seed 0]` and prints one JSON object, as `report` makes it.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DELAY_S = 0.05
TAIL_SHARE, TAIL_FACTOR = 0.1, 10


class Load:
    """How many consultations each episode makes and how long each takes; equal
    arguments, equal load.
    """

    def __init__(
        self, slots: int, episodes: int, tail: bool, seed: int, delay_s: float
    ) -> None:
        rng = random.Random(seed)
        self.slots, self.episodes, self.seed = slots, episodes, seed
        self.delays_s = [
            [
                delay_s * (TAIL_FACTOR if tail and rng.random() < TAIL_SHARE else 1)
                for _ in range(rng.randint(1, 5))
            ]
            for _ in range(episodes)
        ]

    def num_consults(self, episode: int) -> int:
        """Return how often an episode consults before it answers."""
        return len(self.delays_s[episode])

    def turn(self, episode: int, num_turns: int) -> str:
        """Return what the policy says after so many turns; the query names the call."""
        if num_turns < self.num_consults(episode):
            return f"<knowledge>{episode}.{num_turns}</knowledge>"
        return "\\boxed{1}"

    def delay_s(self, turn: str) -> float:
        """Return how long the agent takes for the call in a turn, or for its query
        alone.
        """
        episode, call = (
            turn.removeprefix("<knowledge>").removesuffix("</knowledge>").split(".")
        )
        return self.delays_s[int(episode)][int(call)]

    @property
    def bound(self) -> float:
        """Episodes per second if nothing but the agent took time."""
        return self.slots * self.episodes / sum(map(sum, self.delays_s))


def parse_load(**more: dict[str, Any]) -> tuple[Load, argparse.Namespace]:
    """Read the command line; `more` are further options for argparse."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=1280)
    parser.add_argument("--tail", action="store_true")
    parser.add_argument("--delay-s", type=float, default=DELAY_S)
    parser.add_argument("--seed", type=int, default=0)
    for name, settings in more.items():
        parser.add_argument(f"--{name}", **settings)
    options = parser.parse_args()
    load = Load(
        options.slots, options.episodes, options.tail, options.seed, options.delay_s
    )
    return load, options


class Slots:
    """The policy of a vector environment: which episode each slot plays and at which
    turn it is.
    """

    def __init__(self, load: Load) -> None:
        self.load, self.num_started, self.num_finished, self.num_consults = (
            load,
            0,
            0,
            0,
        )
        self.episode, self.turns = [0] * load.slots, [0] * load.slots
        for slot in range(load.slots):
            self.begin(slot)

    def begin(self, slot: int) -> None:
        """Give a slot its next episode; the episodes start over when all have been
        given out.
        """
        self.episode[slot], self.turns[slot] = self.num_started % self.load.episodes, 0
        self.num_started += 1

    def act(self, slot: int) -> str:
        """Return a slot's next turn."""
        return self.load.turn(self.episode[slot], self.turns[slot])

    def observe(self, slot: int, is_over: bool) -> None:
        """Take note that a turn was taken."""
        if is_over:
            self.num_finished += 1
            self.num_consults += self.turns[slot]
            self.begin(slot)
        else:
            self.turns[slot] += 1


@contextmanager
def clock() -> Iterator[dict[str, float]]:
    """Measure wall and CPU seconds of the block, child processes included where /proc
    tells.
    """
    measured: dict[str, float] = {}
    start, start_cpu = time.perf_counter(), _cpu_s()
    yield measured
    measured["wall_s"], measured["cpu_s"] = (
        time.perf_counter() - start,
        _cpu_s() - start_cpu,
    )


def report(
    load: Load, measured: dict[str, float], episodes: int, consults: int
) -> None:
    """Print the result line."""
    row = {"episodes": episodes, "consults": consults, "bound": load.bound, **measured}
    row["rate"] = episodes / row["wall_s"]
    print(json.dumps(row))


def _cpu_s() -> float:
    """CPU seconds of this process and its living children."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")
