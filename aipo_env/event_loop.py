"""The event loop of this process, in a thread of its own, and the bridge to it.

Whatever is synchronous - a step of an environment, a step of training, a command -
waits here for what is not: agents, verifiers, sandboxes, samplers. All of them live in
one loop, so their connections and locks do too.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

END_S = 10.0
"""How long cancelled work is waited for."""
_EXIT_S = 1.0
"""How long, at the end of the process, each of two steps is waited for."""

_LOOPS: dict[int, asyncio.AbstractEventLoop] = {}
"""The loop of each process by its id: this one's, or none yet."""
_MAKING = threading.Lock()
"""Held while a loop is made."""


def _forget() -> None:
    """Forget the parent's loops, and its lock, which a thread of it may have held."""
    global _MAKING
    _LOOPS.clear()
    _MAKING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _loop(process_id: int) -> asyncio.AbstractEventLoop:
    """Return the loop of a process; a forked child has no thread of its parent's."""
    if process_id not in _LOOPS:
        with _MAKING:
            # Another thread may have made it while this one waited for the lock.
            if process_id not in _LOOPS:
                _LOOPS[process_id] = _start_loop(process_id)
    return _LOOPS[process_id]


def _start_loop(process_id: int) -> asyncio.AbstractEventLoop:
    """Start a loop in a thread of its own, until the process ends."""
    loop = asyncio.new_event_loop()
    is_ending = threading.Event()

    def serve() -> None:
        while not is_ending.is_set():
            # A task that raises SystemExit or KeyboardInterrupt, as somebody's agent
            # may, throws it out of the loop too; who awaits the task has it already.
            with suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()
                return

    thread = threading.Thread(target=serve, name="aipo-loop", daemon=True)
    thread.start()

    def end() -> None:
        """Have what runs in the loop close its connections."""
        # A forked child has inherited this call, but not the thread.
        if os.getpid() != process_id:
            return
        is_ending.set()
        with suppress(TimeoutError):
            closing = asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop)
            closing.result(_EXIT_S)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_EXIT_S)

    atexit.register(end)
    return loop


def process_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of this process."""
    return _loop(os.getpid())


class Running(Generic[T]):
    """Work that runs in the event loop of this process; made by `start`."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.future: Future[T] = Future()
        self._ended = threading.Event()
        self._task: asyncio.Task[T] | None = None
        self._loop = process_loop()
        self._loop.call_soon_threadsafe(self._begin, work)

    def result(self) -> T:
        """Wait for the work and return what it returns, or raise what it raises.

        An interruption of the wait, such as Ctrl-C, cancels the work and waits for its
        end.
        """
        try:
            return self.future.result()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Cancel the work if it still runs, and wait for its end, `END_S` at most."""
        if not self._ended.is_set():
            self.request_cancel()
            self._ended.wait(END_S)

    def request_cancel(self) -> None:
        """Cancel the work if it still runs, and do not wait."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(self._finish)

    def _cancel(self) -> None:
        # The loop runs calls in the order in which they come, so the task is there.
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: "asyncio.Task[T]") -> None:
        # The waiting thread may look at `_ended` as soon as it has the result.
        self._ended.set()
        if self.future.cancelled():
            return
        if task.cancelled():
            self.future.cancel()
            # Only this tells those who wait for the future by other means.
            self.future.set_running_or_notify_cancel()
            return
        fault = task.exception()
        if fault is not None:
            self.future.set_exception(fault)
        else:
            self.future.set_result(task.result())


def start(work: Coroutine[Any, Any, T]) -> Running[T]:
    """Begin work in the event loop of this process and go on."""
    return Running(work)


async def in_process_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run work in the event loop of this process and await it, from whatever loop.

    What lives in that loop, such as connections, is used from others by this.
    """
    if asyncio.get_running_loop() is process_loop():
        return await work
    running = start(work)
    try:
        return await asyncio.wrap_future(running.future)
    except asyncio.CancelledError:
        running.request_cancel()
        raise


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run work in the event loop of this process and wait for it.

    It may be called while another loop runs in this thread, as in a notebook. An
    interruption (Ctrl-C) cancels the work.

    Raises:
        RuntimeError: It is called by work that it runs itself, say by an agent that
            steps an environment.
    """
    # The public function raises where no loop runs.
    if asyncio._get_running_loop() is process_loop():
        work.close()  # or Python warns that it was never awaited
        raise RuntimeError(
            "run_sync() inside what run_sync() runs would wait for itself. Await the"
            " work."
        )
    return start(work).result()
