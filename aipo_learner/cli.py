"""The learner's commands: train, eval, report, demo. `aipo_env.cli` finds and calls them."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tyro.conf import Positional

from aipo_env import AGENTS, TASKS, ConfigError, choose, known_datasets, parse_spec
from aipo_learner.config import TrainConfig, read_object
from aipo_learner.demo import run_demo
from aipo_learner.distributed import rank
from aipo_learner.dry_run import dry_run
from aipo_learner.eval_options import EvalOptions
from aipo_learner.policy import load_policy, policy_folder
from aipo_learner.recipes import RECIPES
from aipo_learner.runtime import prepare
from aipo_learner.task_sets import measure_task_sets
from aipo_learner.train import build_sampler
from aipo_learner.train import train as run_training
from aipo_learner.weight_sync import sync_weights


@dataclass(frozen=True, kw_only=True)
class _Start:
    """What a run starts from, before single settings are changed."""

    recipe: str = ""
    """Name of a recipe: a whole configuration to start from."""
    config: Path | None = None
    """JSON file with fields of the configuration; it starts from the recipe."""
    print_config: bool = False
    """Print the configuration and stop."""
    dry_run: bool = False
    """Rehearse one step with a random tiny policy, print what the run takes, and stop."""
    ray: int = 0
    """Workers, as Ray actors, that sample the episodes instead of this process."""


def train(argv: list[str]) -> None:
    """Train a policy; a run found in --out is resumed."""
    start, rest = tyro.cli(_Start, args=argv, return_unknown_args=True, add_help=False)
    default = (
        choose(RECIPES, start.recipe, "recipe")() if start.recipe else TrainConfig()
    )
    if start.config:
        default = default.changed(_read_json(start.config))
    config = tyro.cli(
        TrainConfig,
        default=default,
        args=rest,
        prog="aipo train",
        description=f"Train a policy; a run found in --out is resumed. --recipe NAME starts from one of "
        f"{', '.join(RECIPES)}; --config FILE from a JSON file; --print-config prints and stops; "
        "--dry-run rehearses one step and says what memory and time the run takes; --ray N has N Ray actors sample.",
    )
    if start.ray < 0:
        raise ConfigError(f"train: ray={start.ray} must be at least 0.")
    if start.print_config:
        return print(json.dumps(config.to_dict(), indent=2))
    console = Console()
    if start.dry_run:
        return dry_run(config, console)
    run_training(config, console, start.ray)
    if rank() == 0:
        best = (
            f". Best: {config.out / 'best'}" if (config.out / "best").exists() else ""
        )
        console.print(
            f"Done. Policy: {policy_folder(str(config.out))}{best}", highlight=False
        )


def evaluate_command(argv: list[str]) -> None:
    """Measure a policy on task sets: mean@k and pass@k without agents, and with them where asked."""

    def policy_name(*, policy: str = "tiny") -> str:
        return policy

    policy, _ = tyro.cli(
        policy_name, args=argv, return_unknown_args=True, add_help=False
    )
    options = tyro.cli(
        EvalOptions, default=_eval_defaults(policy), args=argv, prog="aipo eval"
    )
    prepare(options.num_threads)
    folder = policy_folder(options.policy)
    model, tokenizer = load_policy(folder, trust_remote_code=options.trust_remote_code)
    settings = TrainConfig(
        policy=folder, sampler=options.sampler, temperature=options.temperature
    )
    with contextlib.closing(
        build_sampler(settings, model.eval(), tokenizer)
    ) as sampler:
        sync_weights(sampler, model, settings.max_sampler_gap)
        measure_task_sets(sampler, options, Console())


def _eval_defaults(policy: str) -> EvalOptions:
    """Return defaults that measure a run's policy, or its `best`, in the run's own world."""
    folders = (Path(policy), Path(policy).parent)
    found = [
        path
        for path in folders
        if (path / "config.json").is_file() and (path / "checkpoints").is_dir()
    ]
    run = _read_json(found[0] / "config.json") if found else {}
    names = ("agents", "rules", "seed", "temperature")
    fields = {name: run[name] for name in names if name in run}
    tasks = run.get("environment", "toy")
    by_role = fields.get("agents", "none")
    agents = (
        by_role.values()
        if isinstance(by_role, Mapping) and "type" not in by_role
        else [by_role]
    )
    for registry, spec in [
        (TASKS, tasks),
        *((AGENTS, agent) for agent in agents if agent != "none"),
    ]:
        kind = parse_spec(spec, registry.kind)[0].partition(",")[0]
        if kind not in registry.names() and kind.lower() not in known_datasets():
            # A folder that somebody shares is data: what it names is not imported unasked.
            raise ConfigError(
                f"eval: {found[0] / 'config.json'} names the {registry.kind} {spec!r}, which is code of its own. If you "
                "trust it, measure the policy's folder (checkpoints/step-…/policy) and name it yourself."
            )
    return EvalOptions(
        policy=policy,
        tasks=tasks if isinstance(tasks, str) else json.dumps(tasks),
        **fields,
    )


def report(argv: list[str]) -> None:
    """Write the HTML report of a run or of several."""
    from aipo_learner.reporting.report import write_report

    def of(folder: Positional[Path]) -> None:
        """Write one HTML page about a run, or about runs side by side.

        Args:
            folder: The --out folder of `aipo train` or `aipo demo`.
        """
        Console().print(f"Report: {write_report(folder)}", highlight=False)

    tyro.cli(of, args=argv, prog="aipo report")


def demo(argv: list[str]) -> None:
    """Run the whole demonstration."""

    def run(*, seed: int = 0, out: Path = Path("runs/demo")) -> None:
        """Train AIPO, masked and base at equal rollouts in the toy world, evaluate, report.

        Args:
            seed: Draws the world, the tasks and every sample.
            out: Folder for runs, summary.json and report.html.
        """
        run_demo(seed, out, Console())

    tyro.cli(run, args=argv, prog="aipo demo")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        return read_object(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"config file {path}: {error}. Write one with: aipo train --print-config > {path}"
        ) from error
