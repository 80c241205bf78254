"""A policy measured on one task set after another: the work of `aipo eval`."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from aipo_env import (
    ConfigError,
    Episode,
    Scenario,
    VerifierError,
    build_scenario,
    check_agents,
    check_place,
    escape_terminal,
    run_sync,
    write_anew,
    write_episodes,
)
from aipo_learner.evaluation.evaluate import dependence_gap, evaluate
from aipo_learner.samplers.base import Sampler
from aipo_learner.settings.evaluation import EvalOptions, environments


def measure_task_sets(
    sampler: Sampler, options: EvalOptions, console: Console
) -> dict[str, dict[str, Any]]:
    """Measure the policy on each set, print a table, and return the scores by set.

    What was measured is written, and in the end printed, even when a later set fails.

    Raises:
        ConfigError, DataError: Before anything is sampled, when a set cannot be read,
            or its scores not be written.
    """
    agents = None if options.aided else "none"
    scenarios = {
        name: build_scenario(environment, agents, seed=options.seed)
        for name, environment in environments(options).items()
    }
    for name, scenario in scenarios.items():
        if options.aided and not scenario.offered:
            raise ConfigError(
                f"eval: --aided with nobody to consult: {name!r} has no agents. Name"
                " some, as in --agents openai:MODEL@URL, or leave --aided out."
            )
    for scenario in scenarios.values():
        if scenario.source.num_tasks("test") == 0:
            scenario.source.task(
                "test", 0
            )  # raises, and says which tasks there are instead
    if options.aided:
        for scenario in scenarios.values():
            run_sync(check_agents(scenario.pool))
    for folder in _folders(options, scenarios).values():
        _check_out(folder, is_within=len(scenarios) > 1)
    results: dict[str, dict[str, Any]] = {}
    try:
        for name, scenario in scenarios.items():
            settings = _settings(options, scenario)
            shown = "  ".join(f"{key}={value!r}" for key, value in settings.items())
            console.print(
                escape_terminal(f"{name}: {shown}"), highlight=False, markup=False
            )
            scores, episodes = _measure(sampler, scenario, options)
            results[name] = {**scores, "settings": {"tasks": name, **settings}}
            if options.out:
                folders = _folders(options, scenarios)
                _write(folders[name], results[name], episodes)
    finally:
        if results:
            _print(results, console)
    for name, result in results.items():
        alone = result["unaided"]
        if alone["num_unverified"] == alone["num_tasks"] * alone["num_samples"]:
            raise VerifierError(
                f"eval: no sample of {name!r} got a verdict:"
                f" {alone['unverified_reason']}"
            )
    return results


def _settings(options: EvalOptions, scenario: Scenario) -> dict[str, Any]:
    """Return how the policy is sampled."""
    rules = scenario.rules
    first = scenario.session(scenario.source.task("test", 0), aided=False)
    system, *_ = first.open()
    return {
        "prompt": system.content,
        "temperature": options.temperature,
        "max_policy_tokens": rules.max_policy_tokens,
        "max_context_tokens": rules.max_context_tokens,
        "samples": options.samples,
        "seed": options.seed,
    }


def _measure(
    sampler: Sampler, scenario: Scenario, options: EvalOptions
) -> tuple[dict[str, Any], list[Episode]]:
    common: dict[str, Any] = {"num_tasks": options.num_tasks, "seed": options.seed}
    unaided, episodes = evaluate(
        sampler, scenario, num_samples=options.samples, aided=False, **common
    )
    result: dict[str, Any] = {"unaided": unaided.to_dict()}
    if options.aided:
        aided, more = evaluate(
            sampler, scenario, num_samples=options.aided_samples, aided=True, **common
        )
        result |= {
            "aided": aided.to_dict(),
            "dependence_gap": dependence_gap(unaided, aided),
        }
        episodes += more
    return result, episodes


def _folders(options: EvalOptions, scenarios: Collection[str]) -> dict[str, Path]:
    """Return the folder for the scores of each set; none where they are not to be
    written.
    """
    if not options.out:
        return {}
    if len(scenarios) == 1:
        return dict.fromkeys(scenarios, options.out)
    return {name: options.out / name for name in scenarios}


def _check_out(folder: Path, *, is_within: bool) -> None:
    """Raise DataError if what would be written is a link or no file, or a set's folder
    within another is none.
    """
    if is_within:
        check_place(folder, is_folder=True)
    for name in ("scores.json", "episodes.jsonl"):
        check_place(folder / name)


def _write(
    folder: Path, result: Mapping[str, Any], episodes: Sequence[Episode]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_anew(folder / "scores.json", json.dumps(result, indent=2) + "\n")
    path = folder / "episodes.jsonl"
    path.unlink(missing_ok=True)
    write_episodes(path, episodes)


def _print(results: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print means over tasks with their 95 % intervals, also by the help a task is
    known to need.
    """
    table = Table("task set", "policy", "tasks", "mean", "pass", "cut off", box=None)
    for column in table.columns[1:]:
        column.no_wrap = True
    rows = [
        (name, label, result[key])
        for name, result in results.items()
        for key, label in (("unaided", "alone"), ("aided", "aided"))
        if key in result
    ]
    for name, label, row in rows:
        highest = list(row["intervals"])[-1]
        mean, best = f"@{row['num_samples']}", highest.removeprefix("pass")
        cut_off = f"{row['num_truncated'] / row['num_samples'] / row['num_tasks']:.0%}"
        cells = (
            f"{mean} {_with_interval(row, 'pass@1')}",
            f"{best} {_with_interval(row, highest)}",
            cut_off,
        )
        table.add_row(name, label, str(row["num_tasks"]), *cells)
        for kind, part in row["by_bottleneck"].items():
            cells = (f"{mean} {part['pass@1']:.3f}", f"{best} {part[highest]:.3f}", "")
            table.add_row(f"  {kind}", label, str(part["num_tasks"]), *cells)
    console.print(table)
    for name, label, row in rows:
        # Success alone hides what a reward with partial credit says.
        if not math.isclose(row["mean_reward"], row["pass@1"], abs_tol=1e-9):
            console.print(
                f"{name}, {label}: mean reward {row['mean_reward']:.3f}.",
                highlight=False,
                markup=False,
            )
        number = row["num_unverified"]
        if number:
            console.print(
                f"{name}, {label}: {number} samples are wrong for want of a verdict: "
                f"{escape_terminal(row['unverified_reason'])}",
                highlight=False,
                markup=False,
            )
    if len(results) > 1:
        mean_alone = np.mean(
            [result["unaided"]["pass@1"] for result in results.values()]
        )
        console.print(
            f"Mean over the {len(results)} sets, alone: {mean_alone:.3f}. Each set"
            " counts the same, whatever its size and kind, so compare policies set by"
            " set first.",
            highlight=False,
        )


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    low, high = row["intervals"][name]
    return f"{row[name]:.3f} ({low:.2f}–{high:.2f})"
