"""What runs in the sandboxed process: it gives up its rights, says so, runs a program.

Forked by `server`, in a bare interpreter; needs nothing but the standard library and
what stands beside it.
Descriptor 0 is the program's standard input. Descriptor 1 carries `READY` once no way
out is left, and from there on nothing but the program's own bytes.
"""

import ast
import atexit
import builtins
import ctypes
import io
import json
import os
import resource
import signal
import struct
import sys
from types import CodeType
from typing import Any

from aipo_env.sandboxes.values import encode, pack, unpack

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
_BENCHMARK = "benchmark"
"""The style in which benchmarks run programs; see `Program` in `base`."""
_STANDARD_FILES = {
    "/dev/stdin": 0,
    "/dev/fd/0": 0,
    "/proc/self/fd/0": 0,
    "/dev/stdout": 1,
    "/dev/stderr": 2,
}
"""Names of standard files, of which there are none here, and their descriptors."""
_IMPORTS = (ast.Import, ast.ImportFrom)
_open = io.open


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


def called(namespace: dict[str, object], entry: str, style: str) -> Any:
    """Return a program's function, or a method of a new object of its class.

    Args:
        namespace: What the program defined.
        entry: "name" or "Class.name"; the class is made without arguments.
        style: With "benchmark" a function does for the method of a class there is not.

    Raises:
        NameError: The program defines no such function or class.
        BaseException: Whatever the program's own code raises.
    """
    owner, _, name = entry.rpartition(".")
    if style == _BENCHMARK and owner not in namespace:
        owner = ""
    first = owner or name
    if first not in namespace:
        raise NameError(f"the program defines no {first!r}")
    function: Any = namespace[first]
    if owner:
        function = getattr(function(), name)
    return function


def run(program: dict[str, Any], limits: dict[str, Any], path: list[str]) -> None:
    """Lock this process, run a program in it and end it. It does not return.

    Args:
        program: The fields of `Program` in `base`; its input is standard input.
        limits: The arguments of `lock`.
        path: The program's `sys.path`; empty where it may open no file.
    """
    os.closerange(_FIRST_OTHER_DESCRIPTOR, os.sysconf("SC_OPEN_MAX"))
    entry = program["entry"]
    style = program["style"]
    channel = 1
    if entry:
        # The result alone goes to standard output; what the program prints, to error.
        channel = os.dup(1)
        os.dup2(2, 1)
    if not path:
        _remember_standard_descriptors()
    _add_what_is_usual()
    # A function is called from outside: with benchmarks, what a program does when it is
    # run is not for them.
    is_imported = entry and style == _BENCHMARK
    main_module = type(sys)("program" if is_imported else "__main__")
    sys.modules["__main__"] = sys.modules[main_module.__name__] = main_module
    namespace = main_module.__dict__
    sys.argv = ["program"]
    sys.path = path
    lock(**limits)
    os.write(channel, READY)
    try:
        code = _compiled(program["source"], style, bool(entry))
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
        given: Any = []
        if entry:
            given = json.loads(sys.stdin.buffer.read())
        exec(code, namespace)
        if entry:
            _answer(channel, namespace, program, given)
        status = 0
    except MemoryError:
        # At once: to print a traceback, or to clean up, would take memory again.
        os._exit(EXIT_MEMORY)
    except SystemExit as error:
        status = 0 if style == _BENCHMARK else _status(error.code)
    except BaseException as error:
        trace = error.__traceback__
        if trace:
            trace = trace.tb_next  # without this file
        sys.__excepthook__(type(error), error.with_traceback(trace), trace)
        status = 1
    _finish(namespace, status)


def _compiled(source: str, style: str, is_called: bool) -> CodeType:
    """Return a program's code.

    Args:
        is_called: Whether a function of the program is called, which must be its own.

    Raises:
        SyntaxError, ValueError, MemoryError, OverflowError, RecursionError: It is none.
    """
    try:
        return compile(source, "<program>", "exec", dont_inherit=True)
    except SyntaxError:
        if style != _BENCHMARK:
            raise
        program = ast.parse(source)
        futures = [one for one in program.body if _is_of_the_future(one)]
        rest = [one for one in program.body if not _is_of_the_future(one)]
    # What is imported from the future comes before all else, a prelude too.
    try:
        return _code_of(ast.Module([*futures, *rest], []))
    except SyntaxError:
        if is_called:
            raise
        return _code_of(_function_of(futures, rest))


def _is_of_the_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _code_of(program: ast.Module) -> CodeType:
    return compile(program, "<program>", "exec", dont_inherit=True)


def _function_of(futures: list[ast.stmt], rest: list[ast.stmt]) -> ast.Module:
    """Return a program with its imports first, and the rest as a function that is run.

    Benchmarks arrange all programs so: there, a `return` ends one.
    """
    imports = [one for one in rest if isinstance(one, _IMPORTS)]
    others = [one for one in rest if not isinstance(one, _IMPORTS)]
    outer = ast.parse("def program(): pass\nprogram()")
    function: Any = outer.body[0]
    function.body = others or function.body
    outer.body = [*futures, *imports, *outer.body]
    return outer


def _answer(
    channel: int, namespace: dict[str, object], program: dict[str, Any], given: Any
) -> None:
    """Call the program's function and write the form of its result."""
    function = called(namespace, program["entry"], program["style"])
    if program["style"] == _BENCHMARK:
        named = {name: unpack(form) for name, form in given["named"].items()}
        form = pack(function(*unpack(given["args"]), **named))
    else:
        form = encode(function(*given))
    data = json.dumps(form).encode()
    with os.fdopen(channel, "wb") as file:
        file.write(data)


def _add_what_is_usual() -> None:
    """Give programs `exit` and `quit`, and let them open standard files by name."""
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
    builtins.open = io.open = _Opener()


class _Opener:
    """`open`, which finds standard files by their names, too.

    No function: one would become a method where a class calls it its own.
    """

    def __call__(self, file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        name = os.fspath(file) if isinstance(file, str | os.PathLike) else ""
        number = _STANDARD_FILES.get(name)
        if number is None:
            return _open(file, mode, *rest, **options)
        # The descriptor itself: its name leads nowhere.
        return _open(number, mode, *rest, **options | {"closefd": False})


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
