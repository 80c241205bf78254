"""The demonstration: three arms at equal rollouts, evaluated and reported.

They have the same tasks and seeds, so that what differs is how they learn.
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
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.run.progress import Progress
from aipo_learner.samplers.hf.sampler import HFSampler
from aipo_learner.settings.recipes import toy, toy_base, toy_masked
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

_LIBRARIES = ("aipo-rl", "torch", "transformers", "gymnasium", "numpy")
"""Whose versions a summary names: with others, numbers may differ."""
_NUM_EPISODES = 6
"""Episodes of each evaluation that are kept for the viewer."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How much is sampled to measure a policy.

    Args:
        tasks: Held-out tasks.
        samples: Of each task without agents.
        aided_samples: Of each task with agents.
    """

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
    """Train and evaluate the arms, write `summary.json` and `report.html`.

    Arms run side by side, one process per core. One that is already trained in `out` is
    not trained again.

    Args:
        seed: Draws the world, the tasks and every sample of all arms.
        out: Folder for the runs, the summary and the report.
        console: For what came out.
        arms: By folder, the one in question first; by default those of the toy world.
        measure: How much is sampled.

    Returns:
        The report's path.
    """
    arms = arms or {"aipo": toy(), "masked": toy_masked(), "base": toy_base()}
    configs = {
        name: replace(config, seed=seed, out=out / name)
        for name, config in arms.items()
    }
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        versions[library] = version(library)
    summary: dict[str, Any] = {"arms": {}, "seed": seed, "versions": versions}
    first = next(iter(configs.values()))
    _check_out(out, configs)
    num_workers = min(len(arms), os.cpu_count() or 1)
    # Spawned and not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        # Once for all: every arm starts from the same policy.
        baseline = pool.submit(_measure, first.policy, first, out / "before", measure)
        jobs = {
            name: pool.submit(_run_arm, config, measure)
            for name, config in configs.items()
        }
        try:
            alone: dict[str, Scores] = {}
            for name, job in jobs.items():
                after, seconds = job.result()
                before = baseline.result()
                alone[name] = after["unaided"]
                summary["arms"][name] = _arm(before, after, configs[name], seconds)
        # Ctrl-C too: what has not begun is not begun.
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
    """Raise DataError if what would be written is a link, or is no file or folder.

    Before anything is trained, which takes longest.
    """
    for name in ("summary.json", "report.html"):
        check_place(out / name)
    for name in ("before", *arms):
        check_place(out / name, is_folder=True)
        check_place(out / name / "episodes", is_folder=True)
        check_entries(out / name / "episodes")


def _run_arm(config: TrainConfig, measure: Measure) -> tuple[dict[str, Scores], float]:
    """Train an arm; return the scores of what came out, and the seconds it took.

    The seconds are those of the training alone.
    """
    start = time.monotonic()
    train(config, _plain_console())
    seconds = time.monotonic() - start
    return _measure(str(config.out), config, config.out, measure), seconds


def _measure(
    policy: str, config: TrainConfig, folder: Path, measure: Measure
) -> dict[str, Scores]:
    """Score a policy without agents and with; keep some episodes for the viewer."""
    prepare(config.num_threads or 1)
    # Every arm is measured with agents too, also the one that was trained without them.
    scenario = build_scenario(config.environment, "scripted", seed=config.seed)
    model, tokenizer = load_policy(policy_folder(policy))
    sampler = HFSampler(model, tokenizer)
    (folder / "episodes").mkdir(parents=True, exist_ok=True)
    num_samples = {"unaided": measure.samples, "aided": measure.aided_samples}
    scores: dict[str, Scores] = {}
    with Progress(_plain_console()) as progress:
        progress.begin(folder.name)
        for column, number in num_samples.items():
            scores[column], episodes = evaluate(
                sampler,
                scenario,
                num_tasks=measure.tasks,
                num_samples=number,
                aided=column == "aided",
                seed=config.seed,
                progress=progress,
            )
            path = folder / "episodes" / f"evaluation-{column}.jsonl"
            # Episodes are appended to what is there.
            path.unlink(missing_ok=True)
            write_episodes(path, episodes[:_NUM_EPISODES])
    return scores


def _plain_console() -> Console:
    """Return a console for one of several processes on a terminal.

    A line that changes would overwrite those of the others.
    """
    return Console(force_terminal=False)


def _arm(
    before: Mapping[str, Scores],
    after: Mapping[str, Scores],
    config: TrainConfig,
    seconds: float,
) -> dict[str, Any]:
    """Return an arm's part of the summary."""
    part: dict[str, Any] = {}
    for column in ("unaided", "aided"):
        part[column] = {
            "before": before[column].to_dict(),
            "after": after[column].to_dict(),
        }
    part["unaided"]["change"] = compare(before["unaided"], after["unaided"])
    part["dependence_gap"] = {
        "before": dependence_gap(**before),
        "after": dependence_gap(**after),
    }
    rows = read_metrics(config.out / "metrics.jsonl")
    part["rollouts"] = len(rows) * config.groups_per_step * config.group_size
    # An arm that was resumed has taken longer than this process was at it.
    timed = sum(row["seconds/rollouts"] + row["seconds/update"] for row in rows)
    part["seconds"] = round(max(seconds, timed), 1)
    return part


def _print_outcome(summary: Mapping[str, Any], console: Console) -> None:
    """Print pass@1 of each arm, and how the first compares with the others."""
    console.rule("alone, on held-out tasks")
    leader = next(iter(summary["arms"]))
    for name, arm in summary["arms"].items():
        before = arm["unaided"]["before"]
        after = arm["unaided"]["after"]
        kinds = ", ".join(
            f"{kind} {row['pass@1']:.2f}"
            for kind, row in after["by_bottleneck"].items()
        )
        console.print(
            f"{name:8} pass@1 {before['pass@1']:.3f} -> {after['pass@1']:.3f}"
            f"   ({kinds})",
            highlight=False,
        )
    for name, change in summary["against"].items():
        low, high = change["intervals"]["pass@1"]
        mean = change["difference"]["pass@1"]
        console.print(
            f"{leader} against {name}: {mean:+.3f} (95 % paired bootstrap {low:+.3f} to"
            f" {high:+.3f})",
            highlight=False,
        )
