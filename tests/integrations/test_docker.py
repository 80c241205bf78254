"""The sandbox in containers, on a real engine.

AIPO_DOCKER_IMAGE names an image that the engine has; without it, one is made of this
interpreter.
"""

import asyncio
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from aipo_env import SandboxUnavailable, run_sync
from aipo_env.sandboxes import fork_server
from aipo_env.sandboxes.base import Limits, Program, RunResult
from aipo_env.sandboxes.docker_sandbox import DockerSandbox
from aipo_env.sandboxes.self_test import open_sandbox, self_test

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.slow,
    # The Docker library leaves the responses of attached containers to the garbage
    # collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SMALL = Limits(time_s=30.0, memory_mb=64, output_bytes=100_000)
ATTACKS = json.loads((Path(__file__).parents[1] / "env/data/attacks.json").read_text())
CTYPES = (
    (Path(__file__).parents[1] / "env/data" / "attack_prelude.txt")
    .read_text()
    .replace("MACHINE", repr(platform.machine()))
)
NOT_NEEDED = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "ensurepip",
    "__pycache__",
}


@cache
def image() -> str:
    """An image with a `python`: the one asked for, or this interpreter with its library
    and what it links to.
    """
    if name := os.environ.get("AIPO_DOCKER_IMAGE"):
        return name
    import docker

    folder, program = Path(os.__file__).parent, Path(sys.executable).resolve()
    linked = subprocess.run(
        ["ldd", program, *folder.glob("lib-dynload/*.so")],
        capture_output=True,
        text=True,
        check=True,
    )
    libraries = set(re.findall(r"(?<=\s)/[^\s:]+(?= \()", linked.stdout))
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", dereference=True) as archive:
        archive.add(
            folder,
            filter=lambda entry: (
                None if NOT_NEEDED & set(Path(entry.name).parts) else entry
            ),
        )
        for path in (program, *libraries):
            archive.add(path)
        link = tarfile.TarInfo("usr/local/bin/python")
        link.type, link.linkname = tarfile.SYMTYPE, str(program)
        archive.addfile(link)
    client = docker.from_env()
    client.api.import_image_from_data(
        stream.getvalue(), repository="aipo-test-python", tag="latest"
    )
    client.close()
    return "aipo-test-python:latest"


# Inside a container these name what is the container's own.
HARMLESS = {"stat a path", "exists", "readlink"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[DockerSandbox]:
    try:
        made = DockerSandbox("no-such-image", num_servers=1)
    except SandboxUnavailable as error:
        if "No such image" not in str(error):
            pytest.skip(str(error))
    made = DockerSandbox(image(), num_servers=1)
    yield made
    made.close()


def run(
    sandbox: DockerSandbox,
    source: str,
    limits: Limits = SMALL,
    stdin: bytes = b"",
    entry: str = "",
) -> RunResult:
    return run_sync(sandbox.run(Program(source, stdin, entry), limits))


def containers() -> list[dict[str, object]]:
    """The engine's account of every container of the image."""
    import docker

    client = docker.from_env()
    # One may go while they are listed.
    listed = client.containers.list(
        all=True, filters={"ancestor": image()}, ignore_removed=True
    )
    client.close()
    return [container.attrs for container in listed]


def test_programs_run_and_end_as_elsewhere(sandbox: DockerSandbox):
    result = run(sandbox, "print(6 * 7)")
    assert (result.status, result.stdout, result.stderr) == ("ok", b"42\n", b"")
    assert result.layer in ("docker+landlock", "docker+seccomp", "docker-runsc+seccomp")
    assert run(sandbox, "while True: pass", Limits(time_s=0.3)).status == "timeout"
    assert run(sandbox, "while True: print(1)").status == "output_limit"
    assert run(sandbox, "x = [0] * 10 ** 10").status == "memory"
    assert run(sandbox, "x = (").status == "compile_error"
    assert run(sandbox, "import sys\nsys.exit(3)").exit_code == 3
    big = b"\x00\xff\n" * 10**6
    limits = Limits(time_s=30.0, memory_mb=64, output_bytes=2**22)
    assert (
        run(
            sandbox,
            "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())",
            limits,
            big,
        ).stdout
        == big
    )
    assert (
        run(sandbox, "def f(x): return x + 1", stdin=b"[1]", entry="f").stdout
        == b'{"int": "0x2"}'
    )


def test_it_passes_its_self_test(sandbox: DockerSandbox):
    run_sync(self_test(sandbox))


def test_an_attack_says_when_a_call_is_let_through(sandbox: DockerSandbox):
    assert run(sandbox, CTYPES + "entered(libc.getpid)").stdout == b"through\n"


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - HARMLESS))
def test_an_attack_is_held_and_the_next_run_is_right(sandbox: DockerSandbox, name: str):
    source = (
        ATTACKS[name]
        .replace("PARENT", "1")
        .replace("FOLDER", "/tmp")
        .replace("CTYPES\n", CTYPES)
    )
    result = run(sandbox, source)
    assert b"through" not in result.stdout, result
    assert result.status in ("ok", "runtime_error"), result
    assert not re.search(rb"NameError|SyntaxError", result.stderr), (
        "the attack never began"
    )
    assert run(sandbox, "print(1)").stdout == b"1\n"


def test_the_container_is_hardened(sandbox: DockerSandbox):
    run(sandbox, "print(1)")
    (attributes,) = containers()
    host = attributes["HostConfig"]
    assert isinstance(host, dict)
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == (
        "none",
        True,
        ["ALL"],
    )
    assert (host["PidsLimit"], host["Memory"], host["MemorySwap"]) == (64, 2**31, 2**31)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert not host["Privileged"]
    assert not host["Binds"]


def test_a_container_is_replaced_after_many_runs_and_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(fork_server, "MAX_RUNS", 2)
    try:
        sandbox = DockerSandbox(image(), num_servers=1)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    seen = []
    for _ in range(3):
        assert run(sandbox, "print(1)").stdout == b"1\n"
        seen.append(
            {server.container.id for server in sandbox._servers if server.kill.alive}
        )
    assert [len(ids) for ids in seen] == [1, 0, 1]
    assert not seen[0] & seen[2]
    sandbox._idle[()][0].kill()
    assert run(sandbox, "print(1)").status == "infra_error"
    assert run(sandbox, "print(1)").stdout == b"1\n"
    sandbox.close()


def test_a_cancelled_run_ends_its_container(sandbox: DockerSandbox):
    async def cancelled() -> None:
        work = asyncio.create_task(
            sandbox.run(Program("while True: pass"), Limits(time_s=300))
        )
        await asyncio.sleep(1)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    before = {attributes["Id"] for attributes in containers()}
    asyncio.run(cancelled())
    assert run(sandbox, "print(1)").stdout == b"1\n"
    assert not before & {attributes["Id"] for attributes in containers()}


OWNER = """
import os, sys
from aipo_env.sandboxes.docker_sandbox import DockerSandbox
sandbox = DockerSandbox(sys.argv[1], num_servers=1)
print(sandbox._idle[()][0].container.id, flush=True)
os._exit(9)
"""


def test_a_container_ends_with_its_owner(sandbox: DockerSandbox):
    done = subprocess.run(
        [sys.executable, "-c", OWNER, image()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(done.stdout.strip()) == 64, done.stderr
    deadline = time.monotonic() + 30
    while done.stdout.strip() in {attributes["Id"] for attributes in containers()}:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_image_that_is_not_there(sandbox: DockerSandbox):
    with pytest.raises(SandboxUnavailable, match="No such image"):
        run_sync(open_sandbox("docker:aipo-no-such-image:0"))
