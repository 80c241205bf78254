"""Somebody else's code beside an event loop: in threads, and only so much at once."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

from aipo_env.errors import shown

T = TypeVar("T")
_MAX_FAULT_CHARS = 1000
"""What a message repeats of somebody else's error."""


def in_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run a function in a thread of its own, and return a future of its result.

    One that never returns holds up neither the others nor the exit. What it raises
    comes out as it is if it is an Exception, SystemExit or CancelledError. Anything
    else would end the event loop, and comes out as a RuntimeError that names it.

    Args:
        work: The function.
        name: The thread's, for people.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, fault: BaseException | None) -> None:
        if outcome.done():  # nobody waits any more
            return
        if fault is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(fault)

    def run() -> None:
        result: Any = None
        fault: BaseException | None = None
        try:
            result = work()
        except BaseException as error:
            fault = _harmless(error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, fault)

    # Not the event loop's own pool: its threads are few and are waited for at the exit.
    Thread(target=run, name=name, daemon=True).start()
    return outcome


def _harmless(error: BaseException) -> BaseException:
    """Return an error as a future may hold it and an event loop survives it."""
    # A future takes no StopIteration.
    is_plain = isinstance(error, Exception) and not isinstance(error, StopIteration)
    if is_plain or isinstance(error, SystemExit | asyncio.CancelledError):
        return error
    return RuntimeError(shown(error, _MAX_FAULT_CHARS))


def check_cancelled() -> None:
    """Raise CancelledError if this task was cancelled.

    Somebody else's program within it may raise that error too, which says nothing of
    the task.
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all, side by side; return what they return, in order.

    When one raises, the others are cancelled and have ended before the error comes out.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        # gather leaves the others running.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class Places:
    """Room for so many at once, in each event loop: `async with places.one(): ...`.

    A copy, deep or pickled, has all its places free.

    Args:
        num: How many.
    """

    def __init__(self, num: int) -> None:
        self._num = num
        # A semaphore belongs to the event loop it first waited in.
        self._semaphores: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    def one(self) -> asyncio.Semaphore:
        """Return what gives a place and takes it back, in the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._semaphores:
            self._forget_closed()
            self._semaphores[loop] = asyncio.Semaphore(self._num)
        return self._semaphores[loop]

    def _forget_closed(self) -> None:
        # Else a process that calls asyncio.run over and over would keep every loop.
        for loop in list(self._semaphores):
            if loop.is_closed():
                self._semaphores.pop(loop, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return Places, (self._num,)
