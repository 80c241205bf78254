"""Grades labelled answers with `MathVerifier` and with what else is used for it.

    python benchmarks/math_grading.py                            # our own cases
    python benchmarks/math_grading.py --public FILE --mix FILE   # and files of yours

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

DATA = Path(__file__).parents[1] / "tests/env/data"
OWN = DATA / "math_cases.jsonl"
REPLIES = DATA / "replies.jsonl"
"""Whole replies, half of them wrong, of which the answer must be read first."""
PEER_LIMIT_S = 5.0
"""Seconds a peer may take for an answer."""
BOMB_LIMIT_S = 1.5
"""An answer made to take long is graded late after as many."""
TIERS = ("core", "spoof", "injection", "bomb")
"""Honest answers; wrong ones that look right; programs; ones that take for ever."""
MAX_RULE_CHARS = 2000
"""The end of a response that the string rules look at."""
MAX_FRACTION_CHARS = 200
HELD_OUT = 3
"""One row in so many, by a hash of its id, is held out from development."""
Grader = Callable[[dict[str, Any]], bool | None]
"""Grades a row: right or not; None: it took too long."""


def is_marked(row: dict[str, Any]) -> bool:
    """Return whether a row's text marks its answer, and is not the answer alone."""
    return row["form"] == "response" or "boxed" in row["pred"]


class Ours:
    """`MathVerifier`, one answer at a time.

    Args:
        unmarked: As `MathVerifier`'s; the other graders read unmarked answers, too.
    """

    def __init__(self, unmarked: bool = True) -> None:
        self.verifier = MathVerifier(unmarked)
        self.loop = asyncio.new_event_loop()

    def __call__(self, row: dict[str, Any]) -> bool | None:
        if is_marked(row):
            task = Task(id="t", prompt="p", answer=row["gold"])
            work = self.verifier.verify(task, row["pred"])
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
        pred = row["pred"] if is_marked(row) else f"${row['pred']}$"
        return bool(verify(gold, parse(pred)))

    return grade


def trl_grader() -> Grader:
    """TRL's accuracy reward."""
    from trl.rewards import accuracy_reward

    def grade(row: dict[str, Any]) -> bool | None:
        text = row["pred"]
        if not is_marked(row):
            text = f"\\boxed{{{text}}}"  # it reads marked answers only
        completion = [{"role": "assistant", "content": text}]
        rewards = accuracy_reward([completion], [f"${row['gold']}$"])
        return bool(rewards[0])

    return grade


def string_rules_grader() -> Grader:
    """Rules in the manner of prm800k: equal texts, but for ornament, or numbers."""
    boxed = re.compile(
        r"""
        \\boxed\{            # "\boxed{", then
        (
            [^{}]*            # text without braces
            (?:\{[^{}]*\}      # and braces, one within the other no further,
            [^{}]*)*          # as in "\frac{1}{2}"
        )
        \}
        """,
        re.VERBOSE,
    )
    ornament = re.compile(
        r"""
        \\(?:left|right|[,;!\ ])   # "\left", "\right", and spaces such as "\,"
        | \\text\{[^{}]*\}         # "\text{ cm}"
        | [\s$]                     # blanks, and "$"
        | \\%                       # "\%"
        | %
        | \^\{?\\circ\}?            # degrees: "^\circ", "^{\circ}"
        """,
        re.VERBOSE,
    )

    def strip(text: str) -> str:
        answers = boxed.findall(text)
        if answers:
            text = answers[-1]
        text = ornament.sub("", text)
        return re.sub(r"\\[dt]frac", r"\\frac", text).rstrip(".")

    def value(text: str) -> Fraction | None:
        text = re.sub(r"\\frac\{(-?\d{1,99})\}\{(\d{1,99})\}", r"\1/\2", text)
        text = text.replace(",", "")
        # An exponent may name more digits than there is memory.
        if len(text) >= MAX_FRACTION_CHARS or "e" in text.lower():
            return None
        try:
            return Fraction(text)
        except (ValueError, ZeroDivisionError):
            return None

    def grade(row: dict[str, Any]) -> bool | None:
        gold = strip(row["gold"])
        pred = strip(row["pred"][-MAX_RULE_CHARS:])
        if gold == pred:
            return True
        gold_value = value(gold)
        return gold_value is not None and gold_value == value(pred)

    return grade


def _serve(factory: Callable[[], Grader], pipe: Any) -> None:
    grader = factory()
    pipe.send(None)  # its libraries are loaded, which does not count
    while True:
        row = pipe.recv()
        try:
            pipe.send(grader(row))
        except Exception:
            pipe.send(False)


class Killable:
    """A grader in a spawned process that is killed after a limit and started anew."""

    def __init__(self, factory: Callable[[], Grader], limit_s: float) -> None:
        self.factory = factory
        self.limit_s = limit_s
        self.process: Any = None

    def __call__(self, row: dict[str, Any]) -> bool | None:
        if self.process is None:
            # A fresh interpreter: a fork would share what this one has loaded.
            spawn = mp.get_context("spawn")
            self.pipe, servers = spawn.Pipe()
            self.process = spawn.Process(
                target=_serve, args=(self.factory, servers), daemon=True
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
    core_times = []
    slowest = 0.0
    wrong = []
    for row in rows:
        start = time.perf_counter()
        grade = grader(row)
        seconds = time.perf_counter() - start
        tier = row["tier"]
        # To give up on a wrong answer is as good as to refuse it.
        is_rightly_late = grade is None and not row["expected"]
        right = grade is row["expected"] or is_rightly_late
        counts[f"{tier} n"] += 1
        counts[f"{tier} right"] += right
        if tier == "core":
            core_times.append(seconds)
            counts["FN" if row["expected"] else "FP"] += not right
            held_out = zlib.crc32(row["id"].encode()) % HELD_OUT == 0
            counts["held-out n"] += held_out
            counts["held-out right"] += held_out and right
        elif tier == "bomb":
            slowest = max(slowest, seconds)
            counts["bomb late"] += seconds > BOMB_LIMIT_S
        if not right:
            wrong.append(row["id"])
    core_times.sort()
    rate: float = 0
    high_ms: float = 0
    if core_times:
        rate = round(len(core_times) / sum(core_times), 1)
        high = core_times[int(len(core_times) * 0.99)]
        high_ms = round(high * 1000, 1)
    return {
        **counts,
        "core/s": rate,
        "p99 ms": high_ms,
        "slowest bomb s": round(slowest, 2),
        "wrong": wrong,
    }


def per_second(grader: Grader, rows: list[dict[str, Any]]) -> str:
    """Return answers per second, and per second of this process's own work."""
    start = time.perf_counter()
    start_cpu = time.process_time()
    for row in rows:
        grader(row)
    rate = len(rows) / (time.perf_counter() - start)
    own_rate = len(rows) / (time.process_time() - start_cpu)
    return f"{rate:,.0f} ({own_rate:,.0f} per CPU second of this process)"


async def verify_all(rows: list[dict[str, Any]]) -> None:
    verifier = MathVerifier()
    for row in rows:
        task = Task(id="t", prompt="p", answer=row["gold"])
        await verifier.verify(task, row["pred"])


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
                right = result[f"{column} right"]
                total = result[f"{column} n"]
                share = ""
                if column in ("core", "held-out"):
                    share = f" ({100 * right / total:.1f} %)"
                cells.append(f"{right}/{total}{share}")
            else:
                cells.append(str(result.get(column, "–")))  # no row of that tier
        print(f"| {label} | {' | '.join(cells)} |", flush=True)
        if verbose:
            print("   wrong:", " ".join(result["wrong"]))


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file that count."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("tier", "core") in TIERS:
            rows.append(row)
    return rows


def _integers() -> list[dict[str, Any]]:
    """Return whole numbers to grade, one in three of them wrong; each ten times."""
    rows = []
    for n in range(1000):
        answer = n + 1 if n % 3 == 0 else n
        pred = f"So \\boxed{{{answer}}}."
        rows.append({"gold": str(n), "pred": pred, "form": "response"})
    return rows * 10


def main() -> None:
    """Grade everything, and print the tables."""
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
    ours = Ours()
    graders: dict[str, Grader] = {"ours": ours}
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
    # The pool is warm from here.
    graders["ours"]({"gold": "x+1", "pred": "1+x", "form": "answer"})
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "executed"
        own = []
        for row in read(OWN):
            pred = row["pred"].replace("/tmp/aipo_pwned", str(canary))
            own.append(row | {"pred": pred})
        in_process = {}
        elsewhere = {}
        for label, grader in graders.items():
            group = in_process if "in process" in label else elsewhere
            group[label] = grader
        show("own cases", own, elsewhere, verbose=options.verbose)
        # In this process nothing could end a peer that a bomb holds in native code.
        if in_process:
            harmless = [row for row in own if row["tier"] != "bomb"]
            name = "own cases without bombs"
            show(name, harmless, in_process, verbose=options.verbose)
        print("injections executed:", int(canary.exists()))
    # As in training: an answer that nothing marks is none.
    strict = {"ours": Ours(unmarked=False)}
    replies = {**graders, **strict}
    show("answers as they are written", read(REPLIES), replies, verbose=options.verbose)
    if options.public:
        rows = read(options.public)
        show(options.public.stem, rows, graders, verbose=options.verbose)
    print("\n## Speed, answers/s")
    integers = _integers()
    start = time.perf_counter()
    start_cpu = time.process_time()
    ours.loop.run_until_complete(verify_all(integers))
    rate = len(integers) / (time.perf_counter() - start)
    own_rate = len(integers) / (time.process_time() - start_cpu)
    print(f"AIME integers: {rate:,.0f} ({own_rate:,.0f} per CPU second)")
    if options.mix:
        mix = read(options.mix)
        for label, grader in graders.items():
            print(f"mix, {label}:", per_second(grader, mix))


if __name__ == "__main__":
    main()
