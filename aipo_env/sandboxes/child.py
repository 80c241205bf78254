"""What runs in the sandboxed process: it gives up its rights, says so, runs a program.

Forked by `server`, in a bare interpreter; needs nothing but the standard library.
Descriptor 0 is the program's standard input. Descriptor 1 carries `READY` once no way
out is left, and from there on nothing but the program's own bytes.
"""

import atexit
import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
READY = b"\x06"
"""ASCII's ACK: the first byte on descriptor 1, written once the process is locked."""
EXIT_COMPILE = 213
"""Exit status for a text that is no Python program."""
EXIT_MEMORY = 214
"""Exit status for a program that ran out of memory."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal this process gets when its parent ends."""
PR_SET_DUMPABLE = 4
"""prctl(2): whether it dumps core, and whether its user may open its files in /proc."""
PR_SET_SECCOMP = 22
"""prctl(2): install a filter of system calls."""
PR_SET_CHILD_SUBREAPER = 36
"""prctl(2): adopt the descendants whose own parent has ended."""
PR_SET_NO_NEW_PRIVS = 38
"""prctl(2): no program it starts gets more rights, such as by a setuid file."""
SECCOMP_MODE_FILTER = 2
"""The mode of `PR_SET_SECCOMP` in which a BPF program decides."""

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
"""The layout of capset(2) with 64 bits of capabilities."""
_CAPABILITY_DATA_BYTES = 24
"""Two of its records, each of effective, permitted and inheritable: 4 bytes each."""
_FILTER_INSTRUCTION_BYTES = 8
"""The size of `struct sock_filter`."""
_FIRST_OTHER_DESCRIPTOR = 3
"""The first one after standard input, output and error."""
_EXIT_STATUS_BITS = 0xFF
"""What is left of an exit status when the parent reads it."""
_EXIT_FLUSH_FAILED = 120
"""The interpreter's own exit status when it cannot write out what is buffered."""


def encode(value: object) -> object:
    """Return a JSON form that keeps the exact type of a plain value.

    Integers become `{"int": "0x2a"}`, floats `{"float": "1.5"}`, dictionaries with text
    keys `{"dict": [[key, value], …]}` in order of their keys, tuples lists; None, truth
    values and texts stay.

    Raises:
        TypeError: The value, or one within, is of another type; subclasses are other
            types.
    """
    # No isinstance: a subclass may have an __eq__ or a __repr__ of the program's.
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if type(value) is int:
        # Hexadecimal takes time linear in the digits, decimal does not.
        return {"int": hex(value)}
    if type(value) is float:
        equal_zeros = value + 0.0  # -0.0 and 0.0 are one value
        return {"float": repr(equal_zeros)}
    if type(value) is list or type(value) is tuple:
        return [encode(item) for item in value]
    if type(value) is dict and all(type(key) is str for key in value):
        # Pairs, since a JSON object could be taken for one of the forms above.
        names = sorted(value)
        return {"dict": [[name, encode(value[name])] for name in names]}
    raise TypeError(f"a result of type {kind.__name__} has no JSON form")


def check(result: int, what: str) -> int:
    """Return a C function's result; raise OSError with errno where it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends.

    Args:
        parent: The parent's process id, as the parent itself read it before the fork.

    Raises:
        OSError: The parent had ended before the call, or the kernel refuses.
    """
    result = libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # A parent that ended before the call above is never reported: another process has
    # adopted this one by then, which its parent's id shows.
    if result != 0 or os.getppid() != parent:
        raise OSError("the parent is gone")


def lock(rules: bytes, parent: int, cpu_s: int, limits: dict[int, int]) -> None:
    """Give up, for good, everything a program needs not.

    Args:
        rules: The filter of `seccomp.filter_program`; empty: none, which is no sandbox.
        parent: Id of the process to die with.
        cpu_s: Seconds of processor time, of the process alone.
        limits: Of `resource`: by its number, as far as there are such rights left. It
            gets no file, process or core dump for which there is none.

    Raises:
        OSError: The kernel refuses one of the steps, or the parent is gone.
    """
    _limit_resources(cpu_s, limits)
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)  # 0: this process
    no_capabilities = bytes(_CAPABILITY_DATA_BYTES)
    check(libc.capset(header, no_capabilities), "capset")
    die_with(parent)
    # A limit of 0 stops no core dump that is piped to a program of the host.
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl of core dumps")
    # Without this the kernel takes no filter from a process without capabilities.
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl of new privileges")
    # The filter comes last: it denies every call made above.
    if rules:
        _install_filter(rules)


def _limit_resources(cpu_s: int, limits: dict[int, int]) -> None:
    values = {
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_CORE: 0,
    }
    values.update(limits)
    for number, value in values.items():
        # A process without rights may lower a hard limit but not raise it.
        hard = resource.getrlimit(number)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(number, (value, value))
    # At the soft limit comes SIGXCPU, by which the server knows the cause, and which a
    # program may ignore; at the hard one SIGKILL, which it cannot.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))


def _install_filter(rules: bytes) -> None:
    code = ctypes.create_string_buffer(rules)
    num_instructions = len(rules) // _FILTER_INSTRUCTION_BYTES
    # `struct sock_fprog`: a short count, then, aligned, where the instructions are.
    table = struct.pack("@HP", num_instructions, ctypes.addressof(code))
    result = libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, table, 0, 0)
    check(result, "prctl of the filter")


def call(namespace: dict[str, object], entry: str, arguments: list[object]) -> object:
    """Call a program's function, or a method of its class, and return the result.

    Args:
        namespace: What the program defined.
        entry: "name" or "Class.name"; the class is made without arguments.
        arguments: Passed by position.

    Raises:
        NameError: The program defines no such function or class.
        BaseException: Whatever the program's own code raises.
    """
    owner, _, name = entry.rpartition(".")
    first = owner or name
    if first not in namespace:
        raise NameError(f"the program defines no {first!r}")
    function: Any = namespace[first]
    if owner:
        function = getattr(function(), name)
    return function(*arguments)


def run(source: str, entry: str, limits: dict[str, Any], path: list[str]) -> None:
    """Lock this process, run a program in it and end it. It does not return.

    Args:
        source: The program's text.
        entry: The function to call with the JSON list on standard input; empty: none.
        limits: The arguments of `lock`.
        path: The program's `sys.path`; empty where it may open no file.
    """
    os.closerange(_FIRST_OTHER_DESCRIPTOR, os.sysconf("SC_OPEN_MAX"))
    channel = 1
    if entry:
        # The result alone goes to standard output; what the program prints, to error.
        channel = os.dup(1)
        os.dup2(2, 1)
    if not path:
        _remember_standard_descriptors()
    main_module = type(sys)("__main__")
    sys.modules["__main__"] = main_module
    namespace = main_module.__dict__
    sys.argv = ["program"]
    sys.path = path
    lock(**limits)
    os.write(channel, READY)
    try:
        code = compile(source, "<program>", "exec", dont_inherit=True)
    except (
        SyntaxError,
        ValueError,
        MemoryError,
        OverflowError,
        RecursionError,
    ) as error:
        # All that compile() raises for a text; nothing of the program has run yet.
        sys.__excepthook__(type(error), error.with_traceback(None), None)
        os._exit(EXIT_COMPILE)
    try:
        arguments: list[object] = []
        if entry:
            arguments = json.loads(sys.stdin.buffer.read())
        exec(code, namespace)
        if entry:
            result = call(namespace, entry, arguments)
            data = json.dumps(encode(result)).encode()
            with os.fdopen(channel, "wb") as file:
                file.write(data)
        status = 0
    except MemoryError:
        # At once: to print a traceback, or to clean up, would take memory again.
        os._exit(EXIT_MEMORY)
    except SystemExit as error:
        status = _status(error.code)
    except BaseException as error:
        trace = error.__traceback__
        if trace:
            trace = trace.tb_next  # without this file
        sys.__excepthook__(type(error), error.with_traceback(trace), trace)
        status = 1
    _finish(namespace, status)


def _remember_standard_descriptors() -> None:
    """Answer os.fstat from memory, for the three descriptors there are.

    The C library may ask for a descriptor's status by path, which is denied.
    """
    states = {number: os.fstat(number) for number in range(_FIRST_OTHER_DESCRIPTOR)}
    os.fstat = states.__getitem__  # type: ignore[assignment]


def _status(code: object) -> int:
    """Return the exit status that the interpreter makes of the argument of sys.exit."""
    if code is None:
        return 0
    if isinstance(code, int):
        return int(code) & _EXIT_STATUS_BITS
    print(code, file=sys.stderr)
    return 1


def _finish(namespace: dict[str, object], status: int) -> None:
    """End as the interpreter does, in its order, but free no memory.

    To free what this process shares with the server would copy it first, page by page,
    which takes longer than all else.
    """
    try:
        threading = sys.modules.get("threading")
        if threading:
            threading._shutdown()
        atexit._run_exitfuncs()
        _flush(sys.stdout, sys.stderr)
        namespace.clear()  # writes what files of the program's own still hold
        _flush(sys.__stdout__, sys.__stderr__)
    except BaseException as error:
        sys.__excepthook__(type(error), error, None)
        status = status or _EXIT_FLUSH_FAILED
    os._exit(status)


def _flush(*files: Any) -> None:
    for file in files:
        # A program may have put None, or any object, in place of a standard stream.
        if file is not None and not getattr(file, "closed", False):
            file.flush()
