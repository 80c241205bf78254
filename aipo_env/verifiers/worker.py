"""The process that the workers are forked from, which has loaded the algebra once.

It is a script, started clean. Descriptor 0 is a socket to the owner. Messages have
their length in 8 bytes ahead. The first is the module search path; then 4 bytes with a
socket attached ask for a worker on that socket, and 4 bytes without are a worker to
kill. Each is answered by the worker's process id.

A worker takes all its rights away, then answers messages, JSON
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
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

MEMORY_BYTES = 2 * 2**30
"""Address space that a worker may have; what it had when it was forked counts."""
CPU_S = 1800
"""Processor time after which the kernel ends a worker, should its owner forget it."""
_LENGTH_BYTES = 8
"""Size of the number that stands ahead of a message."""
_ORDER_BYTES = 4
"""Size of an order of the owner, and of the process id that answers it."""

_Questions = Mapping[str, Callable[..., Any]]
"""What a worker can be asked, by name: arguments are texts, answers fit in JSON."""


def main() -> None:
    """Load the algebra, then fork and kill workers until the owner hangs up."""
    control = socket.socket(fileno=0)
    os.dup2(2, 1)  # nothing that a library prints is an answer
    sys.path[:] = _receive_search_path(control)
    _skip_the_door()
    questions = _load_questions()
    rules = _load_rules()
    _load_the_rest()
    # What stands now is shared with the workers: a collection would write to all of it,
    # and every worker would get a copy of its own.
    gc.freeze()
    _serve(control, rules, questions)


def _receive_search_path(control: socket.socket) -> list[str]:
    header = control.recv(_LENGTH_BYTES, socket.MSG_WAITALL)
    size = int.from_bytes(header, "big")
    message = control.recv(size, socket.MSG_WAITALL)
    path: list[str] = json.loads(message or b"[]")
    return path


def _skip_the_door() -> None:
    """Put the package there without what its `__init__` imports.

    The algebra needs none of that.
    """
    door = ModuleType("aipo_env")
    door.__path__ = [str(Path(__file__).parents[1])]
    sys.modules["aipo_env"] = door


def _load_questions() -> _Questions:
    from aipo_env.verifiers.choice import read_choice
    from aipo_env.verifiers.extract import Reading, extract
    from aipo_env.verifiers.leaks.gold import Gold
    from aipo_env.verifiers.leaks.programs import holds_program
    from aipo_env.verifiers.leaks.rule import leaks
    from aipo_env.verifiers.math.symbolic import grade, unreadable

    def extract_answer(text: str, marked: str) -> Reading:
        return extract(text, unmarked=not marked)

    def is_same(gold: str, statement: str) -> bool:
        return grade(gold, statement).status == "correct"

    def does_leak(texts: str) -> bool:
        fields, reply, said = json.loads(texts)
        return leaks(Gold(**fields), reply, said, is_same, holds_program)

    def choose(texts: str) -> tuple[str, str]:
        text, choices = json.loads(texts)
        return read_choice(text, tuple(choices))

    return {
        "grade": grade,
        "extract": extract_answer,
        "leaks": does_leak,
        "choice": choose,
        "unreadable": unreadable,
    }


def _load_rules() -> bytes:
    """Return the filter of system calls for workers; empty where there is none."""
    from aipo_env.errors import SandboxUnavailable
    from aipo_env.sandboxes.seccomp import filter_program

    if sys.platform != "linux":
        return b""
    with suppress(SandboxUnavailable):
        return filter_program(platform.machine())
    return b""


def _load_the_rest() -> None:
    """Load what the algebra imports only when it needs it.

    A worker cannot read files any more.
    """
    from aipo_env.verifiers.math.symbolic import grade
    from aipo_env.verifiers.math.text import TABLES

    for name in TABLES["sympy"]:
        package = import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if ".tests" not in module.name and ".benchmarks" not in module.name:
                import_module(module.name)
    # Comparing also fills the tables of the parser, which takes seconds.
    for gold, answer in TABLES["warm_up"]:
        grade(gold, answer)
        grade(answer, gold)


def _serve(control: socket.socket, rules: bytes, questions: _Questions) -> None:
    """Fork and kill workers until the owner hangs up."""
    workers: set[int] = set()
    parent = os.getpid()
    # The first answer tells the owner that all is loaded.
    control.sendall(struct.pack(">I", parent))
    while True:
        order, descriptors, *_ = socket.recv_fds(control, _ORDER_BYTES, 1)
        if not order:
            os._exit(0)
        if descriptors:
            pid = os.fork()
            if pid == 0:
                work(descriptors[0], rules, parent, questions)
            os.close(descriptors[0])
            workers.add(pid)
        else:
            pid = int.from_bytes(order, "big")
            # No other process is killed, whatever is asked.
            if pid in workers:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                workers.remove(pid)
        control.sendall(struct.pack(">I", pid))


def work(descriptor: int, rules: bytes, parent: int, questions: _Questions) -> None:
    """Lock up, then answer until the owner hangs up; never return.

    Args:
        descriptor: The socket to the owner.
        rules: The filter of system calls; empty for none.
        parent: Process id of what forked this one, and with which it dies.
        questions: What it can be asked.
    """
    from aipo_env.sandboxes.child import lock

    os.dup2(descriptor, 0)
    # The sockets of the parent and of other workers are none of this one's business.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    isolation = "process"  # its own memory only
    with open(0, "rb") as requests:
        with suppress(OSError):
            if rules:
                lock(rules, parent, CPU_S, {resource.RLIMIT_AS: MEMORY_BYTES})
                isolation = "seccomp"
        _give(isolation)
        while True:
            size = int.from_bytes(requests.read(_LENGTH_BYTES), "big")
            request = requests.read(size)
            if not request:
                break
            # A question that fails ends the worker: the owner sees that it crashed.
            question, *arguments = json.loads(request)
            _give(json.dumps(questions[question](*arguments)))
    os._exit(0)


def _give(text: str) -> None:
    """Write a message, with its length ahead."""
    message = text.encode()
    header = len(message).to_bytes(_LENGTH_BYTES, "big")
    os.write(0, header + message)


if __name__ == "__main__":
    main()
