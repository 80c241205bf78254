"""Programs run per second: this project's sandboxes beside what others do.

    python benchmarks/sandbox.py --image python:3.11-slim --out sandbox.json

The program reads two numbers and prints their sum, the smallest there is, so that what
is measured is the sandbox. Rounds of all systems are interleaved; each is warm before
its first. A system that is not there is named as such.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from aipo_env import SandboxUnavailable, run_sync
from aipo_env.sandboxes.base import Limits, Program, Sandbox
from aipo_env.sandboxes.docker_sandbox import DEFAULT_IMAGE, DockerSandbox
from aipo_env.sandboxes.process import BubblewrapSandbox, ProcessSandbox

SOURCE = "a, b = map(int, input().split())\nprint(a + b)"
STDIN = b"1 2\n"
STDOUT = b"3\n"
BWRAP = (
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--ro-bind",
    "/",
    "/",
    "--proc",
    "/proc",
)
CONTAINER = (
    "--network",
    "none",
    "--read-only",
    "--cap-drop",
    "ALL",
    "--user",
    "65534",
    "--memory",
    "1g",
)
NAME = f"aipo-benchmark-{os.getpid()}"
"""Of the container for `docker exec`."""
BASE = "python -I -S"
"""The system that the others are compared with."""
TIME_S = 20
"""Seconds a program may take."""
GUARD_MEMORY_BYTES = 2**32
MAX_DESCRIPTORS = 256
"""More than this process has open."""
HIGH_SHARE = 0.95
"""The share of the runs that are no slower than the last column says."""
MIN_RUNS = 3
Run = Callable[[], bytes]
"""Runs the program once, and returns what it printed."""


def command(*words: str) -> bytes:
    """Run one command to its end."""
    return subprocess.run(
        words,
        input=STDIN,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    ).stdout


def sandboxed(sandbox: Sandbox) -> bytes:
    """Run the program in one of our sandboxes."""
    work = sandbox.run(Program(SOURCE, STDIN), Limits(time_s=TIME_S))
    return run_sync(work).stdout


def guarded() -> bytes:
    """Run the program in a fork of this process, as guards within a trainer do.

    The fork takes away from itself what Python has names for.
    """
    stdin_read, stdin_write = os.pipe()
    stdout_read, stdout_write = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os.dup2(stdin_read, 0)
            os.dup2(stdout_write, 1)
            os.closerange(3, MAX_DESCRIPTORS)
            _guard()
            sys.stdin = os.fdopen(0)
            sys.stdout = os.fdopen(1, "w")
            exec(compile(SOURCE, "<program>", "exec"), {"__name__": "__main__"})
            sys.stdout.flush()
        _exit(0)
    os.close(stdin_read)
    os.close(stdout_write)
    os.write(stdin_write, STDIN)
    os.close(stdin_write)
    with os.fdopen(stdout_read, "rb") as output:
        data = output.read()
    os.waitpid(child, 0)
    return data


_exit = os._exit
"""Kept, since a guard may take it away."""


def _guard() -> None:
    """Limit memory, set an alarm, and remove dangerous functions."""
    import builtins
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (GUARD_MEMORY_BYTES, GUARD_MEMORY_BYTES))
    signal.alarm(TIME_S)
    of_processes = "system fork forkpty kill killpg setuid putenv"
    of_files = "remove removedirs rename replace rmdir unlink truncate chmod chown"
    of_folders = "chdir chroot getcwd"
    for name in f"{of_processes} {of_files} {of_folders}".split():
        setattr(os, name, None)
    for name in ("move", "rmtree", "chown"):
        setattr(shutil, name, None)
    subprocess.Popen = None  # type: ignore[assignment, misc]
    for name in ("help", "exit", "quit"):
        setattr(builtins, name, None)


def systems(image: str) -> Iterator[tuple[str, Callable[[], Run], float]]:
    """Yield of each system its name, how to make it ready, and its share of the runs.

    Slow ones get fewer.
    """
    python = os.path.realpath(sys.executable)
    for layer in ("namespaces", "landlock", "seccomp"):
        make = partial(ProcessSandbox, layers=(layer,))
        yield f"process, {layer}", partial(_open, make), 1.0
    yield "docker (ours)", partial(_open, partial(DockerSandbox, image)), 1.0
    yield "bubblewrap (ours)", partial(_open, BubblewrapSandbox), 1.0
    bare = ("-I", "-S", "-c", SOURCE)
    yield BASE, lambda: partial(command, python, *bare), 0.5
    yield "python -I", lambda: partial(command, python, "-I", "-c", SOURCE), 0.5
    behind_wall = ("bwrap", *BWRAP, python, *bare)
    yield "bwrap, python -I -S", lambda: partial(command, *behind_wall), 0.25
    yield "guard in a fork of the trainer", lambda: guarded, 0.5
    yield "docker exec", partial(_container, image), 0.1
    run = ("docker", "run", "--rm", "-i", *CONTAINER, image, "python", *bare)
    yield "docker run", lambda: partial(command, *run), 0.05


def _open(make: Callable[[], Sandbox]) -> Run:
    return partial(sandboxed, make())


def _container(image: str) -> Run:
    """Start a container that does nothing, to run programs in."""
    start = ("docker", "run", "-d", "--rm", "-i", "--name", NAME, *CONTAINER, image)
    command(*start, "python", "-c", "import time; time.sleep(3600)")
    return partial(
        command, "docker", "exec", "-i", NAME, "python", "-I", "-S", "-c", SOURCE
    )


def measure(run: Run, num_runs: int, num_threads: int) -> dict[str, Any]:
    """Return seconds per run, one at a time, and runs per second, side by side."""
    seconds = []
    for _ in range(num_runs):
        start = time.perf_counter()
        if run() != STDOUT:
            raise RuntimeError("a run gave another result")
        seconds.append(time.perf_counter() - start)
    with ThreadPoolExecutor(num_threads) as threads:
        start = time.perf_counter()
        outputs = list(threads.map(lambda _: run(), range(num_runs)))
        rate = num_runs / (time.perf_counter() - start)
    num_wrong = sum(output != STDOUT for output in outputs)
    if num_wrong:
        raise RuntimeError(f"{num_wrong} runs gave another result")
    return {"seconds": seconds, "rate": rate}


def table(results: dict[str, list[dict[str, Any]]], faults: dict[str, str]) -> str:
    """Return Markdown: medians over rounds, and how often as fast as `python -I -S`."""
    rates = {}
    for name, rounds in results.items():
        rates[name] = statistics.median(part["rate"] for part in rounds)
    lines = [
        "| | runs/s | × python -I -S | ms, median | ms, 95 % |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in results.items():
        seconds: list[float] = []
        for part in rounds:
            seconds += part["seconds"]
        seconds.sort()
        middle = statistics.median(seconds)
        high = seconds[int(HIGH_SHARE * (len(seconds) - 1))]
        times = ""
        if BASE in rates:
            times = f"{rates[name] / rates[BASE]:.2f}"
        lines.append(
            f"| {name} | {rates[name]:.1f} | {times} | {1e3 * middle:.1f} |"
            f" {1e3 * high:.1f} |"
        )
    for name, fault in faults.items():
        lines.append(f"| {name} | not measured: {fault} | | | |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, keep the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", default=DEFAULT_IMAGE)
    parser.add_argument(
        "--runs", type=int, default=200, help="of the fast systems, in each round"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    num_threads = len(os.sched_getaffinity(0))
    ready: dict[str, tuple[Run, int]] = {}
    faults: dict[str, str] = {}
    for name, prepare, share in systems(options.image):
        try:
            run = prepare()
            if run() != STDOUT:
                raise RuntimeError("it does not run here")
            ready[name] = (run, max(MIN_RUNS, int(options.runs * share)))
        except (SandboxUnavailable, OSError, RuntimeError) as error:
            faults[name] = str(error).splitlines()[0]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ready}
    for _ in range(options.rounds):
        for name, (run, num_runs) in ready.items():
            # A fork of a process with threads may hang in one of their locks: one at a
            # time.
            num_at_once = 1 if run is guarded else num_threads
            results[name].append(measure(run, num_runs, num_at_once))
    command("docker", "kill", NAME)
    machine = platform.processor() or platform.machine()
    about = f"{machine}, {num_threads} cores, Python {platform.python_version()}"
    load = os.getloadavg()[0]
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    print(f"{today}, {about}, load {load:.1f}\n\n{table(results, faults)}")
    if options.out:
        record = {"about": about, "load": load, "results": results, "faults": faults}
        options.out.write_text(json.dumps(record))


if __name__ == "__main__":
    main()
