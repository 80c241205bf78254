"""The sandbox that needs nothing: a fresh Python process per run that takes its own rights away.

It starts with an empty environment and without anybody's packages, sets its resource limits, then a seccomp
filter under which no file can be opened, no socket made, no process or thread started (see `child` and
`seccomp`). The modules that a program names are loaded before.
"""

import asyncio
import marshal
import math
import os
import platform
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from aipo_env.errors import SandboxUnavailable
from aipo_env.sandboxes.base import Limits, Program, RunResult, RunStatus
from aipo_env.sandboxes.child import EXIT_COMPILE, EXIT_MEMORY, READY
from aipo_env.sandboxes.seccomp import filter_program

START_S = 20.0
"""Seconds a process may take to lock itself up, on a very busy machine."""
COMMAND = [sys.executable, "-S", "-s", "-P", "-B", "-X", "utf8", "-X", "int_max_str_digits=0"]
COMMAND += [str(Path(__file__).with_name("child.py"))]
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
"""All there is: equal programs shall do equal things."""


class ProcessSandbox:
    """Runs programs in processes of their own, as many at once as there are cores.

    Raises:
        SandboxUnavailable: This is not Linux on x86-64 or aarch64.
    """

    layer = "seccomp"

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise SandboxUnavailable(f"the process sandbox needs Linux, this is {sys.platform}.")
        self._rules = filter_program(platform.machine())
        self._modules = Path(__file__).with_name("modules.txt").read_text(encoding="utf-8").split()
        # A semaphore belongs to the event loop it first waited in.
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def run(self, program: Program, limits: Limits) -> RunResult:
        """Run a program to its end. Cancelling the call kills it."""
        num_cores = len(os.sched_getaffinity(0))
        async with self._slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(num_cores)):
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
            talk = asyncio.create_task(_talk(process, self._job(program, limits), limits, self.layer))
            try:
                return await asyncio.shield(talk)
            except asyncio.CancelledError:
                _kill(process, [], "infra_error")
                await talk
                raise

    def close(self) -> None:
        """Nothing outlives a run."""

    def _job(self, program: Program, limits: Limits) -> bytes:
        """Return what the process reads: the job with its length, then the program's own input."""
        named = [name for name in self._modules if name.strip("_") in program.source]
        bounds = limits.memory_mb * 2**20, math.ceil(limits.time_s) + 1
        job = marshal.dumps((program.source, program.entry, named, self._rules, *bounds))
        return len(job).to_bytes(8, "big") + job + program.stdin


async def _talk(process: Any, data: bytes, limits: Limits, layer: str) -> RunResult:
    """Feed a process, hear it out, and end it in time. All its pipes are open."""
    causes: list[RunStatus] = []
    loop, most = asyncio.get_running_loop(), limits.output_bytes
    timer = loop.call_later(START_S, _kill, process, causes, "timeout")
    process.stdin.write(data)
    process.stdin.close()  # once all is written; a program need not read it
    ready = await process.stdout.read(1) == READY
    start = time.monotonic()
    if ready:
        timer.cancel()
        timer = loop.call_later(limits.time_s, _kill, process, causes, "timeout")
    drains = (_drain(pipe, most, process, causes) for pipe in (process.stdout, process.stderr))
    stdout, stderr = await asyncio.gather(*drains)
    code = await process.wait()
    timer.cancel()
    seconds = time.monotonic() - start
    status, reason = _judge(code, stderr, ready, causes)
    return RunResult(
        status=status,
        exit_code=code,
        stdout=stdout,
        stderr=stderr,
        seconds=seconds,
        layer=layer,
        reason=reason,
    )


def _judge(code: int, stderr: bytes, ready: bool, causes: list[RunStatus]) -> tuple[RunStatus, str]:
    """Return the status of a run that is over, and why."""
    last_words = stderr[-300:].decode("utf-8", "replace").strip().rpartition("\n")[2]
    if not ready:
        return "infra_error", f"the process could not lock itself up: {last_words or f'exit status {code}'}"
    if causes:
        return causes[0], {"timeout": "time limit", "output_limit": "output limit"}[causes[0]] + " reached"
    ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    known: dict[int, tuple[RunStatus, str]] = {
        0: ("ok", ""),
        EXIT_MEMORY: ("memory", "memory limit reached"),
        EXIT_COMPILE: ("compile_error", last_words),
        -signal.SIGXCPU: ("timeout", "time limit reached"),
        -signal.SIGKILL: ("memory", "killed from outside, as by a machine out of memory"),
    }
    return known.get(code, ("runtime_error", last_words or ended))


def _kill(process: Any, causes: list[RunStatus], cause: RunStatus) -> None:
    """Kill a process with its group, if it still runs, and keep why."""
    causes.append(cause)
    with suppress(ProcessLookupError):
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


async def _drain(pipe: asyncio.StreamReader, most: int, process: Any, causes: list[RunStatus]) -> bytes:
    """Read to the end; keep what is allowed, and kill a process that writes more."""
    kept = bytearray()
    while chunk := await pipe.read(65536):
        if len(kept) + len(chunk) > most and not causes:
            _kill(process, causes, "output_limit")
        kept += chunk[: most - len(kept)]
    return bytes(kept)
