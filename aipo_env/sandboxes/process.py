"""Sandboxes of this machine: the fork servers are its own processes, alone or behind
bubblewrap.
"""

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from aipo_env.errors import SandboxUnavailable
from aipo_env.sandboxes.base import LAYERS
from aipo_env.sandboxes.fork_server import (
    ENVIRONMENT,
    PYTHON,
    Connection,
    ForkServers,
    layers_down_to,
)
from aipo_env.sandboxes.seccomp import filter_program


class ProcessSandbox(ForkServers):
    """Needs no privileges and nothing installed.

    Args:
        minimum: The weakest layer that is good enough.

    Raises:
        SandboxUnavailable: This is not Linux on x86-64 or aarch64, or no layer can be
            set up.
    """

    def __init__(
        self, minimum: str = LAYERS[-1], *, layers: Sequence[str] = ()
    ) -> None:
        _check_machine("process")
        connect = partial(LocalServer, [sys.executable, *PYTHON])
        super().__init__("", connect, layers or layers_down_to(minimum))


class BubblewrapSandbox(ForkServers):
    """Behind bubblewrap's wall, which shows the program's of the system; the layer
    inside leaves Python's library.

    Raises:
        SandboxUnavailable: There is no bubblewrap, or it cannot make namespaces here.
    """

    def __init__(self, minimum: str = LAYERS[-1]) -> None:
        _check_machine("bubblewrap")
        if not (program := shutil.which("bwrap")):
            raise SandboxUnavailable(
                "bubblewrap is not installed: its program is bwrap."
            )
        wall = (
            f"{program} --unshare-all --die-with-parent --new-session --cap-drop ALL"
            " --proc /proc".split()
        )
        python = os.path.realpath(sys.executable)
        for folder in (
            "/usr",
            "/lib",
            "/lib64",
            "/bin",
            sys.base_prefix,
            os.path.dirname(sys.executable),
        ):
            wall += ["--ro-bind-try", folder, folder]
        layers = layers_down_to(minimum)[1:]  # the wall is the strongest
        super().__init__(
            "bubblewrap", partial(LocalServer, [*wall, python, *PYTHON]), layers
        )


class LocalServer(Connection):
    """A server that is a process of this machine, and the socket to it."""

    def __init__(self, command: Sequence[str]) -> None:
        mine, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        super().__init__(mine, _end, self.process, mine)


def _end(process: "subprocess.Popen[bytes]", channel: socket.socket) -> None:
    process.kill()
    process.wait()
    channel.close()


def _check_machine(name: str) -> None:
    if sys.platform != "linux":
        raise SandboxUnavailable(
            f"the {name} sandbox needs Linux, this is {sys.platform}."
        )
    filter_program(platform.machine())
