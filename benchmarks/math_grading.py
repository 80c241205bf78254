"""Grades labelled answers with `MathVerifier` and with what else is used for it, side
by side.

    python benchmarks/math_grading.py                            # our own cases
    python benchmarks/math_grading.py --public FILE --mix FILE   # and labelled files of yours

A file holds lines of {"gold", "pred", "form": "answer" | "response", "expected",
"tier", "id"}; rows of the tiers core, spoof, injection and bomb count. `--mix` is timed
only. Every peer may take five seconds an answer, `ours` has its own deadline. A peer
whose library is not installed is left out. Latencies include the queue.
"""

import argparse
import asyncio
import json
import multiprocessing as mp
import os
import re
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from aipo_env import MathVerifier, Task

OWN = Path(__file__).parents[1] / "tests/env/data/math_cases.jsonl"
PEER_LIMIT_S, BOMB_LIMIT_S = 5.0, 1.5
Grader = Callable[[dict[str, Any]], bool | None]


class Ours:
    """`MathVerifier`, one answer at a time."""

    def __init__(self) -> None:
        self.verifier = MathVerifier(unmarked=True)
        self.loop = asyncio.new_event_loop()

    def __call__(self, row: dict[str, Any]) -> bool | None:
        if row["form"] == "response" or "boxed" in row["pred"]:
            work = self.verifier.verify(
                Task(id="t", prompt="p", answer=row["gold"]), row["pred"]
            )
        else:
            work = self.verifier.grade(row["gold"], row["pred"])
        verdict = self.loop.run_until_complete(work)
        return None if verdict.status == "timeout" else bool(verdict.correct)


def math_verify_grader() -> Grader:
    """math-verify as its documentation calls it, in this process, its own alarms on."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.WARNING)

    def grade(row: dict[str, Any]) -> bool | None:
        gold = parse(f"${row['gold']}$")
        pred = (
            row["pred"]
            if row["form"] == "response" or "boxed" in row["pred"]
            else f"${row['pred']}$"
        )
        return bool(verify(gold, parse(pred)))

    return grade


def trl_grader() -> Grader:
    """TRL's accuracy reward."""
    from trl.rewards import accuracy_reward

    def grade(row: dict[str, Any]) -> bool | None:
        is_marked = row["form"] == "response" or "boxed" in row["pred"]
        text = (
            row["pred"] if is_marked else f"\\boxed{{{row['pred']}}}"
        )  # it reads marked answers only
        rewards = accuracy_reward(
            [[{"role": "assistant", "content": text}]], [f"${row['gold']}$"]
        )
        return bool(rewards[0])

    return grade


def string_rules_grader() -> Grader:
    """Rules in the manner of prm800k: strip what is ornament, then equal text or equal
    plain numbers.
    """

    def strip(text: str) -> str:
        boxed = re.findall(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", text)
        text = boxed[-1] if boxed else text
        text = re.sub(
            r"\\(?:left|right|[,;! ])|\\text\{[^{}]*\}|[\s$]|\\%|%|\^\{?\\circ\}?",
            "",
            text,
        )
        return re.sub(r"\\[dt]frac", r"\\frac", text).rstrip(".")

    def value(text: str) -> Fraction | None:
        text = re.sub(r"\\frac\{(-?\d{1,99})\}\{(\d{1,99})\}", r"\1/\2", text).replace(
            ",", ""
        )
        try:
            return Fraction(text) if len(text) < 200 else None
        except (ValueError, ZeroDivisionError):
            return None

    def grade(row: dict[str, Any]) -> bool | None:
        gold, pred = strip(row["gold"]), strip(row["pred"][-2000:])
        return gold == pred or (value(gold) is not None and value(gold) == value(pred))

    return grade


def _serve(factory: Callable[[], Grader], pipe: Any) -> None:
    grader = factory()
    pipe.send(None)
    while row := pipe.recv():
        try:
            pipe.send(grader(row))
        except Exception:
            pipe.send(False)


class Killable:
    """A grader in a spawned process that is killed after a limit and started anew."""

    def __init__(self, factory: Callable[[], Grader], limit_s: float) -> None:
        self.factory, self.limit_s = factory, limit_s
        self.process: Any = None

    def __call__(self, row: dict[str, Any]) -> bool | None:
        if self.process is None:
            self.pipe, theirs = mp.get_context("spawn").Pipe()
            self.process = mp.get_context("spawn").Process(
                target=_serve, args=(self.factory, theirs), daemon=True
            )
            self.process.start()
            self.pipe.recv()
        self.pipe.send(row)
        if self.pipe.poll(self.limit_s):
            return self.pipe.recv()
        self.process.kill()
        self.process = None
        return None


def measure(grader: Grader, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Grade all rows; return what was right in each tier, and the times."""
    counts: dict[str, int] = defaultdict(int)
    core_times, slowest, wrong = [], 0.0, []
    for row in rows:
        start = time.perf_counter()
        given = grader(row)
        seconds = time.perf_counter() - start
        tier, right = (
            row["tier"],
            given is row["expected"] or (given is None and not row["expected"]),
        )
        counts[f"{tier} n"] += 1
        counts[f"{tier} right"] += right
        if tier == "core":
            core_times.append(seconds)
            counts["FN" if row["expected"] else "FP"] += not right
            held_out = zlib.crc32(row["id"].encode()) % 3 == 0
            counts["held-out n"] += held_out
            counts["held-out right"] += held_out and right
        elif tier == "bomb":
            slowest = max(slowest, seconds)
            counts["bomb late"] += seconds > BOMB_LIMIT_S
        if not right:
            wrong.append(row["id"])
    core_times.sort()
    return {
        **counts,
        "core/s": round(len(core_times) / sum(core_times), 1) if core_times else 0,
        "p99 ms": (
            round(core_times[int(len(core_times) * 0.99)] * 1000, 1)
            if core_times
            else 0
        ),
        "slowest bomb s": round(slowest, 2),
        "wrong": wrong,
    }


def per_second(grader: Grader, rows: list[dict[str, Any]]) -> str:
    """Return answers per second, and per second of this process's own work."""
    start, own_start = time.perf_counter(), time.process_time()
    for row in rows:
        grader(row)
    wall, own = time.perf_counter() - start, time.process_time() - own_start
    return (
        f"{len(rows) / wall:,.0f} ({len(rows) / own:,.0f} per CPU second of this"
        " process)"
    )


async def verify_all(rows: list[dict[str, Any]]) -> None:
    verifier = MathVerifier()
    for row in rows:
        await verifier.verify(Task(id="t", prompt="p", answer=row["gold"]), row["pred"])


def show(
    name: str, rows: list[dict[str, Any]], graders: dict[str, Grader], *, verbose: bool
) -> None:
    """Print one table."""
    columns = (
        "core",
        "FN",
        "FP",
        "held-out",
        "spoof",
        "injection",
        "bomb",
        "bomb late",
        "core/s",
        "p99 ms",
        "slowest bomb s",
    )
    print(
        f"\n## {name}: {len(rows)} rows\n| grader | {' | '.join(columns)}"
        f" |\n|{'---|' * (len(columns) + 1)}",
        flush=True,
    )
    for label, grader in graders.items():
        result = measure(grader, rows)
        cells = []
        for column in columns:
            if f"{column} n" in result:
                right, total = result[f"{column} right"], result[f"{column} n"]
                share = (
                    f" ({100 * right / total:.1f} %)"
                    if column in ("core", "held-out")
                    else ""
                )
                cells.append(f"{right}/{total}{share}")
            else:
                cells.append(str(result.get(column, "–")))
        print(f"| {label} | {' | '.join(cells)} |", flush=True)
        if verbose:
            print("   wrong:", " ".join(result["wrong"]))


def read(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        row
        for row in rows
        if row.get("tier", "core") in ("core", "spoof", "injection", "bomb")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--public", type=Path, help="a labelled file of yours")
    parser.add_argument(
        "--mix",
        type=Path,
        help="answers to time, say MATH-500's against themselves and each other",
    )
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument(
        "--verbose", action="store_true", help="name the rows that were graded wrong"
    )
    options = parser.parse_args()
    graders: dict[str, Grader] = {"ours": Ours()}
    if not options.only_ours:
        graders["math-verify, in process"] = math_verify_grader()
        graders["math-verify, killed after 5 s"] = Killable(
            math_verify_grader, PEER_LIMIT_S
        )
        graders["string rules"] = string_rules_grader()
        try:
            import trl  # noqa: F401

            graders["TRL accuracy reward, killed after 5 s"] = Killable(
                trl_grader, PEER_LIMIT_S
            )
        except ImportError:
            print("TRL is not installed: its accuracy reward is left out.")
    graders["ours"](
        {"gold": "x+1", "pred": "1+x", "form": "answer"}
    )  # the pool is warm from here
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "executed"
        own = [
            row | {"pred": row["pred"].replace("/tmp/aipo_pwned", str(canary))}
            for row in read(OWN)
        ]
        in_process = {
            label: grader for label, grader in graders.items() if "in process" in label
        }
        show(
            "own cases",
            own,
            {k: v for k, v in graders.items() if k not in in_process},
            verbose=options.verbose,
        )
        if (
            in_process
        ):  # where nothing could end a peer that a bomb holds in native code
            harmless = [row for row in own if row["tier"] != "bomb"]
            show(
                "own cases without bombs", harmless, in_process, verbose=options.verbose
            )
        print("injections executed:", int(canary.exists()))
    if options.public:
        show(
            options.public.stem, read(options.public), graders, verbose=options.verbose
        )
    print("\n## Speed, answers/s")
    integers = [
        {
            "gold": str(n),
            "pred": f"So \\boxed{{{n + (n % 3 == 0)}}}.",
            "form": "response",
        }
        for n in range(1000)
    ] * 10
    start, own_start = time.perf_counter(), time.process_time()
    graders["ours"].loop.run_until_complete(verify_all(integers))  # type: ignore[attr-defined]
    wall, own = time.perf_counter() - start, time.process_time() - own_start
    print(
        f"AIME integers: {len(integers) / wall:,.0f} ({len(integers) / own:,.0f} per"
        " CPU second)"
    )
    if options.mix:
        mix = read(options.mix)
        for label, grader in graders.items():
            print(f"mix, {label}:", per_second(grader, mix))


if __name__ == "__main__":
    main()
