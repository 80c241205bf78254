"""Opens a sandbox, and trusts none that has not held against attempts to break out of it on this machine."""

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from aipo_env.errors import SandboxUnavailable
from aipo_env.registry import choose
from aipo_env.sandboxes.base import Limits, Program, RunResult, Sandbox
from aipo_env.sandboxes.process import ProcessSandbox

_START = """
import ctypes
CANARY, PARENT = {canary!r}, {parent}
libc = ctypes.CDLL(None, use_errno=True)
def check(escaped):
    if escaped: print("through")
"""
_LIMITS: dict[str, Any] = {"time_s": 20.0, "memory_mb": 128, "output_bytes": 2**18}


_TESTED: dict[str, Sandbox] = {}
_OPENING: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Task[Sandbox]]] = WeakKeyDictionary()


async def open_sandbox(name: str = "auto") -> Sandbox:
    """Return the sandbox of a name ("auto" or "process"), shared by the process, once it passed its self-test.

    Raises:
        ConfigError: There is no sandbox of that name.
        SandboxUnavailable: It cannot give its guarantees here; the message names what got through.
    """
    if name in _TESTED:
        return _TESTED[name]
    opening = _OPENING.setdefault(asyncio.get_running_loop(), {})
    if name not in opening or opening[name].cancelled():
        opening[name] = asyncio.create_task(_open(name))
    return await asyncio.shield(opening[name])


async def _open(name: str) -> Sandbox:
    sandbox = choose({"auto": ProcessSandbox, "process": ProcessSandbox}, name, "sandbox")()
    await self_test(sandbox)
    return _TESTED.setdefault(name, sandbox)


async def self_test(sandbox: Sandbox) -> None:
    """Run the attacks of `breakouts.json` in a sandbox.

    Raises:
        SandboxUnavailable: One got through, or did not run.
    """
    attacks = json.loads(Path(__file__).with_name("breakouts.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="aipo-") as folder:
        canary = Path(folder, "canary")
        canary.write_text("canary")
        start = _START.format(canary=str(canary), parent=os.getpid())
        limits = [Limits(**_LIMITS | attack.get("limits", {})) for attack in attacks.values()]
        programs = [Program(start + attack["source"]) for attack in attacks.values()]
        results = await asyncio.gather(*map(sandbox.run, programs, limits))
    pairs = zip(attacks, results, strict=True)
    faults = [f"{name} ({fault})" for name, result in pairs if (fault := _fault(attacks[name], result))]
    if faults:
        raise SandboxUnavailable(
            f"the sandbox ({sandbox.layer}) does not hold on this machine: {', '.join(faults)}. It needs Linux "
            "4.14 with seccomp filters, and /proc; see that a container or its profile takes neither away."
        )


def _fault(attack: dict[str, Any], result: RunResult) -> str:
    """Return what is wrong with how an attack ended; empty when it was held."""
    if b"through" in result.stdout:
        return "got through"
    expected = (attack["status"],) if "status" in attack else ("ok", "runtime_error")
    return "" if result.status in expected else f"{result.status}: {result.reason}"
