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
from aipo_learner.config import TrainConfig
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
    start, rest = tyro.cli(_Start, args=_without_help(argv), return_unknown_args=True, add_help=False)
    default = choose(RECIPES, start.recipe, "recipe")() if start.recipe else TrainConfig()
    if start.config:
        base, given = default.to_dict(), _read_json(start.config)
        nested = ("objective", "source", "compute", "evaluation")
        merged = {
            name: {**base[name], **given[name]} for name in nested if isinstance(given.get(name), Mapping)
        }
        default = TrainConfig.from_dict({**base, **given, **merged})
    help_flag = [item for item in argv if item in ("-h", "--help")]
    config = tyro.cli(
        TrainConfig,
        default=default,
        args=rest + help_flag,
        prog="aipo train",
        description=f"Train a policy; a run found in --out is resumed. --recipe NAME starts from one of "
        f"{', '.join(RECIPES)}; --config FILE from a JSON file; --print-config prints and stops; "
        "--dry-run rehearses one step and says what memory and time the run takes; --ray N has N Ray actors sample.",
    )
    if start.ray < 0:
        raise ConfigError(f"train: ray={start.ray} must be at least 0.")
    if start.print_config:
        print(json.dumps(config.to_dict(), indent=2))
        return
    console = Console()
    if start.dry_run:
        dry_run(config, console)
        return
    run_training(config, console, start.ray)
    if rank() == 0:
        best = f". Best: {config.out / 'best'}" if (config.out / "best").exists() else ""
        console.print(f"Done. Policy: {policy_folder(str(config.out))}{best}", highlight=False)


def evaluate_command(argv: list[str]) -> None:
    """Measure a policy on task sets: mean@k and pass@k without agents, and with them where asked."""
    named, _ = tyro.cli(_PolicyName, args=_without_help(argv), return_unknown_args=True, add_help=False)
    options = tyro.cli(EvalOptions, default=_eval_defaults(named.policy), args=argv, prog="aipo eval")
    prepare(options.num_threads)
    folder = policy_folder(options.policy)
    model, tokenizer = load_policy(folder, trust_remote_code=options.trust_remote_code)
    settings = TrainConfig(policy=folder, sampler=options.sampler, temperature=options.temperature)
    with contextlib.closing(build_sampler(settings, model.eval(), tokenizer)) as sampler:
        sync_weights(sampler, model, settings.max_sampler_gap)
        measure_task_sets(sampler, options, Console())


@dataclass(frozen=True, kw_only=True)
class _PolicyName:
    """What `aipo eval` must know before anything else."""

    policy: str = "tiny"


def _eval_defaults(policy: str) -> EvalOptions:
    """Return defaults that measure a run's policy, or its `best`, in the run's own world."""
    folders = (Path(policy), Path(policy).parent)
    found = [path for path in folders if (path / "config.json").is_file() and (path / "checkpoints").is_dir()]
    run = _read_json(found[0] / "config.json") if found else {}
    names = ("agents", "rules", "seed", "temperature")
    fields = {name: run[name] for name in names if name in run}
    tasks = run.get("environment", "toy")
    by_role = fields.get("agents", "none")
    agents = by_role.values() if isinstance(by_role, Mapping) and "type" not in by_role else [by_role]
    for registry, spec in [(TASKS, tasks), *((AGENTS, agent) for agent in agents if agent != "none")]:
        kind = parse_spec(spec, registry.kind)[0].partition(",")[0]
        if kind not in registry.names() and kind.lower() not in known_datasets():
            # A folder that somebody shares is data: what it names is not imported unasked.
            raise ConfigError(
                f"eval: {found[0] / 'config.json'} names the {registry.kind} {spec!r}, which is code of its own. If you "
                "trust it, measure the policy's folder (checkpoints/step-…/policy) and name it yourself."
            )
    return EvalOptions(policy=policy, tasks=tasks if isinstance(tasks, str) else json.dumps(tasks), **fields)


@dataclass(frozen=True)
class ReportOptions:
    """Write one HTML page about a run, or about runs side by side."""

    folder: Positional[Path]
    """The --out folder of `aipo train` or `aipo demo`."""


def report(argv: list[str]) -> None:
    """Write the HTML report of a run or of several."""
    from aipo_learner.reporting.report import write_report

    options = tyro.cli(ReportOptions, args=argv, prog="aipo report")
    Console().print(f"Report: {write_report(options.folder)}", highlight=False)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Train AIPO, masked and base at equal rollouts in the toy world, evaluate, report."""

    seed: int = 0
    """Draws the world, the tasks and every sample."""
    out: Path = Path("runs/demo")
    """Folder for runs, summary.json and report.html."""


def demo(argv: list[str]) -> None:
    """Run the whole demonstration."""
    options = tyro.cli(DemoOptions, args=argv, prog="aipo demo")
    run_demo(options.seed, options.out, Console())


def _without_help(argv: list[str]) -> list[str]:
    return [item for item in argv if item not in ("-h", "--help")]


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"config file {path}: {error}. Write one with: aipo train --print-config > {path}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"config file {path}: holds {type(values).__name__}, a JSON object is needed.")
    return values
