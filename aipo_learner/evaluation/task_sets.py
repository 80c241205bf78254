"""A policy measured on one task set after another: the work of `aipo eval`."""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from transformers import PreTrainedModel

from aipo_env import (
    ConfigError,
    Environment,
    Scenario,
    TaskSource,
    VerifierError,
    build_scenario,
    check_agents,
    check_place,
    escape_terminal,
    run_sync,
    tasks_digest,
    write_anew,
)
from aipo_learner.evaluation.evaluate import (
    SESSIONS_AT_ONCE,
    dependence_gap,
    evaluate,
)
from aipo_learner.evaluation.samples import SampleFile
from aipo_learner.evaluation.trained_tasks import check_not_trained_on
from aipo_learner.policy.fitness import check_context
from aipo_learner.run.progress import Progress, say
from aipo_learner.samplers.base import Sampler
from aipo_learner.settings.eval_options import EvalOptions, environments

_WHOLE_LINE = 1_000
"""Columns of a line that is as long as its words."""
_REWARD_TOLERANCE = 1e-9
"""A mean reward this near to the success is the success."""


def measure_task_sets(
    sampler: Sampler,
    options: EvalOptions,
    console: Console,
    model: PreTrainedModel | None = None,
    at_once: int = SESSIONS_AT_ONCE,
) -> dict[str, dict[str, Any]]:
    """Measure the policy on each set, print a table, and return the scores by set.

    What was measured is written, and in the end printed, even when a later set fails.

    Args:
        sampler: The policy.
        options: What is measured, and where the scores go.
        console: For the table.
        model: The policy's, whose context the rules of the sets must fit; None if it is
            not known.
        at_once: Episodes played side by side, after which samples are kept.

    Raises:
        ConfigError, DataError: Before anything is sampled, when a set cannot be read,
            or its scores not be written.
        VerifierError: No sample of a set got a verdict.
    """
    agents = None if options.aided else "none"
    scenarios = {
        name: build_scenario(environment, agents, seed=options.seed)
        for name, environment in environments(options).items()
    }
    folders = _folders(options, scenarios)
    if model is not None:
        for scenario in scenarios.values():
            check_context(model, scenario.rules.max_context_tokens)
    _check_all(options, scenarios, folders)
    results: dict[str, dict[str, Any]] = {}
    try:
        with Progress(console) as progress:
            for name, scenario in scenarios.items():
                settings = _settings(options, scenario)
                line = "  ".join(f"{key}={value!r}" for key, value in settings.items())
                say(console, f"{name}: {line}")
                for remark in _rest_of(name, scenario.source):
                    say(console, remark)
                kept = None
                if options.out:
                    folder = folders[name]
                    kept = _open_samples(folder, name, scenario, options, console)
                progress.begin(name)
                scores = _measure(sampler, scenario, options, kept, progress, at_once)
                results[name] = {**scores, "settings": {"tasks": name, **settings}}
                # Now and not in the end: a set may take hours, and the next may fail.
                if options.out:
                    _write(folders[name], results[name])
    finally:
        if results:
            _print(results, console)
    for name, result in results.items():
        alone = result["unaided"]
        num_episodes = alone["num_tasks"] * alone["num_samples"]
        if alone["num_unverified"] == num_episodes:
            raise VerifierError(
                f"eval: no sample of {name!r} got a verdict:"
                f" {alone['unverified_reason']}"
            )
    return results


def _check_all(
    options: EvalOptions,
    scenarios: Mapping[str, Scenario],
    folders: Mapping[str, Path],
) -> None:
    """Find out what would fail later, before hours are spent on the sets before it.

    Raises:
        ConfigError, DataError: As `measure_task_sets`.
    """
    for name, scenario in scenarios.items():
        if options.aided and not scenario.offered:
            raise ConfigError(
                f"eval: --aided with nobody to consult: {name!r} has no agents. Name"
                " some, as in --agents openai:MODEL@URL, or leave --aided out."
            )
    for scenario in scenarios.values():
        if scenario.source.num_tasks("test") == 0:
            # Raises, and says which tasks there are instead.
            scenario.source.task("test", 0)
    for name, scenario in scenarios.items():
        check_not_trained_on(options.policy, scenario.source, name)
    if options.aided:
        for scenario in scenarios.values():
            run_sync(check_agents(scenario.pool))
    for folder in folders.values():
        _check_out(folder, is_within=len(scenarios) > 1)


def _rest_of(name: str, source: TaskSource) -> Iterator[str]:
    """Yield how many tasks of a source are not measured, for they may be trained on."""
    num_train = source.num_tasks("train")
    if num_train:
        yield (
            f"{name}: {source.num_tasks('test')} tasks that are held out; the"
            f" {num_train} to train on are not measured (of a file, test=1 holds out"
            " all)"
        )


def _settings(options: EvalOptions, scenario: Scenario) -> dict[str, Any]:
    """Return how the policy is sampled, which scores are to be read with."""
    rules = scenario.rules
    first_task = scenario.source.task("test", 0)
    session = scenario.session(first_task, aided=False)
    # What follows the system's message is the task itself.
    system, *_ = session.open()
    cut_off: dict[str, Any] = {}
    if options.temperature and not options.token_filter.is_open:
        cut_off = asdict(options.token_filter)
    return {
        "prompt": system.content,
        "temperature": options.temperature,
        **cut_off,
        "max_policy_tokens": rules.max_policy_tokens,
        "max_context_tokens": rules.max_context_tokens,
        "samples": options.samples,
        "seed": options.seed,
    }


def _open_samples(
    folder: Path, name: str, scenario: Scenario, options: EvalOptions, console: Console
) -> SampleFile:
    """Return the samples of a set: those of an evaluation that was cut off count."""
    settings = _settings(options, scenario)
    # How many there are changes none of them.
    del settings["samples"]
    environment = environments(options)[name]
    settings |= {
        "tasks": name,
        "environment": _described(environment),
        "digest": tasks_digest(scenario.source, "test"),
    }
    samples = SampleFile(folder, options.policy, settings)
    samples.open()
    num_before = samples.count(aided=False) + samples.count(aided=True)
    if num_before:
        console.print(
            f"{name}: {num_before} samples of before are counted, from"
            f" {folder / 'samples.jsonl'}",
            highlight=False,
            markup=False,
        )
    if samples.replaces_others:
        console.print(
            f"{name}: samples of another policy or of other settings are replaced in"
            f" {folder}",
            highlight=False,
            markup=False,
        )
    return samples


def _described(environment: Environment) -> Any:
    """Return what an environment is, as far as it can be written down."""
    try:
        return environment.to_dict()
    except ConfigError:
        # Made of functions or objects, which have no other description.
        return repr(environment)


def _measure(
    sampler: Sampler,
    scenario: Scenario,
    options: EvalOptions,
    kept: SampleFile | None,
    progress: Progress,
    at_once: int,
) -> dict[str, Any]:
    """Return the scores on one set."""
    unaided, _ = evaluate(
        sampler,
        scenario,
        num_tasks=options.num_tasks,
        num_samples=options.samples,
        aided=False,
        seed=options.seed,
        kept=kept,
        progress=progress,
        at_once=at_once,
    )
    result: dict[str, Any] = {"unaided": unaided.to_dict()}
    if not options.aided:
        return result
    aided, _ = evaluate(
        sampler,
        scenario,
        num_tasks=options.num_tasks,
        num_samples=options.aided_samples,
        aided=True,
        seed=options.seed,
        kept=kept,
        progress=progress,
        at_once=at_once,
    )
    result["aided"] = aided.to_dict()
    result["dependence_gap"] = dependence_gap(unaided, aided)
    return result


def _folders(options: EvalOptions, scenarios: Collection[str]) -> dict[str, Path]:
    """Return the folder for the scores of each set; none unless they are written."""
    if not options.out:
        return {}
    if len(scenarios) == 1:
        return dict.fromkeys(scenarios, options.out)
    return {name: options.out / name for name in scenarios}


def _check_out(folder: Path, *, is_within: bool) -> None:
    """Raise DataError unless the scores can be written into a folder.

    Nothing is written through a link. --out itself may be one: its user chose it.

    Args:
        is_within: Whether the folder is a set's own within --out.
    """
    if is_within:
        check_place(folder, is_folder=True)
    for name in ("scores.json", "episodes.jsonl", "samples.jsonl"):
        check_place(folder / name)


def _write(folder: Path, result: Mapping[str, Any]) -> None:
    """Write the scores of a set, in place of those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_anew(folder / "scores.json", json.dumps(result, indent=2) + "\n")


_Row = tuple[str, str, Mapping[str, Any]]
"""A line of the table: the set, "alone" or "aided", and the scores."""


def _print(results: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print a table of the scores, and what it does not say."""
    rows: list[_Row] = []
    for name, result in results.items():
        rows.append((name, "alone", result["unaided"]))
        if "aided" in result:
            rows.append((name, "aided", result["aided"]))
    table = _table(rows)
    # Neither a name nor a number is cut or broken: a terminal wraps what is too long.
    unlimited = console.options.update(width=_WHOLE_LINE)
    table.width = Measurement.get(console, unlimited, table).maximum
    console.print(table, crop=False, soft_wrap=True)
    _print_remarks(rows, console)
    if len(results) > 1:
        alone = [result["unaided"]["pass@1"] for result in results.values()]
        console.print(
            f"Mean over the {len(results)} sets, alone: {np.mean(alone):.3f}. Each set"
            " counts the same, whatever its size and kind, so compare policies set by"
            " set first.",
            highlight=False,
        )


def _table(rows: Sequence[_Row]) -> Table:
    """Return means over tasks with their 95 % intervals, and means by bottleneck."""
    table = Table("task set", "policy", "tasks", "mean", "pass", "cut off", box=None)
    for column in table.columns:
        column.no_wrap = True
    for name, label, row in rows:
        # Intervals stand in the order of k: the last is that of the largest.
        highest = [name for name in row["intervals"] if name.startswith("pass@")][-1]
        mean_at = f"@{row['num_samples']}"
        pass_at = highest.removeprefix("pass")
        share_cut_off = row["num_truncated"] / row["num_samples"] / row["num_tasks"]
        table.add_row(
            name,
            label,
            str(row["num_tasks"]),
            f"{mean_at} {_with_interval(row, 'pass@1')}",
            f"{pass_at} {_with_interval(row, highest)}",
            f"{share_cut_off:.0%}",
        )
        for kind, part in row["by_bottleneck"].items():
            table.add_row(
                f"  {kind}",
                label,
                str(part["num_tasks"]),
                f"{mean_at} {part['pass@1']:.3f}",
                f"{pass_at} {part[highest]:.3f}",
                "",
            )
    return table


def _print_remarks(rows: Sequence[_Row], console: Console) -> None:
    """Print majority votes, mean rewards that differ from success, missing verdicts."""
    for name, label, row in rows:
        majority = f"maj@{row['num_samples']}"
        if majority in row and row["num_samples"] > 1:
            console.print(
                f"{name}, {label}: {majority} {_with_interval(row, majority)}.",
                highlight=False,
                markup=False,
            )
        # Success alone hides what a reward with partial credit says.
        is_success = math.isclose(
            row["mean_reward"], row["pass@1"], abs_tol=_REWARD_TOLERANCE
        )
        if not is_success:
            console.print(
                f"{name}, {label}: mean reward {row['mean_reward']:.3f}.",
                highlight=False,
                markup=False,
            )
        num_unverified = row["num_unverified"]
        if num_unverified:
            # A verifier's words may quote the policy's.
            reason = escape_terminal(row["unverified_reason"])
            console.print(
                f"{name}, {label}: {num_unverified} samples are wrong for want of a"
                f" verdict: {reason}",
                highlight=False,
                markup=False,
            )


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    """Return a mean with its interval."""
    low, high = row["intervals"][name]
    return f"{row[name]:.3f} ({low:.2f}–{high:.2f})"
