"""Runs programs through warm fork servers, one per core, wherever these live."""

import asyncio
import importlib.util
import json
import marshal
import os
import signal
import socket
import struct
import sys
import time
from collections import defaultdict
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
from aipo_env.sandboxes.seccomp import STARTS, filter_program, tables
from aipo_env.sandboxes.server import CAUSES, REPLY

PROGRAM_START_S = 20.0
"""Seconds a server, and then a program's process, may take to lock itself up, on a very
busy machine.
"""
MAX_RUNS = 1000
"""A server is replaced after as many."""
MAX_FAILURES = 3
"""So many failures of the sandbox in a row are no chance."""
_SLOW_TO_FORK = {"threading", "queue"}
"""Modules with work at every fork: a program that can read the library imports them
itself.
"""
_LENGTH_BYTES = 8
"""Bytes of a message's length, ahead of it."""
_READ_BYTES = 2**20
"""The most that is read of a message at once."""
_MIN_TIMEOUT_S = 0.001
"""A socket takes a timeout of 0 to mean that nobody waits, not that time is up."""
_LAST_WORDS_BYTES = 300
"""The end of standard error in which its last line is looked for."""

# The interpreter can read no file of ours, so its modules come as the first message: a
# dictionary from name to source text. The last one is the server's.
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
    "-S",  # no site-packages
    "-s",  # nor those of the user
    "-P",  # nor the folder it starts in
    "-B",  # write no bytecode
    "-X",
    "utf8",
    "-X",
    "int_max_str_digits=0",
    "-c",
    _BOOT,
]
"""Arguments of the interpreter: nobody's packages, no size limit on integers."""
PROGRAM_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
"""All there is: equal programs shall do equal things."""


class Connection:
    """A process that answers, and the way to talk to it.

    A message has its length in 8 bytes ahead. `num_runs` is for the user of a
    connection to count with.

    Args:
        channel: The stream socket to the process.
        end: Ends the process for good, called with `arguments`. The end of this process
            calls it too; a process forked from it does not.
    """

    def __init__(
        self, channel: socket.socket, end: Callable[..., None], *arguments: Any
    ) -> None:
        self.socket = channel
        self.num_runs = 0
        # It runs once, whoever comes first: a caller, the collector of garbage, or the
        # end of the interpreter. Nothing it is given may refer to self.
        self.kill = finalize(self, _end_own, os.getpid(), end, arguments)

    def send(self, message: bytes) -> None:
        """Send a message; raise OSError when the process does not take it in time."""
        self.socket.settimeout(PROGRAM_START_S)
        length = len(message).to_bytes(_LENGTH_BYTES, "big")
        self.socket.sendall(length + message)

    def receive(self, wait_s: float) -> bytes:
        """Return the next message.

        Args:
            wait_s: Seconds until it must begin.

        Raises:
            OSError: The process is gone, or silent for longer than that.
        """
        length = self.read(_LENGTH_BYTES, wait_s)
        return self.read(int.from_bytes(length, "big"), PROGRAM_START_S)

    def read(self, size: int, wait_s: float) -> bytes:
        """Return exactly `size` bytes, or raise OSError as `receive` does."""
        data = bytearray()
        deadline = time.monotonic() + wait_s
        while len(data) < size:
            # The timeout of a socket is for one call, the deadline for all of them.
            left_s = deadline - time.monotonic()
            self.socket.settimeout(max(_MIN_TIMEOUT_S, left_s))
            chunk = self.socket.recv(min(size - len(data), _READ_BYTES))
            if not chunk:
                raise ConnectionError("it ended")
            data += chunk
        return bytes(data)


def _end_own(owner: int, end: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """End a connection's process, unless this is a fork of the one that made it."""
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
        self._connect = connect
        self._num_servers = num_servers or _num_cores()
        self._num_failures = 0
        self._reset()
        faults = []
        for layer in layers:
            self._inner_layer = layer
            parts = [part for part in (name, layer) if part]
            self.layer = "+".join(parts)
            try:
                server = self._start(())
            except OSError as error:
                faults.append(f"{layer}: {error}")
                continue
            self._idle[()].append(server)
            break
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
        # The thread tells here which server it has taken. Waiting for a thread can be
        # cancelled, the thread cannot: it ends when its server does.
        in_use: list[Connection] = []
        work = self._threads.submit(self._run, program, limits, in_use)
        try:
            result = await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            for server in in_use:
                server.kill()
            raise
        if result.status == "infra_error":
            self._num_failures += 1
        else:
            self._num_failures = 0
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
        # One thread for a server: a run that waits for a thread waits for a server.
        self._threads = ThreadPoolExecutor(self._num_servers, "aipo-sandbox")
        # By what packages they have loaded.
        self._idle: dict[tuple[str, ...], list[Connection]] = defaultdict(list)
        self._servers: WeakSet[Connection] = WeakSet()

    def _start(self, packages: tuple[str, ...]) -> Connection:
        """Start a server; raise OSError if it cannot set itself up."""
        server = self._connect()
        self._servers.add(server)
        try:
            server.send(_sources())
            server.send(_settings(self._inner_layer, packages))
            fault = server.receive(PROGRAM_START_S)
            if fault:
                raise OSError(fault.decode("utf-8", "replace"))
        except OSError:
            server.kill()
            raise
        return server

    def _run(
        self, program: Program, limits: Limits, in_use: list[Connection]
    ) -> RunResult:
        """Have a server run a program, in a thread of its own; add it to `in_use`."""
        job = {"start_s": PROGRAM_START_S} | asdict(program) | asdict(limits)
        # The program's time, and twice that for starting: the supervisor's process and
        # the program's.
        wait_s = 2 * PROGRAM_START_S + limits.time_s
        try:
            server = self._take_idle(program.packages) or self._start(program.packages)
            in_use.append(server)
            server.num_runs += 1
            server.send(marshal.dumps(job))
            reply = server.receive(wait_s)
            result = _read(reply, self.layer)
        except (OSError, struct.error) as error:
            result = RunResult(
                "infra_error", self.layer, reason=f"the fork server is gone: {error}"
            )
        if not in_use:
            return result
        if result.status == "infra_error" or server.num_runs >= MAX_RUNS:
            server.kill()
        elif server.kill.alive:  # else the run was cancelled, or the sandbox closed
            self._idle[program.packages].append(server)
        return result

    def _take_idle(self, packages: tuple[str, ...]) -> Connection | None:
        # Not "if there is one": another thread may take it in between.
        try:
            return self._idle[packages].pop()
        except IndexError:
            return None


def _num_cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        num_cores = len(os.sched_getaffinity(0))
    else:
        num_cores = os.cpu_count() or 1
    return num_cores


def _reset_all() -> None:
    for sandbox in list(_ALL):
        sandbox._reset()


_ALL: WeakSet[ForkServers] = WeakSet()
# A forked process inherits the sockets to servers, but they are not its own to use, and
# holding them would keep servers alive that their owner left.
os.register_at_fork(after_in_child=_reset_all)


def layers_down_to(minimum: str) -> tuple[str, ...]:
    """Return the layers that are good enough, strongest first.

    Args:
        minimum: The weakest of them, a name in `LAYERS`.

    Raises:
        ConfigError: There is no such layer.
    """
    if minimum not in LAYERS:
        raise ConfigError(
            f"sandbox: there is no layer {minimum!r}. {suggest(minimum, LAYERS)}"
        )
    return LAYERS[: LAYERS.index(minimum) + 1]


@cache
def _sources() -> bytes:
    """Return the server's modules, for an interpreter that can read no file of ours."""
    # In the order of their imports, and the packages around them empty: nothing else of
    # ours is needed there.
    texts = {"aipo_env": "", "aipo_env.sandboxes": ""}
    for name in ("values", "child", "confine", "server"):
        path = Path(__file__).with_name(f"{name}.py")
        texts[f"aipo_env.sandboxes.{name}"] = path.read_text("utf-8")
    return marshal.dumps(texts)


def _settings(layer: str, packages: tuple[str, ...] = ()) -> bytes:
    """Return the message that sets a server up; see `server.main`."""
    # For every machine, since a container may be of another one than this.
    rules = {}
    for machine in tables():
        rules[machine] = dict.fromkeys(STARTS, b"")
        if layer != "none":
            for starts in STARTS:
                rules[machine][starts] = filter_program(machine, layer, starts)
    names = Path(__file__).with_name("modules.txt").read_text(encoding="utf-8")
    modules = set(names.split())
    if layer != "seccomp":
        modules -= _SLOW_TO_FORK
    known = package_modules()
    folders = [os.path.dirname(folder) for folder in map(package_folder, packages)]
    settings = {
        "layer": layer,
        "rules": rules,
        "modules": sorted(modules),
        "packages": {name: known[name] for name in packages},
        "folders": [folder for folder in folders if folder],
    }
    return marshal.dumps(settings)


def package_modules() -> dict[str, list[str]]:
    """Return the modules that are loaded for each package that programs may have."""
    text = Path(__file__).with_name("packages.json").read_text(encoding="utf-8")
    modules: dict[str, list[str]] = json.loads(text)
    return modules


def package_folder(name: str) -> str:
    """Return where this process would import a package from; empty: nowhere."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return ""
    return str(spec.submodule_search_locations[0])


def _read(reply: bytes, layer: str) -> RunResult:
    """Make a result of a server's reply."""
    ready, cause, code, seconds, num_stdout = REPLY.unpack_from(reply)
    outputs = reply[REPLY.size :]
    stdout = outputs[:num_stdout]
    stderr = outputs[num_stdout:]
    ended = f"exit status {code}"
    if code < 0:
        ended = f"killed by {signal.Signals(-code).name}"
    last_words = _last_line(stderr)
    status, reason = _classify(CAUSES[cause], code, last_words, ended)
    # Only our own code runs before a process is ready, so no program is to blame.
    if not ready:
        status = "infra_error"
        reason = f"the process could not lock itself up: {last_words or ended}"
    return RunResult(status, layer, code, stdout, stderr, seconds, reason)


def _last_line(stderr: bytes) -> str:
    """Return the last line of an output: of a traceback, what was raised."""
    # Cut before decoding: a program may have written a megabyte without a line's end.
    text = stderr[-_LAST_WORDS_BYTES:].decode("utf-8", "replace")
    return text.strip().rpartition("\n")[2]


def _classify(
    cause: str, code: int, last_words: str, ended: str
) -> tuple[RunStatus, str]:
    """Return how a run ended, and the reason; a limit that ended it goes before all."""
    if cause == "timeout" or (not cause and code == -signal.SIGXCPU):
        return "timeout", "time limit reached"
    if cause == "output_limit":
        return "output_limit", "output limit reached"
    if code == 0:
        return "ok", ""
    if code == EXIT_MEMORY:
        return "memory", "memory limit reached"
    if code == EXIT_COMPILE:
        return "compile_error", last_words
    if code == -signal.SIGKILL:
        # The supervisor kills only with a cause.
        return "memory", "killed from outside, as by a machine out of memory"
    return "runtime_error", last_words or ended
