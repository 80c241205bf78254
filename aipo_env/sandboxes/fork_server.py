"""Runs programs through warm fork servers, one per core at most, wherever these
live.
"""

import asyncio
import marshal
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet, finalize

from aipo_env.errors import ConfigError, SandboxUnavailable, suggest
from aipo_env.sandboxes.base import LAYERS, Limits, Program, RunResult, RunStatus
from aipo_env.sandboxes.child import EXIT_COMPILE, EXIT_MEMORY
from aipo_env.sandboxes.seccomp import filter_program, tables
from aipo_env.sandboxes.server import CAUSES, REPLY

START_S = 20.0
"""Seconds a server, and then a program's process, may take to lock itself up, on a very
busy machine.
"""
MAX_RUNS = 1000
"""A server is replaced after as many."""
_SLOW_TO_FORK = {"threading", "queue"}
"""Modules with work at every fork: a program that can read the library imports them
itself.
"""
MAX_FAILURES = 3
"""So many failures of the sandbox in a row are no chance."""
_BOOT = """
import marshal, os, sys, types
size, data = int.from_bytes(os.read(0, 8), "big"), b""
while len(data) < size:
    data += os.read(0, size - len(data)) or sys.exit(1)
for name, source in marshal.loads(data).items():
    sys.modules[name] = module = types.ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
module.main()
"""
PYTHON = [
    "-S",
    "-s",
    "-P",
    "-B",
    "-X",
    "utf8",
    "-X",
    "int_max_str_digits=0",
    "-c",
    _BOOT,
]
"""Arguments of the interpreter: nobody's packages, no size limit on integers."""
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
"""All there is: equal programs shall do equal things."""


class Connection:
    """A process that answers, and the way to talk to it: messages with their length in
    8 bytes ahead.

    `num_runs` is for its user to count with.

    Args:
        end: Ends the process for good, called with `arguments`. The end of this process
            calls it too; a process forked from it does not.
    """

    def __init__(
        self, channel: socket.socket, end: Callable[..., None], *arguments: Any
    ) -> None:
        self.socket, self.num_runs = channel, 0
        self.kill = finalize(self, _end_own, os.getpid(), end, arguments)

    def send(self, message: bytes) -> None:
        """Send a message."""
        self.socket.settimeout(START_S)
        self.socket.sendall(len(message).to_bytes(8, "big") + message)

    def receive(self, wait_s: float) -> bytes:
        """Return the next message; raise OSError when the process is gone or silent for
        longer than `wait_s`.
        """
        return self.read(int.from_bytes(self.read(8, wait_s), "big"), START_S)

    def read(self, size: int, wait_s: float) -> bytes:
        """Return exactly `size` bytes, or raise OSError as `receive` does."""
        data, end = bytearray(), time.monotonic() + wait_s
        while len(data) < size:
            self.socket.settimeout(max(0.001, end - time.monotonic()))
            if not (chunk := self.socket.recv(min(size - len(data), 2**20))):
                raise ConnectionError("it ended")
            data += chunk
        return bytes(data)


def _end_own(owner: int, end: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    if os.getpid() == owner:
        end(*arguments)


class ForkServers:
    """A sandbox: programs, each in a fresh process below a fork server.

    Args:
        name: What holds the servers, as a prefix of the layer; may be empty.
        connect: Starts a bare interpreter with the arguments `PYTHON`.
        layers: What to try, strongest first; a name in `LAYERS`, or "none", which is no
            sandbox.
        num_servers: How many at once; 0: as many as there are cores.

    Raises:
        SandboxUnavailable: No layer can be set up; the message says why.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Connection],
        layers: Sequence[str],
        num_servers: int = 0,
    ) -> None:
        num_cores = (
            len(os.sched_getaffinity(0))
            if sys.platform == "linux"
            else os.cpu_count() or 1
        )
        self._connect, self._num_servers = connect, num_servers or num_cores
        self._num_failures = 0
        self._reset()
        faults = []
        for layer in layers:
            self._settings = _settings(layer)
            self.layer = "+".join(filter(None, (name, layer)))
            try:
                self._idle.append(self._start())
                break
            except OSError as error:
                faults.append(f"{layer}: {error}")
        else:
            raise SandboxUnavailable(
                f"no sandbox ({name or 'process'}) can be set up here:"
                f" {'; '.join(faults)}."
            )
        _ALL.add(self)

    async def run(self, program: Program, limits: Limits) -> RunResult:
        """Run a program to its end. Cancelling the call kills it.

        Raises:
            SandboxUnavailable: The sandbox itself failed, for the third time in a row.
        """
        held: list[Connection] = []
        work = self._threads.submit(self._run, program, limits, held)
        try:
            result = await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            for server in held:
                server.kill()
            raise
        self._num_failures = (
            self._num_failures + 1 if result.status == "infra_error" else 0
        )
        if self._num_failures >= MAX_FAILURES:
            raise SandboxUnavailable(
                f"the sandbox ({self.layer}) failed {self._num_failures} times in a"
                f" row, at last: {result.reason}. See that the machine has memory and"
                " processes left."
            )
        return result

    def close(self) -> None:
        """End every server, with what runs below it. The next run starts anew."""
        for server in list(self._servers):
            server.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._reset()

    def _reset(self) -> None:
        self._threads = ThreadPoolExecutor(self._num_servers, "aipo-sandbox")
        self._idle: list[Connection] = []
        self._servers: WeakSet[Connection] = WeakSet()

    def _start(self) -> Connection:
        """Start a server; raise OSError if it cannot set itself up."""
        server = self._connect()
        self._servers.add(server)
        try:
            server.send(_sources())
            server.send(self._settings)
            if fault := server.receive(START_S):
                raise OSError(fault.decode("utf-8", "replace"))
        except OSError:
            server.kill()
            raise
        return server

    def _run(
        self, program: Program, limits: Limits, held: list[Connection]
    ) -> RunResult:
        """Have a server run a program, in a thread of its own."""
        try:
            try:
                server = self._idle.pop()
            except IndexError:
                server = self._start()
            held.append(server)
            server.num_runs += 1
            server.send(
                marshal.dumps({"start_s": START_S} | asdict(program) | asdict(limits))
            )
            result = _read(server.receive(2 * START_S + limits.time_s), self.layer)
        except (OSError, struct.error) as error:
            result = RunResult(
                "infra_error", self.layer, reason=f"the fork server is gone: {error}"
            )
        if held and (result.status == "infra_error" or server.num_runs >= MAX_RUNS):
            server.kill()
        elif held and server.kill.alive:
            self._idle.append(server)
        return result


def _reset_all() -> None:
    for sandbox in list(_ALL):
        sandbox._reset()


_ALL: WeakSet[ForkServers] = WeakSet()
os.register_at_fork(
    after_in_child=_reset_all
)  # or it would keep servers alive that their owner left


def layers_down_to(minimum: str) -> tuple[str, ...]:
    """Return the layers that are good enough, strongest first; raise ConfigError for an
    unknown one.
    """
    if minimum not in LAYERS:
        raise ConfigError(
            f"sandbox: there is no layer {minimum!r}. {suggest(minimum, LAYERS)}"
        )
    return LAYERS[: LAYERS.index(minimum) + 1]


@cache
def _sources() -> bytes:
    """Return the server's modules, for an interpreter that can read no file of ours."""
    texts = {"aipo_env": "", "aipo_env.sandboxes": ""}
    for name in ("child", "confine", "server"):
        texts[f"aipo_env.sandboxes.{name}"] = (
            Path(__file__).with_name(f"{name}.py").read_text("utf-8")
        )
    return marshal.dumps(texts)


def _settings(layer: str) -> bytes:
    rules = {
        machine: [
            b"" if layer == "none" else filter_program(machine, layer, many)
            for many in (False, True)
        ]
        for machine in tables()
    }
    modules = set(
        Path(__file__).with_name("modules.txt").read_text(encoding="utf-8").split()
    )
    if layer != "seccomp":
        modules -= _SLOW_TO_FORK
    return marshal.dumps({"layer": layer, "rules": rules, "modules": sorted(modules)})


def _read(reply: bytes, layer: str) -> RunResult:
    """Make a result of a server's reply."""
    ready, cause, code, seconds, num_stdout = REPLY.unpack_from(reply)
    stdout, stderr = reply[REPLY.size :][:num_stdout], reply[REPLY.size :][num_stdout:]
    last_words = stderr[-300:].decode("utf-8", "replace").strip().rpartition("\n")[2]
    ended = (
        f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    )
    known: dict[int | str, tuple[RunStatus, str]] = {
        "timeout": ("timeout", "time limit reached"),
        "output_limit": ("output_limit", "output limit reached"),
        0: ("ok", ""),
        EXIT_MEMORY: ("memory", "memory limit reached"),
        EXIT_COMPILE: ("compile_error", last_words),
        -signal.SIGXCPU: ("timeout", "time limit reached"),
        -signal.SIGKILL: (
            "memory",
            "killed from outside, as by a machine out of memory",
        ),
    }
    status, reason = known.get(
        CAUSES[cause] or code, ("runtime_error", last_words or ended)
    )
    if not ready:
        status, reason = (
            "infra_error",
            f"the process could not lock itself up: {last_words or ended}",
        )
    return RunResult(status, layer, code, stdout, stderr, seconds, reason)
