"""The command `aipo doctor`."""

import importlib.util
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version

from aipo_env.commands.table import COMMANDS
from aipo_env.event_loop import run_sync
from aipo_env.sandboxes.self_test import survey

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
_GIB = 2**30
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
    has_gpu = shutil.which("nvidia-smi") is not None
    has_key = bool(os.environ.get("OPENAI_API_KEY"))
    rows: dict[str, object] = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory": _memory(),
    }
    for name in ("aipo-rl", "gymnasium", "numpy", *_PACKAGES):
        rows[name] = _version(name)
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


def _readiness(command: str) -> str:
    """Return whether a command can run, or which packages it lacks."""
    needs = _NEEDS.get(command, ())
    # Found, and not imported: some take seconds.
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    return "ready"
