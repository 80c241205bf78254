"""The commands of this package: play, view, plugins, tasks, agents, verify, sandbox, doctor.

`aipo_env.cli` makes a command line of a function's arguments and tells what its docstring says of them.
"""

import asyncio
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from tyro.conf import OmitArgPrefixes, Positional

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.agents.journal import Outcome
from aipo_env.agents.pool import AgentPool, PoolLimits
from aipo_env.environment import Environment
from aipo_env.envs.episode_env import byte_scenario
from aipo_env.errors import AgentError, AipoError, ConfigError, DataError
from aipo_env.event_loop import run_sync
from aipo_env.files import (
    bounded_lines,
    is_same_file,
    is_same_place,
    is_stream,
    open_output,
    write_anew,
    write_output,
)
from aipo_env.flags import named
from aipo_env.grading import Grader, OwnGrader
from aipo_env.records import Split
from aipo_env.registry import REGISTRIES
from aipo_env.render import episodes_html, escape_terminal
from aipo_env.sandboxes.base import Limits, Program, RunResult
from aipo_env.sandboxes.self_test import open_sandbox, survey
from aipo_env.scenario import build_agents, build_scenario
from aipo_env.stored import read_episodes
from aipo_env.tasks.base import build_source
from aipo_env.tasks.contamination import (
    ContaminationIndex,
    all_tasks,
    check_contamination,
)
from aipo_env.tasks.contamination import held_out as held_out_index
from aipo_env.terminal import play_in_terminal
from aipo_env.verifiers.golds import without_bad_golds
from aipo_env.verifiers.leaks import Gold, gives_away


def play(
    name: Positional[str] = "AIPO-Math-Turn-v0",
    environment: Environment = Environment(),  # noqa: B008
    split: Split = "train",
    index: int = 0,
    aided: bool = True,
) -> None:
    """Be the policy: solve a task in the terminal, with agents to consult.

    An empty line ends your turn. Programs have empty lines: in a code task a line with only "." ends it.
    Limits of tokens count bytes of UTF-8.

    Args:
        name: What is played: an id, behind "package:" if another package registers it, or a task source.
        environment: Single fields of it; --source, --agents and --reward for short.
        split: Training or held-out tasks.
        index: Which task.
        aided: Whether you may consult.
    """
    if index < 0:
        raise ConfigError(f"play: index={index} must not be negative.")
    scenario = byte_scenario(named(name, environment))
    play_in_terminal(scenario, split=split, index=index, aided=aided)


def view(file: Positional[Path], out: Path | None = None) -> None:
    """Write a web page that shows recorded episodes.

    Args:
        file: JSON-lines file of episodes.
        out: The page; by default beside the file. /dev/stdout prints it.
    """
    page = out or file.with_suffix(".html")
    if is_same_place(page, file):
        raise ConfigError(
            f"view: the page would overwrite {file}; name another with --out."
        )
    episodes = list(read_episodes(file))
    if not episodes:
        raise DataError(f"{file}: holds no episode.")
    html = episodes_html(episodes, title=file.name)
    write = write_output if out else write_anew
    try:
        write(page, html)
    except (OSError, DataError) as error:
        raise ConfigError(
            f"view: the page cannot be written: {error}. Name another with --out."
        ) from error
    if out is None or not is_stream(out):
        print(f"Page: {page}")


def plugins() -> None:
    """List the components that a spec can name, and what cannot be loaded."""
    for plugin in (plugin for registry in REGISTRIES for plugin in registry.plugins()):
        fault = f": cannot be used: {plugin.error}" if plugin.error else ""
        line = f"{plugin.kind:9} {plugin.name:16} {plugin.origin}{fault}"
        print(escape_terminal(" ".join(line.splitlines())))


def tasks(
    source: Positional[str], held_out: tuple[str, ...] = (), hashes: Path | None = None
) -> None:
    """Count the tasks of a source, and find those that stand among held-out tasks too.

    Tasks that were left out are counted with the reason.

    Args:
        source: Where tasks come from: "hf:dapo_math_17k", "file:tasks.jsonl", or the id of an environment.
        held_out: Sources, or hash lists (FILE.json), whose test tasks must not be trained on.
        hashes: Write a hash list of the source's test tasks: hashes alone, no text.
    """
    environment = named(source, Environment()).resolved()
    spec = "toy" if environment.source is None else environment.source
    found = without_bad_golds(build_source(spec, 0))
    for split in get_args(Split):
        print(
            f"{split:6} {'endless' if (num := found.num_tasks(split)) is None else num}"
        )
    for reason, num in getattr(found, "skipped", {}).items():
        print(f"left out: {num}, {reason}")
    if hashes:
        index = ContaminationIndex.from_tasks(all_tasks(found, "test"))
        index.save(hashes)
        print(f"{hashes}: {len(index.hashes)} hashes of {index.num_tasks} tasks")
    if not held_out:
        return
    report = check_contamination(found, map(held_out_index, held_out))
    for pair in sorted(report.found.items()):
        print(escape_terminal("{} stands in {}".format(*pair)))
    counts = f"{len(report.found)} of {report.num_train} training tasks stand among {report.num_evaluation} held out"
    if report.found:
        raise DataError(f"{counts}. `aipo train --held-out` leaves them out.")
    print(counts)


def agents(
    action: Positional[Literal["check"]],
    spec: Positional[str],
    source: str = "toy",
    deadline_s: float = 30.0,
) -> None:
    """Ask agents a few questions and say whether they will do.

    Each role is asked two; what it says is printed, and what that takes.

    Args:
        action: What to do.
        spec: Who is asked: "openai:MODEL@URL", or JSON for the dictionary form or for an agent per role.
        source: Task source of agents that answer from one.
        deadline_s: Seconds for one attempt; a question is tried up to five times.
    """
    limits = PoolLimits(
        deadline_s=deadline_s,
        retries=4,
        backoff_s=0.2,
        break_after=0,
        when_lost="unaided",  # so that every question has its account
    )
    try:
        parsed = json.loads(spec) if spec.lstrip().startswith("{") else spec
        pool = AgentPool(build_agents(parsed, build_source(source, 0)), limits)
    except AipoError:
        raise
    except Exception as error:  # not JSON, or somebody else's program
        raise ConfigError(f"agents: {spec!r} cannot be used: {error!r:.300}.") from None
    rows = json.loads(
        Path(__file__)
        .parent.joinpath("agents", "questions.json")
        .read_text(encoding="utf-8")
    )
    questions = [row for row in rows if row["request"]["kind"] in pool.agents]
    if not questions:
        raise ConfigError(
            f"agents: {spec!r} names nobody to ask. Write openai:MODEL@URL."
        )
    outcomes = run_sync(_ask_all(pool, questions))
    num_good = sum(map(partial(_tell, pool), questions, outcomes))
    usage = f"{pool.spent['tokens']:g} tokens, ${pool.spent['usd']:.4f}"
    print(
        f"{num_good} of {len(questions)} replies will do; {pool.spent['calls']:g} calls, {usage}."
    )
    if silent := [outcome.error for outcome in outcomes if not outcome.reply]:
        raise AgentError(
            f"agents: {len(silent)} of {len(questions)} questions got no reply: {silent[-1]}"
        )


async def _ask_all(pool: AgentPool, questions: list[dict[str, Any]]) -> list[Outcome]:
    requests = (
        AgentRequest(**row["request"], key=(i, 0)) for i, row in enumerate(questions)
    )
    return await asyncio.gather(*map(pool.consult, requests))


def _tell(pool: AgentPool, question: dict[str, Any], outcome: Outcome) -> bool:
    """Print what became of a question; return whether the reply will do."""
    kind, query = question["request"]["kind"], question["request"]["query"]
    reply = outcome.reply or AgentReply(text=f"(no reply: {outcome.error})")
    gold = Gold(question["answer"])
    does_leak = run_sync(gives_away(gold, reply.text, query))
    has_form = bool(outcome.reply and re.match(question["form"], reply.text))
    price = f"{reply.tokens} tokens, ${reply.cost_usd:.4f}"
    cost = f"{outcome.seconds:.1f} s, {price}, {outcome.retries + 1} tries"
    verdict = f"leaks: {'YES' if does_leak else 'no'}, as the role demands: {'yes' if has_form else 'NO'}"
    text = reply.text.replace("\n", "\n           ")
    account = f"{kind}  {pool.agent_id(kind)}\n  asked    {query}\n  replied  {text}\n  {cost}; {verdict}"
    print(escape_terminal(account))
    return has_form and not does_leak


def verify(
    file: Positional[Path],
    *,
    kind: Literal["math", "choice", "code"] | None = None,
    environment: Environment = Environment(),  # noqa: B008
    out: Path | None = None,
    sandbox: str = "auto",
) -> None:
    """Grade stored answers: math, multiple choice, programs, or by a verifier of your own.

    One JSON object per line; a verdict is written for each, in order. With --kind lines are {gold, pred, form} (form
    "answer" or "response"), {gold, options or n_options, response}, {task, code}; with an environment or a verifier
    {gold, response} or {task, response}, where task is an object with fields of a task, or the index of a task of the
    environment. Recorded episodes do for both. A line that cannot be graded gets the status "error"; the rest go on.

    Args:
        file: The JSON lines.
        kind: What the answers are.
        environment: Whose verifier grades them; --environment ID, --reward module:function for short.
        out: Where the verdicts go; by default to standard output.
        sandbox: Where programs are run: "auto", "process", "bubblewrap", "docker:IMAGE".
    """
    if out and is_same_file(out, file):
        raise ConfigError(
            f"verify: the verdicts would overwrite {file}; name another file with --out."
        )
    grader: Grader | OwnGrader
    if environment != Environment():
        grader = OwnGrader(build_scenario(environment, "none"))
    elif kind is not None:
        grader = Grader(kind, sandbox)
    else:
        raise ConfigError(
            "verify: name what the answers are, --kind math, choice or code, or whose "
            "verifier grades them, --environment ID or --reward module:function."
        )
    with (
        file.open("rb") as lines,
        open_output(out) if out else nullcontext(sys.stdout) as target,
    ):
        run_sync(_write(grader.grade(bounded_lines(lines)), target))


async def _write(verdicts: AsyncIterator[dict[str, Any]], out: TextIO) -> None:
    async for verdict in verdicts:
        out.write(json.dumps(verdict) + "\n")


def sandbox(
    program: Positional[Path],
    limits: OmitArgPrefixes[Limits],
    stdin: Path | None = None,
    backend: str = "auto",
) -> None:
    """Run a Python program in a sandbox.

    How it went is printed as JSON.

    Args:
        program: The program.
        limits: What one run may use.
        stdin: Its standard input; by default empty.
        backend: "auto", "process", "bubblewrap", "docker:IMAGE"; with a minimum, "process:minimum=landlock".
    """
    source = program.read_text(encoding="utf-8", errors="surrogateescape")
    result = asdict(
        run_sync(
            _run(Program(source, stdin.read_bytes() if stdin else b""), limits, backend)
        )
    )
    texts = {
        name: value.decode("utf-8", "replace")
        for name, value in result.items()
        if isinstance(value, bytes)
    }
    print(json.dumps({**result, **texts}, indent=1))


async def _run(program: Program, limits: Limits, backend: str) -> RunResult:
    return await (await open_sandbox(backend)).run(program, limits)


_PACKAGES = (
    "torch",
    "transformers",
    "safetensors",
    "tensorboard",
    "jinja2",
    "vllm",
    "openai",
    "mcp",
)
_NEEDS = {
    "train": ("torch", "transformers", "safetensors", "tensorboard"),
    "eval": ("torch", "transformers", "safetensors"),
    "warmstart": ("torch", "transformers", "safetensors"),
    "report": ("torch", "transformers", "safetensors", "jinja2"),
    "demo": ("torch", "transformers", "safetensors", "tensorboard", "jinja2"),
    "view": ("jinja2",),
}
"""Packages that commands need beyond the core."""


def doctor() -> None:
    """Say what this machine can run.

    Sandboxes are tried by attacks that do no harm.
    """
    plugged = {entry.name for entry in entry_points(group="aipo.commands")}
    own = ("agents", "play", "view", "plugins", "verify", "sandbox", "serve", "doctor")
    rows = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory": _memory(),
        **{
            name: _version(name)
            for name in ("aipo-rl", "gymnasium", "numpy", *_PACKAGES)
        },
        "GPU": "nvidia-smi found"
        if shutil.which("nvidia-smi")
        else "none found (no nvidia-smi)",
        **run_sync(survey()),
        "OPENAI_API_KEY": "set" if os.environ.get("OPENAI_API_KEY") else "not set",
        **{f"aipo {name}": _readiness(name) for name in sorted({*own, *plugged})},
    }
    print("\n".join(f"{name:15} {value}" for name, value in rows.items()))


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
    missing = [
        name
        for name in _NEEDS.get(command, ())
        if importlib.util.find_spec(name) is None
    ]
    return f"needs {', '.join(missing)}" if missing else "ready"
