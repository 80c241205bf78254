"""The command `aipo doctor`."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version

from aipo_env.commands.extras import EXTRAS, how_to_install
from aipo_env.commands.table import COMMANDS
from aipo_env.event_loop import run_sync
from aipo_env.sandboxes.self_test import survey
from aipo_env.tools.mcp_tools import mcp_fault

_GIB = 2**30
_MODEL = ("torch", "transformers", "safetensors")
_PAGE = ("jinja2", "markupsafe")
_NEEDS = {
    "train": (*_MODEL, "tensorboard"),
    "eval": _MODEL,
    "warmstart": _MODEL,
    "report": (*_MODEL, *_PAGE),
    "demo": (*_MODEL, "tensorboard", *_PAGE),
    "view": _PAGE,
}
"""Packages that commands need beyond the core."""
_NEEDS_ONE = {"serve": ("mcp", "openenv")}
"""Packages of which commands need one, as they are called."""


def doctor() -> None:
    """Say what this machine can run.

    Sandboxes are tried by attacks that do no harm.
    """
    plugged = {entry.name for entry in entry_points(group="aipo.commands")}
    has_gpu = shutil.which("nvidia-smi") is not None
    has_key = bool(os.environ.get("OPENAI_API_KEY"))
    rows: dict[str, object] = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory": _memory(),
    }
    for name in ("aipo-rl", "gymnasium", "numpy"):
        rows[name] = _version(name)
    for name, extra in EXTRAS.items():
        rows[f"[{name}]"] = f"{_installed(extra.packages)}  ({extra.use})"
    # In another version it is there, and cannot be used.
    if mcp_fault() and not _missing(["mcp"]):
        rows["[mcp]"] = mcp_fault()
    rows["GPU"] = "nvidia-smi found" if has_gpu else "none found (no nvidia-smi)"
    rows |= run_sync(survey())
    rows["OPENAI_API_KEY"] = "set" if has_key else "not set"
    for name in sorted({*COMMANDS, "doctor", *plugged}):
        rows[f"aipo {name}"] = _readiness(name)
    for name, value in rows.items():
        print(f"{name:15} {value}")


def _memory() -> str:
    """Return the machine's memory; Windows has no sysconf."""
    try:
        num_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return "unknown"
    return f"{num_bytes / _GIB:.1f} GiB"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _installed(packages: Sequence[str]) -> str:
    """Return the versions of an extra's packages, and how to have those missing."""
    missing = _missing(packages)
    there = [f"{name} {_version(name)}" for name in packages if name not in missing]
    if missing:
        there.append(f"without {', '.join(missing)}: {how_to_install(*missing)}")
    return ", ".join(there)


def _missing(packages: Sequence[str]) -> list[str]:
    """Return the packages that are not there."""
    # Found, and not imported: some take seconds.
    return [name for name in packages if importlib.util.find_spec(name) is None]


def _readiness(command: str) -> str:
    """Return whether a command can run, or which packages it lacks."""
    missing = _missing(_NEEDS.get(command, ()))
    if missing:
        return f"needs {', '.join(missing)}: {how_to_install(*missing)}"
    choices = _NEEDS_ONE.get(command, ())
    if choices and _missing(choices) == list(choices):
        ways = " or ".join(map(how_to_install, choices))
        return f"needs {' or '.join(choices)}: {ways}"
    return "ready"
