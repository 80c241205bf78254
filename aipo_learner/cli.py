"""The learner's commands: train, eval, report, demo. `aipo_env.cli` finds and calls
them.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tyro.conf import Positional

from aipo_env import (
    ConfigError,
    Environment,
    PoolSettings,
    check_place,
    choose,
    escape_terminal,
    flag_types,
    known_datasets,
    parse_spec,
    short_forms,
)
from aipo_learner.build import build_sampler
from aipo_learner.demo import run_demo
from aipo_learner.dry_run import dry_run
from aipo_learner.evaluation.task_sets import measure_task_sets
from aipo_learner.learn.idle import Learned
from aipo_learner.policy.distributed import rank
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.policy.runtime import prepare
from aipo_learner.run.folder import FORMAT
from aipo_learner.samplers.weight_sync import sync_weights
from aipo_learner.settings.evaluation import EvalOptions
from aipo_learner.settings.recipes import RECIPES
from aipo_learner.settings.train import TrainConfig, read_config_file
from aipo_learner.training import train as run_training


@dataclass(frozen=True, kw_only=True)
class _Start:
    """What a run starts from, before single settings are changed."""

    recipe: str = ""
    """Name of a recipe: a whole configuration to start from."""
    config: Path | None = None
    """File with fields of the configuration, .json, .toml or .yaml; it starts from the
    recipe.
    """
    print_config: bool = False
    """Print the configuration and stop."""
    dry_run: bool = False
    """Rehearse one step with a random tiny policy, print what the run takes, and
    stop.
    """
    ray: int = 0
    """Workers, as Ray actors, that sample the episodes instead of this process."""


def train(argv: list[str]) -> None:
    """Train a policy; a run found in --out is resumed."""
    start, rest = tyro.cli(_Start, args=argv, return_unknown_args=True, add_help=False)
    default = TrainConfig()
    if start.recipe:
        default = choose(RECIPES, start.recipe, "recipe")()
    if start.config:
        default = default.changed(read_config_file(start.config))
    rest, environment = short_forms(rest, default.environment)
    config = tyro.cli(
        TrainConfig,
        default=replace(default, environment=environment),
        args=rest,
        registry=flag_types(),
        prog="aipo train",
        description=_DESCRIPTION,
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
    learned = run_training(config, console, start.ray)
    if rank() == 0:
        console.print(
            escape_terminal(_last_line(config, learned)),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


_DESCRIPTION = (
    "Train a policy; a run found in --out is resumed. --recipe NAME starts from one of"
    f" {', '.join(RECIPES)}; --config FILE from a .json, .toml or .yaml file;"
    " --print-config prints and stops; --dry-run rehearses one step and says what"
    " memory and time the run takes; --ray N has N Ray actors sample. Short forms:"
    " --environment SPEC is the id or the source, --agents SPEC the agents, --reward"
    " module:function=1,… the reward."
)


def _last_line(config: TrainConfig, learned: Learned) -> str:
    """Say where the policy is, and whether anything was learned."""
    best = config.out / "best"
    shown = f". Best: {best}" if best.exists() else ""
    line = f"Done. Policy: {policy_folder(str(config.out))}{shown}"
    if learned.had_gradient:
        return line
    return (
        f"{line}\nNo step had a gradient: the policy is what it was."
        f" {learned.idle_note}"
    ).rstrip()


def evaluate_command(argv: list[str]) -> None:
    """Measure a policy on task sets: mean@k and pass@k without agents, and with them
    where asked.
    """
    first, _ = tyro.cli(_Measured, args=argv, return_unknown_args=True, add_help=False)
    default = _eval_defaults(
        first.policy,
        argv,
        has_tasks=bool(first.tasks),
        is_trusted=first.trust_run,
    )
    rest, environment = short_forms(argv, default.environment)
    options = tyro.cli(
        EvalOptions,
        default=replace(default, environment=environment),
        args=rest,
        registry=flag_types(),
        prog="aipo eval",
        description=(
            "Measure a policy on held-out tasks, alone, and with its agents where"
            " asked. Short forms: --environment SPEC is the id or the source, --agents"
            " SPEC the agents, --reward module:function=1,… the reward."
        ),
    )
    prepare(options.num_threads)
    folder = policy_folder(options.policy)
    model, tokenizer = load_policy(folder, trust_remote_code=options.trust_remote_code)
    settings = TrainConfig(
        policy=folder, sampler=options.sampler, temperature=options.temperature
    )
    sampler = build_sampler(settings, model.eval(), tokenizer)
    with contextlib.closing(sampler):
        sync_weights(sampler, model, settings.max_sampler_gap)
        measure_task_sets(sampler, options, Console())


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What decides on the defaults of `aipo eval`."""

    policy: str = "tiny"
    tasks: str = ""
    trust_run: bool = False


def _eval_defaults(
    policy: str, argv: Sequence[str], *, has_tasks: bool, is_trusted: bool
) -> EvalOptions:
    """Return defaults that measure a run's policy, or its `best`, in the run's own
    world.

    An environment that is named on the command line takes the place of the run's whole.
    """
    folders = (Path(policy), Path(policy).parent)
    runs = [
        path
        for path in folders
        if (path / "config.json").is_file() and (path / "checkpoints").is_dir()
    ]
    if not runs:
        return EvalOptions(policy=policy)
    path = check_place(runs[0] / "config.json")
    row = read_config_file(path)
    if row.get("format") != FORMAT:
        raise ConfigError(
            f"eval: {path} was written by another version. Measure the folder of the"
            " policy (checkpoints/step-…/policy), and name the environment."
        )
    given = {name: row[name] for name in ("seed", "temperature") if name in row}
    environment = Environment()
    is_named = any(word.split("=")[0] in _NAMING for word in argv)
    if not is_named:
        environment = Environment.of(row.get("environment", {}))
        if not is_trusted:
            _check_trusted(environment, path)
            # How agents are asked, and where replies are kept, is for the machine to
            # say.
            environment = replace(environment, pool=PoolSettings())
        if has_tasks:
            # Other tasks are judged by what fits them, and have no tools or their own.
            resolved = environment.resolved()
            environment = replace(resolved, verifier=None, tools=None)
    return EvalOptions(policy=policy, environment=environment, **given)


_NAMING = ("--environment", "--environment.id", "--environment.source")
"""Flags that name an environment."""


_HARMLESS_AGENTS = ("none", "scripted", "notes")
_HARMLESS_VERIFIERS = ("auto", "math", "choice")
_HARMLESS_CODECS = ("tags", "hermes", "openai", "macro")
"""What a run's folder may name unasked: it imports nothing, starts nothing, and asks
nobody.
"""


def _check_trusted(environment: Environment, path: Path) -> None:
    """Raise ConfigError where a run's folder names more than is harmless: it may be
    somebody else's.
    """
    row = environment.to_dict()
    agents = row.get("agents", "none")
    is_by_role = isinstance(agents, Mapping) and "type" not in agents
    asked = agents.values() if is_by_role else [agents]
    foreign = [agent for agent in asked if not _is_plain(agent, _HARMLESS_AGENTS)]
    source = row.get("source", "toy")
    if not _is_harmless_source(source):
        foreign.append(source)
    if row.get("verifier", "auto") not in _HARMLESS_VERIFIERS:
        foreign.append(row["verifier"])
    if row.get("codec", "tags") not in _HARMLESS_CODECS:
        foreign.append(row["codec"])
    foreign += row.get("tools", [])
    if environment.id and not re.fullmatch(r"AIPO-[\w-]+", environment.id):
        foreign.append(environment.id)
    if foreign:
        raise ConfigError(
            f"eval: {path} names {foreign[0]!r}, which is code of its own, or asks"
            " somebody. If it is your own run, or you have read that, add --trust-run;"
            " otherwise name another environment: --environment ID."
        )


def _is_harmless_source(spec: Any) -> bool:
    """Return whether a source is a world or tasks of ours, a file, or a data set that
    we know by name.
    """
    if isinstance(spec, str) and spec.partition(",")[0].lower() in known_datasets():
        spec = f"hf:{spec}"
    kind, options = parse_spec(spec, "run")
    first = str(options.get("", ""))
    if kind == "hf":
        # Others are somebody's to choose, and would be fetched with the user's own key.
        is_known = first.lower() in known_datasets()
        return is_known and options.keys() <= {"", "limit", "split"}
    if kind in ("file", "shipped"):
        return options.keys() == {""}
    return _is_plain(spec, ("toy",))


def _is_plain(spec: Any, harmless: Sequence[str]) -> bool:
    """Return whether a spec names something harmless, with numbers and texts for
    options and no spec within.
    """
    kind, options = parse_spec(spec, "run")
    are_plain = all(
        isinstance(value, int | float | str | list) for value in options.values()
    )
    return kind in harmless and are_plain


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
        """Train AIPO, masked and base at equal rollouts in the toy world, evaluate,
        report.

        Args:
            seed: Draws the world, the tasks and every sample.
            out: Folder for runs, summary.json and report.html.
        """
        run_demo(seed, out, Console())

    tyro.cli(run, args=argv, prog="aipo demo")
