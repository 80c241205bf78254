"""The learner's commands: train, eval, runs, report, demo; `aipo_env.cli` calls them.

What computes is imported when a command's words have been read: torch and transformers
take seconds, and help and mistakes in the words are to be answered at once.
"""

import contextlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from aipo_env import (
    SHORT_FORMS,
    ConfigError,
    DataError,
    Environment,
    PoolSettings,
    check_place,
    choose,
    flag_types,
    nearest_flags,
    parse_spec,
    read_spec,
    run_sync,
    short_forms,
    source_spec,
)
from aipo_learner.policy.whereabouts import check_architecture, whereabouts
from aipo_learner.run.places import run_of
from aipo_learner.settings.aid import SHARE
from aipo_learner.settings.eval_options import EvalOptions, environments
from aipo_learner.settings.first_look import look_at_files, look_at_run
from aipo_learner.settings.recipes import RECIPES
from aipo_learner.settings.train import MAX_SAMPLER_GAP, TrainConfig, read_config_file

if TYPE_CHECKING:
    from aipo_learner.learn.idle import Learned

_Options = TypeVar("_Options")


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
    """Rehearse one step with a random tiny policy, say what memory and time the run
    takes, and stop.
    """
    ray: int = 0
    """Workers, as Ray actors, that sample the episodes instead of this process; 0:
    none.
    """


@dataclass(frozen=True, kw_only=True)
class _Words:
    """All that the words of `aipo train` may say."""

    # Their options have no prefix.
    start: Annotated[_Start, arg(name="")]
    """What the run starts from."""
    config: Annotated[TrainConfig, arg(name="")]
    """The run."""


def train(argv: list[str]) -> None:
    """Train a policy; a run found in --out is resumed.

    Args:
        argv: The words after `aipo train`.
    """
    if not argv:
        raise ConfigError(
            "train: say what to train, and in what: --policy MODEL --environment SPEC,"
            " as --policy ./model --environment file:tasks.jsonl; or --recipe toy, for"
            " a small policy in a toy world. aipo train --help says the rest."
        )
    # Twice over the words: only with the recipe and the file are the defaults known
    # from which the single settings are read.
    start, _ = tyro.cli(_Start, args=argv, return_unknown_args=True, add_help=False)
    default = TrainConfig()
    if start.recipe:
        recipe = choose(RECIPES, start.recipe, "recipe")
        default = recipe()
    if start.config:
        default = default.changed(read_config_file(start.config))
    words, environment = short_forms(_with_aid(argv), default.environment)
    default = replace(default, environment=environment)
    given = _Words(start=start, config=default)
    config = _read_words(_Words, given, words, "aipo train", _DESCRIPTION).config
    if start.ray < 0:
        raise ConfigError(f"train: ray={start.ray} must be at least 0.")
    if start.print_config:
        print(json.dumps(config.to_dict(), indent=2))
        return
    if not start.recipe and start.config is None:
        _check_named(config, argv)
    look_at_run(config)
    console = Console()
    if start.dry_run:
        check_architecture(config.policy)
        from aipo_learner.dry_run import dry_run

        dry_run(config, console)
        return
    _train(config, console, start.ray)


_SHARE_FLAG = "--aided-share"
"""Short for --aid share:X."""


def _with_aid(words: Sequence[str]) -> list[str]:
    """Return a command line in which --aid says what --aided-share says.

    Raises:
        ConfigError: A share is missing or none, or both flags are there.
    """
    flags = [word.partition("=")[0].replace("_", "-") for word in words]
    if _SHARE_FLAG not in flags:
        return list(words)
    if "--aid" in flags:
        raise ConfigError(
            f"train: {_SHARE_FLAG} X is short for --aid share:X, and --aid is there"
            " too. Leave one of them out."
        )
    written: list[str] = []
    rest = iter(words)
    for word in rest:
        flag, has_value, value = word.partition("=")
        if flag.replace("_", "-") != _SHARE_FLAG:
            written.append(word)
            continue
        text = value if has_value else next(rest, "")
        written += ["--aid", f"{SHARE}:{_share(text)}"]
    return written


def _share(text: str) -> float:
    """Read a share; raise ConfigError where it is none."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ConfigError(
            f"train: {_SHARE_FLAG} {text!r} must be a number from 0 to 1."
        )
    return share


_DESCRIPTION = (
    "Train a policy; a run found in --out is resumed. Recipes:"
    f" {', '.join(RECIPES)}. {SHORT_FORMS}"
)


def _check_named(config: TrainConfig, words: Sequence[str]) -> None:
    """Raise ConfigError where one of policy and environment is left to its default.

    The defaults, a small policy and the toy world, are made for each other.
    """
    # Stored episodes say themselves what was played.
    if config.source.is_stored:
        return
    is_toy = _is_toy(config.environment)
    # A checkpoint has a policy too.
    policy = config.checkpoints.resume_from or config.policy
    is_tiny = policy == TrainConfig().policy
    if is_toy and not is_tiny and not _names_environment(words):
        raise ConfigError(
            f"train: no environment is named for the policy {policy!r}: give"
            " --environment SPEC, as file:tasks.jsonl, an id, or toy."
        )
    names_policy = any(word.partition("=")[0] == "--policy" for word in words)
    if is_tiny and not is_toy and not names_policy:
        raise ConfigError(
            "train: no policy is named for the environment"
            f" {config.environment.name!r}: give --policy MODEL, a folder or a hub"
            " name; tiny is the small one that ships, which knows the toy world only."
        )


def _is_toy(environment: Environment) -> bool:
    """Return whether an environment is the toy world, the default."""
    if environment.id:
        return False
    if environment.source is None:
        return True
    if callable(environment.source) or not isinstance(environment.source, str | dict):
        return False
    kind, _ = parse_spec(source_spec(environment.source), "task source")
    return kind == "toy"


def _read_words(
    kind: type[_Options],
    default: _Options,
    words: Sequence[str],
    prog: str,
    description: str,
) -> _Options:
    """Read the words of a command into settings."""

    def read(arguments: Sequence[str]) -> _Options:
        return tyro.cli(
            kind,
            default=default,
            args=arguments,
            registry=flag_types(),
            prog=prog,
            description=description,
        )

    with nearest_flags(words, read):
        return read(words)


def _train(config: TrainConfig, console: Console, num_workers: int) -> None:
    """Train, and say what is trained and what came out."""
    from aipo_learner.run.progress import say

    # torch takes seconds. Of several processes that train, torchrun numbers each.
    if os.environ.get("RANK", "0") == "0":
        name = config.out.name
        played = config.source.episodes or config.source.sft_episodes
        say(
            console,
            f"{name}  policy {config.policy}, {played or config.environment.name}:"
            " loading",
        )
    # A run that goes on has its policy in its own folder.
    is_begun = any(config.out.glob("checkpoints/step-*"))
    if not is_begun and not config.checkpoints.resume_from:
        whereabouts(config.policy)
    from aipo_learner.policy.distributed import rank
    from aipo_learner.training import train as run_training

    learned = run_training(config, console, num_workers)
    # Of several processes that train, one says it.
    if rank() == 0:
        say(console, _last_line(config, learned))


def _last_line(config: TrainConfig, learned: "Learned") -> str:
    """Return where the policy is, and that nothing was learned if so."""
    if learned.found:
        return (
            f"Done before, and nothing to do: {learned.found}. A larger --num-steps"
            " goes on."
        )
    from aipo_learner.policy.load import policy_folder

    best = config.out / "best"
    best_policy = f". Best: {best}" if best.exists() else ""
    line = f"Done. Policy: {policy_folder(str(config.out))}{best_policy}"
    if learned.num_held_out:
        line += (
            f"\n{learned.num_held_out} tasks are held out and were not measured: aipo"
            f" eval --policy {config.out}"
        )
    if learned.had_gradient:
        return line
    unchanged = "No step had a gradient: the policy is what it was."
    # Without a note on why, no blank is left at the end.
    return f"{line}\n{unchanged} {learned.idle_note}".rstrip()


def evaluate_command(argv: list[str]) -> None:
    """Measure a policy on task sets: mean@k and pass@k, with agents where asked.

    Args:
        argv: The words after `aipo eval`.
    """
    # Twice over the words, since the defaults are those of the run whose policy it is.
    first, _ = tyro.cli(_Measured, args=argv, return_unknown_args=True, add_help=False)
    default = _eval_defaults(
        first.policy, argv, has_tasks=bool(first.tasks), is_trusted=first.trust_run
    )
    rest, environment = short_forms(argv, default.environment)
    default = replace(default, environment=environment)
    description = (
        "Measure a policy on held-out tasks, alone, and with its agents where asked."
        f" {SHORT_FORMS}"
    )
    options = _read_words(EvalOptions, default, rest, "aipo eval", description)
    _evaluate(options, Console())


def _evaluate(options: EvalOptions, console: Console) -> None:
    """Measure a policy."""
    from aipo_learner.run.progress import say

    endpoint = _endpoint_options(options.policy)
    if endpoint is not None:
        _evaluate_endpoint(endpoint, options, console)
        return
    played = environments(options).values()
    look_at_files(environment.source for environment in played)
    say(console, f"policy {options.policy}: loading")
    whereabouts(options.policy)
    from aipo_learner.build import build_sampler, read_sampler
    from aipo_learner.evaluation.task_sets import measure_task_sets
    from aipo_learner.first_words import of_policy
    from aipo_learner.policy.chat import choose_template
    from aipo_learner.policy.load import count_weights, load_policy, policy_folder
    from aipo_learner.policy.runtime import choose_threads, prepare
    from aipo_learner.samplers.weight_sync import check_sampler, sync_weights

    folder = policy_folder(options.policy)
    num_threads = options.num_threads
    if num_threads is None:
        num_weights = count_weights(folder, trust_remote_code=options.trust_remote_code)
        num_threads = choose_threads(num_weights)
    prepare(num_threads)
    model, tokenizer = load_policy(folder, trust_remote_code=options.trust_remote_code)
    tokenizer.chat_template = choose_template(
        tokenizer, options.chat.chat_template, options.chat.chat_template_kwargs
    )
    kind, _ = read_sampler(options.sampler)
    say(console, of_policy(options.policy, model, kind))
    sampler = build_sampler(
        options.sampler,
        model.eval(),
        tokenizer,
        # At 0 every distribution is a single token, which the filter takes.
        temperature=options.temperature or 1.0,
    )
    with contextlib.closing(sampler):
        sync_weights(sampler, model, MAX_SAMPLER_GAP)
        check_sampler(sampler, model, MAX_SAMPLER_GAP)
        # Only now: what is cut off has no log-probability to compare.
        sampler.token_filter = options.token_filter
        measure_task_sets(sampler, options, console, model)


_OF_WEIGHTS = ("trust_remote_code", "chat", "sampler", "num_threads")
"""Options of `aipo eval` about a policy whose weights are loaded."""


def _endpoint_options(policy: str) -> dict[str, Any] | None:
    """Return the options of a policy behind an endpoint; None where it is none."""
    is_spec = policy.lstrip().startswith("{") or policy.startswith("openai:")
    if not is_spec:
        return None
    try:
        kind, options = parse_spec(read_spec(policy), "policy")
    except ValueError as error:
        raise ConfigError(f"eval: --policy {policy!r} is no JSON: {error}") from error
    if kind != "openai":
        raise ConfigError(
            f"eval: --policy names {kind!r}; write a folder, a hub name, or"
            " openai:MODEL@URL."
        )
    return options


def _evaluate_endpoint(
    endpoint: dict[str, Any], options: EvalOptions, console: Console
) -> None:
    """Measure a policy behind an endpoint.

    Raises:
        ConfigError: An option is given that is about weights on this machine.
    """
    plain = EvalOptions()
    for name in _OF_WEIGHTS:
        if getattr(options, name) != getattr(plain, name):
            raise ConfigError(
                f"eval: {name} means nothing for a policy behind an endpoint, which has"
                " its weights and its template there. Leave it out."
            )
    from aipo_learner.evaluation.task_sets import measure_task_sets
    from aipo_learner.run.progress import say
    from aipo_learner.samplers.endpoint import endpoint_sampler

    played = environments(options).values()
    look_at_files(environment.source for environment in played)
    sampler = endpoint_sampler(endpoint, options.temperature, options.token_filter)
    policy = sampler.policy
    say(console, f"policy: {policy.name} at {policy.url or 'its endpoint'}, asked once")
    run_sync(policy.check())
    # Few at once: what was paid for is lost with the process until it is kept.
    measure_task_sets(sampler, options, console, at_once=policy.concurrency)


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What decides on the defaults of `aipo eval`."""

    policy: str = "tiny"
    tasks: str = ""
    trust_run: bool = False


def _eval_defaults(
    policy: str, argv: Sequence[str], *, has_tasks: bool, is_trusted: bool
) -> EvalOptions:
    """Return defaults that measure a run's policy in the run's own world.

    An environment that is named on the command line takes the place of the run's whole.

    Args:
        policy: As given: a run's folder, or `best` in it; anything else is no run.
        argv: The words of the command line.
        has_tasks: Whether it names task sets.
        is_trusted: Whether it says to trust the run's folder.

    Raises:
        ConfigError: The run's settings are of another version, or name what is not
            harmless.
    """
    is_endpoint = _endpoint_options(policy) is not None
    run = None if is_endpoint else run_of(Path(policy))
    if run is None:
        return EvalOptions(policy=policy)
    from aipo_learner.evaluation.trust import check_trusted
    from aipo_learner.run.folder import FORMAT

    path = check_place(run / "config.json")
    row = read_config_file(path)
    if row.get("format") != FORMAT:
        raise ConfigError(
            f"eval: {path} was written by another version. Measure the folder of the"
            " policy (checkpoints/step-…/policy), and name the environment."
        )
    settings = {name: row[name] for name in ("seed", "temperature") if name in row}
    environment = Environment()
    if not _names_environment(argv):
        environment = Environment.of(row.get("environment", {}))
        if not is_trusted:
            check_trusted(environment, path)
            # How agents are asked, and where replies are kept, is for the machine to
            # say.
            environment = replace(environment, pool=PoolSettings())
        if has_tasks:
            # Other tasks are judged by what fits them, and have no tools or their own.
            resolved = environment.resolved()
            environment = replace(resolved, verifier=None, tools=None)
    return EvalOptions(policy=policy, environment=environment, **settings)


_NAMING = ("--environment", "--environment.id", "--environment.source")
"""Flags that name an environment."""


def _names_environment(argv: Sequence[str]) -> bool:
    """Return whether the command line names an environment."""
    flags = [word.partition("=")[0] for word in argv]
    return any(flag in _NAMING for flag in flags)


def runs(argv: list[str]) -> None:
    """List the runs below a folder: state, step, best score, last reward, size.

    Args:
        argv: The words after `aipo runs`.
    """

    def below(folder: Positional[Path] = Path("runs")) -> None:
        """List the runs in a folder and below it, the last one last.

        A run is running, done, failed at its next step, or stopped before its end.

        Args:
            folder: Where to look.
        """
        from aipo_learner.run.listing import list_runs
        from aipo_learner.run.progress import say

        console = Console()
        for line in list_runs(folder):
            say(console, line)

    tyro.cli(below, args=argv, prog="aipo runs")


def report(argv: list[str]) -> None:
    """Write the HTML report of a run or of several.

    Args:
        argv: The words after `aipo report`.
    """

    def of(folder: Positional[Path]) -> None:
        """Write one HTML page about a run, or about runs side by side.

        Args:
            folder: The --out folder of `aipo train` or `aipo demo`.
        """
        if not folder.is_dir():
            raise DataError(
                f"{folder}: holds no run. Give the --out folder of `aipo train` or"
                " `aipo demo`."
            )
        from aipo_learner.reporting.report import write_report

        Console().print(f"Report: {write_report(folder)}", highlight=False)

    tyro.cli(of, args=argv, prog="aipo report")


def demo(argv: list[str]) -> None:
    """Run the whole demonstration.

    Args:
        argv: The words after `aipo demo`.
    """

    def run(*, seed: int = 0, out: Path = Path("runs/demo")) -> None:
        """Train AIPO, masked and base in the toy world, evaluate, report.

        Every arm has as many rollouts.

        Args:
            seed: Draws the world, the tasks and every sample.
            out: Folder for runs, summary.json and report.html.
        """
        from aipo_learner.run.progress import say

        console = Console()
        # torch takes seconds.
        say(console, f"demo  three arms, trained side by side, in {out}: loading")
        from aipo_learner.demo import run_demo

        run_demo(seed, out, console)

    tyro.cli(run, args=argv, prog="aipo demo")
