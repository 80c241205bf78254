"""What runs in the sandboxed process: it locks itself up, says so, then runs one program.

A script of its own that needs nothing but the standard library. Descriptor 0 carries the length of the job
(8 bytes), the job (marshal: the parent is trusted), then the program's standard input. Descriptor 1 carries
`READY` once no way out is left, and from there on nothing but the program's own bytes.
"""

import ctypes
import marshal
import os
import resource
import struct
import sys

READY = b"\x06"
EXIT_COMPILE, EXIT_MEMORY = 213, 214
"""Exit statuses for a program that is none, and for one that ran out of memory."""


def encode(value: object) -> object:
    """Return a JSON form that keeps the exact type of a plain value.

    Integers become `{"int": "0x2a"}`, floats `{"float": "1.5"}`, dictionaries with text keys
    `{"dict": [[key, value], …]}` in order of their keys, tuples lists; None, truth values and texts stay.

    Raises:
        TypeError: The value, or one within, is of another type; subclasses are other types.
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


def lock(rules: bytes, memory_bytes: int, cpu_s: int) -> None:
    """Give up, for good, everything a program needs not. `rules` is the filter of `seccomp.filter_program`."""
    with open("/proc/self/statm") as file:
        own_bytes = int(file.read().split()[0]) * resource.getpagesize()
    wanted = {
        resource.RLIMIT_AS: own_bytes + memory_bytes,
        resource.RLIMIT_STACK: memory_bytes,
        **dict.fromkeys((resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC), 0),
        resource.RLIMIT_NOFILE: 0,
    }
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(rules, len(rules))
    table = struct.pack("@HP", len(rules) // 8, ctypes.addressof(code))
    die_with_parent, no_new_privileges, set_filter = (1, 9, None), (38, 1, None), (22, 2, table)
    for option, value, pointer in (die_with_parent, no_new_privileges, set_filter):
        if libc.prctl(option, ctypes.c_ulong(value), pointer, None, None):
            raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def call(namespace: dict[str, object], entry: str, arguments: list[object]) -> object:
    """Return what a program's function, or its class's method, makes of the arguments."""
    owner, _, name = entry.rpartition(".")
    if (owner or name) not in namespace:
        raise NameError(f"the program defines no {owner or name!r}")
    function = getattr(namespace[owner](), name) if owner else namespace[name]  # type: ignore[operator]
    return function(*arguments)  # type: ignore[operator]


def main() -> None:
    """Read the job, lock up, run it."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    job = marshal.loads(_take(int.from_bytes(_take(8), "big")))
    source, entry, modules, rules, memory_bytes, cpu_s = job
    for name in modules:
        __import__(name)
    if entry:
        import json

        channel = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
    # The C library may ask for a descriptor's status by path, which is denied.
    os.fstat = {number: os.fstat(number) for number in range(3)}.__getitem__  # type: ignore[assignment]
    sys.modules["__main__"] = type(sys)("__main__")
    namespace = sys.modules["__main__"].__dict__
    sys.argv, sys.path = ["program"], []
    lock(rules, memory_bytes, cpu_s)
    os.write(channel.fileno() if entry else 1, READY)
    try:
        code = compile(source, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, OverflowError, RecursionError) as error:
        sys.__excepthook__(type(error), error.with_traceback(None), None)
        os._exit(EXIT_COMPILE)
    try:
        arguments = json.loads(sys.stdin.buffer.read()) if entry else []
        exec(code, namespace)
        if entry:
            result = call(namespace, entry, arguments)
            channel.write(json.dumps(encode(result)).encode())
            channel.close()
    except MemoryError:
        os._exit(EXIT_MEMORY)
    except Exception as error:
        trace = error.__traceback__ and error.__traceback__.tb_next  # without this file
        sys.__excepthook__(type(error), error.with_traceback(trace), trace)
        sys.exit(1)


def _take(size: int) -> bytes:
    """Read exactly `size` bytes, and no byte of what follows, from standard input."""
    taken = bytearray()
    while len(taken) < size:
        chunk = os.read(0, size - len(taken))
        if not chunk:
            raise EOFError("the job ended early")
        taken += chunk
    return bytes(taken)


if __name__ == "__main__":
    main()
