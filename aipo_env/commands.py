"""The commands of this package: play, view, plugins, tasks, agents, verify, sandbox, doctor. Each takes its arguments as a list of texts."""

import asyncio
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, get_args

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.agents.journal import Outcome
from aipo_env.agents.pool import AgentPool, PoolLimits
from aipo_env.envs import make_environment
from aipo_env.envs.episode_env import EpisodeEnv
from aipo_env.errors import AgentError, AipoError, ConfigError, DataError
from aipo_env.grading import Grader
from aipo_env.play import play as play_task
from aipo_env.records import Split
from aipo_env.registry import REGISTRIES
from aipo_env.render import episodes_html, escape_terminal
from aipo_env.sandboxes.base import Limits, Program, RunResult
from aipo_env.sandboxes.self_test import open_sandbox, survey
from aipo_env.scenario import build_agents
from aipo_env.session import leaks, run_sync
from aipo_env.stored import read_episodes
from aipo_env.tasks.base import build_source
from aipo_env.tasks.contamination import ContaminationIndex, all_tasks, check_contamination, held_out
from aipo_env.verifiers.golds import without_bad_golds


@dataclass(frozen=True)
class PlayOptions:
    """Be the policy: solve a task in the terminal, with agents to consult.

    An empty line ends your turn. Programs have empty lines: in a code task a line with only "." ends it.
    """

    environment: Positional[str] = "AIPO-Math-Turn-v0"
    """Whose tasks and agents: an id, behind "package:" if another package registers it."""
    source: str | None = None
    """Where tasks come from, if not as the environment has it: "toy:difficulty=2", "file:tasks.jsonl"."""
    agents: str | None = None
    """Who is consulted, if not as the environment has it: "scripted:wrong=0.2", "none"."""
    split: Split = "train"
    """Training or held-out tasks."""
    index: int = 0
    """Which task."""
    aided: bool = True
    """Whether you may consult."""


def play(argv: list[str]) -> None:
    """Be the policy: solve a task in the terminal, with agents to consult."""
    options = tyro.cli(PlayOptions, args=argv, prog="aipo play")
    if options.index < 0:
        raise ConfigError(f"play: index={options.index} must not be negative.")
    chosen = {"source": options.source, "agents": options.agents}
    env = make_environment("play", options.environment, chosen)
    if not isinstance(env, EpisodeEnv):
        raise ConfigError(f"play: {options.environment!r} has no tasks to solve in words.")
    play_task(env.scenario, split=options.split, index=options.index, aided=options.aided)


@dataclass(frozen=True)
class ViewOptions:
    """Write a web page that shows recorded episodes."""

    file: Positional[Path]
    """JSON-lines file of episodes."""
    out: Annotated[Path | None, tyro.conf.arg(help="The page; by default beside the file.")] = None


def view(argv: list[str]) -> None:
    """Write a web page that shows recorded episodes."""
    options = tyro.cli(ViewOptions, args=argv, prog="aipo view")
    out = options.out or options.file.with_suffix(".html")
    if out.resolve() == options.file.resolve():
        raise ConfigError(f"view: the page would overwrite {options.file}; name another with --out.")
    episodes = list(read_episodes(options.file))
    if not episodes:
        raise DataError(f"{options.file}: holds no episode.")
    page = episodes_html(episodes, title=options.file.name)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"view: the page cannot be written: {error}. Name another with --out.") from error
    print(f"Page: {out}")


@dataclass(frozen=True)
class PluginsOptions:
    """List the components that a spec can name, where each comes from, and what cannot be loaded and why."""


def plugins(argv: list[str]) -> None:
    """List the components that a spec can name, and what cannot be loaded."""
    tyro.cli(PluginsOptions, args=argv, prog="aipo plugins")
    for plugin in (plugin for registry in REGISTRIES for plugin in registry.plugins()):
        fault = f": cannot be used: {plugin.error}" if plugin.error else ""
        line = f"{plugin.kind:9} {plugin.name:16} {plugin.origin}{fault}"
        print(escape_terminal(" ".join(line.splitlines())))


@dataclass(frozen=True)
class TasksOptions:
    """Say how many tasks a source has, what was left out and why, and which stand among held-out tasks too."""

    source: Positional[str]
    """Where tasks come from: "hf:dapo_math_17k", "file:tasks.jsonl"."""
    held_out: tuple[str, ...] = ()
    """Sources, or hash lists (FILE.json), whose test tasks must not be trained on.""" ""
    hashes: Path | None = None
    """Write a hash list of the source's test tasks: hashes alone, no text."""


def tasks(argv: list[str]) -> None:
    """Count the tasks of a source, and find those that stand among held-out tasks too."""
    options = tyro.cli(TasksOptions, args=argv, prog="aipo tasks")
    source = without_bad_golds(build_source(options.source, 0))
    for split in get_args(Split):
        print(f"{split:6} {'endless' if (num := source.num_tasks(split)) is None else num}")
    for reason, num in getattr(source, "skipped", {}).items():
        print(f"left out: {num}, {reason}")
    if options.hashes:
        index = ContaminationIndex.from_tasks(all_tasks(source, "test"))
        index.save(options.hashes)
        print(f"{options.hashes}: {len(index.hashes)} hashes of {index.num_tasks} tasks")
    if not options.held_out:
        return
    report = check_contamination(source, map(held_out, options.held_out))
    for pair in sorted(report.found.items()):
        print(escape_terminal("{} stands in {}".format(*pair)))
    counts = f"{len(report.found)} of {report.num_train} training tasks stand among {report.num_evaluation} held out"
    if report.found:
        raise DataError(f"{counts}. `aipo train --held-out` leaves them out.")
    print(counts)


@dataclass(frozen=True)
class AgentsOptions:
    """Ask each role of an agent two questions; print what it says, what that takes, and whether it will do."""

    action: Positional[Literal["check"]]
    """What to do."""
    spec: Positional[str]
    """Who is asked: "openai:MODEL@URL", or JSON for the dictionary form or for an agent per role."""
    source: str = "toy"
    """Task source of agents that answer from one."""
    deadline_s: float = 30.0
    """Seconds for one attempt; a question is tried up to five times."""


def agents(argv: list[str]) -> None:
    """Ask agents a few questions and say whether they will do."""
    options = tyro.cli(AgentsOptions, args=argv, prog="aipo agents")
    limits = PoolLimits(deadline_s=options.deadline_s, retries=4, backoff_s=0.2, break_after=0)
    try:
        spec = json.loads(options.spec) if options.spec.lstrip().startswith("{") else options.spec
        pool = AgentPool(build_agents(spec, build_source(options.source, 0)), limits)
    except AipoError:
        raise
    except Exception as error:  # not JSON, or somebody else's program
        raise ConfigError(f"agents: {options.spec!r} cannot be used: {error!r:.300}.") from None
    rows = json.loads(Path(__file__).parent.joinpath("agents", "questions.json").read_text(encoding="utf-8"))
    questions = [row for row in rows if row["request"]["kind"] in pool.agents]
    if not questions:
        raise ConfigError(f"agents: {options.spec!r} names nobody to ask. Write openai:MODEL@URL.")
    outcomes = run_sync(_ask_all(pool, questions))
    num_good = sum(map(partial(_tell, pool), questions, outcomes))
    usage = f"{pool.spent['tokens']:g} tokens, ${pool.spent['usd']:.4f}"
    print(f"{num_good} of {len(questions)} replies will do; {pool.spent['calls']:g} calls, {usage}.")
    if silent := [outcome.error for outcome in outcomes if not outcome.reply]:
        raise AgentError(f"agents: {len(silent)} of {len(questions)} questions got no reply: {silent[-1]}")


async def _ask_all(pool: AgentPool, questions: list[dict[str, Any]]) -> list[Outcome]:
    requests = (AgentRequest(**row["request"], key=(i, 0)) for i, row in enumerate(questions))
    return await asyncio.gather(*map(pool.consult, requests))


def _tell(pool: AgentPool, question: dict[str, Any], outcome: Outcome) -> bool:
    """Print what became of a question; return whether the reply will do."""
    kind, query = question["request"]["kind"], question["request"]["query"]
    reply = outcome.reply or AgentReply(text=f"(no reply: {outcome.error})")
    does_leak = leaks(reply.text, question["answer"], query)
    has_form = bool(outcome.reply and re.match(question["form"], reply.text))
    cost = (
        f"{outcome.seconds:.1f} s, {reply.tokens} tokens, ${reply.cost_usd:.4f}, {outcome.retries + 1} tries"
    )
    verdict = f"leaks: {'YES' if does_leak else 'no'}, as the role demands: {'yes' if has_form else 'NO'}"
    text = reply.text.replace("\n", "\n           ")
    account = f"{kind}  {pool.agent_id(kind)}\n  asked    {query}\n  replied  {text}\n  {cost}; {verdict}"
    print(escape_terminal(account))
    return has_form and not does_leak


@dataclass(frozen=True)
class VerifyOptions:
    """Grade stored answers, one JSON object per line, and write a verdict for each, in order.

    Lines are {gold, pred, form} (form "answer" or "response"), {gold, options or n_options, response},
    {task, code}, or recorded episodes. A line that cannot be graded gets the status "error"; the rest go on.
    """

    file: Positional[Path]
    """The JSON lines."""
    kind: Literal["math", "choice", "code"]
    """What the answers are."""
    out: Path | None = None
    """Where the verdicts go; by default to standard output."""
    sandbox: str = "auto"
    """Where programs are run: "auto", "process", "bubblewrap", "docker:IMAGE"."""


def verify(argv: list[str]) -> None:
    """Grade stored answers: math, multiple choice, or programs."""
    options = tyro.cli(VerifyOptions, args=argv, prog="aipo verify")
    if options.out and options.out.resolve() == options.file.resolve():
        raise ConfigError(
            f"verify: the verdicts would overwrite {options.file}; name another file with --out."
        )
    with ExitStack() as files:
        lines = files.enter_context(options.file.open("rb"))
        out = files.enter_context(options.out.open("w", encoding="utf-8")) if options.out else sys.stdout
        run_sync(_write(Grader(options.kind, options.sandbox).grade(lines), out))


async def _write(verdicts: AsyncIterator[dict[str, Any]], out: TextIO) -> None:
    async for verdict in verdicts:
        out.write(json.dumps(verdict) + "\n")


@dataclass(frozen=True)
class SandboxOptions:
    """Run a Python program in a sandbox and print how it went, as JSON."""

    program: Positional[Path]
    """The program."""
    limits: OmitArgPrefixes[Limits]
    stdin: Path | None = None
    """Its standard input; by default empty."""
    backend: str = "auto"
    """"auto", "process", "bubblewrap", "docker:IMAGE"; with a minimum, "process:minimum=landlock"."""


def sandbox(argv: list[str]) -> None:
    """Run a Python program in a sandbox."""
    options = tyro.cli(SandboxOptions, args=argv, prog="aipo sandbox")
    source = options.program.read_text(encoding="utf-8", errors="surrogateescape")
    program = Program(source, options.stdin.read_bytes() if options.stdin else b"")
    result = run_sync(_run(program, options))
    shown = {
        name: value.decode("utf-8", "replace")
        for name, value in asdict(result).items()
        if isinstance(value, bytes)
    }
    print(json.dumps({**asdict(result), **shown}, indent=1))


async def _run(program: Program, options: SandboxOptions) -> RunResult:
    return await (await open_sandbox(options.backend)).run(program, options.limits)


@dataclass(frozen=True)
class DoctorOptions:
    """Say what this machine can run; sandboxes are tried by attacks that do no harm."""


_PACKAGES = ("torch", "transformers", "safetensors", "tensorboard", "jinja2", "vllm", "openai", "mcp")
_NEEDS = {
    "train": ("torch", "transformers", "safetensors", "tensorboard"),
    "eval": ("torch", "transformers", "safetensors"),
    "warmstart": ("torch", "transformers", "safetensors"),
    "report": ("torch", "transformers", "safetensors", "jinja2"),
    "demo": ("torch", "transformers", "safetensors", "tensorboard", "jinja2"),
    "view": ("jinja2",),
}
"""Packages that commands need beyond the core."""


def doctor(argv: list[str]) -> None:
    """Say what this machine can run."""
    tyro.cli(DoctorOptions, args=argv, prog="aipo doctor")
    rows = [*_machine(), *((name, _version(name)) for name in ("aipo-rl", "gymnasium", "numpy", *_PACKAGES))]
    rows += [
        ("GPU", "nvidia-smi found" if shutil.which("nvidia-smi") else "none found (no nvidia-smi)"),
        *run_sync(survey()).items(),
        ("OPENAI_API_KEY", "set" if os.environ.get("OPENAI_API_KEY") else "not set"),
    ]
    plugged = {entry.name for entry in entry_points(group="aipo.commands")}
    rows += [
        (f"aipo {name}", _readiness(name))
        for name in sorted(
            {"agents", "play", "view", "plugins", "verify", "sandbox", "serve", "doctor", *plugged}
        )
    ]
    print("\n".join(f"{name:15} {value}" for name, value in rows))


def _machine() -> list[tuple[str, str]]:
    return [
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("system", f"{platform.system()} {platform.machine()}"),
        ("cores", str(os.cpu_count())),
        ("memory", _memory()),
    ]


def _memory() -> str:
    """Return the machine's memory; Windows has no sysconf."""
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    except (AttributeError, OSError, ValueError):
        return "unknown"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _readiness(command: str) -> str:
    missing = [name for name in _NEEDS.get(command, ()) if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}" if missing else "ready"
