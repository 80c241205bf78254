"""A pool of processes that can be killed in the middle of anything.

It is for libraries that may hang. No worker is forked from this process: a clean one,
started by its own script, has loaded the libraries and forks the workers, so that a new
one is there in milliseconds. Threads and event loops share the pool.
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
"""Deadlines that a worker gets while others take the machine.

They do if it has had less than half of one in processor time.
"""
WORKER_START_S = 300.0
"""Loading the libraries takes seconds, on a busy machine minutes."""
_COMMAND = [
    sys.executable,
    "-I",
    "-S",
    "-B",
    str(Path(__file__).with_name("worker.py")),
]
MAX_WORKERS = 4
"""Processes at once."""
MAX_ANSWERS = 2000
"""Answers after which a process is replaced: libraries keep what they computed."""
MAX_REPLY_BYTES = 2**20
"""A longer reply is no answer to a question of ours."""
_MAX_ATTEMPTS = 2
"""One crash may be chance; the second is the request's doing."""
_PID_BYTES = 4
"""Size of an order to the parent process, and of its answer; see `worker.py`."""
_FORK = bytes(_PID_BYTES)
"""The order to fork a worker; any other is the id of the process to kill."""
_LENGTH_BYTES = 8
"""Size of the number that stands ahead of a message."""
_USER_TIME = 11
"""Place of the field in /proc/PID/stat, counted from behind the name; see proc(5)."""
_SYSTEM_TIME = 12


class Reply(NamedTuple):
    """What became of a request.

    `isolation` names what held the worker, `text` is its answer.
    """

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
    """Answers requests in worker processes, one for each of its threads.

    They start at the first request.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        # Requests that wait or are being answered, by their content.
        self._works: dict[bytes, _Work] = {}
        self._threads: list[Thread] = []
        self._is_closed = False
        # Guards the three above.
        self._lock = Lock()
        self._parent: LocalServer | None = None
        # Guards the talk with the parent process. It is another lock because whoever
        # submits must not wait for a process that starts.
        self._ordering = Lock()

    def submit(self, *request: str) -> "Future[Reply]":
        """Queue a request, and return the future of its reply.

        Equal requests that wait at the same time are answered once. `Reply.text` is
        JSON.

        Args:
            request: A question and its arguments; see `worker.py`.

        Raises:
            VerifierError: The pool is closed. The future raises it too, where no worker
                process can be started.
        """
        content = json.dumps(request).encode()
        future: Future[Reply] = Future()
        with self._lock:
            if self._is_closed:
                raise VerifierError("the pool is closed")
            self._start_threads()
            work = self._works.get(content)
            if work is None:
                work = self._works[content] = _Work(content)
                self._queue.put(work)
            work.waiting.append(future)
        return future

    def _start_threads(self) -> None:
        """Start a thread for each worker; the first request does, holding the lock."""
        num_workers = min(MAX_WORKERS, os.cpu_count() or 1)
        while len(self._threads) < num_workers:
            # A daemon: what a model wrote must not keep this process from ending.
            thread = Thread(target=self._serve, name="aipo-worker", daemon=True)
            self._threads.append(thread)
            thread.start()

    def is_closed(self) -> bool:
        """Return whether the pool takes no more requests."""
        return self._is_closed

    def close(self) -> None:
        """Kill every process of the pool, which then takes no more requests."""
        with self._lock:
            self._is_closed = True
            if self._parent:
                self._parent.kill()
        # Each thread takes one, and ends.
        for _ in self._threads:
            self._queue.put(None)

    def _serve(self) -> None:
        """Pass requests to one worker after another."""
        worker: _Worker | None = None
        while True:
            work = self._queue.get()
            if work is None:
                return
            with self._lock:
                if not work.is_wanted():
                    del self._works[work.content]
                    continue
            reply: Reply | VerifierError
            try:
                worker, reply = self._answer(worker, work.content)
            except Exception as error:
                worker = None
                reason = f"{type(error).__name__}: {error}"
                reply = VerifierError(f"no worker process could be had: {reason}")
            # Only now: until here, equal requests may still have joined this one.
            with self._lock:
                del self._works[work.content]
            for future in work.waiting:
                _settle(future, reply)

    def _answer(
        self, worker: "_Worker | None", request: bytes
    ) -> "tuple[_Worker | None, Reply]":
        """Return the reply, and the worker unless it failed or is to be replaced."""
        for _ in range(_MAX_ATTEMPTS):
            worker = worker or _Worker(self._order)
            reply = worker.ask(request)
            if reply.status != "answered" or worker.num_runs >= MAX_ANSWERS:
                self._order(worker.pid.to_bytes(_PID_BYTES, "big"))
                worker = None
            if reply.status != "crashed":
                break
        return worker, reply

    def _order(self, order: bytes, *descriptors: int) -> int:
        """Have the parent process fork a worker on a socket, or kill one by its id.

        Return the worker's process id.

        Raises:
            VerifierError: The pool is closed.
            OSError: There is no parent process, or it is silent.
        """
        with self._ordering:
            if self._is_closed:
                raise VerifierError("the pool is closed")
            parent = self._living_parent()
            socket.send_fds(parent.socket, [order], descriptors)
            return int.from_bytes(parent.read(_PID_BYTES, WORKER_START_S), "big")

    def _living_parent(self) -> LocalServer:
        """Return the parent process, a new one if it died: its workers died too."""
        if self._parent is not None and self._parent.process.poll() is None:
            return self._parent
        parent = LocalServer(_COMMAND)
        parent.send(json.dumps(sys.path).encode())
        # It answers once, with its own id, when it has loaded everything.
        parent.read(_PID_BYTES, WORKER_START_S)
        self._parent = parent
        # `close` does not wait for the ordering lock: it may have come in the meantime,
        # and found no parent to kill.
        if self.is_closed():
            parent.kill()
        return parent


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
        # The worker has its own copy of its end. Only if ours is closed does the end of
        # the worker show as the end of what can be read.
        with theirs:
            self.pid = order(_FORK, theirs.fileno())
        self.isolation = self.receive(WORKER_START_S).decode()

    def receive(self, wait_s: float) -> bytes:
        """Return the next message, which a worker writes at once.

        Raises:
            OSError: It is too long, did not come in time, or the worker is gone.
        """
        size = int.from_bytes(self.read(_LENGTH_BYTES, wait_s), "big")
        if size > MAX_REPLY_BYTES:
            raise ConnectionError(f"it announces {size} bytes")
        return self.read(size, DEADLINE_S)

    def ask(self, request: bytes) -> Reply:
        """Return the reply to a request; a worker that gave none must be killed."""
        self.num_runs += 1
        used_before_s = _cpu_s(self.pid)
        try:
            self.send(request)
            for _ in range(MAX_STARVED):
                with suppress(TimeoutError):
                    text = self.receive(DEADLINE_S).decode()
                    return Reply("answered", self.isolation, text)
                used_s = _cpu_s(self.pid) - used_before_s
                # Where it cannot be told, it is not less: there is no second deadline.
                is_starved = used_s < DEADLINE_S / 2
                if not is_starved:
                    break
            return Reply("timeout", self.isolation)
        except OSError:
            return Reply("crashed", self.isolation)


def _cpu_s(pid: int) -> float:
    """Return the processor time that a process has had, in seconds.

    It is not a number where this cannot be told.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return math.nan
    # The name of the program stands in brackets and may hold blanks and brackets.
    _, _, behind_name = status.rpartition(")")
    fields = behind_name.split()
    num_ticks = int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])
    return num_ticks / os.sysconf("SC_CLK_TCK")


@cache
def shared_pool(process_id: int) -> WorkerPool:
    """Return this process's pool; a forked child gets one of its own.

    Args:
        process_id: Of this process, `os.getpid()`.
    """
    pool = WorkerPool()
    atexit.register(pool.close)
    return pool
