"""The fork server: a warm interpreter that forks a fresh process per program.

It serves programs and never sees one itself. For every request it forks a supervisor,
which reads the request, forks the program, collects its output, ends it in time and
replies. So nothing of one program is left in the memory from which the next is forked.
Requests come on descriptor 0 and replies go to descriptor 1, both with their length in
8 bytes ahead; a request is marshal data, for the server's owner is trusted, a reply is
`REPLY` and the two outputs. The first request is the server's settings, its reply is
empty, or says what failed.
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
import sys
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
"""The limits that end a run, by their number in a reply; "": none did."""

_LENGTH_BYTES = 8
"""Bytes of a message's length, ahead of it."""
_REQUESTS = 0
"""The descriptor on which requests come; it hangs up with the owner."""
_REPLIES = 1
_FIRST_PROCESS = 1
"""The process id that the server has in a namespace of its own."""
_ANY_CHILD = -1
"""waitpid(2): whichever child ends first."""
_EVERY_OTHER = -1
"""kill(2): every process the caller may signal, but itself and the first one."""
_OWN_PROCESSES = 3
"""Processes of ours that count for the same user: the outer and the inner server, and
the supervisor.
"""
_MAX_DESCRIPTORS = 64
"""Files a program may have open at once, where it may open any."""
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
"""The environment in which numerical libraries start no threads."""
_READ_BYTES = 2**16
"""What is read of an output at once: what a pipe holds."""
_MIB = 2**20


def take() -> bytes:
    """Return the next message on descriptor 0.

    Raises:
        EOFError: The owner hung up, or the message is empty.
    """
    # Buffered reading may take more than was asked for; but nothing follows a message
    # before it is answered.
    with open(_REQUESTS, "rb", closefd=False) as file:
        size = int.from_bytes(file.read(_LENGTH_BYTES), "big")
        data = file.read(size)
    if not size or len(data) < size:
        raise EOFError("the message ended early")
    return data


def give(data: bytes) -> None:
    """Write one message to descriptor 1."""
    with open(_REPLIES, "wb", closefd=False) as file:
        file.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)


def main() -> None:
    """Set up, say so, and serve until the owner hangs up."""
    settings = marshal.loads(take())
    os.environ.clear()
    try:
        _set_up(settings)
    except Exception as error:
        give(f"{type(error).__name__}: {error}".encode())
        return
    give(b"")
    # Collecting garbage writes to every object it visits, and so would copy, in each
    # program's process, memory that is shared with this one.
    gc.collect()
    gc.freeze()
    _serve(settings)


def _set_up(settings: dict[str, Any]) -> None:
    """Load what programs import, then confine this process; add to the settings."""
    # The modules first: after that, no package of the machine can be read.
    for name in settings["modules"]:
        __import__(name)
    _load_packages(settings["packages"], settings["folders"])
    settings["own_bytes"] = _address_space_bytes()
    settings["rules"] = settings["rules"][os.uname().machine]
    layer = settings["layer"]
    if layer == "namespaces":
        confine.enter_namespaces()
    elif layer == "landlock":
        confine.restrict_files()
    # Or a program could open the descriptors of this process in /proc.
    dumpable = child.libc.prctl(child.PR_SET_DUMPABLE, 0, 0, 0, 0)
    child.check(dumpable, "prctl")
    settings["path"] = []
    if layer != "seccomp":
        settings["path"] = [confine.LIBRARY, confine.LIBRARY + "/lib-dynload"]
    # Asked for only now: it is another one in the namespaces.
    settings["pid"] = os.getpid()


def _load_packages(packages: dict[str, list[str]], folders: list[str]) -> None:
    """Load the modules of packages, of which programs then read no file.

    Args:
        packages: The names of the modules, by package.
        folders: Where packages are looked for, beside this Python's own place.

    Raises:
        ImportError: One is not installed there.
    """
    if not packages:
        return
    # Numerical libraries start a thread for each core, which no fork would inherit.
    os.environ.update(_ONE_THREAD)
    own_path = sys.path[:]
    own_modules = set(sys.modules)
    sys.path += [*folders, *(f"{confine.LIBRARY}/{name}" for name in confine.PACKAGES)]
    try:
        for name, modules in packages.items():
            try:
                for module in modules:
                    __import__(module)
                # Some load parts of themselves when these are first asked for.
                package = sys.modules[name]
                for part in getattr(package, "__all__", ()):
                    getattr(package, part, None)
            except ImportError as error:
                raise ImportError(
                    f"the package {name} is granted to programs, and this sandbox's"
                    f" Python has none ({error}); install it there"
                ) from error
    finally:
        sys.path[:] = own_path
        os.environ.clear()
    # What they use of other packages stays theirs: nobody granted it to programs.
    for name in set(sys.modules) - own_modules:
        package_name = name.partition(".")[0]
        is_of_library = package_name in sys.stdlib_module_names
        if not is_of_library and package_name not in packages:
            del sys.modules[name]


def _address_space_bytes() -> int:
    """Return the size of this process's address space, which every program inherits."""
    with open("/proc/self/statm") as file:
        num_pages = int(file.read().split()[0])
    return num_pages * resource.getpagesize()


def _serve(settings: dict[str, Any]) -> None:
    """Fork a supervisor for every request, until one fails or the owner hangs up."""
    requests = select.poll()
    requests.register(_REQUESTS, select.POLLIN)
    while requests.poll():
        supervisor = os.fork()
        if not supervisor:
            _supervise(settings)
        # The first process of a namespace also inherits orphans: wait for those too.
        ended = 0
        while ended != supervisor:
            ended, wait_status = os.waitpid(_ANY_CHILD, 0)
        if wait_status:
            return


def _supervise(settings: dict[str, Any]) -> None:
    """Serve one request and end; the exit status is 0 if there may be another."""
    try:
        child.die_with(settings["pid"])
        # What a program started comes to this process.
        subreaper = child.libc.prctl(child.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        child.check(subreaper, "prctl")
        job = marshal.loads(take())
        if settings["layer"] == "namespaces":
            confine.fresh_scratch(job["disk_bytes"])
            os.chdir("/tmp")
        give(_run(job, settings))
    except BaseException:
        # Without a reply and with the server gone, the owner reports an infra_error.
        os._exit(1)
    os._exit(0)


def _run(job: dict[str, Any], settings: dict[str, Any]) -> bytes:
    """Run a program to its end and return the reply."""
    stdout_read, stdout_write = os.pipe()
    stderr_read, stderr_write = os.pipe()
    stdin = _sealed_file(job["stdin"])
    standard_files = [stdin, stdout_write, stderr_write]
    limits = _limits(job, settings)
    program = os.fork()
    if not program:
        try:
            for number, descriptor in enumerate(standard_files):
                os.dup2(descriptor, number)
            child.run(job, limits, settings["path"])
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    # Only the program may have them, or its outputs would never end.
    for descriptor in standard_files:
        os.close(descriptor)
    is_first = settings["pid"] == _FIRST_PROCESS
    run = _ProgramRun([stdout_read, stderr_read], job, alone=is_first)
    run.read_outputs()
    code = run.await_end(program)
    seconds = time.monotonic() - run.start
    stdout, stderr = run.outputs
    cause = CAUSES.index(run.cause)
    header = REPLY.pack(run.ready, cause, code, seconds, len(stdout))
    return header + stdout + stderr


def _sealed_file(data: bytes) -> int:
    """Return the descriptor of a file in memory with this content, for good.

    A pipe would need somebody to write it while the program reads.
    """
    file = os.memfd_create("stdin", os.MFD_ALLOW_SEALING)
    with open(file, "wb", closefd=False) as stream:
        stream.write(data)
    os.lseek(file, 0, os.SEEK_SET)
    # The descriptor is open for writing too: without the seals a program could keep
    # data in it that no limit counts.
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file


def _limits(job: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `child.lock`: what the layer offers of a job's limits."""
    is_namespaced = settings["layer"] == "namespaces"
    memory_bytes = job["memory_mb"] * _MIB
    disk_bytes = 0
    starts = ""
    num_tasks = 1
    if is_namespaced:
        disk_bytes = job["disk_bytes"]
        if job["processes"] > 1:
            starts = "processes"
            num_tasks = job["processes"]
        elif job["threads"] > 1:
            starts = "threads"
            num_tasks = job["threads"]
    num_processes = 0
    if starts:
        num_processes = num_tasks + _OWN_PROCESSES
    num_descriptors = 0
    if settings["path"]:
        num_descriptors = _MAX_DESCRIPTORS
    limits = {
        resource.RLIMIT_AS: settings["own_bytes"] + memory_bytes,
        resource.RLIMIT_STACK: memory_bytes,
        resource.RLIMIT_FSIZE: disk_bytes,
        resource.RLIMIT_NPROC: num_processes,
        resource.RLIMIT_NOFILE: num_descriptors,
    }
    # A second more than the wall clock allows, so that the deadline is what usually
    # ends a busy program.
    cpu_s = math.ceil(job["time_s"]) * num_tasks + 1
    return {
        "rules": settings["rules"][starts],
        "parent": os.getpid(),
        "cpu_s": cpu_s,
        "limits": limits,
    }


class _ProgramRun:
    """A running program as its supervisor sees it.

    Args:
        pipes: The reading ends of its standard output and standard error.
        job: The request.
        alone: Whether all processes to be seen are the program's and the server, so
            that every other one may be killed.
    """

    def __init__(self, pipes: list[int], job: dict[str, Any], alone: bool) -> None:
        self.job = job
        self.ready = False
        self.cause = ""
        # Until it is ready, the program has the time to lock itself up; see _read.
        self.start = time.monotonic()
        self.deadline = self.start + job["start_s"]
        self.outputs = (bytearray(), bytearray())
        self._alone = alone
        self._stdout = pipes[0]
        self._open = dict(zip(pipes, self.outputs, strict=True))

    def read_outputs(self) -> None:
        """Read until the program has closed both outputs, or a limit is reached."""
        events = select.poll()
        events.register(_REQUESTS, select.POLLIN)
        for pipe in self._open:
            events.register(pipe, select.POLLIN)
        while self._open and not self.cause:
            left_s = self.deadline - time.monotonic()
            if left_s <= 0:
                # What it has written in time is still read below, once.
                self.cause = "timeout"
            # One millisecond more, since a fraction of one is cut off.
            wait_ms = max(left_s, 0) * 1000 + 1
            for pipe, _ in events.poll(wait_ms):
                if pipe == _REQUESTS:
                    # No request comes before the reply, so this is its end.
                    raise EOFError("the owner hung up")
                if not self._read(pipe):
                    events.unregister(pipe)
                    os.close(pipe)

    def _read(self, pipe: int) -> bool:
        """Read some of an output; return whether there may be more."""
        chunk = os.read(pipe, _READ_BYTES)
        # Before READY nothing but the trusted part of the process writes, so a program
        # cannot forge it: what it writes itself comes after.
        is_first = pipe == self._stdout and not self.ready
        if is_first and chunk.startswith(child.READY):
            self.ready = True
            chunk = chunk[len(child.READY) :]
            # The program's own time begins only now.
            self.start = time.monotonic()
            self.deadline = self.start + self.job["time_s"]
            if not chunk:
                return True
        output = self._open[pipe]
        num_left = self.job["output_bytes"] - len(output)
        if len(chunk) > num_left:
            self.cause = "output_limit"
        output += chunk[:num_left]
        if not chunk:
            del self._open[pipe]
        return bool(chunk)

    def await_end(self, program: int) -> int:
        """Wait until the program and all that it started are gone.

        Returns:
            The program's exit status; negative for a signal.
        """
        # Blocked before the first look: a program that ends after it leaves the signal
        # pending, and sigtimedwait returns at once.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        while not self.cause:
            ended, wait_status = os.waitpid(program, os.WNOHANG)
            if ended:
                break
            left_s = self.deadline - time.monotonic()
            if left_s <= 0 or not signal.sigtimedwait({signal.SIGCHLD}, left_s):
                self.cause = "timeout"
        if self.cause:
            os.kill(program, signal.SIGKILL)
            _, wait_status = os.waitpid(program, 0)
        if self._alone:
            with suppress(ProcessLookupError):
                os.kill(_EVERY_OTHER, signal.SIGKILL)
        # This process is their subreaper: when no child is left, nothing is.
        with suppress(ChildProcessError):
            while True:
                os.waitpid(_ANY_CHILD, 0)
        return os.waitstatus_to_exitcode(wait_status)
