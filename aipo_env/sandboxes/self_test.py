"""Opens a sandbox, and trusts none that has not held against attempts to break out of
it on this machine.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable
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
_LIMITS: dict[str, Any] = {"time_s": 20.0, "memory_mb": 128, "output_bytes": 2**18}


SANDBOXES: dict[str, Callable[..., Sandbox]] = {
    "process": ProcessSandbox,
    "bubblewrap": BubblewrapSandbox,
    "docker": DockerSandbox,
}
_OPEN: dict[tuple[str, bool], Sandbox] = {}
_OPENING = Lock()


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
    if opened := _OPEN.get((spec, allow_unsafe)):
        return opened
    return await asyncio.to_thread(_open, spec, allow_unsafe)


def _open(spec: str, allow_unsafe: bool) -> Sandbox:
    kind, options = parse_spec(spec, "sandbox")
    if FIRST in options:
        options["image"] = options.pop(FIRST)
    faults = []
    with _OPENING:
        if (spec, allow_unsafe) in _OPEN:
            return _OPEN[spec, allow_unsafe]
        for name in ("process", "docker") if kind == "auto" else (kind,):
            make = choose(SANDBOXES, name, "sandbox")
            try:
                sandbox = construct(make, options, f"sandbox {name!r}")
                asyncio.run(self_test(sandbox))
                return _OPEN.setdefault((spec, allow_unsafe), sandbox)
            except SandboxUnavailable as error:
                faults.append(str(error))
        if not allow_unsafe:
            raise SandboxUnavailable(" ".join(faults))
        return _OPEN.setdefault((spec, allow_unsafe), ProcessSandbox(layers=("none",)))


async def survey() -> dict[str, str]:
    """Return, for each sandbox and layer, that it holds on this machine, or why not."""
    found = {}
    layers: dict[str, Callable[..., Sandbox]]
    layers = {layer: partial(ProcessSandbox, layers=(layer,)) for layer in LAYERS}
    for name, make in (
        layers | {"bubblewrap": BubblewrapSandbox, "docker": DockerSandbox}
    ).items():
        try:
            sandbox = await asyncio.to_thread(make)
            await self_test(sandbox)
            found[name] = f"a sandbox that holds: {sandbox.layer}"
            sandbox.close()
        except SandboxUnavailable as error:
            found[name] = str(error)
    return found


async def self_test(sandbox: Sandbox) -> None:
    """Run the attacks of `breakouts.json` in a sandbox.

    Raises:
        SandboxUnavailable: One got through, or did not run.
    """
    attacks = json.loads(
        Path(__file__).with_name("breakouts.json").read_text(encoding="utf-8")
    )
    with tempfile.TemporaryDirectory(prefix="aipo-") as folder:
        canary = Path(folder, "canary")
        canary.write_text("canary")
        start = _START.format(canary=str(canary), parent=os.getpid())
        limits = [
            Limits(**_LIMITS | attack.get("limits", {})) for attack in attacks.values()
        ]
        programs = [Program(start + attack["source"]) for attack in attacks.values()]
        results = await asyncio.gather(*map(sandbox.run, programs, limits))
    pairs = zip(attacks, results, strict=True)
    faults = [
        f"{name} ({fault})"
        for name, result in pairs
        if (fault := _fault(attacks[name], result))
    ]
    if faults:
        sandbox.close()
        raise SandboxUnavailable(
            f"the sandbox ({sandbox.layer}) does not hold on this machine:"
            f" {', '.join(faults)}. It needs Linux 4.14 with seccomp filters, and"
            " /proc; see that a container or its profile takes neither away."
        )


def _fault(attack: dict[str, Any], result: RunResult) -> str:
    """Return what is wrong with how an attack ended; empty when it was held."""
    if b"through" in result.stdout:
        return "got through"
    expected = (attack["status"],) if "status" in attack else ("ok", "runtime_error")
    return "" if result.status in expected else f"{result.status}: {result.reason}"
