"""A pool of processes that can be killed in the middle of anything, for libraries that may hang.

None is forked from this process: a clean one, started by its own script, has loaded the libraries and forks
the workers, so that a new one is there in milliseconds. Threads and event loops share the pool.
"""

import atexit
import json
import math
import os
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Literal, NamedTuple

from aipo_env.errors import VerifierError

DEADLINE_S = 1.0
"""From the moment a worker that is ready gets the work."""
MAX_STARVED = 10
"""Deadlines that a worker gets while it has had less than half of one in processor time: others took the machine."""
START_S = 300.0
MAX_WORKERS, MAX_ANSWERS = 4, 2000
"""Processes at once, and answers after which one is replaced."""
_SIZE = struct.Struct(">I")


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
        self._script, self._deadline_s, self._owner = script, deadline_s, os.getpid()
        self._requests: SimpleQueue[tuple[Future[Reply], bytes] | None] = SimpleQueue()
        self._lock, self._threads, self._is_closed = Lock(), list[Thread](), False
        self._parent: tuple[subprocess.Popen[bytes], socket.socket] | None = None

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
                process, control = self._parent
                control.close()
                process.kill()
                process.wait()

    def _serve(self) -> None:
        """Pass requests to one worker after another, in a thread of its own."""
        worker: _Worker | None = None
        while item := self._requests.get():
            future, request = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                worker, reply = self._answer(worker, request)
                future.set_result(reply)
            except Exception as error:
                worker = None
                fault = f"no worker process could be had: {type(error).__name__}: {error}"
                future.set_exception(VerifierError(fault))
        if worker:
            worker.channel.close()

    def _answer(self, worker: "_Worker | None", request: bytes) -> "tuple[_Worker, Reply]":
        """Return a worker that is ready for the next request, and the reply to this one."""
        worker = worker or self._start_worker()
        for is_last in (False, True):  # a crash may be chance; the second is the request's doing
            reply = worker.ask(request, self._deadline_s)
            if reply.status == "answered" and worker.num_answers < MAX_ANSWERS:
                break
            worker.channel.close()
            self._command(worker.pid)
            worker = self._start_worker()
            if reply.status != "crashed" or is_last:
                break
        return worker, reply

    def _start_worker(self) -> "_Worker":
        mine, theirs = socket.socketpair()
        with theirs:
            try:
                return _Worker(mine, self._command(theirs))
            except BaseException:
                mine.close()
                raise

    def _command(self, order: "socket.socket | int") -> int:
        """Have the parent process fork a worker on a socket, or kill one by its id; return its id."""
        with self._lock:
            if self._is_closed:
                raise VerifierError("the pool is closed")
            if self._parent is None or self._parent[0].poll() is not None:
                if isinstance(order, int):
                    return order  # it died with its parent
                if self._parent:
                    self._parent[1].close()
                self._parent = _start_parent(self._script)
            control = self._parent[1]
            if isinstance(order, int):
                control.sendall(_SIZE.pack(order))
            else:
                socket.send_fds(control, [bytes(4)], [order.fileno()])
            return _number(control)


class _Worker:
    """One worker process and the socket to it. Its first frame says what holds it."""

    def __init__(self, channel: socket.socket, pid: int) -> None:
        self.channel, self.pid, self.num_answers = channel, pid, 0
        self._received = bytearray()
        self.isolation = self._receive(START_S)

    def ask(self, request: bytes, deadline_s: float) -> Reply:
        self.num_answers += 1
        used_s = _cpu_s(self.pid)
        try:
            self.channel.settimeout(deadline_s)
            self.channel.sendall(_SIZE.pack(len(request)) + request)
            for _ in range(MAX_STARVED):
                with suppress(TimeoutError):
                    return Reply("answered", self.isolation, self._receive(deadline_s))
                if not _cpu_s(self.pid) - used_s < deadline_s / 2:
                    break
            return Reply("timeout", self.isolation)
        except OSError:
            return Reply("crashed", self.isolation)

    def _receive(self, within_s: float) -> str:
        end, data = time.monotonic() + within_s, self._received
        while len(data) < 4 or len(data) < 4 + _SIZE.unpack_from(data)[0]:
            self.channel.settimeout(max(end - time.monotonic(), 1e-6))
            if not (chunk := self.channel.recv(2**16)):
                raise ConnectionError("the worker died")
            data += chunk
        self._received = bytearray()
        return data[4:].decode()


def _cpu_s(pid: int) -> float:
    """Return the processor time a process has had; not a number where this cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _start_parent(script: Path) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the process that forks the workers, with nothing of ours but the module search path."""
    if not hasattr(os, "fork"):
        raise VerifierError("algebra is checked in forked processes: use Linux or macOS")
    control, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(script)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
    control.settimeout(START_S)
    path = json.dumps(sys.path).encode()
    control.sendall(_SIZE.pack(len(path)) + path)
    _number(control)
    return process, control


def _number(channel: socket.socket) -> int:
    data = channel.recv(4, socket.MSG_WAITALL)
    if len(data) < 4:
        raise EOFError("the parent of the workers died")
    return int(_SIZE.unpack(data)[0])


@cache
def shared_pool(script: Path, process_id: int) -> WorkerPool:
    """Return this process's pool for a script; a forked child gets one of its own."""
    pool = WorkerPool(script)
    atexit.register(pool.close)
    return pool
