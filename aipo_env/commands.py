"""The commands of this package: play, view, plugins, doctor. Each takes its arguments as a list of texts."""

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import tyro
from tyro.conf import Positional

from aipo_env.envs.episode_env import EpisodeEnv
from aipo_env.episode import read_episodes
from aipo_env.errors import ConfigError, DataError
from aipo_env.play import play as play_task
from aipo_env.records import Split
from aipo_env.registry import REGISTRIES
from aipo_env.render import episodes_html, escape_terminal


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
    seed: int = 0
    """Draws the toy world."""
    aided: bool = True
    """Whether you may consult."""


def play(argv: list[str]) -> None:
    """Be the policy: solve a task in the terminal, with agents to consult."""
    options = tyro.cli(PlayOptions, args=argv, prog="aipo play")
    if options.index < 0:
        raise ConfigError(f"play: index={options.index} must not be negative.")
    chosen: dict[str, Any] = {"source": options.source, "agents": options.agents}
    given = {name: value for name, value in chosen.items() if value is not None}
    try:
        # A person needs no checker of actions; its warnings would stand in the transcript.
        made = gymnasium.make(options.environment, disable_env_checker=True, world_seed=options.seed, **given)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise ConfigError(f"play: {options.environment!r} cannot be made: {error}") from error
    if not isinstance(made.unwrapped, EpisodeEnv):
        raise ConfigError(f"play: {options.environment!r} has no tasks to solve in words.")
    play_task(made.unwrapped.scenario, split=options.split, index=options.index, aided=options.aided)


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
class DoctorOptions:
    """Say what this machine can run. Nothing is imported, sent or changed."""


_PACKAGES = ("torch", "transformers", "safetensors", "tensorboard", "jinja2", "vllm", "openai")
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
        ("docker", shutil.which("docker") or "not found"),
        ("bubblewrap", shutil.which("bwrap") or "not found"),
        ("OPENAI_API_KEY", "set" if os.environ.get("OPENAI_API_KEY") else "not set"),
    ]
    plugged = {entry.name for entry in entry_points(group="aipo.commands")}
    rows += [
        (f"aipo {name}", _readiness(name)) for name in sorted({"play", "view", "plugins", "doctor", *plugged})
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
