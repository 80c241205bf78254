"""The command `aipo sandbox`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes, Positional

from aipo_env.event_loop import run_sync
from aipo_env.sandboxes.base import Limits, Program, RunResult
from aipo_env.sandboxes.self_test import open_sandbox


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
        backend: "auto", "process", "bubblewrap", "docker:IMAGE"; with a minimum,
            "process:minimum=landlock".
    """
    source = program.read_text(encoding="utf-8", errors="surrogateescape")
    content = stdin.read_bytes() if stdin else b""
    result = run_sync(_run(Program(source, content), limits, backend))
    row = {name: _as_text(value) for name, value in asdict(result).items()}
    print(json.dumps(row, indent=1))


async def _run(program: Program, limits: Limits, backend: str) -> RunResult:
    opened_sandbox = await open_sandbox(backend)
    return await opened_sandbox.run(program, limits)


def _as_text(value: Any) -> Any:
    """Return the text of an output; anything else as it is."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
