"""The process that the workers are forked from: a script, started clean, that has loaded the algebra once.

Descriptor 0 is a socket to the owner. Messages have their length in 8 bytes ahead. The first is the module search
path; then 4 bytes with a socket attached ask for a worker on that socket, and 4 bytes without are a worker to kill.
Each is answered by the worker's process id. A worker takes all its rights away, then answers messages, JSON
`[question, argument, …]`, by JSON. Its first message says what holds it.
"""

import gc
import json
import os
import pkgutil
import platform
import resource
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


def main() -> None:
    """Load the algebra, then fork and kill workers until the owner hangs up."""
    control = socket.socket(fileno=0)
    os.dup2(2, 1)  # nothing that a library prints is an answer
    size = int.from_bytes(control.recv(8, socket.MSG_WAITALL), "big")
    sys.path[:] = json.loads(control.recv(size, socket.MSG_WAITALL) or b"[]")
    # The package without what its door imports: the algebra needs none of it.
    door = ModuleType("aipo_env")
    door.__path__ = [str(Path(__file__).parents[1])]
    sys.modules["aipo_env"] = door
    from aipo_env.errors import SandboxUnavailable
    from aipo_env.sandboxes.seccomp import filter_program
    from aipo_env.verifiers.choice import read_choice
    from aipo_env.verifiers.leaks import Gold, leaks
    from aipo_env.verifiers.math_extract import extract
    from aipo_env.verifiers.math_symbolic import grade, unreadable
    from aipo_env.verifiers.math_text import TABLES
    from aipo_env.verifiers.programs import holds_program

    rules = b""
    with suppress(SandboxUnavailable):
        rules = filter_program(platform.machine()) if sys.platform == "linux" else b""
    for package in TABLES[
        "sympy"
    ]:  # what is imported only when needed can be read no more in a worker
        for found in pkgutil.walk_packages(
            import_module(package).__path__, f"{package}."
        ):
            if ".tests" not in found.name and ".benchmarks" not in found.name:
                import_module(found.name)
    for gold, answer in TABLES["warm_up"]:
        grade(gold, answer)
        grade(answer, gold)

    def does_leak(texts: str) -> bool:
        fields, reply, said = json.loads(texts)
        gold = Gold(**fields)
        return leaks(gold, reply, said, is_same, holds_program)

    def choose(texts: str) -> tuple[str, str]:
        text, choices = json.loads(texts)
        return read_choice(text, tuple(choices))

    def is_same(gold: str, statement: str) -> bool:
        return grade(gold, statement).status == "correct"

    questions: dict[str, Any] = {
        "grade": grade,
        "extract": lambda text, marked: extract(text, unmarked=not marked)[0],
        "leaks": does_leak,
        "choice": choose,
        "unreadable": unreadable,
    }
    gc.freeze()
    workers, parent = set[int](), os.getpid()
    control.sendall(struct.pack(">I", parent))
    while True:
        message, passed, *_ = socket.recv_fds(control, 4, 1)
        if not message:
            os._exit(0)
        if passed:
            if not (pid := os.fork()):
                work(passed[0], rules, parent, questions)
            os.close(passed[0])
            workers.add(pid)
        elif (
            pid := int.from_bytes(message, "big")
        ) in workers:  # no other process, whatever is asked
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            workers.remove(pid)
        control.sendall(struct.pack(">I", pid))


def work(descriptor: int, rules: bytes, parent: int, questions: dict[str, Any]) -> None:
    """Lock up, then answer until the owner hangs up."""
    from aipo_env.sandboxes.child import lock

    os.dup2(descriptor, 0)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    isolation = "process"  # its own memory only
    with open(0, "rb") as requests:
        with suppress(OSError):
            if rules:
                lock(rules, parent, CPU_S, {resource.RLIMIT_AS: MEMORY_BYTES})
                isolation = "seccomp"
        _give(isolation)
        while request := requests.read(int.from_bytes(requests.read(8), "big")):
            question, *arguments = json.loads(request)
            _give(json.dumps(questions[question](*arguments)))
    os._exit(0)


def _give(text: str) -> None:
    os.write(0, len(text.encode()).to_bytes(8, "big") + text.encode())


if __name__ == "__main__":
    main()
