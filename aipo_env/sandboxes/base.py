"""What a sandbox is: a program and its limits in, bytes and a status out.

The attacker is the program. It was written by a policy that is paid for passing tests,
it knows this code, and it runs native code if it wants to (ctypes is in its reach).
Every backend guarantees:

- It reads no file of the host but Python's own library, and writes none.
- It has no network, starts no process it may not, signals nobody, and dies with the run
  and with its parent.
- Its environment holds nothing of its parent's; no expected output is in its memory.
- Time, memory and output are bounded. One program leaves nothing behind for the next.
- A failure of the sandbox itself is `infra_error`. A program cannot bring that status
  about.

Not guaranteed: the kernel is shared, so a hole in the kernel is a hole in the sandbox,
and so are side channels (timing, load). Whoever expects attacks on the kernel puts the
trainer into a virtual machine.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from aipo_env.errors import ConfigError

RunStatus = Literal[
    "ok",
    "timeout",
    "memory",
    "output_limit",
    "runtime_error",
    "compile_error",
    "infra_error",
]
"""How a run ended; "ok" is exit status 0 within the limits and says nothing about the
output.
"""
LAYERS = ("namespaces", "landlock", "seccomp")
"""What holds a program, strongest first, all with a filter of system calls.
"namespaces": a machine of its own, with nothing on it but Python's library and an empty
/tmp. "landlock": it reads Python's library and learns the names and sizes of other
files, not what is in them. "seccomp": it opens no file, so it imports only what is
loaded.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use.

    Args:
        time_s: Wall-clock seconds, from the moment the program starts.
        memory_mb: MiB of address space beyond the interpreter's own.
        output_bytes: Bytes on standard output, and as many on standard error.
        disk_bytes: Bytes of scratch files, where the layer is "namespaces"; the others
            offer none.
        processes: Processes and threads at once, the program's own included; one but
            with "namespaces". Each process may have as much memory.
        threads: Threads at once of the program's own process, the first included,
            where it may start no process; one but with "namespaces".

    Raises:
        ConfigError: A value is not positive and finite, or none of the whole numbers
            that all but the time are.
    """

    time_s: float = 2.0
    memory_mb: int = 256
    output_bytes: int = 2**20
    disk_bytes: int = 2**24
    processes: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            # Written so that NaN, which compares as false, is refused too.
            if not 0 < value < math.inf:
                raise ConfigError(f"sandbox limits: {name}={value!r} must be positive.")
            if name != "time_s" and not isinstance(value, int):
                raise ConfigError(
                    f"sandbox limits: {name}={value!r} must be a whole number."
                )


@dataclass(frozen=True, slots=True)
class Program:
    """A Python program and its standard input.

    With `entry` ("name" or "Solution.name"), that function is called with the JSON list
    in `stdin`, and its result in the form of `values.encode` is the run's standard
    output; what the program prints goes to standard error.

    Args:
        style: "strict", or "benchmark", as benchmarks run programs: `sys.exit` ends one
            well with any status; one that is Python only as the body of a function, for
            a `return` in it, is one; where a function is called, `__name__` is not
            "__main__", a plain function does for the method of a class there is not,
            `stdin` is {"args": […], "named": {…}}, and these and the result have the
            form of `values.pack`.
        packages: What it may import beside Python's library: of `records.GRANTABLE`.
    """

    source: str
    stdin: bytes = b""
    entry: str = ""
    style: Literal["strict", "benchmark"] = "strict"
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run went.

    The outputs are cut at the limit, and nothing in them can be trusted.

    `exit_code` is negative for a signal; `layer` names what held the program.
    """

    status: RunStatus
    layer: str
    exit_code: int = -1
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    reason: str = ""


@runtime_checkable
class Sandbox(Protocol):
    """Runs programs, each in a fresh process.

    Get one from `open_sandbox`, which tests it.
    """

    @property
    def layer(self) -> str:
        """What holds the programs, for the record."""

    async def run(self, program: Program, limits: Limits) -> RunResult:
        """Run a program to its end. Never raises for what a program does."""

    def close(self) -> None:
        """End everything that belongs to the sandbox."""
