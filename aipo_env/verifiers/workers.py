"""A pool of processes that can be killed in the middle of anything, for libraries that may hang.

None is forked from this process: a clean one, started by its own script, has loaded the libraries and forks
the workers, so that a new one is there in milliseconds. Threads and event loops share the pool.
"""

import json
import math
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock, local
from typing import Literal, NamedTuple

from aipo_env.errors import VerifierError
from aipo_env.sandboxes.fork_server import Connection
from aipo_env.sandboxes.process import LocalServer

DEADLINE_S = 1.0
"""From the moment a worker that is ready gets the work."""
MAX_STARVED = 10
"""Deadlines that a worker gets while it has had less than half of one in processor time: others took the machine."""
START_S = 300.0
_COMMAND = [sys.executable, "-I", "-S", "-B", str(Path(__file__).with_name("math_worker.py"))]
MAX_WORKERS, MAX_ANSWERS = 4, 2000
"""Processes at once, and answers after which one is replaced."""


class Reply(NamedTuple):
    """What became of a request; `isolation` names what held the worker, `text` is its answer."""

    status: Literal["answered", "timeout", "crashed"]
    isolation: str
    text: str = ""


class WorkerPool:
    """Answers requests in worker processes, one for each of its threads. Starts at the first request."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), "aipo-worker")
        self._own, self._lock = local(), Lock()
        self._parent: LocalServer | None = None

    def submit(self, *request: str) -> "Future[Reply]":
        """Queue a request; the future's result says whether it was answered, or raises VerifierError."""
        return self._threads.submit(self._answer, json.dumps(request).encode())

    def close(self) -> None:
        """Kill every process of the pool, which then takes no more requests."""
        self._threads.shutdown(cancel_futures=True)
        if self._parent:
            self._parent.kill()

    def _answer(self, request: bytes) -> Reply:
        """Have this thread's worker answer a request, and drop one that failed or has answered often enough."""
        try:
            for _ in range(2):  # a crash may be chance; the second is the request's doing
                worker = self._own.worker = getattr(self._own, "worker", None) or _Worker(self._order)
                reply = worker.ask(request)
                if reply.status != "answered" or worker.num_runs >= MAX_ANSWERS:
                    self._own.worker = None
                    self._order(worker.pid.to_bytes(4, "big"))
                if reply.status != "crashed":
                    break
        except Exception as error:
            self._own.worker = None
            fault = f"no worker process could be had: {type(error).__name__}: {error}"
            raise VerifierError(fault) from error
        return reply

    def _order(self, order: bytes, *descriptors: int) -> int:
        """Have the parent process fork a worker on a socket, or kill one by its id; return its id."""
        with self._lock:
            if self._parent is None or self._parent.process.poll() is not None:
                parent = LocalServer(_COMMAND)  # its workers died with the one before
                parent.send(json.dumps(sys.path).encode())
                parent.read(4, START_S)
                self._parent = parent
            socket.send_fds(self._parent.socket, [order], descriptors)
            return int.from_bytes(self._parent.read(4, START_S), "big")


class _Worker(Connection):
    """One worker process and the socket to it. Its first message says what holds it."""

    def __init__(self, order: Callable[..., int]) -> None:
        mine, theirs = socket.socketpair()
        super().__init__(mine, mine.close)
        with theirs:
            self.pid = order(bytes(4), theirs.fileno())
        self.isolation = self.receive(START_S).decode()

    def ask(self, request: bytes) -> Reply:
        self.num_runs += 1
        used_s = _cpu_s(self.pid)
        try:
            self.send(request)
            for _ in range(MAX_STARVED):
                with suppress(TimeoutError):
                    return Reply("answered", self.isolation, self.receive(DEADLINE_S).decode())
                if not _cpu_s(self.pid) - used_s < DEADLINE_S / 2:
                    break
            return Reply("timeout", self.isolation)
        except OSError:
            return Reply("crashed", self.isolation)


def _cpu_s(pid: int) -> float:
    """Return the processor time a process has had; not a number where this cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@cache
def shared_pool(process_id: int) -> WorkerPool:
    """Return this process's pool; a forked child gets one of its own."""
    return WorkerPool()
