"""Programs run per second: this project's sandboxes beside bare interpreters and what
others do.

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
STDIN, STDOUT = b"1 2\n", b"3\n"
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
Run = Callable[[], bytes]


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
    return run_sync(sandbox.run(Program(SOURCE, STDIN), Limits(time_s=20.0))).stdout


def guarded() -> bytes:
    """Fork this warm process, take away what Python names, run the program: the shape
    of in-process guards.
    """
    given, taken = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os.dup2(given[0], 0)
            os.dup2(taken[1], 1)
            os.closerange(3, 256)
            _guard()
            sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
            exec(compile(SOURCE, "<program>", "exec"), {"__name__": "__main__"})
            sys.stdout.flush()
        _exit(0)
    for end in (given[0], taken[1]):
        os.close(end)
    os.write(given[1], STDIN)
    os.close(given[1])
    with os.fdopen(taken[0], "rb") as output:
        found = output.read()
    os.waitpid(child, 0)
    return found


_exit = os._exit


def _guard() -> None:
    """Limit memory, set an alarm, and remove dangerous functions."""
    import builtins
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
    signal.alarm(20)
    for name in (
        "system",
        "fork",
        "forkpty",
        "kill",
        "killpg",
        "remove",
        "removedirs",
        "rename",
        "rmdir",
        "unlink",
    ):
        setattr(os, name, None)
    for name in (
        "chdir",
        "chmod",
        "chown",
        "chroot",
        "truncate",
        "replace",
        "putenv",
        "setuid",
        "getcwd",
    ):
        setattr(os, name, None)
    for name in ("move", "rmtree", "chown"):
        setattr(shutil, name, None)
    subprocess.Popen = None  # type: ignore[assignment, misc]
    builtins.help = builtins.exit = builtins.quit = None  # type: ignore[assignment]


def systems(image: str) -> Iterator[tuple[str, Callable[[], Run], float]]:
    """Yield name, how to make ready, and the share of the rounds' runs that it gets
    (slow ones get fewer).
    """
    python = os.path.realpath(sys.executable)
    for layer in ("namespaces", "landlock", "seccomp"):
        yield (
            f"process, {layer}",
            partial(_open, partial(ProcessSandbox, layers=(layer,))),
            1.0,
        )
    yield "docker (ours)", partial(_open, partial(DockerSandbox, image)), 1.0
    yield "bubblewrap (ours)", partial(_open, BubblewrapSandbox), 1.0
    yield (
        "python -I -S",
        lambda: partial(command, python, "-I", "-S", "-c", SOURCE),
        0.5,
    )
    yield "python -I", lambda: partial(command, python, "-I", "-c", SOURCE), 0.5
    yield (
        "bwrap, python -I -S",
        lambda: partial(command, "bwrap", *BWRAP, python, "-I", "-S", "-c", SOURCE),
        0.25,
    )
    yield "guard in a fork of the trainer", lambda: guarded, 0.5
    yield "docker exec", partial(_container, image), 0.1
    run = (
        "docker",
        "run",
        "--rm",
        "-i",
        *CONTAINER,
        image,
        "python",
        "-I",
        "-S",
        "-c",
        SOURCE,
    )
    yield "docker run", lambda: partial(command, *run), 0.05


def _open(make: Callable[[], Sandbox]) -> Run:
    return partial(sandboxed, make())


def _container(image: str) -> Run:
    start = ("docker", "run", "-d", "--rm", "-i", "--name", NAME, *CONTAINER, image)
    command(*start, "python", "-c", "import time; time.sleep(3600)")
    return partial(
        command, "docker", "exec", "-i", NAME, "python", "-I", "-S", "-c", SOURCE
    )


def measure(run: Run, num_runs: int, num_threads: int) -> dict[str, Any]:
    """Return seconds per run, one at a time, and runs per second with several
    threads.
    """
    seconds = []
    for _ in range(num_runs):
        start = time.perf_counter()
        if run() != STDOUT:
            raise RuntimeError("a run gave another result")
        seconds.append(time.perf_counter() - start)
    with ThreadPoolExecutor(num_threads) as threads:
        start = time.perf_counter()
        wrong = sum(
            found != STDOUT for found in threads.map(lambda _: run(), range(num_runs))
        )
        rate = num_runs / (time.perf_counter() - start)
    if wrong:
        raise RuntimeError(f"{wrong} runs gave another result")
    return {"seconds": seconds, "rate": rate}


def table(results: dict[str, list[dict[str, Any]]], faults: dict[str, str]) -> str:
    """Return Markdown: medians over rounds, and how often as fast as `python -I -S`."""
    rates = {
        name: statistics.median(r["rate"] for r in rounds)
        for name, rounds in results.items()
    }
    lines = [
        "| | runs/s | × python -I -S | ms, median | ms, 95 % |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in results.items():
        seconds = sorted(value for r in rounds for value in r["seconds"])
        middle, high = (
            statistics.median(seconds),
            seconds[int(0.95 * (len(seconds) - 1))],
        )
        times = (
            f"{rates[name] / rates['python -I -S']:.2f}"
            if "python -I -S" in rates
            else ""
        )
        lines.append(
            f"| {name} | {rates[name]:.1f} | {times} | {1e3 * middle:.1f} |"
            f" {1e3 * high:.1f} |"
        )
    return "\n".join(
        [
            *lines,
            *(
                f"| {name} | not measured: {fault} | | | |"
                for name, fault in faults.items()
            ),
        ]
    )


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
            ready[name] = run, max(3, int(options.runs * share))
        except (SandboxUnavailable, OSError, RuntimeError) as error:
            faults[name] = str(error).splitlines()[0]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ready}
    for _ in range(options.rounds):
        for name, (run, num_runs) in ready.items():
            # A fork of a process with threads may hang in one of their locks: one at a
            # time.
            results[name].append(
                measure(run, num_runs, 1 if run is guarded else num_threads)
            )
    command("docker", "kill", NAME)
    about = (
        f"{platform.processor() or platform.machine()}, {num_threads} cores, Python"
        f" {platform.python_version()}"
    )
    load = os.getloadavg()[0]
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {about}, load"
        f" {load:.1f}\n\n{table(results, faults)}"
    )
    if options.out:
        options.out.write_text(
            json.dumps(
                {"about": about, "load": load, "results": results, "faults": faults}
            )
        )


if __name__ == "__main__":
    main()
