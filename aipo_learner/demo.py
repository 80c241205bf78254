"""The demonstration: three arms at equal rollouts on the same tasks and seeds,
evaluated and reported.
"""

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from aipo_env import (
    build_scenario,
    check_entries,
    check_place,
    write_anew,
    write_episodes,
)
from aipo_learner.evaluation.evaluate import Scores, compare, dependence_gap, evaluate
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.policy.runtime import prepare
from aipo_learner.reporting.report import write_report
from aipo_learner.run.metrics import read_metrics
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.settings.recipes import toy, toy_base, toy_masked
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How much is sampled to measure a policy."""

    tasks: int = 96
    samples: int = 64
    aided_samples: int = 4


def run_demo(
    seed: int,
    out: Path,
    console: Console,
    arms: Mapping[str, TrainConfig] | None = None,
    measure: Measure = Measure(),
) -> Path:
    """Train the arms, evaluate them on held-out tasks, write `summary.json` and
    `report.html`.

    Arms run side by side, one process per core. One that is already trained in `out` is
    not trained again. Returns the report's path.
    """
    arms = arms or {"aipo": toy(), "masked": toy_masked(), "base": toy_base()}
    configs = {
        name: replace(config, seed=seed, out=out / name)
        for name, config in arms.items()
    }
    versions = {
        name: version(name)
        for name in ("aipo-rl", "torch", "transformers", "gymnasium", "numpy")
    }
    versions = {"python": platform.python_version(), **versions}
    summary: dict[str, Any] = {"arms": {}, "seed": seed, "versions": versions}
    first = next(iter(configs.values()))
    _check_out(out, configs)
    workers = min(len(arms), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        baseline = pool.submit(_measure, first.policy, first, out / "before", measure)
        jobs = {
            name: pool.submit(_run_arm, config, measure)
            for name, config in configs.items()
        }
        try:
            alone = {}
            for name, job in jobs.items():
                after, seconds = job.result()
                alone[name] = after["unaided"]
                summary["arms"][name] = _arm(
                    baseline.result(), after, configs[name], seconds
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            console.print(
                "Stopped. The same command goes on from the last checkpoints."
            )
            raise
    leader, *others = configs
    summary["against"] = {name: compare(alone[name], alone[leader]) for name in others}
    write_anew(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    _print_outcome(summary, console)
    report = write_report(out)
    console.print(f"Report: {report}", highlight=False)
    return report


def _check_out(out: Path, arms: Iterable[str]) -> None:
    """Raise DataError, before anything is trained, if what would be written is a link
    or none of our things.
    """
    for name in ("summary.json", "report.html"):
        check_place(out / name)
    for name in ("before", *arms):
        check_place(out / name, is_folder=True)
        check_place(out / name / "episodes", is_folder=True)
        check_entries(out / name / "episodes")


def _run_arm(config: TrainConfig, measure: Measure) -> tuple[dict[str, Scores], float]:
    """Train an arm and measure what came out; return the scores and the seconds of
    training.
    """
    start = time.monotonic()
    train(config, Console())
    seconds = time.monotonic() - start
    return _measure(str(config.out), config, config.out, measure), seconds


def _measure(
    policy: str, config: TrainConfig, folder: Path, measure: Measure
) -> dict[str, Scores]:
    """Score a policy without agents and with; keep some episodes for the viewer."""
    prepare(config.num_threads)
    # Every arm is measured with agents too, the one that was trained without them as
    # well.
    scenario = build_scenario(config.environment, "scripted", seed=config.seed)
    model, tokenizer = load_policy(policy_folder(policy))
    sampler = HFSampler(model, tokenizer)
    scores = {}
    (folder / "episodes").mkdir(parents=True, exist_ok=True)
    for column, num_samples in (
        ("unaided", measure.samples),
        ("aided", measure.aided_samples),
    ):
        sizes = {
            "num_tasks": measure.tasks,
            "num_samples": num_samples,
            "seed": config.seed,
        }
        scores[column], episodes = evaluate(
            sampler, scenario, aided=column == "aided", **sizes
        )
        path = folder / "episodes" / f"evaluation-{column}.jsonl"
        path.unlink(missing_ok=True)
        write_episodes(path, episodes[:6])
    return scores


def _arm(
    before: Mapping[str, Scores],
    after: Mapping[str, Scores],
    config: TrainConfig,
    seconds: float,
) -> dict[str, Any]:
    """Return an arm's part of the summary."""
    both = {"before": before, "after": after}
    columns: dict[str, Any] = {
        column: {when: scores[column].to_dict() for when, scores in both.items()}
        for column in ("unaided", "aided")
    }
    columns["unaided"]["change"] = compare(before["unaided"], after["unaided"])
    rows = read_metrics(config.out / "metrics.jsonl")
    timed = sum(row["seconds/rollouts"] + row["seconds/update"] for row in rows)
    return columns | {
        "dependence_gap": {
            when: dependence_gap(**scores) for when, scores in both.items()
        },
        "rollouts": len(rows) * config.groups_per_step * config.group_size,
        "seconds": round(max(seconds, timed), 1),
    }


def _print_outcome(summary: Mapping[str, Any], console: Console) -> None:
    console.rule("alone, on held-out tasks")
    for name, arm in summary["arms"].items():
        was, now = (arm["unaided"][when]["pass@1"] for when in ("before", "after"))
        kinds = ", ".join(
            f"{kind} {row['pass@1']:.2f}"
            for kind, row in arm["unaided"]["after"]["by_bottleneck"].items()
        )
        console.print(
            f"{name:8} pass@1 {was:.3f} -> {now:.3f}   ({kinds})", highlight=False
        )
    for name, change in summary["against"].items():
        low, high = change["intervals"]["pass@1"]
        mean = change["difference"]["pass@1"]
        shown = f"{mean:+.3f} (95 % paired bootstrap {low:+.3f} to {high:+.3f})"
        console.print(
            f"{next(iter(summary['arms']))} against {name}: {shown}", highlight=False
        )
