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
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Literal, NamedTuple

from aipo_env.errors import VerifierError
from aipo_env.sandboxes.fork_server import Connection
from aipo_env.sandboxes.process import LocalServer

DEADLINE_S = 1.0
"""From the moment a worker that is ready gets the work."""
MAX_STARVED = 10
"""Deadlines that a worker gets while it has had less than half of one in processor time: others took the machine."""
START_S = 300.0
_COMMAND = [
    sys.executable,
    "-I",
    "-S",
    "-B",
    str(Path(__file__).with_name("math_worker.py")),
]
MAX_WORKERS, MAX_ANSWERS = 4, 2000
"""Processes at once, and answers after which one is replaced."""
MAX_REPLY_BYTES = 2**20


class Reply(NamedTuple):
    """What became of a request; `isolation` names what held the worker, `text` is its answer."""

    status: Literal["answered", "timeout", "crashed"]
    isolation: str
    text: str = ""


@dataclass(eq=False)
class _Work:
    """A request, and everybody who waits for the reply."""

    content: bytes
    waiting: list[Future[Reply]] = field(default_factory=list)

    def is_wanted(self) -> bool:
        """Return whether anybody still waits."""
        return not all(future.cancelled() for future in self.waiting)


class WorkerPool:
    """Answers requests in worker processes, one for each of its threads. Starts at the first request."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._works: dict[bytes, _Work] = {}
        self._lock, self._threads, self._is_closed = Lock(), list[Thread](), False
        # Another lock: whoever submits must not wait for a process that starts.
        self._ordering = Lock()
        self._parent: LocalServer | None = None

    def submit(self, *request: str) -> "Future[Reply]":
        """Queue a request; the future's result says whether it was answered, or raises VerifierError.

        Equal requests that wait at the same time are answered once. `Reply.text` is JSON.
        """
        content = json.dumps(request).encode()
        future: Future[Reply] = Future()
        with self._lock:
            if self._is_closed:
                raise VerifierError("the pool is closed")
            while len(self._threads) < min(MAX_WORKERS, os.cpu_count() or 1):
                # A daemon: what a model wrote must not keep this process from ending.
                self._threads.append(
                    Thread(target=self._serve, name="aipo-worker", daemon=True)
                )
                self._threads[-1].start()
            work = self._works.get(content)
            if work is None:
                work = self._works[content] = _Work(content)
                self._queue.put(work)
            work.waiting.append(future)
        return future

    def is_closed(self) -> bool:
        """Return whether the pool takes no more requests."""
        return self._is_closed

    def close(self) -> None:
        """Kill every process of the pool, which then takes no more requests."""
        with self._lock:
            self._is_closed = True
            if self._parent:
                self._parent.kill()
        for _ in self._threads:
            self._queue.put(None)

    def _serve(self) -> None:
        """Pass requests to one worker after another."""
        worker: _Worker | None = None
        for work in iter(self._queue.get, None):
            with self._lock:
                if not work.is_wanted():
                    del self._works[work.content]
                    continue
            reply: Reply | VerifierError
            try:
                worker, reply = self._answer(worker, work.content)
            except Exception as error:
                worker = None
                reply = VerifierError(
                    f"no worker process could be had: {type(error).__name__}: {error}"
                )
            with self._lock:
                del self._works[work.content]
            for future in work.waiting:
                _settle(future, reply)

    def _answer(
        self, worker: "_Worker | None", request: bytes
    ) -> "tuple[_Worker | None, Reply]":
        """Return the reply, and the worker unless it failed or has answered often enough."""
        for _ in range(2):  # a crash may be chance; the second is the request's doing
            worker = worker or _Worker(self._order)
            reply = worker.ask(request)
            if reply.status != "answered" or worker.num_runs >= MAX_ANSWERS:
                self._order(worker.pid.to_bytes(4, "big"))
                worker = None
            if reply.status != "crashed":
                break
        return worker, reply

    def _order(self, order: bytes, *descriptors: int) -> int:
        """Have the parent process fork a worker on a socket, or kill one by its id; return its id."""
        with self._ordering:
            if self._is_closed:
                raise VerifierError("the pool is closed")
            if self._parent is None or self._parent.process.poll() is not None:
                parent = LocalServer(_COMMAND)  # its workers died with the one before
                parent.send(json.dumps(sys.path).encode())
                parent.read(4, START_S)
                self._parent = parent
                if self.is_closed():  # in the meantime
                    parent.kill()
            socket.send_fds(self._parent.socket, [order], descriptors)
            return int.from_bytes(self._parent.read(4, START_S), "big")


def _settle(future: Future[Reply], reply: Reply | VerifierError) -> None:
    """Give a reply, or what went wrong, to one who waits, unless he no longer does."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(reply, VerifierError):
        future.set_exception(reply)
    else:
        future.set_result(reply)


class _Worker(Connection):
    """One worker process and the socket to it. Its first message says what holds it."""

    def __init__(self, order: Callable[..., int]) -> None:
        mine, theirs = socket.socketpair()
        super().__init__(mine, mine.close)
        with theirs:
            self.pid = order(bytes(4), theirs.fileno())
        self.isolation = self.receive(START_S).decode()

    def receive(self, wait_s: float) -> bytes:
        """Return the next message, which a worker writes at once; one too long is none of ours."""
        if (size := int.from_bytes(self.read(8, wait_s), "big")) > MAX_REPLY_BYTES:
            raise ConnectionError(f"it announces {size} bytes")
        return self.read(size, DEADLINE_S)

    def ask(self, request: bytes) -> Reply:
        self.num_runs += 1
        used_s = _cpu_s(self.pid)
        try:
            self.send(request)
            for _ in range(MAX_STARVED):
                with suppress(TimeoutError):
                    return Reply(
                        "answered", self.isolation, self.receive(DEADLINE_S).decode()
                    )
                if not _cpu_s(self.pid) - used_s < DEADLINE_S / 2:
                    break
            return Reply("timeout", self.isolation)
        except OSError:
            return Reply("crashed", self.isolation)


def _cpu_s(pid: int) -> float:
    """Return the processor time a process has had; not a number where this cannot be told."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="ascii")
            .rpartition(")")[2]
            .split()
        )
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@cache
def shared_pool(process_id: int) -> WorkerPool:
    """Return this process's pool; a forked child gets one of its own."""
    pool = WorkerPool()
    atexit.register(pool.close)
    return pool
