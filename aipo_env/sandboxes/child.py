"""What runs in the sandboxed process: it locks itself up, says so, then runs one
program.

Forked by `server`, in a bare interpreter; needs nothing but the standard library.
Descriptor 0 is the program's standard input. Descriptor 1 carries `READY` once no way
out is left, and from there on nothing but the program's own bytes.
"""

import atexit
import ctypes
import json
import os
import resource
import struct
import sys
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
READY = b"\x06"
EXIT_COMPILE, EXIT_MEMORY = 213, 214
"""Exit statuses for a program that is none, and for one that ran out of memory."""


def encode(value: object) -> object:
    """Return a JSON form that keeps the exact type of a plain value.

    Integers become `{"int": "0x2a"}`, floats `{"float": "1.5"}`, dictionaries with text
    keys `{"dict": [[key, value], …]}` in order of their keys, tuples lists; None, truth
    values and texts stay.

    Raises:
        TypeError: The value, or one within, is of another type; subclasses are other
            types.
    """
    if value is None or type(value) is bool or type(value) is str:
        return value
    if type(value) is int:
        return {"int": hex(value)}
    if type(value) is float:
        return {"float": repr(value + 0.0)}  # -0.0 and 0.0 are one value
    if type(value) is list or type(value) is tuple:
        return [encode(item) for item in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": [[key, encode(value[key])] for key in sorted(value)]}
    raise TypeError(f"a result of type {type(value).__name__} has no JSON form")


def check(result: int, what: str) -> int:
    """Return what a C function returned; raise OSError with its error number if it
    failed.
    """
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; raise OSError if that was
    before the call.
    """
    if libc.prctl(1, 9, 0, 0, 0) or os.getppid() != parent:
        raise OSError("the parent is gone")


def lock(rules: bytes, parent: int, cpu_s: int, limits: dict[int, int]) -> None:
    """Give up, for good, everything a program needs not.

    Args:
        rules: The filter of `seccomp.filter_program`; empty: none, which is no sandbox.
        parent: Id of the process to die with.
        limits: Of `resource`: by its number, as far as there are such rights left. It
            gets no file, process or core dump for which there is none.
    """
    nothing = (
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_NPROC,
        resource.RLIMIT_NOFILE,
        resource.RLIMIT_CORE,
    )
    wanted = dict.fromkeys(nothing, 0) | limits
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    check(libc.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24)), "capset")
    die_with(parent)
    # A limit of 0 stops no core dump that is piped to a program of the host.
    check(libc.prctl(4, 0, 0, 0, 0), "prctl of core dumps")
    check(libc.prctl(38, 1, 0, 0, 0), "prctl of new privileges")
    if rules:
        code = ctypes.create_string_buffer(rules)
        table = struct.pack("@HP", len(rules) // 8, ctypes.addressof(code))
        check(libc.prctl(22, 2, table, 0, 0), "prctl of the filter")


def call(namespace: dict[str, object], entry: str, arguments: list[object]) -> object:
    """Return what a program's function, or its class's method, makes of the
    arguments.
    """
    owner, _, name = entry.rpartition(".")
    if (owner or name) not in namespace:
        raise NameError(f"the program defines no {owner or name!r}")
    function = getattr(namespace[owner](), name) if owner else namespace[name]  # type: ignore[operator]
    return function(*arguments)  # type: ignore[operator]


def run(source: str, entry: str, limits: dict[str, Any], path: list[str]) -> None:
    """Lock up, run a program and end the process. `limits` are the arguments of
    `lock`.
    """
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    channel = 1
    if entry:
        channel = os.dup(1)
        os.dup2(2, 1)
    if not path:
        # The C library may ask for a descriptor's status by path, which is denied.
        os.fstat = {number: os.fstat(number) for number in range(3)}.__getitem__  # type: ignore[assignment]
    sys.modules["__main__"] = type(sys)("__main__")
    namespace = sys.modules["__main__"].__dict__
    sys.argv, sys.path = ["program"], path
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
        sys.__excepthook__(type(error), error.with_traceback(None), None)
        os._exit(EXIT_COMPILE)
    try:
        arguments = json.loads(sys.stdin.buffer.read()) if entry else []
        exec(code, namespace)
        if entry:
            result = json.dumps(encode(call(namespace, entry, arguments))).encode()
            with os.fdopen(channel, "wb") as file:
                file.write(result)
        status = 0
    except MemoryError:
        os._exit(EXIT_MEMORY)
    except SystemExit as error:
        status = _status(error.code)
    except BaseException as error:
        trace = error.__traceback__ and error.__traceback__.tb_next  # without this file
        sys.__excepthook__(type(error), error.with_traceback(trace), trace)
        status = 1
    _finish(namespace, status)


def _status(code: object) -> int:
    if code is None or isinstance(code, int):
        return int(code or 0) & 255
    print(code, file=sys.stderr)
    return 1


def _finish(namespace: dict[str, object], status: int) -> None:
    """End as the interpreter does, but for freeing what it shares with the server,
    which takes longer than all else.
    """
    try:
        if threading := sys.modules.get("threading"):
            threading._shutdown()
        atexit._run_exitfuncs()
        _flush(sys.stdout, sys.stderr)
        namespace.clear()  # writes what files of the program's own still hold
        _flush(sys.__stdout__, sys.__stderr__)
    except BaseException as error:
        sys.__excepthook__(type(error), error, None)
        status = status or 120
    os._exit(status)


def _flush(*files: Any) -> None:
    for file in files:
        if file is not None and not getattr(file, "closed", False):
            file.flush()
