"""Opens a sandbox, and trusts none that attempts to break out of it have got through.

The attempts are made on this machine, whose kernel and container may give less than
others do.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from aipo_env.errors import SandboxUnavailable
from aipo_env.registry import FIRST, choose, construct, parse_spec
from aipo_env.sandboxes.base import LAYERS, Limits, Program, RunResult, Sandbox
from aipo_env.sandboxes.docker_sandbox import DockerSandbox
from aipo_env.sandboxes.process import BubblewrapSandbox, ProcessSandbox

_START = """
import ctypes
CANARY, PARENT = {canary!r}, {parent}
libc = ctypes.CDLL(None, use_errno=True)
def check(escaped):
    if escaped: print("through")
"""
"""What stands above every attack: a file and a process of the host to get at."""
_THROUGH = b"through"
"""What an attack prints that got through; see `_START`."""
_LIMITS: dict[str, Any] = {"time_s": 20.0, "memory_mb": 128, "output_bytes": 2**18}
"""What an attack may use, where it does not bring its own limits."""

SANDBOXES: dict[str, Callable[..., Sandbox]] = {
    "process": ProcessSandbox,
    "bubblewrap": BubblewrapSandbox,
    "docker": DockerSandbox,
}
"""The sandboxes there are, by name."""
_AUTOMATIC = ("process", "docker")
"""What "auto" tries, in this order."""
_OPEN: dict[tuple[str, bool], Sandbox] = {}
"""Those that passed, by what they were asked for with."""
_OPENING = Lock()
"""Held while one is made and tested, so that callers share it."""


async def open_sandbox(spec: str = "auto", allow_unsafe: bool = False) -> Sandbox:
    """Return a sandbox, shared by the process, once it passed its self-test.

    Args:
        spec: "process", "bubblewrap", "docker" or "docker:IMAGE"; "auto" is the first
            of process and docker that holds. All take the weakest layer that is good
            enough: "process:minimum=namespaces".
        allow_unsafe: Where none holds, run programs in a process that may do whatever
            this one may; the layer is then "none".

    Raises:
        ConfigError: There is no sandbox of that name, or no such option.
        SandboxUnavailable: It cannot give its guarantees here; the message names what
            got through.
    """
    sandbox = _OPEN.get((spec, allow_unsafe))
    if sandbox:
        return sandbox
    # In a thread: it takes seconds, and the lock may be another event loop's.
    return await asyncio.to_thread(_open, spec, allow_unsafe)


def _open(spec: str, allow_unsafe: bool) -> Sandbox:
    key = (spec, allow_unsafe)
    spec_type, options = parse_spec(spec, "sandbox")
    if FIRST in options:
        options["image"] = options.pop(FIRST)
    names = _AUTOMATIC if spec_type == "auto" else (spec_type,)
    with _OPENING:
        # Another thread may have opened it while this one waited for the lock.
        if key in _OPEN:
            return _OPEN[key]
        sandbox = _first_that_holds(names, options, allow_unsafe)
        _OPEN[key] = sandbox
        return sandbox


def _first_that_holds(
    names: Sequence[str], options: dict[str, Any], allow_unsafe: bool
) -> Sandbox:
    faults = []
    for name in names:
        make = choose(SANDBOXES, name, "sandbox")
        try:
            sandbox: Sandbox = construct(make, options, f"sandbox {name!r}")
            asyncio.run(self_test(sandbox))
            return sandbox
        except SandboxUnavailable as error:
            faults.append(str(error))
    if not allow_unsafe:
        raise SandboxUnavailable(" ".join(faults))
    return ProcessSandbox(layers=("none",))


async def survey() -> dict[str, str]:
    """Return, for each sandbox and layer, that it holds on this machine, or why not."""
    makers: dict[str, Callable[..., Sandbox]] = {}
    for layer in LAYERS:
        makers[layer] = partial(ProcessSandbox, layers=(layer,))
    makers["bubblewrap"] = BubblewrapSandbox
    makers["docker"] = DockerSandbox
    findings = {}
    for name, make in makers.items():
        try:
            sandbox = await asyncio.to_thread(make)
            await self_test(sandbox)
            findings[name] = f"a sandbox that holds: {sandbox.layer}"
            sandbox.close()
        except SandboxUnavailable as error:
            findings[name] = str(error)
    return findings


async def self_test(sandbox: Sandbox) -> None:
    """Run the attacks of `breakouts.json` in a sandbox.

    Raises:
        SandboxUnavailable: One got through, or did not run.
    """
    path = Path(__file__).with_name("breakouts.json")
    attacks = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="aipo-") as folder:
        canary = Path(folder, "canary")
        canary.write_text("canary")
        start = _START.format(canary=str(canary), parent=os.getpid())
        runs = []
        for attack in attacks.values():
            limits = Limits(**_LIMITS | attack.get("limits", {}))
            program = Program(start + attack["source"])
            runs.append(sandbox.run(program, limits))
        results = await asyncio.gather(*runs)
    faults = []
    for name, result in zip(attacks, results, strict=True):
        fault = _fault(attacks[name], result)
        if fault:
            faults.append(f"{name} ({fault})")
    if faults:
        sandbox.close()
        raise SandboxUnavailable(
            f"the sandbox ({sandbox.layer}) does not hold on this machine:"
            f" {', '.join(faults)}. It needs Linux 4.14 with seccomp filters, and"
            " /proc; see that a container or its profile takes neither away."
        )


def _fault(attack: dict[str, Any], result: RunResult) -> str:
    """Return what is wrong with how an attack ended; empty when it was held."""
    if _THROUGH in result.stdout:
        return "got through"
    # An attack that never ran says nothing, so how it ended counts too: by itself,
    # denied by an exception, or by the limit it was made to reach.
    expected = ["ok", "runtime_error"]
    if "status" in attack:
        expected = [attack["status"]]
    if result.status in expected:
        return ""
    return f"{result.status}: {result.reason}"
