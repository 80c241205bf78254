"""The command `aipo sandbox`."""

import json
from dataclasses import asdict
from pathlib import Path

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
