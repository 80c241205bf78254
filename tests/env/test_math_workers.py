"""Worker processes that can be killed."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aipo_env import MathVerifier, VerifierError
from aipo_env.verifiers.workers import WorkerPool

ENDLESS = r"\sum_{k=1}^{9999} \frac{1}{k^{3}+\sqrt{k}}"


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool()
    yield pool
    pool.close()


def ask(pool: WorkerPool, gold: str, answer: str) -> tuple[str, str]:
    reply = pool.submit("grade", gold, answer).result()
    return reply.status, json.loads(reply.text)[0]


def test_requests_are_answered(pool: WorkerPool):
    assert ask(pool, "x+1", "1+x") == ("answered", "correct")
    assert ask(pool, "x+1", "x") == ("answered", "wrong")


def test_a_request_that_hangs_is_killed_and_the_next_one_answered(pool: WorkerPool):
    ask(pool, "x+1", "1+x")
    hung = [pool.submit("grade", str(n), ENDLESS) for n in range(5)]
    assert [future.result().status for future in hung] == ["timeout"] * 5
    assert ask(pool, "x+2", "2+x") == ("answered", "correct")


def test_equal_requests_at_once_are_answered_once(pool: WorkerPool):
    ask(pool, "x+1", "1+x")
    begin = time.perf_counter()
    hung = [pool.submit("grade", "2", ENDLESS) for _ in range(40)]
    hung[0].cancel()
    assert [future.result().status for future in hung[1:]] == ["timeout"] * 39
    assert time.perf_counter() - begin < 12.0


def test_nobody_waits_for_a_process_that_starts():
    pool = WorkerPool()
    first = pool.submit("grade", "x+1", "1+x")
    time.sleep(0.2)  # its process is being started, which takes seconds
    begin = time.perf_counter()
    second = pool.submit("grade", "x+2", "2+x")
    assert time.perf_counter() - begin < 0.1
    assert [one.result().status for one in (first, second)] == ["answered"] * 2
    pool.close()


def test_a_worker_that_dies_is_replaced(pool: WorkerPool):
    assert pool.submit("no such question").result().status == "crashed"
    assert ask(pool, "x+3", "3+x") == ("answered", "correct")


def test_threads_share_the_pool(pool: WorkerPool):
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda n: ask(pool, f"x+{n}", f"{n}+x"), range(40)))
    assert statuses == [("answered", "correct")] * 40


def test_event_loops_one_after_another_share_the_workers():
    for number in (5, 6):
        verdict = asyncio.run(MathVerifier().grade(f"x+{number}", f"{number}+x"))
        assert verdict.status == "correct"


def test_a_cancelled_request_leaves_the_pool_at_work(pool: WorkerPool):
    ask(pool, "x+1", "1+x")

    async def cancel() -> None:
        waiting = asyncio.ensure_future(
            asyncio.wrap_future(pool.submit("grade", "1", ENDLESS))
        )
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancel())
    assert ask(pool, "x+7", "7+x") == ("answered", "correct")


def test_close_ends_every_process():
    pool = WorkerPool()
    ask(pool, "x+1", "1+x")
    assert pool._parent
    pool.close()
    assert pool._parent.process.returncode is not None
    with pytest.raises(VerifierError, match="the pool is closed"):
        pool.submit("grade", "1", "1")


def test_a_pool_outlives_the_death_of_its_processes(pool: WorkerPool):
    ask(pool, "x+1", "1+x")
    assert pool._parent
    pool._parent.process.kill()
    pool._parent.process.wait()
    assert ask(pool, "x+8", "8+x") == ("answered", "correct")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_workers_of_its_own():
    script = """
import os
from aipo_env import MathVerifier, run_sync
grade = lambda n: run_sync(MathVerifier().grade(f"x+{n}", f"{n}+x")).status
assert grade(1) == "correct"
if not (child := os.fork()):
    os._exit(0 if grade(2) == "correct" else 1)
assert os.waitpid(child, 0)[1] == 0
assert grade(3) == "correct"
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120
    )


def test_the_environment_does_not_reach_the_workers(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIPO_SECRET", "canary")
    ask(pool, "x+1", "1+x")
    assert pool._parent
    environment = Path(f"/proc/{pool._parent.process.pid}/environ")
    if not environment.exists():
        pytest.skip("no /proc here")
    assert b"canary" not in environment.read_bytes()


def test_a_process_ends_while_answers_are_still_being_checked():
    script = """
from aipo_env.verifiers.workers import shared_pool
pool = shared_pool(0)
pool.submit("grade", "x+1", "1+x").result()
for _ in range(40):
    pool.submit("grade", "1", r"%s")
"""
    subprocess.run([sys.executable, "-c", script % ENDLESS], check=True, timeout=30)
