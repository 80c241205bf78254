"""Samples and tokens per second of training: this project's learner beside TRL's.

Whole training steps are measured, and updates alone.

    python benchmarks/learner.py --venvs ~/.cache/aipo-peers --out learner.json

Scenes: `consulting` (an agent that replies at once, through TRL's environment
interface), `plain` (one turn), and `update` (given rows: scoring and learning alone).
Every run is a process of its own; the systems take turns, and the table gives medians.
TRL lives in a virtual environment below `--venvs`, made at the first run. On a GPU the
shape is 0.5 B with rows of up to 4,096 tokens, and only `update` is run; elsewhere 3 M
on the CPU.
"""

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from env_throughput import PEERS, System, python_of, run

# TRL gets the same versions, so that what differs is the learner.
PINS = tuple(
    f"{name}=={version(name).split('+')[0]}" for name in ("torch", "transformers")
)
AIPO = System("this project", ("run_aipo_learner.py",), 0)
TRL = System("TRL 1.16.0", ("run_trl.py",), 0, "trl==1.16.0")
COLUMNS = {
    "samples_per_s": "samples/s",
    "policy_tokens_per_s": "policy tokens/s",
    "step_s": "s per step",
    "update_tokens_per_s": "tokens/s of the update",
    "mfu": "MFU of the update",
    "peak_gib": "peak GiB",
    "prompt_tokens": "prompt tokens",
    "policy_tokens": "policy tokens",
}


def scenes(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the arguments of each scene."""
    size = [
        "--steps",
        str(options.steps),
        "--samples",
        str(options.samples),
        "--threads",
        str(options.threads),
    ]
    if torch.cuda.is_available():
        size += ["--shape", "0.5b", "--row-tokens", "4096"]
        names = ("update",)
    else:
        names = ("consulting", "plain", "update")
    chosen = options.scenes or names
    return {name: ["--scene", name, *size] for name in chosen}


def median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run in the middle by samples per second, or the first that failed."""
    for row in rows:
        if "error" in row:
            return row
    by_speed = sorted(rows, key=lambda row: row["samples_per_s"])
    return by_speed[len(rows) // 2]


def show(results: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print the tables in Markdown."""
    for scene, systems in results.items():
        print(
            f"\n**{scene}**\n\n| | {' | '.join(systems)}"
            f" |\n|---|{'---|' * len(systems)}"
        )
        for row in systems.values():
            if "error" in row:
                print(row["error"])
        for key, title in COLUMNS.items():
            if all(key in row for row in systems.values()):
                cells = [f"{row[key]:.3g}" for row in systems.values()]
                print(f"| {title} | {' | '.join(cells)} |")
        ours = systems[AIPO.name]
        trl = systems[TRL.name]
        for key in ("samples_per_s", "policy_tokens_per_s"):
            if key in ours and key in trl:
                print(f"\n{ours[key] / trl[key]:.2f} times TRL's {COLUMNS[key]}")


def main() -> None:
    """Run everything, print the tables, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--venvs", type=Path, required=True, help="folder of TRL's virtual environment"
    )
    parser.add_argument("--out", type=Path, default=Path("learner.json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=4, help="steps of a run; the first warms up"
    )
    parser.add_argument("--samples", type=int, default=64, help="episodes of a step")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--scenes", nargs="*", default=[])
    parser.add_argument("--quick", action="store_true", help="one small run of each")
    options = parser.parse_args()
    if options.quick:
        # Two steps, because the first one warms up.
        options.repeats = 1
        options.steps = 2
        options.samples = 16
    venvs = options.venvs.expanduser().resolve()
    pythons = {
        AIPO.name: python_of(AIPO, venvs),
        TRL.name: python_of(TRL, venvs, (*PINS, "jmespath")),
    }
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for repeat in range(options.repeats):
        for scene, arguments in scenes(options).items():
            for system in (AIPO, TRL):
                program = str(PEERS / system.command[0])
                python = pythons[system.name]
                row = run([python, program, *arguments, "--seed", str(repeat)])
                runs.setdefault(scene, {}).setdefault(system.name, []).append(row)
                outcome = row.get("error") or f"{row['samples_per_s']:.3g}"
                print(repeat, scene, system.name, outcome, flush=True)
    results = {}
    for scene, scene_runs in runs.items():
        results[scene] = {name: median(rows) for name, rows in scene_runs.items()}
    show(results)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": PINS,
        "command": sys.argv[1:],
    }
    record = {"about": about, "results": results, "runs": runs}
    options.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
