"""The process that the workers are forked from: a script, started clean, that has loaded the algebra once.

Descriptor 0 is a socket to the owner. First comes the module search path (4 bytes of length, JSON); then 4
bytes with a socket attached ask for a worker on that socket, and 4 bytes without are a worker to kill. Each is
answered by the worker's process id. A worker takes all its rights away, then answers requests: a length, then
JSON `[question, argument, …]`; the reply is text in the same frame. Its first frame says what holds it.
"""

import gc
import json
import os
import pkgutil
import platform
import signal
import socket
import struct
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

MEMORY_BYTES, CPU_S = 2 * 2**30, 1800
_PACKAGES = (
    "calculus",
    "concrete",
    "functions",
    "integrals",
    "matrices",
    "series",
    "sets",
    "simplify",
    "solvers",
)
"""Of sympy: what they import only when needed could not be read once a worker is locked up."""


def main() -> None:
    """Load the algebra, then fork and kill workers until the owner hangs up."""
    control = socket.socket(fileno=0)
    sys.path[:] = json.loads(take(0) or b"[]")
    # The package without what its door imports: the algebra needs none of it.
    door = ModuleType("aipo_env")
    door.__path__ = [str(Path(__file__).parents[1])]
    sys.modules["aipo_env"] = door
    from aipo_env.errors import SandboxUnavailable
    from aipo_env.sandboxes.seccomp import filter_program
    from aipo_env.verifiers.math_symbolic import decide, unreadable

    try:
        rules = filter_program(platform.machine()) if sys.platform == "linux" else b""
    except SandboxUnavailable:
        rules = b""
    for package in _PACKAGES:
        module = import_module(f"sympy.{package}")
        for found in pkgutil.walk_packages(module.__path__, f"{module.__name__}."):
            if ".tests" not in found.name and ".benchmarks" not in found.name:
                import_module(found.name)
    tables = json.loads(Path(__file__).with_name("math_tables.json").read_text(encoding="utf-8"))
    for gold, answer in tables["warm_up"]:
        decide(gold, answer)
        decide(answer, gold)
    gc.freeze()
    control.sendall(struct.pack(">I", os.getpid()))
    workers = set()
    while True:
        message, passed, *_ = socket.recv_fds(control, 4, 1)
        if not message:
            os._exit(0)
        if passed:
            if not (pid := os.fork()):
                work(passed[0], rules, {"decide": decide, "unreadable": unreadable})
            os.close(passed[0])
            workers.add(pid)
        elif (pid := int.from_bytes(message, "big")) in workers:  # no other process, whatever is asked
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            workers.remove(pid)
        control.sendall(struct.pack(">I", pid))


def work(descriptor: int, rules: bytes, questions: dict[str, Any]) -> None:
    """Lock up, then answer until the owner hangs up."""
    from aipo_env.sandboxes.child import lock

    os.dup2(descriptor, 0)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    isolation = "process"  # its own memory only
    with suppress(OSError):
        if rules:
            lock(rules, MEMORY_BYTES, CPU_S)
            isolation = "seccomp"
    _give(isolation)
    while (request := take(0)) is not None:
        question, *arguments = json.loads(request)
        _give(questions[question](*arguments))
    os._exit(0)


def _give(text: str) -> None:
    os.write(0, struct.pack(">I", len(text.encode())) + text.encode())


def take(descriptor: int) -> bytes | None:
    """Read one frame; None at the end."""
    data = bytearray()
    size = 4
    while len(data) < size:
        chunk = os.read(descriptor, size - len(data))
        if not chunk:
            return None
        data += chunk
        if size == 4 and len(data) == 4:
            size += int.from_bytes(data, "big")
    return bytes(data[4:])


if __name__ == "__main__":
    main()
