"""Episodes per second with slow agents: this project's environments beside others'.

    python benchmarks/env_throughput.py --venvs ~/.cache/aipo-peers --out result.json

A scripted policy that costs nothing consults 1 to 5 times an episode; the agent takes
50 ms, always or with one reply in ten taking ten times as long. Every system gets the
same numbers of consultations from the same seed, runs in a process of its own, and is
warm when the clock starts. Peers live in virtual environments of their own below
`--venvs`, made at the first run; one that cannot be installed is reported as such.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "peers"
TIMEOUT_S = 900
"""A program that gives no result by then is given up."""
SCENES = ((64, False), (64, True), (512, False), (512, True))
"""Slots, and whether one reply in ten is slow."""


@dataclass(frozen=True)
class System:
    """One row of the table.

    Args:
        name: As the table has it.
        command: A program in the folder of peers, and its arguments.
        episodes_per_slot: Enough that the end, when slots run empty, hardly counts;
            fewer in lock step, where slots never run empty.
        max_slots: More are not asked of it.
        requirement: What to install in a virtual environment of its own; empty: it runs
            in this one.
        slots: So many, whatever the scene has; None: as many.
    """

    name: str
    command: tuple[str, ...]
    episodes_per_slot: int
    requirement: str = ""
    slots: int | None = None
    max_slots: int = 512


SYSTEMS = (
    System("EpisodeRunner", ("run_aipo.py", "--system", "runner"), 20),
    System("VectorEnv send/recv", ("run_aipo.py", "--system", "send_recv"), 20),
    System("VectorEnv step", ("run_aipo.py", "--system", "vector"), 6),
    System("one environment", ("run_aipo.py", "--system", "env"), 20, slots=1),
    System(
        "gymnasium AsyncVectorEnv",
        ("run_aipo.py", "--system", "gymnasium_async"),
        6,
        max_slots=64,
    ),
    System("GEM 0.1.0 AsyncVectorEnv", ("run_gem.py",), 6, "gem-llm==0.1.0"),
    System("verifiers 0.1.9", ("run_verifiers.py",), 20, "verifiers==0.1.9"),
    System("OpenEnv 0.10.0", ("run_openenv.py",), 20, "openenv==0.10.0"),
)
LAG = ("--system", "lag", "--slots", "1000", "--episodes", "5000")
BARE_LAG = ("--system", "bare_lag", "--slots", "1000", "--episodes", "5000")
OWN = {
    "token environment, random policy": (
        "--system",
        "tokens",
        "--slots",
        "1",
        "--episodes",
        "1",
    ),
    "event loop, 1,000 sessions, 1 s agents": (*LAG, "--delay-s", "1"),
    "event loop, 1,000 bare tasks of the same delays and work": (
        *BARE_LAG,
        "--delay-s",
        "1",
    ),
    "event loop, 1,000 sessions, 50 ms agents": LAG,
}
"""What is measured of this project alone, by the arguments of `run_aipo.py`."""


def python_of(system: System, folder: Path, beside: Sequence[str] = ()) -> str:
    """Return the interpreter a system runs in; make its virtual environment if need be.

    Args:
        system: The system.
        folder: Where the virtual environments are.
        beside: What else to install in it.

    Raises:
        RuntimeError: It cannot be installed.
    """
    if not system.requirement:
        return sys.executable
    home = folder / system.requirement
    # Written last, so that an interrupted installation starts again.
    stamp = home / "installed"
    if not stamp.exists():
        venv.create(home, with_pip=True, clear=True)
        command = [
            str(home / "bin/python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            system.requirement,
            *beside,
        ]
        pip = subprocess.run(command, capture_output=True, text=True, check=False)
        if pip.returncode:
            last_line = pip.stderr.strip().splitlines()[-1]
            raise RuntimeError(f"not installed: {last_line}")
        stamp.touch()
    return str(home / "bin/python")


def run(command: list[str]) -> dict[str, Any]:
    """Run one program; return its result line, or what went wrong."""
    try:
        program = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {TIMEOUT_S} s"}
    if program.returncode or not program.stdout.strip():
        lines = program.stderr.strip().splitlines() or ["no output"]
        return {"error": f"failed: {lines[-1]}"}
    # Libraries may print too, but before the result.
    result_line = program.stdout.splitlines()[-1]
    row: dict[str, Any] = json.loads(result_line)
    return row


def run_scene(
    system: System, slots: int, tail: bool, options: argparse.Namespace
) -> dict[str, Any]:
    """Run a system once in a scene; a failure is a row that says why."""
    if slots > system.max_slots:
        return {"error": f"not run: {slots} slots are {slots} processes"}
    slots = system.slots or slots
    episodes = max(1, int(system.episodes_per_slot * slots * options.scale))
    load = [
        "--slots",
        str(slots),
        "--episodes",
        str(episodes),
        "--seed",
        str(options.seed),
    ]
    try:
        python = python_of(system, options.venvs.expanduser().resolve())
    except RuntimeError as error:
        return {"error": str(error)}
    if tail:
        load.append("--tail")
    program, *arguments = system.command
    return run([python, str(PEERS / program), *arguments, *load])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over the repeats, or the first error."""
    for row in rows:
        if "error" in row:
            return row
    medians = {}
    for name in rows[0]:
        medians[name] = statistics.median(row[name] for row in rows)
    medians["of_bound"] = medians["rate"] / medians["bound"]
    medians["cpu_ms_per_episode"] = 1000 * medians["cpu_s"] / medians["episodes"]
    return medians


def show(results: dict[str, dict[str, Any]], own: dict[str, dict[str, Any]]) -> None:
    """Print the tables in Markdown."""
    for scene, rows in results.items():
        print(
            f"\n**{scene}**\n\n| system | episodes/s | of the bound | CPU ms per"
            " episode |\n|---|---|---|---|"
        )
        for name, row in rows.items():
            if "error" in row:
                print(f"| {name} | {row['error']} | | |")
            else:
                cells = (
                    f"{row['rate']:.0f}",
                    f"{row['of_bound']:.2f}",
                    f"{row['cpu_ms_per_episode']:.2f}",
                )
                print("|", name, "|", " | ".join(cells), "|")
    print("\n| of our own | |\n|---|---|")
    for name, row in own.items():
        figures = []
        for key in row:
            if key.startswith(("lag", "steps")):
                figures.append(f"{key} {row[key]:.1f}")
        print(f"| {name} | {row.get('error') or ', '.join(figures)} |")


def main() -> None:
    """Run everything, print the tables, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--venvs",
        type=Path,
        required=True,
        help="folder of the peers' virtual environments",
    )
    parser.add_argument("--out", type=Path, default=Path("throughput.json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="share of the episodes, for a quick look",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="*", default=[], help="parts of names of systems"
    )
    options = parser.parse_args()
    systems = []
    for system in SYSTEMS:
        if not options.only or any(part in system.name for part in options.only):
            systems.append(system)
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    own_rows: dict[str, list[dict[str, Any]]] = {}
    for repeat in range(options.repeats):
        # The systems take turns, so that what else the machine does hits all alike.
        for slots, tail in SCENES:
            scene = f"{slots} slots, 50 ms"
            if tail:
                scene += ", one reply in ten 500 ms"
            for system in systems:
                row = run_scene(system, slots, tail, options)
                rows.setdefault(scene, {}).setdefault(system.name, []).append(row)
                outcome = row.get("error") or f"{row['rate']:.1f}"
                print(repeat, scene, system.name, outcome, flush=True)
        for name, arguments in OWN.items():
            row = run([sys.executable, str(PEERS / "run_aipo.py"), *arguments])
            own_rows.setdefault(name, []).append(row)
    results = {}
    for scene, scene_rows in rows.items():
        results[scene] = {name: summary(runs) for name, runs in scene_rows.items()}
    own = {name: summary(runs) for name, runs in own_rows.items()}
    show(results, own)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": sys.argv[1:],
    }
    record = {"about": about, "results": results, "own": own, "runs": rows}
    options.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
