"""Runs one arm and writes its row: `python -m experiments.arm TABLE WORLD METHOD SEED`.

A process of its own, so that whatever becomes of it, the others go on.
"""

import argparse
import json
import platform
import subprocess
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from aipo_env import write_anew
from aipo_learner import read_metrics, train
from aipo_learner.policy.runtime import prepare
from experiments.arms import START, Arm, find_table
from experiments.measure import measure

_LIBRARIES = ("aipo-rl", "torch", "transformers", "numpy")
"""Whose versions a row names: with others, numbers may differ."""
_CURVE_POINTS = 25
"""Steps of training that a row keeps."""
_CURVES = (
    *("success/unaided", "success/aided", "turns", "agent_p_mean"),
    *("agent_below_floor_share", "entropy", "grad_norm"),
)
"""Metrics of training that a row keeps, where the run has them."""
_COMMIT = ("git", "rev-parse", "--short", "HEAD")


def run_arm(arm: Arm, out: Path) -> dict[str, Any]:
    """Train and measure an arm; return its row.

    A run that is found in `out` is resumed.
    """
    config = replace(arm.config(), out=out, num_threads=1, loggers="")
    prepare(1)
    start = time.monotonic()
    rows: list[dict[str, Any]] = []
    if arm.method != START:
        train(config, Console(force_terminal=False))
        rows = [row for row in read_metrics(out / "metrics.jsonl") if row["step"]]
    trained_s = time.monotonic() - start
    policy = config.policy if arm.method == START else str(out)
    world = arm.table.worlds[arm.world]
    measured = measure(policy, config.policy, config, world, arm.table.measure)
    # Of a run that was resumed, only its rows know how long it took.
    trained_s = max(trained_s, _sum(rows, "seconds/rollouts", "seconds/update"))
    seconds = time.monotonic() - start
    return {
        "table": arm.table.name,
        "world": arm.world,
        "method": arm.method,
        "seed": arm.seed,
        "config_hash": arm.config_hash(),
        "versions": {"python": platform.python_version()}
        | {library: version(library) for library in _LIBRARIES},
        "commit": _commit(),
        "machine": _processor(),
        "seconds": round(seconds, 1),
        "seconds_training": round(trained_s, 1),
        "steps": len(rows),
        "rollouts": len(rows) * config.groups_per_step * config.group_size,
        "agent_tokens": round(sum(map(_agent_tokens, rows))),
        **measured,
        "curve": _curve(rows),
    }


def _sum(rows: list[dict[str, Any]], *names: str) -> float:
    """Return the sum of metrics over all steps; a step without one adds nothing."""
    return sum(row.get(name) or 0 for row in rows for name in names)


def _agent_tokens(row: dict[str, Any]) -> float:
    """Return the tokens of agents' replies in a step, as the agents count them."""
    answered: float = row.get("consults/answered") or 0
    return answered * (row.get("reply_tokens") or 0)


def _curve(rows: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Return some steps of a run's metrics."""
    stride = max(1, len(rows) // _CURVE_POINTS)
    kept = rows[stride - 1 :: stride]
    curve: dict[str, list[float | None]] = {"step": [row["step"] for row in kept]}
    for name in _CURVES:
        values = [row.get(name) for row in kept]
        if any(value is not None for value in values):
            curve[name] = [
                None if value is None else round(value, 4) for value in values
            ]
    return curve


def _commit() -> str:
    done = subprocess.run(_COMMIT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _processor() -> str:
    """Return the name of the processor, as far as it is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def main() -> None:
    """Run the arm that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("table", "world", "method"):
        parser.add_argument(name)
    parser.add_argument("seed", type=int)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    options = parser.parse_args()
    table = find_table(options.table)
    arm = table.arm(options.world, options.method, options.seed)
    row = run_arm(arm, options.out)
    write_anew(options.out / "row.json", json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
