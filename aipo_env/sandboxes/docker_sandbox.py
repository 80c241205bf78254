"""The sandbox in containers: fork servers behind Docker's wall.

They are talked to over the container's own input and output.
The container has no network, no capabilities, nothing it may write to, a total of
memory and processes, and nobody's rights. It is kept for many programs, and replaced
when anything about it failed.
"""

import os
import socket
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

from aipo_env.errors import SandboxUnavailable
from aipo_env.sandboxes.base import LAYERS
from aipo_env.sandboxes.fork_server import (
    PROGRAM_ENVIRONMENT,
    PYTHON,
    Connection,
    ForkServers,
    layers_down_to,
)

DEFAULT_IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
DEFAULT_HOST = "unix:///var/run/docker.sock"
PROBE_S = 10.0
"""How long a local engine may take to accept a connection, in seconds."""

_LOCAL = "unix://"
"""How the address of an engine on this machine begins."""
_HEADER_BYTES = 8
"""What Docker writes ahead of every chunk of output: one byte that says which output,
three of padding, and the length of the chunk.
"""
_LENGTH_OFFSET = 4
"""Where in the header the length stands, in the other four bytes, big-endian."""
_GVISOR = "runsc"
"""The name of gVisor's runtime, a kernel in user space."""
_MAX_PROCESSES = 64
"""In a container, and so also a bound on what a program may start."""
_NOBODY = "65534:65534"
"""The user and the group without rights."""


class DockerSandbox(ForkServers):
    """A sandbox of containers; needs a Docker engine and the extra "docker".

    gVisor's runtime is used where the engine has it.

    Args:
        image: One whose `python` is version 3.11 or newer; it is not pulled.
        minimum: The weakest layer inside the container that is good enough;
            "namespaces" there is none.
        memory_mb: MiB of memory, in all, of one container.
        num_servers: Containers at once; 0: as many as there are cores.

    Raises:
        ConfigError: There is no such layer.
        SandboxUnavailable: No engine answers, there is no such image, or nothing holds
            in it.
    """

    def __init__(
        self,
        image: str = DEFAULT_IMAGE,
        minimum: str = LAYERS[-1],
        memory_mb: int = 2048,
        num_servers: int = 0,
    ) -> None:
        host = os.environ.get("DOCKER_HOST", DEFAULT_HOST)
        _check_listening(host)
        try:
            docker = import_module("docker")
            client = docker.from_env()
            is_gvisor = _GVISOR in client.info()["Runtimes"]
        except ImportError:
            raise SandboxUnavailable(
                'docker is not installed: pip install "aipo-rl[docker]".'
            ) from None
        except (docker.errors.DockerException, OSError) as error:
            raise SandboxUnavailable(
                f"no Docker engine answers at {host}: {error}."
            ) from error
        options: dict[str, Any] = {
            "image": image,
            "entrypoint": ["python"],
            "command": PYTHON,
            "environment": PROGRAM_ENVIRONMENT,
            "user": _NOBODY,
            "working_dir": "/",
            "stdin_open": True,
            # The engine removes it even where this process is killed.
            "auto_remove": True,
            "read_only": True,
            "network_mode": "none",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "ipc_mode": "none",
            "pids_limit": _MAX_PROCESSES,
            "mem_limit": f"{memory_mb}m",
            # Of memory and swap together: the same number leaves no swap.
            "memswap_limit": f"{memory_mb}m",
            # Or the engine would keep all output in a file.
            "log_config": {"type": "none"},
        }
        name = "docker"
        if is_gvisor:
            name = "docker-runsc"
            options["runtime"] = _GVISOR
        connect = partial(
            ContainerServer, client, options, docker.errors.DockerException
        )
        layers = layers_down_to(minimum)[1:]  # the container is the strongest
        super().__init__(name, connect, layers, num_servers)


def _check_listening(host: str) -> None:
    """Raise SandboxUnavailable where nobody listens at a local address.

    An engine that was killed leaves its socket's file behind. The client library does
    not close its end when such a socket refuses, so it is not asked.
    """
    if not host.startswith(_LOCAL):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(host.removeprefix(_LOCAL))
        except OSError as error:
            raise SandboxUnavailable(
                f"no Docker engine answers at {host} ({error.strerror or error}). "
                "Start one, or set DOCKER_HOST."
            ) from None


class ContainerServer(Connection):
    """A server that is a container's only process, and the stream to it.

    Args:
        client: Docker's.
        options: What the container is made with.
        docker_error: Docker's exception, which is imported where it is needed.

    Raises:
        OSError: The engine makes or starts no container.
    """

    def __init__(
        self, client: Any, options: dict[str, Any], docker_error: type[Exception]
    ) -> None:
        try:
            self.container = client.containers.create(**options)
            # Attached before the start, or the first of the output would be lost.
            stream = self.container.attach_socket(
                params={"stdin": 1, "stdout": 1, "stream": 1}
            )
            # Over a local socket the library wraps the socket, over TLS it does not.
            channel = getattr(stream, "_sock", stream)
            super().__init__(channel, _remove, self.container, stream)
            self.container.start()
        except docker_error as error:
            raise OSError(f"no container: {error}") from error
        self._num_left = 0
        """Bytes still to come of the chunk whose header was read last."""

    def read(self, size: int, wait_s: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            # The engine cuts the output into chunks wherever it likes: one may end in
            # the middle of a message, or hold several.
            if not self._num_left:
                header = super().read(_HEADER_BYTES, wait_s)
                self._num_left = int.from_bytes(header[_LENGTH_OFFSET:], "big")
            num_bytes = min(self._num_left, size - len(data))
            chunk = super().read(num_bytes, wait_s)
            self._num_left -= len(chunk)
            data += chunk
        return bytes(data)


def _remove(container: Any, stream: Any) -> None:
    """End a container, which may be gone already."""
    # It also ends by itself, when nobody is attached to it any more. Nothing that goes
    # wrong here is of use to anybody: this may run while the interpreter ends.
    with suppress(Exception):
        container.remove(force=True)
    with suppress(Exception):
        stream._sock.close()
        stream.close()
