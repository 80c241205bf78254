"""The process sandbox: what runs, what is cut off, and that no attack gets out of it."""

import asyncio
import json
import os
import platform
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aipo_env import ConfigError, SandboxUnavailable, run_sync
from aipo_env.sandboxes import process
from aipo_env.sandboxes.base import Limits, Program, RunResult, Sandbox
from aipo_env.sandboxes.child import encode
from aipo_env.sandboxes.process import ProcessSandbox
from aipo_env.sandboxes.seccomp import filter_program
from aipo_env.sandboxes.self_test import open_sandbox, self_test

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="the process sandbox needs Linux on x86-64 or aarch64",
)

SANDBOX = ProcessSandbox() if sys.platform == "linux" else None
SMALL = Limits(time_s=30.0, memory_mb=64, output_bytes=100_000)
BRIEF = Limits(time_s=0.3, memory_mb=64, output_bytes=100_000)


def run(source: str, stdin: bytes = b"", entry: str = "", limits: Limits = SMALL) -> RunResult:
    assert SANDBOX
    return run_sync(SANDBOX.run(Program(source, stdin, entry), limits))


def printed(source: str, stdin: bytes = b"") -> bytes:
    result = run(source, stdin)
    assert (result.status, result.exit_code, result.stderr) == ("ok", 0, b"")
    return result.stdout


# What runs


def test_a_program_runs():
    result = run("print(6 * 7)")
    assert (result.status, result.exit_code, result.stdout, result.stderr) == ("ok", 0, b"42\n", b"")
    assert (result.layer, result.reason) == ("seccomp", "")
    assert 0 < result.seconds < 30


@pytest.mark.parametrize(
    "read",
    [
        "import sys\nlines = [line.strip() for line in sys.stdin]",
        "import sys\nlines = sys.stdin.read().split()",
        "import sys\nlines = [line.strip() for line in sys.stdin.readlines()]",
        "import sys\nlines = sys.stdin.buffer.read().decode().split()",
        "lines = [input(), input()]",
        "lines = open(0).read().split()",
        "lines = open(0, 'rb').read().decode().split()",
        "import os\nlines = os.read(0, max(os.fstat(0).st_size, 8192)).decode().split()",
        "import io, os\nlines = io.BytesIO(os.read(0, 100)).read().decode().split()",
    ],
)
def test_every_ordinary_way_of_reading(read: str):
    assert printed(f"{read}\nprint(lines)", b"ab\ncd\n") == b"['ab', 'cd']\n"


def test_the_usual_modules_can_be_imported():
    names = "math collections itertools heapq bisect functools re string random fractions decimal json sys io operator"
    names += (
        " statistics typing dataclasses datetime copy cmath array enum textwrap hashlib os time contextlib"
    )
    source = (
        f"import {', '.join(names.split())}\nprint(datetime.datetime.strptime('2020-02-29', '%Y-%m-%d').day)"
    )
    assert printed(source) == b"29\n"


def test_integers_have_any_size_and_hashes_are_fixed():
    assert printed("print(len(str(10 ** 20_000)))") == b"20001\n"
    hashes = {printed("print(hash('abc'), {'x', 'y', 'z'})") for _ in range(3)}
    assert len(hashes) == 1


def test_any_bytes_go_in_and_out():
    source = "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"
    assert printed(source, b"\x00\xff\n" * 30_000) == b"\n\xff\x00" * 30_000
    assert printed("print(1)", b"x" * 5_000_000) == b"1\n"


def test_dataclasses_and_main_guard():
    source = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: 'int'\nif __name__ == '__main__':\n    print(P(3))"
    assert printed(source) == b"P(x=3)\n"


def test_deep_recursion_through_a_cache():
    source = "import sys\nfrom functools import cache\nsys.setrecursionlimit(10 ** 6)\n@cache\n"
    source += "def f(n):\n    return n and f(n - 1) + 1\nprint(f(20_000))"
    assert run(source, limits=Limits(time_s=10)).stdout == b"20000\n"


# How runs end


@pytest.mark.parametrize(
    ("source", "status", "exit_code", "reason"),
    [
        ("1 / 0", "runtime_error", 1, "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "runtime_error", 3, "exit status 3"),
        ("import os\nos._exit(213 - 200)", "runtime_error", 13, "exit status 13"),
        ("x = (", "compile_error", 213, "SyntaxError: '(' was never closed"),
        ("x = '\ud800'", "compile_error", 213, "surrogates not allowed"),
        ("x = '\0'", "compile_error", 213, "null bytes"),
        ("(" * 1000, "compile_error", 213, "too many nested parentheses"),
        ("-" * 100_000 + "1", "compile_error", 213, ""),
        ("x = [0] * 10 ** 10", "memory", 214, "memory limit reached"),
        ("x = []\nwhile True: x.append(bytearray(10 ** 6))", "memory", 214, "memory limit reached"),
        ("def f(n): return f(n + 1)\nf(0)", "runtime_error", 1, "RecursionError"),
        ("import ctypes\nctypes.string_at(0)", "runtime_error", -signal.SIGSEGV, "killed by SIGSEGV"),
        ("import numpy", "runtime_error", 1, "ModuleNotFoundError: No module named 'numpy'"),
        ("import threading\nthreading.Thread(target=print).start()", "runtime_error", 1, "can't start new thread"),
    ],
)  # fmt: skip
def test_how_a_run_ends(source: str, status: str, exit_code: int, reason: str):
    result = run(source)
    assert (result.status, result.exit_code) == (status, exit_code), result
    assert reason in result.reason


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "import os\nfor fd in range(3): os.close(fd)\nwhile True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except Exception: pass\nwhile True: pass",
        "x = 9 ** 9 ** 9",
        "import re\nre.match(r'(a+)+b', 'a' * 60)",
        "import sys\nclass A:\n    def __del__(self):\n        while True: pass\na = A()\nsys.exit(0)",
    ],
)
def test_time_is_bounded(source: str):
    start = time.monotonic()
    result = run(source, limits=BRIEF)
    assert (result.status, result.exit_code) == ("timeout", -signal.SIGKILL), result
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    "source",
    [
        "while True: print('x' * 1000)",
        "import sys\nwhile True: sys.stderr.write('x' * 1000)",
        "import os\nwhile True: os.write(1, bytes(65536))",
        "print('x' * 200_000)",
    ],
)
def test_output_is_bounded(source: str):
    result = run(source)
    assert result.status == "output_limit"
    assert max(len(result.stdout), len(result.stderr)) == 100_000


def test_what_was_printed_before_the_deadline_is_kept():
    result = run("print('before', flush=True)\nwhile True: pass", limits=BRIEF)
    assert (result.status, result.stdout) == ("timeout", b"before\n")


def test_limits_must_be_positive():
    with pytest.raises(ConfigError, match="time_s=0 must be positive"):
        Limits(time_s=0)


# Calling a function


def test_a_function_is_called_and_its_result_keeps_its_types():
    source = "print('noise')\ndef f(a, b):\n    print('more')\n    return [a + b, 0.5, True, None, (1,), {'k': 'v'}]"
    result = run(source, b"[1, 2]", "f")
    assert (result.status, result.stderr) == ("ok", b"noise\nmore\n")
    assert json.loads(result.stdout) == [
        {"int": "0x3"}, {"float": "0.5"}, True, None, [{"int": "0x1"}], {"dict": [["k", "v"]]}
    ]  # fmt: skip


def test_a_method_is_called_on_a_fresh_object():
    source = "class Solution:\n    def twice(self, x):\n        return 2 * x"
    assert run(source, b'["ab"]', "Solution.twice").stdout == b'"abab"'


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = 1", "NameError: the program defines no 'f'"),
        ("def f(): return 1", "takes 0 positional arguments"),
        ("f = 5", "'int' object is not callable"),
        ("def f(x): return {1, 2}", "a result of type set has no JSON form"),
        ("def f(x): return {1: 2}", "a result of type dict has no JSON form"),
        (
            "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()",
            "a result of type E has no",
        ),
        ("class L(list): pass\ndef f(x): return L()", "a result of type L has no JSON form"),
        ("class I(int): pass\ndef f(x): return I()", "a result of type I has no JSON form"),
        ("def f(x):\n    x = []\n    x.append(x)\n    return x", "RecursionError"),
        ("def f(x): return f", "a result of type function has no JSON form"),
    ],
)
def test_calls_that_give_nothing(source: str, reason: str):
    result = run(source, b"[1]", "f")
    assert (result.status, result.stdout) == ("runtime_error", b"")
    assert reason in result.reason


def test_encode():
    assert encode([1, 1.0, True, -0.0, 10**5000])[:4] == [
        {"int": "0x1"},
        {"float": "1.0"},
        True,
        {"float": "0.0"},
    ]
    assert encode((1,)) == encode([1])
    with pytest.raises(TypeError, match="a result of type bytes has no JSON form"):
        encode({"a": [b"x"]})


# Attacks. Each prints "through" if the kernel let it do what it must not. They do no harm where they succeed:
# system calls get arguments for which the kernel, once it lets them in, finds another fault than EPERM.

CTYPES = """import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def entered(call, *arguments):
    ctypes.set_errno(0)
    call(*arguments)
    print("" if ctypes.get_errno() == 1 else "through")
"""
ATTACKS = {
    "read passwd": "print(open('/etc/passwd').read(1), 'through')",
    "read environ": "print(open('/proc/self/environ', 'rb').read(1), 'through')",
    "read maps": "print(open('/proc/self/maps').read(1), 'through')",
    "read the library": "import os\nprint(open(os.__file__).read(1), 'through')",
    "list a folder": "import os\nprint(os.listdir('/'), 'through')",
    "stat a path": "import os\nprint(os.stat('/'), 'through')",
    "exists": "import os\nprint('through' if os.path.exists('/') else '')",
    "readlink": "import os\nprint(os.readlink('/proc/self/exe'), 'through')",
    "getcwd": "import os\nprint(os.getcwd(), 'through')",
    "loader": "import sys\nm = sys.modules['_frozen_importlib_external']\nprint(m.SourceFileLoader('x', '/etc/passwd').get_data('/etc/passwd'), 'through')",
    "import of a path": "import sys\nsys.path.append('FOLDER')\nimport aipo_attack\nprint('through')",
    "open": CTYPES + "entered(libc.open, b'/etc/passwd', 0)",
    "openat2": CTYPES + "entered(libc.syscall, 437, -100, None, None, 0)",
    "handle of a path": CTYPES + "entered(libc.name_to_handle_at, -100, None, None, None, 0)",
    "write a file": "print(open('FOLDER/attack', 'w'), 'through')",
    "make a folder": "import os\nos.mkdir('FOLDER/attack')\nprint('through')",
    "symlink": "import os\nos.symlink('/etc/passwd', 'FOLDER/attack')\nprint('through')",
    "link": "import os\nos.link('FOLDER/aipo_attack.py', 'FOLDER/attack')\nprint('through')",
    "rename": "import os\nos.rename('FOLDER/aipo_attack.py', 'FOLDER/attack')\nprint('through')",
    "remove": "import os\nos.remove('FOLDER/aipo_attack.py')\nprint('through')",
    "truncate": "import os\nos.truncate('FOLDER/aipo_attack.py', 0)\nprint('through')",
    "chmod": "import os\nos.chmod('FOLDER/aipo_attack.py', 0)\nprint('through')",
    "mknod": "import os\nos.mkfifo('FOLDER/attack')\nprint('through')",
    "memfd": CTYPES + "entered(libc.memfd_create, b'x', 0)",
    "pipe": "import os\nprint(os.pipe(), 'through')",
    "dup": "import os\nprint(os.dup(1), 'through')",
    "tcp": CTYPES + "entered(libc.socket, 2, 1, 0)",
    "udp": CTYPES + "entered(libc.socket, 2, 2, 0)",
    "local socket": CTYPES + "entered(libc.socket, 1, 1, 0)",
    "netlink": CTYPES + "entered(libc.socket, 16, 3, 0)",
    "packet socket": CTYPES + "entered(libc.socket, 17, 3, 0)",
    "socketpair": CTYPES + "entered(libc.socketpair, 1, 1, 0, None)",
    "send on standard input": CTYPES + "entered(libc.send, 0, None, 0, 0)",
    "fork": "import os\nos.fork()\nprint('through')",
    "clone": CTYPES + "entered(libc.unshare, -1)\nentered(libc.syscall, 435, None, 0)",
    "fork again and again": "import os\nfor _ in range(3):\n    os.fork()\n    print('through', flush=True)",
    "shell": "import os\nprint('through' if os.system('true') == 0 else '')",
    "spawn": "import os\nprint(os.posix_spawn('/bin/true', ['true'], {}), 'through')",
    "exec": "import os\nos.execv('/bin/echo', ['echo', 'through'])",
    "signal all": CTYPES + "entered(libc.kill, -1, 0)",
    "signal init": CTYPES + "entered(libc.kill, 1, 0)",
    "signal the group": "import os\nos.killpg(0, 0)\nprint('through')",
    "signal the parent": "import os\nos.kill(PARENT, 0)\nprint('through')",
    "signal a thread of the parent": CTYPES + "entered(libc.tgkill, PARENT, PARENT, 0)",
    "handle of the parent": CTYPES + "entered(libc.syscall, 434, PARENT, 0)",
    "ptrace": CTYPES + "entered(libc.ptrace, 0, 0, 0, 0)",
    "memory of the parent": CTYPES + "entered(libc.process_vm_readv, PARENT, None, 0, None, 0, 0)",
    "priority": CTYPES + "entered(libc.setpriority, 0, 0, 0)",
    "limits of the parent": "import resource\nprint(resource.prlimit(PARENT, resource.RLIMIT_CPU), 'through')",
    "its own limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nprint('through')",
    "session": "import os\nos.setsid()\nprint('through')",
    "namespaces": CTYPES + "entered(libc.setns, -1, 0)",
    "mount": CTYPES + "entered(libc.mount, None, None, None, 0, None)",
    "chroot": CTYPES + "entered(libc.chroot, None)",
    "setuid": CTYPES + "entered(libc.setuid, 0)",
    "prctl": CTYPES + "entered(libc.prctl, 3, 0, 0, 0, 0)",
    "another filter": CTYPES + "entered(libc.prctl, 22, 2, 0, 0, 0)",
    "io_uring": CTYPES + "entered(libc.syscall, 425, 1, None)",
    "descriptor of a process": CTYPES + "entered(libc.syscall, 438, -1, 0, 0)",
    "new mount interface": CTYPES + "entered(libc.syscall, 428, -100, None, 0)",
    "terminal input": CTYPES + "entered(libc.ioctl, 0, 0x5412, None)",
    "clock": CTYPES + "entered(libc.clock_settime, -1, None)",
    "host name": "import os\nprint(os.uname(), 'through')",
    "shared memory": CTYPES + "entered(libc.shmget, 0, 0, 0)",
    "inotify": CTYPES + "entered(libc.inotify_init1, 0)",
    "timer": CTYPES + "entered(libc.timer_create, -1, None, None)",
    "alarm": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 100)\nprint('through')",
    "thread": "import _thread, time\n_thread.start_new_thread(print, ('through',))\ntime.sleep(0.1)",
    "environment": "import os\nprint('through' if set(os.environ) - {'PYTHONHASHSEED', 'LC_CTYPE'} else '')",
    "frames": "import sys\nf = sys._getframe()\nwhile f:\n    print('through' if 'AIPO_' + 'SECRET' in str(f.f_locals) else '')\n    f = f.f_back",
    "garbage": "import gc\nprint('through' if any('AIPO_' + 'SECRET' in str(o) for o in gc.get_objects() if type(o) is dict) else '')",
    "descriptors": "import os\nfor fd in range(3, 300):\n    try: print(os.read(fd, 1), 'through')\n    except OSError: pass",
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_held_and_the_next_run_is_right(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIPO_SECRET", "canary")
    canary = tmp_path / "aipo_attack.py"
    canary.write_text("x = 1")
    result = run(ATTACKS[name].replace("PARENT", str(os.getpid())).replace("FOLDER", str(tmp_path)))
    assert b"through" not in result.stdout, result
    assert result.status in ("ok", "runtime_error"), result
    assert [path.name for path in tmp_path.iterdir()] == ["aipo_attack.py"]
    assert canary.read_text() == "x = 1"
    assert printed("print(1)") == b"1\n"


def test_machine_code_of_another_architecture_kills():
    if platform.machine() != "x86_64":
        pytest.skip("the 32-bit interface of x86-64")
    # mov eax, 20 (getpid of i386); int 0x80; ret
    source = CTYPES + (
        "libc.mmap.restype = ctypes.c_void_p\n"
        "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]\n"
        "place = libc.mmap(None, 4096, 7, 0x22, -1, 0)\n"
        "ctypes.memmove(place, bytes.fromhex('b814000000cd80c3'), 8)\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(place)(), 'through')"
    )
    assert run(source).reason == "killed by SIGSYS"
    x32 = CTYPES + "libc.syscall(0x40000000 + 39)\nprint('through')"
    assert run(x32).reason == "killed by SIGSYS"


def test_no_status_of_a_program_is_a_failure_of_the_sandbox():
    for code in (1, 2, 120, 126, 137, 213, 214, 255):
        assert run(f"import os\nos._exit({code})").status in ("runtime_error", "compile_error", "memory")


def test_two_programs_share_nothing():
    assert printed("import builtins, sys\nbuiltins.left = sys.left = 1\nprint(1)") == b"1\n"
    assert (
        printed("import builtins, sys\nprint(hasattr(builtins, 'left'), hasattr(sys, 'left'))")
        == b"False False\n"
    )


def test_programs_run_side_by_side():
    async def many() -> list[RunResult]:
        sandbox = ProcessSandbox()
        sources = [Program(f"print({number})") for number in range(12)]
        return await asyncio.gather(*(sandbox.run(source, SMALL) for source in sources))

    assert [result.stdout for result in asyncio.run(many())] == [f"{n}\n".encode() for n in range(12)]


def children() -> set[int]:
    """Processes of ours that run a program."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            ours = int(place.joinpath("stat").read_text().rpartition(")")[2].split()[1]) == os.getpid()
            if ours and b"child.py" in place.joinpath("cmdline").read_bytes():
                found.add(int(place.name))
        except OSError:
            continue
    return found


def test_a_cancelled_run_is_killed():
    async def cancelled() -> None:
        work = asyncio.create_task(ProcessSandbox().run(Program("while True: pass"), Limits(time_s=60)))
        while not children():
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(cancelled())
    assert children() == set()


DYING_PARENT = """
import asyncio, os
from aipo_env.sandboxes.base import Limits, Program
from aipo_env.sandboxes.process import ProcessSandbox

async def main():
    program = Program("import time; time.sleep(60)")
    work = asyncio.create_task(ProcessSandbox().run(program, Limits(time_s=60)))
    while not (found := open(f"/proc/self/task/{os.getpid()}/children").read().split()):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    print(found[0], flush=True)
    os._exit(9)

asyncio.run(main())
"""


def test_a_program_dies_with_its_parent():
    started = subprocess.run(
        [sys.executable, "-c", DYING_PARENT], capture_output=True, text=True, check=False
    )
    assert started.stdout.strip().isdigit(), started.stderr
    status = Path("/proc", started.stdout.strip(), "stat")
    deadline = time.monotonic() + 10
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Refusing


def test_a_sandbox_that_holds_is_opened():
    assert isinstance(run_sync(open_sandbox("process")), Sandbox)
    with pytest.raises(ConfigError, match="there is no 'proces'.*Did you mean 'process'"):
        run_sync(open_sandbox("proces"))


def test_a_sandbox_that_leaks_is_refused():
    leaky = ProcessSandbox()
    leaky._rules = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
    with pytest.raises(SandboxUnavailable, match=r"open a network socket|fork \(got through\)") as refusal:
        run_sync(self_test(leaky))
    assert "start a thread (got through)" in str(refusal.value)
    assert "run an honest program" not in str(refusal.value)


def test_a_set_up_that_fails_is_no_result_of_the_program():
    broken = ProcessSandbox()
    broken._rules = b"\0" * 8
    result = run_sync(broken.run(Program("print(1)"), SMALL))
    assert (result.status, result.stdout) == ("infra_error", b"")
    assert result.reason == "the process could not lock itself up: OSError: [Errno 22] prctl(22) failed"
    with pytest.raises(SandboxUnavailable, match="run an honest program \\(infra_error"):
        run_sync(self_test(broken))


def test_other_systems_and_machines_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process.platform, "machine", lambda: "riscv64")
    with pytest.raises(SandboxUnavailable, match="x86_64 and aarch64, not of 'riscv64'"):
        ProcessSandbox()
    monkeypatch.setattr(process.sys, "platform", "darwin")
    with pytest.raises(SandboxUnavailable, match="needs Linux, this is darwin"):
        ProcessSandbox()


# The filter, interpreted: the table of the machine at hand is tried above, the other one only here.


def decide(rules: bytes, number: int, arch: int) -> int:
    data = struct.pack("<II", number, arch)
    value, place = 0, 0
    while True:
        code, if_true, if_false, constant = struct.unpack_from("<HBBI", rules, 8 * place)
        if code == 0x06:
            return int(constant)
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, constant)
        elif code == 0x15:
            place += if_true if value == constant else if_false
        elif code == 0x35:
            place += if_true if value >= constant else if_false
        else:
            raise AssertionError(code)
        place += 1


ALLOW, DENY, KILL = 0x7FFF0000, 0x00050001, 0x80000000
X86_64, AARCH64 = 0xC000003E, 0xC00000B7


@pytest.mark.parametrize(
    ("machine", "arch", "allowed", "denied"),
    [
        (
            "x86_64",
            X86_64,
            {0, 1, 3, 9, 231},
            {2, 41, 56, 57, 59, 62, 101, 157, 257, 302, 319, 322, 425, 435, 462},
        ),
        (
            "aarch64",
            AARCH64,
            {57, 63, 64, 94, 222},
            {56, 117, 129, 167, 198, 220, 221, 261, 279, 281, 425, 435},
        ),
    ],
)
def test_the_filter(machine: str, arch: int, allowed: set[int], denied: set[int]):
    rules = filter_program(machine)
    passing = {number for number in range(1000) if decide(rules, number, arch) == ALLOW}
    assert allowed <= passing
    assert not denied & passing
    assert len(passing) == {"x86_64": 33, "aarch64": 32}[machine]
    assert {decide(rules, number, arch) for number in set(range(1000)) - passing} == {DENY}
    others = {X86_64, AARCH64, 0x40000003, 0x40000028} - {arch}
    assert {decide(rules, number, other) for number in range(100) for other in others} == {KILL}
    assert {decide(rules, 0x40000000 + number, arch) for number in range(100)} == {KILL}
    assert decide(rules, 0xFFFFFFFF, arch) == KILL
