"""One event loop for each process, and the bridge to it."""

import asyncio
import multiprocessing
import os
import signal
import threading

import pytest

from aipo_env import process_loop, run_sync, start
from aipo_env.event_loop import in_process_loop


async def here() -> tuple[int, str]:
    return os.getpid(), threading.current_thread().name


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


def test_all_work_runs_in_one_thread():
    assert run_sync(here()) == run_sync(here()) == (os.getpid(), "aipo-loop")


def test_it_works_inside_a_running_loop_as_in_a_notebook():
    async def cell() -> tuple[int, str]:
        return run_sync(here())

    assert asyncio.run(cell()) == (os.getpid(), "aipo-loop")


def test_a_forked_child_has_a_loop_of_its_own():
    run_sync(here())
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        pid, thread = pool.apply(_in_child)
    assert pid != os.getpid()
    assert thread == "aipo-loop"


def _in_child() -> tuple[int, str]:
    return run_sync(here())


def test_work_cannot_wait_for_itself():
    async def inner() -> None:
        run_sync(here())

    with pytest.raises(RuntimeError, match="would wait for itself. Await the work"):
        run_sync(inner())


def test_what_work_raises_comes_out():
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        run_sync(fail())


def test_an_interruption_cancels_the_work_and_waits_for_its_end():
    ended: list[str] = []
    running = start(forever(ended))
    # What a signal handler raises comes out of the wait.
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        running.result()
    assert ended == ["ended"]


def test_cancelling_what_has_ended_is_harmless():
    running = start(here())
    assert running.result()[0] == os.getpid()
    running.cancel()
    assert running.result()[0] == os.getpid()


def test_another_loop_reaches_what_lives_in_this_one():
    async def elsewhere() -> tuple[tuple[int, str], bool]:
        found = await in_process_loop(here())
        return found, asyncio.get_running_loop() is process_loop()

    assert asyncio.run(elsewhere()) == ((os.getpid(), "aipo-loop"), False)


def test_cancelling_from_another_loop_reaches_the_work():
    ended: list[str] = []

    async def elsewhere() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await in_process_loop(forever(ended))

    asyncio.run(elsewhere())
    run_sync(asyncio.sleep(0.1))
    assert ended == ["ended"]
