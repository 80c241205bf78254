"""The fork server: a warm interpreter that forks a fresh process per program and never sees one itself.

For every request it forks a supervisor, which reads the request, forks the program, hears it out, ends it in time
and replies. So nothing of one program is left in the memory from which the next is forked. Requests come on
descriptor 0 and replies go to descriptor 1, both with their length in 8 bytes ahead; a request is marshal data,
for the server's owner is trusted, a reply is `REPLY` and the two outputs. The first request is the server's
settings, its reply is empty, or says what failed.
"""

import gc
import marshal
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
"""Whether the program's process locked itself up; which limit ended the run, of `CAUSES`; its exit status, negative
for a signal; seconds; bytes of standard output, after which comes standard error."""
CAUSES = ("", "timeout", "output_limit")
_OWN_PROCESSES = 3


def take() -> bytes:
    """Read one message, and no byte of what follows; raise EOFError when there is none."""
    return _exactly(int.from_bytes(_exactly(8), "big"))


def _exactly(size: int) -> bytes:
    taken = bytearray()
    while len(taken) < size:
        chunk = os.read(0, min(size - len(taken), 2**20))
        if not chunk:
            raise EOFError("the message ended early")
        taken += chunk
    return bytes(taken)


def give(data: bytes) -> None:
    """Write one message to descriptor 1."""
    view = memoryview(len(data).to_bytes(8, "big") + data)
    while view:
        view = view[os.write(1, view) :]


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
        confine.check(child.libc.prctl(4, 0, 0, 0, 0), "prctl")
    except Exception as error:
        give(f"{type(error).__name__}: {error}".encode())
        return
    settings["path"] = (
        [] if settings["layer"] == "seccomp" else [confine.LIBRARY, confine.LIBRARY + "/lib-dynload"]
    )
    settings["is_init"] = os.getpid() == 1
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
        # A program dies with this process, and what it started comes to it.
        for option, value in ((1, signal.SIGKILL), (36, 1)):
            confine.check(child.libc.prctl(option, value, 0, 0, 0), "prctl")
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
    pipes = [os.pipe() for _ in range(3)]
    program = os.fork()
    if not program:
        try:
            for number, pipe in enumerate(pipes):
                os.dup2(pipe[number > 0], number)
            child.run(job["source"], job["entry"], _limits(job, settings), settings["path"])
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    ours = [pipe[number == 0] for number, pipe in enumerate(pipes)]
    for number, pipe in enumerate(pipes):
        os.close(pipe[number > 0])
    run = _Run(ours, job, settings["is_init"])
    run.hear_out()
    code = run.await_end(program)
    reply = REPLY.pack(
        run.ready, CAUSES.index(run.cause), code, time.monotonic() - run.start, len(run.outputs[0])
    )
    return reply + run.outputs[0] + run.outputs[1]


def _limits(job: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `child.lock`: what the layer offers of what the job may use."""
    many = job["processes"] > 1 and settings["layer"] == "namespaces"
    return {
        "rules": settings["rules"][many],
        "memory_bytes": job["memory_bytes"],
        "cpu_s": job["cpu_s"],
        "own_bytes": settings["own_bytes"],
        "disk_bytes": job["disk_bytes"] if settings["layer"] == "namespaces" else 0,
        "processes": job["processes"] + _OWN_PROCESSES if many else 0,
        "descriptors": 64 if settings["path"] else 0,
    }


class _Run:
    """A running program as its supervisor sees it: three pipes, a deadline, what it has said."""

    def __init__(self, pipes: list[int], job: dict[str, Any], alone: bool) -> None:
        self.job, self._alone = job, alone  # alone: all processes to be seen are the program's and the server
        self.ready, self.cause = False, ""
        self.start = time.monotonic()
        self.deadline = self.start + job["start_s"]
        self.outputs = bytearray(), bytearray()
        self._input, *outputs = pipes
        self._unsent = memoryview(job["stdin"])
        self._kept = dict(zip(outputs, self.outputs, strict=True))
        for pipe in pipes:
            os.set_blocking(pipe, False)

    def hear_out(self) -> None:
        """Feed the program and keep its outputs, until it has closed both or a limit is reached."""
        events = select.poll()
        events.register(0, select.POLLIN)
        events.register(self._input, select.POLLOUT)
        for pipe in self._kept:
            events.register(pipe, select.POLLIN)
        while self._kept and not self.cause:
            left = self.deadline - time.monotonic()
            if left <= 0:
                self.cause = "timeout"
            for pipe, _ in events.poll(max(left, 0) * 1000 + 1):
                if pipe == 0:
                    raise EOFError("the owner hung up")
                if (pipe == self._input and not self._feed()) or (
                    pipe in self._kept and not self._hear(pipe)
                ):
                    events.unregister(pipe)
                    os.close(pipe)

    def _feed(self) -> bool:
        """Write some of the input; return whether there is more."""
        try:
            self._unsent = self._unsent[os.write(self._input, self._unsent[: 2**16]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:  # a program need not read its input
            return False
        return bool(self._unsent)

    def _hear(self, pipe: int) -> bool:
        """Keep some of an output; return whether there may be more."""
        try:
            chunk = os.read(pipe, 2**16)
        except BlockingIOError:
            return True
        if not self.ready and self._kept[pipe] is self.outputs[0] and chunk.startswith(child.READY):
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
        """Return the program's exit status, once it and all that it started are gone."""
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
