"""The system-call filter of the sandboxed process, as a BPF program for the kernel.

Only the calls in `syscalls.json` pass: reading and writing open descriptors, memory,
clocks, its own signal handlers, exit; with a layer that guards files, reading or
writing them; with several processes, their start. Every other call fails with EPERM: an
honest program sees PermissionError, a probe learns nothing. A call by the interface of
another architecture (32-bit, x32), whose numbers mean other calls, kills.
"""

import json
import struct
from pathlib import Path
from typing import Any

from aipo_env.errors import SandboxUnavailable

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_IF_ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CALL_OFFSET, _ARCH_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
_ALLOW, _DENY, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
_X32 = 0x40000000
_CLONE3 = 435
_FORBIDDEN_BITS = {"openat": (2, 0o20001103), "clone": (0, 0x7E02A000)}
"""Argument and bits that must not be set in it: opening for writing, creating or
truncating (where a layer offers no scratch files); new namespaces, another parent,
tracing.
"""
FILE_CALLS: dict[str, tuple[str, ...]] = {
    "landlock": ("landlock",),
    "namespaces": ("landlock", "namespaces"),
}
"""The groups of `syscalls.json` that a layer adds to "seccomp"."""


def tables() -> dict[str, dict[str, Any]]:
    """Return each machine's system calls by group, and its "arch"."""
    text = Path(__file__).with_name("syscalls.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def filter_program(
    machine: str, layer: str = "seccomp", processes: bool = False
) -> bytes:
    """Return the filter for a machine as `platform.machine()` names it, 8 bytes an
    instruction.

    Args:
        layer: What guards files: "namespaces", "landlock", or nothing: then no file can
            be opened.
        processes: Whether threads and processes may be started.

    Raises:
        SandboxUnavailable: There is no table of system calls for this machine.
    """
    if machine not in (known := tables()):
        raise SandboxUnavailable(
            f"the process sandbox knows the system calls of {' and '.join(known)}, not"
            f" of {machine!r}. Run code tasks on such a machine."
        )
    groups = (
        "seccomp",
        *FILE_CALLS.get(layer, ()),
        *(("processes",) if processes else ()),
    )
    calls = {
        name: number
        for group in groups
        for name, number in known[machine][group].items()
    }
    checked = {
        name: _FORBIDDEN_BITS[name] for name in _FORBIDDEN_BITS.keys() & calls.keys()
    }
    if layer == "namespaces":
        del checked["openat"]
    plain = sorted(calls[name] for name in calls.keys() - checked.keys())
    size = len(plain) + 3 * len(checked) + 1  # up to the three returns
    program = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_JUMP_EQUAL, 1, 0, known[machine]["arch"]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _CALL_OFFSET),
        (_JUMP_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        *((_JUMP_EQUAL, size - place, 0, number) for place, number in enumerate(plain)),
    ]
    for place, (name, (argument, bits)) in enumerate(sorted(checked.items())):
        left = size - len(plain) - 3 * place - 3
        program += [
            (_JUMP_EQUAL, 0, 2, calls[name]),
            (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * argument),
            (_JUMP_IF_ANY, left, left + 1, bits),
        ]
    program += [
        # The C library falls back to clone, whose flags can be checked.
        (_JUMP_EQUAL, 2 if processes else 0, 0, _CLONE3),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _UNKNOWN),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
