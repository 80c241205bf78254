"""The work every system is given: episodes that consult an agent which takes its time.

Each consults 1 to 5 times. Imported by programs in other virtual environments, so only
the standard library is used here. A system's program takes `--slots 64 --episodes 1280
[--tail] [--delay-s 0.05] [--seed 0]` and prints one JSON object, as `report` makes it.
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
"""Seconds of a reply."""
TAIL_SHARE = 0.1
"""The share of replies that are slow, where there are any."""
TAIL_FACTOR = 10
"""How many times as long those take."""
MAX_CONSULTS = 5
"""In an episode; each number from 1 on is as likely."""
_PARENT = 1
"""Place in /proc/PID/stat, counted from behind the command's name; see proc(5)."""
_USER_TICKS = 11
"""The same, of the time it ran its own code; in ticks of the clock."""
_SYSTEM_TICKS = 12
"""The same, of the time the kernel ran for it."""


class Load:
    """How many consultations each episode makes, and how long each takes.

    Equal arguments give an equal load.

    Args:
        slots: Episodes at once.
        episodes: Episodes in all.
        tail: Whether some replies are slow.
        seed: Of the draws.
        delay_s: Seconds of a reply that is not.
    """

    def __init__(
        self, slots: int, episodes: int, tail: bool, seed: int, delay_s: float
    ) -> None:
        rng = random.Random(seed)
        self.slots = slots
        self.episodes = episodes
        self.seed = seed
        self.delays_s: list[list[float]] = []
        for _ in range(episodes):
            num_consults = rng.randint(1, MAX_CONSULTS)
            delays = []
            for _ in range(num_consults):
                is_slow = tail and rng.random() < TAIL_SHARE
                delays.append(delay_s * TAIL_FACTOR if is_slow else delay_s)
            self.delays_s.append(delays)

    def num_consults(self, episode: int) -> int:
        """Return how often an episode consults before it answers."""
        return len(self.delays_s[episode])

    def turn(self, episode: int, num_turns: int) -> str:
        """Return what the policy says after so many turns; the query names the call."""
        if num_turns < self.num_consults(episode):
            return f"<knowledge>{episode}.{num_turns}</knowledge>"
        return "\\boxed{1}"

    def delay_s(self, turn: str) -> float:
        """Return how long the agent takes for a call, or for its query alone."""
        query = turn.removeprefix("<knowledge>").removesuffix("</knowledge>")
        episode, call = query.split(".")
        return self.delays_s[int(episode)][int(call)]

    @property
    def bound(self) -> float:
        """Episodes per second if nothing but the agent took time."""
        total_s = sum(sum(delays) for delays in self.delays_s)
        return self.slots * self.episodes / total_s


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
    """The policy of a vector environment: the episode and the turn of each slot."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.num_started = 0
        self.num_finished = 0
        self.num_consults = 0
        self.episode = [0] * load.slots
        self.turns = [0] * load.slots
        for slot in range(load.slots):
            self.begin(slot)

    def begin(self, slot: int) -> None:
        """Give a slot its next episode."""
        # They start over when all were given out, so that no slot runs empty.
        self.episode[slot] = self.num_started % self.load.episodes
        self.turns[slot] = 0
        self.num_started += 1

    def act(self, slot: int) -> str:
        """Return a slot's next turn."""
        return self.load.turn(self.episode[slot], self.turns[slot])

    def observe(self, slot: int, is_over: bool) -> None:
        """Take note that a turn was taken."""
        if is_over:
            self.num_finished += 1
            # The last turn, the answer, is not counted in `turns`.
            self.num_consults += self.turns[slot]
            self.begin(slot)
        else:
            self.turns[slot] += 1


@contextmanager
def clock() -> Iterator[dict[str, float]]:
    """Measure wall and CPU seconds of the block, those of child processes included.

    Children count where there is a /proc.
    """
    measured: dict[str, float] = {}
    start = time.perf_counter()
    start_cpu = _cpu_s()
    yield measured
    measured["wall_s"] = time.perf_counter() - start
    measured["cpu_s"] = _cpu_s() - start_cpu


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
            # The command's name stands in brackets, and may hold brackets and blanks.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[_PARENT]) == os.getpid():
            ticks += int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")
