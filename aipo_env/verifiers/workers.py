"""A pool of processes that can be killed in the middle of anything, for libraries that may hang.

None is forked from this process: a clean one, started by its own script, has loaded the libraries and forks
the workers, so that a new one is there in milliseconds. Threads and event loops share the pool.
"""

import atexit
import json
import math
import os
import socket
import sys
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Literal, NamedTuple

from aipo_env.errors import VerifierError
from aipo_env.sandboxes.process import LocalServer

DEADLINE_S = 1.0
"""From the moment a worker that is ready gets the work."""
MAX_STARVED = 10
"""Deadlines that a worker gets while it has had less than half of one in processor time: others took the machine."""
START_S = 300.0
MAX_WORKERS, MAX_ANSWERS = 4, 2000
"""Processes at once, and answers after which one is replaced."""


class Reply(NamedTuple):
    """What became of a request; `isolation` names what held the worker, `text` is its answer."""

    status: Literal["answered", "timeout", "crashed"]
    isolation: str
    text: str = ""


class WorkerPool:
    """Answers requests in worker processes. Starts at the first one.

    Args:
        script: Run by a bare interpreter; speaks the protocol of `math_worker`.
    """

    def __init__(self, script: Path, deadline_s: float = DEADLINE_S) -> None:
        self._command = [sys.executable, "-I", "-S", "-B", str(script)]
        self._deadline_s, self._owner, self._is_closed = deadline_s, os.getpid(), False
        self._requests: SimpleQueue[tuple[Future[Reply], bytes] | None] = SimpleQueue()
        self._lock, self._threads = Lock(), list[Thread]()
        self._parent: LocalServer | None = None

    def submit(self, *request: str) -> "Future[Reply]":
        """Queue a request; the future's result says whether it was answered, or raises VerifierError."""
        future: Future[Reply] = Future()
        with self._lock:
            if self._is_closed:
                raise VerifierError("the pool is closed")
            while len(self._threads) < min(MAX_WORKERS, os.cpu_count() or 1):
                self._threads.append(Thread(target=self._serve, name="aipo-worker", daemon=True))
                self._threads[-1].start()
        self._requests.put((future, json.dumps(request).encode()))
        return future

    def close(self) -> None:
        """Kill every process of the pool and answer no more; in a fork's child, do nothing."""
        with self._lock:
            if self._owner != os.getpid() or self._is_closed:
                return
            self._is_closed = True
            for _ in self._threads:
                self._requests.put(None)
            if self._parent:
                self._parent.kill()

    def _serve(self) -> None:
        """Pass requests to one worker after another, in a thread of its own."""
        worker: _Worker | None = None
        for future, request in iter(self._requests.get, None):
            if not future.set_running_or_notify_cancel():
                continue
            try:
                worker, reply = self._answer(worker or self._start_worker(), request)
                future.set_result(reply)
            except Exception as error:
                worker = None
                fault = f"no worker process could be had: {type(error).__name__}: {error}"
                future.set_exception(VerifierError(fault))
        if worker:
            worker.channel.close()

    def _answer(self, worker: "_Worker", request: bytes) -> "tuple[_Worker, Reply]":
        """Return a worker that is ready for the next request, and the reply to this one."""
        for _ in range(2):  # a crash may be chance; the second is the request's doing
            reply = worker.ask(request, self._deadline_s)
            if reply.status == "answered" and worker.num_answers < MAX_ANSWERS:
                break
            worker.channel.close()
            self._order(worker.pid.to_bytes(4, "big"))
            worker = self._start_worker()
            if reply.status != "crashed":
                break
        return worker, reply

    def _start_worker(self) -> "_Worker":
        mine, theirs = socket.socketpair()
        with theirs:
            try:
                return _Worker(mine, self._order(bytes(4), theirs.fileno()))
            except BaseException:
                mine.close()
                raise

    def _order(self, order: bytes, *descriptors: int) -> int:
        """Have the parent process fork a worker on a socket, or kill one by its id; return its id."""
        with self._lock:
            if self._is_closed:
                raise VerifierError("the pool is closed")
            if self._parent is None or self._parent.process.poll() is not None:
                self._parent = self._start_parent()  # its workers died with the one before
            socket.send_fds(self._parent.socket, [order], descriptors)
            return int.from_bytes(self._parent.receive(4, START_S), "big")

    def _start_parent(self) -> LocalServer:
        """Start the process that forks the workers, with nothing of ours but the module search path."""
        if not hasattr(os, "fork"):
            raise VerifierError("algebra is checked in forked processes: use Linux or macOS")
        parent = LocalServer(self._command)
        path = json.dumps(sys.path).encode()
        parent.socket.sendall(_frame(path))
        parent.receive(4, START_S)
        return parent


class _Worker:
    """One worker process and the socket to it. Its first frame says what holds it."""

    def __init__(self, channel: socket.socket, pid: int) -> None:
        self.channel, self.pid, self.num_answers = channel, pid, 0
        self.channel.settimeout(START_S)
        self.isolation = self._receive()

    def ask(self, request: bytes, deadline_s: float) -> Reply:
        self.num_answers += 1
        used_s = _cpu_s(self.pid)
        try:
            self.channel.settimeout(deadline_s)
            self.channel.sendall(_frame(request))
            for _ in range(MAX_STARVED):
                with suppress(TimeoutError):
                    return Reply("answered", self.isolation, self._receive())
                if not _cpu_s(self.pid) - used_s < deadline_s / 2:
                    break
            return Reply("timeout", self.isolation)
        except OSError:
            return Reply("crashed", self.isolation)

    def _receive(self) -> str:
        """Return the next frame, which a worker writes at once, or raise OSError."""
        if not self.channel.recv(1, socket.MSG_PEEK):
            raise ConnectionError("the worker died")
        return self.channel.recv(int.from_bytes(self.channel.recv(4), "big")).decode()


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _cpu_s(pid: int) -> float:
    """Return the processor time a process has had; not a number where this cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@cache
def shared_pool(script: Path, process_id: int) -> WorkerPool:
    """Return this process's pool for a script; a forked child gets one of its own."""
    pool = WorkerPool(script)
    atexit.register(pool.close)
    return pool
