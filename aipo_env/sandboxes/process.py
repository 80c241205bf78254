"""Sandboxes of this machine: fork servers as its processes, alone or in bubblewrap."""

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from aipo_env.errors import SandboxUnavailable
from aipo_env.records import GRANTABLE
from aipo_env.sandboxes.base import LAYERS
from aipo_env.sandboxes.fork_server import (
    PROGRAM_ENVIRONMENT,
    PYTHON,
    Connection,
    ForkServers,
    layers_down_to,
    package_folder,
)
from aipo_env.sandboxes.seccomp import filter_program


class ProcessSandbox(ForkServers):
    """Needs no privileges and nothing installed.

    Args:
        minimum: The weakest layer that is good enough.
        layers: What to try instead, strongest first; "none" is no sandbox.

    Raises:
        ConfigError: There is no such layer.
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
    """Fork servers behind bubblewrap's wall.

    The wall shows the programs of the system; the layer inside leaves of them Python's
    library.

    Args:
        minimum: The weakest layer inside the wall that is good enough; "namespaces"
            there is none.

    Raises:
        ConfigError: There is no such layer.
        SandboxUnavailable: There is no bubblewrap, or it cannot make namespaces here.
    """

    def __init__(self, minimum: str = LAYERS[-1]) -> None:
        _check_machine("bubblewrap")
        program = shutil.which("bwrap")
        if not program:
            raise SandboxUnavailable(
                "bubblewrap is not installed: its program is bwrap."
            )
        # The path of the file itself: a virtual environment's is a link.
        python = os.path.realpath(sys.executable)
        command = [*_wall(program), python, *PYTHON]
        layers = layers_down_to(minimum)[1:]  # the wall is the strongest
        super().__init__("bubblewrap", partial(LocalServer, command), layers)


def _wall(program: str) -> list[str]:
    """Return the command of bubblewrap, up to what is run behind it."""
    wall = [program, "--unshare-all", "--die-with-parent", "--new-session"]
    wall += ["--cap-drop", "ALL", "--proc", "/proc"]
    folders = [
        # What the interpreter is linked with.
        "/usr",
        "/lib",
        "/lib64",
        "/bin",
        # The interpreter and its library.
        sys.base_prefix,
        os.path.dirname(sys.executable),
    ]
    for name in GRANTABLE:
        # What is granted is loaded behind the wall, with the libraries beside it.
        place = package_folder(name)
        folders += [place, f"{place}.libs"] if place else []
    for folder in folders:
        wall += ["--ro-bind-try", folder, folder]
    return wall


class LocalServer(Connection):
    """A server that is a process of this machine, and the socket to it.

    Args:
        command: Starts it; it reads and writes its standard input and output.

    Raises:
        OSError: The command cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        ours, servers = socket.socketpair()
        # Closed here once the server has it: else the server would never hang up.
        with servers:
            self.process = subprocess.Popen(
                command,
                stdin=servers.fileno(),
                stdout=servers.fileno(),
                stderr=subprocess.DEVNULL,
                env=PROGRAM_ENVIRONMENT,
                cwd="/",
                # An interrupt typed at the terminal goes to its whole session: how a
                # run ends is for the owner alone to say.
                start_new_session=True,
            )
        super().__init__(ours, _end, self.process, ours)


def _end(process: "subprocess.Popen[bytes]", channel: socket.socket) -> None:
    # What runs below the server dies with it; see `child.die_with`.
    process.kill()
    process.wait()
    channel.close()


def _check_machine(name: str) -> None:
    """Raise SandboxUnavailable where there can be no filter of system calls."""
    if sys.platform != "linux":
        raise SandboxUnavailable(
            f"the {name} sandbox needs Linux, this is {sys.platform}."
        )
    filter_program(platform.machine())  # raises where it has no table of them
