"""The fork server: a warm interpreter that forks a fresh process per program and never
sees one itself.

For every request it forks a supervisor, which reads the request, forks the program,
hears it out, ends it in time and replies. So nothing of one program is left in the
memory from which the next is forked. Requests come on descriptor 0 and replies go to
descriptor 1, both with their length in 8 bytes ahead; a request is marshal data, for
the server's owner is trusted, a reply is `REPLY` and the two outputs. The first request
is the server's settings, its reply is empty, or says what failed.
"""

import fcntl
import gc
import marshal
import math
import os
import resource
import select
import signal
import struct
import time
from contextlib import suppress
from typing import Any

from aipo_env.sandboxes import child, confine

REPLY = struct.Struct(">?BidI")
"""Whether the program's process locked itself up; which limit ended the run, of
`CAUSES`; its exit status, negative for a signal; seconds; bytes of standard output,
after which comes standard error.
"""
CAUSES = ("", "timeout", "output_limit")
_OWN_PROCESSES = 3


def take() -> bytes:
    """Read one message; raise EOFError when there is none. Nothing follows it before it
    is answered.
    """
    with open(0, "rb", closefd=False) as file:
        size = int.from_bytes(file.read(8), "big")
        data = file.read(size)
    if not size or len(data) < size:
        raise EOFError("the message ended early")
    return data


def give(data: bytes) -> None:
    """Write one message to descriptor 1."""
    with open(1, "wb", closefd=False) as file:
        file.write(len(data).to_bytes(8, "big") + data)


def main() -> None:
    """Set up, say so, and serve until the owner hangs up."""
    settings = marshal.loads(take())
    os.environ.clear()
    try:
        for name in settings["modules"]:
            __import__(name)
        with open("/proc/self/statm") as file:
            settings["own_bytes"] = int(file.read().split()[0]) * resource.getpagesize()
        settings["rules"] = settings["rules"][os.uname().machine]
        if settings["layer"] == "namespaces":
            confine.enter_namespaces()
        elif settings["layer"] == "landlock":
            confine.restrict_files()
        # Or a program could open the descriptors of this process in /proc.
        child.check(child.libc.prctl(4, 0, 0, 0, 0), "prctl")
    except Exception as error:
        give(f"{type(error).__name__}: {error}".encode())
        return
    library = [confine.LIBRARY, confine.LIBRARY + "/lib-dynload"]
    settings["path"] = [] if settings["layer"] == "seccomp" else library
    settings["pid"] = os.getpid()
    give(b"")
    gc.collect()
    gc.freeze()
    requests = select.poll()
    requests.register(0, select.POLLIN)
    while requests.poll():
        supervisor = os.fork()
        if not supervisor:
            _supervise(settings)
        while (ended := os.waitpid(-1, 0))[0] != supervisor:
            pass
        if ended[1]:
            return


def _supervise(settings: dict[str, Any]) -> None:
    """Serve one request and end; the exit status is 0 if there may be another."""
    try:
        child.die_with(settings["pid"])
        # What a program started comes to this process.
        child.check(child.libc.prctl(36, 1, 0, 0, 0), "prctl")
        job = marshal.loads(take())
        if settings["layer"] == "namespaces":
            confine.fresh_scratch(job["disk_bytes"])
            os.chdir("/tmp")
        give(_run(job, settings))
    except BaseException:
        os._exit(1)
    os._exit(0)


def _run(job: dict[str, Any], settings: dict[str, Any]) -> bytes:
    """Run a program to its end and return the reply."""
    pipes = [os.pipe() for _ in range(2)]
    given = os.memfd_create("stdin", os.MFD_ALLOW_SEALING)
    with open(given, "wb", closefd=False) as file:
        file.write(job["stdin"])
    os.lseek(given, 0, os.SEEK_SET)
    fcntl.fcntl(
        given,
        fcntl.F_ADD_SEALS,
        fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK,
    )
    theirs, limits = [given, *(pipe[1] for pipe in pipes)], _limits(job, settings)
    program = os.fork()
    if not program:
        try:
            for number, descriptor in enumerate(theirs):
                os.dup2(descriptor, number)
            child.run(job["source"], job["entry"], limits, settings["path"])
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    for descriptor in theirs:
        os.close(descriptor)
    run = _Run([pipe[0] for pipe in pipes], job, settings["pid"] == 1)
    run.hear_out()
    code = run.await_end(program)
    seconds, (stdout, stderr) = time.monotonic() - run.start, run.outputs
    return (
        REPLY.pack(run.ready, CAUSES.index(run.cause), code, seconds, len(stdout))
        + stdout
        + stderr
    )


def _limits(job: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `child.lock`: what the layer offers of what the job may
    use.
    """
    has_own = settings["layer"] == "namespaces"
    many = job["processes"] > 1 and has_own
    memory_bytes = job["memory_mb"] * 2**20
    limits = {
        resource.RLIMIT_AS: settings["own_bytes"] + memory_bytes,
        resource.RLIMIT_STACK: memory_bytes,
        resource.RLIMIT_FSIZE: job["disk_bytes"] * has_own,
        resource.RLIMIT_NPROC: (job["processes"] + _OWN_PROCESSES) * many,
        resource.RLIMIT_NOFILE: 64 if settings["path"] else 0,
    }
    cpu_s = math.ceil(job["time_s"]) * job["processes"] + 1
    return {
        "rules": settings["rules"][many],
        "parent": os.getpid(),
        "cpu_s": cpu_s,
        "limits": limits,
    }


class _Run:
    """A running program as its supervisor sees it: two pipes, a deadline, what it has
    said.
    """

    def __init__(self, pipes: list[int], job: dict[str, Any], alone: bool) -> None:
        self.job, self._alone = (
            job,
            alone,
        )  # alone: all processes to be seen are the program's and the server
        self.ready, self.cause = False, ""
        self.start = time.monotonic()
        self.deadline = self.start + job["start_s"]
        self.outputs = bytearray(), bytearray()
        self._kept = dict(zip(pipes, self.outputs, strict=True))

    def hear_out(self) -> None:
        """Keep the program's outputs, until it has closed both or a limit is
        reached.
        """
        events = select.poll()
        events.register(0, select.POLLIN)
        for pipe in self._kept:
            events.register(pipe, select.POLLIN)
        while self._kept and not self.cause:
            left = self.deadline - time.monotonic()
            if left <= 0:
                self.cause = "timeout"
            for pipe, _ in events.poll(max(left, 0) * 1000 + 1):
                if pipe == 0:
                    raise EOFError("the owner hung up")
                if not self._hear(pipe):
                    events.unregister(pipe)
                    os.close(pipe)

    def _hear(self, pipe: int) -> bool:
        """Keep some of an output; return whether there may be more."""
        chunk = os.read(pipe, 2**16)
        if (
            not self.ready
            and self._kept[pipe] is self.outputs[0]
            and chunk.startswith(child.READY)
        ):
            self.ready, chunk = True, chunk[1:]
            self.start = time.monotonic()
            self.deadline = self.start + self.job["time_s"]
            if not chunk:
                return True
        kept, most = self._kept[pipe], self.job["output_bytes"]
        if len(kept) + len(chunk) > most:
            self.cause = "output_limit"
        kept += chunk[: most - len(kept)]
        if not chunk:
            del self._kept[pipe]
        return bool(chunk)

    def await_end(self, program: int) -> int:
        """Return the program's exit status, once it and all that it started are
        gone.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        while not self.cause and not (ended := os.waitpid(program, os.WNOHANG))[0]:
            left = self.deadline - time.monotonic()
            if left <= 0 or not signal.sigtimedwait({signal.SIGCHLD}, left):
                self.cause = "timeout"
        if self.cause:
            os.kill(program, signal.SIGKILL)
            ended = os.waitpid(program, 0)
        if self._alone:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        return os.waitstatus_to_exitcode(ended[1])
