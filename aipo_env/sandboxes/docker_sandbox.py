"""The sandbox in containers: fork servers behind Docker's wall, over the container's
own input and output.

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
    ENVIRONMENT,
    PYTHON,
    Connection,
    ForkServers,
    layers_down_to,
)

DEFAULT_IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
DEFAULT_HOST = "unix:///var/run/docker.sock"
CONNECT_S = 10.0
"""How long a local engine may take to accept a connection, in seconds."""

_LOCAL, _HEADER_BYTES = "unix://", 8


class DockerSandbox(ForkServers):
    """Needs a Docker engine and the extra "docker". gVisor's runtime is used where the
    engine has it.

    Args:
        image: One whose `python` is version 3.11 or newer; it is not pulled.
        minimum: The weakest layer inside the container that is good enough;
            "namespaces" there is none.
        memory_mb: MiB of memory, in all, of one container.

    Raises:
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
            is_gvisor = "runsc" in client.info()["Runtimes"]
        except ImportError:
            raise SandboxUnavailable(
                'docker is not installed: pip install "aipo-rl[docker]".'
            ) from None
        except (docker.errors.DockerException, OSError) as error:
            raise SandboxUnavailable(
                f"no Docker engine answers at {host}: {error}."
            ) from error
        options = {
            "image": image,
            "entrypoint": ["python"],
            "command": PYTHON,
            "environment": ENVIRONMENT,
            "user": "65534:65534",
            "working_dir": "/",
            "stdin_open": True,
            "auto_remove": True,
            "read_only": True,
            "network_mode": "none",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "ipc_mode": "none",
            "pids_limit": 64,
            "mem_limit": f"{memory_mb}m",
            "memswap_limit": f"{memory_mb}m",
            "log_config": {"type": "none"},
            **({"runtime": "runsc"} if is_gvisor else {}),
        }
        connect = partial(
            ContainerServer, client, options, docker.errors.DockerException
        )
        name = "docker-runsc" if is_gvisor else "docker"
        super().__init__(name, connect, layers_down_to(minimum)[1:], num_servers)


def _check_listening(host: str) -> None:
    """Raise SandboxUnavailable where nobody listens at a local address.

    An engine that was killed leaves its socket's file behind. The client library does
    not close its end when such a socket refuses, so it is not asked.
    """
    if not host.startswith(_LOCAL):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(host.removeprefix(_LOCAL))
        except OSError as error:
            raise SandboxUnavailable(
                f"no Docker engine answers at {host} ({error.strerror or error}). "
                "Start one, or set DOCKER_HOST."
            ) from None


class ContainerServer(Connection):
    """A server that is a container's only process, and the stream to it."""

    def __init__(
        self, client: Any, options: dict[str, Any], docker_error: type[Exception]
    ) -> None:
        try:
            self.container = client.containers.create(**options)
            stream = self.container.attach_socket(
                params={"stdin": 1, "stdout": 1, "stream": 1}
            )
            super().__init__(
                getattr(stream, "_sock", stream), _remove, self.container, stream
            )
            self.container.start()
        except docker_error as error:
            raise OSError(f"no container: {error}") from error
        self._left = 0

    def read(self, size: int, wait_s: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            if (
                not self._left
            ):  # output comes in chunks, each behind a header with its length
                self._left = int.from_bytes(
                    super().read(_HEADER_BYTES, wait_s)[4:], "big"
                )
            chunk = super().read(min(self._left, size - len(data)), wait_s)
            self._left -= len(chunk)
            data += chunk
        return bytes(data)


def _remove(container: Any, stream: Any) -> None:
    """End a container; it may be gone already, since it ends when nobody is
    attached.
    """
    with suppress(Exception):
        container.remove(force=True)
    with suppress(Exception):
        stream._sock.close()
        stream.close()
