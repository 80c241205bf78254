"""Fork servers: side by side, replaced, ended with their owner; what the strongest
layer offers; who is refused.
"""

import asyncio
import gc
import os
import platform
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from aipo_env import CodeTests, ConfigError, SandboxUnavailable, Task, run_sync
from aipo_env.sandboxes import fork_server, process, self_test
from aipo_env.sandboxes.base import Limits, Program, RunResult, Sandbox
from aipo_env.sandboxes.docker_sandbox import DockerSandbox
from aipo_env.sandboxes.process import BubblewrapSandbox, ProcessSandbox
from aipo_env.sandboxes.self_test import open_sandbox
from aipo_env.verifiers.unit_tests import CodeVerifier

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="the process sandbox needs Linux on x86-64 or aarch64",
)

SMALL = Limits(time_s=30.0, memory_mb=64, output_bytes=100_000)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    made = ProcessSandbox()
    yield made
    made.close()


@pytest.fixture(scope="module")
def namespaces() -> Iterator[ProcessSandbox]:
    try:
        made = ProcessSandbox("namespaces")
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    yield made
    made.close()


def run(
    sandbox: Sandbox, source: str, limits: Limits = SMALL, stdin: bytes = b""
) -> RunResult:
    return run_sync(sandbox.run(Program(source, stdin), limits))


# Side by side


def test_programs_run_side_by_side(sandbox: ProcessSandbox):
    async def many() -> list[RunResult]:
        sources = [Program(f"print({number})") for number in range(12)]
        return await asyncio.gather(*(sandbox.run(source, SMALL) for source in sources))

    assert [result.stdout for result in asyncio.run(many())] == [
        f"{n}\n".encode() for n in range(12)
    ]


def test_event_loops_and_threads_share_a_sandbox(sandbox: ProcessSandbox):
    outputs: dict[int, bytes] = {}

    def work(number: int) -> None:
        outputs[number] = asyncio.run(
            sandbox.run(Program(f"print({number})"), SMALL)
        ).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {n: f"{n}\n".encode() for n in range(6)}


FORKED = """
import os, sys
from aipo_env import run_sync
from aipo_env.sandboxes.base import Limits, Program
from aipo_env.sandboxes.docker_sandbox import DockerSandbox
from aipo_env.sandboxes.process import ProcessSandbox

sandbox = ProcessSandbox()
def answer(n):
    import asyncio
    return asyncio.run(sandbox.run(Program(f"print({n})"), Limits(time_s=30))).stdout
before = answer(1)
if not (child := os.fork()):
    os._exit(0 if answer(2) == b"2\\n" else 1)
print(before, os.waitpid(child, 0)[1], answer(3))
"""


def test_a_forked_process_gets_servers_of_its_own():
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=False
    )
    assert done.stdout == "b'1\\n' 0 b'3\\n'\n", done.stderr


# Ended and replaced


def servers() -> set[int]:
    """Processes of ours that are fork servers."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            ours = (
                int(place.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                == os.getpid()
            )
            if ours and b"import marshal" in place.joinpath("cmdline").read_bytes():
                found.add(int(place.name))
        except OSError:
            continue
    return found


def below(number: int) -> set[int]:
    """A process and its descendants."""
    found, parents = {number}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int(
                place.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            )
        except OSError:
            continue
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def await_end(numbers: set[int]) -> None:
    deadline = time.monotonic() + 20
    for number in numbers:
        status = Path("/proc", str(number), "stat")
        while (
            status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("layer", "num_processes"), [("namespaces", 4), ("seccomp", 3)]
)
def test_a_cancelled_run_is_killed_and_its_server_replaced(
    layer: str, num_processes: int
):
    known = servers()
    try:
        sandbox = ProcessSandbox(layers=(layer,))
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    (mine,) = servers() - known

    async def cancelled() -> set[int]:
        work = asyncio.create_task(
            sandbox.run(Program("while True: pass"), Limits(time_s=60))
        )
        while len(tree := below(mine)) < num_processes:
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return tree

    await_end(asyncio.run(cancelled()))
    assert run(sandbox, "print(1)").stdout == b"1\n"
    sandbox.close()


DYING_OWNER = """
import asyncio, os, sys
from pathlib import Path
from aipo_env.sandboxes.base import Limits, Program
from aipo_env.sandboxes.docker_sandbox import DockerSandbox
from aipo_env.sandboxes.process import ProcessSandbox

async def main():
    sandbox = ProcessSandbox(layers=(sys.argv[1],))
    program = Program("import time; time.sleep(60)")
    asyncio.create_task(sandbox.run(program, Limits(time_s=60)))
    children = lambda pid: Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    tree = [str(os.getpid())]
    while len(tree) < 5 - (sys.argv[1] != "namespaces"):
        await asyncio.sleep(0.01)
        tree = tree[:1]
        for pid in tree:
            tree += children(pid)
    print(*tree[1:], flush=True)
    os._exit(9)

asyncio.run(main())
"""


@pytest.mark.parametrize("layer", ["namespaces", "landlock", "seccomp"])
def test_a_program_dies_with_the_owner(layer: str):
    try:
        ProcessSandbox(layers=(layer,)).close()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, "-c", DYING_OWNER, layer],
        capture_output=True,
        text=True,
        check=False,
    )
    numbers = {int(number) for number in done.stdout.split()}
    assert len(numbers) >= 3, done.stderr
    await_end(numbers)


def test_a_server_is_replaced_after_many_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fork_server, "MAX_RUNS", 2)
    known = servers()
    sandbox = ProcessSandbox()
    seen = [
        servers() - known for _ in range(4) if run(sandbox, "print(1)").status == "ok"
    ]
    first, second, third, fourth = seen
    assert len(first) == len(third) == 1
    assert (second, fourth) == (set(), set())
    assert first != third
    sandbox.close()


def test_a_closed_sandbox_leaves_nothing_and_starts_anew():
    known = servers()
    sandbox = ProcessSandbox()
    mine = servers() - known
    assert len(mine) == 1
    sandbox.close()
    assert not servers() & mine
    assert run(sandbox, "print(1)").stdout == b"1\n"
    sandbox.close()


def test_three_failures_in_a_row_are_no_chance(monkeypatch: pytest.MonkeyPatch):
    sandbox = ProcessSandbox()
    monkeypatch.setattr(fork_server, "PYTHON", [])
    started = []

    def broken() -> fork_server.Connection:
        started.append(1)
        raise OSError("no more processes")

    connect, sandbox._connect = sandbox._connect, broken
    sandbox.close()
    for _ in range(2):
        result = run(sandbox, "print(1)")
        assert (result.status, result.stdout) == ("infra_error", b"")
        assert result.reason == "the fork server is gone: no more processes"
    with pytest.raises(
        SandboxUnavailable,
        match="failed 3 times in a row, at last: .*no more processes",
    ):
        run(sandbox, "print(1)")
    assert len(started) == 3
    sandbox._connect = connect
    assert run(sandbox, "print(1)").stdout == b"1\n"
    sandbox.close()


def test_a_server_that_dies_under_a_run_is_an_infra_error(sandbox: ProcessSandbox):
    async def killed() -> RunResult:
        work = asyncio.create_task(
            sandbox.run(Program("while True: pass"), Limits(time_s=60))
        )
        while not (busy := [n for n in servers() if len(below(n)) >= 3]):
            await asyncio.sleep(0.01)
        os.kill(busy[0], 9)
        return await work

    assert asyncio.run(killed()).status == "infra_error"
    assert run(sandbox, "print(1)").stdout == b"1\n"


# Locked up for good. The filter allows all here, so that what else a program has lost
# can be asked for.

LOCKED = """
import ctypes, os, struct
from aipo_env.sandboxes import child
ALLOW_ALL = struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000)
child.lock(ALLOW_ALL, os.getppid(), 60, {})
capabilities = ctypes.create_string_buffer(b"x" * 24, 24)
child.libc.capget(struct.pack("=Ii", 0x20080522, 0), capabilities)
has_none = capabilities.raw == bytes(24)
print(has_none, child.libc.prctl(3), child.libc.prctl(39, 0, 0, 0, 0))
"""

ORPHAN = """
import os, struct, time
from aipo_env.sandboxes import child
heard, said = os.pipe()
if not os.fork():
    parent = os.getpid()
    if not os.fork():
        while os.getppid() == parent:
            time.sleep(0.01)
        try:
            child.lock(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000), parent, 60, {})
        except OSError as error:
            os.write(said, str(error).encode())
    os._exit(0)
os.close(said)
print(os.read(heard, 100).decode())
"""


@pytest.mark.parametrize(
    ("script", "output"),
    [(LOCKED, "True 0 1\n"), (ORPHAN, "the parent is gone\n")],
    ids=["locked", "orphan"],
)
def test_a_locked_process_has_no_rights_no_core_dump_and_no_life_of_its_own(
    script: str, output: str
):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == output, done.stderr


def test_memory_advice_is_in_no_filter():
    assert not any(
        "madvise" in group
        for calls in fork_server.tables().values()
        for group in calls.values()
        if isinstance(group, dict)
    )


# Nothing of one program is left for the next

SCAN = """
import ctypes, os
libc = ctypes.CDLL(None)
libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
libc.sbrk.restype = ctypes.c_void_p
page = 4096
for middle in (id(object()), id(libc), libc.sbrk(0), id(os.__doc__)):
    first = middle // page * page - 2**25
    for place in range(first, first + 2**26, page):
        libc.write(1, place, page)
"""


def test_memory_holds_nothing_of_earlier_programs(sandbox: ProcessSandbox):
    token = os.urandom(20).hex().encode()
    for _ in range(3):
        assert run(sandbox, "print(input() * 50)", stdin=token).stdout.startswith(token)
    dump = run(
        sandbox, SCAN, Limits(time_s=60.0, memory_mb=512, output_bytes=2**29)
    ).stdout
    assert b"never sees one itself" in dump  # what the server knows is found
    assert token not in dump


def test_scratch_files_are_gone_at_the_next_run(namespaces: ProcessSandbox):
    state = (
        "import os\ns = os.stat('.')\nprint(os.getcwd(), os.listdir('.'), s.st_mtime,"
        " s.st_mode, os.listdir('/'))"
    )
    clean = run(namespaces, state).stdout
    assert clean.startswith(b"/tmp [] 0.0")
    leave = (
        "import os\nos.mkdir('a')\nos.mkdir('a/b')\nopen('a/b/c', 'w').write('x' *"
        " 10**6)\nopen('/tmp/d', 'w')"
    )
    assert (
        run(namespaces, leave + "\nprint(sorted(os.listdir('.')))").stdout
        == b"['a', 'd']\n"
    )
    assert run(namespaces, state).stdout == clean
    assert run(namespaces, "open('x', 'w')\nimport os\nos.remove('x')").status == "ok"
    assert run(namespaces, state).stdout == clean


@pytest.mark.parametrize(
    "source",
    [
        "open('x', 'wb').write(bytes(2**22))",
        "for n in range(100): open(str(n), 'wb').write(bytes(2**18))",
        (
            "import os\nfor n in range(10**6): os.close(os.open(str(n), os.O_CREAT |"
            " os.O_WRONLY))"
        ),
        "import os\nfor n in range(10**6): os.mkdir('a'); os.rename('a', str(n))",
        "import os\nos.symlink('/etc/passwd', 'x')",
        "import os\nopen('y', 'w')\nos.link('y', 'x')",
        "import os\nos.mkfifo('x')",
        "import os\nos.mknod('x', 0o20666, 0x101)",
        "import os\nos.chmod('/tmp', 0)",
        "import os\nos.utime('/tmp', (1, 1))",
        "open('/x', 'w')",
        "import os\nos.mkdir('/x')",
        "import os, random\nos.remove(random.__file__)",
    ],
)
def test_scratch_is_limited(namespaces: ProcessSandbox, source: str):
    limits = Limits(time_s=60.0, disk_bytes=2**21, memory_mb=64)
    result = run(namespaces, source, limits)
    assert result.status == "runtime_error", result
    assert b"OSError" in result.stderr or b"PermissionError" in result.stderr
    assert (
        run(namespaces, "open('x', 'wb').write(bytes(2**20))\nprint(1)", limits).stdout
        == b"1\n"
    )


COUNT = """
import threading, time
event, count = threading.Event(), 1
try:
    for _ in range(20):
        threading.Thread(target=event.wait).start()
        count += 1
except RuntimeError:
    pass
event.set()
print(count)
"""


def test_threads_and_processes_are_counted(namespaces: ProcessSandbox):
    for processes in (1, 2, 4):
        limits = Limits(time_s=30.0, memory_mb=512, processes=processes)
        assert run(namespaces, COUNT, limits).stdout == b"%d\n" % processes
    fork = (
        "import os\npid = os.fork()\nif not pid:"
        " os._exit(7)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert run(namespaces, fork, Limits(time_s=30.0, processes=2)).stdout == b"7\n"


RECURSION = """
import sys, threading
def depth(n):
    return n and depth(n - 1) + 1
def main():
    print(depth(int(input())))
sys.setrecursionlimit(10 ** 7)
threading.stack_size(2 ** 28)
thread = threading.Thread(target=main)
thread.start()
thread.join()
"""


def test_threads_of_one_process_are_counted_and_start_none(namespaces: ProcessSandbox):
    for threads in (1, 2, 4):
        limits = Limits(time_s=30.0, memory_mb=512, threads=threads)
        assert run(namespaces, COUNT, limits).stdout == b"%d\n" % threads
    limits = Limits(time_s=30.0, memory_mb=512, threads=8)
    assert run(namespaces, RECURSION, limits, b"50000").stdout == b"50000\n"
    pool = (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2)"
        " as pool:\n    print(sum(pool.map(int, '123')))"
    )
    assert run(namespaces, pool, limits).stdout == b"6\n"
    fork = run(namespaces, "import os\nprint(os.fork())", limits)
    assert (fork.stdout, fork.status) == (b"", "runtime_error")
    # Together they have the memory of one.
    greedy = (
        "import threading\ndef take():\n    held.append(bytearray(2 ** 28))\nheld ="
        " []\nthreads = [threading.Thread(target=take) for _ in range(4)]\nfor t in"
        " threads: t.start()\nfor t in threads: t.join()\nprint(len(held))"
    )
    assert run(namespaces, greedy, limits).stdout in (b"0\n", b"1\n")


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    absent = {"numpy": ["no_such_module"]}
    monkeypatch.setattr(fork_server, "package_modules", lambda: absent)
    made = ProcessSandbox()
    result = run_sync(made.run(Program("print(1)", packages=("numpy",)), SMALL))
    made.close()
    assert result.status == "infra_error"
    assert "the package numpy is granted to programs" in result.reason


@pytest.mark.parametrize(
    "source",
    [
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "import os\nif not os.fork():\n    while True: pass\nos.closerange(0, 3)",
        (
            "import os\nif os.fork(): os._exit(0)\nif os.fork(): os._exit(0)\nwhile"
            " True: pass"
        ),
        (
            "import os, threading, time\nthreading.Thread(target=time.sleep,"
            " args=(60,)).start()"
        ),
    ],
)
def test_what_a_program_started_ends_with_it(namespaces: ProcessSandbox, source: str):
    limits = Limits(time_s=1.0, processes=4)
    result = run(namespaces, source, limits)
    assert result.status in ("timeout", "ok"), result
    assert (
        run(namespaces, COUNT, Limits(time_s=30.0, memory_mb=512, processes=4)).stdout
        == b"4\n"
    )


def test_new_namespaces_are_no_way_out(namespaces: ProcessSandbox):
    source = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nNUMBER = {'x86_64':"
        " 56}.get('MACHINE', 220)\n"
    )
    source += (
        "for flag in (0x10000000, 0x20000, 0x8000, 0x2000):\n    libc.syscall(NUMBER,"
        " flag | 17, None, None, None, None)\n    print(ctypes.get_errno())"
    )
    result = run(
        namespaces,
        source.replace("MACHINE", platform.machine()),
        Limits(time_s=30.0, processes=4),
    )
    assert result.stdout == b"1\n1\n1\n1\n"


# Refusing


def test_a_sandbox_that_holds_is_opened():
    sandbox = run_sync(open_sandbox("process"))
    assert isinstance(sandbox, Sandbox)
    assert run_sync(open_sandbox("process")) is sandbox
    with pytest.raises(
        ConfigError, match="there is no 'proces'.*Did you mean 'process'"
    ):
        run_sync(open_sandbox("proces"))
    with pytest.raises(
        ConfigError, match="there is no layer 'seccom'.*Did you mean 'seccomp'"
    ):
        run_sync(open_sandbox("process:minimum=seccom"))
    with pytest.raises(ConfigError, match="there is no option 'image'"):
        run_sync(open_sandbox("process:python"))


def leaky(monkeypatch: pytest.MonkeyPatch) -> ProcessSandbox:
    """A sandbox whose filter lets signals through."""
    tables = fork_server.tables()
    for calls in tables.values():
        calls["seccomp"] |= {"kill": 62 if calls["arch"] == 3221225534 else 129}
    monkeypatch.setattr("aipo_env.sandboxes.seccomp.tables", lambda: tables)
    return ProcessSandbox(layers=("seccomp",))


def test_a_sandbox_that_leaks_is_refused(monkeypatch: pytest.MonkeyPatch):
    sandbox = leaky(monkeypatch)
    with pytest.raises(
        SandboxUnavailable, match=r"signal the parent \(got through\)"
    ) as refusal:
        run_sync(self_test.self_test(sandbox))
    assert "run an honest program" not in str(refusal.value)


def test_a_set_up_that_fails_is_no_result_of_the_program(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(fork_server, "filter_program", lambda *_: b"\0" * 8)
    broken = ProcessSandbox(layers=("seccomp",))
    result = run(broken, "print(1)")
    assert (result.status, result.stdout) == ("infra_error", b"")
    assert (
        result.reason
        == "the process could not lock itself up: OSError: [Errno 22] prctl of the"
        " filter: Invalid argument"
    )
    with pytest.raises(SandboxUnavailable, match="failed .* times in a row"):
        run_sync(self_test.self_test(broken))


def test_a_layer_that_cannot_be_set_up_gives_way_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
):
    source = fork_server._sources()
    cripple = source.replace(b"check(libc.unshare(", b"check(-1 + 0*(     ")
    assert cripple != source
    assert len(cripple) == len(source)
    monkeypatch.setattr(fork_server, "_sources", lambda: cripple)
    sandbox = ProcessSandbox()
    assert sandbox.layer in ("landlock", "seccomp")
    sandbox.close()
    with pytest.raises(
        SandboxUnavailable,
        match="no sandbox .process. can be set up here: namespaces: OSError",
    ):
        ProcessSandbox("namespaces")


def test_only_the_user_can_ask_for_no_sandbox(monkeypatch: pytest.MonkeyPatch):
    def refuse(*options: object) -> ProcessSandbox:
        raise SandboxUnavailable("nothing holds here.")

    monkeypatch.setattr(self_test, "SANDBOXES", {"process": refuse, "docker": refuse})
    monkeypatch.setattr(self_test, "_OPEN", {})
    with pytest.raises(SandboxUnavailable, match="nothing holds here"):
        asyncio.run(open_sandbox())
    sandbox = asyncio.run(open_sandbox(allow_unsafe=True))
    result = asyncio.run(
        sandbox.run(Program("import os\nprint(os.getpid() > 0)"), SMALL)
    )
    assert (result.status, result.stdout, result.layer) == ("ok", b"True\n", "none")
    task = Task(
        id="t",
        prompt="?",
        answer="",
        kind="code",
        tests=CodeTests(hidden=({"input": "", "output": "1"},)),
    )
    verdict = asyncio.run(
        CodeVerifier(sandbox).verify(task, "```python\nprint(1)\n```")
    )
    assert (verdict.status, verdict.isolation) == ("correct", "none")
    sandbox.close()


def test_other_systems_and_machines_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process.platform, "machine", lambda: "riscv64")
    with pytest.raises(
        SandboxUnavailable, match="x86_64 and aarch64, not of 'riscv64'"
    ):
        ProcessSandbox()
    monkeypatch.setattr(process.sys, "platform", "plan9")
    with pytest.raises(
        SandboxUnavailable, match="the process sandbox needs Linux, this is plan9"
    ):
        ProcessSandbox()


# Bubblewrap


def test_bubblewrap_holds_or_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    try:
        sandbox = BubblewrapSandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    run_sync(self_test.self_test(sandbox))
    result = run(sandbox, "print(6 * 7)")
    assert (result.status, result.stdout) == ("ok", b"42\n")
    assert result.layer in ("bubblewrap+landlock", "bubblewrap+seccomp")
    sandbox.close()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="bubblewrap is not installed"):
        BubblewrapSandbox()


def test_docker_without_an_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(
        SandboxUnavailable,
        match="no Docker engine answers at unix://.*Start one, or set DOCKER_HOST",
    ):
        DockerSandbox()


def test_docker_whose_engine_was_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    pytest.importorskip("docker")
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(
            SandboxUnavailable, match=r"stale\.sock \(Connection refused\)\. Start one"
        ):
            DockerSandbox()
        gc.collect()
    assert not [one for one in seen if one.category is ResourceWarning]
