"""The learner's commands: train, eval, report, demo. `aipo_env.cli` finds and calls them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tyro.conf import Positional

from aipo_env import ConfigError, build_scenario, choose, write_episodes
from aipo_learner.config import JsonField, SpecField, TrainConfig
from aipo_learner.demo import run_demo
from aipo_learner.evaluate import dependence_gap, evaluate
from aipo_learner.policy import load_policy, policy_folder
from aipo_learner.recipes import RECIPES
from aipo_learner.runtime import prepare
from aipo_learner.samplers.hf_sampler import HFSampler
from aipo_learner.train import train as run_training


@dataclass(frozen=True, kw_only=True)
class _Start:
    """What a run starts from, before single settings are changed."""

    recipe: str = ""
    """Name of a recipe: a whole configuration to start from."""
    config: Path | None = None
    """JSON file with fields of the configuration; it starts from the recipe."""
    print_config: bool = False
    """Print the configuration and stop."""


def train(argv: list[str]) -> None:
    """Train a policy; a run found in --out is resumed."""
    start, rest = tyro.cli(_Start, args=_without_help(argv), return_unknown_args=True, add_help=False)
    default = choose(RECIPES, start.recipe, "recipe")() if start.recipe else TrainConfig()
    if start.config:
        default = TrainConfig.from_dict({**default.to_dict(), **_read_json(start.config)})
    help_flag = [item for item in argv if item in ("-h", "--help")]
    config = tyro.cli(
        TrainConfig,
        default=default,
        args=rest + help_flag,
        prog="aipo train",
        description=f"Train a policy; a run found in --out is resumed. --recipe NAME starts from one of "
        f"{', '.join(RECIPES)}; --config FILE from a JSON file; --print-config prints and stops.",
    )
    if start.print_config:
        print(json.dumps(config.to_dict(), indent=2))
        return
    console = Console()
    run_training(config, console)
    console.print(f"Done. Policy: {policy_folder(str(config.out))}", highlight=False)


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Measure a policy on held-out tasks, alone and with its agents."""

    policy: str = "tiny"
    """Model folder, hub name, or the --out folder of a training run, whose seed and settings are then taken."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Off unless you have read it."""
    environment: SpecField = "toy"
    """Where tasks come from."""
    agents: SpecField = "scripted"
    """Who is consulted in the aided column; "none" leaves it out."""
    rules: JsonField = field(default_factory=dict)
    """Fields of DialogueRules that differ from the environment's defaults."""
    tasks: int = 96
    """Held-out tasks."""
    samples: int = 64
    """Samples per task without agents; pass@k is given up to this k."""
    aided_samples: int = 8
    """Samples per task with agents."""
    seed: int = 0
    """Draws the toy world, the tasks and every sample."""
    temperature: float = 1.0
    """Sampling temperature."""
    num_threads: int = 2
    """CPU threads of torch."""
    out: Path | None = None
    """Folder for scores.json and episodes.jsonl."""


def evaluate_command(argv: list[str]) -> None:
    """Measure a policy: pass@k without agents and with, dependence gap."""
    named, _ = tyro.cli(_PolicyName, args=_without_help(argv), return_unknown_args=True, add_help=False)
    options = tyro.cli(EvalOptions, default=_eval_defaults(named.policy), args=argv, prog="aipo eval")
    for name, low in (("tasks", 1), ("samples", 1), ("num_threads", 1), ("aided_samples", 0)):
        if getattr(options, name) < low:
            raise ConfigError(f"eval: {name}={getattr(options, name)} must be at least {low}.")
    if not options.temperature > 0:
        raise ConfigError(f"eval: temperature={options.temperature} must be positive.")
    prepare(options.num_threads)
    folder = policy_folder(options.policy)
    model, tokenizer = load_policy(folder, trust_remote_code=options.trust_remote_code)
    sampler = HFSampler(model, tokenizer, temperature=options.temperature)
    scenario = build_scenario(options.environment, options.agents, rules=options.rules, seed=options.seed)
    common: dict[str, Any] = {"num_tasks": options.tasks, "seed": options.seed}
    unaided, episodes = evaluate(sampler, scenario, num_samples=options.samples, aided=False, **common)
    result: dict[str, Any] = {"unaided": unaided.to_dict()}
    if scenario.pool.agents and options.aided_samples:
        aided, more = evaluate(sampler, scenario, num_samples=options.aided_samples, aided=True, **common)
        result |= {"aided": aided.to_dict(), "dependence_gap": dependence_gap(unaided, aided)}
        episodes += more
    _print_scores(result)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "scores.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        path = options.out / "episodes.jsonl"
        path.unlink(missing_ok=True)
        write_episodes(path, episodes)


@dataclass(frozen=True, kw_only=True)
class _PolicyName:
    """What `aipo eval` must know before anything else."""

    policy: str = "tiny"


def _eval_defaults(policy: str) -> EvalOptions:
    """Return defaults that measure a run's policy in the run's own world."""
    path = Path(policy) / "config.json"
    run = _read_json(path) if path.is_file() and (Path(policy) / "checkpoints").is_dir() else {}
    names = ("environment", "agents", "rules", "seed", "temperature", "trust_remote_code")
    return EvalOptions(policy=policy, **{name: run[name] for name in names if name in run})


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


def _print_scores(result: Mapping[str, Any]) -> None:
    console = Console()
    for column in ("unaided", "aided"):
        if column not in result:
            continue
        row = result[column]
        cells = "  ".join(f"{key} {value:.3f}" for key, value in row.items() if key.startswith("pass@"))
        console.print(f"{column:8} {cells}", highlight=False)
        for kind, part in row["by_bottleneck"].items():
            shown = f"pass@1 {part['pass@1']:.3f}  never solved {part['never_solved']:.2f}"
            console.print(f"  {kind:10} {shown}", highlight=False)
    if "dependence_gap" in result:
        console.print(f"dependence gap {result['dependence_gap']:+.3f}", highlight=False)
